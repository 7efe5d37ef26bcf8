//! Tensors as typed lists of protobuf, which has fewer number types than tensors have.

use bytes::Bytes;
use sconce_catalog::Datatype;
use sconce_proto::inference::InferTensorContents;

use super::super::raw;
use crate::engine::{Data, Tensor};

/// Whether no list has an element.
pub(super) fn is_empty(contents: &InferTensorContents) -> bool {
    lengths(contents).iter().all(|(_, length)| *length == 0)
}

/// The tensor whose elements the one list that belongs to `datatype` has.
pub(super) fn decode(
    datatype: Datatype,
    sizes: &[i64],
    contents: InferTensorContents,
) -> Result<Tensor, String> {
    let field = field(datatype)
        .ok_or_else(|| format!("{} has no typed contents; send it in raw_input_contents", datatype.name()))?;
    let (shape, elements) = raw::shape(sizes, datatype)?;
    for (name, length) in lengths(&contents) {
        if name != field && length > 0 {
            return Err(format!("{} belongs into {field}, and {name} came", datatype.name()));
        }
        if name == field && length != elements {
            return Err(format!("shape {shape:?} has {elements} elements, and {length} came"));
        }
    }
    let data = match datatype {
        Datatype::Bytes => Data::Strings(contents.bytes_contents.into_iter().map(Bytes::from).collect()),
        Datatype::Bool => fixed(contents.bool_contents.iter().map(|value| [u8::from(*value)])),
        Datatype::Uint8 => narrow(datatype, &contents.uint_contents, u8::to_le_bytes)?,
        Datatype::Uint16 => narrow(datatype, &contents.uint_contents, u16::to_le_bytes)?,
        Datatype::Uint32 => fixed(contents.uint_contents.iter().map(|value| value.to_le_bytes())),
        Datatype::Uint64 => fixed(contents.uint64_contents.iter().map(|value| value.to_le_bytes())),
        Datatype::Int8 => narrow(datatype, &contents.int_contents, i8::to_le_bytes)?,
        Datatype::Int16 => narrow(datatype, &contents.int_contents, i16::to_le_bytes)?,
        Datatype::Int32 => fixed(contents.int_contents.iter().map(|value| value.to_le_bytes())),
        Datatype::Int64 => fixed(contents.int64_contents.iter().map(|value| value.to_le_bytes())),
        Datatype::Fp32 => fixed(contents.fp32_contents.iter().map(|value| value.to_le_bytes())),
        Datatype::Fp64 => fixed(contents.fp64_contents.iter().map(|value| value.to_le_bytes())),
        // `field` has refused these.
        Datatype::Fp16 | Datatype::Bf16 => Data::Fixed(Bytes::new()),
    };
    Ok(Tensor { datatype, shape, data })
}

fn field(datatype: Datatype) -> Option<&'static str> {
    match datatype {
        Datatype::Bool => Some("bool_contents"),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Some("int_contents"),
        Datatype::Int64 => Some("int64_contents"),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Some("uint_contents"),
        Datatype::Uint64 => Some("uint64_contents"),
        Datatype::Fp32 => Some("fp32_contents"),
        Datatype::Fp64 => Some("fp64_contents"),
        Datatype::Bytes => Some("bytes_contents"),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

fn lengths(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn fixed<const N: usize>(elements: impl Iterator<Item = [u8; N]>) -> Data {
    Data::Fixed(elements.flatten().collect::<Vec<u8>>().into())
}

/// From the wider integers that protobuf has instead.
fn narrow<W, T, const N: usize>(
    datatype: Datatype,
    wide: &[W],
    bytes: fn(T) -> [u8; N],
) -> Result<Data, String>
where
    W: Copy + std::fmt::Display,
    T: TryFrom<W>,
{
    let mut out = Vec::with_capacity(wide.len() * N);
    for value in wide {
        let narrow = T::try_from(*value).map_err(|_| format!("{value} is no {}", datatype.name()))?;
        out.extend(bytes(narrow));
    }
    Ok(Data::Fixed(out.into()))
}
