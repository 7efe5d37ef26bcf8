//! What `/readyz` waits for: an identity always, models where they are waited for.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use sconce_identity::{
    SpiffeId,
    authority::{Authority, Validity},
    files,
};
use sconce_lifecycle::Tasks;
use sconce_sidecar::{app, config::Config, engine::torch::TorchEngine};
use sconce_tests::{eventually, plaintext::From};

/// A sidecar whose control plane is nowhere, so that its models never come.
async fn start(folder: &Path, wait_for_models: &str) -> (app::Running, Tasks) {
    let (certificates, data) = (folder.join("certificates"), folder.join("data"));
    let config = Config::read(|name| match name {
        "SCONCE_LISTEN" | "SCONCE_ADMIN_LISTEN" => Some("127.0.0.1:0".into()),
        "SCONCE_CONTROL_PLANE" => Some("https://127.0.0.1:1".into()),
        "SCONCE_DATA_DIR" => Some(data.display().to_string()),
        "SCONCE_IDENTITY_DIR" => Some(certificates.display().to_string()),
        "SCONCE_WAIT_FOR_MODELS" => Some(wait_for_models.into()),
        _ => None,
    });
    let (tasks, _) = Tasks::new();
    let engine = Arc::new(TorchEngine::new());
    let running = app::start(config.expect("valid"), engine, Arc::new(String::new), &tasks).await;
    (running.expect("it starts"), tasks)
}

async fn readyz(at: SocketAddr) -> (u16, String) {
    let request = Request::get("/readyz").body(Bytes::new()).expect("a request");
    let answer = From::Pod(at).exchange(request).await;
    (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_are_not_waited_for_are_named_all_the_same() {
    let both = "waiting for models\nwaiting for identity\n".to_owned();
    let models = "waiting for models\n".to_owned();
    for (wait, without, with) in [
        ("true", (503, both.clone()), (503, models.clone())),
        ("false", (503, both), (200, format!("ok\n{models}"))),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (running, tasks) = start(folder.path(), wait).await;
        let at = running.addresses.admin;
        assert_eq!(readyz(at).await, without, "{wait}");

        let ca = Authority::new("sconce.local").expect("a CA");
        let id = SpiffeId::new("sconce.local", "/ns/default/sa/pod").expect("a valid id");
        let own = ca.issue_credentials(&id, &[], Validity::of(Duration::from_secs(3600)));
        let certificates = folder.path().join("certificates");
        files::write(&certificates, &own.expect("a certificate"), ca.roots_pem()).expect("it writes");
        eventually("only models are pending", || async { readyz(at).await == with }).await;
        assert!(tasks.stop(Duration::from_secs(30)).await, "it stops");
        tokio::task::spawn_blocking(move || running.join()).await.expect("its threads end");
    }
}
