//! The protocol, asked through the whole stack. Here: models written by hand, and callers.

mod answers;
mod classification;
mod encodings;
mod hostile;
mod lanes;
mod model_config;
mod refusals;
mod repository;
mod rpc;
mod sequences;
mod settings;
mod shared_memory;
mod socket;
mod statistics;
mod sticky;
mod streams;
mod v1;
mod withdrawn;

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Router, body::Body};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use sconce_catalog::{
    Datatype, Digest, Field, Kind, ModelName, Serial, ServedSplit, Shape, Share, Signature, Split, Version,
};
use sconce_identity::Principal;
use tower::ServiceExt as _;

use super::{Config, Run, stack};
use crate::{
    engine::{Data, EngineError, Module, Output, Queue, RunError, Tensor, Work},
    models::live::{Live, ModelSet, ServedModel, ServedVersion, Unready},
};

type Forward = fn(Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError>;

/// A model that is a function.
pub(super) struct Made {
    signature: Signature,
    forward: Forward,
}

impl Module for Made {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        (self.forward)(inputs)
    }
}

/// Runs a model at once.
pub(super) struct Inline;

impl Run for Inline {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let module = Arc::clone(queue.module());
        Box::pin(async move {
            let result = match &work.turn {
                Some(turn) => turn.forward(module.as_ref(), work.inputs, &mut Default::default()),
                None => module.forward(work.inputs),
            };
            result.map_err(RunError::Engine)
        })
    }
}

pub(super) fn field(name: &str, datatype: Option<Datatype>, shape: Option<&[i64]>) -> Field {
    let shape = shape.map(|sizes| Shape(sizes.iter().map(|size| u64::try_from(*size).ok()).collect()));
    Field { name: name.to_owned(), kind: Kind::Tensor, datatype, shape, optional: false }
}

pub(super) fn output(name: &str, tensor: Tensor) -> Output {
    Output { name: name.into(), tensor }
}

fn given(inputs: Vec<Option<Tensor>>) -> Vec<Tensor> {
    inputs.into_iter().flatten().collect()
}

fn echo(inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
    Ok(given(inputs).into_iter().map(|tensor| output("y", tensor)).collect())
}

/// Sum and difference of two FP32 tensors; the second is zero where it is left out.
fn add(inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
    let tensors = given(inputs);
    let floats = |tensor: &Tensor| match &tensor.data {
        Data::Fixed(bytes) => {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>()
        }
        Data::Strings(_) => Vec::new(),
    };
    let (a, b) = (floats(&tensors[0]), tensors.get(1).map(floats));
    let b = b.unwrap_or_else(|| vec![0.0; a.len()]);
    if a.len() != b.len() {
        return Err(EngineError::Input("the sizes of a and b differ".to_owned()));
    }
    let made = |name, by: fn(f32, f32) -> f32| {
        let bytes: Vec<u8> = a.iter().zip(&b).flat_map(|(a, b)| by(*a, *b).to_le_bytes()).collect();
        output(name, Tensor { data: Data::Fixed(bytes.into()), ..tensors[0].clone() })
    };
    Ok(vec![made("sum", |a, b| a + b), made("difference", |a, b| a - b)])
}

fn module(inputs: Vec<Field>, outputs: Vec<Field>, forward: Forward) -> Arc<dyn Module> {
    Arc::new(Made { signature: Signature { inputs, outputs, batching: None }, forward })
}

fn served(versions: &[(&str, u32)], module: &Arc<dyn Module>) -> ServedModel {
    let version = |text: &str| text.parse::<Version>().unwrap();
    let ready: BTreeMap<_, _> = versions
        .iter()
        .map(|(text, _)| {
            let served = ServedVersion {
                version: version(text),
                labels: [("sum".to_owned(), vec!["first".to_owned(), "second".to_owned()])].into(),
                artifact: "0".repeat(64).parse::<Digest>().unwrap(),
                queue: Queue::new(Arc::clone(module), "m", text),
                permit: Default::default(),
                counts: Default::default(),
            };
            (version(text), Arc::new(served))
        })
        .collect();
    let split = Split::new(versions.iter().map(|(text, share)| (version(text), Share::new(*share).unwrap())));
    let split =
        split.ok().and_then(|split| ServedSplit::among(&split, |version| ready.contains_key(version)));
    ServedModel { ready, split, ..Default::default() }
}

/// What the tests serve.
pub(super) fn live() -> Live {
    let (fp32, rows) = (Some(Datatype::Fp32), Some(&[-1, 2][..]));
    let echo = module(vec![field("x", None, None)], Vec::new(), echo);
    let optional = Field { optional: true, ..field("b", fp32, rows) };
    let add = module(
        vec![field("a", fp32, rows), optional],
        vec![field("sum", fp32, rows), field("difference", fp32, rows)],
        add,
    );
    let failing = module(vec![field("x", None, None)], Vec::new(), |_| {
        Err(EngineError::Model("division by zero".to_owned()))
    });
    let panicking = module(vec![field("x", None, None)], Vec::new(), |_| panic!("a bug"));
    let mut loading = served(&[("1", 10_000)], &echo);
    loading.unready.insert("2".parse().unwrap(), Unready::Loading);
    let mut absent = ServedModel::default();
    absent.unready.insert("1".parse().unwrap(), Unready::Rejected("its digest is wrong".to_owned()));

    let mut set = ModelSet { serial: Serial(1), ..Default::default() };
    for (name, model) in [
        ("echo", served(&[("7", 10_000)], &echo)),
        ("other/echo", served(&[("8", 10_000)], &echo)),
        ("add", served(&[("1", 10_000)], &add)),
        ("halves", served(&[("1", 2_500), ("v10", 7_500)], &add)),
        (
            "known",
            ServedModel {
                sticky: Some("x-user-id".parse().unwrap()),
                ..served(&[("1", 5_000), ("2", 5_000)], &echo)
            },
        ),
        ("failing", served(&[("1", 10_000)], &failing)),
        ("panicking", served(&[("1", 10_000)], &panicking)),
        ("loading", loading),
        ("absent", absent),
        ("echo-int8", served(&[("1", 10_000)], &echo)),
    ] {
        set.models.insert(name.parse::<ModelName>().unwrap(), model);
    }
    let live = Live::default();
    let _before = live.publish(set);
    live
}

pub(super) fn server(config: Config, runner: impl Run) -> Router {
    stack(config, live(), runner, Arc::new(|| true)).layer(Extension(Principal::Loopback))
}

/// A reply that has been read.
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> serde_json::Value {
        let length = self.headers.get("inference-header-content-length");
        let end = length.map_or(self.body.len(), |value| value.to_str().unwrap().parse().unwrap());
        serde_json::from_slice(&self.body[..end])
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn error(&self) -> String {
        assert!(!self.status.is_success(), "{:?}", self.body);
        self.json()["error"].as_str().expect("every refusal says why").to_owned()
    }
}

pub(super) async fn send(server: Router, request: Request<Body>) -> Reply {
    let response = server.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Reply { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub(super) async fn ask(request: http::request::Builder, body: impl Into<Body>) -> Reply {
    send(server(Config::default(), Inline), request.body(body.into()).unwrap()).await
}

pub(super) async fn get(path: &str) -> Reply {
    ask(Request::get(path), Body::empty()).await
}

pub(super) async fn infer(model: &str, body: impl Into<Body>) -> Reply {
    ask(Request::post(format!("/v2/models/{model}/infer")), body).await
}

/// A body with a binary part, and the header that says where that begins.
pub(super) async fn infer_binary(model: &str, json: &str, binary: &[u8]) -> Reply {
    let request = Request::post(format!("/v2/models/{model}/infer"))
        .header("inference-header-content-length", json.len());
    ask(request, [json.as_bytes(), binary].concat()).await
}
