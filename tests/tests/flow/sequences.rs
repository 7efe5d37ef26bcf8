//! Models that keep state, asked by sequences over every protocol: each sequence finds its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use sconce_proto::{
    inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor,
    },
    v1::{self, VersionState},
};
use sconce_tests::{Client, Plane, Sidecar, eventually, repository};
use serde_json::{Value, json};
use tch::{CModule, IValue, Kind, Tensor};
use tokio::process::Command;
use tonic::{Code, Status, transport::Channel};

use super::clients;

const CALLER: &str = "/ns/default/sa/app";
/// Requests of a sequence.
const LENGTH: i64 = 8;

async fn serving(plane: &Plane, name: &str, model: &str, variables: &[(&str, &str)]) -> Sidecar {
    let sidecar = plane.sidecar(name, variables).await;
    plane.push(&file(model), model, "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, model, "1", VersionState::Ready).await;
    sidecar
}

fn file(model: &str) -> std::path::PathBuf {
    repository().join("tests/models").join(model).with_extension("pt")
}

/// The sound that comes `n`th in a sequence.
fn sound(of: i64, n: i64) -> Tensor {
    let frames = 3 + (of + n) % 4;
    let at = Tensor::arange(8 * frames, (Kind::Float, tch::Device::Cpu));
    ((at * 0.731 + of as f64) * (1.1 + n as f64)).sin().reshape([1, 8, frames])
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.contiguous();
    let mut bytes = vec![0; flat.numel() * flat.kind().elt_size_in_bytes()];
    flat.copy_data_u8(&mut bytes, flat.numel());
    bytes
}

/// What libtorch gives for one sequence with a module to itself: the bytes of all outputs.
fn alone(of: i64) -> Vec<Vec<u8>> {
    tch::set_num_threads(1);
    let mut module = CModule::load(file("streaming")).expect("libtorch loads it");
    module.set_eval();
    let answer =
        |n| match tch::no_grad(|| module.forward_is(&[IValue::Tensor(sound(of, n))])).expect("it runs") {
            IValue::GenericDict(outputs) => outputs.into_iter().flat_map(|(_, output)| match output {
                IValue::Tensor(tensor) => bytes(&tensor),
                other => panic!("an output is {other:?}"),
            }),
            other => panic!("the answer is {other:?}"),
        };
    (0..LENGTH).map(|n| answer(n).collect()).collect()
}

/// The `n`th request of a sequence, for gRPC.
fn request(of: i64, n: i64) -> ModelInferRequest {
    let sound = sound(of, n);
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: sound.size(),
        ..Default::default()
    };
    let mut request = ModelInferRequest {
        model_name: "streaming".into(),
        id: n.to_string(),
        inputs: vec![input],
        raw_input_contents: vec![bytes(&sound).into()],
        ..Default::default()
    };
    for (name, value) in [
        ("sequence_id", ParameterChoice::Int64Param(of)),
        ("sequence_start", ParameterChoice::BoolParam(n == 0)),
        ("sequence_end", ParameterChoice::BoolParam(n == LENGTH - 1)),
    ] {
        request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
    }
    request
}

fn answer(response: ModelInferResponse) -> Vec<u8> {
    response.raw_output_contents.concat()
}

async fn by_http(client: &Client, uri: &str, of: i64) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for n in 0..LENGTH {
        let sound = sound(of, n);
        let data = Vec::<f32>::try_from(sound.flatten(0, -1)).expect("numbers");
        let body = json!({
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": sound.size(), "data": data }],
            "parameters": { "sequence_id": of.to_string(), "sequence_start": n == 0, "sequence_end": n == LENGTH - 1 },
        });
        let reply = client.send("POST", uri, Some(&body)).await.expect("answered");
        assert_eq!(reply.status, 200, "{:?}", reply.json);
        let outputs = reply.json["outputs"].as_array().expect("outputs");
        answers.push(outputs.iter().flat_map(numbers).collect());
    }
    answers
}

fn numbers(output: &Value) -> Vec<u8> {
    let data = output["data"].as_array().expect("numbers").iter();
    if output["datatype"] == "INT64" {
        data.flat_map(|number| number.as_i64().expect("whole").to_le_bytes()).collect()
    } else {
        data.flat_map(|number| (number.as_f64().expect("a number") as f32).to_le_bytes()).collect()
    }
}

async fn by_grpc(mut client: GrpcInferenceServiceClient<Channel>, of: i64) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for n in 0..LENGTH {
        answers.push(answer(client.model_infer(request(of, n)).await.expect("answered").into_inner()));
    }
    answers
}

/// Several sequences on one stream, their requests in turns, and nobody waits for an answer.
async fn by_stream(mut client: GrpcInferenceServiceClient<Channel>, of: &[i64]) -> Vec<Vec<Vec<u8>>> {
    let requests: Vec<_> = (0..LENGTH).flat_map(|n| of.iter().map(move |of| request(*of, n))).collect();
    let answers = client.model_stream_infer(stream::iter(requests)).await.expect("it begins").into_inner();
    let given = |answer: Result<ModelStreamInferResponse, Status>| {
        let answer = answer.expect("the stream goes on");
        assert_eq!(answer.error_message, "");
        self::answer(answer.infer_response.expect("answered"))
    };
    let answers: Vec<_> = answers.map(given).collect().await;
    (0..of.len()).map(|at| answers.iter().skip(at).step_by(of.len()).cloned().collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_sequences_are_bitwise_what_libtorch_gives_for_each_alone() {
    let mut plane = Plane::start().await;
    let sidecar = serving(&plane, "sequences", "streaming", &[]).await;
    let (http, uri) = (Arc::new(plane.caller(CALLER)), sidecar.infer("streaming"));
    let grpc = GrpcInferenceServiceClient::new(plane.channel_to(&sidecar.address, Some(CALLER)));
    // A number and the same as text are two sequences, so these meet in nothing.
    let https = futures::future::join_all((1..4).map(|of| by_http(&http, &uri, of)));
    let grpcs = futures::future::join_all((1..4).map(|of| by_grpc(grpc.clone(), of)));
    let (https, grpcs, streamed) = tokio::join!(https, grpcs, by_stream(grpc.clone(), &[4, 5, 6]));
    for (given, of) in https.iter().chain(&grpcs).chain(&streamed).zip([1, 2, 3, 1, 2, 3, 4, 5, 6]) {
        assert_eq!(*given, alone(of), "sequence {of}");
    }
    // Without a sequence every request finds the model as it was loaded, whatever ran before.
    for _ in 0..2 {
        let mut lone = request(1, 0);
        lone.parameters.clear();
        let given = grpc.clone().model_infer(lone).await.expect("answered").into_inner();
        assert_eq!(answer(given), alone(1)[0]);
    }
    plane.stop().await;
    sidecar.stop().await;
}

async fn count(client: &Client, uri: &str, id: u64, start: bool, end: bool) -> sconce_tests::Reply {
    let body = json!({
        "inputs": [{ "name": "x", "datatype": "INT64", "shape": [1], "data": [1] }],
        "parameters": { "sequence_id": id, "sequence_start": start, "sequence_end": end },
    });
    client.send("POST", uri, Some(&body)).await.expect("answered")
}

/// The count and the version of an answer.
fn counted(reply: &sconce_tests::Reply) -> (i64, &str) {
    assert_eq!(reply.status, 200, "{:?}", reply.json);
    let count = reply.json["outputs"][0]["data"][0].as_i64().expect("a count");
    (count, reply.json["model_version"].as_str().expect("a version"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_outlives_a_swap_and_the_removal_of_its_version() {
    let mut plane = Plane::start().await;
    let sidecar = serving(&plane, "swapped", "counter", &[]).await;
    let (client, uri) = (plane.caller(CALLER), sidecar.infer("counter"));
    assert_eq!(counted(&count(&client, &uri, 1, true, false).await), (1, "1"));
    plane.push(&file("counter"), "counter", "2", &[]).await.expect("pushed");
    plane.activate("counter", "2").await;
    eventually("new sequences are on the new version", || async {
        counted(&count(&client, &uri, 2, true, true).await).1 == "2"
    })
    .await;
    assert_eq!(counted(&count(&client, &uri, 1, false, false).await), (2, "1"));
    let request = v1::DeleteVersionRequest { model: "counter".into(), version: "1".into() };
    plane.registry().delete_version(request).await.expect("deleted");
    let old = format!("{}/v2/models/counter/versions/1", sidecar.address);
    eventually("the old version is gone", || async {
        client.send("GET", &old, None).await.expect("answered").status == 404
    })
    .await;
    assert_eq!(counted(&count(&client, &uri, 1, false, true).await), (3, "1"));
    let over = count(&client, &uri, 1, false, false).await;
    assert!(over.status == 400 && over.json["error"].to_string().contains("START"), "{over:?}");
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_sequence_makes_room_for_another() {
    let mut plane = Plane::start().await;
    let limits = [("SCONCE_MAX_SEQUENCES", "1"), ("SCONCE_SEQUENCE_IDLE_MS", "300")];
    let sidecar = serving(&plane, "idle", "counter", &limits).await;
    let (client, uri) = (plane.caller(CALLER), sidecar.infer("counter"));
    let began = Instant::now();
    assert_eq!(counted(&count(&client, &uri, 1, true, false).await).0, 1);
    let refused = count(&client, &uri, 2, true, false).await;
    assert!(refused.status == 429 || began.elapsed() > Duration::from_millis(300), "{refused:?}");
    eventually("there is room", || async { count(&client, &uri, 2, true, false).await.status == 200 }).await;
    assert!(began.elapsed() >= Duration::from_millis(300), "not before its time");
    assert_eq!(count(&client, &uri, 1, false, false).await.status, 400);
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritons_client_keeps_sequences_and_streams() {
    let Some(python) = clients::python() else { return };
    let mut plane = Plane::start().await;
    let sidecar = serving(&plane, "triton", "counter", &[]).await;
    let credentials = clients::credentials(&plane);
    for client in ["http", "grpc", "aio"] {
        let output = Command::new(&python)
            .arg(repository().join("tests/clients/sequences.py"))
            .args([client, sidecar.address.trim_start_matches("https://")])
            .args(["ca.pem", "cert.pem", "key.pem"].map(|name| credentials.path().join(name)))
            .output()
            .await
            .expect("python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client}: {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all as expected", "{client}: {errors}");
    }
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stays_open_does_not_keep_a_sidecar_from_stopping() {
    let mut plane = Plane::start().await;
    let sidecar = serving(&plane, "streams", "streaming", &[]).await;
    let mut client = GrpcInferenceServiceClient::new(plane.channel_to(&sidecar.address, Some(CALLER)));
    let requests = stream::iter([request(1, 0)]).chain(stream::pending());
    let mut answers = client.model_stream_infer(requests).await.expect("it begins").into_inner();
    let first = answers.message().await.expect("answered").expect("not the end");
    assert_eq!(first.error_message, "");
    let began = Instant::now();
    let (end, ()) = tokio::join!(answers.message(), sidecar.stop());
    assert_eq!(end.expect_err("it ends").code(), Code::Unavailable);
    // The harness gives it 30 s, and would take a stop at the last of them.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    plane.stop().await;
}
