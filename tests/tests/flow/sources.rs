//! Sources of certificates, each with a real sidecar or the library's own parts behind it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use sconce_control_plane::{app as control_plane, config::Config as ControlConfig};
use sconce_identity::{
    Identity, SpiffeId,
    authority::{Authority, Credentials, Validity},
    files, identity,
    issued::Issuer as _,
    istiod::{Istiod as Address, IstiodIssuer},
    source::Source,
};
use sconce_lifecycle::Tasks;
use sconce_proto::v1::VersionState;
use sconce_tests::{
    Client, PATIENCE, Plane, Sidecar, digits, eventually, image, istiod::Istiod, plaintext::From,
    workload_api::WorkloadApi,
};

const POD: &str = "spiffe://sconce.local/ns/default/sa/pod";

fn id(text: &str) -> SpiffeId {
    text.parse().expect("a valid id")
}

fn certificate(ca: &Authority, of: &str) -> Credentials {
    ca.issue_credentials(&id(of), &[], Validity::of(Duration::from_secs(3600))).expect("a certificate")
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

async fn becomes(identity: &Identity, wanted: &str) {
    let is_it = || async { identity.current().is_some_and(|own| own.id().as_str() == wanted) };
    eventually(&format!("it is {wanted}"), is_it).await;
}

/// A sidecar that a Workload API certifies, with a model.
async fn certified_by(api: &WorkloadApi, plane: &Plane, socket: &str) -> Sidecar {
    let ca = plane.authority();
    api.give(POD, &certificate(&ca, POD), ca.roots_pem());
    let endpoint = format!("unix://{socket}");
    let variables = [("SPIFFE_ENDPOINT_SOCKET", endpoint.as_str()), ("SCONCE_PLAINTEXT_LOOPBACK", "true")];
    let sidecar = plane.sidecar("certified", &variables).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    sidecar
}

/// Predicts over one connection that stays open and over a new one each time, until `done`.
async fn load(plane: &Plane, sidecar: &Sidecar, done: impl Future<Output = ()>) -> (usize, Vec<String>) {
    let (kept, uri) = (plane.caller("/ns/default/sa/app"), sidecar.infer("digits"));
    let (mut answered, mut failed) = (0, Vec::new());
    let asking = async {
        loop {
            for client in [&kept, &plane.caller("/ns/default/sa/app")] {
                match client.send("POST", &uri, Some(&image(answered))).await {
                    Ok(reply) if reply.status == 200 => answered += 1,
                    other => failed.push(format!("{other:?}")),
                }
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = done => {}
    }
    (answered, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_a_workload_api_rotate_under_load_without_a_failed_request() {
    let mut plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let api = WorkloadApi::start(&socket);
    let sidecar = certified_by(&api, &plane, &socket.display().to_string()).await;
    let (ca, next) = (plane.authority(), Authority::new("sconce.local").expect("the CA to come"));
    let both = format!("{}{}", ca.roots_pem(), next.roots_pem());

    let rotations = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for number in 0..100 {
            tick.tick().await;
            // In between the roots overlap, as while a CA is replaced.
            let roots = if number % 3 == 0 { both.as_str() } else { ca.roots_pem() };
            api.give(POD, &certificate(&ca, POD), roots);
        }
    };
    let (answered, failed) = load(&plane, &sidecar, rotations).await;
    assert!(failed.is_empty() && answered > 100, "{answered} answered, failed: {failed:?}");

    // Every root of the bundle counts.
    api.give(POD, &certificate(&ca, POD), &both);
    let by_next = certificate(&next, "spiffe://sconce.local/ns/default/sa/early");
    eventually("a certificate of the next CA is accepted", || async {
        Client::new(&by_next, &both).send("GET", &format!("{}/v2", sidecar.address), None).await.is_ok()
    })
    .await;
    plane.stop().await;
    sidecar.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workload_api_revokes_is_answered_for_no_more() {
    let mut plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let api = WorkloadApi::start(&socket);
    let sidecar = certified_by(&api, &plane, &socket.display().to_string()).await;
    let (ca, at) = (plane.authority(), sidecar.addresses());
    let (kept, uri) = (plane.caller("/ns/default/sa/app"), format!("{}/v2", sidecar.address));
    let status = async |by: From, path: &str| {
        by.exchange(Request::get(path).body(Bytes::new()).expect("a request")).await.status().as_u16()
    };
    let known = || async { kept.send("GET", &uri, None).await.map(|reply| reply.status) };
    assert_eq!((known().await, status(From::Pod(at.live), "/v2").await), (Ok(200), 200));

    for revoke in [WorkloadApi::deny, WorkloadApi::give_nothing] {
        revoke(&api);
        eventually("it is not ready", || async { status(From::Pod(at.admin), "/readyz").await == 503 }).await;
        // The open connection lives, and new ones do not come about.
        assert_eq!((known().await, status(From::Pod(at.live), "/v2").await), (Ok(503), 503));
        let new = plane.caller("/ns/default/sa/app").send("GET", &uri, None).await;
        new.expect_err("there is nothing to prove itself with");

        api.give(POD, &certificate(&ca, POD), ca.roots_pem());
        eventually("it is ready again", || async { status(From::Pod(at.admin), "/readyz").await == 200 })
            .await;
        assert_eq!((known().await, status(From::Pod(at.live), "/v2").await), (Ok(200), 200));
    }

    // An agent that is only away revokes nothing.
    api.stop().await;
    let new = plane.caller("/ns/default/sa/app").send("GET", &uri, None).await;
    assert_eq!((known().await, new.expect("let in").status), (Ok(200), 200));
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_api_that_comes_late_or_again_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let ca = Authority::new("sconce.local").expect("a CA");
    let (publisher, identity) = identity();
    let endpoint = format!("unix://{}", socket.display()).parse().expect("an endpoint");
    let watching = tokio::spawn(Source::WorkloadApi(endpoint).watch(folder.path(), publisher));
    for name in ["one", "two"] {
        let api = WorkloadApi::start(&socket);
        let wanted = format!("spiffe://sconce.local/ns/default/sa/{name}");
        api.give(&wanted, &certificate(&ca, &wanted), ca.roots_pem());
        becomes(&identity, &wanted).await;
        api.stop().await;
        fs::remove_file(&socket).expect("its file");
    }
    watching.abort();
}

/// Files as a pod of the mesh has them, and where istiod is.
struct Mounts {
    folder: tempfile::TempDir,
    address: String,
}

impl Mounts {
    fn new(istiod: &str, token: &str, roots_pem: &str) -> Self {
        let mounts = Self { folder: tempfile::tempdir().expect("a folder"), address: istiod.to_owned() };
        fs::write(mounts.token(), format!("{token}\n")).expect("it writes");
        fs::write(mounts.roots(), roots_pem).expect("it writes");
        mounts
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("istio-token")
    }

    fn roots(&self) -> PathBuf {
        self.folder.path().join("root-cert.pem")
    }

    fn address(&self) -> Address {
        Address {
            address: self.address.parse().expect("an address"),
            token: self.token(),
            roots: self.roots(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istiod_certifies_a_sidecar_that_shows_its_service_accounts_token() {
    let mut plane = Plane::start().await;
    let istiod = Istiod::start(plane.authority(), "localhost", id(POD), "a-token").await;
    let mounts = Mounts::new(&istiod.address, "a-token", plane.authority().roots_pem());
    let (token, roots) = (mounts.token().display().to_string(), mounts.roots().display().to_string());
    // Chosen because the token is there, before the join token that the harness gives too.
    let variables = [
        ("SCONCE_ISTIOD", istiod.address.as_str()),
        ("SCONCE_ISTIOD_TOKEN", &token),
        ("SCONCE_ISTIOD_ROOT", &roots),
    ];
    let sidecar = plane.sidecar("pod", &variables).await;
    assert_eq!(*istiod.issued.borrow(), 1);
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let app = plane.caller("/ns/default/sa/app");
    let reply = app.send("POST", &sidecar.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!(reply.status, 200);
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istiod_is_asked_anew_with_the_token_of_the_day_when_its_roots_change() {
    let ca = Authority::new("sconce.local").expect("a CA");
    let (old_roots, coming) = (ca.roots_pem().to_owned(), Authority::new("sconce.local").expect("another"));
    let mut istiod = Istiod::start(ca, "localhost", id(POD), "first").await;
    let mounts = Mounts::new(&istiod.address, "first", &old_roots);
    let (publisher, own) = identity();
    let watching = tokio::spawn(Source::Istiod(mounts.address()).watch(mounts.folder.path(), publisher));
    becomes(&own, POD).await;

    istiod.token.send_replace("second".into());
    fs::write(mounts.token(), "second").expect("it writes");
    fs::write(mounts.roots(), format!("{old_roots}{}", coming.roots_pem())).expect("it writes");
    patiently(istiod.issued.wait_for(|issued| *issued == 2)).await.expect("it was asked");
    // Those of the file, and the one that it sent.
    let trusts = || async { format!("{:?}", own.current()).contains("3 roots") };
    eventually("all roots are trusted", trusts).await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istiod_is_believed_only_with_its_name_and_its_roots() {
    let ca = || Authority::new("sconce.local").expect("a CA");
    let csr = || {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("its text")
    };
    let (right, wrong) = (ca(), ca());
    let roots = right.roots_pem().to_owned();
    let istiod = Istiod::start(right, "localhost", id(POD), "a-token").await;
    let misnamed = ca();
    let other_roots = misnamed.roots_pem().to_owned();
    let elsewhere = Istiod::start(misnamed, "istiod.elsewhere.svc", id(POD), "a-token").await;

    for (mounts, why) in [
        (Mounts::new(&istiod.address, "a-token", wrong.roots_pem()), "invalid peer certificate"),
        (Mounts::new(&elsewhere.address, "a-token", &other_roots), "not valid for name"),
        (Mounts::new(&istiod.address, "stolen", &roots), "authentication failure"),
        (Mounts::new(&istiod.address, "a-token", "junk"), "SCONCE_ISTIOD_ROOT"),
    ] {
        let refused = IstiodIssuer::new(mounts.address()).issue(csr()).await.expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let missing = Mounts::new(&istiod.address, "a-token", &roots);
    fs::remove_file(missing.token()).expect("it was there");
    let refused = IstiodIssuer::new(missing.address()).issue(csr()).await.expect_err("no token").to_string();
    assert!(refused.contains("SCONCE_ISTIOD_TOKEN") && refused.contains("istio-token"), "{refused}");
    let right = Mounts::new(&istiod.address, "a-token", &roots);
    IstiodIssuer::new(right.address()).issue(csr()).await.expect("issued");
    assert_eq!(*istiod.issued.borrow(), 1, "nobody else got one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_something_else_certifies_issues_nothing() {
    let ca = Authority::new("mesh.local").expect("a CA");
    let folder = tempfile::tempdir().expect("a folder");
    let own = "spiffe://mesh.local/ns/sconce-system/sa/sconce";
    files::write(&folder.path().join("certs"), &certificate(&ca, own), ca.roots_pem()).expect("it writes");
    let (certs, data) = (folder.path().join("certs"), folder.path().join("data"));
    let config = ControlConfig::read(|name| match name {
        "SCONCE_LISTEN" | "SCONCE_ADMIN_LISTEN" => Some("127.0.0.1:0".into()),
        "SCONCE_DATA_DIR" => Some(data.display().to_string()),
        "SCONCE_IDENTITY_DIR" => Some(certs.display().to_string()),
        _ => None,
    });
    let (tasks, _ended) = Tasks::new();
    let at = control_plane::start(config.expect("valid"), Arc::new(String::new), &tasks).await;
    let at = at.expect("it starts");
    eventually("it is ready", || async {
        let request = Request::get("/readyz").body(Bytes::new()).expect("a request");
        From::Pod(at.admin).exchange(request).await.status() == 200
    })
    .await;

    let caller = Client::new(&certificate(&ca, "spiffe://mesh.local/ns/a/sa/b"), ca.roots_pem());
    let uri = format!("https://localhost:{}/api/v1/models", at.api.port());
    let reply = caller.send("GET", &uri, None).await.expect("let in by the mesh's CA");
    assert_eq!(reply.status, 403, "known, and without a role: {reply:?}");
    assert!(!data.join("ca").exists() && !data.join("operator").exists(), "no CA of its own");
    assert!(tasks.stop(Duration::from_secs(30)).await);
}
