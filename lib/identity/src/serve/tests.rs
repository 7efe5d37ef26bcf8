//! The port over real sockets: who gets in by which door, and how it stops.

mod forwarded;
mod refusals;
mod rotation;
mod socket;
mod stopping;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use tokio::net::TcpSocket;

use super::*;
use crate::{
    ClientAuth, Connector, Identity, PeerPolicy,
    testing::{
        Log, Server, authority, certified, client_with, client_without, credentials, exchange, get, id,
        patiently,
    },
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One request over a new connection; the answer's text.
async fn ask(server: SocketAddr, connector: Connector) -> Result<String, Failure> {
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let answer = patiently(client.get(format!("https://{server}/").parse()?)).await?;
    Ok(String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?)
}

fn own(identity: &Identity) -> Arc<rustls::ClientConfig> {
    identity.client_config(PeerPolicy::own_trust_domain())
}

fn plaintext_too(identity: &Identity) -> Doors {
    let tls = identity.server_config(ClientAuth::Required, PeerPolicy::own_trust_domain());
    Doors { identity: Some(identity.clone()), plaintext_loopback: true, ..Doors::tls(tls) }
}

/// A connection that comes from where Envoy hands over what other pods sent.
async fn as_envoy(server: SocketAddr) -> TcpStream {
    let envoy = TcpSocket::new_v4().unwrap();
    envoy.bind("127.0.0.6:0".parse().unwrap()).unwrap();
    envoy.connect(server).await.unwrap()
}

#[tokio::test]
async fn every_http_is_answered_on_the_one_port_and_the_caller_is_known() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let (_keep, caller) = certified(&ca, "/caller");
    let server = Server::strict(&identity).await;
    let called = |version| format!("spiffe://test.local/caller by {version}");

    assert_eq!(ask(server.address, Connector::new(own(&caller))).await.unwrap(), called("HTTP/2.0"));
    assert_eq!(ask(server.address, Connector::http(own(&caller))).await.unwrap(), called("HTTP/2.0"));
    assert_eq!(ask(server.address, Connector::http1(own(&caller))).await.unwrap(), called("HTTP/1.1"));

    for (offered, chosen_works) in [
        (vec![], true),
        (vec!["istio-http/1.1", "istio", "http/1.1"], true),
        (vec!["istio-peer-exchange", "istio"], true),
        (vec!["istio-peer-exchange"], false),
    ] {
        let mut tls = client_with(&credentials(&ca, &id("/caller")), ca.roots_pem());
        tls.alpn_protocols = offered.iter().map(|name: &&str| name.as_bytes().to_vec()).collect();
        let (_, answer) = exchange(server.address, tls).await;
        assert_eq!(answer.is_ok_and(|it| it.ends_with(&called("HTTP/1.1"))), chosen_works, "{offered:?}");
    }
}

#[tokio::test]
async fn a_caller_without_certificate_is_anonymous_only_where_that_is_allowed() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let tls = identity.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain());
    let server = Server::start(Doors::tls(tls)).await;

    let (_, answer) = exchange(server.address, client_without(ca.roots_pem())).await;
    assert!(answer.unwrap().ends_with("anonymous by HTTP/1.1"));
    let known = client_with(&credentials(&ca, &id("/caller")), ca.roots_pem());
    let (_, answer) = exchange(server.address, known).await;
    assert!(answer.unwrap().ends_with("spiffe://test.local/caller by HTTP/1.1"));
    // A bad certificate is no way to become anonymous.
    let stranger = client_with(&credentials(&authority(), &id("/caller")), ca.roots_pem());
    assert!(exchange(server.address, stranger).await.1.is_err());
}

#[tokio::test]
async fn plaintext_is_for_the_pod_itself_and_only_if_enabled() {
    let (_keep, identity) = certified(&authority(), "/server");
    let server = Server::start(plaintext_too(&identity)).await;

    let answer = get(TcpStream::connect(server.address).await.unwrap()).await.unwrap();
    assert!(answer.ends_with("loopback by HTTP/1.1"), "{answer}");
    let tcp = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    let answer = h2.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), "loopback by HTTP/2.0");
    connection.abort();

    let log = Log::capture();
    let tcp = as_envoy(server.address).await;
    let from = tcp.local_addr().unwrap().to_string();
    let answer = get(tcp).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"), "{answer}");
    log.line(&["plaintext to the TLS port", &from]).await;
}

#[tokio::test]
async fn above_the_limit_connections_wait_for_a_place() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let (_keep, caller) = certified(&ca, "/caller");
    let server = Server::start(Doors { max_connections: 1, ..plaintext_too(&identity) }).await;

    let mut first = TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut first, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut first, &mut byte).await.unwrap();

    let mut second = tokio::spawn(ask(server.address, Connector::new(own(&caller))));
    // Time for the other to get in, if it could.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err());
    drop(first);
    assert!(patiently(second).await.unwrap().is_ok());
}
