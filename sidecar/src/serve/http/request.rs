//! An inference request's body, JSON with or without binary tensors behind it.
//!
//! The binary extension: triton-inference-server/server `extension_binary_data.md`.

use ::http::{HeaderMap, header};
use bytes::Bytes;
use sconce_catalog::Datatype;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    engine::{Data, Tensor},
    serve::{ServeError, infer::Infer},
};

/// What libtorch's own operators handle.
const MAX_DIMENSIONS: usize = 64;

/// Bytes of the JSON part, in the headers of requests and replies.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// The form in which outputs are wanted.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// For outputs that say nothing themselves.
    binary: bool,
    /// By output name.
    outputs: Vec<(String, bool)>,
}

impl Form {
    pub(super) fn is_binary(&self, output: &str) -> bool {
        self.outputs.iter().find(|(name, _)| name == output).map_or(self.binary, |(_, binary)| *binary)
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WantedOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// The parameters that mean something here; others are allowed and ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

/// Reads a request. Binary tensors stay slices of the body.
pub(super) fn read(headers: &HeaderMap, body: Bytes) -> Result<(Infer, Form), ServeError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(ServeError::Unsupported(format!(
            "content-encoding {encoding:?} is not supported; send the body as it is"
        )));
    }
    let (json, mut binary) = parts(headers, &body)?;
    let parsed: Body<'_> = serde_json::from_slice(&json)
        .map_err(|error| ServeError::Invalid(format!("the body is not a valid request: {error}")))?;
    let mut inputs = Vec::with_capacity(parsed.inputs.len());
    for input in parsed.inputs {
        let tensor = tensor(&input, &mut binary)
            .map_err(|what| ServeError::Invalid(format!("input `{}`: {what}", input.name)))?;
        inputs.push((input.name, tensor));
    }
    if !binary.is_empty() {
        return Err(ServeError::Invalid(format!(
            "{} bytes behind the JSON belong to no input",
            binary.len()
        )));
    }
    let form = Form {
        binary: parsed.parameters.binary_data_output.unwrap_or(false),
        outputs: parsed
            .outputs
            .iter()
            .filter_map(|output| Some((output.name.clone(), output.parameters.binary_data?)))
            .collect(),
    };
    let infer = Infer {
        id: parsed.id,
        inputs,
        outputs: parsed.outputs.into_iter().map(|output| output.name).collect(),
        protocol: "http",
        ..Infer::default()
    };
    Ok((infer, form))
}

/// The JSON, and what is behind it.
fn parts(headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Bytes), ServeError> {
    let Some(length) = headers.get(JSON_LENGTH) else { return Ok((body.clone(), Bytes::new())) };
    let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match length {
        Some(0) => Err(ServeError::Unsupported(format!(
            "a raw binary request ({JSON_LENGTH}: 0) is not supported yet"
        ))),
        Some(length) if length <= body.len() => Ok((body.slice(..length), body.slice(length..))),
        _ => Err(ServeError::Invalid(format!(
            "the header {JSON_LENGTH} must be a number of bytes within the body of {}",
            body.len()
        ))),
    }
}

fn tensor(input: &Input<'_>, binary: &mut Bytes) -> Result<Tensor, String> {
    let datatype: Datatype = input.datatype.parse().map_err(|error| format!("{error}"))?;
    let shape = input.shape.iter().map(|size| u64::try_from(*size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| format!("its shape {:?} has a negative size", input.shape))?;
    let data = match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => return Err("it has both `data` and `binary_data_size`".into()),
        (None, None) => return Err("it has neither `data` nor `binary_data_size`".into()),
        (None, Some(json)) => super::elements::read(json, datatype)?,
        (Some(size), None) => {
            let size = usize::try_from(size).ok().filter(|size| *size <= binary.len()).ok_or_else(|| {
                format!("its binary_data_size is {size}, and {} bytes are left behind the JSON", binary.len())
            })?;
            from_binary(datatype, binary.split_to(size))?
        }
    };
    check(Tensor { datatype, shape, data })
}

/// Binary data as it is, or taken apart where elements have lengths of their own.
pub(in crate::serve) fn from_binary(datatype: Datatype, bytes: Bytes) -> Result<Data, String> {
    if datatype != Datatype::Bytes {
        return Ok(Data::Fixed(bytes));
    }
    let (mut rest, mut strings) = (bytes, Vec::new());
    while !rest.is_empty() {
        let length = rest.first_chunk::<4>().map(|raw| u32::from_le_bytes(*raw) as usize);
        let length = length.filter(|length| *length <= rest.len() - 4);
        let length = length.ok_or("its BYTES elements are cut short")?;
        let _ = rest.split_to(4);
        strings.push(rest.split_to(length));
    }
    Ok(Data::Strings(strings))
}

/// The tensor, once it is sure that it has as many elements as its shape asks for.
pub(in crate::serve) fn check(tensor: Tensor) -> Result<Tensor, String> {
    if tensor.shape.len() > MAX_DIMENSIONS {
        return Err(format!(
            "its shape has {} dimensions; the limit is {MAX_DIMENSIONS}",
            tensor.shape.len()
        ));
    }
    // Anything else is no bool to C++, and reading it as one is undefined.
    if let (Datatype::Bool, Data::Fixed(bytes)) = (tensor.datatype, &tensor.data)
        && let Some(byte) = bytes.iter().find(|byte| **byte > 1)
    {
        return Err(format!("a BOOL is a byte of 0 or 1, and it has one of {byte}"));
    }
    let wanted = Tensor::elements(&tensor.shape);
    let found = match (&tensor.data, tensor.datatype.width()) {
        (Data::Strings(strings), _) => Some(strings.len()),
        (Data::Fixed(bytes), Some(width)) if bytes.len() % width == 0 => Some(bytes.len() / width),
        _ => None,
    };
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted == found => Ok(tensor),
        (Some(wanted), Some(found)) => {
            Err(format!("its shape {:?} asks for {wanted} elements, and it has {found}", tensor.shape))
        }
        (None, _) => Err(format!("its shape {:?} asks for more elements than can be counted", tensor.shape)),
        (_, None) => Err(format!("its bytes are no whole number of {} elements", tensor.datatype)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[u64], bytes: &'static [u8]) -> Tensor {
        Tensor { datatype, shape: shape.to_vec(), data: Data::Fixed(Bytes::from_static(bytes)) }
    }

    #[test]
    fn tensors_that_would_harm_the_engine_never_reach_it() {
        assert!(check(tensor(Datatype::Bool, &[2], &[0, 1])).is_ok());
        for (what, bad) in [
            ("no bool", tensor(Datatype::Bool, &[2], &[0, 2])),
            ("too few bytes", tensor(Datatype::Fp32, &[2], &[0; 4])),
            ("half an element", tensor(Datatype::Fp32, &[1], &[0; 5])),
            ("overflowing", tensor(Datatype::Int8, &[u64::MAX, 2], &[])),
            ("too many dimensions", tensor(Datatype::Int8, &[1; 65], &[0])),
        ] {
            assert!(check(bad).is_err(), "{what}");
        }
    }

    #[test]
    fn texts_that_are_cut_short_are_refused() {
        let whole = Bytes::from_static(&[1, 0, 0, 0, b'a', 0, 0, 0, 0]);
        let Ok(Data::Strings(strings)) = from_binary(Datatype::Bytes, whole) else { panic!("two texts") };
        assert_eq!(strings, ["a", ""]);
        for part in [&[1u8, 0, 0][..], &[2, 0, 0, 0, b'a'], &[255, 255, 255, 255]] {
            assert!(from_binary(Datatype::Bytes, Bytes::copy_from_slice(part)).is_err(), "{part:?}");
        }
    }
}
