//! Reads the body of an inference request: JSON, tensors behind it, or one tensor alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sconce_catalog::Datatype;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{
    super::{
        deadline::deadline,
        error::ServeError,
        infer::{Infer, Inputs},
        parameters::{self, Terms},
        raw,
        sequence::{Sequence, Value},
    },
    JSON_LENGTH, Target, data, numbers,
};
use crate::engine::Tensor;

type Parameters = BTreeMap<String, Parameter>;

/// Which outputs the caller wants as bytes.
pub(super) struct Forms {
    otherwise: bool,
    named: BTreeMap<String, bool>,
}

/// The value of a parameter.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a parameter is a string, a number or a bool")]
enum Parameter {
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(#[expect(dead_code, reason = "read for its type alone")] f64),
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

    fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => u64::try_from(*number).map_or(Value::Other, Value::Whole),
            Self::Unsigned(number) => Value::Whole(*number),
            Self::Float(_) => Value::Other,
            Self::Text(text) => Value::Text(text),
        }
    }

    /// Whether it says what it would say by being absent.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Bool(flag) => !flag,
            Self::Int(number) => *number == 0,
            Self::Text(text) => text.is_empty(),
            Self::Unsigned(_) | Self::Float(_) => false,
        }
    }
}

impl Wire<'_> {
    /// Every parameter that is set, wherever it stands.
    fn parameters(&self) -> impl Iterator<Item = &str> {
        let inputs = self.inputs.iter().map(|input| &input.parameters);
        let outputs = self.outputs.iter().map(|output| &output.parameters);
        let all = [&self.parameters].into_iter().chain(inputs).chain(outputs);
        all.flatten().filter(|(_, value)| !value.is_nothing()).map(|(name, _)| name.as_str())
    }
}

impl Forms {
    /// Whether this output goes behind the JSON.
    pub(super) fn binary(&self, output: &str) -> bool {
        self.named.get(output).copied().unwrap_or(self.otherwise)
    }
}

/// The request in this body. One of the headers says where its JSON part ends.
pub(super) fn read(target: Target, headers: HeaderMap, body: Bytes) -> Result<(Infer, Forms), ServeError> {
    let Target { model, lane, version: pin, routed, due, caller } = target;
    let json_length = headers.get(JSON_LENGTH).cloned();
    let made = |Terms { priority, timeout }, sequence, id, inputs, outputs| {
        let deadline = deadline(due, timeout)?;
        Ok(Infer { model, lane, pin, routed, headers, deadline, priority, sequence, id, inputs, outputs })
    };
    let json = json_length.as_ref().map_or(Ok(body.len()), |value| within(value, body.len()))?;
    if json_length.is_some() && json == 0 {
        let forms = Forms { otherwise: true, named: BTreeMap::new() };
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
    parameters::check(wire.parameters())?;
    let terms = Terms::read(|name| wire.parameters.get(name).map(Parameter::whole))?;
    let sequence = |name| wire.parameters.get(name).map(Parameter::value);
    let sequence = Sequence::read(sequence, caller.as_ref())?;
    let inputs = tensors(wire.inputs, body.slice(json..)).map_err(ServeError::Malformed)?;
    let forms = forms(&wire.parameters, &wire.outputs).map_err(ServeError::Malformed)?;
    let outputs = wire.outputs.into_iter().map(|output| output.name).collect();
    Ok((made(terms, sequence, wire.id, Inputs::Named(inputs), outputs)?, forms))
}

fn within(json_length: &HeaderValue, body: usize) -> Result<usize, ServeError> {
    let length = json_length.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.filter(|length| *length <= body).ok_or_else(|| {
        ServeError::Malformed(format!(
            "inference-header-content-length is {json_length:?}, which is not a length within the {body} bytes of the body"
        ))
    })
}

fn tensors(inputs: Vec<WireInput<'_>>, mut binary: Bytes) -> Result<Vec<(String, Tensor)>, String> {
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let tensor =
            tensor(&input, &mut binary).map_err(|reason| format!("input `{}`: {reason}", input.name))?;
        tensors.push((input.name, tensor));
    }
    if !binary.is_empty() {
        return Err(format!("{} bytes are left over after the last input", binary.len()));
    }
    Ok(tensors)
}

fn tensor(input: &WireInput<'_>, binary: &mut Bytes) -> Result<Tensor, String> {
    let datatype: Datatype =
        input.datatype.parse().map_err(|error: sconce_catalog::UnknownDatatype| error.to_string())?;
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
    Ok(Forms { otherwise, named })
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, String> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(format!("the parameter {name} is neither true nor false")),
    }
}
