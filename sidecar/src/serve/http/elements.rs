//! Tensor elements as JSON, both ways.

use std::fmt;

use bytes::Bytes;
use sconce_catalog::Datatype;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::engine::{Data, Tensor};

/// Reads nested or flat `data` straight into a tensor's bytes.
pub(super) fn read(raw: &RawValue, datatype: Datatype) -> Result<Data, String> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(format!("{datatype} has no JSON form; send it as binary data"));
    }
    let mut sink = Sink { datatype, bytes: Vec::new(), strings: Vec::new() };
    let mut json = serde_json::Deserializer::from_str(raw.get());
    Nested(&mut sink).deserialize(&mut json).map_err(|error| format!("its data cannot be read: {error}"))?;
    Ok(if datatype == Datatype::Bytes { Data::Strings(sink.strings) } else { Data::Fixed(sink.bytes.into()) })
}

struct Sink {
    datatype: Datatype,
    bytes: Vec<u8>,
    strings: Vec<Bytes>,
}

/// One element or a list of such. serde_json bounds how deep lists may nest.
struct Nested<'a>(&'a mut Sink);

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.0.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Nested(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.0.datatype {
            Datatype::Bool => self.0.bytes.push(u8::from(value)),
            _ => return Err(self.refuse(value)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if self.0.datatype == Datatype::Uint64 {
            self.0.bytes.extend_from_slice(&value.to_le_bytes());
            return Ok(());
        }
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        macro_rules! push {
            ($integer:ty) => {
                match <$integer>::try_from(value) {
                    Ok(number) => self.0.bytes.extend_from_slice(&number.to_le_bytes()),
                    Err(_) => return Err(self.refuse(value)),
                }
            };
        }
        match self.0.datatype {
            Datatype::Uint8 => push!(u8),
            Datatype::Uint16 => push!(u16),
            Datatype::Uint32 => push!(u32),
            Datatype::Uint64 => push!(u64),
            Datatype::Int8 => push!(i8),
            Datatype::Int16 => push!(i16),
            Datatype::Int32 => push!(i32),
            Datatype::Int64 => push!(i64),
            Datatype::Bool if value == 0 || value == 1 => self.0.bytes.push(u8::from(value == 1)),
            Datatype::Fp32 => self.0.bytes.extend_from_slice(&(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.0.bytes.extend_from_slice(&(value as f64).to_le_bytes()),
            _ => return Err(self.refuse(value)),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.0.datatype {
            // Rounding is what a narrower number means; becoming infinite is not.
            Datatype::Fp32 if value.is_finite() && (value as f32).is_infinite() => {
                return Err(self.refuse(value));
            }
            Datatype::Fp32 => self.0.bytes.extend_from_slice(&(value as f32).to_le_bytes()),
            Datatype::Fp64 => self.0.bytes.extend_from_slice(&value.to_le_bytes()),
            _ => return Err(self.refuse(value)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.0.datatype {
            Datatype::Bytes => self.0.strings.push(Bytes::copy_from_slice(value.as_bytes())),
            _ => return Err(self.refuse(value)),
        }
        Ok(())
    }
}

impl Nested<'_> {
    fn refuse<E: Error>(&self, value: impl fmt::Debug) -> E {
        E::custom(format!("{value:?} is no {}", self.0.datatype))
    }
}

/// Appends the elements as a flat JSON list.
///
/// NaN and the infinities are written bare, as Python's `json` writes and reads them:
/// JSON has no form for them, and a null would lose them.
pub(super) fn write(tensor: &Tensor, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'[');
    match &tensor.data {
        Data::Strings(strings) => {
            for (at, text) in strings.iter().enumerate() {
                separate(at, out);
                let text = std::str::from_utf8(text)
                    .map_err(|_| "holds bytes that are no text; ask for binary data")?;
                serde_json::to_writer(&mut *out, text).map_err(|error| error.to_string())?;
            }
        }
        Data::Fixed(bytes) => fixed(tensor.datatype, bytes, out)?,
    }
    out.push(b']');
    Ok(())
}

fn fixed(datatype: Datatype, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    macro_rules! numbers {
        ($number:ty) => {
            each::<{ size_of::<$number>() }>(bytes, out, |raw, out| {
                let number = <$number>::from_le_bytes(raw);
                serde_json::to_writer(out, &number)
            })
        };
    }
    macro_rules! reals {
        ($number:ty) => {
            each::<{ size_of::<$number>() }>(bytes, out, |raw, out| {
                let number = <$number>::from_le_bytes(raw);
                match () {
                    () if number.is_nan() => out.extend_from_slice(b"NaN"),
                    () if number.is_infinite() => {
                        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" })
                    }
                    () => return serde_json::to_writer(out, &number),
                }
                Ok(())
            })
        };
    }
    let written = match datatype {
        Datatype::Bool => each::<1>(bytes, out, |[raw], out| serde_json::to_writer(out, &(raw != 0))),
        Datatype::Uint8 => numbers!(u8),
        Datatype::Uint16 => numbers!(u16),
        Datatype::Uint32 => numbers!(u32),
        Datatype::Uint64 => numbers!(u64),
        Datatype::Int8 => numbers!(i8),
        Datatype::Int16 => numbers!(i16),
        Datatype::Int32 => numbers!(i32),
        Datatype::Int64 => numbers!(i64),
        Datatype::Fp32 => reals!(f32),
        Datatype::Fp64 => reals!(f64),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => {
            return Err(format!("is {datatype}, which has no JSON form; ask for it as binary data"));
        }
    };
    written.map_err(|error| error.to_string())
}

fn each<const WIDTH: usize>(
    bytes: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut([u8; WIDTH], &mut Vec<u8>) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let (elements, _) = bytes.as_chunks::<WIDTH>();
    for (at, raw) in elements.iter().enumerate() {
        separate(at, out);
        write(*raw, out)?;
    }
    Ok(())
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(json: &str, datatype: Datatype) -> Result<Data, String> {
        read(&RawValue::from_string(json.to_owned()).expect("JSON"), datatype)
    }

    fn round_trip(json: &str, datatype: Datatype) -> String {
        let tensor = Tensor { datatype, shape: vec![], data: read_text(json, datatype).expect("valid") };
        let mut out = Vec::new();
        write(&tensor, &mut out).expect("writable");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn extremes_of_every_type_survive() {
        for (json, datatype) in [
            ("[true,false]", Datatype::Bool),
            ("[0,255]", Datatype::Uint8),
            ("[-32768,32767]", Datatype::Int16),
            ("[18446744073709551615]", Datatype::Uint64),
            ("[-9223372036854775808]", Datatype::Int64),
            ("[0.1,-3.4028235e+38]", Datatype::Fp32),
            ("[1.7976931348623157e+308]", Datatype::Fp64),
            ("[\"a\",\"\\\"ü\\\\\"]", Datatype::Bytes),
        ] {
            assert_eq!(round_trip(json, datatype), json, "{datatype}");
        }
    }

    #[test]
    fn nested_data_is_flattened_row_by_row() {
        assert_eq!(round_trip("[[1,2],[3,4]]", Datatype::Int32), "[1,2,3,4]");
    }

    #[test]
    fn what_does_not_fit_the_type_is_refused() {
        for (json, datatype) in [
            ("[256]", Datatype::Uint8),
            ("[-1]", Datatype::Uint64),
            ("[1.5]", Datatype::Int32),
            ("[\"1\"]", Datatype::Fp32),
            ("[null]", Datatype::Fp32),
            ("[1]", Datatype::Fp16),
            ("[1e39]", Datatype::Fp32),
            ("{\"a\":1}", Datatype::Fp32),
        ] {
            assert!(read_text(json, datatype).is_err(), "{json} {datatype}");
        }
        assert!(read_text(&format!("{}1{}", "[".repeat(100), "]".repeat(100)), Datatype::Int8).is_ok());
        assert!(read_text(&format!("{}1{}", "[".repeat(120), "]".repeat(120)), Datatype::Int8).is_ok());
    }

    #[test]
    fn numbers_that_json_has_not_are_written_as_python_reads_them() {
        let bytes: Vec<u8> =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].iter().flat_map(|f| f.to_le_bytes()).collect();
        let tensor = Tensor { datatype: Datatype::Fp32, shape: vec![3], data: Data::Fixed(bytes.into()) };
        let mut out = Vec::new();
        write(&tensor, &mut out).expect("writable");
        assert_eq!(out, b"[NaN,Infinity,-Infinity]");
    }
}
