//! Between wire tensors and what libtorch takes.

use std::ffi::c_char;

use bytes::Bytes;
use sconce_catalog::{Datatype, Field, Kind, Signature};

use super::ffi::{RawValue, Tag};
use crate::engine::{Data, EngineError, Tensor};

/// Inputs in the shim's form. Borrows the tensors' bytes, owns what points to them.
pub(super) struct Prepared<'a> {
    values: Vec<RawValue>,
    _shapes: Vec<Vec<i64>>,
    _texts: Vec<(Vec<*const c_char>, Vec<usize>)>,
    _inputs: std::marker::PhantomData<&'a [Option<Tensor>]>,
}

impl Prepared<'_> {
    pub(super) fn values(&self) -> &[RawValue] {
        &self.values
    }
}

/// Checks every input against what it should be and puts it into the shim's form: one
/// value for each of `forward`'s arguments, which `places` finds among the inputs.
pub(super) fn prepare<'a>(
    signature: &Signature,
    places: &[Option<usize>],
    inputs: &'a [Option<Tensor>],
) -> Result<Prepared<'a>, EngineError> {
    if inputs.len() != signature.inputs.len() {
        return Err(EngineError::Input(format!(
            "the model takes {} inputs, and {} were given",
            signature.inputs.len(),
            inputs.len()
        )));
    }
    let mut prepared = Prepared {
        values: Vec::with_capacity(places.len()),
        _shapes: Vec::with_capacity(inputs.len()),
        _texts: Vec::new(),
        _inputs: std::marker::PhantomData,
    };
    for place in places {
        let value = match place.map(|at| (&signature.inputs[at], &inputs[at])) {
            None => RawValue::left_out(),
            Some((field, None)) if field.optional => RawValue::left_out(),
            Some((field, None)) => {
                return Err(EngineError::Input(format!("input `{}` is missing", field.name)));
            }
            Some((field, Some(tensor))) => value(&mut prepared, field, tensor)?,
        };
        prepared.values.push(value);
    }
    Ok(prepared)
}

fn value(prepared: &mut Prepared<'_>, field: &Field, tensor: &Tensor) -> Result<RawValue, EngineError> {
    let wrong = |what: String| EngineError::Input(format!("input `{}` {what}", field.name));
    match (&tensor.data, field.kind) {
        (Data::Fixed(bytes), Kind::Tensor | Kind::TensorList) => {
            let shape = shape(tensor, bytes).map_err(wrong)?;
            let tag = if field.kind == Kind::Tensor { Tag::Tensor } else { Tag::TensorList };
            if field.kind == Kind::TensorList && shape.is_empty() {
                return Err(wrong("is a scalar, and the model takes a list along dimension 0".into()));
            }
            if tensor.datatype == Datatype::Bool && bytes.iter().any(|byte| *byte > 1) {
                return Err(wrong("is BOOL, and has elements that are neither 0 nor 1".into()));
            }
            let scalar_type =
                scalar_type(tensor.datatype).ok_or_else(|| wrong("has no numeric datatype".into()))?;
            let value = RawValue::tensor(tag, scalar_type, &shape, bytes);
            // The vector's heap memory stays where it is when the vector moves.
            prepared._shapes.push(shape);
            Ok(value)
        }
        (Data::Fixed(bytes), Kind::Int | Kind::Float | Kind::Bool) => {
            shape(tensor, bytes).map_err(wrong)?;
            scalar(field.kind, tensor.datatype, bytes).map_err(wrong)
        }
        (Data::Strings(strings), Kind::String | Kind::StringList) => {
            if Tensor::elements(&tensor.shape) != Some(strings.len()) {
                return Err(wrong(format!(
                    "has {} elements, which is not what its shape {:?} asks for",
                    strings.len(),
                    tensor.shape
                )));
            }
            texts(prepared, field.kind, strings).map_err(wrong)
        }
        (_, kind) => Err(wrong(format!("is {}, and the model takes {kind}", tensor.datatype))),
    }
}

/// The shape in libtorch's numbers, once it is sure that the bytes are as many as it says.
fn shape(tensor: &Tensor, bytes: &Bytes) -> Result<Vec<i64>, String> {
    let width = tensor.datatype.width().ok_or("has no numeric datatype")?;
    let wanted = Tensor::elements(&tensor.shape).and_then(|elements| elements.checked_mul(width));
    if wanted != Some(bytes.len()) {
        return Err(format!(
            "has {} bytes, which is not what its shape {:?} asks for",
            bytes.len(),
            tensor.shape
        ));
    }
    // A size of 0 hides the others from the check above, but not from libtorch's strides.
    let extent =
        tensor.shape.iter().try_fold(1i64, |n, size| n.checked_mul(i64::try_from((*size).max(1)).ok()?));
    if extent.is_none() {
        return Err(format!("has the shape {:?}, which is too large", tensor.shape));
    }
    // No size is larger than their product.
    Ok(tensor.shape.iter().map(|size| size.cast_signed()).collect())
}

fn scalar(kind: Kind, datatype: Datatype, bytes: &Bytes) -> Result<RawValue, String> {
    let width = datatype.width().unwrap_or(usize::MAX);
    if bytes.len() != width {
        return Err(format!("is a single {kind} for the model, so it must have exactly one element"));
    }
    let refused = || format!("is {datatype}, and the model takes {kind}");
    let integer = integer(datatype, bytes);
    match kind {
        Kind::Int => integer.map(|n| RawValue::integer(Tag::Int, n)).ok_or_else(refused),
        Kind::Bool if datatype == Datatype::Bool => {
            Ok(RawValue::integer(Tag::Bool, i64::from(bytes[0] != 0)))
        }
        Kind::Float => real(datatype, bytes)
            // An integer up to 2^53 is exact, which is what such a parameter holds.
            .or(integer.map(|n| n as f64))
            .map(RawValue::real)
            .ok_or_else(refused),
        _ => Err(refused()),
    }
}

fn integer(datatype: Datatype, bytes: &Bytes) -> Option<i64> {
    let signed = matches!(datatype, Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Int64);
    let unsigned =
        matches!(datatype, Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64);
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let number = i64::from_le_bytes(wide);
    match (signed, unsigned) {
        (true, _) => Some(number),
        (_, true) => u64::from_le_bytes(wide).try_into().ok(),
        _ => None,
    }
}

fn real(datatype: Datatype, bytes: &Bytes) -> Option<f64> {
    match datatype {
        Datatype::Fp64 => Some(f64::from_le_bytes(bytes[..].try_into().ok()?)),
        Datatype::Fp32 => Some(f64::from(f32::from_le_bytes(bytes[..].try_into().ok()?))),
        Datatype::Fp16 => Some(f64::from(half::f16::from_le_bytes(bytes[..].try_into().ok()?))),
        Datatype::Bf16 => Some(f64::from(half::bf16::from_le_bytes(bytes[..].try_into().ok()?))),
        _ => None,
    }
}

fn texts(prepared: &mut Prepared<'_>, kind: Kind, strings: &[Bytes]) -> Result<RawValue, String> {
    for (at, text) in strings.iter().enumerate() {
        std::str::from_utf8(text)
            .map_err(|_| format!("element {at} is not UTF-8, and the model takes text"))?;
    }
    if kind == Kind::String && strings.len() != 1 {
        return Err(format!("has {} elements, and the model takes one text", strings.len()));
    }
    let pointers: Vec<*const c_char> = strings.iter().map(|text| text.as_ptr().cast()).collect();
    let lengths: Vec<usize> = strings.iter().map(Bytes::len).collect();
    let tag = if kind == Kind::String { Tag::String } else { Tag::StringList };
    let value = RawValue::strings(tag, &pointers, &lengths);
    prepared._texts.push((pointers, lengths));
    Ok(value)
}

/// Datatypes and their `c10::ScalarType`, by the numbers of c10/core/ScalarType.h, which
/// are part of the file format and never change.
const SCALAR_TYPES: [(Datatype, i32); 13] = [
    (Datatype::Uint8, 0),
    (Datatype::Int8, 1),
    (Datatype::Int16, 2),
    (Datatype::Int32, 3),
    (Datatype::Int64, 4),
    (Datatype::Fp16, 5),
    (Datatype::Fp32, 6),
    (Datatype::Fp64, 7),
    (Datatype::Bool, 11),
    (Datatype::Bf16, 15),
    (Datatype::Uint16, 27),
    (Datatype::Uint32, 28),
    (Datatype::Uint64, 29),
];

fn scalar_type(datatype: Datatype) -> Option<i32> {
    SCALAR_TYPES.iter().find(|(d, _)| *d == datatype).map(|(_, number)| *number)
}

/// The datatype with this `c10::ScalarType`.
pub(super) fn datatype(scalar_type: i32) -> Option<Datatype> {
    SCALAR_TYPES.iter().find(|(_, number)| *number == scalar_type).map(|(d, _)| *d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        let read = |datatype, bytes: &[u8]| integer(datatype, &Bytes::copy_from_slice(bytes));
        assert_eq!(read(Datatype::Int8, &[0xff]), Some(-1));
        assert_eq!(read(Datatype::Uint8, &[0xff]), Some(255));
        assert_eq!(read(Datatype::Int32, &(-7i32).to_le_bytes()), Some(-7));
        assert_eq!(read(Datatype::Uint64, &u64::MAX.to_le_bytes()), None);
        assert_eq!(read(Datatype::Fp32, &1f32.to_le_bytes()), None);
    }

    #[test]
    fn a_tensor_whose_bytes_are_too_few_never_reaches_libtorch() {
        let tensor = Tensor {
            datatype: Datatype::Fp32,
            shape: vec![2, 3],
            data: Data::Fixed(Bytes::from_static(&[0; 23])),
        };
        let Data::Fixed(bytes) = &tensor.data else { unreachable!("fixed above") };
        assert!(shape(&tensor, bytes).is_err());
        for sizes in [vec![u64::MAX, 8], vec![0, u64::MAX], vec![0, 1 << 40, 1 << 40]] {
            let overflow = Tensor { shape: sizes, data: Data::Fixed(Bytes::new()), ..tensor.clone() };
            assert!(shape(&overflow, &Bytes::new()).is_err(), "{:?}", overflow.shape);
        }
    }

    #[test]
    fn a_number_for_a_python_float_may_come_in_any_width() {
        let read = |datatype, bytes: &[u8]| real(datatype, &Bytes::copy_from_slice(bytes));
        assert_eq!(read(Datatype::Fp64, &0.5f64.to_le_bytes()), Some(0.5));
        assert_eq!(read(Datatype::Fp32, &0.5f32.to_le_bytes()), Some(0.5));
        assert_eq!(read(Datatype::Fp16, &half::f16::from_f32(0.5).to_le_bytes()), Some(0.5));
        assert_eq!(read(Datatype::Bf16, &half::bf16::from_f32(0.5).to_le_bytes()), Some(0.5));
        assert_eq!(read(Datatype::Int32, &1i32.to_le_bytes()), None);
    }
}
