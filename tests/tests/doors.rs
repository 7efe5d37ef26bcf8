//! The ways into a sidecar without TLS, and the lanes: who is believed to be calling, and
//! which version answers.

use bytes::Bytes;
use http::Request;
use sconce_proto::{
    inference::{ServerLiveRequest, grpc_inference_service_client::GrpcInferenceServiceClient},
    v1::{SetSplitRequest, Share, Split, VersionState},
};
use sconce_telemetry::Metrics;
use sconce_tests::{Plane, Sidecar, digits, image, plaintext::From};
use tonic::Code;

const XFCC: &str = "x-forwarded-client-cert";
const APP: &str = "spiffe://sconce.local/ns/default/sa/app";

fn from(caller: &str) -> String {
    format!("By=spiffe://sconce.local/ns/default/sa/pod;Hash=0a;Subject=\"\";URI={caller}")
}

/// Status and error of a request for the server's metadata.
async fn metadata(by: From, caller: Option<&str>) -> (u16, String) {
    let mut request = Request::get("/v2");
    if let Some(caller) = caller {
        request = request.header(XFCC, caller);
    }
    let answer = by.exchange(request.body(Bytes::new()).expect("a request")).await;
    let json: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
    (answer.status().as_u16(), json["error"].as_str().unwrap_or_default().to_owned())
}

async fn live(by: From, caller: Option<&str>) -> Result<bool, Code> {
    let mut request = tonic::Request::new(ServerLiveRequest {});
    if let Some(caller) = caller {
        request.metadata_mut().insert(XFCC, caller.parse().expect("text"));
    }
    let answer = GrpcInferenceServiceClient::new(by.channel()).server_live(request).await;
    answer.map(|answer| answer.into_inner().live).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_names_the_caller_and_the_policy_judges_it_in_both_protocols() {
    let mut plane = Plane::start().await;
    let variables =
        [("SCONCE_PLAINTEXT_MESH", "true"), ("SCONCE_PLAINTEXT_LOOPBACK", "true"), ("SCONCE_CALLERS", APP)];
    let sidecar = plane.sidecar("meshed", &variables).await;
    let at = sidecar.addresses().live;
    let through = |caller: String| async move {
        let (status, error) = metadata(From::Envoy(at), Some(&caller)).await;
        (status, live(From::Envoy(at), Some(&caller)).await, error)
    };

    let (status, grpc, _) = through(from(APP)).await;
    assert_eq!((status, grpc), (200, Ok(true)));
    let stranger = "spiffe://sconce.local/ns/default/sa/stranger";
    for refused in [
        from(stranger),
        from("spiffe://elsewhere.local/ns/default/sa/app"),
        // What came before the mesh's own element is what the caller made up.
        format!("{},{}", from(APP), from(stranger)),
    ] {
        let (status, grpc, error) = through(refused).await;
        assert_eq!((status, grpc), (403, Err(Code::PermissionDenied)));
        assert!(error.contains("may not call"), "{error}");
    }
    for unusable in [from(""), from("https://app"), format!("{};URI={APP}", from(APP)), "junk".into()] {
        let (status, grpc, _) = through(unusable).await;
        assert_eq!((status, grpc), (401, Err(Code::Unauthenticated)));
    }
    assert_eq!(metadata(From::Envoy(at), None).await.0, 401);

    // The header is nothing where Envoy does not set it.
    let forged = from(stranger);
    assert_eq!(metadata(From::Pod(at), Some(&forged)).await.0, 200);
    let request = Request::get(format!("{}/v2", sidecar.address));
    let request = |caller: String| request.header(XFCC, caller).body(Bytes::new()).expect("a request");
    let answer = plane.caller("/ns/default/sa/app").raw(request(forged)).await.expect("let in");
    assert_eq!(answer.status(), 200);
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_reaches_its_sidecar_through_a_unix_socket() {
    let mut plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sconce.sock");
    let sidecar = plane.sidecar("local", &[("SCONCE_UNIX_SOCKET", &path.display().to_string())]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;

    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let request = Request::post("/v2/models/digits/infer").version(version);
        let request = request.body(image(1).to_string().into()).expect("a request");
        let answer = From::Socket(path.clone()).exchange(request).await;
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    assert_eq!(live(From::Socket(path.clone()), None).await, Ok(true));
    plane.stop().await;
    sidecar.stop().await;
    assert!(!path.exists(), "the file goes with the process");
}

/// Which version answers, asked `times` times by the pod itself with this route header.
async fn answers(at: std::net::SocketAddr, route: &str, times: usize) -> Vec<String> {
    let mut versions = Vec::new();
    for seed in 0..times {
        let request = Request::post("/v2/models/digits/infer").header("x-sconce-route", route);
        let request = request.body(image(seed).to_string().into()).expect("a request");
        let answer = From::Pod(at).exchange(request).await;
        let json: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        versions.push(json["model_version"].as_str().unwrap_or_default().to_owned());
    }
    versions
}

async fn two_versions(plane: &Plane, sidecar: &Sidecar) {
    for version in ["1", "2"] {
        plane.push(&digits(&format!("v{version}")), "digits", version, &[]).await.expect("pushed");
        plane.stands(sidecar, "digits", version, VersionState::Ready).await;
    }
    let share = |version: &str, share| Share { version: version.into(), share };
    let split = Split { shares: vec![share("1", 9_000), share("2", 1_000)] };
    let request = SetSplitRequest { model: "digits".into(), split: Some(split), sticky_header: None };
    plane.registry().set_split(request).await.expect("the split is set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lane_has_a_port_and_only_the_shadow_lane_ignores_the_route() {
    let metrics = Metrics::install().expect("the only one here that records");
    let mut plane = Plane::start().await;
    let variables = [
        ("SCONCE_PLAINTEXT_LOOPBACK", "true"),
        ("SCONCE_CANARY_LISTEN", "127.0.0.1:0"),
        ("SCONCE_SHADOW_LISTEN", "127.0.0.1:0"),
    ];
    let sidecar = plane.sidecar("lanes", &variables).await;
    two_versions(&plane, &sidecar).await;
    let at = sidecar.addresses();
    let (canary, shadow) = (at.canary.expect("listens"), at.shadow.expect("listens"));

    for lane in [at.live, canary] {
        assert_eq!(answers(lane, "digits/2@7", 3).await, ["2", "2", "2"]);
    }
    assert_eq!(answers(shadow, "digits/2@7", 3).await, ["1", "1", "1"]);

    let rendered = metrics.render();
    let counted = |lane: &str, version: &str| {
        let lane = format!("lane=\"{lane}\"");
        let version = format!("version=\"{version}\"");
        let lines = rendered.lines().filter(|line| line.starts_with("sconce_requests_total{"));
        let line = lines.into_iter().find(|line| line.contains(&lane) && line.contains(&version));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    for (lane, version) in [("live", "2"), ("canary", "2"), ("shadow", "1")] {
        assert_eq!(counted(lane, version).as_deref(), Some("3"), "{lane} in {rendered}");
    }
    plane.stop().await;
    sidecar.stop().await;
}
