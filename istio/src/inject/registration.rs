//! The webhook as the API server knows it.

use serde_json::{Value, json};

use super::permission::SYSTEM;
use crate::names;

/// Where the webhook answers.
pub const WEBHOOK_PATH: &str = "/mutate";
/// The webhook for pods that ask by their label.
pub const LABELLED: &str = "pods.injector.sconce.dev";
/// The webhook for pods that a model's selector may ask for.
pub const SELECTED: &str = "models.injector.sconce.dev";

/// The `MutatingWebhookConfiguration`. Its name should sort before `istio`: webhooks run in the
/// order of their configurations' names, and what Istio's injector is to know of a pod must be
/// there when it runs. Without a CA bundle, which the webhook keeps patched in.
///
/// Only pods that ask for the sidecar wait for the webhook, so that nothing else is kept from
/// starting while it is away; and never those of the namespace it runs in itself. Whether a model asks
/// for a pod, only the webhook can tell, so it is asked about the others too, and done without where it
/// does not answer.
///
/// Those come first: a pod that a model asks for leaves with the label, so that in the same round it
/// goes through the other one too, which is then called again after Istio's injector.
pub fn registration(name: &str, namespace: &str, service: &str) -> Value {
    let webhook = |name: &str, labels: Value, failure: &str, seconds: u32| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": { "name": service, "namespace": namespace, "path": WEBHOOK_PATH, "port": 443 },
            },
            "rules": [{
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": namespaces(namespace),
            "objectSelector": { "matchExpressions": labels },
            "failurePolicy": failure,
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            // Events, but not where nothing is to happen.
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": seconds,
        })
    };
    let unlabelled = json!([{ "key": names::INJECT_LABEL, "operator": "DoesNotExist" }]);
    // Anything but "false", so that a value that is neither is refused and not overlooked.
    let labelled = json!([
        { "key": names::INJECT_LABEL, "operator": "Exists" },
        { "key": names::INJECT_LABEL, "operator": "NotIn", "values": ["false"] },
    ]);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": name,
            "labels": { "app.kubernetes.io/managed-by": names::MANAGED_BY },
        },
        "webhooks": [
            // Nobody asked these pods to wait.
            webhook(SELECTED, unlabelled, "Ignore", 2),
            webhook(LABELLED, labelled, "Fail", 5),
        ],
    })
}

fn namespaces(own: &str) -> Value {
    let never: Vec<&str> = SYSTEM.into_iter().chain([own]).collect();
    json!({
        "matchLabels": { names::NAMESPACE_LABEL: "enabled" },
        "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": never },
        ],
    })
}
