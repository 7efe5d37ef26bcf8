//! From files to an inference request: what the model's metadata says of an input decides
//! how a file becomes its tensor.

use bytes::Bytes;
use sconce_catalog::Datatype;
use serde::Deserialize;
use serde_json::json;

use crate::tensor::{self, Pixels, Tensor};

/// What a model says it takes.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    name: String,
    inputs: Vec<Input>,
}

/// One input of a model.
#[derive(Debug, Deserialize)]
pub(super) struct Input {
    name: String,
    #[serde(default)]
    datatype: String,
    #[serde(default)]
    shape: Vec<i64>,
}

/// A request's body, and how much of it is JSON where tensors follow.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) json_length: Option<usize>,
}

impl Metadata {
    /// The input of this name, or the only one.
    pub(super) fn input(&self, name: Option<&str>) -> Result<&Input, String> {
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        match (name, &self.inputs[..]) {
            (Some(name), inputs) => inputs.iter().find(|input| input.name == name).ok_or_else(|| {
                format!("{} has no input {name:?}; its inputs are {}", self.name, names.join(", "))
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(format!(
                "{} has {} inputs; say which with --input NAME=FILE: {}",
                self.name,
                names.len(),
                names.join(", ")
            )),
        }
    }
}

impl Input {
    fn datatype(&self) -> Option<Datatype> {
        self.datatype.parse().ok()
    }

    /// The tensor in a .npy, PNG, JPEG or JSON file, told apart by its first bytes.
    pub(super) fn tensor(&self, bytes: &[u8], scale: Option<f64>) -> Result<Tensor, String> {
        let mut tensor = if bytes.starts_with(b"\x93NUMPY") {
            tensor::from_npy(bytes)?
        } else if bytes.starts_with(b"\x89PNG") || bytes.starts_with(b"\xff\xd8\xff") {
            let datatype = self.datatype().unwrap_or(Datatype::Fp32);
            return Pixels::decode(bytes)?.tensor(&self.shape, datatype, scale);
        } else {
            let value = serde_json::from_slice(bytes)
                .map_err(|error| format!("it is no .npy, PNG, JPEG or JSON: {error}"))?;
            tensor::from_json(&value)?
        };
        tensor.shape = fitted(&tensor.shape, tensor.elements.len() as u64, &self.shape);
        Ok(tensor)
    }
}

/// `shape` as the model wants it, where only a batch of one is missing or the values are
/// flat; else as it is, for the sidecar to judge.
fn fitted(shape: &[u64], count: u64, wanted: &[i64]) -> Vec<u64> {
    if shape.len() == wanted.len() {
        return shape.to_vec();
    }
    if wanted.len() == shape.len() + 1 && (wanted[0] == -1 || wanted[0] == 1) {
        let rest = wanted[1..].iter().zip(shape);
        if rest.clone().all(|(want, have)| *want == -1 || u64::try_from(*want) == Ok(*have)) {
            return [&[1], shape].concat();
        }
    }
    let open = wanted.iter().filter(|size| **size == -1).count();
    let known: u64 = wanted.iter().filter_map(|size| u64::try_from(*size).ok()).product();
    if shape.len() == 1
        && open <= 1
        && known > 0
        && count.is_multiple_of(known)
        && (open == 1 || count == known)
    {
        return wanted.iter().map(|size| u64::try_from(*size).unwrap_or(count / known)).collect();
    }
    shape.to_vec()
}

impl Body {
    /// All inputs as binary tensors behind their description; binary answers wanted.
    pub(super) fn binary(inputs: &[(&Input, Tensor)]) -> Result<Self, String> {
        let mut described = Vec::new();
        let mut tensors = Vec::new();
        for (input, tensor) in inputs {
            let datatype = input.datatype().or(tensor.own).unwrap_or_else(|| tensor.elements.natural());
            let bytes =
                tensor.elements.encode(datatype).map_err(|why| format!("input {}: {why}", input.name))?;
            described.push(json!({
                "name": input.name, "datatype": datatype.name(), "shape": tensor.shape,
                "parameters": {"binary_data_size": bytes.len()},
            }));
            tensors.extend_from_slice(&bytes);
        }
        let request = json!({"inputs": described, "parameters": {"binary_data_output": true}});
        let mut bytes = request.to_string().into_bytes();
        let json_length = bytes.len();
        bytes.append(&mut tensors);
        Ok(Self { bytes: bytes.into(), json_length: Some(json_length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Elements;

    fn metadata(inputs: serde_json::Value) -> Metadata {
        serde_json::from_value(json!({"name": "m", "platform": "x", "inputs": inputs})).expect("valid")
    }

    #[test]
    fn the_name_may_be_left_out_only_where_there_is_one_input() {
        let one = metadata(json!([{"name": "image", "datatype": "FP32", "shape": [-1, 64]}]));
        assert_eq!(one.input(None).expect("the only one").name, "image");
        assert!(one.input(Some("picture")).expect_err("unknown").contains("image"));
        let two = metadata(json!([{"name": "a"}, {"name": "b"}]));
        assert!(two.input(None).expect_err("ambiguous").contains("a, b"));
    }

    #[test]
    fn a_missing_batch_and_flat_values_are_put_into_shape() {
        assert_eq!(fitted(&[64], 64, &[-1, 64]), [1, 64]);
        assert_eq!(fitted(&[128], 128, &[-1, 64]), [2, 64]);
        assert_eq!(fitted(&[8, 8], 64, &[-1, 8, 8]), [1, 8, 8]);
        assert_eq!(fitted(&[6], 6, &[2, 3]), [2, 3]);
        assert_eq!(fitted(&[4, 64], 256, &[-1, 64]), [4, 64]);
        // Nothing fits: the sidecar says what is wrong.
        assert_eq!(fitted(&[63], 63, &[-1, 64]), [63]);
        assert_eq!(fitted(&[7], 7, &[2, 3]), [7]);
    }

    #[test]
    fn tensors_follow_their_description() {
        let metadata = metadata(json!([{"name": "x", "datatype": "FP16", "shape": [-1]}]));
        let tensor = Tensor { shape: vec![2], elements: Elements::Ints(vec![1, 2]), own: None };
        let body = Body::binary(&[(metadata.input(None).expect("one"), tensor)]).expect("fits");
        let (json, tensors) = body.bytes.split_at(body.json_length.expect("binary"));
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], 4);
        assert_eq!(json["inputs"][0]["datatype"], "FP16");
        assert_eq!(tensors, [0x00, 0x3c, 0x00, 0x40]);
    }
}
