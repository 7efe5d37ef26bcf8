//! The engine against libtorch itself, on the models of `tests/models`.
//!
//! Every model takes the way that a pushed one takes: the pre-check of its archive, the
//! signature discovered from its code, then the engine.

mod answers;
mod instances;
mod loading;
mod refusals;
mod sharing;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Barrier, OnceLock},
    thread,
};

use bytes::Bytes;
use sconce_catalog::{Datatype, Signature};
use sconce_sidecar::engine::{Data, Engine, Module, Output, Tensor, torch::TorchEngine};

/// One for the process, and the calling thread made fit for it.
fn engine() -> Arc<dyn Engine> {
    static ENGINE: OnceLock<Arc<TorchEngine>> = OnceLock::new();
    let engine = Arc::clone(ENGINE.get_or_init(|| Arc::new(TorchEngine::new())));
    engine.prepare_thread();
    engine
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(name).with_extension("pt")
}

fn signature(name: &str) -> Signature {
    let checked = sconce_artifact::precheck(&file(name), &sconce_artifact::Limits::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    sconce_artifact::discover(&checked, &Signature::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn load(name: &str) -> Arc<dyn Module> {
    engine().load(&file(name), &signature(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn fixed(datatype: Datatype, shape: &[u64], bytes: impl Into<Bytes>) -> Tensor {
    Tensor { datatype, shape: shape.to_vec(), data: Data::Fixed(bytes.into()) }
}

fn floats(shape: &[u64], values: &[f32]) -> Tensor {
    fixed(Datatype::Fp32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn integers(shape: &[u64], values: &[i64]) -> Tensor {
    fixed(Datatype::Int64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn texts(values: &[&'static str]) -> Tensor {
    let strings: Vec<Bytes> = values.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    Tensor { datatype: Datatype::Bytes, shape: vec![strings.len() as u64], data: Data::Strings(strings) }
}

/// Numbers of both signs, none of them round.
fn uneven(shape: &[u64], seed: usize) -> Tensor {
    let count = Tensor::elements(shape).expect("small");
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 23.0 - 2.1).collect();
    floats(shape, &values)
}

fn bytes(output: &Output) -> &[u8] {
    match &output.tensor.data {
        Data::Fixed(bytes) => bytes,
        Data::Strings(_) => panic!("`{}` is BYTES", output.name),
    }
}

fn names(outputs: &[Output]) -> Vec<&str> {
    outputs.iter().map(|output| &*output.name).collect()
}

fn as_floats(output: &Output) -> Vec<f32> {
    let (chunks, rest) = bytes(output).as_chunks();
    assert!(rest.is_empty());
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn as_integers(output: &Output) -> Vec<i64> {
    let (chunks, rest) = bytes(output).as_chunks();
    assert!(rest.is_empty());
    chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect()
}

const THREADS: usize = 4;

/// Runs `work` on several threads that start together.
fn together<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    engine();
                    start.wait();
                    work(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}
