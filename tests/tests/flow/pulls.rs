//! Versions that the control plane fetches itself: from servers of files and registries, with whatever
//! goes wrong on the way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;
use sconce_proto::v1::{self, VersionState, pull_version_response::State};
use sconce_tests::{
    Client, Plane, archives, digits, eventually,
    files::{Entry, Files},
    pulls::{example, plane_for, pull, refused, sha256, wanted},
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_fetched_by_the_control_plane_and_served_like_any_other() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let sidecar = plane.sidecar("edge", &[]).await;
    let (first, second) = (example("v1"), example("v2"));
    let url = files.put_file("/digits/1.pt", &digits("v1"));
    let (pulled, told) = pull(&plane, wanted("1", &url, &sha256(&first))).await.expect("pulled");
    let version = pulled.version.expect("a version");
    assert_eq!((version.version.as_str(), version.size), ("1", first.len() as u64));
    assert_eq!(version.metadata["sconce.dev/source"], url);
    assert_eq!(version.metadata["sconce.dev/source-digest"], sha256(&first));
    assert_eq!((pulled.bytes_stored, pulled.already_committed), (first.len() as u64, false));
    assert!(told.iter().all(|progress| progress.bytes <= first.len() as u64), "{told:?}");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;

    // Repeated, it is not fetched again; another one brings only what is new.
    let before = files.asked().len();
    let (again, _) = pull(&plane, wanted("1", &url, &sha256(&first))).await.expect("pulled");
    assert_eq!((again.already_committed, files.asked().len()), (true, before));
    let url = files.put_file("/digits/2.pt", &digits("v2"));
    let activated = v1::PullVersionRequest { activate: true, ..wanted("auto", &url, &sha256(&second)) };
    let (pulled, _) = pull(&plane, activated).await.expect("pulled");
    assert_eq!(pulled.version.expect("a version").version, "2");
    assert!(pulled.bytes_stored < second.len() as u64 / 4, "{}", pulled.bytes_stored);
    assert_eq!(pulled.split.expect("a split").shares[0].version, "2");
    plane.stands(&sidecar, "digits", "2", VersionState::Ready).await;

    // Versions never change, whoever brings the bytes.
    refused(&plane, wanted("1", &url, &sha256(&second)), Code::AlreadyExists, "versions never change").await;
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let bytes = example("v1");
    let breaks = Arc::new(Notify::new());
    let entry =
        Entry { bytes: bytes.clone(), breaks: Some((100_000, 2, Arc::clone(&breaks))), ..Entry::default() };
    let url = files.put("/breaks.pt", entry);
    let wanted = wanted("1", &url, &sha256(&bytes));
    let mut messages = plane.registry().pull_version(wanted).await.expect("begun").into_inner();
    loop {
        match messages.message().await.expect("told").expect("more").state.expect("something") {
            State::Progress(progress) if [100_000, 200_000].contains(&progress.bytes) => breaks.notify_one(),
            State::Progress(_) => {}
            State::Pulled(pulled) => break assert_eq!(pulled.bytes_stored, bytes.len() as u64),
        }
    }
    let ranges: Vec<_> = files.asked().into_iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into()), Some("bytes=200000-".into())]);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_the_source_and_leaves_nothing() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let bytes = example("v1");
    let good = sha256(&bytes);
    let url = files.put_file("/digits.pt", &digits("v1"));
    let other = sha256(b"other");
    refused(
        &plane,
        wanted("1", &url, &other),
        Code::InvalidArgument,
        &format!("{url} has other bytes than asked for: {good}, not {other}"),
    )
    .await;
    refused(
        &plane,
        wanted("1", &format!("https://{}/none.pt", files.authority), &good),
        Code::NotFound,
        "none.pt is not there",
    )
    .await;
    let secret =
        Entry { bytes: bytes.clone(), authorization: Some("Basic Y2k6c2VjcmV0".into()), ..Entry::default() };
    let guarded = files.put("/guarded.pt", secret);
    refused(
        &plane,
        wanted("1", &guarded, &good),
        Code::FailedPrecondition,
        "guarded.pt does not let us read it",
    )
    .await;
    let text = files.put("/text.pt", Entry { bytes: "no archive".into(), ..Entry::default() });
    refused(
        &plane,
        wanted("1", &text, &sha256(b"no archive")),
        Code::InvalidArgument,
        "text.pt is no model that can be served",
    )
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let hostile = std::fs::read(archives::reads_a_file(folder.path())).expect("made");
    let url = files.put("/hostile.pt", Entry { bytes: hostile.clone().into(), ..Entry::default() });
    refused(&plane, wanted("1", &url, &sha256(&hostile)), Code::InvalidArgument, "from_file").await;
    for (source, digest, says) in [
        ("digits.pt", good.as_str(), "expected one of s3://"),
        ("http://models.example.com/a.pt", &good, "serve it over https"),
        (&guarded, "sha256:00", "64 hexadecimal digits"),
    ] {
        refused(&plane, wanted("1", source, digest), Code::InvalidArgument, says).await;
    }
    let credentials = |pairs: &[(&str, &str)]| v1::PullVersionRequest {
        credentials: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..wanted("1", &guarded, &good)
    };
    refused(&plane, credentials(&[("pasword", "x")]), Code::InvalidArgument, "`pasword`").await;
    refused(&plane, credentials(&[("username", "ci")]), Code::InvalidArgument, "lack `password`").await;
    let listed = plane.registry().list_models(v1::ListModelsRequest::default()).await.expect("listed");
    assert!(listed.into_inner().models.is_empty(), "nothing of it is visible");
    let scratch = plane.data().join("scratch");
    assert_eq!(std::fs::read_dir(scratch).expect("readable").count(), 0, "nothing of it is kept");

    pull(&plane, credentials(&[("username", "ci"), ("password", "secret")])).await.expect("let in");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_goes_only_where_it_may_whoever_asks() {
    let (files, others) = (Files::start().await, Files::start().await);
    let mut plane = plane_for(&files).await;
    let bytes = example("v1");
    let good = sha256(&bytes);
    // Its name is not allowed, and it is at the loopback address.
    let inside = others.put_file("/digits.pt", &digits("v1"));
    refused(&plane, wanted("1", &inside, &good), Code::PermissionDenied, "SCONCE_SOURCES").await;
    for (target, says) in [
        ("https://169.254.169.254/latest/meta-data/", "own credentials"),
        ("https://[fd00:ec2::254]/latest/", "own credentials"),
        ("https://10.96.0.1/api", "not public"),
        ("http://models.example.com/digits.pt", "without TLS"),
        (inside.as_str(), "allowed at other ports only"),
        ("https://127.0.0.1:6443/api", "not public"),
    ] {
        let entry = Entry { redirect: Some(target.to_owned()), ..Entry::default() };
        let url = files.put("/redirects.pt", entry);
        refused(&plane, wanted("1", &url, &good), Code::PermissionDenied, says).await;
        if target.starts_with("https://") {
            refused(&plane, wanted("1", target, &good), Code::PermissionDenied, says).await;
        }
    }
    // A registry that sends us for a token somewhere else, with the credentials of a user.
    let challenge = Some(format!(r#"Bearer realm="https://{}/token",service="r""#, others.authority));
    let digest = sha256(b"a manifest");
    let entry = Entry { authorization: Some("Bearer x".into()), challenge, ..Entry::default() };
    files.put(&format!("/v2/ml/digits/manifests/{digest}"), entry);
    let registry = format!("oci://{}/ml/digits", files.authority);
    refused(&plane, wanted("1", &registry, &digest), Code::PermissionDenied, "allowed at other ports only")
        .await;
    // A bucket at an endpoint inside.
    let bucket = v1::PullVersionRequest {
        credentials: [("AWS_ENDPOINT_URL".to_owned(), format!("https://{}", others.authority))].into(),
        ..wanted("1", "s3://models/digits.pt", &good)
    };
    refused(&plane, bucket, Code::PermissionDenied, "allowed at other ports only").await;
    assert!(others.asked().is_empty(), "{:?}", others.asked());

    let audit = plane.registry().list_audit(v1::ListAuditRequest::default()).await.expect("listed");
    let denied =
        audit.into_inner().entries.into_iter().filter(|entry| entry.action == "pull" && !entry.allowed);
    assert!(denied.count() >= 10);
    plane.stop().await;

    let mut off = Plane::start_with(&[("SCONCE_SOURCES", "off")]).await;
    refused(
        &off,
        wanted("1", "s3://models/digits.pt", &good),
        Code::PermissionDenied,
        "s3://models/digits.pt may not be pulled from",
    )
    .await;
    off.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_ends_with_whoever_waits_for_it() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let bytes = example("v1");
    let url =
        files.put("/stalls.pt", Entry { bytes: bytes.clone(), stalls: Some(1_000), ..Entry::default() });
    let mut messages =
        plane.registry().pull_version(wanted("1", &url, &sha256(&bytes))).await.expect("begun").into_inner();
    let mut told = 0;
    while told == 0 {
        if let Some(State::Progress(progress)) = messages.message().await.expect("told").expect("more").state
        {
            told = progress.bytes;
        }
    }
    assert_eq!(told, 1_000);
    drop(messages);
    // The unfinished file is unlinked from the beginning: what can be seen is that its turn is free.
    for _ in 0..4 {
        let messages =
            plane.registry().pull_version(wanted("1", &url, &sha256(&bytes))).await.expect("begun");
        drop(messages);
    }
    let url = files.put_file("/digits.pt", &digits("v1"));
    pull(&plane, wanted("1", &url, &sha256(&bytes))).await.expect("there is room for it");

    // And it does not hold up the end of the process.
    let stalled =
        files.put("/stalls.pt", Entry { bytes: bytes.clone(), stalls: Some(1_000), ..Entry::default() });
    let mut messages = plane
        .registry()
        .pull_version(wanted("2", &stalled, &sha256(&bytes)))
        .await
        .expect("begun")
        .into_inner();
    messages.message().await.expect("told");
    let began = Instant::now();
    plane.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_over_rest_takes_the_roles_of_a_push() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let url = files.put_file("/digits.pt", &digits("v1"));
    let body = json!({ "source": url, "digest": sha256(&example("v1")), "metadata": { "commit": "1a2b3c" } });
    let ask = async |client: &Client, body: &Value| {
        let uri = format!("{}/api/v1/models/default/digits/versions/1/pull", plane.address());
        let request = Request::post(uri).header("content-type", "application/json");
        client.exchange(request.body(body.to_string().into()).expect("a request")).await.expect("answered")
    };
    assert_eq!(ask(&plane.caller("/ns/default/sa/nobody"), &body).await.status, 403);
    let operator = plane.caller("/sconce/operator");
    let pulled = ask(&operator, &body).await;
    assert_eq!((pulled.status, &pulled.json["version"]["metadata"]["commit"]), (200, &json!("1a2b3c")));
    let claimed = json!({ "source": url, "digest": sha256(&example("v1")), "metadata": { "sconce.dev/source": "elsewhere" } });
    let uri = format!(
        "{}/api/v1/models/default/digits/versions/2?metadata=sconce.dev/source=elsewhere",
        plane.address()
    );
    let pushed =
        operator.exchange(Request::put(uri).body(example("v1")).expect("a request")).await.expect("answered");
    assert_eq!(pushed.status, 400, "{pushed:?}");
    let uri = format!("{}/api/v1/models/default/digits/versions/2/pull", plane.address());
    let refused = operator.send("POST", &uri, Some(&claimed)).await.expect("answered");
    assert!(
        refused.status == 400
            && refused.json["error"].as_str().expect("why").contains("for the control plane"),
        "{refused:?}"
    );
    eventually("the model is listed", || async {
        let listed = plane.registry().list_models(v1::ListModelsRequest::default()).await.expect("listed");
        listed.into_inner().models.len() == 1
    })
    .await;
    plane.stop().await;
}
