//! Reads one request of gRPC's: what its call says, and its message.

use http::{Extensions, HeaderMap};
use sconce_catalog::{Datatype, Lane};
use sconce_identity::Principal;
use sconce_proto::inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice};
use tonic::metadata::MetadataMap;

use super::{
    super::{
        deadline::{Due, deadline},
        error::ServeError,
        http::{PIN, pinned},
        infer::{Infer, Inputs},
        measure,
        parameters::{self, Terms},
        raw,
        routed::{ROUTE, Routed},
        sequence::{Sequence, Value},
    },
    contents, some,
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

    /// The request that this message of the call is.
    pub(super) fn ask(self, message: ModelInferRequest) -> Result<Infer, ServeError> {
        parameters::check(set(&message))?;
        let Terms { priority, timeout } = Terms::read(|name| message.parameters.get(name).map(whole))?;
        let sequence =
            Sequence::read(|name| message.parameters.get(name).and_then(value), self.caller.as_ref())?;
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
        Ok(Infer {
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
        })
    }
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

fn value(value: &InferParameter) -> Option<Value<'_>> {
    Some(match value.parameter_choice.as_ref()? {
        ParameterChoice::BoolParam(flag) => Value::Bool(*flag),
        ParameterChoice::Int64Param(number) => u64::try_from(*number).map_or(Value::Other, Value::Whole),
        ParameterChoice::Uint64Param(number) => Value::Whole(*number),
        ParameterChoice::StringParam(text) => Value::Text(text),
        ParameterChoice::DoubleParam(_) => Value::Other,
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
