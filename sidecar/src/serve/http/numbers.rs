//! Elements of tensors to and from the numbers of JSON. Nothing is rounded into another value.

use sconce_catalog::Datatype;

/// A scalar of JSON that is no string.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

/// Appends one element.
pub(super) fn put(out: &mut Vec<u8>, datatype: Datatype, number: Number) -> Result<(), String> {
    match datatype {
        Datatype::Bool => match number {
            Number::Bool(value) => out.push(u8::from(value)),
            Number::Unsigned(_) | Number::Signed(_) | Number::Float(_) => {
                return Err(misfit(datatype, number));
            }
        },
        Datatype::Uint8 => out.extend(integer::<u8>(datatype, number)?.to_le_bytes()),
        Datatype::Uint16 => out.extend(integer::<u16>(datatype, number)?.to_le_bytes()),
        Datatype::Uint32 => out.extend(integer::<u32>(datatype, number)?.to_le_bytes()),
        Datatype::Uint64 => out.extend(integer::<u64>(datatype, number)?.to_le_bytes()),
        Datatype::Int8 => out.extend(integer::<i8>(datatype, number)?.to_le_bytes()),
        Datatype::Int16 => out.extend(integer::<i16>(datatype, number)?.to_le_bytes()),
        Datatype::Int32 => out.extend(integer::<i32>(datatype, number)?.to_le_bytes()),
        Datatype::Int64 => out.extend(integer::<i64>(datatype, number)?.to_le_bytes()),
        Datatype::Fp32 => {
            let wide = float(datatype, number)?;
            let narrow = wide as f32;
            if wide.is_finite() && narrow.is_infinite() {
                return Err(misfit(datatype, number));
            }
            out.extend(narrow.to_le_bytes());
        }
        Datatype::Fp64 => out.extend(float(datatype, number)?.to_le_bytes()),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return Err(misfit(datatype, number)),
    }
    Ok(())
}

fn integer<T: TryFrom<u64> + TryFrom<i64>>(datatype: Datatype, number: Number) -> Result<T, String> {
    let value = match number {
        Number::Unsigned(value) => T::try_from(value).ok(),
        Number::Signed(value) => T::try_from(value).ok(),
        Number::Bool(_) | Number::Float(_) => None,
    };
    value.ok_or_else(|| misfit(datatype, number))
}

fn float(datatype: Datatype, number: Number) -> Result<f64, String> {
    match number {
        Number::Unsigned(value) => Ok(value as f64),
        Number::Signed(value) => Ok(value as f64),
        Number::Float(value) => Ok(value),
        Number::Bool(_) => Err(misfit(datatype, number)),
    }
}

fn misfit(datatype: Datatype, number: Number) -> String {
    let name = datatype.name();
    match number {
        Number::Bool(value) => format!("{value} is no {name}"),
        Number::Unsigned(value) => format!("{value} is no {name}"),
        Number::Signed(value) => format!("{value} is no {name}"),
        Number::Float(value) => format!("{value:?} is no {name}"),
    }
}

/// Appends all elements of a fixed width with commas between. `false` where JSON has no form
/// for them.
pub(super) fn write(out: &mut Vec<u8>, datatype: Datatype, bytes: &[u8]) -> bool {
    match datatype {
        Datatype::Bool => {
            each(out, bytes, |out, [byte]| out.extend_from_slice(if byte == 0 { b"false" } else { b"true" }))
        }
        Datatype::Uint8 => each(out, bytes, |out, b| integer_text(out, u8::from_le_bytes(b))),
        Datatype::Uint16 => each(out, bytes, |out, b| integer_text(out, u16::from_le_bytes(b))),
        Datatype::Uint32 => each(out, bytes, |out, b| integer_text(out, u32::from_le_bytes(b))),
        Datatype::Uint64 => each(out, bytes, |out, b| integer_text(out, u64::from_le_bytes(b))),
        Datatype::Int8 => each(out, bytes, |out, b| integer_text(out, i8::from_le_bytes(b))),
        Datatype::Int16 => each(out, bytes, |out, b| integer_text(out, i16::from_le_bytes(b))),
        Datatype::Int32 => each(out, bytes, |out, b| integer_text(out, i32::from_le_bytes(b))),
        Datatype::Int64 => each(out, bytes, |out, b| integer_text(out, i64::from_le_bytes(b))),
        Datatype::Fp32 => each(out, bytes, |out, b| {
            let value = f32::from_le_bytes(b);
            if value.is_finite() { float_text(out, value) } else { odd(out, value.into()) }
        }),
        Datatype::Fp64 => each(out, bytes, |out, b| {
            let value = f64::from_le_bytes(b);
            if value.is_finite() { float_text(out, value) } else { odd(out, value) }
        }),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return false,
    }
    true
}

fn each<const N: usize>(out: &mut Vec<u8>, bytes: &[u8], mut put: impl FnMut(&mut Vec<u8>, [u8; N])) {
    for (at, element) in bytes.as_chunks::<N>().0.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(out, *element);
    }
}

fn integer_text(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same number, which must be finite.
fn float_text(out: &mut Vec<u8>, value: impl zmij::Float) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Names of numbers that JSON lacks, as Python's `json` writes and reads them.
const ODD: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// This text with the names of such numbers in quotes, which makes it JSON; `None` where it
/// has none. Wanted only once a text is known to be no JSON as it is.
pub(super) fn quoted(json: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len() + 64);
    let (mut rest, mut in_string, mut found) = (json, false, false);
    while let [byte, behind @ ..] = rest {
        let odd = ODD.iter().find(|name| !in_string && rest.starts_with(name));
        let taken = match (odd, byte) {
            (Some(name), _) => {
                out.push(b'"');
                name.len()
            }
            (None, b'\\') if in_string && !behind.is_empty() => 2,
            _ => 1,
        };
        out.extend_from_slice(&rest[..taken]);
        if odd.is_some() {
            out.push(b'"');
            found = true;
        }
        in_string ^= *byte == b'"';
        rest = &rest[taken..];
    }
    found.then_some(out)
}

/// Not JSON, but what Triton sends and Python's `json` reads.
fn odd(out: &mut Vec<u8>, value: f64) {
    let name: &[u8] = match (value.is_nan(), value > 0.0) {
        (true, _) => b"NaN",
        (false, true) => b"Infinity",
        (false, false) => b"-Infinity",
    };
    out.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_so_that_the_same_bits_are_read() {
        // Every exponent, and a few fractions of each.
        let bits = (0..=u32::MAX).step_by(65_521).map(f32::from_bits);
        let numbers: Vec<f32> = bits.filter(|number| number.is_finite()).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut text = vec![b'['];
        assert!(write(&mut text, Datatype::Fp32, &bytes));
        text.push(b']');
        let read: Vec<f32> = serde_json::from_slice(&text).expect("JSON");
        assert!(read.iter().map(|number| number.to_bits()).eq(numbers.iter().map(|number| number.to_bits())));
    }
}
