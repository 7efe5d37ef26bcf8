//! Inputs that nobody sent: what a model is warmed with.

use bytes::Bytes;
use sconce_catalog::{Datatype, Field, Kind, Signature};

use crate::engine::{Data, Tensor};

/// Zeros of the declared shapes, with `size` for dimensions of variable size, and ones
/// for numbers; `None` where something is not declared.
pub(super) fn inputs(signature: &Signature, size: u64) -> Option<Vec<Option<Tensor>>> {
    signature
        .inputs
        .iter()
        .map(|field| if field.optional { Some(None) } else { sample(field, size).map(Some) })
        .collect()
}

fn sample(field: &Field, size: u64) -> Option<Tensor> {
    let datatype = field.datatype.or(field.kind.datatype())?;
    if !matches!(field.kind, Kind::Tensor | Kind::TensorList | Kind::StringList) {
        return number(field.kind);
    }
    let shape: Vec<u64> = match (&field.shape, field.kind) {
        (Some(shape), _) => shape.0.iter().map(|dimension| dimension.unwrap_or(size)).collect(),
        (None, Kind::StringList) => vec![size],
        (None, _) => return None,
    };
    let elements = Tensor::elements(&shape)?;
    let data = match datatype.width() {
        Some(width) => Data::Fixed(Bytes::from(vec![0; elements.checked_mul(width)?])),
        None => Data::Strings(vec![Bytes::new(); elements]),
    };
    Some(Tensor { datatype, shape, data })
}

/// One, not zero: a model may divide by it, or take it for a size.
fn number(kind: Kind) -> Option<Tensor> {
    let datatype = kind.datatype()?;
    let data = match kind {
        Kind::Int => Data::Fixed(Bytes::copy_from_slice(&1i64.to_le_bytes())),
        Kind::Float => Data::Fixed(Bytes::copy_from_slice(&1f64.to_le_bytes())),
        Kind::Bool => Data::Fixed(Bytes::from_static(&[1])),
        _ => Data::Strings(vec![Bytes::new()]),
    };
    Some(Tensor { datatype, shape: vec![1], data })
}

/// Whether an element is not a number.
pub(super) fn has_nan(tensor: &Tensor) -> bool {
    let Data::Fixed(bytes) = &tensor.data else { return false };
    match tensor.datatype {
        Datatype::Fp16 => bytes.as_chunks().0.iter().any(|b| half::f16::from_le_bytes(*b).is_nan()),
        Datatype::Bf16 => bytes.as_chunks().0.iter().any(|b| half::bf16::from_le_bytes(*b).is_nan()),
        Datatype::Fp32 => bytes.as_chunks().0.iter().any(|b| f32::from_le_bytes(*b).is_nan()),
        Datatype::Fp64 => bytes.as_chunks().0.iter().any(|b| f64::from_le_bytes(*b).is_nan()),
        _ => false,
    }
}
