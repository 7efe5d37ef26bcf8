//! NumPy's `.npy` files. (The crate for them brings a parser generator and a
//! stack-switching library along, for a header of three keys.)

use half::f16;
use sconce_catalog::Datatype;

use super::{Elements, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads an array of numbers, booleans or texts in C order.
pub(crate) fn read(bytes: &[u8]) -> Result<Tensor, String> {
    let (header, data) = split(bytes).ok_or("it is no .npy file")?;
    if value(header, "fortran_order").ok_or("its header has no `fortran_order`")?.starts_with("True") {
        return Err("it is in Fortran order; save numpy.ascontiguousarray(array)".into());
    }
    let shape = shape(value(header, "shape").ok_or("its header has no `shape`")?)?;
    let descr = value(header, "descr").and_then(|text| text.strip_prefix('\''));
    let descr = descr.and_then(|text| text.split('\'').next());
    let descr = descr.ok_or("its elements are records; save a plain array")?;
    let count = shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size));
    let elements = elements(descr, data)?;
    if count != Some(elements.len() as u64) {
        return Err(format!("its header says shape {shape:?}, and it holds {} elements", elements.len()));
    }
    Ok(Tensor { shape, elements, own: datatype(descr) })
}

fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = if version[0] == 1 {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What follows `'key':` in the header.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn shape(text: &str) -> Result<Vec<u64>, String> {
    let invalid = || "its header's shape is not a tuple of sizes".to_owned();
    let inner = text.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(invalid)?.0;
    let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().map_err(|_| invalid())).collect()
}

fn elements(descr: &str, data: &[u8]) -> Result<Elements, String> {
    let unknown = || format!("its elements are of type {descr:?}, which has no tensor form");
    let big = descr.starts_with('>');
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    if !kind.is_ascii() || kind.len() < 2 {
        return Err(unknown());
    }
    let (letter, size) = kind.split_at(1);
    let size: usize = size.parse().ok().filter(|size| *size <= 1 << 20).ok_or_else(unknown)?;
    let width = if letter == "U" { 4 * size } else { size };
    if width == 0 {
        return Err(unknown());
    }
    if !data.len().is_multiple_of(width) {
        return Err(format!("its data ends within an element of {width} bytes"));
    }
    // Little-endian from here on, whatever the file has.
    let each = data.chunks_exact(width).map(|element| {
        let mut element = element.to_vec();
        if big {
            element.chunks_exact_mut(if letter == "U" { 4 } else { width }).for_each(<[u8]>::reverse);
        }
        element
    });
    let signed = |bytes: Vec<u8>| super::int(&bytes, bytes[bytes.len() - 1] & 0x80 != 0);
    Ok(match (letter, size) {
        ("b", 1) => Elements::Bools(data.iter().map(|byte| *byte != 0).collect()),
        ("i", 1 | 2 | 4 | 8) => Elements::Ints(each.map(signed).collect()),
        ("u", 1 | 2 | 4 | 8) => Elements::Ints(each.map(|bytes| super::int(&bytes, false)).collect()),
        ("f", 2) => Elements::Floats(each.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()),
        ("f", 4) => Elements::Floats(each.map(|b| f64::from(f32::from_le_bytes(super::fixed(&b)))).collect()),
        ("f", 8) => Elements::Floats(each.map(|b| f64::from_le_bytes(super::fixed(&b))).collect()),
        ("S", _) => Elements::Texts(each.map(|b| trimmed(&b).to_vec()).collect()),
        ("U", _) => Elements::Texts(each.map(|b| unicode(&b)).collect::<Option<_>>().ok_or_else(unknown)?),
        _ => return Err(unknown()),
    })
}

fn datatype(descr: &str) -> Option<Datatype> {
    Some(match descr.trim_start_matches(['<', '>', '|', '=']) {
        "b1" => Datatype::Bool,
        "u1" => Datatype::Uint8,
        "u2" => Datatype::Uint16,
        "u4" => Datatype::Uint32,
        "u8" => Datatype::Uint64,
        "i1" => Datatype::Int8,
        "i2" => Datatype::Int16,
        "i4" => Datatype::Int32,
        "i8" => Datatype::Int64,
        "f2" => Datatype::Fp16,
        "f4" => Datatype::Fp32,
        "f8" => Datatype::Fp64,
        _ => return None,
    })
}

/// NumPy pads texts with zeroes.
fn trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &text[..end]
}

fn unicode(text: &[u8]) -> Option<Vec<u8>> {
    let chars = text.chunks_exact(4).map(|c| u32::from_le_bytes(super::fixed(c)));
    let text: Option<String> = chars.map(char::from_u32).collect();
    Some(text?.trim_end_matches('\0').as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.save` writes it.
    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let padded = format!("{header:<117}\n");
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&[1, 0]);
        file.extend_from_slice(&(padded.len() as u16).to_le_bytes());
        file.extend_from_slice(padded.as_bytes());
        file.extend_from_slice(data);
        file
    }

    #[test]
    fn an_array_keeps_its_shape_and_values() {
        let data: Vec<u8> = [1.5f32, -2.0, 0.0, 4.0].iter().flat_map(|f| f.to_le_bytes()).collect();
        let file = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", &data);
        let tensor = read(&file).expect("valid");
        assert_eq!(tensor.shape, [2, 2]);
        assert_eq!(tensor.elements, Elements::Floats(vec![1.5, -2.0, 0.0, 4.0]));
    }

    #[test]
    fn byte_orders_ranks_and_texts_are_read() {
        let big = npy("{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }", &[0, 1, 0xff, 0xff]);
        assert_eq!(read(&big).expect("valid").elements, Elements::Ints(vec![1, -1]));
        let scalar = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", &[200]);
        assert_eq!(
            read(&scalar),
            Ok(Tensor { shape: vec![], elements: Elements::Ints(vec![200]), own: Some(Datatype::Uint8) })
        );
        let text =
            npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }", &[0xe9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&text).expect("valid").elements, Elements::Texts(vec!["é".into()]));
    }

    #[test]
    fn what_is_no_plain_array_is_refused_with_the_reason() {
        let reason = |header: &str, data: &[u8]| read(&npy(header, data)).expect_err(header);
        assert!(read(b"PK\x03\x04").is_err());
        assert!(read(MAGIC).is_err());
        let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }";
        assert!(reason(fortran, &[0; 4]).contains("ascontiguousarray"));
        assert!(reason("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 8]).contains("type"));
        let short = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
        assert!(reason(short, &[0; 4]).contains("holds 1"));
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }";
        assert!(read(&npy(huge, &[])).is_err());
        assert!(read(&npy("{'descr': '<f0', 'fortran_order': False, 'shape': (0,), }", &[])).is_err());
    }
}
