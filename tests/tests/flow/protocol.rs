//! Extensions of the protocol on a whole sidecar: what a model's archive and a real run have a part in.

use bytes::Bytes;
use http::Request;
use sconce_proto::{
    inference::{
        InferParameter, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
    v1::VersionState,
};
use sconce_tests::{Plane, archives, image, plaintext::From, repository};
use serde_json::{Value, json};

/// Status and JSON of an exchange.
async fn exchange(from: From, request: http::request::Builder, body: &Value) -> (u16, Value) {
    let request = request.body(Bytes::from(body.to_string())).expect("a request");
    let answer = from.exchange(request).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labels_of_an_archive_name_the_classes_of_its_outputs() {
    let mut plane = Plane::start().await;
    let (folder, sidecar) = (tempfile::tempdir().expect("a folder"), plane.sidecar("labels", &[]).await);
    let archive = archives::labelled(folder.path(), "probabilities", 10);
    plane.push(&archive, "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;

    let mut asked = image(1);
    asked["outputs"] = json!([
        { "name": "probabilities" },
    ]);
    let caller = plane.caller("/ns/default/sa/app");
    let scores = caller.send("POST", &sidecar.infer("digits"), Some(&asked)).await.expect("answered").json;
    let scores: Vec<f64> = serde_json::from_value(scores["outputs"][0]["data"].clone()).expect("scores");
    asked["outputs"][0]["parameters"] = json!({ "classification": 3 });
    let reply = caller.send("POST", &sidecar.infer("digits"), Some(&asked)).await.expect("answered").json;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let texts = order[..3].iter().map(|at| format!("{:.6}:{at}:class {at}", scores[*at]));
    let expected = json!({ "name": "probabilities", "shape": [1, 3], "datatype": "BYTES",
        "data": texts.collect::<Vec<_>>() });
    assert_eq!(reply["outputs"][0], expected);

    let wrong = archives::labelled(folder.path(), "probabilities", 9);
    let refused = plane.push(&wrong, "digits", "2", &[]).await.expect_err("10 classes").to_string();
    assert!(refused.contains("`probabilities` 9 labels"), "{refused}");
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_logged_the_pod_changes_and_anybody_who_may_call_reads() {
    sconce_telemetry::init_logs("error", false).expect("a filter");
    let mut plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sconce.sock");
    let sidecar = plane.sidecar("logs", &[("SCONCE_UNIX_SOCKET", &path.display().to_string())]).await;

    let (caller, uri) = (plane.caller("/ns/default/sa/app"), format!("{}/v2/logging", sidecar.address));
    let read = caller.send("GET", &uri, None).await.expect("answered").json;
    assert_eq!((&read["log_error"], &read["log_warning"]), (&json!(true), &json!(false)));
    let change = json!({ "log_warning": true });
    let denied = caller.send("POST", &uri, Some(&change)).await.expect("answered");
    assert_eq!(denied.status, 403, "{}", denied.json);
    assert!(
        denied.json["error"].as_str().expect("a reason").contains("SCONCE_UNIX_SOCKET"),
        "{}",
        denied.json
    );
    assert_eq!(caller.send("GET", &uri, None).await.expect("answered").json, read);

    let pod = || From::Socket(path.clone());
    let (status, changed) = exchange(pod(), Request::post("/v2/logging"), &change).await;
    assert_eq!((status, &changed["log_warning"]), (200, &json!(true)), "{changed}");
    assert_eq!(caller.send("GET", &uri, None).await.expect("answered").json, changed);
    let (status, back) = exchange(pod(), Request::post("/v2/logging"), &read).await;
    assert_eq!((status, back), (200, read), "what was read can be sent back");
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_a_request_are_the_arguments_of_the_model_that_are_no_tensors() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("parameters", &[]).await;
    let file = repository().join("tests/models/options.pt");
    plane.push(&file, "options", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "options", "1", VersionState::Ready).await;
    let caller = plane.caller("/ns/default/sa/app");
    let x = json!({ "name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0] });
    for (parameters, expected) in [
        (json!({}), json!([2.0, 4.0])),
        (json!({ "factor": 3, "negate": true }), json!([-3.0, -6.0])),
        (json!({ "factor": 0.5, "mode": "sum", "mine": "x" }), json!([1.5])),
    ] {
        let asked = json!({ "inputs": [x], "parameters": parameters });
        let reply = caller.send("POST", &sidecar.infer("options"), Some(&asked)).await.expect("answered");
        assert_eq!(reply.json["outputs"][0]["data"], expected, "{}", reply.json);
    }
    for (parameters, says) in
        [(json!({ "factor": "three" }), "`factor`"), (json!({ "triton_mine": 1 }), "`triton_mine`")]
    {
        let asked = json!({ "inputs": [x], "parameters": parameters });
        let reply = caller.send("POST", &sidecar.infer("options"), Some(&asked)).await.expect("answered");
        let error = reply.json["error"].as_str().unwrap_or_default();
        assert!(reply.status == 400 && error.contains(says), "{}", reply.json);
    }

    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let request = ModelInferRequest {
        model_name: "options".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![2],
            ..Default::default()
        }],
        parameters: [
            ("factor".to_owned(), parameter(ParameterChoice::DoubleParam(3.0))),
            ("mode".to_owned(), parameter(ParameterChoice::StringParam("sum".into()))),
        ]
        .into(),
        raw_input_contents: vec![[1f32, 2.0].map(f32::to_le_bytes).concat().into()],
        ..Default::default()
    };
    let channel = plane.channel_to(&sidecar.address, Some("/ns/default/sa/app"));
    let reply = GrpcInferenceServiceClient::new(channel).model_infer(request).await.expect("answered");
    assert_eq!(reply.into_inner().raw_output_contents[0][..], 9f32.to_le_bytes());
    plane.stop().await;
    sidecar.stop().await;
}
