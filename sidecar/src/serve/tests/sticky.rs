//! A model whose callers are known by a header.

use std::collections::BTreeSet;

use sconce_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};

use super::*;

/// Servers that have never heard of each other, and that serve the same.
fn pods() -> [Router; 2] {
    [server(Config::default(), Inline), server(Config::default(), Inline)]
}

async fn http(pod: &Router, headers: &[(&str, &str)]) -> String {
    let request = Request::post("/v2/models/known/infer");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    let reply = send(pod.clone(), request.body(body.into()).unwrap()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    reply.headers["x-sconce-version"].to_str().unwrap().to_owned()
}

async fn grpc(pod: &Router, user: &str) -> String {
    let input =
        InferInputTensor { name: "x".into(), datatype: "INT8".into(), shape: vec![1], ..Default::default() };
    let mut request = tonic::Request::new(ModelInferRequest {
        model_name: "known".into(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from_static(&[1])],
        ..Default::default()
    });
    request.metadata_mut().insert("x-user-id", user.parse().unwrap());
    let answer = GrpcInferenceServiceClient::new(pod.clone()).model_infer(request).await.unwrap();
    answer.into_inner().model_version
}

#[tokio::test]
async fn a_caller_is_answered_by_one_version_whichever_pod_and_protocol() {
    let [one, other] = pods();
    let mut seen = BTreeSet::new();
    for user in ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"] {
        let version = http(&one, &[("x-user-id", user)]).await;
        for pod in [&one, &other, &other] {
            assert_eq!(http(pod, &[("X-User-Id", user)]).await, version, "{user}");
            assert_eq!(grpc(pod, user).await, version, "{user}");
        }
        // The route of a mesh leaves it to the pod.
        let route = ("x-sconce-route", "default/known@41");
        assert_eq!(http(&other, &[("x-user-id", user), route]).await, version, "{user}");
        seen.insert(version);
    }
    assert_eq!(seen.len(), 2, "half of all callers each");
}

#[tokio::test]
async fn who_does_not_say_who_it_is_takes_part_in_the_split() {
    let [pod, _] = pods();
    let route = ("x-sconce-route", "default/known@41");
    for headers in [&[][..], &[("x-user-id", "")], &[route], &[("x-other", "alice")]] {
        let mut ones = 0;
        for _ in 0..20 {
            ones += usize::from(http(&pod, headers).await == "1");
        }
        assert!((8..=12).contains(&ones), "{headers:?}: {ones} of 20");
    }
}

#[tokio::test]
async fn a_pin_and_a_route_that_names_a_version_come_first() {
    let [pod, _] = pods();
    for user in ["alice", "bob", "carol", "dave"] {
        for version in ["1", "2"] {
            let pinned = [("x-user-id", user), ("x-sconce-pin", version)];
            assert_eq!(http(&pod, &pinned).await, version);
            let route = format!("default/known/{version}@41");
            assert_eq!(http(&pod, &[("x-user-id", user), ("x-sconce-route", &route)]).await, version);
        }
    }
}
