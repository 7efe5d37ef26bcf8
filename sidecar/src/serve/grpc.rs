//! The Open Inference Protocol over gRPC.

mod contents;

use sconce_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    model_metadata_response::TensorMetadata,
};
use tonic::{Request, Response, Status};

use super::{Server, metadata};

pub(super) fn service(server: Server) -> GrpcInferenceServiceServer<Grpc> {
    let limit = server.config.max_body_bytes;
    GrpcInferenceServiceServer::new(Grpc(server))
        // tonic's default of 4 MiB is less than one image batch.
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
}

pub(super) struct Grpc(Server);

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
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
        let ready = self.0.is_model_ready(&name, pin(&version))?;
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: metadata::SERVER_NAME.into(),
            version: metadata::SERVER_VERSION.into(),
            extensions: metadata::EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let about = self.0.metadata(&name, pin(&version))?;
        let tensor = |t: metadata::TensorMetadata| TensorMetadata {
            name: t.name,
            datatype: t.datatype.to_owned(),
            shape: t.shape,
        };
        Ok(Response::new(ModelMetadataResponse {
            name: about.name,
            versions: about.versions,
            platform: about.platform.to_owned(),
            inputs: about.inputs.into_iter().map(tensor).collect(),
            outputs: about.outputs.into_iter().map(tensor).collect(),
            properties: Default::default(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let pinned =
            request.metadata().get("x-sconce-pin").and_then(|pin| pin.to_str().ok()).map(str::to_owned);
        let request = request.into_inner();
        let (model, id) = (request.model_name.clone(), request.id.clone());
        let mut infer = contents::read(request)?;
        infer.pin = infer.pin.or(pinned);
        let answer = self.0.infer(infer).await?;
        let version = answer.version.to_string();
        let mut response = Response::new(contents::write(model, id, answer));
        if let Ok(value) = version.parse() {
            response.metadata_mut().insert("x-sconce-version", value);
        }
        Ok(response)
    }
}

/// In these messages no version is an empty one.
fn pin(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}
