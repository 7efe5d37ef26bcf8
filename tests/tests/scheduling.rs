//! More than a sidecar can do: what waits, what is joined, what is refused, and who went away.
//!
//! The threads are kept busy by a model whose input says how long it runs, so that others wait for
//! as long as a test needs.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use prost::Message as _;
use sconce_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{self, VersionState},
};
use sconce_telemetry::Metrics;
use sconce_tests::{Client, Plane, Sidecar, eventually, repository};
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};

const CALLER: &str = "/ns/default/sa/app";

/// Of this whole test process: before a sidecar makes its own.
fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install().expect("nobody else records"))
}

/// The sum of a metric over all series that have this text among their labels.
fn metric(name: &str, labels: &str) -> u64 {
    let text = metrics().render();
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels));
    series
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number") as u64)
        .sum()
}

fn of(model: &str) -> String {
    format!("model=\"{model}\"")
}

async fn push(plane: &Plane, sidecar: &Sidecar, file: &str, model: &str, batching: v1::Batching) {
    let request = v1::BeginPushRequest {
        model: model.into(),
        version: "1".into(),
        overrides: Some(v1::Signature { batching: batching.into(), ..Default::default() }),
        ..Default::default()
    };
    let file = repository().join("tests/models").join(file);
    plane.push_as(&file, request).await.expect("pushed");
    plane.stands(sidecar, model, "1", VersionState::Ready).await;
}

/// Every way in.
#[derive(Clone)]
struct Callers {
    plane: Arc<Plane>,
    address: String,
}

impl Callers {
    fn http1(&self) -> Client {
        self.plane.caller(CALLER)
    }

    fn http2(&self) -> Client {
        Client::http2(self.plane.tls(Some(CALLER)))
    }

    fn grpc(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::new(self.plane.channel_to(&self.address, Some(CALLER)))
    }

    fn post(&self, model: &str, body: &Value) -> Request<Bytes> {
        let request = Request::post(format!("{}/v2/models/{model}/infer", self.address));
        request.body(body.to_string().into()).expect("a request")
    }
}

/// A request that keeps one thread busy for so many rounds.
fn rounds(number: u64) -> Value {
    json!({ "inputs": [
        { "name": "x", "datatype": "FP32", "shape": [4], "data": [0, 0, 0, 0] },
        { "name": "n", "datatype": "INT64", "shape": [1], "data": [number] },
    ] })
}

fn rounds_by_grpc(model: &str, number: u64) -> ModelInferRequest {
    let input = |name: &str, datatype: &str, size| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![size],
        ..Default::default()
    };
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![input("x", "FP32", 4), input("n", "INT64", 1)],
        raw_input_contents: vec![vec![0; 16].into(), number.to_le_bytes().to_vec().into()],
        ..Default::default()
    }
}

/// How many rounds take about this long here.
async fn taking(callers: &Callers, model: &str, long: Duration) -> u64 {
    let (client, tried) = (callers.http1(), 100_000);
    // The first one also pays for the connection.
    client.exchange(callers.post(model, &rounds(1))).await.expect("answered");
    let began = Instant::now();
    let reply = client.exchange(callers.post(model, &rounds(tried))).await.expect("answered");
    assert_eq!(reply.status, 200, "{:?}", reply.json);
    let one = began.elapsed().as_secs_f64() / tried as f64;
    (long.as_secs_f64() / one) as u64
}

/// Starts a request that holds a thread, and waits until it does.
async fn hold(callers: &Callers, model: &str, number: u64) -> tokio::task::JoinHandle<u16> {
    let before = metric("sconce_runs_total", &of(model));
    let (client, request) = (callers.http1(), callers.post(model, &rounds(number)));
    let held = tokio::spawn(async move { client.exchange(request).await.expect("answered").status });
    eventually("the model runs", || async { metric("sconce_runs_total", &of(model)) > before }).await;
    held
}

/// 16 features a row, none of them round.
fn features(seed: usize, rows: usize) -> Vec<f32> {
    (0..rows * 16).map(|at| ((at * 37 + seed * 11) % 101) as f32 / 23.0 - 2.1).collect()
}

fn by_json(rows: usize, features: &[f32]) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [rows, 16], "data": features }] })
}

fn by_grpc(model: &str, rows: usize, features: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![rows as i64, 16],
            ..Default::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

fn numbers(reply: &sconce_tests::Reply) -> Vec<f32> {
    assert_eq!(reply.status, 200, "{:?}", reply.json);
    serde_json::from_value(reply.json["outputs"][0]["data"].clone()).expect("numbers")
}

/// The same request over one of the three protocols.
async fn ask(callers: Callers, way: usize, model: &'static str, seed: usize) -> Vec<f32> {
    let rows = seed % 3 + 1;
    let features = features(seed, rows);
    match way {
        0 => {
            let reply = callers.http1().exchange(callers.post(model, &by_json(rows, &features))).await;
            numbers(&reply.expect("answered"))
        }
        1 => {
            let reply = callers.http2().exchange(callers.post(model, &by_json(rows, &features))).await;
            numbers(&reply.expect("answered"))
        }
        _ => {
            let reply = callers.grpc().model_infer(by_grpc(model, rows, &features)).await;
            let raw = reply.expect("answered").into_inner().raw_output_contents.remove(0);
            raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
    }
}

async fn start(name: &str, variables: &[(&str, &str)]) -> (Callers, Sidecar) {
    metrics();
    let plane = Plane::start().await;
    let variables = [&[("SCONCE_INFERENCE_THREADS", "1")], variables].concat();
    let sidecar = plane.sidecar(name, &variables).await;
    let address = sidecar.address.clone();
    (Callers { plane: plane.into(), address }, sidecar)
}

async fn stop(callers: Callers, sidecar: Sidecar) {
    sidecar.stop().await;
    Arc::into_inner(callers.plane).expect("nobody else has it").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_run_as_one_and_are_answered_as_if_each_had_run_alone() {
    let (callers, sidecar) = start("batching", &[]).await;
    let plane = &callers.plane;
    push(plane, &sidecar, "mlp.pt", "batched", v1::Batching::Rows).await;
    push(plane, &sidecar, "raises.pt", "raising", v1::Batching::Rows).await;
    for model in ["hold-a", "hold-b"] {
        push(plane, &sidecar, "state/changes_throughloop.pt", model, v1::Batching::Unspecified).await;
    }
    let mut alone = Vec::new();
    for seed in 0..9 {
        alone.push(ask(callers.clone(), seed % 3, "batched", seed).await);
    }
    let number = taking(&callers, "hold-a", Duration::from_secs(5)).await;
    // One version's run, and the thread that is kept for another's.
    let held = [hold(&callers, "hold-a", number).await, hold(&callers, "hold-b", number).await];

    let runs = metric("sconce_runs_total", &of("batched"));
    let asked = (0..9).map(|seed| tokio::spawn(ask(callers.clone(), seed % 3, "batched", seed)));
    let asked: Vec<_> = asked.collect();
    let raising = (0..3).map(|seed| {
        let mut features = features(seed, 1);
        features.iter_mut().for_each(|value| *value = if seed == 1 { -1e6 } else { value.abs() });
        let (client, request) = (callers.http1(), callers.post("raising", &by_json(1, &features)));
        tokio::spawn(async move { client.exchange(request).await.expect("answered").status })
    });
    let raising: Vec<_> = raising.collect();
    eventually("all of them wait", || async {
        metric("sconce_queued_requests", &of("batched")) == 9
            && metric("sconce_queued_requests", &of("raising")) == 3
    })
    .await;
    for (seed, asked) in asked.into_iter().enumerate() {
        let together = asked.await.expect("answered");
        assert_eq!(together.len(), alone[seed].len());
        for (one, other) in together.iter().zip(&alone[seed]) {
            // Of numbers around 1. Another size of batch may be summed in another order.
            assert!((one - other).abs() <= 1e-5, "{seed}: {together:?}, and alone {:?}", alone[seed]);
        }
    }
    assert_eq!(metric("sconce_runs_total", &of("batched")) - runs, 1, "as one batch");
    let mut statuses = Vec::new();
    for raising in raising {
        statuses.push(raising.await.expect("answered"));
    }
    assert_eq!(statuses, [200, 500, 200], "one bad row fails alone");
    assert_eq!(metric("sconce_batches_taken_apart_total", &of("raising")), 1);
    for held in held {
        assert_eq!(held.await.expect("answered"), 200);
    }
    stop(callers, sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_sidecar_refuses_at_once_and_does_what_it_accepted() {
    let (callers, sidecar) = start("overload", &[("SCONCE_QUEUE_SIZE", "3")]).await;
    push(&callers.plane, &sidecar, "state/changes_throughloop.pt", "slow", v1::Batching::Unspecified).await;
    let number = taking(&callers, "slow", Duration::from_secs(4)).await;
    let first = hold(&callers, "slow", number).await;
    let waiting = (0..3).map(|_| {
        let (client, request) = (callers.http1(), callers.post("slow", &rounds(10)));
        tokio::spawn(async move { client.exchange(request).await.expect("answered").status })
    });
    let waiting: Vec<_> = waiting.collect();
    eventually("the queue is full", || async { metric("sconce_queued_requests", &of("slow")) == 3 }).await;

    let (client, http2, mut grpc) = (callers.http1(), callers.http2(), callers.grpc());
    for client in [&client, &http2] {
        for _ in 0..10 {
            let refused = client.raw(callers.post("slow", &rounds(10))).await.expect("answered");
            assert_eq!(refused.status(), 429);
            let after = refused.headers()["retry-after"].to_str().expect("text").parse::<u64>();
            assert!(after.expect("seconds") >= 1);
            let body: Value = serde_json::from_slice(refused.body()).expect("JSON");
            assert!(body["error"].as_str().expect("why").contains("`slow`, version `1`"), "{body}");
        }
    }
    for _ in 0..10 {
        let refused = grpc.model_infer(rounds_by_grpc("slow", 10)).await.expect_err("refused");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let pushback = refused.metadata().get("grpc-retry-pushback-ms").expect("a hint").to_str();
        assert!(pushback.expect("text").parse::<u64>().expect("milliseconds") >= 1);
    }
    // By the order of things: 30 refusals while one run went on.
    assert!(!first.is_finished(), "refusals do not wait");
    assert_eq!(first.await.expect("answered"), 200);
    for waiting in waiting {
        assert_eq!(waiting.await.expect("answered"), 200);
    }
    stop(callers, sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_for_callers_who_went_away_or_whose_deadline_has_passed() {
    let (callers, sidecar) = start("leaving", &[]).await;
    push(&callers.plane, &sidecar, "state/changes_throughloop.pt", "left", v1::Batching::Unspecified).await;
    let number = taking(&callers, "left", Duration::from_secs(4)).await;
    let held = hold(&callers, "left", number).await;
    let runs = metric("sconce_runs_total", &of("left"));
    let left =
        || metric("sconce_saved_rows_total", &format!("{},version=\"1\",reason=\"abandoned\"", of("left")));
    let late = || metric("sconce_saved_rows_total", &format!("{},version=\"1\",reason=\"late\"", of("left")));

    let (http1, http2, mut grpc) = (callers.http1(), callers.http2(), callers.grpc());
    let (one, two) = (callers.post("left", &rounds(10)), callers.post("left", &rounds(10)));
    let asked = [
        tokio::spawn(async move { drop(http1.raw(one).await) }),
        tokio::spawn(async move { drop(http2.raw(two).await) }),
        tokio::spawn(async move { drop(grpc.model_infer(rounds_by_grpc("left", 10)).await) }),
    ];
    eventually("three wait", || async { metric("sconce_queued_requests", &of("left")) == 3 }).await;
    // The connection is closed for one, the stream reset for the others.
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("none waits", || async { metric("sconce_queued_requests", &of("left")) == 0 }).await;
    assert_eq!(left(), 3);

    let mut soon = rounds(10);
    soon["parameters"] = json!({ "timeout": 30_000 });
    let reply = callers.http1().exchange(callers.post("left", &soon)).await.expect("answered");
    assert_eq!(reply.status, 504, "{:?}", reply.json);
    let mut request = callers.post("left", &rounds(10));
    request.headers_mut().insert("x-envoy-expected-rq-timeout-ms", "30".parse().expect("a value"));
    assert_eq!(callers.http2().exchange(request).await.expect("answered").status, 504);
    // As it travels: tonic's own client would not wait for the answer.
    let message = rounds_by_grpc("left", 10).encode_to_vec();
    let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let request = Request::post(format!("{}/inference.GRPCInferenceService/ModelInfer", callers.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "30m");
    let request = request.body(framed.into()).expect("a request");
    let refused = callers.http2().raw(request).await.expect("answered");
    assert_eq!(refused.headers()["grpc-status"], (Code::DeadlineExceeded as i32).to_string());
    assert!(!held.is_finished(), "they did not wait for the run to end");
    assert_eq!(late(), 3);

    assert_eq!(held.await.expect("answered"), 200);
    assert_eq!(metric("sconce_runs_total", &of("left")), runs, "the engine ran for none of them");
    stop(callers, sidecar).await;
}
