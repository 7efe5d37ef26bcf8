//! Why pods do not run, as far as the cluster says it: a pure function of its objects.

use serde_json::Value;

use crate::pods::is_ready;

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Such as `Pod shop/checkout-1`.
    pub(crate) object: String,
    pub(crate) problem: String,
    pub(crate) next: String,
}

/// A Deployment that is not available, and what is around it.
pub(crate) struct Workload<'a> {
    pub(crate) deployment: &'a Value,
    /// Of its namespace.
    pub(crate) replica_sets: &'a [Value],
    /// Of its namespace.
    pub(crate) pods: &'a [Value],
    /// Of its namespace, the oldest first.
    pub(crate) events: &'a [Value],
}

/// Whether a Deployment has as many pods of its newest kind as it wants, and no others.
pub(crate) fn is_available(deployment: &Value) -> bool {
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let status = &deployment["status"];
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    status["observedGeneration"].as_i64() >= deployment["metadata"]["generation"].as_i64()
        && number("updatedReplicas") == wanted
        && number("availableReplicas") >= wanted
        && number("replicas") == wanted
}

/// Everything that keeps a Deployment from being available.
pub(crate) fn of_workload(workload: &Workload<'_>) -> Vec<Trouble> {
    let own: Vec<&Value> =
        workload.replica_sets.iter().filter(|set| owned_by(set, workload.deployment)).collect();
    let refused = own.iter().filter_map(|set| of_replica_set(set, workload.deployment));
    let pods = workload.pods.iter().filter(|pod| own.iter().any(|set| owned_by(pod, set)));
    let of_pods = pods.filter(|pod| !is_ready(pod)).flat_map(|pod| {
        let troubles = of_pod(pod);
        if troubles.is_empty() { from_events(pod, workload.events).into_iter().collect() } else { troubles }
    });
    let mut all: Vec<Trouble> = refused.chain(of_pods).collect();
    if all.is_empty() {
        all.push(Trouble {
            object: named(workload.deployment),
            problem: available(workload.deployment),
            next: format!("look at `kubectl describe {}`", typed(workload.deployment)),
        });
    }
    all
}

/// What keeps a pod's containers from running.
pub(crate) fn of_pod(pod: &Value) -> Vec<Trouble> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let statuses = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    let mut troubles: Vec<Trouble> = statuses.filter_map(|status| of_container(pod, status)).collect();
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    troubles.extend(conditions.filter(|condition| condition["reason"] == "Unschedulable").map(|condition| Trouble {
        object: named(pod),
        problem: format!("no node takes it: {}", text(&condition["message"])),
        next: "free or add what is named; a data volume that no StorageClass provides is left out by --ephemeral".into(),
    }));
    troubles
}

fn of_container(pod: &Value, status: &Value) -> Option<Trouble> {
    let name = text(&status["name"]);
    let waiting = &status["state"]["waiting"];
    let reason = waiting["reason"].as_str()?;
    let message = match waiting["message"].as_str() {
        Some(message) => format!(": {message}"),
        None => String::new(),
    };
    let next = match reason {
        "ContainerCreating" | "PodInitializing" => return None,
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            "push the image where the node finds it, or name another; a private registry needs a pull secret"
                .to_owned()
        }
        "CrashLoopBackOff" => format!(
            "read `kubectl logs -n {} {} -c {name} --previous`",
            namespace(pod),
            text(&pod["metadata"]["name"])
        ),
        _ => format!("read `kubectl describe {}`", typed(pod)),
    };
    let last = &status["lastState"]["terminated"];
    let ended = match (last["exitCode"].as_i64(), last["message"].as_str()) {
        (Some(code), Some(said)) => format!("; it ended with {code} and said: {}", said.trim()),
        (Some(code), None) => format!("; it ended with {code} ({})", text(&last["reason"])),
        (None, _) => String::new(),
    };
    Some(Trouble { object: named(pod), problem: format!("container {name}: {reason}{message}{ended}"), next })
}

/// Quotas, Pod Security and admission keep a ReplicaSet from making pods at all.
fn of_replica_set(set: &Value, deployment: &Value) -> Option<Trouble> {
    let conditions = set["status"]["conditions"].as_array()?;
    let failure = conditions
        .iter()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")?;
    let message = text(&failure["message"]);
    let next = if message.contains("exceeded quota") {
        "raise the ResourceQuota of the namespace, or ask for less"
    } else if message.contains("violates PodSecurity") {
        "let the namespace take it (its label pod-security.kubernetes.io/enforce); where it is Istio's \
         init container that is refused, install istio-cni"
    } else if message.contains("failed calling webhook") {
        "bring that webhook back, or take its registration away"
    } else {
        "do as the message says"
    };
    Some(Trouble {
        object: named(deployment),
        problem: format!("no pod can be made: {message}"),
        next: next.into(),
    })
}

/// Such as a volume that cannot be mounted, of which a pod's own status says nothing.
fn from_events(pod: &Value, events: &[Value]) -> Option<Trouble> {
    let about = |event: &&Value| {
        event["involvedObject"]["uid"] == pod["metadata"]["uid"] && event["type"] == "Warning"
    };
    let last = events.iter().rfind(about)?;
    Some(Trouble {
        object: named(pod),
        problem: format!("{}: {}", text(&last["reason"]), text(&last["message"]).trim()),
        next: format!("read `kubectl describe {}`", typed(pod)),
    })
}

fn available(deployment: &Value) -> String {
    let (status, spec) = (&deployment["status"], &deployment["spec"]);
    let ready = status["availableReplicas"].as_u64().unwrap_or_default();
    format!("{ready} of {} pods are available", spec["replicas"].as_u64().unwrap_or(1))
}

/// Whether `object` was made by the controller of `owner`.
pub(crate) fn owned_by(object: &Value, owner: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let uid = &owner["metadata"]["uid"];
    !uid.is_null() && owners.into_iter().flatten().any(|reference| reference["uid"] == *uid)
}

/// Such as `Pod shop/checkout-1`.
pub(crate) fn named(object: &Value) -> String {
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// As `kubectl` takes it, such as `pod/checkout-1 -n shop`.
pub(crate) fn typed(object: &Value) -> String {
    let (kind, name) = (text(&object["kind"]).to_lowercase(), text(&object["metadata"]["name"]));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind}/{name} -n {namespace}"),
        None => format!("{kind}/{name}"),
    }
}

fn namespace(object: &Value) -> &str {
    text(&object["metadata"]["namespace"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Value {
        json!({
            "kind": "Deployment", "metadata": { "namespace": "s", "name": "sconce", "uid": "d", "generation": 2 },
            "spec": { "replicas": 2 },
            "status": { "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 },
        })
    }

    fn set(conditions: Value) -> Value {
        json!({
            "kind": "ReplicaSet", "metadata": { "namespace": "s", "name": "sconce-1", "uid": "r", "ownerReferences": [{ "uid": "d" }] },
            "status": { "conditions": conditions },
        })
    }

    fn pod(status: Value) -> Value {
        json!({
            "kind": "Pod", "metadata": { "namespace": "s", "name": "sconce-1-a", "uid": "p", "ownerReferences": [{ "uid": "r" }] },
            "status": status,
        })
    }

    fn troubles(sets: &[Value], pods: &[Value], events: &[Value]) -> Vec<Trouble> {
        of_workload(&Workload { deployment: &deployment(), replica_sets: sets, pods, events })
    }

    #[test]
    fn a_deployment_is_available_once_all_of_its_pods_are_of_the_newest_kind() {
        assert!(is_available(&deployment()));
        for (key, value) in
            [("observedGeneration", 1), ("updatedReplicas", 1), ("availableReplicas", 1), ("replicas", 3)]
        {
            let mut one = deployment();
            one["status"][key] = value.into();
            assert!(!is_available(&one), "{key}");
        }
        let mut new = deployment();
        new["status"] = json!({});
        assert!(!is_available(&new));
    }

    #[test]
    fn an_image_that_is_not_there_is_named() {
        let waiting = json!({ "reason": "ImagePullBackOff", "message": "Back-off pulling image \"sconce-control-plane:0.1.0\"" });
        let status =
            json!({ "containerStatuses": [{ "name": "control-plane", "state": { "waiting": waiting } }] });
        let found = troubles(&[set(json!([]))], &[pod(status)], &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].object, "Pod s/sconce-1-a");
        assert!(found[0].problem.contains("sconce-control-plane:0.1.0"), "{found:?}");
        assert!(found[0].next.contains("pull secret"), "{found:?}");
    }

    #[test]
    fn what_keeps_pods_from_being_made_is_told_with_what_to_do_about_it() {
        for (message, next) in [
            ("pods \"sconce-1\" is forbidden: exceeded quota: team, requested: pods=1", "ResourceQuota"),
            (
                "pods \"sconce-1\" is forbidden: violates PodSecurity \"restricted:latest\"",
                "pod-security.kubernetes.io",
            ),
            ("Internal error occurred: failed calling webhook \"x\": refused", "webhook"),
        ] {
            let conditions = json!([{ "type": "ReplicaFailure", "status": "True", "message": message }]);
            let found = troubles(&[set(conditions)], &[], &[]);
            assert!(found[0].problem.contains(message) && found[0].next.contains(next), "{found:?}");
        }
    }

    #[test]
    fn a_crash_is_told_with_its_last_words() {
        let status = json!({ "containerStatuses": [{
            "name": "control-plane", "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": 64, "message": "SCONCE_LISTEN is \"x\"\n" } },
        }] });
        let found = troubles(&[set(json!([]))], &[pod(status)], &[]);
        assert!(found[0].problem.ends_with("it ended with 64 and said: SCONCE_LISTEN is \"x\""), "{found:?}");
        assert!(
            found[0].next.contains("kubectl logs -n s sconce-1-a -c control-plane --previous"),
            "{found:?}"
        );
    }

    #[test]
    fn nodes_events_and_silence_are_told_too() {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: unbound PersistentVolumeClaims" });
        let found = troubles(&[set(json!([]))], &[pod(json!({ "conditions": [condition] }))], &[]);
        assert!(found[0].problem.contains("unbound") && found[0].next.contains("--ephemeral"), "{found:?}");

        let creating = json!({ "containerStatuses": [{ "name": "c", "state": { "waiting": { "reason": "ContainerCreating" } } }] });
        let event = json!({ "type": "Warning", "reason": "FailedMount", "message": "no such ConfigMap", "involvedObject": { "uid": "p" } });
        let found = troubles(&[set(json!([]))], &[pod(creating)], &[event]);
        assert_eq!(found[0].problem, "FailedMount: no such ConfigMap");

        let found = troubles(&[set(json!([]))], &[], &[]);
        assert_eq!(found[0].problem, "2 of 2 pods are available");
    }

    #[test]
    fn pods_of_others_and_pods_that_are_ready_are_no_trouble() {
        let waiting = json!({ "containerStatuses": [{ "name": "c", "state": { "waiting": { "reason": "ErrImagePull" } } }] });
        let mut foreign = pod(waiting);
        foreign["metadata"]["ownerReferences"][0]["uid"] = "other".into();
        let ready = pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        let found = troubles(&[set(json!([]))], &[foreign, ready], &[]);
        assert_eq!(
            found.iter().map(|trouble| trouble.object.as_str()).collect::<Vec<_>>(),
            ["Deployment s/sconce"]
        );
    }
}
