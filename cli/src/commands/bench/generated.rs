//! Inputs made up from what a server says its model takes.

use rand::{RngExt as _, rngs::StdRng};
use sconce_catalog::Datatype;

use crate::{
    args::Shape,
    commands::question::{Input, Metadata},
    failure::Failure,
    tensor::{Elements, Tensor},
};

/// Letters of a text that is made up.
const LETTERS: usize = 8;
/// No request is larger; a typing error in a shape would otherwise take all memory.
const MOST_ELEMENTS: u64 = 1 << 28;

/// How what the metadata leaves open is filled in.
pub(super) struct Fill<'a> {
    pub(super) shapes: &'a [Shape],
    /// What dimensions that vary are made.
    pub(super) variable: u64,
    /// Integers are below this.
    pub(super) below: i64,
}

/// An input with everything about it known, and its dimensions.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) input: Input,
    dimensions: Vec<u64>,
    datatype: Datatype,
}

impl Fill<'_> {
    /// What each of the model's inputs will be.
    ///
    /// # Errors
    /// Where neither the server nor the command line says it.
    pub(super) fn complete(&self, metadata: &Metadata) -> Result<Vec<Known>, Failure> {
        for shape in self.shapes {
            metadata.input(shape.name.as_deref()).map_err(Failure::usage)?;
        }
        metadata.inputs.iter().map(|input| self.known(input, metadata.inputs.len() == 1)).collect()
    }

    fn known(&self, input: &Input, only: bool) -> Result<Known, Failure> {
        let given = self.shapes.iter().find(|shape| match &shape.name {
            Some(name) => *name == input.name,
            None => only,
        });
        let missing = |what: &str| {
            Failure::usage(format!("the server does not say the {what} of input {}", input.name)).hint(
                format!(
                    "give it, such as --shape '{}=FP32[1,64]', or the tensor itself with --input",
                    input.name
                ),
            )
        };
        let stated = (!input.datatype.is_empty()).then(|| input.datatype()).flatten();
        let datatype =
            given.and_then(|given| given.datatype).or(stated).ok_or_else(|| missing("datatype"))?;
        let dimensions = match given {
            Some(given) => given.dimensions.clone(),
            // A scalar has no dimensions, and neither has an input of which nothing is known.
            None if input.shape.is_empty() => return Err(missing("shape")),
            None => input.shape.iter().map(|size| u64::try_from(*size).unwrap_or(self.variable)).collect(),
        };
        let elements = dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        if elements.is_none_or(|elements| elements > MOST_ELEMENTS) {
            return Err(Failure::usage(format!(
                "input {} would have the shape {dimensions:?}, which is too large",
                input.name
            )));
        }
        let input = Input { datatype: datatype.name().into(), ..input.clone() };
        Ok(Known { input, dimensions, datatype })
    }
}

impl Known {
    /// A tensor of numbers, truths or texts that mean nothing. Floats are 0 to 1.
    pub(super) fn tensor(&self, dice: &mut StdRng, below: i64) -> Tensor {
        let count = self.dimensions.iter().product::<u64>();
        let each = 0..count;
        let elements = match self.datatype {
            Datatype::Bool => Elements::Bools(each.map(|_| dice.random()).collect()),
            Datatype::Bytes => Elements::Texts(each.map(|_| text(dice)).collect()),
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                // Four digits, as numbers in JSON are written by people and by most models' callers.
                Elements::Floats(each.map(|_| f64::from(dice.random_range(0..10_000u16)) / 1e4).collect())
            }
            Datatype::Int8 | Datatype::Uint8 => integers(each, dice, below.min(i64::from(i8::MAX))),
            Datatype::Int16 | Datatype::Uint16 => integers(each, dice, below.min(i64::from(i16::MAX))),
            Datatype::Int32 | Datatype::Uint32 => integers(each, dice, below.min(i64::from(i32::MAX))),
            Datatype::Int64 | Datatype::Uint64 => integers(each, dice, below),
        };
        Tensor { shape: self.dimensions.clone(), elements, own: Some(self.datatype) }
    }
}

fn integers(each: std::ops::Range<u64>, dice: &mut StdRng, below: i64) -> Elements {
    Elements::Ints(each.map(|_| dice.random_range(0..below).into()).collect())
}

fn text(dice: &mut StdRng) -> Vec<u8> {
    (0..LETTERS).map(|_| dice.random_range(b'a'..=b'z')).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use serde_json::json;

    use super::*;

    fn metadata(inputs: serde_json::Value) -> Metadata {
        serde_json::from_value(json!({ "name": "m", "inputs": inputs })).expect("valid")
    }

    fn complete(shapes: &[&str], inputs: serde_json::Value) -> Result<Vec<Known>, Failure> {
        let shapes: Vec<Shape> = shapes.iter().map(|text| text.parse().expect("a shape")).collect();
        Fill { shapes: &shapes, variable: 3, below: 5 }.complete(&metadata(inputs))
    }

    #[test]
    fn every_datatype_is_made_up_so_that_it_travels_unchanged() {
        let mut dice = StdRng::seed_from_u64(1);
        for datatype in Datatype::ALL {
            let input = json!([{"name": "x", "datatype": datatype.name(), "shape": [-1, 2]}]);
            let known = complete(&[], input).expect("known").remove(0);
            let tensor = known.tensor(&mut dice, 5);
            assert_eq!(
                (tensor.shape.as_slice(), tensor.elements.len()),
                ([3, 2].as_slice(), 6),
                "{datatype}"
            );
            tensor.elements.encode(datatype).unwrap_or_else(|why| panic!("{datatype}: {why}"));
            if let Elements::Ints(all) = tensor.elements {
                assert!(all.iter().all(|int| (0..5).contains(int)), "{datatype}: {all:?}");
            }
        }
    }

    #[test]
    fn the_command_line_wins_over_the_server_and_completes_it() {
        let silent = json!([{"name": "a"}, {"name": "b", "datatype": "FP32", "shape": [-1, 4]}]);
        let known = complete(&["a=INT64[1,9]", "b=2,4"], silent.clone()).expect("known");
        assert_eq!((known[0].datatype, known[0].dimensions.as_slice()), (Datatype::Int64, [1, 9].as_slice()));
        assert_eq!((known[1].datatype, known[1].dimensions.as_slice()), (Datatype::Fp32, [2, 4].as_slice()));

        let failure = complete(&["b=2,4"], silent).expect_err("a is unknown").to_string();
        assert!(failure.contains("input a") && failure.contains("--shape 'a="), "{failure}");
        let failure = complete(&["c=1"], json!([{"name": "a"}])).expect_err("no such input").to_string();
        assert!(failure.contains("inputs are a"), "{failure}");
    }

    #[test]
    fn a_shape_that_would_take_all_memory_is_refused() {
        let huge =
            json!([{"name": "x", "datatype": "FP32", "shape": [1_000_000, 1_000_000, 1_000_000, 1_000_000]}]);
        assert!(complete(&[], huge).expect_err("too large").to_string().contains("too large"));
    }
}
