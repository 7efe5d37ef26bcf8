//! The protocol over gRPC, with gRPC's own health and reflection services.

mod asked;
mod contents;
mod health;
pub(super) mod stream;

use axum::Router;
use futures::stream::BoxStream;
use sconce_proto::{
    FILE_DESCRIPTOR_SET,
    inference::{
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
        ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, ServerLiveRequest,
        ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
        ServerReadyResponse,
        grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
        model_infer_response::InferOutputTensor,
        model_metadata_response::TensorMetadata,
    },
};
use tonic::{
    Request, Response, Status, Streaming, codec::CompressionEncoding, metadata::MetadataValue,
    service::Routes,
};
use tonic_health::pb::health_server::HealthServer;

use self::asked::Call;
use super::{
    Server,
    describe::{EXTENSIONS, TensorDescription},
    error::ServeError,
    http::VERSION,
    infer::Answer,
    measure::{self, Measure, Protocol},
    raw,
};

/// Every gRPC method.
pub(super) fn routes(server: Server) -> Router {
    let inference = GrpcInferenceServiceServer::new(Inference(server.clone()))
        .max_decoding_message_size(server.0.config.max_body_bytes)
        // Answers go as they are: clients name gzip as acceptable whether or not they want it.
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        // A model's answer is as large as it is.
        .max_encoding_message_size(usize::MAX);
    let routes = Routes::new(inference).add_service(HealthServer::new(health::Probe(server)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by the compiler that made the code");
    // tonic's own fallback would answer every unknown path, HTTP's too.
    routes.add_service(reflection).into_axum_router().reset_fallback()
}

struct Inference(Server);

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        match self.0.check_ready(&name, some(version).as_deref()) {
            Ok(()) => Ok(Response::new(ModelReadyResponse { ready: true })),
            Err(ServeError::VersionNotReady { .. } | ServeError::ModelNotReady { .. }) => {
                Ok(Response::new(ModelReadyResponse { ready: false }))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let config = &self.0.0.config;
        Ok(Response::new(ServerMetadataResponse {
            name: config.server_name.clone(),
            version: config.server_version.clone(),
            extensions: EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let described = self.0.describe(&name, some(version).as_deref())?;
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let properties = described.properties.into_iter().map(owned);
        let tensors = |fields: Vec<TensorDescription>| {
            let tensor = |TensorDescription { name, datatype, shape }| TensorMetadata {
                name,
                datatype: String::from(datatype),
                shape,
            };
            fields.into_iter().map(tensor).collect()
        };
        Ok(Response::new(ModelMetadataResponse {
            name: described.name,
            versions: described.versions,
            platform: described.platform.to_owned(),
            inputs: tensors(described.inputs),
            outputs: tensors(described.outputs),
            properties: properties.collect(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let mut measure = Measure::begin(Protocol::Grpc, measure::lane(request.extensions()));
        let (metadata, extensions, message) = request.into_parts();
        let result = match Call::read(metadata, &extensions).and_then(|call| call.ask(message)) {
            Ok(infer) => self.0.infer(infer, &mut measure).await,
            Err(error) => Err(error),
        };
        measure.ended(&result);
        Ok(write(result?))
    }

    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Ok(Response::new(stream::answers(self.0.clone(), request)?))
    }
}

/// protobuf's empty text is what nobody wrote.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn write(answer: Answer) -> Response<ModelInferResponse> {
    let mut response = Response::new(message(answer));
    if let Ok(value) = MetadataValue::try_from(&response.get_ref().model_version) {
        response.metadata_mut().insert(VERSION, value);
    }
    response
}

/// The answer on the wire.
fn message(answer: Answer) -> ModelInferResponse {
    let version = answer.version.to_string();
    let mut reply = ModelInferResponse {
        model_name: answer.model,
        model_version: version,
        id: answer.id.unwrap_or_default(),
        ..Default::default()
    };
    for output in answer.outputs {
        let sizes = output.tensor.shape.iter();
        reply.outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.datatype.name().to_owned(),
            // A size that exists in memory.
            shape: sizes.map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            ..Default::default()
        });
        // Always raw: clients read nothing else reliably.
        reply.raw_output_contents.push(raw::encode(output.tensor.data));
    }
    reply
}
