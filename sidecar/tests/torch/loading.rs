//! From a file to a warm model, on the loader's thread.

use sconce_catalog::{Datatype, Shape, Signature};
use sconce_sidecar::engine::{EngineError, Loader, Module};

use super::{engine, file, fixed, names, signature, uneven};

async fn warm(loader: &Loader, name: &str) -> std::sync::Arc<dyn Module> {
    loader.load(file(name), signature(name)).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn described(signature: &Signature) -> Vec<(&str, Datatype, Shape)> {
    let outputs = signature.outputs.iter();
    outputs.map(|f| (&*f.name, f.datatype.expect("learnt"), f.shape.clone().expect("learnt"))).collect()
}

#[tokio::test]
async fn outputs_that_the_code_does_not_tell_are_learnt_by_running() {
    let loader = Loader::start(engine()).expect("a thread");
    let shape = |sizes: &[i64]| Shape::from(sizes.to_vec());
    let dict = warm(&loader, "dict_out").await;
    assert_eq!(
        described(dict.signature()),
        [("logits", Datatype::Fp32, shape(&[-1, 3])), ("label", Datatype::Int64, shape(&[-1]))]
    );
    let mlp = warm(&loader, "mlp").await;
    assert_eq!(described(mlp.signature()), [("OUTPUT__0", Datatype::Fp32, shape(&[-1, 4]))]);
    let two_in = warm(&loader, "two_in").await;
    assert_eq!(described(two_in.signature()), [("OUTPUT__0", Datatype::Fp32, shape(&[-1, 4]))]);
    loader.stop();
}

#[tokio::test]
async fn declared_names_are_the_names_of_the_answers() {
    let loader = Loader::start(engine()).expect("a thread");
    let simple = warm(&loader, "simple").await;
    let one = |value: i32| {
        let values: Vec<u8> = (0..16).flat_map(|i: i32| (i * value).to_le_bytes()).collect();
        Some(fixed(Datatype::Int32, &[1, 16], values))
    };
    let outputs = simple.forward(vec![one(3), one(1)]).expect("runs");
    assert_eq!(names(&outputs), ["OUTPUT0", "OUTPUT1"]);
    let expected = |factor| one(factor).expect("just made");
    assert_eq!((&outputs[0].tensor, &outputs[1].tensor), (&expected(4), &expected(2)));
    loader.stop();
}

#[tokio::test]
async fn models_that_declare_no_shapes_are_loaded_all_the_same() {
    let loader = Loader::start(engine()).expect("a thread");
    for name in
        ["branchy", "scale", "options", "pair", "named", "mixed", "strlen", "sum", "identity", "low", "fork"]
    {
        warm(&loader, name).await;
    }
    loader.stop();
}

#[tokio::test]
async fn a_model_that_fails_on_what_it_declares_is_rejected_and_the_next_one_loads() {
    let loader = Loader::start(engine()).expect("a thread");
    let mut wrong = signature("mlp");
    wrong.inputs[0].shape = Some(vec![-1, 3].into());
    let Err(EngineError::Load(reason)) = loader.load(file("mlp"), wrong).await else {
        panic!("it takes 16 columns, not 3")
    };
    assert_eq!(
        reason,
        "warm-up: the model failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 16x64)"
    );
    let mlp = warm(&loader, "mlp").await;
    assert!(mlp.forward(vec![Some(uneven(&[1, 16], 0))]).is_ok());
    loader.stop();
}

#[tokio::test]
async fn what_is_freed_is_dropped_on_the_loaders_thread() {
    struct Tell(std::sync::mpsc::Sender<Option<String>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().map(str::to_owned));
        }
    }
    let loader = Loader::start(engine()).expect("a thread");
    let (sender, receiver) = std::sync::mpsc::channel();
    loader.free(Box::new(Tell(sender.clone())));
    loader.stop();
    assert_eq!(receiver.recv().expect("dropped by now"), Some("loader".to_owned()));
    // After the end it is dropped where it is, not kept for ever.
    loader.free(Box::new(Tell(sender)));
    assert!(receiver.recv().is_ok());
    let late = loader.load(file("mlp"), signature("mlp")).await;
    assert!(matches!(late.map(|_| ()), Err(EngineError::Load(_))));
}
