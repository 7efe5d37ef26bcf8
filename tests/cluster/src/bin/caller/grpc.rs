//! Over gRPC.

use sconce_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use tonic::{
    Code,
    metadata::AsciiMetadataKey,
    transport::{Channel, Endpoint},
};

use crate::{Connection, INPUT, MODEL, Question, Unanswered, VALUES, tensor};

#[derive(Default)]
pub(crate) struct Kept(Option<GrpcInferenceServiceClient<Channel>>);

impl Connection for Kept {
    async fn ask(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        let Question { authority, rows, .. } = *question;
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
        let mut request = tonic::Request::new(ModelInferRequest {
            model_name: MODEL.into(),
            inputs: vec![input],
            raw_input_contents: vec![tensor(rows).into()],
            ..Default::default()
        });
        if let Some((header, person)) = &question.person {
            let header =
                AsciiMetadataKey::from_bytes(header.as_bytes()).map_err(|error| error.to_string())?;
            request.metadata_mut().insert(header, person.parse().map_err(|_| "no metadata".to_owned())?);
        }
        let answer = client.model_infer(request).await;
        match answer {
            Ok(answer) => Ok(answer.into_inner().model_version),
            Err(status) if status.code() == Code::ResourceExhausted => Err(Unanswered::Refused),
            Err(status) => Err(status.to_string().into()),
        }
    }
}
