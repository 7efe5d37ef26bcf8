//! Reads one request of gRPC's: what its call says, and its message.

use http::{Extensions, HeaderMap};
use sconce_catalog::{Datatype, Lane};
use sconce_identity::Principal;
use sconce_proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferRequestedOutputTensor,
};
use tonic::metadata::MetadataMap;

use super::{
    super::{
        Server,
        arguments::{self, Argument},
        deadline::{Due, deadline},
        error::ServeError,
        http::{PIN, pinned},
        infer::{Infer, Inputs},
        measure,
        parameters::{self, Terms},
        raw,
        routed::{ROUTE, Routed},
        sequence::{Sequence, Value},
        shared_memory::Sinks,
    },
    contents, shared_memory, some,
};

/// What a call says besides its messages, the same for each that a stream has.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) lane: Lane,
    pin: Option<String>,
    routed: Option<Routed>,
    due: Option<Due>,
    caller: Option<Principal>,
    headers: HeaderMap,
}

impl Call {
    pub(super) fn read(metadata: MetadataMap, extensions: &Extensions) -> Result<Self, ServeError> {
        let lane = measure::lane(extensions);
        let caller = extensions.get::<Principal>().cloned();
        let text = |name: &str| {
            // Nobody asks there for what it says, so neither for what is wrong with it.
            if lane == Lane::Shadow {
                return Ok(None);
            }
            let value = metadata.get(name).map(|value| value.to_str()).transpose();
            value.map_err(|_| ServeError::Malformed(format!("the metadata {name} is not text")))
        };
        let pin = text(PIN)?.map(str::to_owned);
        let routed = Routed::read(text(ROUTE)?, caller.as_ref())?;
        let due = extensions.get().copied();
        Ok(Self { lane, pin, routed, due, caller, headers: metadata.into_headers() })
    }

    /// The request that this message of the call is, and where those of its outputs go that are not sent.
    pub(super) fn ask(
        self,
        server: &Server,
        message: ModelInferRequest,
    ) -> Result<(Infer, Sinks), ServeError> {
        let access = server.access(self.caller.as_ref());
        let Terms { priority, timeout } = Terms::read(|name| message.parameters.get(name).map(whole))?;
        let sequence =
            Sequence::read(|name| message.parameters.get(name).and_then(value), self.caller.as_ref())?;
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
            lane: self.lane,
            pin: pinned(some(message.model_version), self.pin.as_deref())?,
            routed: self.routed,
            headers: self.headers,
            deadline: deadline(self.due, timeout)?,
            priority,
            sequence,
            id: some(message.id),
            inputs: Inputs::Named(inputs),
            outputs: message.outputs.into_iter().map(|output| output.name).collect(),
            classes,
            arguments,
        };
        Ok((infer, sinks))
    }
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

fn value(value: &InferParameter) -> Option<Value<'_>> {
    Some(match value.parameter_choice.as_ref()? {
        ParameterChoice::BoolParam(flag) => Value::Bool(*flag),
        ParameterChoice::Int64Param(number) => u64::try_from(*number).map_or(Value::Other, Value::Whole),
        ParameterChoice::Uint64Param(number) => Value::Whole(*number),
        ParameterChoice::StringParam(text) => Value::Text(text),
        ParameterChoice::DoubleParam(_) => Value::Other,
    })
}
