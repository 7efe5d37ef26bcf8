//! Reads the body of an inference request: JSON, tensors behind it, or one tensor alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sconce_catalog::Datatype;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{
    super::{
        Server,
        arguments::{self, Argument, Arguments},
        deadline::deadline,
        error::ServeError,
        infer::{Infer, Inputs},
        parameters::{self, Terms},
        raw,
        sequence::{Sequence, Value},
        shared_memory::{Access, Place, Sink, Sinks},
    },
    JSON_LENGTH, Target, data, numbers,
};
use crate::engine::Tensor;

type Parameters = BTreeMap<String, Parameter>;

/// Which outputs the caller wants as bytes, and which it finds in memory that it shares.
pub(super) struct Forms {
    otherwise: bool,
    named: BTreeMap<String, bool>,
    sinks: Sinks,
}

/// The value of a parameter.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a parameter is a string, a number or a bool")]
enum Parameter {
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Wire<'a> {
    id: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    parameters: Parameters,
    // Its keys come in any order, and `data` means nothing before `datatype` is known.
    #[serde(borrow)]
    inputs: Vec<WireInput<'a>>,
    #[serde(default, deserialize_with = "or_nothing")]
    outputs: Vec<WireOutput>,
}

#[derive(Deserialize)]
struct WireInput<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default, deserialize_with = "or_nothing")]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default, deserialize_with = "or_nothing")]
    parameters: Parameters,
}

/// Clients that write every field they know write null for what they do not mean.
fn or_nothing<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(wire: D) -> Result<T, D::Error> {
    Option::deserialize(wire).map(Option::unwrap_or_default)
}

impl Parameter {
    /// As a whole number from 0 on.
    fn whole(&self) -> Result<u64, ()> {
        match self {
            Self::Int(number) => u64::try_from(*number).map_err(drop),
            Self::Unsigned(number) => Ok(*number),
            Self::Bool(_) | Self::Float(_) | Self::Text(_) => Err(()),
        }
    }

    /// As an argument of the model's; `None` where it can be none.
    fn argument(&self) -> Option<Argument> {
        Some(match self {
            Self::Bool(flag) => Argument::Bool(*flag),
            Self::Int(number) => Argument::Int(*number),
            Self::Unsigned(_) => return None,
            Self::Float(number) => Argument::Float(*number),
            Self::Text(text) => Argument::Text(text.clone()),
        })
    }

    fn text(&self) -> Result<&str, ()> {
        if let Self::Text(text) = self { Ok(text) } else { Err(()) }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => u64::try_from(*number).map_or(Value::Other, Value::Whole),
            Self::Unsigned(number) => Value::Whole(*number),
            Self::Float(_) => Value::Other,
            Self::Text(text) => Value::Text(text),
        }
    }
}

impl Forms {
    /// Whether this output goes behind the JSON.
    pub(super) fn binary(&self, output: &str) -> bool {
        self.named.get(output).copied().unwrap_or(self.otherwise)
    }

    /// Where this output goes, if it is not sent.
    pub(super) fn sink(&self, output: &str) -> Option<&Sink> {
        self.sinks.get(output)
    }
}

/// The request in this body. One of the headers says where its JSON part ends.
pub(super) fn read(
    server: &Server,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(Infer, Forms), ServeError> {
    let Target { model, lane, version: pin, routed, due, caller } = target;
    let access = &server.access(caller.as_ref());
    let json_length = headers.get(JSON_LENGTH).cloned();
    let made = |Terms { priority, timeout }, sequence, id, inputs, outputs| {
        let deadline = deadline(due, timeout)?;
        let (classes, arguments) = Default::default();
        Ok(Infer {
            model,
            lane,
            pin,
            routed,
            headers,
            deadline,
            priority,
            sequence,
            id,
            inputs,
            outputs,
            classes,
            arguments,
        })
    };
    let json = json_length.as_ref().map_or(Ok(body.len()), |value| within(value, body.len()))?;
    if json_length.is_some() && json == 0 {
        let forms = Forms { otherwise: true, named: BTreeMap::new(), sinks: Sinks::new() };
        return Ok((made(Terms::default(), None, None, Inputs::Whole(body), Vec::new())?, forms));
    }
    let quoted;
    let mut read = serde_json::from_slice::<Wire<'_>>(&body[..json]);
    if read.is_err()
        && let Some(text) = numbers::quoted(&body[..json])
    {
        quoted = text;
        read = serde_json::from_slice(&quoted);
    }
    let wire = read.map_err(|error| {
        ServeError::Malformed(format!("the request is not the JSON of an inference request: {error}"))
    })?;
    let terms = Terms::read(|name| wire.parameters.get(name).map(Parameter::whole))?;
    let sequence = |name| wire.parameters.get(name).map(Parameter::value);
    let sequence = Sequence::read(sequence, caller.as_ref())?;
    let inputs = tensors(wire.inputs, body.slice(json..), access)?;
    let mut forms = forms(&wire.parameters, &wire.outputs).map_err(ServeError::Malformed)?;
    forms.sinks = sinks(&wire.outputs, access)?;
    let count = |output: &WireOutput| output.parameters.get(parameters::CLASSIFICATION).map(Parameter::whole);
    let classes =
        parameters::classes(wire.outputs.iter().map(|output| (output.name.clone(), count(output))))?;
    let arguments = arguments(&wire.parameters)?;
    let outputs = wire.outputs.into_iter().map(|output| output.name).collect();
    let infer = made(terms, sequence, wire.id, Inputs::Named(inputs), outputs)?;
    Ok((Infer { classes, arguments, ..infer }, forms))
}

/// The request's own parameters.
fn arguments(parameters: &Parameters) -> Result<Arguments, ServeError> {
    if let Some(name) = parameters.keys().find(|name| name.starts_with("triton_")) {
        return Err(ServeError::Malformed(format!(
            "the parameter `{name}` begins with triton_, which the protocol keeps to itself"
        )));
    }
    let free = parameters.iter().filter(|(name, _)| arguments::is_free(name));
    Ok(free.filter_map(|(name, value)| Some((name.clone(), value.argument()?))).collect())
}

fn within(json_length: &HeaderValue, body: usize) -> Result<usize, ServeError> {
    let length = json_length.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.filter(|length| *length <= body).ok_or_else(|| {
        ServeError::Malformed(format!(
            "inference-header-content-length is {json_length:?}, which is not a length within the {body} bytes of the body"
        ))
    })
}

fn tensors(
    inputs: Vec<WireInput<'_>>,
    mut binary: Bytes,
    access: &Access<'_>,
) -> Result<Vec<(String, Tensor)>, ServeError> {
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let named = |reason| ServeError::Malformed(format!("input `{}`: {reason}", input.name));
        let shared = place(&input.parameters).map_err(named)?;
        let shared = shared.map(|place| access.read(&place)).transpose()?;
        let tensor = tensor(&input, shared, &mut binary).map_err(named)?;
        tensors.push((input.name, tensor));
    }
    if !binary.is_empty() {
        return Err(ServeError::Malformed(format!(
            "{} bytes are left over after the last input",
            binary.len()
        )));
    }
    Ok(tensors)
}

fn tensor(input: &WireInput<'_>, shared: Option<Bytes>, binary: &mut Bytes) -> Result<Tensor, String> {
    let datatype: Datatype =
        input.datatype.parse().map_err(|error: sconce_catalog::UnknownDatatype| error.to_string())?;
    if let Some(bytes) = shared {
        if input.data.is_some() || size(&input.parameters)?.is_some() {
            return Err("it has both a shared_memory_region and data of its own".to_owned());
        }
        return raw::decode(datatype, &input.shape, bytes);
    }
    match (size(&input.parameters)?, input.data) {
        (Some(_), Some(_)) => Err("it has both `data` and `binary_data_size`".to_owned()),
        (None, None) => Err("it has neither `data` nor `binary_data_size`".to_owned()),
        (None, Some(data)) => data::decode(datatype, &input.shape, data.get()),
        (Some(size), None) => match usize::try_from(size).ok().filter(|size| *size <= binary.len()) {
            Some(size) => raw::decode(datatype, &input.shape, binary.split_to(size)),
            None => Err(format!("its binary_data_size is {size}, and {} bytes are left", binary.len())),
        },
    }
}

fn size(parameters: &Parameters) -> Result<Option<u64>, String> {
    match parameters.get("binary_data_size") {
        None => Ok(None),
        Some(Parameter::Int(size)) if *size >= 0 => Ok(Some(size.unsigned_abs())),
        Some(Parameter::Unsigned(size)) => Ok(Some(*size)),
        Some(_) => Err("its binary_data_size is not a number of bytes".to_owned()),
    }
}

fn forms(parameters: &Parameters, outputs: &[WireOutput]) -> Result<Forms, String> {
    let otherwise = flag(parameters, "binary_data_output")?.unwrap_or(false);
    let mut named = BTreeMap::new();
    for output in outputs {
        let binary = flag(&output.parameters, "binary_data")
            .map_err(|reason| format!("output `{}`: {reason}", output.name))?;
        named.insert(output.name.clone(), binary.unwrap_or(otherwise));
    }
    Ok(Forms { otherwise, named, sinks: Sinks::new() })
}

fn place(parameters: &Parameters) -> Result<Option<Place>, String> {
    Place::read(
        |name| parameters.get(name).map(Parameter::text),
        |name| parameters.get(name).map(Parameter::whole),
    )
}

fn sinks(outputs: &[WireOutput], access: &Access<'_>) -> Result<Sinks, ServeError> {
    let mut sinks = Sinks::new();
    for output in outputs {
        let named = |reason| ServeError::Malformed(format!("output `{}`: {reason}", output.name));
        if let Some(place) = place(&output.parameters).map_err(named)? {
            sinks.insert(output.name.clone(), access.sink(place)?);
        }
    }
    Ok(sinks)
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, String> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(format!("the parameter {name} is neither true nor false")),
    }
}
