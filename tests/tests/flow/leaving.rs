//! A sidecar that is stopped while callers of every kind keep it busy.

use std::time::Duration;

use http::Request;
use sconce_proto::{
    inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::VersionState,
};
use sconce_tests::{Client, Plane, Sidecar, digits, image};
use tonic::{Code, transport::Channel};

const CALLER: &str = "/ns/default/sa/app";

/// Asks until it is told to go elsewhere; how often it was answered.
async fn by_http1(client: Client, uri: String) -> usize {
    for answered in 1.. {
        let request = Request::post(&uri).body(image(answered).to_string().into()).expect("a request");
        let reply = client.raw(request).await.expect("no request fails");
        assert_eq!(reply.status(), 200, "{:?}", reply.body());
        if reply.headers().get("connection").is_some_and(|value| value == "close") {
            return answered;
        }
    }
    unreachable!("it is told before numbers run out")
}

/// Whether the connection was told to go away while the request was being handed to it. A server has not
/// seen what comes after the last stream of its GOAWAY, so it is asked again, on another connection (RFC
/// 9113, section 6.8). Most clients do that by themselves; the libraries used here leave it to us.
fn never_sent(error: &str) -> bool {
    [
        "GoAway(b\"\", NO_ERROR, Remote)",
        "not a result of an error",
        "hyper::Error(Canceled, \"connection closed\")",
    ]
    .iter()
    .any(|known| error.contains(known))
}

/// Asks until nobody takes a new connection any more.
async fn by_http2(client: Client, uri: String) -> usize {
    for answered in 0.. {
        let request = Request::post(&uri).body(image(answered).to_string().into()).expect("a request");
        match client.raw(request).await {
            Ok(reply) => assert_eq!(reply.status(), 200, "{:?}", reply.body()),
            Err(error) if error.contains("(Connect)") => return answered,
            Err(error) if never_sent(&error) => {}
            Err(error) => panic!("a request failed: {error}"),
        }
    }
    unreachable!("it stops before numbers run out")
}

async fn by_grpc(mut client: GrpcInferenceServiceClient<Channel>) -> usize {
    for answered in 0.. {
        let input = InferInputTensor {
            name: "image".into(),
            datatype: "FP32".into(),
            shape: vec![1, 64],
            ..Default::default()
        };
        let request = ModelInferRequest {
            model_name: "digits".into(),
            inputs: vec![input],
            raw_input_contents: vec![vec![0; 256].into()],
            ..Default::default()
        };
        match client.model_infer(request).await {
            Ok(_) => {}
            Err(status)
                if status.code() == Code::Unavailable && format!("{status:?}").contains("refused") =>
            {
                return answered;
            }
            Err(status) if never_sent(&format!("{status:?}")) => {}
            Err(status) => panic!("a request failed: {status:?}"),
        }
    }
    unreachable!("it stops before numbers run out")
}

async fn sidecar(plane: &Plane) -> Sidecar {
    let sidecar = plane.sidecar("leaving", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    sidecar
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_a_busy_sidecar_stops() {
    let mut plane = Plane::start().await;
    let sidecar = sidecar(&plane).await;
    let uri = sidecar.infer("digits");
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        callers.spawn(by_http1(plane.caller(CALLER), uri.clone()));
    }
    for _ in 0..2 {
        callers.spawn(by_http2(Client::http2(plane.tls(Some(CALLER))), uri.clone()));
        let channel = plane.channel_to(&sidecar.address, Some(CALLER));
        callers.spawn(by_grpc(GrpcInferenceServiceClient::new(channel)));
    }
    // Some time under way, and some more while it says that it leaves.
    let probe = plane.caller(CALLER);
    let ready = format!("{}/v2/health/ready", sidecar.address);
    for _ in 0..40 {
        assert_eq!(probe.send("GET", &ready, None).await.expect("answered").status, 200);
    }
    let linger = async {
        sidecar.leave(Duration::from_millis(500)).await;
    };
    let look = async {
        tokio::task::yield_now().await;
        assert_eq!(probe.send("GET", &ready, None).await.expect("answered").status, 503);
    };
    tokio::join!(linger, look);
    sidecar.stop().await;
    while let Some(caller) = callers.join_next().await {
        assert!(caller.expect("no caller saw a failure") > 0);
    }
    plane.stop().await;
}
