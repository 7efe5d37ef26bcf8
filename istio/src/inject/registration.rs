//! The webhook as the API server knows it.

use serde_json::{Value, json};

use super::permission::SYSTEM;
use crate::names;

/// Where the webhook answers.
pub const WEBHOOK_PATH: &str = "/mutate";

/// The `MutatingWebhookConfiguration`. Its name should sort before `istio`: webhooks run in the
/// order of their configurations' names, and what Istio's injector is to know of a pod must be
/// there when it runs. Without a CA bundle, which the webhook keeps patched in.
///
/// Only pods that ask for the sidecar wait for the webhook, so that nothing else is kept from
/// starting while it is away; and never those of the namespace it runs in itself.
pub fn registration(name: &str, namespace: &str, service: &str) -> Value {
    let never: Vec<&str> = SYSTEM.into_iter().chain([namespace]).collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": name,
            "labels": { "app.kubernetes.io/managed-by": names::MANAGED_BY },
        },
        "webhooks": [{
            "name": "pods.injector.sconce.dev",
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
            "namespaceSelector": {
                "matchLabels": { names::NAMESPACE_LABEL: "enabled" },
                "matchExpressions": [
                    { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": never },
                ],
            },
            // Anything but "false", so that a value that is neither is refused and not overlooked.
            "objectSelector": { "matchExpressions": [
                { "key": names::INJECT_LABEL, "operator": "Exists" },
                { "key": names::INJECT_LABEL, "operator": "NotIn", "values": ["false"] },
            ] },
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            // Events, but not where nothing is to happen.
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": 5,
        }],
    })
}
