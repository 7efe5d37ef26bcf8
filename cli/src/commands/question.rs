//! From files to an inference request: what the model's metadata says of an input decides
//! how a file becomes its tensor.

use std::{io::Read, path::PathBuf};

use bytes::Bytes;
use sconce_catalog::Datatype;
use sconce_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use serde::Deserialize;
use serde_json::json;

use crate::{
    args::InputFile,
    failure::Failure,
    tensor::{self, Pixels, Tensor},
};

/// The header that says where the JSON part of a body with binary tensors ends.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// What a model says it takes.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) inputs: Vec<Input>,
}

/// One input of a model.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Input {
    pub(super) name: String,
    /// Empty where the server does not say, as is the shape.
    #[serde(default)]
    pub(super) datatype: String,
    /// -1 where a dimension varies.
    #[serde(default)]
    pub(super) shape: Vec<i64>,
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

    /// The input that a file is for, and the tensor in the file.
    pub(super) async fn tensor_of(
        &self,
        given: &InputFile,
        scale: Option<f64>,
    ) -> Result<(&Input, Tensor), Failure> {
        let shown = given.file.as_ref().map_or_else(|| "standard input".into(), |f| f.display().to_string());
        let input = self.input(given.name.as_deref()).map_err(Failure::usage)?;
        let bytes = read(given.file.clone()).await?;
        let tensor = input.tensor(&bytes, scale).map_err(|why| Failure::failed(format!("{shown}: {why}")))?;
        Ok((input, tensor))
    }
}

impl Input {
    pub(super) fn datatype(&self) -> Option<Datatype> {
        self.datatype.parse().ok()
    }

    /// The datatype of a tensor on its way: the model's, else the file's, else what fits.
    fn travels_as(&self, tensor: &Tensor) -> Datatype {
        self.datatype().or(tensor.own).unwrap_or_else(|| tensor.elements.natural())
    }

    fn encoded(&self, tensor: &Tensor, datatype: Datatype) -> Result<Vec<u8>, String> {
        tensor.elements.encode(datatype).map_err(|why| format!("input {}: {why}", self.name))
    }

    /// The tensor in a .npy, PNG, JPEG or JSON file, told apart by its first bytes.
    fn tensor(&self, bytes: &[u8], scale: Option<f64>) -> Result<Tensor, String> {
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
    /// All inputs as JSON, flat.
    pub(super) fn json(inputs: &[(&Input, Tensor)]) -> Result<Self, String> {
        let mut described = Vec::new();
        for (input, tensor) in inputs {
            let datatype = input.travels_as(tensor);
            if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
                return Err(format!("input {}: {datatype} has no JSON form in the protocol", input.name));
            }
            // Through its bytes, so that what does not fit is told before it is sent.
            let bytes = input.encoded(tensor, datatype)?;
            let values = tensor::Elements::decode(datatype, &bytes)?.to_json();
            described.push(json!({
                "name": input.name, "datatype": datatype.name(), "shape": tensor.shape, "data": values,
            }));
        }
        let bytes = json!({ "inputs": described }).to_string().into_bytes();
        Ok(Self { bytes: bytes.into(), json_length: None })
    }

    /// All inputs as binary tensors behind their description; binary answers wanted.
    pub(super) fn binary(inputs: &[(&Input, Tensor)]) -> Result<Self, String> {
        let mut described = Vec::new();
        let mut tensors = Vec::new();
        for (input, tensor) in inputs {
            let datatype = input.travels_as(tensor);
            let bytes = input.encoded(tensor, datatype)?;
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

/// All inputs as gRPC's message, raw; the caller names the model.
pub(super) fn message(inputs: &[(&Input, Tensor)]) -> Result<ModelInferRequest, String> {
    let mut message = ModelInferRequest::default();
    for (input, tensor) in inputs {
        let datatype = input.travels_as(tensor);
        message.raw_input_contents.push(input.encoded(tensor, datatype)?.into());
        message.inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: datatype.name().into(),
            shape: tensor.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            ..Default::default()
        });
    }
    Ok(message)
}

/// A whole file, or standard input.
pub(super) async fn read(file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let reading = tokio::task::spawn_blocking(move || match file {
        Some(file) => std::fs::read(&file)
            .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", file.display()))),
        None => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
            Ok(bytes)
        }
    });
    reading.await.unwrap_or_else(|error| Err(Failure::failed(format!("reading stopped: {error}"))))
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
