//! Who is not let in, and what is not taken: refused, while everything else goes on.

use std::time::{Duration, SystemTime};

use sconce_identity::{
    PeerPolicy, SpiffeId,
    authority::{Authority, Validity},
    trust_only_client_config,
};
use sconce_proto::v1::VersionState;
use sconce_tests::{Client, Plane, digits, eventually, image};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn id(path: &str) -> SpiffeId {
    SpiffeId::new("sconce.local", path).expect("a valid id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_are_not_known_are_refused_and_others_are_served() {
    let mut plane = Plane::start().await;
    let callers = [("SCONCE_CALLERS", "spiffe://sconce.local/ns/default/sa/app")];
    let sidecar = plane.sidecar("guarded", &callers).await;
    let (authority, hour) = (plane.authority(), Duration::from_secs(3600));
    let (uri, app) = (format!("{}/v2", sidecar.address), id("/ns/default/sa/app"));
    let known = plane.caller("/ns/default/sa/app");
    assert_eq!(known.send("GET", &uri, None).await.expect("let in").status, 200);

    let foreign = Authority::new("sconce.local").expect("another CA");
    let foreign = foreign.issue_credentials(&app, &[], Validity::of(hour)).expect("a certificate");
    // It trusts our server, and our server does not trust it.
    let foreign = Client::new(&foreign, authority.roots_pem());
    foreign.send("GET", &uri, None).await.expect_err("a foreign CA is refused");

    let stranger = plane.caller("/ns/default/sa/stranger");
    stranger.send("GET", &uri, None).await.expect_err("another id is refused");

    let until = SystemTime::now() + Duration::from_secs(2);
    let brief = Validity { not_before: until - hour, not_after: until };
    let expired = authority.issue_credentials(&app, &[], brief).expect("a certificate");
    let expired = Client::new(&expired, authority.roots_pem());
    eventually("the certificate has expired", || async {
        SystemTime::now() > until + Duration::from_secs(1)
    })
    .await;
    expired.send("GET", &uri, None).await.expect_err("an expired certificate is refused");

    let nobody = trust_only_client_config(authority.roots_pem().as_bytes(), PeerPolicy::own_trust_domain());
    let nobody = Client::with_tls(nobody.expect("valid roots"));
    nobody.send("GET", &uri, None).await.expect_err("no certificate is refused");

    let mut plain =
        tokio::net::TcpStream::connect(sidecar.address.trim_start_matches("https://")).await.expect("a port");
    plain.write_all(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut reply = String::new();
    plain.read_to_string(&mut reply).await.expect("answered");
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("TLS"), "{reply}");

    assert_eq!(known.send("GET", &uri, None).await.expect("still let in").status, 200);
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_no_good_is_refused_alone() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("steady", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let client = plane.caller("/ns/default/sa/app");

    let whole = std::fs::read(digits("v2")).expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("digits.pt");
    for (what, bytes) in [("cut short", whole[..whole.len() / 2].to_vec()), ("flipped", flipped(&whole))] {
        std::fs::write(&bad, bytes).expect("it writes");
        let refused = plane.push(&bad, "digits", "2", &[]).await.expect_err(what);
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{what}: {refused:?}");
        let reply = client.send("POST", &sidecar.infer("digits"), Some(&image(3))).await.expect("answered");
        assert_eq!((reply.status, &reply.json["model_version"]), (200, &"1".into()), "{what}");
    }
    let mut unfit = image(3);
    unfit["inputs"][0]["shape"] = serde_json::json!([1, 32]);
    unfit["inputs"][0]["data"] = serde_json::json!(vec![0.5; 32]);
    let reply = client.send("POST", &sidecar.infer("digits"), Some(&unfit)).await.expect("answered");
    let why = reply.json["error"].as_str().unwrap_or_default().to_owned();
    assert!(reply.status == 400 && why.contains("[-1, 64]"), "{} {why}", reply.status);
    plane.stop().await;
    sidecar.stop().await;
}

/// One bit in the middle, which is in a tensor.
fn flipped(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}
