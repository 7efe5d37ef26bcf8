//! What is meant to hurt, again and again: each is refused in the protocol's form, everybody
//! else is served on, and memory stays where it was.

use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use sconce_proto::{
    inference::{
        InferParameter, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
    v1::VersionState,
};
use sconce_tests::{Client, Plane, Sidecar, archives, digits, image, repository};
use tokio::sync::Mutex;
use tonic::transport::Channel;

const LIMIT: usize = 1 << 20;
/// What caches and allocators may keep, whatever was asked.
const SLACK: u64 = 24 << 20;
/// Memory is the process's, so only one of these tests runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn sidecar(plane: &Plane) -> Sidecar {
    let limit = LIMIT.to_string();
    let variables = [("SCONCE_PLAINTEXT_LOOPBACK", "true"), ("SCONCE_MAX_BODY_BYTES", &limit)];
    let sidecar = plane.sidecar("target", &variables).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    sidecar
}

/// Resident bytes of this process, which the sidecar is a part of.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).expect("resident").parse().expect("a number");
    pages * 4096
}

fn body(shape: &str, datatype: &str, data: &str) -> Bytes {
    let input = format!(r#"{{"name":"image","shape":{shape},"datatype":"{datatype}","data":{data}}}"#);
    format!(r#"{{"inputs":[{input}]}}"#).into()
}

async fn round(client: &Client, sidecar: &Sidecar) {
    let big = "1,".repeat(400_000);
    let path = sidecar.infer("digits");
    let post = |path: &str, length: Option<&str>, body: Bytes| {
        let mut request = Request::post(path);
        if let Some(length) = length {
            request = request.header("inference-header-content-length", length);
        }
        request.body(body).expect("a request")
    };
    let nested = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
    let binary = |shape: &str, size: u64| {
        let parameters = format!(r#"{{"binary_data_size":{size}}}"#);
        format!(
            r#"{{"inputs":[{{"name":"image","shape":{shape},"datatype":"FP32","parameters":{parameters}}}]}}"#
        )
    };
    let lie = binary("[1,64]", 10_737_418_240);
    let vast = binary("[4611686018427387904,64]", 256);
    for (request, status, says) in [
        (post(&path, None, Bytes::from(vec![b'{'; LIMIT - 1])), 400, "JSON"),
        (post(&path, None, body("[1,64]", "FP32", &nested)), 400, "data"),
        (post(&path, None, body("[1,64]", "FP32", &format!("[{big}1]"))), 400, "more than the 64 elements"),
        (post(&path, None, body("[400001]", "FP32", &format!("[{big}1]"))), 400, "must have shape"),
        (post(&path, None, body("[1,64]", "INT64", "[1]")), 400, "64"),
        (post(&path, None, body("[1,64]", "BYTES", "[\"a\"]")), 400, "64"),
        (post(&path, None, body("[100000000000,64]", "FP32", "[]")), 400, "shape"),
        (post(&path, Some(&lie.len().to_string()), lie.clone().into()), 400, "binary_data_size"),
        (
            post(&path, Some(&vast.len().to_string()), [vast.as_bytes(), &[0; 256]].concat().into()),
            400,
            "memory",
        ),
        (post(&path, Some("10737418240"), Bytes::from_static(b"{}")), 400, "inference-header-content-length"),
        (post(&sidecar.infer("nothing"), None, body("[1]", "FP32", "[1]")), 404, "nothing"),
        (post(&path.replace("/infer", "/versions/9/infer"), None, body("[1]", "FP32", "[1]")), 404, "`9`"),
    ] {
        let reply = client.exchange(request).await.expect("answered");
        let error = reply.json["error"].as_str().unwrap_or_default();
        assert!(reply.status == status && error.contains(says), "{says}: {} {error:.300}", reply.status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_leave_memory_and_everybody_else_alone() {
    let _alone = ALONE.lock().await;
    let mut plane = Plane::start().await;
    let sidecar = sidecar(&plane).await;
    let client = plane.caller("/ns/default/sa/app");
    let right = client.send("POST", &sidecar.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!(right.status, 200, "{right:?}");
    // The first rounds fill caches and the allocator's pools.
    for _ in 0..5 {
        round(&client, &sidecar).await;
    }
    let before = resident();
    for _ in 0..20 {
        round(&client, &sidecar).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < SLACK, "{grown} bytes more than after the first rounds");
    let still = client.send("POST", &sidecar.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!(still.json["outputs"], right.json["outputs"]);
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_archives_leave_memory_where_it_was() {
    let _alone = ALONE.lock().await;
    let mut plane = Plane::start().await;
    let operator = plane.caller("/sconce/operator");
    let folder = tempfile::tempdir().expect("a folder");
    let whole = std::fs::read(digits("v1")).expect("a model");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let hostile: Vec<(Vec<u8>, &str)> = vec![
        (std::fs::read(archives::bomb(folder.path())).expect("made"), "inflates to"),
        (std::fs::read(archives::reads_a_file(folder.path())).expect("made"), "from_file"),
        (whole[..whole.len() / 2].to_vec(), "cut short"),
        (flipped, "bit was flipped"),
    ];
    let round = async || {
        for (bytes, says) in &hostile {
            let path = "models/default/bad/versions/1";
            let request = Request::put(format!("{}/api/v1/{path}", plane.address()));
            let request = request.body(bytes.clone().into()).expect("a request");
            let reply = operator.exchange(request).await.expect("answered");
            let error = reply.json["error"].as_str().unwrap_or_default();
            assert!(reply.status == 400 && error.contains(says), "{says}: {} {error}", reply.status);
        }
    };
    for _ in 0..3 {
        round().await;
    }
    let before = resident();
    for _ in 0..25 {
        round().await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < SLACK, "{grown} bytes more after 100 hostile archives");
    plane.stop().await;
}

/// One request for each of a thousand sequences, all on one stream.
async fn each_of_a_thousand(client: &GrpcInferenceServiceClient<Channel>, start: bool, end: bool) {
    let request = move |id: i64| {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 8, 3],
            ..Default::default()
        };
        let set = [
            ("sequence_id", ParameterChoice::Int64Param(id)),
            ("sequence_start", ParameterChoice::BoolParam(start)),
            ("sequence_end", ParameterChoice::BoolParam(end)),
        ];
        let parameters =
            set.map(|(name, value)| (name.to_owned(), InferParameter { parameter_choice: Some(value) }));
        ModelInferRequest {
            model_name: "streaming".into(),
            inputs: vec![input],
            raw_input_contents: vec![vec![1; 96].into()],
            parameters: parameters.into(),
            ..Default::default()
        }
    };
    let asked = futures::stream::iter((1..=1_000).map(request));
    let answers = client.clone().model_stream_infer(asked).await.expect("it begins").into_inner();
    let answered = answers.map(|answer| answer.expect("the stream goes on").error_message);
    assert!(answered.collect::<Vec<_>>().await.iter().eq(&vec![""; 1_000]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sequences_cost_what_they_change_and_leave_nothing() {
    let _alone = ALONE.lock().await;
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("sequences", &[]).await;
    let file = repository().join("tests/models/streaming.pt");
    plane.push(&file, "streaming", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "streaming", "1", VersionState::Ready).await;
    let client = plane.channel_to(&sidecar.address, Some("/ns/default/sa/app"));
    let client = GrpcInferenceServiceClient::new(client);
    each_of_a_thousand(&client, true, true).await;
    let before = resident();
    each_of_a_thousand(&client, true, false).await;
    each_of_a_thousand(&client, false, false).await;
    let open = resident().saturating_sub(before);
    // A thousand copies of its file would be 118 MB.
    assert!(open < SLACK, "{open} bytes for a thousand sequences");
    each_of_a_thousand(&client, false, true).await;
    for _ in 0..5 {
        each_of_a_thousand(&client, true, true).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < SLACK, "{grown} bytes more after 6,000 sequences");
    plane.stop().await;
    sidecar.stop().await;
}
