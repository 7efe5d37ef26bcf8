//! A cluster in which nothing is wrong, made of what Sconce itself renders and injects, for the
//! checks' tests to plant faults into.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sconce_catalog::{Catalog, Digest, Generation, Model, ModelName, Share, Signature, Split, VersionRecord};
use sconce_istio::{
    inject::{self, Asked, Outcome, Request, Settings},
    install::{self, INJECTOR, REGISTRATION},
    render::{self, Backend, Options, Routing},
    selectors::Selectors,
};
use serde_json::{Value, json};

use super::{Finding, View};
use crate::client::{Sidecar, SplitProgress, SplitState};

const SYSTEM: &str = "sconce-system";
const SHOP: &str = "shop";
/// The time at which everything is well, in seconds.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// The names of the checks that found something.
pub(super) fn checks(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.check).collect()
}

/// The object of this name.
pub(super) fn by_name<'a>(objects: &'a mut [Value], name: &str) -> &'a mut Value {
    objects
        .iter_mut()
        .find(|object| object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// A pod that asks for a sidecar and has none.
pub(super) fn bare_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": SHOP, "name": name, "labels": { "sconce.dev/inject": "true" } },
        "spec": { "containers": [{ "name": "app", "image": "checkout:1" }] },
        "status": { "phase": "Running" },
    })
}

/// Everything as it should be.
pub(super) fn healthy() -> View {
    let installed = install::objects(&install::Settings::default());
    let all = |kind: &str| -> Vec<Value> {
        installed.iter().filter(|object| object["kind"] == kind).cloned().collect()
    };
    let (root, secret) = keys();
    let mut registrations = all("MutatingWebhookConfiguration");
    for webhook in by_name(&mut registrations, REGISTRATION)["webhooks"].as_array_mut().expect("a list") {
        webhook["clientConfig"]["caBundle"] = base64(&root);
    }
    registrations.push(json!({
        "kind": "MutatingWebhookConfiguration", "metadata": { "name": "istio-sidecar-injector" },
        "webhooks": [{ "name": "namespace.sidecar-injector.istio.io", "clientConfig": { "service": { "name": "istiod" } } }],
    }));
    let deployments = all("Deployment").into_iter().map(|mut deployment| {
        let count = deployment["spec"]["replicas"].clone();
        deployment["status"] =
            json!({ "replicas": count, "updatedReplicas": count, "availableReplicas": count });
        deployment
    });
    let settings: Vec<Value> =
        all("ConfigMap").into_iter().filter(|map| map["metadata"]["name"] == INJECTOR).collect();
    let model: ModelName = "shop/digits".parse().expect("valid");
    let (routing, catalog) = catalog(&model);
    let progress = SplitProgress { state: SplitState::Applied, message: String::new() };
    let splits = vec![(model.clone(), progress)];
    let backend = Backend::new(model).expect("publishable");
    let lease = json!({ "spec": { "holderIdentity": "a", "renewTime": moment(NOW - 2), "leaseDurationSeconds": 15 } });
    View {
        system: SYSTEM.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        now: i64::try_from(NOW).expect("small"),
        has_istio: Some(true),
        has_gateway_api: Some(true),
        registrations: Some(registrations),
        namespaces: Some(vec![json!({
            "kind": "Namespace",
            "metadata": { "name": SHOP, "labels": { "sconce.dev/injection": "enabled", "istio-injection": "enabled" } },
        })]),
        pods: Some(vec![pod(&settings)]),
        services: Some(vec![
            applied(render::service(&backend, &Options::default())),
            applied(render::lanes(SHOP, &Selectors::default())),
        ]),
        slices: Some(vec![slice(SHOP, "digits"), slice(SYSTEM, "sconce-webhook")]),
        virtual_services: Some(vec![applied(render::virtual_service(
            &backend,
            &routing,
            &Options::default(),
        ))]),
        http_routes: Some(Vec::new()),
        deployments: Some(deployments.collect()),
        replica_sets: Some(Vec::new()),
        system_pods: Some(Vec::new()),
        events: Some(Vec::new()),
        settings: Some(settings),
        secret: Some(vec![secret]),
        lease: Some(vec![lease]),
        mesh_roots: Some(vec![json!({
            "kind": "ConfigMap", "metadata": { "namespace": SYSTEM, "name": "istio-ca-root-cert" },
            "data": { "root-cert.pem": issuer(3650).pem() },
        })]),
        catalog: Some(catalog),
        splits: Some(splits),
        sidecars: Some(vec![sidecar()]),
        unread: Vec::new(),
    }
}

/// As the control plane owns what it publishes.
fn applied(mut object: Value) -> Value {
    object["metadata"]["managedFields"] =
        json!([{ "manager": "sconce", "operation": "Apply", "fieldsV1": { "f:spec": {} } }]);
    object
}

fn slice(namespace: &str, service: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": service, "labels": { "kubernetes.io/service-name": service } },
        "endpoints": [{ "conditions": { "ready": true } }],
    })
}

/// A pod as the webhook makes it, and as the kubelet runs it.
fn pod(settings: &[Value]) -> Value {
    let settings = settings[0]["data"]["settings.yaml"].as_str().expect("text");
    let settings = Settings::from_yaml(settings).expect("the chart's settings");
    let labels = [("istio-injection".to_owned(), "enabled".to_owned())].into();
    let namespace = inject::Namespace { name: SHOP.into(), labels, ..inject::Namespace::default() };
    let request = Request { namespace: &namespace, settings: &settings, asked: Asked::ByCommand };
    let Outcome::Injected(injection) = inject::inject(&bare_pod("checkout-1"), &request).expect("a pod")
    else {
        panic!("it is injected");
    };
    let mut pod = injection.pod;
    pod["metadata"]["labels"]["sconce.dev/model.digits"] = "ready".into();
    pod["status"]["initContainerStatuses"] =
        json!([{ "name": "sconce", "ready": true, "state": { "running": {} } }]);
    pod
}

fn sidecar() -> Sidecar {
    Sidecar {
        name: format!("{SHOP}/checkout-1"),
        namespace: SHOP.into(),
        connected: true,
        last_seen: String::new(),
        address: String::new(),
        labels: [].into(),
        serial: 1,
        versions: Vec::new(),
    }
}

fn catalog(model: &ModelName) -> (Routing, Catalog) {
    let version = |name: &str| name.parse().expect("valid");
    let record = VersionRecord {
        artifact: Digest::from_bytes([0; 32]),
        size: 1,
        signature: Signature::default(),
        metadata: [].into(),
        pushed_at_ms: 0,
        pushed_by: String::new(),
    };
    let shares =
        [("1", 9_500), ("2", 500)].map(|(name, share)| (version(name), Share::new(share).expect("valid")));
    let split = Split::new(shares).expect("a split");
    let wanted = Model {
        versions: ["1", "2"].map(|name| (version(name), record.clone())).into(),
        split: Some(split.clone()),
        generation: Generation(4),
        ..Model::default()
    };
    let models = [(model.clone(), wanted)].into();
    (Routing { split, generation: Generation(4), sticky: None }, Catalog { models, ..Catalog::default() })
}

fn issuer(days: u64) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

fn params(days: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).into();
    params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + days * DAY)).into();
    params
}

/// The roots of the webhook, and the Secret that it keeps them in.
fn keys() -> (String, Value) {
    let root = issuer(365);
    let key = KeyPair::generate().expect("a key");
    let serving = params(30).signed_by(&key, &root).expect("signed").pem();
    let keys = json!({ "serving": { "certificate": serving } }).to_string();
    let secret = json!({
        "kind": "Secret", "metadata": { "namespace": SYSTEM, "name": "sconce-webhook" },
        "data": { "ca.crt": base64(&root.pem()), "keys.json": base64(&keys) },
    });
    (root.pem(), secret)
}

fn base64(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn moment(seconds: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(seconds).expect("small")).expect("a moment").to_string()
}
