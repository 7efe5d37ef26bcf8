//! Whether rows of different requests may run as one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Field, Kind, Signature};

/// What is said of dimension 0 of a version's inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// Dimension 0 counts rows, and each row of the outputs depends on the same row of the inputs
    /// alone: rows of several requests may run as one batch.
    Rows,
    /// Requests run one by one.
    Off,
}

/// Text that is no [`Batching`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to batch; expected `rows` or `off`")]
pub struct UnknownBatching(String);

/// Why the rows of a model cannot be batched, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRows {
    /// No input has rows.
    #[error("no input is a tensor, so there are no rows")]
    NoTensor,
    /// An input has no rows of its own to be joined along.
    #[error("input `{name}` is {kind}, which has no rows")]
    Kind {
        /// The input.
        name: String,
        /// What the model's code takes for it.
        kind: Kind,
    },
    /// An input or output has a fixed number of rows, or none.
    #[error("`{name}` has shape {shape}, whose dimension 0 is not of variable size (-1)")]
    Fixed {
        /// The input or output.
        name: String,
        /// Its shape.
        shape: String,
    },
}

impl Batching {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Batching::Rows => "rows",
            Batching::Off => "off",
        }
    }
}

impl fmt::Display for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Batching {
    type Err = UnknownBatching;

    fn from_str(text: &str) -> Result<Self, UnknownBatching> {
        [Batching::Rows, Batching::Off]
            .into_iter()
            .find(|batching| batching.name() == text)
            .ok_or_else(|| UnknownBatching(text.to_owned()))
    }
}

impl Signature {
    /// Whether dimension 0 can be one of rows, as far as the signature tells.
    ///
    /// Numbers and texts go with a request as a whole: requests where they are equal can be batched.
    ///
    /// # Errors
    /// The first input or output that has no rows.
    pub fn has_rows(&self) -> Result<(), NoRows> {
        for field in &self.inputs {
            match field.kind {
                Kind::Tensor => variable(field)?,
                Kind::Int | Kind::Float | Kind::Bool | Kind::String => {}
                kind @ (Kind::TensorList | Kind::StringList) => {
                    return Err(NoRows::Kind { name: field.name.clone(), kind });
                }
            }
        }
        if !self.inputs.iter().any(|field| field.kind == Kind::Tensor) {
            return Err(NoRows::NoTensor);
        }
        self.outputs.iter().try_for_each(variable)
    }
}

fn variable(field: &Field) -> Result<(), NoRows> {
    match &field.shape {
        Some(shape) if shape.0.first() != Some(&None) => {
            Err(NoRows::Fixed { name: field.name.clone(), shape: shape.to_string() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: Kind, shape: Option<&[i64]>) -> Field {
        let shape = shape.map(|sizes| sizes.to_vec().into());
        Field { name: name.into(), kind, datatype: None, shape, optional: false }
    }

    fn reason(inputs: Vec<Field>, outputs: Vec<Field>) -> Option<String> {
        Signature { inputs, outputs, batching: None }.has_rows().err().map(|reason| reason.to_string())
    }

    #[test]
    fn rows_need_a_tensor_with_a_first_dimension_of_variable_size() {
        let x = |shape| field("x", Kind::Tensor, shape);
        assert_eq!(reason(vec![x(Some(&[-1, 4])), field("n", Kind::Int, None)], vec![x(Some(&[-1]))]), None);
        assert_eq!(reason(vec![x(None)], vec![]), None, "what is not known is found out when it runs");
        for (inputs, outputs, named) in [
            (vec![x(Some(&[1, 4]))], vec![], "[1,4]"),
            (vec![x(Some(&[]))], vec![], "`x`"),
            (vec![x(None)], vec![field("y", Kind::Tensor, Some(&[3]))], "`y`"),
            (vec![x(None), field("words", Kind::StringList, None)], vec![], "`words`"),
            (vec![field("n", Kind::Int, None)], vec![], "no input is a tensor"),
        ] {
            let reason = reason(inputs, outputs).expect("no rows");
            assert!(reason.contains(named), "{reason}");
        }
    }

    #[test]
    fn it_is_found_by_its_word() {
        for batching in [Batching::Rows, Batching::Off] {
            assert_eq!(batching.name().parse(), Ok(batching));
        }
        assert!("dynamic".parse::<Batching>().is_err());
    }
}
