//! Everybody who must stay outside, and the log line that says why.

use std::io;

use super::*;
use crate::{
    IdPattern, Reason, SpiffeId,
    authority::{Authority, Credentials},
    identity,
    testing::{TRUST_DOMAIN, expired, hour, material_trusting},
};

/// Calls with this certificate and expects to be refused for this reason.
async fn refused(server: &Server, caller: &Credentials, roots: &str, expected: &[&str], alert: &str) {
    let log = Log::capture();
    let (from, answer) = exchange(server.address, client_with(caller, roots)).await;
    let error = answer.expect_err("no answer").to_string();
    assert!(error.contains(alert), "the caller is told: {error}");
    let from = format!("peer={from}");
    log.line(&[&["WARN", "refused a connection", &from], expected].concat()).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_refused() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let server = Server::strict(&identity).await;
    let expected = ["reason=\"wrong CA\"", "id=\"spiffe://test.local/imposter\""];
    // One that calls itself the same as ours, and one that does not.
    let same_name = credentials(&authority(), &id("/imposter"));
    refused(&server, &same_name, ca.roots_pem(), &expected, "DecryptError").await;
    let elsewhere = Authority::new("other.local").unwrap();
    let other =
        elsewhere.issue_credentials(&SpiffeId::new("other.local", "/x").unwrap(), &[], hour()).unwrap();
    refused(&server, &other, ca.roots_pem(), &["reason=\"wrong CA\"", "spiffe://other.local/x"], "UnknownCA")
        .await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let server = Server::strict(&identity).await;
    let old = ca.issue_credentials(&id("/old"), &[], expired()).unwrap();
    let expected = ["reason=\"expired certificate\"", "id=\"spiffe://test.local/old\""];
    refused(&server, &old, ca.roots_pem(), &expected, "CertificateExpired").await;
}

#[tokio::test]
async fn a_wrong_spiffe_id_is_refused() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let only: IdPattern = "spiffe://test.local/ns/default/*".parse().unwrap();
    let tls = identity.server_config(ClientAuth::Required, PeerPolicy::patterns(vec![only]));
    let server = Server::start(Doors::tls(tls)).await;
    let stranger = credentials(&ca, &id("/ns/other/sa/x"));
    let expected = [
        "reason=\"wrong SPIFFE id\"",
        "spiffe://test.local/ns/other/sa/x",
        "accepted: spiffe://test.local/ns/default/*",
    ];
    refused(&server, &stranger, ca.roots_pem(), &expected, "AccessDenied").await;
}

#[tokio::test]
async fn a_foreign_trust_domain_is_refused_even_if_its_ca_is_trusted() {
    let (ca, foreign) = (authority(), Authority::new("other.local").unwrap());
    let (publisher, identity) = identity();
    let both = format!("{}{}", ca.roots_pem(), foreign.roots_pem());
    publisher.publish(material_trusting(&ca, &id("/server"), &both));
    let server = Server::strict(&identity).await;
    let stranger = SpiffeId::new("other.local", "/ns/default/sa/x").unwrap();
    let expected = ["reason=\"foreign trust domain\"", "spiffe://other.local/ns/default/sa/x"];
    refused(&server, &credentials(&foreign, &stranger), ca.roots_pem(), &expected, "AccessDenied").await;
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let (server, log) = (Server::strict(&identity).await, Log::capture());
    let (from, answer) = exchange(server.address, client_without(ca.roots_pem())).await;
    assert!(answer.expect_err("no answer").to_string().contains("CertificateRequired"));
    log.line(&["WARN", "reason=\"no certificate\"", &format!("peer={from}")]).await;
}

#[tokio::test]
async fn plaintext_to_the_tls_port_is_refused_with_advice() {
    let (_keep, identity) = certified(&authority(), "/server");
    let (server, log) = (Server::strict(&identity).await, Log::capture());
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let from = tcp.local_addr().unwrap();
    let answer = get(tcp).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"), "{answer}");
    log.line(&["WARN", "reason=\"plaintext to the TLS port\"", &format!("peer={from}")]).await;
}

#[tokio::test]
async fn one_who_never_says_anything_is_sent_away() {
    let (_keep, identity) = certified(&authority(), "/server");
    let doors = Doors { handshake_timeout: Duration::from_millis(50), ..plaintext_too(&identity) };
    let (server, log) = (Server::start(doors).await, Log::capture());
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let from = tcp.local_addr().unwrap();
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut tcp, &mut byte);
    assert_eq!(patiently(read).await.unwrap(), 0, "closed");
    log.line(&["WARN", "reason=\"handshake too slow\"", &format!("peer={from}")]).await;
}

#[tokio::test]
async fn before_the_first_certificate_every_handshake_fails() {
    let ca = authority();
    let (publisher, nobody) = identity();
    let (server, log) = (Server::strict(&nobody).await, Log::capture());
    let caller = credentials(&ca, &id("/caller"));
    let (from, answer) = exchange(server.address, client_with(&caller, ca.roots_pem())).await;
    assert!(answer.is_err());
    log.line(&["WARN", "reason=\"no identity\"", &format!("peer={from}")]).await;

    publisher.publish(crate::testing::material(&ca, &id("/server")));
    let (_, answer) = exchange(server.address, client_with(&caller, ca.roots_pem())).await;
    assert!(answer.is_ok(), "the same configuration serves once there is one");

    let (_publisher, nobody) = identity();
    assert_eq!(reason(server.address, own(&nobody)).await, Reason::NoIdentity);
}

/// Why this client does not get a connection.
async fn reason(server: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Reason {
    failure(server, tls).await.reason().expect("a refusal")
}

async fn failure(server: SocketAddr, tls: Arc<rustls::ClientConfig>) -> crate::ConnectError {
    let connecting = Connector::new(tls).oneshot(format!("https://{server}").parse().unwrap());
    patiently(connecting).await.map(drop).expect_err("no connection")
}

#[tokio::test]
async fn a_server_that_is_not_the_right_one_is_refused_by_its_caller() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let (_keep, caller) = certified(&ca, "/caller");
    let server = Server::strict(&identity).await;

    let wanted = caller.client_config(PeerPolicy::exactly(id("/sconce/control-plane")));
    let error = failure(server.address, wanted).await;
    assert_eq!(error.reason(), Some(Reason::WrongId));
    let (text, address) = (error.to_string(), server.address.to_string());
    assert!(text.contains(&address) && text.contains("spiffe://test.local/server is not accepted"), "{text}");

    let foreign = caller.client_config(PeerPolicy::exactly(SpiffeId::new("other.local", "/server").unwrap()));
    assert_eq!(reason(server.address, foreign).await, Reason::ForeignTrustDomain);
    let (_keep, stranger) = certified(&Authority::new(TRUST_DOMAIN).unwrap(), "/caller");
    assert_eq!(reason(server.address, own(&stranger)).await, Reason::WrongCa);
    let joining = crate::trust_only_client_config(
        ca.roots_pem().as_bytes(),
        PeerPolicy::path_in_own_trust_domain("/sconce/control-plane"),
    );
    assert_eq!(reason(server.address, joining.unwrap()).await, Reason::WrongId);
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_or_is_closed_is_named() {
    let (_keep, caller) = certified(&authority(), "/caller");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut Vec::new()).await?;
        io::Result::Ok(())
    });
    let text = failure(address, own(&caller)).await.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("does not speak TLS"), "{text}");
    let _ = plain.await.unwrap();

    let text = failure(address, own(&caller)).await.to_string();
    assert!(text.contains(&format!("{address} cannot be reached")), "{text}");
}
