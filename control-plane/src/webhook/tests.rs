//! The whole process against a stand-in for an API server: real sockets, real TLS.

mod api_server;

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};

use self::api_server::ApiServer;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "sconce-webhook.sconce-system.svc";

fn config() -> Config {
    let said = BTreeMap::from([
        ("SCONCE_WEBHOOK_LISTEN", "127.0.0.1:0"),
        ("SCONCE_WEBHOOK_ADMIN_LISTEN", "127.0.0.1:0"),
        ("SCONCE_WEBHOOK_NAMESPACE", "sconce-system"),
    ]);
    Config::read(|name| said.get(name).map(|value| (*value).to_owned())).expect("valid")
}

async fn replica(api: &ApiServer) -> (Addresses, Tasks) {
    let (tasks, _ended) = Tasks::new();
    let addresses = start(config(), api.client(), Arc::new(String::new), &tasks).await.expect("started");
    (addresses, tasks)
}

/// Asks as the API server would that knows this bundle.
async fn ask(address: SocketAddr, bundle: &str, pod: &Value) -> Result<Value, String> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.expect("PEM")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": "ml", "userInfo": {}, "object": pod,
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
        },
    });
    let request = http::Request::post(format!("https://{NAME}/mutate?timeout=5s"))
        .header("content-type", "application/json")
        .body(Body::from(review.to_string()))
        .expect("a request");
    let answer = async {
        let reply = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let body = reply.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string())
    };
    tokio::select! {
        answer = answer => answer,
        ended = connection => Err(format!("{ended:?}")),
    }
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "fraud", "labels": { "sconce.dev/inject": "true" } },
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] },
    })
}

#[tokio::test]
async fn replicas_share_one_ca_that_the_api_server_is_told_of() {
    let api = ApiServer::start();
    let (one, _tasks) = replica(&api).await;
    let (two, _tasks_too) = replica(&api).await;
    let bundle = api.bundle_where(|bundle| !bundle.is_empty()).await;
    assert_eq!(api.secrets_created(), 1, "of two that start at once, one makes the Secret");
    for address in [one.webhook, two.webhook] {
        let answer = eventually(async || ask(address, &bundle, &pod()).await.ok()).await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        assert_eq!(answer["response"]["patchType"], "JSONPatch", "{answer}");
    }
}

#[tokio::test]
async fn of_replicas_that_find_no_secret_at_the_same_moment_one_writes_and_all_agree() {
    let api = ApiServer::start();
    let names = config().names();
    let store = || SecretStore::new(api.client(), "sconce-system", "sconce-webhook");
    let now = std::time::SystemTime::now();
    let (one, two, three) = (store(), store(), store());
    // On one thread each asks before any writes.
    let found = tokio::join!(one.current(&names, now), two.current(&names, now), three.current(&names, now));
    let (one, two, three) = (found.0.expect("keys"), found.1.expect("keys"), found.2.expect("keys"));
    assert_eq!((&one, &one), (&two, &three));
    assert_eq!((api.secrets_created(), api.conflicts()), (1, 2));

    // And the same when all of them find it old.
    api.age_keys(300 * 24 * 3600);
    let (a, b) = (store(), store());
    let (a, b) = tokio::join!(a.current(&names, now), b.current(&names, now));
    assert_eq!(a.expect("keys"), b.expect("keys"));
    assert_eq!(api.conflicts(), 3);
}

#[tokio::test]
async fn a_bundle_that_somebody_changes_is_put_back_and_the_rest_of_it_is_not_touched() {
    let api = ApiServer::start();
    let (_, _tasks) = replica(&api).await;
    let bundle = api.bundle_where(|bundle| !bundle.is_empty()).await;
    api.spoil_bundle();
    assert_eq!(api.bundle_where(|now| now != "spoiled").await, bundle);
    let configuration = api.configuration();
    assert_eq!(configuration["webhooks"][0]["fromTheFuture"], "kept");
    let bundles = [0, 1].map(|at| configuration["webhooks"][at]["clientConfig"]["caBundle"].clone());
    assert_eq!(bundles[0], bundles[1], "both ways lead to the same webhook");
    assert_eq!(
        configuration["webhooks"][2]["clientConfig"],
        json!({ "service": { "name": "other", "namespace": "x" } })
    );
}

#[tokio::test]
async fn what_models_ask_for_is_heard_while_it_runs() {
    let api = ApiServer::start();
    let (address, _tasks) = replica(&api).await;
    let bundle = api.bundle_where(|bundle| !bundle.is_empty()).await;
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({ "team": "pay" });
    let answer = eventually(async || ask(address.webhook, &bundle, &pod).await.ok()).await;
    assert_eq!((&answer["response"]["allowed"], answer["response"].get("patchType")), (&json!(true), None));
    api.set_selectors(r#"{"fraud":{"team":"pay"}}"#);
    let asked = async || {
        ask(address.webhook, &bundle, &pod).await.ok().filter(|it| it["response"]["patchType"] == "JSONPatch")
    };
    eventually(asked).await;
}

#[tokio::test]
async fn new_certificates_are_served_without_a_restart_and_old_roots_go_on_working() {
    let api = ApiServer::start();
    let (address, _tasks) = replica(&api).await;
    let old = api.bundle_where(|bundle| !bundle.is_empty()).await;
    eventually(async || ask(address.webhook, &old, &pod()).await.ok()).await;

    // A year has passed, as far as the Secret can tell: a successor of the root is due.
    api.age_keys(300 * 24 * 3600);
    let new = api.bundle_where(|bundle| bundle != old).await;
    assert!(new.contains(&old), "old and new roots stand beside each other");
    let answer = eventually(async || ask(address.webhook, &old, &pod()).await.ok()).await;
    assert_eq!(answer["response"]["allowed"], true);
    assert!(ask(address.webhook, &new, &pod()).await.is_ok());
}

#[tokio::test]
async fn a_replica_that_stops_answers_until_nobody_calls_it_any_more() {
    let api = ApiServer::start();
    let (address, tasks) = replica(&api).await;
    let bundle = api.bundle_where(|bundle| !bundle.is_empty()).await;
    eventually(async || ask(address.webhook, &bundle, &pod()).await.ok()).await;
    tasks.stopping().cancel();
    assert_eq!(readyz(address.admin).await, 503, "its endpoint is to go");
    assert!(ask(address.webhook, &bundle, &pod()).await.is_ok(), "whoever does not know yet is answered");
    assert!(tasks.stop(PATIENCE).await);
    assert!(tokio::net::TcpStream::connect(address.webhook).await.is_err());
}

async fn readyz(address: SocketAddr) -> u16 {
    let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.expect("HTTP");
    let request =
        http::Request::get("/readyz").header("host", "admin").body(Body::empty()).expect("a request");
    tokio::select! {
        reply = sender.send_request(request) => reply.expect("a reply").status().as_u16(),
        ended = connection => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_damaged_secret_is_made_anew() {
    let api = ApiServer::start();
    let (address, _tasks) = replica(&api).await;
    let old = api.bundle_where(|bundle| !bundle.is_empty()).await;
    api.damage_keys();
    let new = api.bundle_where(|bundle| bundle != old).await;
    eventually(async || ask(address.webhook, &new, &pod()).await.ok()).await;
    assert!(ask(address.webhook, &old, &pod()).await.is_err());
}

async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it came true in time")
}
