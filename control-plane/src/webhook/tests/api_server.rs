//! As much of an API server as the webhook asks for: one Secret with optimistic concurrency,
//! one configuration, and lists that never change.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use k8s_openapi::ByteString;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The stand-in.
#[derive(Clone)]
pub(super) struct ApiServer(Arc<Shared>);

struct Shared {
    state: Mutex<Objects>,
    /// Fires at every change, for those who watch.
    version: watch::Sender<u64>,
}

struct Objects {
    secret: Option<Value>,
    created: usize,
    conflicts: usize,
    configuration: Value,
    /// What the models of the namespace `ml` ask for.
    selectors: String,
}

impl ApiServer {
    pub(super) fn start() -> Self {
        let mut configuration =
            sconce_istio::inject::registration("a.sconce-injector", "sconce-system", "sconce-webhook");
        configuration["webhooks"][0]["fromTheFuture"] = json!("kept");
        let other = json!({ "name": "other.example.org", "clientConfig": { "service": { "name": "other", "namespace": "x" } } });
        configuration["webhooks"].as_array_mut().expect("webhooks").push(other);
        let selectors = "{}".to_owned();
        let state = Objects { secret: None, created: 0, conflicts: 0, configuration, selectors };
        Self(Arc::new(Shared { state: Mutex::new(state), version: watch::channel(1).0 }))
    }

    pub(super) fn client(&self) -> Client {
        let router = Router::new().fallback(answer).with_state(self.clone());
        Client::new(
            tower::ServiceExt::map_request(router, |request: Request<kube::client::Body>| {
                request.map(Body::new)
            }),
            "sconce-system",
        )
    }

    fn with<T>(&self, look: impl FnOnce(&mut Objects) -> T) -> T {
        look(&mut self.0.state.lock().expect("not poisoned"))
    }

    fn changed(&self) -> u64 {
        self.0.version.send_modify(|version| *version += 1);
        *self.0.version.borrow()
    }

    pub(super) fn secrets_created(&self) -> usize {
        self.with(|objects| objects.created)
    }

    pub(super) fn conflicts(&self) -> usize {
        self.with(|objects| objects.conflicts)
    }

    pub(super) fn configuration(&self) -> Value {
        self.with(|objects| objects.configuration.clone())
    }

    fn bundle(&self) -> String {
        let found = self.configuration()["webhooks"][0]["clientConfig"]["caBundle"].clone();
        let bytes: Option<ByteString> = serde_json::from_value(found).ok();
        bytes.map(|bytes| String::from_utf8(bytes.0).expect("PEM")).unwrap_or_default()
    }

    /// The CA bundle of the configuration, once it is as wanted.
    pub(super) async fn bundle_where(&self, wanted: impl Fn(&str) -> bool) -> String {
        super::eventually(async || Some(self.bundle()).filter(|bundle| wanted(bundle))).await
    }

    pub(super) fn spoil_bundle(&self) {
        self.with(|objects| {
            objects.configuration["webhooks"][0]["clientConfig"]["caBundle"] =
                json!(ByteString(b"spoiled".to_vec()));
        });
        self.changed();
    }

    /// The control plane writes down what models ask for.
    pub(super) fn set_selectors(&self, text: &str) {
        self.with(|objects| text.clone_into(&mut objects.selectors));
        self.changed();
    }

    fn lanes(&self) -> Value {
        let selectors = self.with(|objects| objects.selectors.clone());
        json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {
                "name": "sconce-lanes", "namespace": "ml", "annotations": { "sconce.dev/selectors": selectors },
            },
        })
    }

    fn change_keys(&self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let version = self.changed();
        self.with(|objects| {
            let secret = objects.secret.as_mut().expect("a Secret");
            let keys: ByteString =
                serde_json::from_value(secret["data"]["keys.json"].clone()).expect("base64");
            secret["data"]["keys.json"] = json!(ByteString(change(keys.0)));
            secret["metadata"]["resourceVersion"] = json!(version.to_string());
        });
    }

    /// Makes the roots look older than they are.
    pub(super) fn age_keys(&self, by: u64) {
        self.change_keys(|keys| {
            let mut keys: Value = serde_json::from_slice(&keys).expect("JSON");
            for key in ["since", "until"] {
                let moment = keys["roots"][0][key].as_u64().expect("seconds");
                keys["roots"][0][key] = json!(moment - by);
            }
            serde_json::to_vec(&keys).expect("JSON")
        });
    }

    pub(super) fn damage_keys(&self) {
        self.change_keys(|keys| keys[..keys.len() / 2].to_vec());
    }

    fn write_secret(&self, secret: &Value, base: Option<&Value>) -> Response {
        let version = self.changed();
        self.with(|objects| {
            let found = objects.secret.as_ref().map(|found| &found["metadata"]["resourceVersion"]);
            if found != base {
                objects.conflicts += 1;
                return failure(409, "Conflict");
            }
            let mut whole = objects.secret.clone().unwrap_or_else(|| json!({}));
            json_patch::merge(&mut whole, secret);
            whole["metadata"]["resourceVersion"] = json!(version.to_string());
            objects.created += usize::from(base.is_none());
            objects.secret = Some(whole.clone());
            axum::Json(whole).into_response()
        })
    }

    fn patch_configuration(&self, patch: &[u8]) -> Response {
        let patch: json_patch::Patch = serde_json::from_slice(patch).expect("a JSON patch");
        let patched = self.with(|objects| {
            json_patch::patch(&mut objects.configuration, &patch).map(|()| objects.configuration.clone())
        });
        self.changed();
        patched
            .map_or_else(|error| failure(422, &error.to_string()), |found| axum::Json(found).into_response())
    }

    /// A watch that says once that something has changed since the version that the query
    /// names, as a real one does for changes between the list and the watch; the caller asks again.
    async fn next_change(&self, query: &str, object: impl Fn(&Self) -> Option<Value>) -> Response {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|version| version.parse().ok()).expect("watched from a list");
        let mut version = self.0.version.subscribe();
        // It ends only with the test.
        let _ = version.wait_for(|now| *now > since).await;
        let now = *version.borrow();
        let Some(mut object) = object(self) else {
            let bookmark = json!({ "metadata": { "resourceVersion": now.to_string() } });
            return format!("{}\n", json!({ "type": "BOOKMARK", "object": bookmark })).into_response();
        };
        object["metadata"]["resourceVersion"] = json!(now.to_string());
        format!("{}\n", json!({ "type": "MODIFIED", "object": object })).into_response()
    }

    fn list(&self, items: &[Value]) -> Response {
        let version = self.0.version.borrow().to_string();
        let items = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items });
        axum::Json(items).into_response()
    }

    fn secret(&self) -> Option<Value> {
        self.with(|objects| objects.secret.clone())
    }

    fn versioned_configuration(&self) -> Value {
        let mut found = self.configuration();
        found["metadata"]["resourceVersion"] = json!(self.0.version.borrow().to_string());
        found
    }
}

fn failure(code: u16, reason: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code });
    (StatusCode::from_u16(code).expect("a code"), axum::Json(status)).into_response()
}

async fn answer(State(api): State<ApiServer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let watching = query.contains("watch=true");
    let value = || serde_json::from_slice::<Value>(&body).expect("JSON");
    match (&parts.method, path.rsplit('/').next().unwrap_or_default()) {
        (&Method::GET, "sconce-webhook") => {
            api.secret().map_or_else(|| failure(404, "NotFound"), |secret| axum::Json(secret).into_response())
        }
        (&Method::GET, "secrets") if watching => api.next_change(query, ApiServer::secret).await,
        (&Method::GET, "secrets") => api.list(&Vec::from_iter(api.secret())),
        (&Method::POST, "secrets") => api.write_secret(&value(), None),
        (&Method::PATCH, "sconce-webhook") => {
            let patch = value();
            api.write_secret(&patch, Some(&patch["metadata"]["resourceVersion"]))
        }
        (&Method::GET, "mutatingwebhookconfigurations") if watching => {
            api.next_change(query, |api| Some(api.configuration())).await
        }
        (&Method::GET, "mutatingwebhookconfigurations") => api.list(&[api.configuration()]),
        (&Method::GET, "a.sconce-injector") => axum::Json(api.versioned_configuration()).into_response(),
        (&Method::PATCH, "a.sconce-injector") => api.patch_configuration(&body),
        (&Method::GET, "services") if watching => api.next_change(query, |api| Some(api.lanes())).await,
        (&Method::GET, "services") => {
            // Anything wider would be refused by the rights that the chart gives.
            assert!(query.contains("metadata.name%3Dsconce-lanes"), "{query}");
            api.list(&[api.lanes()])
        }
        (&Method::GET, "namespaces") if !watching => api.list(&[json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "name": "ml", "labels": { "sconce.dev/injection": "enabled" } },
        })]),
        (&Method::GET, "limitranges" | "nodes") if !watching => api.list(&[]),
        (&Method::GET, _) if watching => std::future::pending().await,
        _ => failure(404, path),
    }
}
