//! `sconce bench`, as somebody types it, against a control plane and a sidecar behind mTLS.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, Sidecar, digits};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// The command line, which a test of another package's does not find by itself.
fn sconce() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a file");
    let binary = own.ancestors().nth(2).expect("target/debug").join("sconce");
    assert!(binary.is_file(), "{} is not built; run `cargo build --workspace` first", binary.display());
    binary
}

fn bench(plane: &Plane, sidecar: &Sidecar, options: &str) -> Command {
    let operator = plane.data().join("operator");
    let mut command = Command::new(sconce());
    command
        .args(["bench", "digits", "--server", &sidecar.address, "--control-plane", plane.address()])
        .arg("--ca")
        .arg(operator.join("ca.pem"))
        .arg("--cert")
        .arg(operator.join("cert.pem"))
        .arg("--key")
        .arg(operator.join("key.pem"))
        .args(options.split(' '))
        .env("SCONCE_HOME", plane.data().join("nothing"))
        .kill_on_drop(true);
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_is_measured_over_mtls() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("bench", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (out, plot) = (folder.path().join("out.json"), folder.path().join("plot.svg"));
    let line =
        "--protocol json,binary,grpc --concurrency 3 --duration 300ms --warmup 50ms --variable 2 -o json";
    let done = bench(&plane, &sidecar, line).arg("--out").arg(&out).arg("--plot").arg(&plot).output().await;
    let done = done.expect("it starts");
    assert!(done.status.success(), "{}", said(&done));

    let (shown, written) = (serde_json::from_slice::<Value>(&done.stdout).expect("JSON"), file(&out));
    assert_eq!((&shown["security"], &shown["settings"]["inputs"]), (&"mTLS".into(), &"made up".into()));
    let points = written["points"].as_array().expect("points");
    assert_eq!(points.iter().map(|point| &point["protocol"]).collect::<Vec<_>>(), ["json", "binary", "grpc"]);
    for (point, brief) in points.iter().zip(shown["points"].as_array().expect("points")) {
        let answered = point["answered"].as_u64().expect("a number");
        assert!(answered > 0, "{point}");
        assert_eq!((&point["failed"], &point["unsent"]), (&0.into(), &0.into()), "{point}");
        assert_eq!(point["versions"][0]["version"], "1");
        assert_eq!(point["versions"][0]["answers"], answered);
        assert_eq!(point["connections_opened"], 3, "one for each caller");
        let buckets = point["latency"]["buckets"].as_array().expect("the whole histogram");
        assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().expect("a count")).sum::<u64>(), answered);
        assert_eq!((&brief["answered"], &brief["latency"]["buckets"]), (&point["answered"], &Value::Null));
    }
    assert!(std::fs::read_to_string(&plot).expect("drawn").contains("digits at https://localhost"));

    for (options, code, says) in [
        // The server's own words, and no run.
        ("--shape 1,63", 1, "63"),
        ("--version 9", 5, "9"),
        ("--protocol grpc --shape INT32[1,64]", 1, "INVALID_ARGUMENT"),
        ("--header no_name", 2, "KEY=VALUE"),
        // As a server that belongs to no trust domain is judged.
        ("--server-name localhost --protocol grpc --duration 100ms --warmup 0s", 0, "(TLS)"),
        ("--server-name other.example --duration 100ms", 4, "other.example"),
        ("--http2 --protocol json --rate 50 --duration 200ms --warmup 0s", 0, "json over HTTP/2"),
    ] {
        let done = bench(&plane, &sidecar, options).output().await.expect("it starts");
        assert_eq!(done.status.code(), Some(code), "{options}: {}", said(&done));
        assert!(said(&done).contains(says), "{options}: {}", said(&done));
    }
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_is_on_the_timeline_and_ctrl_c_shows_what_was_measured() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("bench", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.json");
    let mut running = bench(&plane, &sidecar, "--rate 100 --protocol grpc --duration 10s --warmup 0s")
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(running.stderr.take().expect("piped")).lines();
    let mut until = async |what: &str| {
        loop {
            let line = lines.next_line().await.expect("readable").unwrap_or_else(|| panic!("no {what}"));
            if line.contains(what) {
                return;
            }
        }
    };
    // The first line comes when it begins, the second after a second of answers of version 1.
    until("p50").await;
    until("p50").await;
    plane.push(&digits("v2"), "digits", "2", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "2", VersionState::Ready).await;
    plane.activate("digits", "2").await;
    until("2: ").await;
    let pid = rustix::process::Pid::from_raw(running.id().expect("running") as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child of ours");
    until("interrupted").await;
    let done = running.wait_with_output().await.expect("it ends");
    assert_eq!(done.status.code(), Some(130), "{}", said(&done));
    assert!(said(&done).contains("split.changed") && said(&done).contains("first.answer"), "{}", said(&done));

    let results = file(&out);
    assert_eq!(results["interrupted"], true);
    let point = &results["points"][0];
    assert_eq!((&point["failed"], &point["unsent"]), (&0.into(), &0.into()), "a swap fails nothing: {point}");
    let events = point["events"].as_array().expect("events");
    let at = |kind: &str, version: &str| {
        let found = events.iter().find(|event| event["type"] == kind && event["version"] == version);
        found.and_then(|event| event["at_s"].as_f64()).unwrap_or_else(|| panic!("no {kind}: {events:?}"))
    };
    let (ready, split, first) = (at("version.ready", "2"), at("split.changed", ""), at("first.answer", "2"));
    assert!(ready <= split && ready <= first, "{events:?}");
    plane.stop().await;
    sidecar.stop().await;
}
