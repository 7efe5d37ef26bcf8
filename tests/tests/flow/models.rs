//! Real archives over every protocol, each answer equal to libtorch called directly.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use sconce_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::VersionState,
};
use sconce_tests::{Client, Plane, Sidecar, repository};
use serde_json::{Value, json};
use tch::{CModule, IValue, Kind, Tensor};
use tokio::process::Command;
use tonic::transport::Channel;

/// An input as it travels, and as libtorch is given it.
struct Input {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
    bytes: Vec<u8>,
    value: IValue,
}

/// Outputs as bytes, by name.
type Answer = Vec<(String, Vec<u8>)>;

fn tensor(name: &'static str, datatype: &'static str, tensor: Tensor) -> Input {
    Input { name, datatype, shape: tensor.size(), bytes: bytes(&tensor), value: IValue::Tensor(tensor) }
}

fn numbers(shape: &[i64]) -> Tensor {
    // Values that no rounding hides: not short in binary.
    (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, tch::Device::Cpu)) * 0.731 + 0.113)
        .sin()
        .reshape(shape)
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.contiguous();
    let mut bytes = vec![0; flat.numel() * flat.kind().elt_size_in_bytes()];
    flat.copy_data_u8(&mut bytes, flat.numel());
    bytes
}

fn direct(file: &Path, inputs: &[Input]) -> Answer {
    tch::set_num_threads(1);
    let module = CModule::load(file).expect("libtorch loads it");
    let inputs: Vec<IValue> = inputs.iter().map(|input| shallow(&input.value)).collect();
    flattened(tch::no_grad(|| module.forward_is(&inputs)).expect("it runs"))
}

fn shallow(value: &IValue) -> IValue {
    match value {
        IValue::Tensor(tensor) => IValue::Tensor(tensor.shallow_clone()),
        IValue::Int(number) => IValue::Int(*number),
        IValue::StringList(texts) => IValue::StringList(texts.clone()),
        other => panic!("{other:?} is not used here"),
    }
}

fn flattened(value: IValue) -> Answer {
    match value {
        IValue::Tensor(tensor) => vec![("OUTPUT__0".into(), bytes(&tensor))],
        IValue::Tuple(parts) => parts
            .into_iter()
            .enumerate()
            .map(|(at, part)| match part {
                IValue::Tensor(tensor) => (format!("OUTPUT__{at}"), bytes(&tensor)),
                other => panic!("{other:?} is not expected here"),
            })
            .collect(),
        IValue::GenericDict(entries) => entries
            .into_iter()
            .map(|entry| match entry {
                (IValue::String(name), IValue::Tensor(tensor)) => (name, bytes(&tensor)),
                other => panic!("{other:?} is not expected here"),
            })
            .collect(),
        other => panic!("{other:?} is not expected here"),
    }
}

/// Binary in and out over HTTP.
async fn over_http(client: &Client, sidecar: &Sidecar, model: &str, inputs: &[Input]) -> Answer {
    in_sequence(client, sidecar, model, inputs, &json!({})).await
}

/// Over HTTP, with the parameters of a sequence.
async fn in_sequence(
    client: &Client,
    sidecar: &Sidecar,
    model: &str,
    inputs: &[Input],
    sequence: &Value,
) -> Answer {
    let mut parameters = json!({ "binary_data_output": true });
    let sequence = sequence.as_object().expect("parameters").clone();
    parameters.as_object_mut().expect("an object").extend(sequence);
    let described: Vec<Value> = inputs
        .iter()
        .map(|input| {
            let parameters = json!({ "binary_data_size": input.bytes.len() });
            json!({ "name": input.name, "datatype": input.datatype, "shape": input.shape, "parameters": parameters })
        })
        .collect();
    let head = json!({ "inputs": described, "parameters": parameters }).to_string();
    let mut body = head.clone().into_bytes();
    inputs.iter().for_each(|input| body.extend(&input.bytes));
    let request = Request::post(sidecar.infer(model)).header("inference-header-content-length", head.len());
    let reply = client.raw(request.body(Bytes::from(body)).expect("a request")).await.expect("answered");
    assert_eq!(reply.status(), 200, "{model}: {}", String::from_utf8_lossy(reply.body()));
    let split: usize =
        reply.headers()["inference-header-content-length"].to_str().expect("text").parse().expect("a length");
    let (head, mut rest) = (reply.body().slice(..split), reply.body().slice(split..));
    let head: Value = serde_json::from_slice(&head).expect("JSON");
    let output = |output: &Value| {
        let size = output["parameters"]["binary_data_size"].as_u64().expect("a size");
        let bytes = rest.split_to(usize::try_from(size).expect("small"));
        (output["name"].as_str().expect("a name").to_owned(), bytes.to_vec())
    };
    head["outputs"].as_array().expect("outputs").iter().map(output).collect()
}

async fn over_grpc(client: &GrpcInferenceServiceClient<Channel>, model: &str, inputs: &[Input]) -> Answer {
    let described = inputs.iter().map(|input| InferInputTensor {
        name: input.name.into(),
        datatype: input.datatype.into(),
        shape: input.shape.clone(),
        ..Default::default()
    });
    let request = ModelInferRequest {
        model_name: model.into(),
        inputs: described.collect(),
        raw_input_contents: inputs.iter().map(|input| input.bytes.clone().into()).collect(),
        ..Default::default()
    };
    let reply = client.clone().model_infer(request).await.expect("answered").into_inner();
    let names = reply.outputs.into_iter().map(|output| output.name);
    names.zip(reply.raw_output_contents.into_iter().map(|bytes| bytes.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_model_answers_as_libtorch_does_over_every_protocol() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("models", &[]).await;
    let http1 = plane.caller("/ns/default/sa/app");
    let http2 = Client::http2(plane.tls(Some("/ns/default/sa/app")));
    let grpc =
        GrpcInferenceServiceClient::new(plane.channel_to(&sidecar.address, Some("/ns/default/sa/app")));
    let words = ["a", "", "grüße"];
    let encoded =
        words.iter().flat_map(|word| [&(word.len() as u32).to_le_bytes()[..], word.as_bytes()].concat());
    let words = Input {
        name: "words",
        datatype: "BYTES",
        shape: vec![3],
        bytes: encoded.collect(),
        value: IValue::StringList(words.map(str::to_owned).into()),
    };
    let number = Input {
        name: "n",
        datatype: "INT64",
        shape: vec![1],
        bytes: 3i64.to_le_bytes().to_vec(),
        value: IValue::Int(3),
    };
    let ids = Tensor::arange(10, (Kind::Int64, tch::Device::Cpu)).remainder(5).reshape([2, 5]);
    let models = [
        ("mlp", vec![tensor("x", "FP32", numbers(&[3, 16]))]),
        ("branchy", vec![tensor("x", "FP32", numbers(&[2, 8]))]),
        ("dict_out", vec![tensor("x", "FP32", numbers(&[2, 4]))]),
        ("two_in", vec![tensor("ids", "INT64", ids), tensor("weights", "FP32", numbers(&[2, 5]))]),
        ("scale", vec![tensor("x", "FP32", numbers(&[2, 3])), number]),
        ("strlen", vec![words]),
        ("pair", vec![tensor("x", "FP32", numbers(&[4]))]),
        (
            "low",
            vec![
                tensor("half", "FP16", numbers(&[2, 4]).to_kind(Kind::Half)),
                tensor("brain", "BF16", numbers(&[2, 8]).to_kind(Kind::BFloat16)),
            ],
        ),
    ];
    for (model, inputs) in models {
        let file = repository().join("tests/models").join(format!("{model}.pt"));
        let name = model.replace('_', "-");
        plane.push(&file, &name, "1", &[]).await.expect("pushed");
        plane.stands(&sidecar, &name, "1", VersionState::Ready).await;
        let mut expected = direct(&file, &inputs);
        expected.sort();
        let sorted = |mut answer: Answer| {
            answer.sort();
            answer
        };
        assert_eq!(
            sorted(over_http(&http1, &sidecar, &name, &inputs).await),
            expected,
            "{model} over HTTP/1.1"
        );
        assert_eq!(
            sorted(over_http(&http2, &sidecar, &name, &inputs).await),
            expected,
            "{model} over HTTP/2"
        );
        assert_eq!(sorted(over_grpc(&grpc, &name, &inputs).await), expected, "{model} over gRPC");
    }
    plane.stop().await;
    sidecar.stop().await;
}

/// The voice activity detector that its authors publish, exactly as they exported it.
async fn published() -> Option<PathBuf> {
    let Some(python) = std::env::var_os("SCONCE_CLIENTS") else {
        eprintln!("the published model was NOT tried: SCONCE_CLIENTS is not set, use `make test`");
        return None;
    };
    let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let output = Command::new(python).args(["-c", code]).output().await.expect("python starts");
    let folder = String::from_utf8(output.stdout).expect("text");
    Some(Path::new(folder.trim()).join("silero_vad/data/silero_vad.jit"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_others_exported_is_served_under_its_own_names() {
    let Some(file) = published().await else { return };
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("published", &[]).await;
    plane.push(&file, "vad", "1", &[]).await.expect("pushed as it was downloaded");
    plane.stands(&sidecar, "vad", "1", VersionState::Ready).await;
    let client = plane.caller("/ns/default/sa/app");

    let about =
        client.send("GET", &format!("{}/v2/models/vad", sidecar.address), None).await.expect("described");
    let names: Vec<_> =
        about.json["inputs"].as_array().expect("inputs").iter().map(|i| i["name"].clone()).collect();
    assert_eq!(names, ["x", "sr"], "{:?}", about.json);

    // It remembers what it heard, so three answers in a row have to agree, and without a sequence
    // each request is the first.
    let mut first = None;
    tch::set_num_threads(1);
    let module = CModule::load(&file).expect("libtorch loads it");
    for n in 0..3 {
        let inputs = [
            tensor("x", "FP32", numbers(&[1, 512])),
            Input {
                name: "sr",
                datatype: "INT64",
                shape: vec![1],
                bytes: 16_000i64.to_le_bytes().to_vec(),
                value: IValue::Int(16_000),
            },
        ];
        let values: Vec<IValue> = inputs.iter().map(|input| shallow(&input.value)).collect();
        let expected = flattened(tch::no_grad(|| module.forward_is(&values)).expect("it runs"));
        let sequence = json!({ "sequence_id": 1, "sequence_start": n == 0, "sequence_end": n == 2 });
        let answer = in_sequence(&client, &sidecar, "vad", &inputs, &sequence).await;
        assert_eq!(answer[0].1, expected[0].1, "request {n}");
        let first = first.get_or_insert(expected);
        assert_eq!(over_http(&client, &sidecar, "vad", &inputs).await[0].1, first[0].1, "request {n}");
    }
    plane.stop().await;
    sidecar.stop().await;
}
