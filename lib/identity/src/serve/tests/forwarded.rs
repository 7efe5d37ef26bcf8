//! Requests that a mesh's Envoy hands over: who is believed, and who is not.

use hyper::client::conn::http2::{self, SendRequest};

use super::*;
use crate::{IdPattern, testing::get_with};

const CLIENT: &str = "spiffe://test.local/ns/a/sa/client";

fn in_a_mesh(identity: &Identity, policy: PeerPolicy) -> Doors {
    Doors { plaintext_mesh: Some(policy), ..plaintext_too(identity) }
}

fn certificate_of(id: &str) -> String {
    format!("x-forwarded-client-cert: By=spiffe://test.local/us;Hash=0a;Subject=\"\";URI={id}\r\n")
}

async fn http2(tcp: TcpStream) -> SendRequest<Empty<Bytes>> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn envoy_names_the_caller_of_each_request() {
    let (_keep, identity) = certified(&authority(), "/server");
    let server = Server::start(in_a_mesh(&identity, PeerPolicy::own_trust_domain())).await;

    let answer = get_with(as_envoy(server.address).await, &certificate_of(CLIENT)).await.unwrap();
    assert!(answer.ends_with(&format!("{CLIENT} by HTTP/1.1")), "{answer}");

    // Callers share the connections of one Envoy.
    let mut envoy = http2(as_envoy(server.address).await).await;
    for caller in [CLIENT, "spiffe://test.local/ns/a/sa/other", CLIENT] {
        let request = Request::get("http://test/").header("x-forwarded-client-cert", format!("URI={caller}"));
        let answer = envoy.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, format!("{caller} by HTTP/2.0"));
    }
}

#[tokio::test]
async fn the_header_counts_only_where_envoy_sets_it() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let server = Server::start(in_a_mesh(&identity, PeerPolicy::own_trust_domain())).await;
    let forged = certificate_of("spiffe://test.local/ns/a/sa/king");

    let answer = get_with(TcpStream::connect(server.address).await.unwrap(), &forged).await.unwrap();
    assert!(answer.ends_with("loopback by HTTP/1.1"), "{answer}");

    let tls = client_with(&credentials(&ca, &id("/caller")), ca.roots_pem());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect("sconce.invalid".try_into().unwrap(), TcpStream::connect(server.address).await.unwrap())
        .await
        .unwrap();
    let answer = get_with(stream, &forged).await.unwrap();
    assert!(answer.ends_with("spiffe://test.local/caller by HTTP/1.1"), "{answer}");
}

#[tokio::test]
async fn each_request_without_an_acceptable_caller_is_refused_with_the_reason() {
    let (_keep, identity) = certified(&authority(), "/server");
    let only: IdPattern = "spiffe://test.local/ns/a/*".parse().unwrap();
    let server = Server::start(in_a_mesh(&identity, PeerPolicy::patterns(vec![only]))).await;
    let log = Log::capture();
    for (headers, reason, says) in [
        (String::new(), "no caller named by the mesh", "Envoy set no x-forwarded-client-cert"),
        (certificate_of(""), "unusable x-forwarded-client-cert", "names no URI"),
        (certificate_of("https://a"), "unusable x-forwarded-client-cert", "not a SPIFFE id"),
        (
            certificate_of("spiffe://test.local/ns/b/sa/client"),
            "wrong SPIFFE id",
            "id=\"spiffe://test.local/ns/b/sa/client\"",
        ),
        (
            certificate_of("spiffe://other.local/ns/a/sa/client"),
            "foreign trust domain",
            "id=\"spiffe://other.local/ns/a/sa/client\"",
        ),
    ] {
        let envoy = as_envoy(server.address).await;
        let from = format!("peer={}", envoy.local_addr().unwrap());
        let answer = get_with(envoy, &headers).await.unwrap();
        assert!(answer.contains(&format!("refused, {reason}")), "{answer}");
        let reason = format!("reason=\"{reason}\"");
        log.line(&["WARN", "refused a request", &reason, says, &from]).await;
    }
    let answer = get_with(as_envoy(server.address).await, &certificate_of(CLIENT)).await.unwrap();
    assert!(answer.ends_with(&format!("{CLIENT} by HTTP/1.1")), "{answer}");
}

#[tokio::test]
async fn before_the_first_certificate_and_after_the_last_no_door_answers() {
    let ca = authority();
    let (publisher, identity) = crate::identity();
    let server = Server::start(in_a_mesh(&identity, PeerPolicy::own_trust_domain())).await;
    let mut pod = http2(TcpStream::connect(server.address).await.unwrap()).await;
    let mut envoy = http2(as_envoy(server.address).await).await;
    let mut ask = async |forwarded: bool| {
        let caller = if forwarded { &mut envoy } else { &mut pod };
        let request = Request::get("http://test/").header("x-forwarded-client-cert", format!("URI={CLIENT}"));
        let answer = caller.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    for forwarded in [false, true] {
        assert!(ask(forwarded).await.starts_with("refused, no identity"));
    }
    publisher.publish(crate::testing::material(&ca, &id("/server")));
    assert_eq!(ask(false).await, "loopback by HTTP/2.0");
    assert_eq!(ask(true).await, format!("{CLIENT} by HTTP/2.0"));
    // A connection that got in by a certificate stays open, and is answered no more either.
    let tls = Arc::new(client_with(&credentials(&ca, &id("/caller")), ca.roots_pem()));
    let uri = format!("https://{}", server.address).parse().unwrap();
    let stream = Connector::new(tls).oneshot(uri).await.unwrap();
    let (mut known, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut ask_known = async || {
        let request = Request::get("https://test/").body(Empty::new()).unwrap();
        known.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(ask_known().await, "spiffe://test.local/caller by HTTP/2.0");

    publisher.withdraw("revoked by the test");
    for forwarded in [false, true] {
        assert!(ask(forwarded).await.starts_with("refused, no identity"));
    }
    assert!(ask_known().await.starts_with(b"refused, no identity"));
}
