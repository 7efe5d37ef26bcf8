//! Other people's clients, unchanged: tritonclient over HTTP and gRPC, and KServe's SDK.

use std::{path::PathBuf, time::Duration};

use sconce_identity::{SpiffeId, authority::Validity, files};
use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, digits, image, repository};
use tempfile::TempDir;
use tokio::process::Command;

/// The Python that has the clients; `make test` names it.
pub(super) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("SCONCE_CLIENTS").map(PathBuf::from);
    if python.is_none() {
        eprintln!("the Python clients were NOT run: SCONCE_CLIENTS is not set, use `make test`");
    }
    python
}

/// A folder with a certificate for them, as `cert.pem`, `key.pem` and `ca.pem`.
pub(super) fn credentials(plane: &Plane) -> TempDir {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), plane.authority());
    let id = SpiffeId::new("sconce.local", "/ns/default/sa/python").expect("a valid id");
    let credentials = authority.issue_credentials(&id, &[], Validity::of(Duration::from_secs(3600)));
    files::write(folder.path(), &credentials.expect("a certificate"), authority.roots_pem())
        .expect("it writes");
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_written_for_other_servers_get_the_same_answer() {
    let Some(python) = python() else { return };
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("clients", &[]).await;
    plane.push(&digits("v2"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let ours =
        plane.caller("/ns/default/sa/app").send("POST", &sidecar.infer("digits"), Some(&image(1))).await;
    let ours: Vec<f64> =
        serde_json::from_value(ours.expect("answered").json["outputs"][0]["data"].clone()).expect("scores");

    let folder = credentials(&plane);
    let file = |name: &str| folder.path().join(name);
    for client in ["triton-http", "triton-grpc", "kserve", "kserve-grpc"] {
        let output = Command::new(&python)
            .arg(repository().join("tests/clients/oip.py"))
            .args([client, sidecar.address.trim_start_matches("https://")])
            .args([file("ca.pem"), file("cert.pem"), file("key.pem")])
            .output()
            .await
            .expect("python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client}: {errors}");
        let last = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
        let theirs: Vec<f64> =
            serde_json::from_str(&last).unwrap_or_else(|error| panic!("{client}: {error} in {last:?}"));
        assert_eq!(theirs.len(), ours.len(), "{client}");
        for (a, b) in theirs.iter().zip(&ours) {
            assert!((a - b).abs() < 1e-5, "{client}: {theirs:?}, not {ours:?}");
        }
    }
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_the_pod_exchanges_tensors_through_memory_that_it_shares() {
    let Some(python) = python() else { return };
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("pod", &[("SCONCE_PLAINTEXT_LOOPBACK", "true")]).await;
    plane.push(&digits("v2"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    for client in ["http", "grpc"] {
        let output = Command::new(&python)
            .arg(repository().join("tests/clients/pod.py"))
            .args([client, &sidecar.addresses().live.to_string()])
            .output()
            .await
            .expect("python starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client}: {errors}");
        let scores: Vec<f64> = serde_json::from_slice(&output.stdout).expect("scores");
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-3, "{client}: {scores:?}");
    }
    plane.stop().await;
    sidecar.stop().await;
}
