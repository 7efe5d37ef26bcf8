//! Over gRPC.

use sconce_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use tonic::transport::{Channel, Endpoint};

use crate::{Connection, INPUT, MODEL, VALUES, tensor};

#[derive(Default)]
pub(crate) struct Kept(Option<GrpcInferenceServiceClient<Channel>>);

impl Connection for Kept {
    async fn ask(&mut self, authority: &str, rows: usize) -> Result<String, String> {
        let client = match &mut self.0 {
            Some(client) => client,
            none => {
                let endpoint = Endpoint::from_shared(format!("http://{authority}"))
                    .map_err(|error| error.to_string())?;
                let channel =
                    endpoint.connect().await.map_err(|error| format!("no connection: {error:?}"))?;
                none.insert(GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX))
            }
        };
        let shape = vec![i64::try_from(rows).unwrap_or(i64::MAX), VALUES as i64];
        let input =
            InferInputTensor { name: INPUT.into(), datatype: "FP32".into(), shape, ..Default::default() };
        let request = ModelInferRequest {
            model_name: MODEL.into(),
            inputs: vec![input],
            raw_input_contents: vec![tensor(rows).into()],
            ..Default::default()
        };
        let answer = client.model_infer(request).await;
        answer.map(|answer| answer.into_inner().model_version).map_err(|status| status.to_string())
    }
}
