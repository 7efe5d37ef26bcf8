//! What warming learns, and what it refuses.

use bytes::Bytes;

use super::*;
use crate::engine::Data;

/// Gives one FP32 per row of its first input, and refuses inputs with fewer than `least`
/// elements.
struct Rows {
    signature: Signature,
    least: usize,
    output: &'static str,
}

impl Module for Rows {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        let input = inputs[0].as_ref().expect("the first input is not optional");
        if Tensor::elements(&input.shape).expect("small") < self.least {
            return Err(EngineError::Model("too small".into()));
        }
        let rows = input.shape.first().copied().unwrap_or(1);
        let data = Data::Fixed(Bytes::from(vec![0; 4 * usize::try_from(rows).expect("small") * 3]));
        let tensor = Tensor { datatype: Datatype::Fp32, shape: vec![rows, 3], data };
        Ok(vec![Output { name: self.output.into(), tensor }])
    }
}

fn field(name: &str, datatype: Option<Datatype>, shape: Option<&[i64]>) -> Field {
    Field {
        name: name.into(),
        kind: Kind::Tensor,
        datatype,
        shape: shape.map(|s| s.to_vec().into()),
        optional: false,
    }
}

fn warmed(shape: Option<&[i64]>, least: usize, outputs: Vec<Field>) -> Result<Signature, EngineError> {
    let signature =
        Signature { inputs: vec![field("x", Some(Datatype::Fp32), shape)], outputs, batching: None };
    let module = Arc::new(Rows { signature, least, output: "OUTPUT__0" });
    warm(module).map(|module| module.signature().clone())
}

#[test]
fn dimensions_that_follow_the_batch_are_found_to_be_variable() {
    let learnt = warmed(Some(&[-1, 4]), 0, vec![]).expect("runs");
    assert_eq!(learnt.outputs, [field("OUTPUT__0", Some(Datatype::Fp32), Some(&[-1, 3]))]);
    let fixed = warmed(Some(&[5, 4]), 0, vec![]).expect("runs");
    assert_eq!(fixed.outputs[0].shape, Some(vec![5, 3].into()));
}

#[test]
fn an_output_without_a_name_gets_the_declared_one() {
    let learnt = warmed(Some(&[-1, 4]), 0, vec![field("scores", None, None)]).expect("runs");
    assert_eq!(learnt.outputs, [field("scores", Some(Datatype::Fp32), Some(&[-1, 3]))]);
}

#[test]
fn a_declaration_that_the_model_contradicts_is_refused() {
    let wrong = warmed(Some(&[-1, 4]), 0, vec![field("scores", Some(Datatype::Int64), None)]);
    let message = wrong.expect_err("FP32 is not INT64").to_string();
    assert!(message.contains("output `scores` is INT64 in its declaration and FP32"), "{message}");
}

#[test]
fn a_model_that_fails_on_what_it_declares_is_refused() {
    let message = warmed(Some(&[-1, 4]), usize::MAX, vec![]).expect_err("it always fails").to_string();
    assert_eq!(message, "the model cannot be loaded: warm-up: the model failed: too small");
}

#[test]
fn a_model_is_not_refused_for_sizes_that_were_made_up() {
    // Runs from 32 × 32 on: found by the third size.
    let picture = warmed(Some(&[-1, -1, -1]), 32 * 32, vec![]).expect("runs at 32");
    assert_eq!(picture.outputs.len(), 1);
    // Needs more than any size tried.
    let long = warmed(Some(&[-1]), 100, vec![]).expect("nothing is known to be wrong");
    assert!(long.outputs.is_empty());
}

#[test]
fn nothing_is_guessed_where_nothing_is_declared() {
    let open = warmed(None, usize::MAX, vec![]).expect("it was not run");
    assert!(open.outputs.is_empty());
}

#[test]
fn numbers_are_ones_and_optional_inputs_are_left_out() {
    let number = |kind| Field { kind, ..field("n", None, None) };
    let optional = Field { optional: true, ..field("w", None, None) };
    let signature = Signature {
        inputs: vec![number(Kind::Int), number(Kind::Float), optional],
        outputs: vec![],
        batching: None,
    };
    let inputs = sample::inputs(&signature, 1).expect("kinds say enough");
    let bytes = |at: usize| match &inputs[at].as_ref().expect("given").data {
        Data::Fixed(bytes) => bytes.to_vec(),
        Data::Strings(_) => panic!("a number"),
    };
    assert_eq!(bytes(0), 1i64.to_le_bytes());
    assert_eq!(bytes(1), 1f64.to_le_bytes());
    assert!(inputs[2].is_none());
}

/// Gives its input, or each row less the mean of all.
struct Centred {
    signature: Signature,
    centre: bool,
}

impl Module for Centred {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        let tensor = inputs.into_iter().next().flatten().expect("given");
        let Data::Fixed(bytes) = &tensor.data else { panic!("numbers") };
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let less = if self.centre { mean } else { 0.0 };
        let bytes: Vec<u8> = values.iter().flat_map(|value| (value - less).to_le_bytes()).collect();
        Ok(vec![Output { name: "y".into(), tensor: Tensor { data: Data::Fixed(bytes.into()), ..tensor } }])
    }
}

#[test]
fn rows_that_turn_out_to_depend_on_one_another_are_not_batched() {
    for (centre, expected) in [(false, Batching::Rows), (true, Batching::Off)] {
        let inputs = vec![field("x", Some(Datatype::Fp32), Some(&[-1, 4]))];
        let signature = Signature { inputs, outputs: vec![], batching: Some(Batching::Rows) };
        let warm = warm(Arc::new(Centred { signature, centre })).expect("runs");
        assert_eq!(warm.signature().batching, Some(expected));
    }
}

#[test]
fn not_a_number_is_seen_in_every_width() {
    let tensor = |datatype, bytes: &[u8]| Tensor {
        datatype,
        shape: vec![1],
        data: Data::Fixed(Bytes::copy_from_slice(bytes)),
    };
    assert!(sample::has_nan(&tensor(Datatype::Fp32, &f32::NAN.to_le_bytes())));
    assert!(sample::has_nan(&tensor(Datatype::Fp64, &f64::NAN.to_le_bytes())));
    assert!(sample::has_nan(&tensor(Datatype::Fp16, &half::f16::NAN.to_le_bytes())));
    assert!(sample::has_nan(&tensor(Datatype::Bf16, &half::bf16::NAN.to_le_bytes())));
    assert!(!sample::has_nan(&tensor(Datatype::Fp32, &f32::INFINITY.to_le_bytes())));
}
