//! The protocol over gRPC, with gRPC's own health and reflection services.

mod contents;
mod health;
mod model_config;
mod repository;
mod settings;
mod statistics;

use std::collections::HashMap;

use axum::Router;
use sconce_catalog::{Datatype, Lane};
use sconce_identity::Principal;
use sconce_proto::{
    FILE_DESCRIPTOR_SET,
    inference::{
        InferParameter, LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse,
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
        ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
        RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
        ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
        ServerReadyRequest, ServerReadyResponse, TraceSettingRequest, TraceSettingResponse,
        grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
        infer_parameter::ParameterChoice,
        model_infer_request::InferRequestedOutputTensor,
        model_infer_response::InferOutputTensor,
        model_metadata_response::TensorMetadata,
    },
};
use tonic::{
    Request, Response, Status, codec::CompressionEncoding, metadata::MetadataValue, service::Routes,
};
use tonic_health::pb::health_server::HealthServer;

use super::{
    Server,
    deadline::deadline,
    describe::{EXTENSIONS, TensorDescription},
    error::ServeError,
    http::{PIN, VERSION, pinned},
    infer::{Answer, Infer, Inputs},
    measure::{self, Measure, Protocol},
    parameters::{self, Terms},
    raw,
    routed::{ROUTE, Routed},
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
            properties: HashMap::new(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let mut measure = Measure::begin(Protocol::Grpc, measure::lane(request.extensions()));
        let result = match read(request) {
            Ok(infer) => self.0.infer(infer, &mut measure).await,
            Err(error) => Err(error),
        };
        measure.ended(&result);
        Ok(write(result?))
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

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Err(repository::unload(&self.0, request.into_inner()).into())
    }
}

/// protobuf's empty text is what nobody wrote.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn read(request: Request<ModelInferRequest>) -> Result<Infer, ServeError> {
    let lane = measure::lane(request.extensions());
    let text = |name: &str| {
        // Nobody asks there for what it says, so neither for what is wrong with it.
        if lane == Lane::Shadow {
            return Ok(None);
        }
        let value = request.metadata().get(name).map(|value| value.to_str()).transpose();
        value.map_err(|_| ServeError::Malformed(format!("the metadata {name} is not text")))
    };
    let pin = text(PIN)?.map(str::to_owned);
    let routed = Routed::read(text(ROUTE)?, request.extensions().get::<Principal>())?;
    let due = request.extensions().get().copied();
    let (metadata, _, message) = request.into_parts();
    parameters::check(set(&message))?;
    let Terms { priority, timeout } = Terms::read(|name| message.parameters.get(name).map(whole))?;
    let (given, raw) = (message.inputs.len(), message.raw_input_contents.len());
    if raw > 0 && raw != given {
        return Err(ServeError::Malformed(format!(
            "there are {given} inputs and {raw} raw_input_contents; send one for each input, or none"
        )));
    }
    let mut raws = message.raw_input_contents.into_iter();
    let mut inputs = Vec::with_capacity(given);
    for input in message.inputs {
        let named = |reason: String| ServeError::Malformed(format!("input `{}`: {reason}", input.name));
        let datatype: Datatype = input
            .datatype
            .parse()
            .map_err(|error: sconce_catalog::UnknownDatatype| named(error.to_string()))?;
        let tensor = match (raws.next(), input.contents) {
            (Some(_), Some(contents)) if !contents::is_empty(&contents) => {
                Err("it has both `contents` and raw_input_contents".to_owned())
            }
            (Some(bytes), _) => raw::decode(datatype, &input.shape, bytes),
            (None, contents) => contents::decode(datatype, &input.shape, contents.unwrap_or_default()),
        };
        let tensor = tensor.map_err(named)?;
        inputs.push((input.name, tensor));
    }
    let count = |output: &InferRequestedOutputTensor| {
        let parameter = output.parameters.get(parameters::CLASSIFICATION);
        (output.name.clone(), parameter.map(whole))
    };
    let classes = parameters::classes(message.outputs.iter().map(count))?;
    Ok(Infer {
        model: message.model_name,
        lane,
        pin: pinned(some(message.model_version), pin.as_deref())?,
        routed,
        headers: metadata.into_headers(),
        deadline: deadline(due, timeout)?,
        priority,
        id: some(message.id),
        inputs: Inputs::Named(inputs),
        outputs: message.outputs.into_iter().map(|output| output.name).collect(),
        classes,
    })
}

/// Every parameter that is set, wherever it stands.
fn set(message: &ModelInferRequest) -> impl Iterator<Item = &str> {
    let inputs = message.inputs.iter().map(|input| &input.parameters);
    let outputs = message.outputs.iter().map(|output| &output.parameters);
    let all = [&message.parameters].into_iter().chain(inputs).chain(outputs);
    all.flatten().filter(|(_, value)| !is_nothing(value)).map(|(name, _)| name.as_str())
}

/// As a whole number from 0 on.
fn whole(value: &InferParameter) -> Result<u64, ()> {
    match value.parameter_choice {
        None => Ok(0),
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).map_err(drop),
        Some(ParameterChoice::Uint64Param(number)) => Ok(number),
        Some(_) => Err(()),
    }
}

/// Whether it says what it would say by being absent.
fn is_nothing(value: &InferParameter) -> bool {
    match &value.parameter_choice {
        None => true,
        Some(ParameterChoice::BoolParam(flag)) => !flag,
        Some(ParameterChoice::Int64Param(number)) => *number == 0,
        Some(ParameterChoice::Uint64Param(number)) => *number == 0,
        Some(ParameterChoice::StringParam(text)) => text.is_empty(),
        Some(ParameterChoice::DoubleParam(_)) => false,
    }
}

fn write(answer: Answer) -> Response<ModelInferResponse> {
    let version = answer.version.to_string();
    let mut reply = ModelInferResponse {
        model_name: answer.model,
        model_version: version.clone(),
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
    let mut response = Response::new(reply);
    if let Ok(value) = MetadataValue::try_from(version) {
        response.metadata_mut().insert(VERSION, value);
    }
    response
}
