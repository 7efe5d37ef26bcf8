//! Pushes through a running control plane: resumed, repeated, refused.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use sconce_artifact::{Assembly, chunk_file};
use sconce_proto::v1::{self, VersionState};
use sconce_tests::{Client, Plane, archives, digits, repository};
use serde_json::{Value, json};
use tonic::Code;

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/models").join(name)
}

async fn rest(
    client: &Client,
    plane: &Plane,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}/api/v1/{path}", plane.address()))
        .header("content-type", "application/json");
    let reply = client.exchange(request.body(body.into()).expect("a request")).await.expect("answered");
    (reply.status, reply.json)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_in_steps_resumes_over_rest() {
    let mut plane = Plane::start().await;
    let operator = plane.caller("/sconce/operator");
    let file = File::open(digits("v1")).expect("the example");
    let manifest = chunk_file(&file).expect("an archive");
    let assembly = Assembly::new(manifest.clone());
    let announced = json!({
        "model": "digits", "version": "auto", "manifest": manifest, "metadata": {"commit": "1a2b3c"},
        "selector": {"team": "pay"},
    });
    let begin = async || rest(&operator, &plane, "POST", "pushes", announced.to_string()).await;
    let (status, begun) = begin().await;
    assert_eq!(
        (status, &begun["version"], &begun["bytes_present"]),
        (200, &json!("1"), &json!(0)),
        "{begun}"
    );
    let push = begun["push"].as_str().expect("its name").to_owned();
    let missing: Vec<String> = serde_json::from_value(begun["missing"].clone()).expect("digests");
    assert!(missing.len() > 1, "{begun}");

    let send = async |digest: &str| {
        let number = assembly.chunk_with(&digest.parse().expect("a digest")).expect("one of ours");
        let bytes = assembly.read_chunk(&file, number).expect("readable");
        rest(&operator, &plane, "PUT", &format!("pushes/{push}/chunks/{digest}"), bytes).await
    };
    assert_eq!(send(&missing[0]).await.0, 204);
    let early = rest(&operator, &plane, "POST", &format!("pushes/{push}/commit"), "").await;
    assert_eq!(early.0, 409, "{early:?}");
    assert!(early.1["error"].as_str().expect("why").contains("was not uploaded"), "{early:?}");
    let wrong =
        rest(&operator, &plane, "PUT", &format!("pushes/{push}/chunks/{}", missing[1]), "other bytes").await;
    assert!(wrong.0 == 400 && wrong.1["error"].as_str().expect("why").contains("send it again"), "{wrong:?}");

    // The caller forgot everything, and is told what is left to do.
    let (_, resumed) = begin().await;
    assert_eq!((&resumed["push"], &resumed["version"]), (&json!(push), &json!("1")));
    assert_eq!(resumed["missing"].as_array().map(Vec::len), Some(missing.len() - 1));
    for digest in &missing[1..] {
        assert_eq!(send(digest).await.0, 204);
    }
    let (status, done) = rest(&operator, &plane, "POST", &format!("pushes/{push}/commit"), "").await;
    assert_eq!((status, &done["version"]["metadata"]["commit"]), (200, &json!("1a2b3c")), "{done}");
    assert_eq!(begin().await.1["already_committed"], true);
    let (_, model) = rest(&operator, &plane, "GET", "models/default/digits", "").await;
    assert_eq!(
        (&model["selector"], &model["split"]),
        (&json!({"team": "pay"}), &json!({"1": 100.0})),
        "{model}"
    );
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_in_one_request_may_be_repeated_and_moves_only_what_changed() {
    let mut plane = Plane::start().await;
    let operator = plane.caller("/sconce/operator");
    let put = async |version: &str, path: &Path, query: &str| {
        let path_and_query = format!("models/default/digits/versions/{version}{query}");
        rest(&operator, &plane, "PUT", &path_and_query, std::fs::read(path).expect("a model")).await
    };
    let (status, first) = put("auto", &digits("v1"), "?metadata=commit=1a2b3c").await;
    let whole = first["version"]["size"].as_u64().expect("a size");
    assert_eq!((status, first["bytes_stored"].as_u64()), (200, Some(whole)), "{first}");
    assert_eq!(first["version"]["metadata"]["commit"], "1a2b3c");
    let (status, again) = put("1", &digits("v1"), "").await;
    assert_eq!((status, &again["bytes_stored"], &again["version"]["version"]), (200, &json!(0), &json!("1")));
    assert_eq!(again["version"]["batching"], Value::Null, "nobody says");
    // Refused before the body is read, so there is none.
    let columns = "models/default/digits/versions/auto?batching=columns";
    let (status, columns) = rest(&operator, &plane, "PUT", columns, "").await;
    assert!(
        status == 400 && columns["error"].as_str().expect("why").contains("`rows` or `off`"),
        "{columns}"
    );
    let (status, second) = put("auto", &digits("v2"), "?activate=true&batching=rows").await;
    assert_eq!(second["version"]["batching"], "rows", "{second}");
    let moved = second["bytes_stored"].as_u64().expect("bytes");
    assert_eq!((status, &second["version"]["version"]), (200, &json!("2")), "{second}");
    assert!(moved > 0 && moved < whole / 4, "{moved} of {whole}");
    let (_, model) = rest(&operator, &plane, "GET", "models/default/digits", "").await;
    assert_eq!(model["split"], json!({"2": 100.0}));

    let (status, other) = put("1", &digits("v2"), "").await;
    assert!(
        status == 409 && other["error"].as_str().expect("why").contains("versions never change"),
        "{other}"
    );
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_sidecar_could_serve_is_refused_at_the_push_with_the_reason() {
    let mut plane = Plane::start().await;
    let operator = plane.caller("/sconce/operator");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.pt");
    let whole = std::fs::read(digits("v1")).expect("a model");
    for (bytes, says) in [
        (b"not a zip at all".to_vec(), "zip"),
        (whole[..whole.len() - 1].to_vec(), "zip"),
        (Vec::new(), "cut short"),
        (std::fs::read(archives::reads_a_file(folder.path())).expect("made"), "from_file"),
    ] {
        let path = "models/default/bad/versions/1";
        let (status, reply) = rest(&operator, &plane, "PUT", path, bytes.clone()).await;
        let error = reply["error"].as_str().unwrap_or_default().to_lowercase();
        assert!(status == 400 && error.contains(says), "{status} {says}: {error}");
        std::fs::write(&file, &bytes).expect("it writes");
        let refused = plane.push(&file, "bad", "1", &[]).await.expect_err("over gRPC as well");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    let (_, models) = rest(&operator, &plane, "GET", "models", "").await;
    assert_eq!(models, json!([]), "nothing of it is visible");
    for (body, says) in [
        ("{", "JSON"),
        (r#"{"model":"a"}"#, "manifest"),
        (r#"{"model":"A B","manifest":{"chunks":[],"pieces":[]}}"#, "A B"),
        (r#"{"model":"a","manifest":{"chunks":[],"pieces":[]},"versoin":"1"}"#, "versoin"),
    ] {
        let (status, reply) = rest(&operator, &plane, "POST", "pushes", body).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(says), "{status} {body}: {error}");
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_among_versions_that_do_not_fit_is_refused_with_the_difference() {
    let mut plane = Plane::start().await;
    plane.push(&fixture("dict_out.pt"), "mixed", "1", &[]).await.expect("pushed");
    plane.push(&digits("v1"), "mixed", "2", &[]).await.expect("pushed");
    let share = |version: &str| v1::Share { version: version.into(), share: 5_000 };
    let split = Some(v1::Split { shares: vec![share("1"), share("2")] });
    let refused = plane
        .registry()
        .set_split(v1::SetSplitRequest { model: "mixed".into(), split, sticky_header: None })
        .await;
    let refused = refused.expect_err("their inputs differ");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("does not exist in version"), "{}", refused.message());
    let busy = v1::DeleteVersionRequest { model: "mixed".into(), version: "1".into() };
    let busy = plane.registry().delete_version(busy).await.expect_err("it answers everything");
    assert!(busy.message().contains("sconce split"), "{}", busy.message());
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_read_to_their_end_or_followed() {
    let mut plane = Plane::start().await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    let request = v1::WatchEventsRequest { after: 0, past_only: true };
    let mut past = plane.registry().watch_events(request).await.expect("watched").into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = past.message().await.expect("an event") {
        kinds.push(event.r#type);
    }
    assert_eq!(kinds, ["version.pushed"]);
    let request = v1::WatchEventsRequest { after: 1, past_only: false };
    let mut future = plane.registry().watch_events(request).await.expect("watched").into_inner();
    plane.push(&digits("v2"), "digits", "2", &[]).await.expect("pushed");
    let next = future.message().await.expect("an event").expect("one more");
    assert_eq!((next.id, next.version.as_str()), (2, "2"));

    // The same over REST: the stream ends with the control plane, and says all of it before.
    let operator = plane.caller("/sconce/operator");
    let path = format!("{}/api/v1/events/watch?after=1", plane.address());
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let watched = operator.open(request).await.expect("watched");
    plane.activate("digits", "2").await;
    drop(future);
    let split = v1::WatchEventsRequest { after: 2, past_only: false };
    let mut moved = plane.registry().watch_events(split).await.expect("watched").into_inner();
    assert_eq!(moved.message().await.expect("an event").expect("one more").r#type, "split.changed");
    drop(moved);
    plane.stop().await;
    let told = watched.into_body().collect().await.expect("it ends in order").to_bytes();
    let text = String::from_utf8_lossy(&told).into_owned();
    assert!(text.contains("event: version.pushed") && text.contains("id: 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_the_disk_lost_bits_of_are_replaced_by_the_next_push() {
    let mut plane = Plane::start().await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    let chunk = |folder: std::path::PathBuf| {
        let inside = std::fs::read_dir(folder).expect("a folder").next().expect("something in it");
        inside.expect("readable").path()
    };
    let damaged = chunk(chunk(plane.data().join("chunks")));
    let mut bytes = std::fs::read(&damaged).expect("a chunk");
    bytes[0] ^= 1;
    std::fs::write(&damaged, bytes).expect("damaged");

    let refused = plane.push(&digits("v1"), "digits", "2", &[]).await.expect_err("it cannot be put together");
    assert!(refused.message().contains("1 of its chunks had been damaged"), "{refused}");
    plane.push(&digits("v1"), "digits", "2", &[]).await.expect("pushed again");
    let sidecar = plane.sidecar("edge", &[]).await;
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    plane.stop().await;
    sidecar.stop().await;
}
