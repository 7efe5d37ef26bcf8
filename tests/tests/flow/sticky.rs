//! A sticky model on real sidecars: the same caller, the same version, wherever it asks.

#[expect(unreachable_pub, reason = "it is public where it is borrowed from")]
#[path = "../../cluster/src/binomial.rs"]
mod binomial;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Request;
use sconce_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{GetModelRequest, ListSidecarsRequest, SetSplitRequest, Share, Split, VersionState},
};
use sconce_tests::{Client, Plane, Sidecar, digits, eventually, image, plaintext::From};
use serde_json::json;
use tonic::transport::Channel;

const HEADER: &str = "x-user-id";
const CALLERS: usize = 2_500;

fn user(n: usize) -> String {
    format!("user-{n}")
}

/// Moves a part of the callers to version 2; gives back which split that is.
async fn split(plane: &Plane, two: u32, sticky: Option<&str>) -> u64 {
    let share = |version: &str, share| Share { version: version.into(), share };
    let split = Some(Split { shares: vec![share("1", 10_000 - two), share("2", two)] });
    let sticky_header = sticky.map(str::to_owned);
    let request = SetSplitRequest { model: "digits".into(), split, sticky_header };
    let answer = plane.registry().set_split(request).await.expect("the split is set").into_inner();
    assert_eq!(answer.sticky_header, HEADER, "it stays until somebody says otherwise");
    answer.serial
}

/// Waits until every sidecar serves it.
async fn served(plane: &Plane, generation: u64) {
    eventually("every sidecar serves the split", || async {
        let sidecars = plane.registry().list_sidecars(ListSidecarsRequest::default()).await.expect("a list");
        let sidecars = sidecars.into_inner().sidecars;
        sidecars.len() == 2
            && sidecars.iter().all(|sidecar| sidecar.generations.get("digits") == Some(&generation))
    })
    .await;
}

/// Who answers, over HTTP.
async fn http(client: &Client, sidecar: &Sidecar, user: Option<&str>) -> String {
    let mut request = Request::post(format!("{}/v2/models/digits/infer", sidecar.address));
    if let Some(user) = user {
        request = request.header(HEADER, user);
    }
    let request = request.body(Bytes::from(image(1).to_string())).expect("a request");
    let reply = client.exchange(request).await.expect("an answer");
    reply.json["model_version"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

/// Who answers the first `count` callers, over HTTP.
async fn all(client: &Client, sidecar: &Sidecar, count: usize) -> Vec<String> {
    stream::iter(0..count)
        .map(|n| async move { http(client, sidecar, Some(&user(n))).await })
        .buffered(16)
        .collect()
        .await
}

/// Who answers, over gRPC.
async fn grpc(channel: &Channel, user: &str) -> String {
    let pixels = [0.5_f32; 64];
    let mut request = tonic::Request::new(ModelInferRequest {
        model_name: "digits".into(),
        inputs: vec![InferInputTensor {
            name: "image".into(),
            datatype: "FP32".into(),
            shape: vec![1, 64],
            ..Default::default()
        }],
        raw_input_contents: vec![pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect()],
        ..Default::default()
    });
    request.metadata_mut().insert(HEADER, user.parse().expect("text"));
    let answer = GrpcInferenceServiceClient::new(channel.clone()).model_infer(request).await;
    answer.expect("an answer").into_inner().model_version
}

fn is_two(version: &String) -> bool {
    version == "2"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_stays_with_its_version_on_every_sidecar_and_moves_only_with_the_share() {
    let mut plane = Plane::start().await;
    let variables = [("SCONCE_PLAINTEXT_LOOPBACK", "true"), ("SCONCE_PLAINTEXT_MESH", "true")];
    let one = plane.sidecar("one", &variables).await;
    let other = plane.sidecar("other", &variables).await;
    for version in ["1", "2"] {
        plane.push(&digits(&format!("v{version}")), "digits", version, &[]).await.expect("pushed");
        for sidecar in [&one, &other] {
            plane.stands(sidecar, "digits", version, VersionState::Ready).await;
        }
    }
    let generation = split(&plane, 1_000, Some("X-User-ID")).await;
    served(&plane, generation).await;
    let client = plane.caller("/ns/default/sa/app");

    let before = all(&client, &one, CALLERS).await;
    let canaries = before.iter().filter(|version| is_two(version)).count() as u64;
    let allowed = binomial::interval(CALLERS as u64, 0.1, 1e-6);
    assert!(
        allowed.contains(&canaries),
        "{canaries} of {CALLERS} callers are canaries, expected {allowed:?}"
    );

    // Another sidecar, gRPC, and the application beside it decide alike.
    let channel = plane.channel_to(&other.address, Some("/ns/default/sa/app"));
    assert_eq!(all(&client, &other, 500).await, before[..500]);
    let at = other.addresses().live;
    for (n, version) in before.iter().enumerate().take(60) {
        assert_eq!(grpc(&channel, &user(n)).await, *version, "gRPC, caller {n}");
        let request = Request::post("/v2/models/digits/infer").header(HEADER, user(n));
        let request = request.body(image(1).to_string().into()).expect("a request");
        let answer = From::Pod(at).exchange(request).await;
        assert_eq!(answer.headers()["x-sconce-version"], version.as_str(), "localhost, caller {n}");
    }
    // Who says nothing takes part in the split: a tenth of any hundred, within a few.
    let mut anonymous = 0;
    for _ in 0..100 {
        anonymous += usize::from(http(&client, &one, None).await == "2");
    }
    assert!((7..=13).contains(&anonymous), "{anonymous} of 100");

    // A larger share only takes callers from version 1; nobody says the header again.
    let generation = split(&plane, 3_000, None).await;
    served(&plane, generation).await;
    let after = all(&client, &one, 1_000).await;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let moved: Vec<(&String, &String)> = moved.collect();
    assert!(moved.iter().all(|(before, after)| !is_two(before) && is_two(after)), "{moved:?}");
    let allowed = binomial::interval(1_000, 0.3, 1e-6);
    let canaries = after.iter().filter(|version| is_two(version)).count() as u64;
    assert!(allowed.contains(&canaries), "{canaries} of 1000, expected {allowed:?}");

    proven(&plane, &one, generation, &after).await;
    over_rest(&plane).await;
    plane.stop().await;
    one.stop().await;
    other.stop().await;
}

/// A mesh's route names no version, and is the proof of its generation all the same.
async fn proven(plane: &Plane, sidecar: &Sidecar, generation: u64, expected: &[String]) {
    let at = sidecar.addresses().live;
    for (n, version) in expected.iter().enumerate().take(20) {
        let request = Request::post("/v2/models/digits/infer")
            .header(HEADER, user(n))
            .header("x-sconce-route", format!("default/digits@{generation}"))
            .header("x-forwarded-client-cert", "URI=spiffe://sconce.local/ns/default/sa/app");
        let request = request.body(image(1).to_string().into()).expect("a request");
        let answer = From::Envoy(at).exchange(request).await;
        assert_eq!(answer.headers()["x-sconce-version"], version.as_str(), "caller {n}");
    }
    eventually("the route's generation is reported", || async {
        let request = GetModelRequest { model: "digits".into() };
        let model = plane.registry().get_model(request).await.expect("the model").into_inner();
        let mut routes = model.sidecars.iter().flat_map(|sidecar| &sidecar.routes);
        routes.any(|route| route.generation == generation && route.caller.ends_with("/sa/app"))
    })
    .await;
}

/// The same in JSON.
async fn over_rest(plane: &Plane) {
    let (operator, shares) = (plane.caller("/sconce/operator"), json!({ "1": 70, "2": 30 }));
    let model = format!("{}/api/v1/models/default/digits", plane.address());
    for (query, status, sticky) in [
        ("", 200, json!(HEADER)),
        ("?sticky=host", 400, json!(HEADER)),
        ("?sticky=X-Tenant", 200, json!("x-tenant")),
        ("?sticky=", 200, json!(null)),
    ] {
        let set =
            operator.send("PUT", &format!("{model}/split{query}"), Some(&shares)).await.expect("answered");
        assert_eq!(set.status, status, "{query}: {set:?}");
        let told = operator.send("GET", &model, None).await.expect("answered");
        assert_eq!(told.json["sticky"], sticky, "{query}: {told:?}");
    }
}
