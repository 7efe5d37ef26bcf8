//! The system shared memory extension over gRPC.

use std::collections::HashMap;

use sconce_identity::Principal;
use sconce_proto::inference::{
    InferParameter, SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferRequestedOutputTensor, system_shared_memory_status_response::RegionStatus,
};

use super::{
    super::{
        Server,
        error::ServeError,
        shared_memory::{Access, Place, Sink, Sinks},
    },
    asked::whole,
};

pub(super) fn status(
    server: &Server,
    request: &SystemSharedMemoryStatusRequest,
    caller: Option<&Principal>,
) -> Result<SystemSharedMemoryStatusResponse, ServeError> {
    let regions = server.regions(caller)?.status(&request.name)?;
    let told = regions.into_iter().map(|(name, region)| {
        let (key, offset, byte_size) = (region.key.clone(), region.offset, region.byte_size);
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    });
    Ok(SystemSharedMemoryStatusResponse { regions: told.collect() })
}

pub(super) fn register(
    server: &Server,
    request: &SystemSharedMemoryRegisterRequest,
    caller: Option<&Principal>,
) -> Result<(), ServeError> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    server.regions(caller)?.register(name, key, *offset, *byte_size)
}

pub(super) fn unregister(
    server: &Server,
    request: &SystemSharedMemoryUnregisterRequest,
    caller: Option<&Principal>,
) -> Result<(), ServeError> {
    server.regions(caller)?.unregister(&request.name);
    Ok(())
}

/// The place that a tensor's parameters name, if they name one.
pub(super) fn place(
    parameters: &HashMap<String, InferParameter>,
    tensor: &str,
) -> Result<Option<Place>, ServeError> {
    let text = |name: &str| {
        parameters.get(name).map(|value| match &value.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => Ok(text.as_str()),
            None => Ok(""),
            Some(_) => Err(()),
        })
    };
    Place::read(text, |name| parameters.get(name).map(whole))
        .map_err(|reason| ServeError::Malformed(format!("`{tensor}`: {reason}")))
}

/// Where outputs go that are not sent.
pub(super) fn sinks(
    outputs: &[InferRequestedOutputTensor],
    access: &Access<'_>,
) -> Result<Sinks, ServeError> {
    let mut sinks = Sinks::new();
    for output in outputs {
        if let Some(place) = place(&output.parameters, &output.name)? {
            sinks.insert(output.name.clone(), access.sink(place)?);
        }
    }
    Ok(sinks)
}

/// Where an output went, as parameters of it.
pub(super) fn told(sink: &Sink, bytes: usize) -> HashMap<String, InferParameter> {
    let whole = |number| i64::try_from(number).unwrap_or(i64::MAX);
    [
        ("shared_memory_region", ParameterChoice::StringParam(sink.place.region.clone())),
        ("shared_memory_offset", ParameterChoice::Int64Param(whole(sink.place.offset))),
        ("shared_memory_byte_size", ParameterChoice::Int64Param(whole(bytes as u64))),
    ]
    .map(|(name, choice)| (name.to_owned(), InferParameter { parameter_choice: Some(choice) }))
    .into()
}
