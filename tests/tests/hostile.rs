//! Requests that are meant to hurt a running sidecar: each is refused in the protocol's form,
//! everybody else is served on, and memory stays where it was.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use sconce_proto::v1::VersionState;
use sconce_tests::{Client, PATIENCE, Plane, Sidecar, digits, image};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LIMIT: usize = 1 << 20;
/// What caches and allocators may keep, whatever was asked.
const SLACK: u64 = 24 << 20;

async fn sidecar(plane: &Plane) -> Sidecar {
    let limit = LIMIT.to_string();
    let variables = [("SCONCE_PLAINTEXT_LOOPBACK", "true"), ("SCONCE_MAX_BODY_BYTES", &limit)];
    let sidecar = plane.sidecar("target", &variables).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    sidecar
}

/// What the sidecar says to bytes from this machine, until it has nothing more to say.
async fn exchange(sidecar: &Sidecar, bytes: &[u8]) -> String {
    let address = sidecar.address.replace("https://localhost", "127.0.0.1");
    let mut tcp = TcpStream::connect(address).await.expect("a port");
    tcp.write_all(bytes).await.expect("sent");
    let mut reply = String::new();
    let read = tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut reply));
    let _ = read.await.expect("it does not wait for what never comes");
    reply
}

/// Resident bytes of this process, which the sidecar is a part of.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).expect("resident").parse().expect("a number");
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_says_it_is_huge_is_refused_before_it_comes() {
    let mut plane = Plane::start().await;
    let sidecar = sidecar(&plane).await;
    let head = "POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    for (request, status) in [
        (format!("{head}content-length: 10737418240\r\n\r\n{{"), "413"),
        (format!("{head}content-length: 99999999999999999999999\r\n\r\n{{"), "400"),
        (format!("{head}content-length: -1\r\n\r\n{{"), "400"),
        (format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400"),
        (format!("GET /v2 HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)), "431"),
    ] {
        let reply = exchange(&sidecar, request.as_bytes()).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {reply:.200}");
    }
    // One that does not say how long it is, is followed to the limit and no further.
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..LIMIT / 0x8000 + 2 {
        chunked.extend_from_slice(b"8000\r\n");
        chunked.extend_from_slice(&[b' '; 0x8000]);
        chunked.extend_from_slice(b"\r\n");
    }
    let reply = exchange(&sidecar, &chunked).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("1048576 bytes"), "{reply:.300}");
    plane.stop().await;
    sidecar.stop().await;
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
    for _ in 0..40 {
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
async fn callers_who_say_half_a_request_do_not_hold_up_others() {
    let mut plane = Plane::start().await;
    let sidecar = sidecar(&plane).await;
    let address = sidecar.address.replace("https://localhost", "127.0.0.1");
    let mut silent = Vec::new();
    for half in [
        "",
        "POST /v2/models/digits/infer HT",
        "POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
    ] {
        for _ in 0..50 {
            let mut tcp = TcpStream::connect(&address).await.expect("a port");
            tcp.write_all(half.as_bytes()).await.expect("sent");
            silent.push(tcp);
        }
    }
    let client = plane.caller("/ns/default/sa/app");
    for seed in 0..20 {
        let (path, image) = (sidecar.infer("digits"), image(seed));
        let asked = client.send("POST", &path, Some(&image));
        let reply =
            tokio::time::timeout(Duration::from_secs(20), asked).await.expect("nobody waits for them");
        assert_eq!(reply.expect("answered").status, 200);
    }
    drop(silent);
    plane.stop().await;
    sidecar.stop().await;
}
