//! What an uninstall leaves to its owners: pods that have a sidecar, namespaces that permit one.

use std::collections::BTreeMap;

use sconce_istio::names::NAMESPACE_LABEL;
use serde_json::Value;

use super::Found;
use crate::pods;

/// Says what is left, and what takes it away; empty where nothing is.
pub(super) fn text(found: &Found) -> String {
    let mut text = String::new();
    let mut workloads = BTreeMap::<String, usize>::new();
    for pod in found.sidecars.iter().filter(|pod| pods::is_current(pod)) {
        *workloads.entry(pods::workload(pod)).or_default() += 1;
    }
    if !workloads.is_empty() {
        text +=
            "these pods keep their sidecar, which goes on serving what it has, until they are made anew:\n";
    }
    for (workload, count) in workloads {
        let next = match workload.strip_prefix("pod/") {
            Some(_) => format!("kubectl delete {workload}"),
            None => format!("kubectl rollout restart {workload}"),
        };
        text += &format!("  {count} of {workload}: `{next}`\n");
    }
    for namespace in
        found.permitting.iter().filter_map(|namespace: &Value| namespace["metadata"]["name"].as_str())
    {
        text += &format!(
            "the namespace {namespace} has a label of Sconce's: `kubectl label namespace {namespace} {NAMESPACE_LABEL}-`\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sidecars_that_stay_are_counted_by_workload_with_what_to_type() {
        let pod = |name: &str, owner: Value| {
            let metadata = json!({
                "namespace": "shop", "name": name, "ownerReferences": owner,
                "labels": { "pod-template-hash": "5f9" }, "annotations": { "sconce.dev/status": "{}" },
            });
            json!({ "metadata": metadata, "spec": { "initContainers": [{ "name": "sconce" }] } })
        };
        let set = json!([{ "kind": "ReplicaSet", "name": "checkout-5f9", "controller": true }]);
        let mut leaving = pod("c", set.clone());
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
        let found = Found {
            sidecars: vec![pod("a", set.clone()), pod("b", set), leaving, pod("alone", json!([]))],
            permitting: vec![json!({ "metadata": { "name": "shop" } })],
            ..Found::default()
        };
        let text = text(&found);
        assert!(
            text.contains(
                "2 of deployment/checkout -n shop: `kubectl rollout restart deployment/checkout -n shop`"
            ),
            "{text}"
        );
        assert!(text.contains("1 of pod/alone -n shop: `kubectl delete pod/alone -n shop`"), "{text}");
        assert!(text.contains("kubectl label namespace shop sconce.dev/injection-"), "{text}");
        assert_eq!(super::text(&Found::default()), "");
    }
}
