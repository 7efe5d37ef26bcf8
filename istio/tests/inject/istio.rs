//! A model of what Istio's injector does to a pod, and of what an API server fills in: as far
//! as it can meet our own changes.

use serde_json::{Value, json};

const IMAGE: &str = "docker.io/istio/proxyv2:1.29.6";

/// Adds the proxy, rewrites every HTTP probe, orders the containers.
pub(super) fn inject(pod: &Value, native: bool) -> Value {
    let mut pod = pod.clone();
    let mut proxy = json!({
        "name": "istio-proxy",
        "image": IMAGE,
        "volumeMounts": [{ "name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds" }],
    });
    let (list, listed) =
        if native { ("initContainers", "containers") } else { ("containers", "initContainers") };
    if native {
        proxy["restartPolicy"] = json!("Always");
    }
    rewrite_probes(&mut pod);
    items(&mut pod, list).push(proxy);
    items(&mut pod, "initContainers").push(json!({ "name": "istio-init", "image": IMAGE }));
    items(&mut pod, listed);
    let volumes = items(&mut pod, "volumes");
    if !volumes.iter().any(|volume| volume["name"] == "workload-socket") {
        volumes.push(json!({ "name": "workload-socket", "emptyDir": {} }));
    }
    volumes.push(json!({ "name": "istio-envoy", "emptyDir": { "medium": "Memory" } }));
    pod["metadata"]["annotations"]["sidecar.istio.io/status"] = json!("{}");
    pod["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("istio");
    pod["metadata"]["labels"]["service.istio.io/canonical-name"] = json!("fraud");
    reorder(&mut pod, native);
    pod
}

fn items<'a>(pod: &'a mut Value, list: &str) -> &'a mut Vec<Value> {
    let items = &mut pod["spec"][list];
    if items.is_null() {
        *items = json!([]);
    }
    items.as_array_mut().expect("a list")
}

fn entries<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn rewrite_probes(pod: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in items(pod, list) {
            let name = container["name"].as_str().expect("a name").to_owned();
            for (probe, path) in
                [("startupProbe", "startupz"), ("readinessProbe", "readyz"), ("livenessProbe", "livez")]
            {
                if let Some(get) = container.pointer_mut(&format!("/{probe}/httpGet")) {
                    *get = json!({ "path": format!("/app-health/{name}/{path}"), "port": 15020 });
                }
            }
        }
    }
}

/// Native: set-up, proxy, the rest. Otherwise the set-up is last of the init containers.
fn reorder(pod: &mut Value, native: bool) {
    let init = items(pod, "initContainers");
    init.sort_by_key(|container| match container["name"].as_str() {
        Some("istio-init") if native => 0,
        Some("istio-proxy") => 1,
        Some("istio-init") => 3,
        _ => 2,
    });
}

/// The fields that an API server adds to what a webhook returns, before the next one sees it.
pub(super) fn defaulted(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let fill = |object: &mut Value, key: &str, value: Value| {
        if object[key].is_null() {
            object[key] = value;
        }
    };
    for list in ["initContainers", "containers"] {
        for container in items(&mut pod, list) {
            fill(container, "terminationMessagePath", json!("/dev/termination-log"));
            fill(container, "terminationMessagePolicy", json!("File"));
            fill(container, "imagePullPolicy", json!("IfNotPresent"));
            fill(container, "resources", json!({}));
            for port in entries(container, "ports") {
                fill(port, "protocol", json!("TCP"));
            }
            for variable in entries(container, "env") {
                if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
                    fill(field, "apiVersion", json!("v1"));
                }
            }
        }
    }
    fill(&mut pod["spec"], "terminationGracePeriodSeconds", json!(30));
    fill(&mut pod["spec"], "restartPolicy", json!("Always"));
    pod
}

/// Without what may differ with the order: that of volumes, what each injector says it has
/// added, and whether our probes were there to be rewritten.
pub(super) fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    items(&mut pod, "volumes").sort_by_key(|volume| volume["name"].to_string());
    for list in ["initContainers", "containers"] {
        for container in items(&mut pod, list).iter_mut().filter(|c| c["name"] == "sconce") {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                if let Some(get) = container.pointer_mut(&format!("/{probe}/httpGet")) {
                    *get = json!("somewhere");
                }
            }
        }
        // An ordinary container of ours is after or before the ordinary proxy, which is the same.
        if list == "containers" {
            items(&mut pod, list).sort_by_key(|container| container["name"].to_string());
        }
    }
    pod["metadata"]["annotations"]["sconce.dev/status"] = Value::Null;
    pod
}
