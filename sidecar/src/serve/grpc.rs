//! The protocol over gRPC, with gRPC's own health and reflection services.

mod answered;
mod asked;
mod contents;
mod health;
mod model_config;
mod repository;
mod settings;
mod shared_memory;
mod statistics;
pub(super) mod stream;

use axum::Router;
use futures::stream::BoxStream;
use sconce_proto::{
    FILE_DESCRIPTOR_SET,
    inference::{
        CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest,
        CudaSharedMemoryUnregisterResponse, LogSettingsRequest, LogSettingsResponse, ModelConfigRequest,
        ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest,
        ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse,
        RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
        ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, SystemSharedMemoryRegisterRequest,
        SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
        SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
        SystemSharedMemoryUnregisterResponse, TraceSettingRequest, TraceSettingResponse,
        grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
        model_metadata_response::TensorMetadata,
    },
};
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding, service::Routes};
use tonic_health::pb::health_server::HealthServer;

use self::asked::Call;
use super::{
    Server,
    describe::{TensorDescription, extensions},
    error::ServeError,
    measure::{self, Measure, Protocol},
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
        request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let extensions = extensions(request.extensions().get());
        let config = &self.0.0.config;
        Ok(Response::new(ServerMetadataResponse {
            name: config.server_name.clone(),
            version: config.server_version.clone(),
            extensions: extensions.into_iter().map(str::to_owned).collect(),
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
        let result = match Call::read(metadata, &extensions).and_then(|call| call.ask(&self.0, message)) {
            Ok((infer, sinks)) => {
                let answer = self.0.infer(infer, &mut measure).await;
                answer.and_then(|answer| answered::write(answer, &sinks))
            }
            Err(error) => Err(error),
        };
        measure.ended(&result);
        Ok(result?)
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        Ok(Response::new(model_config::answer(&self.0, request.into_inner())?))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        Ok(Response::new(statistics::answer(&self.0, request.into_inner())?))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        Ok(Response::new(repository::index(&self.0, request.into_inner())?))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        Ok(Response::new(repository::load(&self.0, request.into_inner())?))
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        let (_, extensions, message) = request.into_parts();
        Ok(Response::new(settings::log(&self.0, message, extensions.get())?))
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        Ok(Response::new(settings::trace(&self.0, request.into_inner())?))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        let caller = request.extensions().get();
        Ok(Response::new(shared_memory::status(&self.0, request.get_ref(), caller)?))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        shared_memory::register(&self.0, request.get_ref(), request.extensions().get())?;
        Ok(Response::new(Default::default()))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        shared_memory::unregister(&self.0, request.get_ref(), request.extensions().get())?;
        Ok(Response::new(Default::default()))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Err(repository::unload(&self.0, request.into_inner()).into())
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
