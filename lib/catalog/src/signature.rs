//! What a model takes and gives.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Batching;

/// Inputs and outputs, in the order of the model's `forward`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// In the order of `forward`'s arguments.
    #[serde(default)]
    pub inputs: Vec<Field>,
    /// In the order of the result; empty where it is learned only by running the model.
    #[serde(default)]
    pub outputs: Vec<Field>,
    /// Whether rows of several requests may run as one; `None` where nobody says, and then they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The argument's own name, such as `image`.
    pub name: String,
    /// What the model's code takes or gives.
    #[serde(default)]
    pub kind: Kind,
    /// Element type; `None` where neither the archive nor the pusher says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datatype: Option<Datatype>,
    /// Dimensions; `None` where nothing is known, not even how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Whether the model has a default, so that the input may be left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Dimensions of a tensor; `None` is a dimension of variable size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<i64>", into = "Vec<i64>")]
pub struct Shape(pub Vec<Option<u64>>);

/// The TorchScript type of an argument or result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `Tensor`.
    #[default]
    Tensor,
    /// `int`: on the wire a tensor of one INT64.
    Int,
    /// `float`: on the wire a tensor of one FP64.
    Float,
    /// `bool`: on the wire a tensor of one BOOL.
    Bool,
    /// `str`: on the wire a tensor of one BYTES.
    String,
    /// `List[str]`: on the wire a one-dimensional tensor of BYTES.
    StringList,
    /// `List[Tensor]`: on the wire one tensor, handed over as a list along dimension 0.
    TensorList,
}

/// An element type, by its Open Inference Protocol name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

/// Text that is no datatype.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a datatype; known are BOOL, UINT8/16/32/64, INT8/16/32/64, FP16, BF16, FP32, FP64 and BYTES"
)]
pub struct UnknownDatatype(String);

/// How one signature does not fit another, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(String);

impl Datatype {
    /// Every datatype.
    pub const ALL: [Datatype; 14] = [
        Datatype::Bool,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Bf16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bytes,
    ];

    /// The name on the wire, such as `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Uint16 => "UINT16",
            Datatype::Uint32 => "UINT32",
            Datatype::Uint64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Bf16 => "BF16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; `None` for BYTES, whose elements have lengths of their own.
    pub const fn width(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }
}

impl Kind {
    /// The datatype on the wire, where the kind alone decides it.
    pub const fn datatype(self) -> Option<Datatype> {
        match self {
            Kind::Tensor | Kind::TensorList => None,
            Kind::Int => Some(Datatype::Int64),
            Kind::Float => Some(Datatype::Fp64),
            Kind::Bool => Some(Datatype::Bool),
            Kind::String | Kind::StringList => Some(Datatype::Bytes),
        }
    }
}

impl Shape {
    /// Whether a tensor of these dimensions has this shape.
    pub fn admits(&self, dimensions: &[u64]) -> bool {
        self.0.len() == dimensions.len()
            && self.0.iter().zip(dimensions).all(|(want, have)| want.is_none_or(|w| w == *have))
    }
}

impl Signature {
    /// Whether one caller can talk to both: the same inputs and the same outputs.
    ///
    /// What one of the two leaves open fits anything.
    ///
    /// # Errors
    /// The first difference found, in words, `self` being called `left`.
    pub fn fits(&self, other: &Signature, left: &str, right: &str) -> Result<(), Difference> {
        compare("input", &self.inputs, &other.inputs, left, right)?;
        if self.outputs.is_empty() || other.outputs.is_empty() {
            return Ok(());
        }
        compare("output", &self.outputs, &other.outputs, left, right)
    }
}

fn compare(what: &str, ours: &[Field], theirs: &[Field], left: &str, right: &str) -> Result<(), Difference> {
    let difference = |text: String| Err(Difference(text));
    for (field, here, there, others) in
        ours.iter().map(|f| (f, left, right, theirs)).chain(theirs.iter().map(|f| (f, right, left, ours)))
    {
        if !field.optional && !others.iter().any(|other| other.name == field.name) {
            return difference(format!("{what} `{}` of {here} does not exist in {there}", field.name));
        }
    }
    for field in ours {
        let Some(other) = theirs.iter().find(|other| other.name == field.name) else { continue };
        if field.kind != other.kind {
            return difference(format!(
                "{what} `{}` is {} in {left} and {} in {right}",
                field.name, field.kind, other.kind
            ));
        }
        if let (Some(a), Some(b)) = (field.datatype, other.datatype)
            && a != b
        {
            return difference(format!("{what} `{}` is {a} in {left} and {b} in {right}", field.name));
        }
        if let (Some(a), Some(b)) = (&field.shape, &other.shape) {
            let fits = a.0.len() == b.0.len()
                && a.0.iter().zip(&b.0).all(|(x, y)| x.is_none() || y.is_none() || x == y);
            if !fits {
                return difference(format!(
                    "{what} `{}` has shape {a} in {left} and {b} in {right}",
                    field.name
                ));
            }
        }
    }
    Ok(())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Tensor => "Tensor",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Bool => "bool",
            Kind::String => "str",
            Kind::StringList => "List[str]",
            Kind::TensorList => "List[Tensor]",
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.0.iter().map(|d| d.map_or_else(|| "-1".to_owned(), |size| size.to_string())).collect();
        write!(f, "[{}]", parts.join(","))
    }
}

impl FromStr for Datatype {
    type Err = UnknownDatatype;

    fn from_str(text: &str) -> Result<Self, UnknownDatatype> {
        Self::ALL.into_iter().find(|d| d.name() == text).ok_or_else(|| UnknownDatatype(text.to_owned()))
    }
}

impl TryFrom<String> for Datatype {
    type Error = UnknownDatatype;

    fn try_from(text: String) -> Result<Self, UnknownDatatype> {
        text.parse()
    }
}

impl From<Datatype> for &'static str {
    fn from(datatype: Datatype) -> Self {
        datatype.name()
    }
}

impl From<Vec<i64>> for Shape {
    /// Negative sizes are variable.
    fn from(sizes: Vec<i64>) -> Self {
        Self(sizes.into_iter().map(|size| u64::try_from(size).ok()).collect())
    }
}

impl From<Shape> for Vec<i64> {
    fn from(shape: Shape) -> Self {
        shape.0.into_iter().map(|size| size.map_or(-1, |s| i64::try_from(s).unwrap_or(i64::MAX))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, datatype: Option<Datatype>, shape: Option<&[i64]>) -> Field {
        Field {
            name: name.into(),
            kind: Kind::Tensor,
            datatype,
            shape: shape.map(|s| s.to_vec().into()),
            optional: false,
        }
    }

    fn inputs(fields: Vec<Field>) -> Signature {
        Signature { inputs: fields, ..Signature::default() }
    }

    #[test]
    fn what_is_left_open_fits_anything() {
        let open = inputs(vec![field("x", None, None)]);
        let tight = inputs(vec![field("x", Some(Datatype::Fp32), Some(&[-1, 64]))]);
        assert_eq!(open.fits(&tight, "1", "2"), Ok(()));
        assert_eq!(tight.fits(&open, "1", "2"), Ok(()));
    }

    #[test]
    fn a_difference_names_the_field_and_both_sides() {
        let one = inputs(vec![field("x", Some(Datatype::Fp32), Some(&[-1, 64]))]);
        let cases = [
            (inputs(vec![field("y", None, None)]), "input `x` of v1 does not exist in v2"),
            (
                inputs(vec![field("x", Some(Datatype::Int64), None)]),
                "input `x` is FP32 in v1 and INT64 in v2",
            ),
            (
                inputs(vec![field("x", None, Some(&[-1, 32]))]),
                "input `x` has shape [-1,64] in v1 and [-1,32] in v2",
            ),
        ];
        for (two, expected) in cases {
            assert_eq!(one.fits(&two, "v1", "v2").expect_err("differs").to_string(), expected);
        }
    }

    #[test]
    fn an_optional_input_may_be_missing_on_the_other_side() {
        let plain = inputs(vec![field("x", None, None)]);
        let extra = inputs(vec![
            field("x", None, None),
            Field { optional: true, ..field("temperature", None, None) },
        ]);
        assert_eq!(plain.fits(&extra, "1", "2"), Ok(()));
    }

    #[test]
    fn every_datatype_is_found_by_its_name() {
        for datatype in Datatype::ALL {
            assert_eq!(datatype.name().parse(), Ok(datatype));
        }
        assert!("FLOAT".parse::<Datatype>().is_err());
    }
}
