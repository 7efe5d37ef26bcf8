//! Versions from a bucket of S3, as moto speaks it.

use std::process::Stdio;

use sconce_proto::v1::{self, VersionState};
use sconce_tests::{
    Plane, digits,
    files::Files,
    pulls::{self, example, pull, refused, sha256},
    repository,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tonic::Code;

/// A bucket with two versions, and the keys of who may read it.
struct Bucket {
    endpoint: String,
    keys: [String; 2],
    _server: Child,
}

impl Bucket {
    async fn start(files: &Files) -> Option<Self> {
        let Some(python) = std::env::var_os("SCONCE_CLIENTS") else {
            eprintln!("pulls from S3 were NOT run: SCONCE_CLIENTS is not set, use `make test`");
            return None;
        };
        let (certificate, key) = files.certificate();
        let mut server = Command::new(python)
            .arg(repository().join("tests/clients/s3.py"))
            .args([certificate, key, files.ca(), digits("v1"), digits("v2")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("readable").expect("it serves");
        let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let text = |key: &str| said[key].as_str().expect("text").to_owned();
        Some(Self {
            endpoint: format!("https://localhost:{}", said["port"]),
            keys: [text("id"), text("secret")],
            _server: server,
        })
    }

    fn wanted(&self, version: &str, key: &str, [id, secret]: [&str; 2]) -> v1::PullVersionRequest {
        let credentials = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ];
        let credentials = credentials.into_iter().filter(|(_, value)| !value.is_empty());
        let digest = sha256(&example(&format!("v{version}")));
        v1::PullVersionRequest {
            credentials: credentials.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..pulls::wanted(version, &format!("s3://models/{key}"), &digest)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_pulled_from_a_bucket_by_whoever_may_read_it() {
    let files = Files::start().await;
    let Some(bucket) = Bucket::start(&files).await else { return };
    let sources = format!("s3://models/digits/,{}/", bucket.endpoint);
    let ca = files.ca().display().to_string();
    let mut plane = Plane::start_with(&[("SCONCE_SOURCES", &sources), ("SCONCE_SOURCES_CA", &ca)]).await;
    let sidecar = plane.sidecar("edge", &[]).await;
    let own = [bucket.keys[0].as_str(), bucket.keys[1].as_str()];

    let (pulled, _) = pull(&plane, bucket.wanted("1", "digits/v1.pt", own)).await.expect("pulled");
    assert_eq!(pulled.version.expect("a version").metadata["sconce.dev/source"], "s3://models/digits/v1.pt");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let (second, _) = pull(&plane, bucket.wanted("2", "digits/v2.pt", own)).await.expect("pulled");
    assert!(second.bytes_stored > 0 && second.bytes_stored < pulled.bytes_stored / 4, "{second:?}");

    for (wanted, code, says) in [
        (bucket.wanted("3", "digits/v3.pt", own), Code::NotFound, "s3://models/digits/v3.pt is not there"),
        (bucket.wanted("1", "other/v1.pt", own), Code::PermissionDenied, "may not be pulled from"),
        (bucket.wanted("3", "digits/v1.pt", own), Code::InvalidArgument, "has other bytes"),
        (
            bucket.wanted("3", "digits/v1.pt", [own[0], "wrong"]),
            Code::FailedPrecondition,
            "does not let us read",
        ),
        (bucket.wanted("3", "digits/v1.pt", ["", ""]), Code::FailedPrecondition, "does not let us read"),
        (bucket.wanted("3", "digits/v1.pt", [own[0], ""]), Code::InvalidArgument, "`AWS_SECRET_ACCESS_KEY`"),
    ] {
        refused(&plane, wanted, code, says).await;
    }
    plane.stop().await;
    sidecar.stop().await;
}
