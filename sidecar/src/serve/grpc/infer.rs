//! Inference requests over gRPC: from messages and to messages.

use std::collections::HashMap;

use bytes::Bytes;
use sconce_catalog::{Datatype, Lane};
use sconce_identity::Principal;
use sconce_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_request::InferRequestedOutputTensor, model_infer_response::InferOutputTensor,
};
use tonic::{Request, Response, metadata::MetadataValue};

use super::{
    super::{
        Server,
        arguments::{self, Argument},
        deadline::deadline,
        error::ServeError,
        http::{PIN, VERSION, pinned},
        infer::{Answer, Infer, Inputs},
        measure,
        parameters::{self, Terms},
        raw,
        routed::{ROUTE, Routed},
        shared_memory::Sinks,
    },
    contents, shared_memory, some,
};

/// The request in a message, and where those of its outputs go that are not sent.
pub(super) fn read(
    server: &Server,
    request: Request<ModelInferRequest>,
) -> Result<(Infer, Sinks), ServeError> {
    let lane = measure::lane(request.extensions());
    let access = server.access(request.extensions().get());
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
    let places = message.inputs.iter().map(|input| shared_memory::place(&input.parameters, &input.name));
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let sent = places.iter().filter(|place| place.is_none()).count();
    let raw = message.raw_input_contents.len();
    if raw > 0 && raw != sent {
        return Err(ServeError::Malformed(format!(
            "there are {sent} inputs and {raw} raw_input_contents; send one for each input that is not in \
             shared memory, or none"
        )));
    }
    let mut raws = message.raw_input_contents.into_iter();
    let mut inputs = Vec::with_capacity(places.len());
    for (input, place) in message.inputs.into_iter().zip(places) {
        let named = |reason: String| ServeError::Malformed(format!("input `{}`: {reason}", input.name));
        let datatype: Datatype = input
            .datatype
            .parse()
            .map_err(|error: sconce_catalog::UnknownDatatype| named(error.to_string()))?;
        let bytes = place.map_or_else(|| Ok(raws.next()), |place| access.read(&place).map(Some))?;
        let tensor = match (bytes, input.contents) {
            (Some(_), Some(contents)) if !contents::is_empty(&contents) => {
                Err("it has both `contents` and raw_input_contents, or a shared_memory_region".to_owned())
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
    let own = message.parameters.iter().filter(|(name, _)| arguments::is_free(name));
    let arguments = own.filter_map(|(name, value)| Some((name.clone(), argument(value)?))).collect();
    let sinks = shared_memory::sinks(&message.outputs, &access)?;
    let infer = Infer {
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
        arguments,
    };
    Ok((infer, sinks))
}

/// Every parameter that is set, wherever it stands.
fn set(message: &ModelInferRequest) -> impl Iterator<Item = &str> {
    let inputs = message.inputs.iter().map(|input| &input.parameters);
    let outputs = message.outputs.iter().map(|output| &output.parameters);
    let all = [&message.parameters].into_iter().chain(inputs).chain(outputs);
    all.flatten().filter(|(_, value)| !is_nothing(value)).map(|(name, _)| name.as_str())
}

/// As a whole number from 0 on.
pub(super) fn whole(value: &InferParameter) -> Result<u64, ()> {
    match value.parameter_choice {
        None => Ok(0),
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).map_err(drop),
        Some(ParameterChoice::Uint64Param(number)) => Ok(number),
        Some(_) => Err(()),
    }
}

/// As an argument of the model's; `None` where it can be none.
fn argument(value: &InferParameter) -> Option<Argument> {
    Some(match value.parameter_choice.as_ref()? {
        ParameterChoice::BoolParam(flag) => Argument::Bool(*flag),
        ParameterChoice::Int64Param(number) => Argument::Int(*number),
        ParameterChoice::Uint64Param(number) => Argument::Int(i64::try_from(*number).ok()?),
        ParameterChoice::DoubleParam(number) => Argument::Float(*number),
        ParameterChoice::StringParam(text) => Argument::Text(text.clone()),
    })
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

/// The message of an answer.
pub(super) fn write(answer: Answer, sinks: &Sinks) -> Result<Response<ModelInferResponse>, ServeError> {
    let version = answer.version.to_string();
    let mut reply = ModelInferResponse {
        model_name: answer.model,
        model_version: version.clone(),
        id: answer.id.unwrap_or_default(),
        ..Default::default()
    };
    for output in answer.outputs {
        let sizes = output.tensor.shape.iter();
        let mut bytes = raw::encode(output.tensor.data);
        let mut parameters = HashMap::new();
        if let Some(sink) = sinks.get(&*output.name) {
            sink.write(&output.name, &bytes).map_err(ServeError::Malformed)?;
            parameters = shared_memory::told(sink, bytes.len());
            // Clients find an output's bytes by its position, so what has none takes one all the same.
            bytes = Bytes::new();
        }
        reply.outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.datatype.name().to_owned(),
            // A size that exists in memory.
            shape: sizes.map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            parameters,
            ..Default::default()
        });
        // Always raw: clients read nothing else reliably.
        reply.raw_output_contents.push(bytes);
    }
    let mut response = Response::new(reply);
    if let Ok(value) = MetadataValue::try_from(version) {
        response.metadata_mut().insert(VERSION, value);
    }
    Ok(response)
}
