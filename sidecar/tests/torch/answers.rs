//! What models answer: bitwise what libtorch answers when it is called directly.

use sconce_catalog::{Datatype, Kind};
use sconce_sidecar::engine::{Data, Output, Tensor};
use tch::{CModule, IValue};

use super::{
    as_floats, as_integers, bytes, file, fixed, floats, integers, load, names, signature, texts, uneven,
};

fn tch_kind(datatype: Datatype) -> tch::Kind {
    match datatype {
        Datatype::Int64 => tch::Kind::Int64,
        Datatype::Int32 => tch::Kind::Int,
        Datatype::Fp16 => tch::Kind::Half,
        Datatype::Bf16 => tch::Kind::BFloat16,
        Datatype::Fp32 => tch::Kind::Float,
        other => panic!("tch has no {other}"),
    }
}

/// The same input for libtorch, made without the engine.
fn direct(kind: Kind, tensor: &Tensor) -> IValue {
    match (&tensor.data, kind) {
        (Data::Strings(strings), _) => IValue::StringList(
            strings.iter().map(|text| String::from_utf8(text.to_vec()).expect("a text")).collect(),
        ),
        (Data::Fixed(bytes), Kind::Int) => {
            IValue::Int(i64::from_le_bytes(bytes[..].try_into().expect("one INT64")))
        }
        (Data::Fixed(bytes), _) => {
            let shape: Vec<i64> = tensor.shape.iter().map(|size| size.cast_signed()).collect();
            IValue::Tensor(tch::Tensor::from_data_size(bytes, &shape, tch_kind(tensor.datatype)))
        }
    }
}

/// Shapes and bytes of every tensor in a result.
fn flat(value: IValue, into: &mut Vec<(Vec<u64>, Vec<u8>)>) {
    match value {
        IValue::Tensor(tensor) => {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.contiguous().copy_data_u8(&mut bytes, tensor.numel());
            into.push((tensor.size().iter().map(|size| size.cast_unsigned()).collect(), bytes));
        }
        IValue::Tuple(values) => values.into_iter().for_each(|value| flat(value, into)),
        IValue::GenericDict(pairs) => pairs.into_iter().for_each(|(_, value)| flat(value, into)),
        other => panic!("no tensor: {other:?}"),
    }
}

/// Runs the model through the engine, and checks the answer against libtorch's own.
fn answer(name: &str, inputs: Vec<Tensor>) -> Vec<Output> {
    let module = load(name);
    let kinds = signature(name).inputs;
    let mut reference = CModule::load(file(name)).expect("libtorch loads it");
    reference.set_eval();
    let given: Vec<IValue> =
        kinds.iter().zip(&inputs).map(|(field, input)| direct(field.kind, input)).collect();
    let mut expected = Vec::new();
    flat(tch::no_grad(|| reference.forward_is(&given)).expect("libtorch runs it"), &mut expected);
    let outputs = module.forward(inputs.into_iter().map(Some).collect()).expect("the engine runs it");
    let found: Vec<_> =
        outputs.iter().map(|output| (output.tensor.shape.clone(), bytes(output).to_vec())).collect();
    assert!(!found.is_empty());
    assert_eq!(found, expected, "{name}");
    outputs
}

#[test]
fn real_models_answer_bitwise_what_libtorch_answers() {
    for batch in [1, 3, 17] {
        answer("mlp", vec![uneven(&[batch, 16], 1)]);
        answer("convolution", vec![uneven(&[batch, 3, 8, 8], 3)]);
        for seed in 0..8 {
            answer("branchy", vec![uneven(&[batch, 8], seed)]);
        }
        let ids: Vec<i64> = (0..batch.cast_signed() * 5).map(|i| i * 7 % 32).collect();
        answer("two_in", vec![integers(&[batch, 5], &ids), uneven(&[batch, 5], 4)]);
    }
    answer("scale", vec![uneven(&[2, 3], 5), integers(&[1], &[-3])]);
    answer("strlen", vec![texts(&["a", "", "überall"])]);
    answer("fork", vec![uneven(&[4], 6)]);
}

#[test]
fn both_branches_of_control_flow_are_taken() {
    let module = load("branchy");
    let run = |value: f32| {
        let input = floats(&[1, 8], &[value; 8]);
        as_floats(&module.forward(vec![Some(input)]).expect("runs")[0])
    };
    // The branches have weights of their own, so opposite inputs cannot mirror each other.
    let (up, down) = (run(0.1), run(-0.1));
    assert_ne!(up, down.iter().map(|value| -value).collect::<Vec<_>>());
}

#[test]
fn half_precision_comes_and_goes_as_it_is() {
    let half: Vec<u8> = (0..8).flat_map(|i| half::f16::from_f32(i as f32 / 3.0).to_le_bytes()).collect();
    let brain: Vec<u8> = (0..8).flat_map(|i| half::bf16::from_f32(i as f32 / 3.0).to_le_bytes()).collect();
    let outputs =
        answer("low", vec![fixed(Datatype::Fp16, &[1, 8], half), fixed(Datatype::Bf16, &[1, 8], brain)]);
    let datatypes: Vec<Datatype> = outputs.iter().map(|output| output.tensor.datatype).collect();
    assert_eq!(datatypes, [Datatype::Fp16, Datatype::Bf16]);
}

#[test]
fn every_datatype_passes_through_unchanged() {
    let module = load("identity");
    for datatype in Datatype::ALL {
        let Some(width) = datatype.width() else { continue };
        let element = |i: usize| if datatype == Datatype::Bool { (i % 2) as u8 } else { (i * 29) as u8 };
        let data: Vec<u8> = (0..6 * width).map(element).collect();
        let input = fixed(datatype, &[2, 3], data);
        let outputs = module.forward(vec![Some(input.clone())]).expect("runs");
        assert_eq!(outputs[0].tensor, input);
        let scalar = fixed(datatype, &[], vec![1u8; width]);
        assert_eq!(module.forward(vec![Some(scalar.clone())]).expect("runs")[0].tensor, scalar);
        let empty = fixed(datatype, &[0, 3], vec![]);
        assert_eq!(module.forward(vec![Some(empty.clone())]).expect("runs")[0].tensor, empty);
    }
}

#[test]
fn outputs_are_called_what_the_model_calls_them() {
    let dict = answer("dict_out", vec![uneven(&[2, 4], 7)]);
    assert_eq!(names(&dict), ["logits", "label"]);
    let tuple = answer("pair", vec![uneven(&[3], 8)]);
    assert_eq!(names(&tuple), ["OUTPUT__0", "OUTPUT__1"]);
    let named = load("named").forward(vec![Some(floats(&[3], &[3.0, 1.0, 2.0]))]).expect("runs");
    assert_eq!(names(&named), ["low", "high"]);
    assert_eq!((as_floats(&named[0]), as_floats(&named[1])), (vec![1.0], vec![3.0]));
}

#[test]
fn every_kind_of_result_has_a_form() {
    let outputs = load("mixed").forward(vec![Some(floats(&[2], &[1.0, -1.0]))]).expect("runs");
    assert_eq!(
        names(&outputs),
        [
            "OUTPUT__0",
            "OUTPUT__1",
            "OUTPUT__2",
            "OUTPUT__3",
            "OUTPUT__4",
            "OUTPUT__5",
            "OUTPUT__6",
            "OUTPUT__7",
            "pair.0",
            "pair.1"
        ]
    );
    assert_eq!(as_integers(&outputs[1]), [7]);
    assert_eq!(bytes(&outputs[2]), 0.5f64.to_le_bytes());
    assert_eq!((outputs[3].tensor.datatype, bytes(&outputs[3])), (Datatype::Bool, &[1][..]));
    assert_eq!(outputs[4].tensor, texts(&["é"]));
    assert_eq!((&outputs[5].tensor.shape[..], as_integers(&outputs[5])), (&[3][..], vec![1, 2, 3]));
    assert_eq!(outputs[6].tensor, texts(&["a", ""]));
    assert_eq!(outputs[7].tensor, texts(&[]));
    assert_eq!((as_floats(&outputs[8]), as_floats(&outputs[9])), (vec![2.0, -2.0], vec![3.0, -3.0]));
}

#[test]
fn an_input_that_was_left_out_has_the_models_own_default() {
    let module = load("options");
    let x = || Some(floats(&[2], &[1.0, -2.0]));
    let run = |inputs| as_floats(&module.forward(inputs).expect("runs")[0]);
    let flag = fixed(Datatype::Bool, &[1], vec![1]);
    let factor = floats(&[1], &[3.0]);
    assert_eq!(run(vec![x(), None, None, None, None]), [2.0, -4.0]);
    assert_eq!(run(vec![x(), None, Some(floats(&[1], &[1.0])), None, None]), [3.0, -3.0]);
    assert_eq!(run(vec![x(), Some(factor), None, Some(flag), None]), [-3.0, 6.0]);
    assert_eq!(run(vec![x(), None, None, None, Some(texts(&["sum"]))]), [-2.0]);
}

#[test]
fn one_tensor_is_a_list_along_its_first_dimension() {
    let sum =
        load("sum").forward(vec![Some(floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))]).expect("runs");
    assert_eq!(as_floats(&sum[0]), [9.0, 12.0]);
}

#[test]
fn a_model_that_writes_to_its_input_leaves_the_callers_bytes_alone() {
    let input = floats(&[2], &[1.0, 2.0]);
    let outputs = load("overwrite").forward(vec![Some(input.clone())]).expect("runs");
    assert_eq!(as_floats(&outputs[0]), [2.0, 4.0]);
    assert_eq!(input, floats(&[2], &[1.0, 2.0]));
}

#[test]
fn an_answer_outlives_its_model() {
    let module = load("identity");
    let input = uneven(&[1024], 9);
    let outputs = module.forward(vec![Some(input.clone())]).expect("runs");
    drop(module);
    super::engine().release_memory();
    assert_eq!(outputs[0].tensor, input);
}
