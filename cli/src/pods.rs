//! What a pod says of itself: its sidecar, its workload, whether it is ready.

use sconce_istio::names::{CONTAINER, STATUS_ANNOTATION};
use serde_json::Value;

/// Whether a pod says that it is ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether it runs, or is about to: not one that has ended or is on its way out.
pub(crate) fn is_current(pod: &Value) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !ended && pod["metadata"].get("deletionTimestamp").is_none()
}

/// The container that the injector has put in, whichever kind of container it is.
pub(crate) fn sidecar(pod: &Value) -> Option<&Value> {
    let lists = ["initContainers", "containers"];
    let mut containers = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let injected = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str().is_some();
    containers.find(|container| injected && container["name"] == CONTAINER)
}

/// What the kubelet says of that container.
pub(crate) fn sidecar_status(pod: &Value) -> Option<&Value> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut statuses = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    statuses.find(|status| status["name"] == CONTAINER)
}

/// Who makes such pods, as `kubectl` takes it: `deployment/checkout -n shop`, or the pod itself
/// where nobody does.
pub(crate) fn workload(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let owners = metadata["ownerReferences"].as_array();
    let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let (kind, name) = match owner {
        None => ("pod".to_owned(), text(&metadata["name"])),
        Some(owner) => {
            let (kind, name) = (text(&owner["kind"]), text(&owner["name"]));
            let hash = format!("-{}", text(&metadata["labels"]["pod-template-hash"]));
            // A Deployment names its ReplicaSets by the hash that it labels their pods with.
            match name.strip_suffix(&hash).filter(|_| kind == "ReplicaSet" && hash.len() > 1) {
                Some(deployment) => ("deployment".to_owned(), deployment.to_owned()),
                None => (kind.to_lowercase(), name),
            }
        }
    };
    format!("{kind}/{name} -n {}", text(&metadata["namespace"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_workload_of_a_pod_is_what_people_restart() {
        let mut pod = json!({ "metadata": { "namespace": "shop", "name": "a", "labels": { "pod-template-hash": "5f9" } } });
        assert_eq!(workload(&pod), "pod/a -n shop");
        pod["metadata"]["ownerReferences"] =
            json!([{ "kind": "ReplicaSet", "name": "checkout-5f9", "controller": true }]);
        assert_eq!(workload(&pod), "deployment/checkout -n shop");
        pod["metadata"]["ownerReferences"] =
            json!([{ "kind": "StatefulSet", "name": "db", "controller": true }]);
        assert_eq!(workload(&pod), "statefulset/db -n shop");
    }

    #[test]
    fn a_container_of_that_name_is_ours_where_the_injector_says_so() {
        let mut pod =
            json!({ "metadata": {}, "spec": { "initContainers": [{ "name": "sconce", "image": "i" }] } });
        assert_eq!(sidecar(&pod), None);
        pod["metadata"]["annotations"] = json!({ "sconce.dev/status": "{\"hash\":\"1\"}" });
        assert_eq!(sidecar(&pod).expect("ours")["image"], "i");
    }
}
