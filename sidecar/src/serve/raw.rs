//! Tensors as raw bytes, as the binary extension and gRPC carry them, and their shapes.
//!
//! Fixed-width elements are dense and little-endian, exactly as [`Data::Fixed`] keeps
//! them, so both directions are slices. BYTES elements each follow their length, a `u32`.

use bytes::{BufMut as _, Bytes, BytesMut};
use sconce_catalog::Datatype;

use crate::engine::{Data, Tensor};

/// libtorch itself goes no further.
const MOST_DIMENSIONS: usize = 64;
/// Each string takes some 32 bytes here for 4 on the wire: what one request can make us
/// allocate has to stay near the size of its body.
const MOST_STRINGS: usize = 1 << 20;

/// The shape and its number of elements.
pub(super) fn shape(sizes: &[i64], datatype: Datatype) -> Result<(Vec<u64>, usize), String> {
    if sizes.len() > MOST_DIMENSIONS {
        return Err(format!(
            "its shape has {} dimensions, and at most {MOST_DIMENSIONS} are possible",
            sizes.len()
        ));
    }
    let sizes = sizes
        .iter()
        .map(|size| u64::try_from(*size).map_err(|_| format!("its shape {sizes:?} has a negative size")))
        .collect::<Result<Vec<u64>, _>>()?;
    let elements = Tensor::elements(&sizes)
        .filter(|count| count.checked_mul(datatype.width().unwrap_or(1)).is_some())
        .ok_or_else(|| format!("its shape {sizes:?} is larger than any memory"))?;
    if datatype == Datatype::Bytes && elements > MOST_STRINGS {
        return Err(format!(
            "its shape {sizes:?} has {elements} strings, and at most {MOST_STRINGS} are accepted"
        ));
    }
    Ok((sizes, elements))
}

/// The tensor whose elements are these bytes.
pub(super) fn decode(datatype: Datatype, sizes: &[i64], bytes: Bytes) -> Result<Tensor, String> {
    let (shape, elements) = shape(sizes, datatype)?;
    let data = match datatype.width() {
        None => Data::Strings(strings(bytes, elements, &shape)?),
        Some(width) if bytes.len() == elements * width => {
            // Any other byte in a `bool` is undefined behaviour in the library that reads it.
            if datatype == Datatype::Bool && bytes.iter().any(|byte| *byte > 1) {
                return Err("a BOOL element is neither 0 nor 1".to_owned());
            }
            Data::Fixed(bytes)
        }
        Some(width) => {
            return Err(format!(
                "shape {shape:?} of {} takes {} bytes, and {} came",
                datatype.name(),
                elements * width,
                bytes.len()
            ));
        }
    };
    Ok(Tensor { datatype, shape, data })
}

fn strings(mut bytes: Bytes, elements: usize, shape: &[u64]) -> Result<Vec<Bytes>, String> {
    let mut strings = Vec::with_capacity(elements.min(bytes.len() / 4));
    while let Some(prefix) = bytes.first_chunk::<4>() {
        let length = u32::from_le_bytes(*prefix) as usize;
        let left = bytes.len() - 4;
        if length > left {
            return Err(format!(
                "BYTES element {} says it has {length} bytes, and {left} are left",
                strings.len()
            ));
        }
        if strings.len() == elements {
            return Err(format!("shape {shape:?} has {elements} elements, and more came"));
        }
        let _prefix = bytes.split_to(4);
        strings.push(bytes.split_to(length));
    }
    if !bytes.is_empty() {
        return Err(format!("{} bytes are left over after the last BYTES element", bytes.len()));
    }
    if strings.len() != elements {
        return Err(format!("shape {shape:?} has {elements} elements, and {} came", strings.len()));
    }
    Ok(strings)
}

/// The elements as one run of bytes; copied only for BYTES.
pub(super) fn encode(data: Data) -> Bytes {
    match data {
        Data::Fixed(bytes) => bytes,
        Data::Strings(strings) => {
            let mut all = BytesMut::with_capacity(strings.iter().map(|string| string.len() + 4).sum());
            for string in strings {
                // A string came from a message or a model of less than 4 GiB.
                all.put_u32_le(u32::try_from(string.len()).unwrap_or(u32::MAX));
                all.put(string);
            }
            all.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_no_memory_holds_is_refused() {
        for sizes in [&[i64::MAX, 3][..], &[1 << 31, 1 << 31, 2], &[-1], &[1; 65]] {
            assert!(shape(sizes, Datatype::Fp64).is_err(), "{sizes:?}");
        }
        assert_eq!(shape(&[0, 5], Datatype::Fp32), Ok((vec![0, 5], 0)));
        assert_eq!(shape(&[], Datatype::Fp32), Ok((vec![], 1)));
    }

    #[test]
    fn strings_survive_and_lies_about_their_length_do_not() {
        let strings = Data::Strings(vec![Bytes::from_static(b"ab"), Bytes::new()]);
        let bytes = encode(strings.clone());
        assert_eq!(decode(Datatype::Bytes, &[2], bytes.clone()).unwrap().data, strings);
        for (sizes, bytes) in [
            (&[1][..], bytes.clone()),
            (&[3], bytes.clone()),
            (&[2], bytes.slice(..bytes.len() - 1)),
            (&[1], Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1])),
        ] {
            assert!(decode(Datatype::Bytes, sizes, bytes).is_err());
        }
    }
}
