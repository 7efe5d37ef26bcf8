//! What models and files are refused, in which words, and at what cost.

use std::io::Write as _;

use bytes::Bytes;
use sconce_catalog::{Datatype, Field, Kind, Signature};
use sconce_sidecar::engine::{Data, EngineError, Module, Tensor};

use super::{engine, file, fixed, floats, integers, load, signature, texts, uneven};

/// The caller's fault, in words.
fn blamed(module: &dyn Module, inputs: Vec<Option<Tensor>>) -> String {
    match module.forward(inputs) {
        Err(EngineError::Input(text)) => text,
        other => panic!("not the caller's fault: {other:?}"),
    }
}

#[test]
fn inputs_that_are_not_what_they_say_never_reach_libtorch() {
    let identity = load("identity");
    let short = fixed(Datatype::Fp32, &[2, 3], vec![0; 23]);
    assert_eq!(
        blamed(identity.as_ref(), vec![Some(short)]),
        "input `x` has 23 bytes, which is not what its shape [2, 3] asks for"
    );
    for shape in [&[u64::MAX, 2][..], &[0, u64::MAX], &[0, 1 << 62, 1 << 62]] {
        let huge = fixed(Datatype::Fp32, shape, vec![]);
        blamed(identity.as_ref(), vec![Some(huge)]);
    }
    let neither = fixed(Datatype::Bool, &[2], vec![1, 2]);
    assert_eq!(
        blamed(identity.as_ref(), vec![Some(neither)]),
        "input `x` is BOOL, and has elements that are neither 0 nor 1"
    );
    assert_eq!(blamed(identity.as_ref(), vec![None]), "input `x` is missing");
    assert_eq!(blamed(identity.as_ref(), vec![]), "the model takes 1 inputs, and 0 were given");
    assert_eq!(
        blamed(identity.as_ref(), vec![Some(texts(&["a"]))]),
        "input `x` is BYTES, and the model takes Tensor"
    );
}

#[test]
fn numbers_and_texts_are_held_against_their_kind() {
    let (scale, strlen) = (load("scale"), load("strlen"));
    let x = || Some(floats(&[1], &[1.0]));
    assert_eq!(
        blamed(scale.as_ref(), vec![x(), Some(integers(&[2], &[1, 2]))]),
        "input `n` is a single int for the model, so it must have exactly one element"
    );
    assert_eq!(
        blamed(scale.as_ref(), vec![x(), Some(floats(&[1], &[1.0]))]),
        "input `n` is FP32, and the model takes int"
    );
    let latin = Tensor {
        datatype: Datatype::Bytes,
        shape: vec![1],
        data: Data::Strings(vec![Bytes::from_static(b"\xe9")]),
    };
    assert_eq!(
        blamed(strlen.as_ref(), vec![Some(latin)]),
        "input `words` element 0 is not UTF-8, and the model takes text"
    );
    let fewer = Tensor { shape: vec![3], ..texts(&["a"]) };
    assert_eq!(
        blamed(strlen.as_ref(), vec![Some(fewer)]),
        "input `words` has 1 elements, which is not what its shape [3] asks for"
    );
    let scalar = load("sum").forward(vec![Some(floats(&[], &[1.0]))]);
    assert!(matches!(scalar, Err(EngineError::Input(_))), "{scalar:?}");
}

#[test]
fn the_models_own_failure_is_told_in_one_line() {
    let failure = |name, input| match load(name).forward(vec![Some(input)]) {
        Err(error @ EngineError::Model(_)) => error.to_string(),
        other => panic!("not the model's failure: {other:?}"),
    };
    assert_eq!(
        failure("mlp", uneven(&[1, 3], 1)),
        "the model failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 16x64)"
    );
    assert_eq!(
        failure("raises", floats(&[16], &[-1.0; 16])),
        "the model failed: builtins.ValueError: the sum of x must not be negative"
    );
    let wrong_datatype = failure("mlp", fixed(Datatype::Fp64, &[1, 16], vec![0; 128]));
    assert!(wrong_datatype.starts_with("the model failed: RuntimeError: "), "{wrong_datatype}");
    for message in [wrong_datatype, failure("raises", uneven(&[3], 0))] {
        assert!(!message.contains('\n') && !message.contains(".cpp"), "{message}");
    }
}

#[test]
fn a_result_without_a_form_is_the_pushers_fault() {
    let result = load("unsendable").forward(vec![Some(floats(&[1], &[1.0]))]);
    let Err(EngineError::Output(text)) = result else { panic!("{result:?}") };
    assert_eq!(text, "output `OUTPUT__0` has an element type that has no name on the wire");
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number of pages");
    pages * 4096
}

#[test]
fn failing_forwards_leak_nothing() {
    let module = load("raises");
    // 256 KB each: 2,000 of them are 500 MB where inputs leak, as they do through tch.
    let input = floats(&[64 << 10], &vec![-1.0; 64 << 10]);
    let fail = || {
        let result = module.forward(vec![Some(input.clone())]);
        assert!(matches!(result, Err(EngineError::Model(_))), "{result:?}");
    };
    (0..50).for_each(|_| fail());
    let before = resident();
    (0..2_000).for_each(|_| fail());
    let grown = resident().saturating_sub(before);
    assert!(grown < 50 << 20, "grew by {} MB", grown >> 20);
}

#[test]
fn a_file_that_is_no_model_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(file("mlp")).expect("the model");
    for (name, content) in
        [("empty.pt", &b""[..]), ("text.pt", b"not a zip"), ("cut.pt", &whole[..whole.len() / 2])]
    {
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(content)).expect("written");
        let Err(EngineError::Load(reason)) = engine().load(&path, &signature("mlp")) else {
            panic!("{name} was loaded")
        };
        assert!(!reason.contains('\n') && !reason.contains("inline_container"), "{name}: {reason}");
        assert!(reason.contains("PytorchStreamReader"), "{name}: {reason}");
    }
    let missing = engine().load(&folder.path().join("missing.pt"), &signature("mlp"));
    assert!(matches!(missing, Err(EngineError::Load(_))));
}

#[test]
fn a_signature_that_the_code_contradicts_is_refused() {
    let field =
        |name: &str, kind| Field { name: name.into(), kind, datatype: None, shape: None, optional: false };
    let refused = |inputs: Vec<Field>| {
        let result = engine().load(&file("scale"), &Signature { inputs, outputs: vec![], batching: None });
        match result.map(|_| ()) {
            Err(EngineError::Load(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refused(vec![field("x", Kind::Tensor)]),
        "its forward takes `n`, which the catalog does not list"
    );
    assert_eq!(
        refused(vec![field("x", Kind::Tensor), field("n", Kind::Float)]),
        "argument `n` is int, and the catalog says float"
    );
}

#[test]
fn an_argument_that_no_request_can_carry_keeps_its_default() {
    let field = |name: &str, optional| Field {
        name: name.into(),
        kind: Kind::Tensor,
        datatype: None,
        shape: None,
        optional,
    };
    let declared =
        Signature { inputs: vec![field("y", true), field("x", false)], outputs: vec![], batching: None };
    let module = engine().load(&file("strange"), &declared).expect("loads");
    // In the catalog's order, which is not that of the code.
    let inputs = vec![Some(floats(&[1], &[10.0])), Some(floats(&[1], &[1.0]))];
    assert_eq!(super::as_floats(&module.forward(inputs).expect("runs")[0]), [11.0]);
}
