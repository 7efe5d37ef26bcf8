//! The classification extension: of each row of an output the classes with the largest values.
//!
//! Each is a text, `value:index`, or `value:index:label` where the archive says what its classes are
//! called. The value of a float has six decimals, as Triton's `std::to_string` writes it, whatever
//! its documentation shows.

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;
use half::{bf16, f16};
use sconce_artifact::Labels;
use sconce_catalog::{Batching, Datatype, Signature};

use crate::engine::{Data, Output, Tensor};

/// How many classes of which output are wanted instead of its values.
pub(super) type Classes = BTreeMap<String, u64>;

/// Texts in one answer. Each is several times as large as the number that it says.
const MOST_TEXTS: u64 = 1 << 20;

/// These outputs, with classes in place of values where that was asked for.
pub(super) fn classify(
    outputs: Vec<Output>,
    wanted: &Classes,
    signature: &Signature,
    labels: &Labels,
) -> Result<Vec<Output>, String> {
    let declared = signature.batching == Some(Batching::Rows);
    let one = |output: Output| match wanted.get(&*output.name) {
        None => Ok(output),
        Some(most) => {
            let labels = labels.get(&*output.name).map_or(&[][..], Vec::as_slice);
            classes(&output.tensor, *most, declared, labels)
                .map(|tensor| Output { name: output.name.clone(), tensor })
                .map_err(|reason| format!("output `{}` has no classes: {reason}", output.name))
        }
    };
    outputs.into_iter().map(one).collect()
}

/// The classes of a tensor, whose dimension 0 counts rows unless it is the only one and nobody says
/// that it does.
fn classes(tensor: &Tensor, most: u64, declared: bool, labels: &[String]) -> Result<Tensor, String> {
    let has_rows = tensor.shape.len() > 1 || (declared && !tensor.shape.is_empty());
    let rows = if has_rows { tensor.shape[0] } else { 1 };
    let row =
        Tensor::elements(if has_rows { &tensor.shape[1..] } else { &tensor.shape }).unwrap_or(usize::MAX);
    let each = most.min(row as u64);
    if rows.saturating_mul(each) > MOST_TEXTS {
        return Err(format!("{rows} rows of {each} classes are more than {MOST_TEXTS}; ask for fewer"));
    }
    let Data::Fixed(bytes) = &tensor.data else { return Err("it has texts, and no values".to_owned()) };
    let found = Found { row, each: usize::try_from(each).unwrap_or(usize::MAX), labels };
    let texts = match tensor.datatype {
        Datatype::Fp32 => found.of(bytes, f32::from_le_bytes, float, decimals),
        Datatype::Fp64 => found.of(bytes, f64::from_le_bytes, float, decimals),
        Datatype::Fp16 => found.of(bytes, |b| f16::from_le_bytes(b).to_f32(), float, decimals),
        Datatype::Bf16 => found.of(bytes, |b| bf16::from_le_bytes(b).to_f32(), float, decimals),
        Datatype::Uint8 => found.of(bytes, u8::from_le_bytes, Ord::cmp, u8::to_string),
        Datatype::Uint16 => found.of(bytes, u16::from_le_bytes, Ord::cmp, u16::to_string),
        Datatype::Uint32 => found.of(bytes, u32::from_le_bytes, Ord::cmp, u32::to_string),
        Datatype::Uint64 => found.of(bytes, u64::from_le_bytes, Ord::cmp, u64::to_string),
        Datatype::Int8 => found.of(bytes, i8::from_le_bytes, Ord::cmp, i8::to_string),
        Datatype::Int16 => found.of(bytes, i16::from_le_bytes, Ord::cmp, i16::to_string),
        Datatype::Int32 => found.of(bytes, i32::from_le_bytes, Ord::cmp, i32::to_string),
        Datatype::Int64 => found.of(bytes, i64::from_le_bytes, Ord::cmp, i64::to_string),
        Datatype::Bool | Datatype::Bytes => {
            return Err(format!("it is {}, which has no order", tensor.datatype));
        }
    };
    let shape = if has_rows { vec![rows, each] } else { vec![each] };
    Ok(Tensor { datatype: Datatype::Bytes, shape, data: Data::Strings(texts) })
}

/// How classes are found in each row.
struct Found<'a> {
    /// Elements of a row.
    row: usize,
    /// Classes wanted of each.
    each: usize,
    labels: &'a [String],
}

impl Found<'_> {
    fn of<T, const N: usize>(
        &self,
        bytes: &[u8],
        read: impl Fn([u8; N]) -> T,
        order: impl Fn(&T, &T) -> Ordering,
        text: impl Fn(&T) -> String,
    ) -> Vec<Bytes> {
        let mut texts = Vec::new();
        if self.each == 0 {
            return texts;
        }
        for row in bytes.as_chunks::<N>().0.chunks(self.row) {
            let mut values: Vec<(usize, T)> = row.iter().map(|bytes| read(*bytes)).enumerate().collect();
            // Of equals the first: the answer must not depend on how they were sorted.
            let largest = |a: &(usize, T), b: &(usize, T)| order(&b.1, &a.1).then_with(|| a.0.cmp(&b.0));
            if self.each < values.len() {
                values.select_nth_unstable_by(self.each, largest);
                values.truncate(self.each);
            }
            values.sort_unstable_by(largest);
            texts.extend(values.iter().map(|(index, value)| self.text(*index, &text(value))));
        }
        texts
    }

    fn text(&self, index: usize, value: &str) -> Bytes {
        match self.labels.get(index) {
            Some(label) => format!("{value}:{index}:{label}").into(),
            None => format!("{value}:{index}").into(),
        }
    }
}

/// What is no number is no largest one either.
fn float<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_number = |value: &T| value.partial_cmp(value).is_some();
    a.partial_cmp(b).unwrap_or_else(|| is_number(a).cmp(&is_number(b)))
}

fn decimals<T: Copy + Into<f64>>(value: &T) -> String {
    let value: f64 = (*value).into();
    if value.is_nan() { "nan".to_owned() } else { format!("{value:.6}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[u64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { datatype: Datatype::Fp32, shape: shape.to_vec(), data: Data::Fixed(bytes.into()) }
    }

    fn texts(tensor: &Tensor, most: u64, declared: bool, labels: &[&str]) -> (Vec<u64>, Vec<String>) {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let found = classes(tensor, most, declared, &labels).expect("it has classes");
        let Data::Strings(strings) = found.data else { panic!("texts") };
        (found.shape, strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
    }

    #[test]
    fn each_row_has_its_largest_values_first_with_index_and_label() {
        let rows = tensor(&[2, 3], &[0.25, 3.3, -1.0, 7.0, 7.0, 0.5]);
        let (shape, found) = texts(&rows, 2, false, &["cat", "dog", "owl"]);
        assert_eq!(shape, [2, 2]);
        assert_eq!(found, ["3.300000:1:dog", "0.250000:0:cat", "7.000000:0:cat", "7.000000:1:dog"]);
        // More than there are is all of them, and labels may be fewer than classes.
        let (shape, found) = texts(&rows, 9, false, &["cat"]);
        assert_eq!((shape, found.len(), found[0].as_str()), (vec![2, 3], 6, "3.300000:1"));
    }

    #[test]
    fn one_dimension_is_one_row_unless_rows_are_declared() {
        let values = tensor(&[3], &[1.0, 2.0, 3.0]);
        assert_eq!(texts(&values, 1, false, &[]), (vec![1], vec!["3.000000:2".to_owned()]));
        assert_eq!(texts(&values, 1, true, &[]).0, [3, 1]);
        assert_eq!(texts(&tensor(&[], &[5.0]), 1, true, &[]), (vec![1], vec!["5.000000:0".to_owned()]));
        assert_eq!(texts(&tensor(&[0, 3], &[]), 2, true, &[]), (vec![0, 2], vec![]));
        assert_eq!(texts(&tensor(&[2, 0], &[]), 2, true, &[]), (vec![2, 0], vec![]));
    }

    #[test]
    fn what_is_no_number_comes_last_and_infinity_has_its_place() {
        let odd = tensor(&[4], &[f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(texts(&odd, 4, false, &[]).1, ["inf:2", "1.000000:1", "-inf:3", "nan:0"]);
    }

    #[test]
    fn whole_numbers_keep_every_digit() {
        let bytes: Vec<u8> = [u64::MAX - 1, u64::MAX].iter().flat_map(|value| value.to_le_bytes()).collect();
        let large = Tensor { datatype: Datatype::Uint64, shape: vec![2], data: Data::Fixed(bytes.into()) };
        assert_eq!(texts(&large, 1, false, &[]).1, [format!("{}:1", u64::MAX)]);
    }

    #[test]
    fn what_has_no_order_or_too_many_classes_is_refused() {
        let truth = Tensor { datatype: Datatype::Bool, shape: vec![1], data: Data::Fixed(vec![1].into()) };
        assert!(classes(&truth, 1, false, &[]).unwrap_err().contains("BOOL"));
        let words = Tensor { datatype: Datatype::Bytes, shape: vec![0], data: Data::Strings(Vec::new()) };
        assert!(classes(&words, 1, false, &[]).is_err());
        let bytes = Data::Fixed(vec![0; (MOST_TEXTS + 1) as usize].into());
        let large = Tensor { datatype: Datatype::Uint8, shape: vec![MOST_TEXTS + 1], data: bytes };
        assert!(classes(&large, u64::MAX, false, &[]).unwrap_err().contains("fewer"));
        assert!(classes(&large, 1, false, &[]).is_ok());
    }
}
