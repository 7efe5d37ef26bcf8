//! Tensors in gRPC messages: raw, or typed lists.

use bytes::Bytes;
use sconce_catalog::Datatype;
use sconce_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor,
};

use crate::{
    engine::{Data, Tensor},
    serve::{
        ServeError,
        http::{check, from_binary, to_binary},
        infer::{Answer, Infer},
    },
};

/// Reads a request. Raw tensors stay slices of the message.
pub(super) fn read(request: ModelInferRequest) -> Result<Infer, ServeError> {
    let (count, raw) = (request.inputs.len(), request.raw_input_contents);
    if !raw.is_empty() && raw.len() != count {
        return Err(ServeError::Invalid(format!(
            "raw_input_contents has {} entries for {count} inputs; there must be one for each",
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::with_capacity(count);
    for input in request.inputs {
        let name = input.name.clone();
        let tensor = tensor(input, raw.next())
            .map_err(|what| ServeError::Invalid(format!("input `{name}`: {what}")))?;
        inputs.push((name, tensor));
    }
    Ok(Infer {
        model: request.model_name,
        pin: Some(request.model_version).filter(|version| !version.is_empty()),
        id: request.id,
        inputs,
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        protocol: "grpc",
    })
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, String> {
    let datatype: Datatype = input.datatype.parse().map_err(|error| format!("{error}"))?;
    let shape = input.shape.iter().map(|size| u64::try_from(*size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| format!("its shape {:?} has a negative size", input.shape))?;
    let data = match (raw, input.contents) {
        (Some(_), Some(_)) => return Err("it has both `contents` and an entry in raw_input_contents".into()),
        (Some(raw), None) => from_binary(datatype, raw)?,
        (None, Some(contents)) => typed(datatype, contents)?,
        (None, None) => typed(datatype, InferTensorContents::default())?,
    };
    check(Tensor { datatype, shape, data })
}

fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<Data, String> {
    /// Numbers of the list's type, each of which must fit the datatype.
    fn narrow<W: Copy, N: TryFrom<W>, const WIDTH: usize>(
        list: &[W],
        datatype: Datatype,
        bytes: impl Fn(N) -> [u8; WIDTH],
    ) -> Result<Data, String> {
        let mut out = Vec::with_capacity(list.len() * WIDTH);
        for number in list {
            let number = N::try_from(*number).map_err(|_| format!("a number is no {datatype}"))?;
            out.extend_from_slice(&bytes(number));
        }
        Ok(Data::Fixed(out.into()))
    }
    let c = contents;
    match datatype {
        Datatype::Bool => Ok(Data::Fixed(c.bool_contents.into_iter().map(u8::from).collect())),
        Datatype::Int8 => narrow(&c.int_contents, datatype, i8::to_le_bytes),
        Datatype::Int16 => narrow(&c.int_contents, datatype, i16::to_le_bytes),
        Datatype::Int32 => narrow(&c.int_contents, datatype, i32::to_le_bytes),
        Datatype::Int64 => narrow(&c.int64_contents, datatype, i64::to_le_bytes),
        Datatype::Uint8 => narrow(&c.uint_contents, datatype, u8::to_le_bytes),
        Datatype::Uint16 => narrow(&c.uint_contents, datatype, u16::to_le_bytes),
        Datatype::Uint32 => narrow(&c.uint_contents, datatype, u32::to_le_bytes),
        Datatype::Uint64 => narrow(&c.uint64_contents, datatype, u64::to_le_bytes),
        Datatype::Fp32 => narrow(&c.fp32_contents, datatype, f32::to_le_bytes),
        Datatype::Fp64 => narrow(&c.fp64_contents, datatype, f64::to_le_bytes),
        Datatype::Bytes => Ok(Data::Strings(c.bytes_contents.into_iter().map(Bytes::from).collect())),
        Datatype::Fp16 | Datatype::Bf16 => {
            Err(format!("{datatype} has no typed contents; use raw_input_contents"))
        }
    }
}

/// Always raw: clients that read typed answers read raw ones too, and not the other way.
pub(super) fn write(model_name: String, id: String, answer: Answer) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name,
        id,
        model_version: answer.version.to_string(),
        ..ModelInferResponse::default()
    };
    for output in answer.outputs {
        response.outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.datatype.name().to_owned(),
            shape: output.tensor.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            parameters: Default::default(),
            contents: None,
        });
        response.raw_output_contents.push(to_binary(output.tensor.data));
    }
    response
}
