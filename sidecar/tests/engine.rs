//! Real archives through the engine, against libtorch called directly: bitwise.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sconce_artifact::{Limits, discover, precheck};
use sconce_catalog::{Datatype, Signature};
use sconce_sidecar::engine::{Data, Engine, EngineError, Loader, Module, Output, Tensor, torch::TorchEngine};
use tch::{CModule, IValue};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lib/artifact/testdata").join(name)
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/models/v1/digits.pt")
}

/// Loads a model as the sidecar does: pre-check, signature, engine.
fn load(file: &Path) -> Arc<dyn Module> {
    let signature = signature(file);
    let engine = TorchEngine::new();
    engine.prepare_thread();
    engine.load(file, &signature).expect("the model loads")
}

fn signature(file: &Path) -> Signature {
    let checked = precheck(file, &Limits::default()).expect("the archive passes");
    discover(&checked, &Signature::default()).expect("it has a signature")
}

fn direct(file: &Path) -> CModule {
    tch::set_num_threads(1);
    CModule::load(file).expect("libtorch loads it")
}

fn fp32(shape: &[u64], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { datatype: Datatype::Fp32, shape: shape.to_vec(), data: Data::Fixed(bytes.into()) }
}

fn int64(shape: &[u64], values: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { datatype: Datatype::Int64, shape: shape.to_vec(), data: Data::Fixed(bytes.into()) }
}

/// Values that no rounding hides: not short in binary.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|n| (n as f32 * 0.731 + 0.113).sin()).collect()
}

fn floats(output: &Output) -> Vec<f32> {
    let Data::Fixed(bytes) = &output.tensor.data else { panic!("{} is no tensor of numbers", output.name) };
    assert_eq!(output.tensor.datatype, Datatype::Fp32);
    bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn from_tch(tensor: &tch::Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1).contiguous()).expect("floats")
}

fn input(values: &[f32], shape: &[i64]) -> IValue {
    IValue::Tensor(tch::Tensor::from_slice(values).reshape(shape))
}

fn assert_same_bytes(output: &Output, expected: &tch::Tensor) {
    let Data::Fixed(bytes) = &output.tensor.data else { panic!("{} is no tensor of numbers", output.name) };
    let mut raw = vec![0; bytes.len()];
    expected.contiguous().copy_data_u8(&mut raw, expected.numel());
    assert_eq!(bytes[..], raw[..], "{}", output.name);
}

#[test]
fn control_flow_and_defaults_answer_as_libtorch_does() {
    let file = fixture("scripted_flow.pt");
    let (model, own, values) = (load(&file), direct(&file), numbers(32));
    for n in [0, 1, 5] {
        let inputs = vec![Some(fp32(&[2, 16], &values)), Some(int64(&[1], &[n])), None, None, None, None];
        let outputs = model.forward(inputs).expect("it runs");
        let expected = own.forward_is(&[input(&values, &[2, 16]), IValue::Int(n)]).expect("libtorch runs it");
        let IValue::Tensor(expected) = expected else { panic!("a tensor") };
        assert_eq!(bits(&floats(&outputs[0])), bits(&from_tch(&expected)), "n = {n}");
        assert_eq!(outputs[0].tensor.shape, [2, 4]);
    }
}

#[test]
fn a_traced_model_answers_as_libtorch_does() {
    let file = fixture("traced_linear.pt");
    let (model, own, values) = (load(&file), direct(&file), numbers(12));
    let outputs = model.forward(vec![Some(fp32(&[3, 4], &values))]).expect("it runs");
    let IValue::Tensor(expected) = own.forward_is(&[input(&values, &[3, 4])]).expect("it runs") else {
        panic!("a tensor")
    };
    assert_eq!(bits(&floats(&outputs[0])), bits(&from_tch(&expected)));
}

#[test]
fn the_classifier_of_the_example_answers_as_libtorch_does() {
    let (model, own, values) = (load(&digits()), direct(&digits()), numbers(64 * 7));
    let outputs = model.forward(vec![Some(fp32(&[7, 64], &values))]).expect("it runs");
    let IValue::Tensor(expected) = own.forward_is(&[input(&values, &[7, 64])]).expect("it runs") else {
        panic!("a tensor")
    };
    assert_eq!(bits(&floats(&outputs[0])), bits(&from_tch(&expected)));
}

#[test]
fn two_inputs_of_two_types_and_a_dict_of_outputs() {
    let file = fixture("traced_dict.pt");
    let (model, own) = (load(&file), direct(&file));
    let names: Vec<&str> = model.signature().inputs.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["ids", "dense_input"], "names come from the code");
    let (ids, values) = ([1i64, 4, 2, 9, 0, 3], numbers(8));
    let outputs =
        model.forward(vec![Some(int64(&[2, 3], &ids)), Some(fp32(&[2, 4], &values))]).expect("it runs");
    let given = IValue::Tensor(tch::Tensor::from_slice(&ids).reshape([2, 3]));
    let expected = own.forward_is(&[given, input(&values, &[2, 4])]).expect("libtorch runs it");
    let IValue::GenericDict(expected) = expected else { panic!("a dict") };
    assert_eq!(outputs.len(), expected.len());
    for (key, value) in expected {
        let (IValue::String(key), IValue::Tensor(value)) = (key, value) else { panic!("tensors by name") };
        let found =
            outputs.iter().find(|output| *output.name == *key).unwrap_or_else(|| panic!("no output {key}"));
        assert_same_bytes(found, &value);
    }
}

#[test]
fn a_scalar_integer_comes_as_a_tensor_of_one_element() {
    let file = fixture("scripted_repeat.pt");
    let (model, own, values) = (load(&file), direct(&file), numbers(3));
    let outputs = model.forward(vec![Some(fp32(&[3], &values)), Some(int64(&[1], &[2]))]).expect("it runs");
    let expected = own.forward_is(&[input(&values, &[3]), IValue::Int(2)]).expect("it runs");
    let IValue::Tensor(expected) = expected else { panic!("a tensor") };
    assert_eq!(bits(&floats(&outputs[0])), bits(&from_tch(&expected)));
    for wrong in [int64(&[2], &[1, 2]), fp32(&[1], &[1.0])] {
        let refused = model.forward(vec![Some(fp32(&[3], &values)), Some(wrong)]);
        assert!(matches!(refused, Err(EngineError::Input(_))), "{refused:?}");
    }
}

#[test]
fn a_model_that_fails_says_why_and_leaks_nothing() {
    let model = load(&digits());
    // 256 KiB an input: 2,000 leaked ones would be half a gigabyte.
    let wrong = fp32(&[1024, 64], &numbers(1024 * 64));
    let wrong = Tensor { shape: vec![64, 1024], ..wrong };
    let fail = || match model.forward(vec![Some(wrong.clone())]) {
        Err(EngineError::Model(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(fail().contains("shapes cannot be multiplied"), "{}", fail());
    let before = resident();
    for _ in 0..2_000 {
        fail();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more after 2,000 failures");
}

#[test]
fn threads_that_share_a_model_do_not_disturb_each_other() {
    let model = load(&digits());
    let answer = |seed: usize| {
        let values: Vec<f32> = numbers(64 + seed)[seed..].to_vec();
        floats(&model.forward(vec![Some(fp32(&[1, 64], &values))]).expect("it runs")[0])
    };
    let expected: Vec<Vec<f32>> = (0..16).map(answer).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                tch::set_num_threads(1);
                for round in 0..500 {
                    let seed = round % expected.len();
                    assert_eq!(bits(&answer(seed)), bits(&expected[seed]));
                }
            });
        }
    });
}

#[tokio::test]
async fn the_loader_names_outputs_and_learns_their_shapes() {
    let engine: Arc<dyn Engine> = Arc::new(TorchEngine::new());
    let loader = Loader::start(Arc::clone(&engine)).expect("it starts");
    let model = loader.load(digits(), signature(&digits())).await.expect("it loads and warms");
    let output = &model.signature().outputs[0];
    assert_eq!((output.name.as_str(), output.datatype), ("probabilities", Some(Datatype::Fp32)));
    assert_eq!(output.shape, Some(vec![-1, 10].into()));
    let wrong = Signature { inputs: vec![], ..signature(&digits()) };
    let refused = loader.load(digits(), wrong).await.map(|_| ());
    assert!(matches!(refused, Err(EngineError::Load(_))), "{refused:?}");
    loader.free(Box::new(model));
    loader.stop();
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

#[test]
fn texts_become_a_list_of_strings() {
    let file = fixture("scripted_words.pt");
    let (model, own) = (load(&file), direct(&file));
    let names: Vec<(&str, sconce_catalog::Kind)> =
        model.signature().inputs.iter().map(|field| (field.name.as_str(), field.kind)).collect();
    assert_eq!(names[0], ("words", sconce_catalog::Kind::StringList));
    assert_eq!(names[1], ("parts", sconce_catalog::Kind::TensorList));
    let words = ["a", "bcd", "größe"];
    let texts = Tensor {
        datatype: Datatype::Bytes,
        shape: vec![3],
        data: Data::Strings(words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()),
    };
    let values = numbers(6);
    let outputs = model.forward(vec![Some(texts), Some(fp32(&[2, 3], &values)), None]).expect("it runs");
    let rows = tch::Tensor::from_slice(&values).reshape([2, 3]).unbind(0);
    let given =
        [IValue::StringList(words.iter().map(|w| (*w).to_owned()).collect()), IValue::TensorList(rows)];
    let IValue::Tuple(expected) = own.forward_is(&given).expect("libtorch runs it") else {
        panic!("a tuple")
    };
    assert_eq!(outputs.len(), expected.len());
    for (output, expected) in outputs.iter().zip(&expected) {
        let IValue::Tensor(expected) = expected else { panic!("a tensor") };
        assert_same_bytes(output, expected);
    }
}
