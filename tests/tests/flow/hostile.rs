//! Requests that never end, or say that they will not: refused, while everybody else is served.

use std::time::Duration;

use sconce_proto::v1::VersionState;
use sconce_tests::{PATIENCE, Plane, Sidecar, digits, image};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LIMIT: usize = 1 << 20;
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
