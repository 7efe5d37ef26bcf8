//! Certificates from the control plane's own CA: who gets which, and for which names.

use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, SanType};
use sconce_proto::v1::{
    CreateJoinTokenRequest, IssueRequest, IssueResponse,
    certificate_authority_client::CertificateAuthorityClient,
};
use sconce_tests::{Plane, eventually};
use tonic::{Code, Status, transport::Channel};

fn csr(names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    let name = |name: &&str| SanType::DnsName((*name).try_into().expect("a name"));
    params.subject_alt_names = names.iter().map(name).collect();
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").pem().expect("its text")
}

async fn token(plane: &Plane, request: CreateJoinTokenRequest) -> Result<String, Status> {
    Ok(plane.registry().create_join_token(request).await?.into_inner().token)
}

fn wanted(path: &str) -> CreateJoinTokenRequest {
    CreateJoinTokenRequest {
        spiffe_path: path.into(),
        names: vec!["fraud.local".into()],
        ..Default::default()
    }
}

async fn issue(channel: Channel, names: &[&str], join_token: &str) -> Result<IssueResponse, Status> {
    let request = IssueRequest { csr_pem: csr(names), join_token: join_token.into() };
    Ok(CertificateAuthorityClient::new(channel).issue(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_good_for_what_it_says_and_no_more() {
    let mut plane = Plane::start().await;
    let nobody = || plane.channel(None);
    let fraud = wanted("/ns/default/sa/fraud");

    let once = token(&plane, fraud.clone()).await.expect("made");
    let own = issue(nobody(), &["fraud.local"], &once).await.expect("joined");
    assert_eq!(own.spiffe_id, "spiffe://sconce.local/ns/default/sa/fraud");
    let again = issue(nobody(), &["fraud.local"], &once).await.expect_err("it was for one use");
    assert_eq!(again.code(), Code::Unauthenticated);

    let twice = token(&plane, CreateJoinTokenRequest { uses: 2, ..fraud.clone() }).await.expect("made");
    let (a, b, c) = tokio::join!(
        issue(nobody(), &[], &twice),
        issue(nobody(), &[], &twice),
        issue(nobody(), &[], &twice)
    );
    assert_eq!([a, b, c].iter().filter(|issued| issued.is_ok()).count(), 2, "however they hurry");

    let other = token(&plane, fraud.clone()).await.expect("made");
    let refused = issue(nobody(), &["control-plane.local"], &other).await.expect_err("not its name");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("control-plane.local"), "{refused:?}");

    let brief = token(&plane, CreateJoinTokenRequest { ttl_seconds: 1, ..fraud }).await.expect("made");
    let made = Instant::now();
    eventually("a second has gone by", || async { made.elapsed() > Duration::from_millis(1_100) }).await;
    let late = issue(nobody(), &[], &brief).await.expect_err("expired");
    assert!(late.message().contains("expired"), "{late:?}");

    let reserved = token(&plane, wanted("/sconce/operator")).await.expect_err("not for joining");
    assert_eq!(reserved.code(), Code::PermissionDenied);
    let guessed = issue(nobody(), &[], "sjt_0").await.expect_err("a guess");
    assert_eq!(guessed.code(), Code::Unauthenticated);
    let bare = issue(nobody(), &[], "").await.expect_err("nothing shown");
    assert_eq!(bare.code(), Code::Unauthenticated);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_keeps_the_id_and_wins_no_names() {
    let mut plane = Plane::start().await;
    let join = token(&plane, wanted("/ns/default/sa/fraud")).await.expect("made");
    issue(plane.channel(None), &["fraud.local"], &join).await.expect("joined");

    let itself = || plane.channel(Some("/ns/default/sa/fraud"));
    let renewed = issue(itself(), &["fraud.local"], "").await.expect("renewed");
    assert_eq!(renewed.spiffe_id, "spiffe://sconce.local/ns/default/sa/fraud");
    let refused = issue(itself(), &["fraud.local", "bank.local"], "").await.expect_err("a name it never had");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("bank.local"), "{refused:?}");
    // Somebody else's names are not for whoever else has a certificate.
    let other = issue(plane.channel(Some("/ns/default/sa/other")), &["fraud.local"], "").await;
    assert_eq!(other.expect_err("not its name").code(), Code::PermissionDenied);
    let log = plane
        .registry()
        .list_audit(sconce_proto::v1::ListAuditRequest::default())
        .await
        .expect("the log")
        .into_inner();
    let denied: Vec<_> =
        log.entries.iter().filter(|entry| !entry.allowed).map(|entry| &*entry.principal).collect();
    let ids =
        ["/ns/default/sa/fraud", "/ns/default/sa/other"].map(|path| format!("spiffe://sconce.local{path}"));
    assert_eq!(denied, ids, "{log:?}");
    plane.stop().await;
}
