//! Decodes a tensor's `data` straight from JSON text into its elements.
//!
//! Arrays may be nested as the shape says, flat, or flat from some dimension on. What is
//! refused is a ragged array whose elements merely add up.

use std::fmt;

use bytes::Bytes;
use sconce_catalog::Datatype;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::{super::raw, numbers};
use crate::engine::{Data, Tensor};

/// The tensor whose elements this text lists.
pub(super) fn decode(datatype: Datatype, sizes: &[i64], text: &str) -> Result<Tensor, String> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(format!(
            "{} has no form in JSON; send it as binary data (binary_data_size)",
            datatype.name()
        ));
    }
    let (shape, elements) = raw::shape(sizes, datatype)?;
    let mut found = Found { datatype, count: 0, elements, fixed: Vec::new(), strings: Vec::new() };
    let mut json = serde_json::Deserializer::from_str(text);
    Level { shape: &shape, depth: 0, found: &mut found }
        .deserialize(&mut json)
        .map_err(|error| format!("its data: {error}"))?;
    if found.count != elements {
        return Err(format!("shape {shape:?} has {elements} elements, and {} came", found.count));
    }
    let data = if datatype == Datatype::Bytes {
        Data::Strings(found.strings)
    } else {
        Data::Fixed(Bytes::from(found.fixed))
    };
    Ok(Tensor { datatype, shape, data })
}

/// The elements so far.
struct Found {
    datatype: Datatype,
    count: usize,
    elements: usize,
    fixed: Vec<u8>,
    strings: Vec<Bytes>,
}

/// What may stand at one depth of the arrays. Says whether it was an array.
struct Level<'a> {
    shape: &'a [u64],
    depth: usize,
    found: &'a mut Found,
}

impl Found {
    fn number<E: Error>(&mut self, number: numbers::Number) -> Result<bool, E> {
        self.room()?;
        numbers::put(&mut self.fixed, self.datatype, number).map_err(E::custom)?;
        Ok(false)
    }

    /// Refuses an element too many at once: hostile text must not fill memory first.
    fn room<E: Error>(&mut self) -> Result<(), E> {
        if self.count == self.elements {
            return Err(E::custom(format_args!("more than the {} elements of its shape", self.elements)));
        }
        self.count += 1;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an element of {}, or an array of them", self.found.datatype.name())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        self.found.number(numbers::Number::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.found.number(numbers::Number::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.found.number(numbers::Number::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.found.number(numbers::Number::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
        if self.found.datatype == Datatype::Bytes {
            self.found.room()?;
            self.found.strings.push(Bytes::copy_from_slice(value.as_bytes()));
            return Ok(false);
        }
        // JSON has no such numbers; these are the names that protobuf's JSON gives them.
        match value {
            "NaN" => self.found.number(numbers::Number::Float(f64::NAN)),
            "Infinity" => self.found.number(numbers::Number::Float(f64::INFINITY)),
            "-Infinity" => self.found.number(numbers::Number::Float(f64::NEG_INFINITY)),
            _ => Err(E::custom(format_args!("a string is no {}", self.found.datatype.name()))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<bool, A::Error> {
        let Self { shape, depth, found } = self;
        // One array more than dimensions is the way to write a scalar.
        if depth >= shape.len().max(1) {
            return Err(A::Error::custom(format_args!(
                "arrays are nested deeper than its {} dimensions",
                shape.len()
            )));
        }
        let (mut length, mut arrays) = (0usize, None);
        while let Some(array) = sequence.next_element_seed(Level { shape, depth: depth + 1, found })? {
            if arrays.is_some_and(|arrays| arrays != array) {
                return Err(A::Error::custom("an array holds both elements and arrays"));
            }
            arrays = Some(array);
            length += 1;
        }
        let wanted = match arrays {
            Some(true) => usize::try_from(shape[depth]).ok(),
            Some(false) | None => Tensor::elements(&shape[depth..]),
        };
        if wanted != Some(length) {
            return Err(A::Error::custom(format_args!(
                "an array at depth {depth} has {length} entries, which does not fit shape {shape:?}"
            )));
        }
        Ok(true)
    }
}
