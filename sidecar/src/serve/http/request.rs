//! Reads the body of an inference request: JSON, tensors behind it, or one tensor alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderValue;
use sconce_catalog::Datatype;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        infer::{Infer, Inputs},
        raw,
    },
    Target, data,
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
    Text(#[expect(dead_code, reason = "read for its type alone")] String),
}

#[derive(Deserialize)]
struct Wire<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    // Its keys come in any order, and `data` means nothing before `datatype` is known.
    #[serde(borrow)]
    inputs: Vec<WireInput<'a>>,
    #[serde(default)]
    outputs: Vec<WireOutput>,
}

#[derive(Deserialize)]
struct WireInput<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

impl Forms {
    /// Whether this output goes behind the JSON.
    pub(super) fn binary(&self, output: &str) -> bool {
        self.named.get(output).copied().unwrap_or(self.otherwise)
    }
}

/// The request in this body. `json_length` is the header that says where its JSON part ends.
pub(super) fn read(
    target: Target,
    json_length: Option<&HeaderValue>,
    body: Bytes,
) -> Result<(Infer, Forms), String> {
    let Target { model, lane, version: pin, route } = target;
    let read = |id, inputs, outputs| Infer { model, lane, pin, route, id, inputs, outputs };
    let json = match json_length {
        None => body.len(),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|length| *length <= body.len())
            .ok_or_else(|| {
                format!(
                    "inference-header-content-length is {value:?}, which is not a length within the {} bytes of the body",
                    body.len()
                )
            })?,
    };
    if json_length.is_some() && json == 0 {
        let forms = Forms { otherwise: true, named: BTreeMap::new() };
        return Ok((read(None, Inputs::Whole(body), Vec::new()), forms));
    }
    let wire: Wire<'_> = serde_json::from_slice(&body[..json])
        .map_err(|error| format!("the request is not the JSON of an inference request: {error}"))?;
    let inputs = tensors(wire.inputs, body.slice(json..))?;
    let forms = forms(&wire.parameters, &wire.outputs)?;
    let outputs = wire.outputs.into_iter().map(|output| output.name).collect();
    Ok((read(wire.id, Inputs::Named(inputs), outputs), forms))
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
