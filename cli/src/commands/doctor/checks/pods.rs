//! Whether pods that ask for a sidecar have one, and whether it is ready.

use std::collections::BTreeMap;

use sconce_catalog::Labels;
use sconce_istio::{
    names::{CONTAINER, INJECT_LABEL, LANES_SERVICE, NAMESPACE_LABEL, STATUS_ANNOTATION},
    selectors::Selectors,
};
use serde_json::Value;

use super::super::{
    Finding, View,
    view::{place, text},
};
use crate::{pods, troubles};

/// How long a pod may take to start, in seconds, before it is in trouble.
const STARTING: i64 = 30;
/// What says that a namespace is in a mesh.
const MESH: [&str; 3] = ["istio-injection", "istio.io/rev", "istio.io/dataplane-mode"];

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut found = Grouped::default();
    for pod in view.pods.iter().flatten().filter(|pod| pods::is_current(pod)) {
        match pods::sidecar(pod) {
            Some(_) => found.extend(pod, unready(pod, view)),
            None => found.extend(pod, uninjected(pod, view)),
        }
    }
    let mut findings = found.findings();
    findings.extend(unmeshed(view));
    findings
}

/// One finding for all pods of a workload that are in the same trouble.
#[derive(Default)]
struct Grouped(BTreeMap<(String, String), (Finding, usize)>);

impl Grouped {
    fn extend(&mut self, pod: &Value, finding: Option<Finding>) {
        let Some(finding) = finding else { return };
        let key = (pods::workload(pod), finding.problem.clone());
        self.0.entry(key).or_insert((finding, 0)).1 += 1;
    }

    fn findings(self) -> Vec<Finding> {
        let one = |(mut finding, count): (Finding, usize)| {
            if count > 1 {
                finding.object = format!("{} and {} more like it", finding.object, count - 1);
            }
            finding
        };
        self.0.into_values().map(one).collect()
    }
}

fn object(pod: &Value) -> String {
    let (namespace, name) = place(pod);
    format!("Pod {namespace}/{name}")
}

/// How to make pods anew.
fn again(pod: &Value) -> String {
    let workload = pods::workload(pod);
    if workload.starts_with("pod/") {
        format!("make the pod anew: `kubectl delete {workload}`, then create it")
    } else {
        format!("`kubectl rollout restart {workload}`")
    }
}

fn uninjected(pod: &Value, view: &View) -> Option<Finding> {
    let label = pod["metadata"]["labels"].get(INJECT_LABEL).map(text);
    let namespace = place(pod).0;
    if namespace == view.system {
        return None;
    }
    match label {
        Some("true") => {}
        Some(_) => return None,
        None => return unselected(pod, view),
    }
    if let Some(why) = text(&pod["metadata"]["annotations"][STATUS_ANNOTATION]).strip_prefix("skipped: ") {
        return Some(Finding::warning(
            "uninjected",
            object(pod),
            format!("it has no sidecar: {why}"),
            "change that, or take the label away",
        ));
    }
    let permits = view.namespace(namespace)?["metadata"]["labels"][NAMESPACE_LABEL] == "enabled";
    if !permits {
        let next =
            format!("`kubectl label namespace {namespace} {NAMESPACE_LABEL}=enabled`, then {}", again(pod));
        let problem =
            format!("it asks for a sidecar, and its namespace has no label {NAMESPACE_LABEL}=enabled");
        return Some(Finding::warning("uninjected", object(pod), problem, next));
    }
    let problem = "it asks for a sidecar and has none: it was made before the labels were, or while no webhook was registered";
    Some(Finding::error("uninjected", object(pod), problem, again(pod)))
}

/// A pod that no label speaks for, and a model's selector does.
fn unselected(pod: &Value, view: &View) -> Option<Finding> {
    let namespace = place(pod).0;
    let permits = view.namespace(namespace)?["metadata"]["labels"][NAMESPACE_LABEL] == "enabled";
    let lanes = view
        .services
        .iter()
        .flatten()
        .find(|service| place(service) == (namespace, LANES_SERVICE))
        .filter(|_| permits)?;
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    let pairs = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let selectors = Selectors::of(lanes);
    let (model, selector) = selectors.asking(&Labels::new(pairs).ok()?)?;
    let asks = format!("the selector of the model {model} ({}) asks for a sidecar in it", selector.labels());
    let label = format!("or label its template {INJECT_LABEL}: \"false\" where it is to have none");
    let skipped = text(&pod["metadata"]["annotations"][STATUS_ANNOTATION]).strip_prefix("skipped: ");
    let (problem, next) = match skipped {
        Some(why) => (format!("it has no sidecar: {why}"), format!("change that, {label}")),
        None => (
            format!("{asks}, and it has none: it is older than the selector, or the injector was away"),
            format!("{}, {label}", again(pod)),
        ),
    };
    Some(Finding::warning("uninjected", object(pod), problem, next))
}

fn unready(pod: &Value, view: &View) -> Option<Finding> {
    let status = pods::sidecar_status(pod);
    if status.is_some_and(|status| status["ready"] == true) {
        return None;
    }
    let found =
        |problem: String, next: String| Some(Finding::error("sidecar-not-ready", object(pod), problem, next));
    let own = format!("container {CONTAINER}: ");
    if let Some(trouble) = troubles::of_pod(pod).into_iter().find(|trouble| trouble.problem.starts_with(&own))
    {
        return found(trouble.problem, trouble.next);
    }
    let made: Option<jiff::Timestamp> = text(&pod["metadata"]["creationTimestamp"]).parse().ok();
    if made.is_some_and(|made| made.as_second() + STARTING > view.now) {
        return None;
    }
    if let Some(trouble) = troubles::of_pod(pod).into_iter().next() {
        return found(trouble.problem, trouble.next);
    }
    let (namespace, name) = place(pod);
    let problem = if status.is_some_and(|status| status["state"].get("running").is_some()) {
        "its sidecar runs and is not ready: it has no identity, or waits for models"
    } else {
        "its sidecar does not run"
    };
    found(problem.into(), format!("read `kubectl logs -n {namespace} {name} -c {CONTAINER}`"))
}

/// In a mesh, a sidecar takes its identity from it.
fn unmeshed(view: &View) -> Vec<Finding> {
    if view.has_istio != Some(true) {
        return Vec::new();
    }
    let is_meshed = |labels: &Value| {
        MESH.iter()
            .any(|label| labels[*label].as_str().is_some_and(|value| value != "disabled" && value != "none"))
    };
    let outside = view.namespaces.iter().flatten().filter(|namespace| {
        let labels = &namespace["metadata"]["labels"];
        labels[NAMESPACE_LABEL] == "enabled" && !is_meshed(labels)
    });
    outside
        .map(|namespace| {
            let name = place(namespace).1;
            Finding::warning(
                "namespace-not-meshed",
                format!("Namespace {name}"),
                "it permits Sconce's sidecar and not Istio's, which the routes between versions need",
                format!("`kubectl label namespace {name} istio-injection=enabled` (or your istio.io/rev), then restart its workloads"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use sconce_istio::names::SELECTORS_ANNOTATION;
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{bare_pod, by_name, checks, healthy};

    fn with(pods: Vec<Value>) -> View {
        View { pods: Some(pods), ..healthy() }
    }

    #[test]
    fn pods_that_ask_and_have_no_sidecar_are_found_once_for_each_workload() {
        let pod = |name: &str| {
            let mut pod = bare_pod(name);
            pod["metadata"]["ownerReferences"] =
                json!([{ "kind": "StatefulSet", "name": "checkout", "controller": true }]);
            pod
        };
        let found = check(&with(vec![pod("a"), pod("b")]));
        assert_eq!(checks(&found), ["uninjected"]);
        assert_eq!(found[0].object, "Pod shop/a and 1 more like it");
        assert_eq!(found[0].next, "`kubectl rollout restart statefulset/checkout -n shop`");
    }

    #[test]
    fn pods_that_a_model_asks_for_and_that_have_no_sidecar_are_found() {
        let mut pod = bare_pod("a");
        pod["metadata"]["labels"] = json!({ "team": "pay" });
        let mut view = with(vec![pod.clone()]);
        let selecting = |view: &mut View, text: &str| {
            let services = view.services.as_mut().expect("seen");
            by_name(services, LANES_SERVICE)["metadata"]["annotations"] =
                json!({ SELECTORS_ANNOTATION: text });
        };
        selecting(&mut view, r#"{"churn":{"team":"ads"},"everywhere":{}}"#);
        assert_eq!(check(&view), []);
        selecting(&mut view, r#"{"fraud":{"team":"pay"}}"#);
        let found = check(&view);
        assert_eq!(checks(&found), ["uninjected"]);
        assert!(found[0].problem.contains("the model fraud (team=pay)"), "{found:?}");
        assert!(found[0].next.contains("sconce.dev/inject: \"false\""), "{found:?}");
        let why = "the selector of the model fraud asks for it, but the container uses port 8443";
        pod["metadata"]["annotations"] = json!({ STATUS_ANNOTATION: format!("skipped: {why}") });
        view.pods = Some(vec![pod.clone()]);
        assert!(check(&view)[0].problem.ends_with("uses port 8443"));
        pod["metadata"]["labels"][INJECT_LABEL] = "false".into();
        view.pods = Some(vec![pod]);
        assert_eq!(check(&view), []);
    }

    #[test]
    fn a_reason_that_the_injector_gave_is_repeated() {
        let mut pod = bare_pod("a");
        pod["metadata"]["annotations"] = json!({ "sconce.dev/status": "skipped: it runs on Windows" });
        assert!(check(&with(vec![pod]))[0].problem.ends_with("it runs on Windows"));
    }

    #[test]
    fn a_namespace_that_does_not_permit_it_is_named() {
        let mut view = with(vec![bare_pod("a")]);
        view.namespaces.as_mut().expect("seen")[0]["metadata"]["labels"] =
            json!({ "istio-injection": "enabled" });
        let found = check(&view);
        assert_eq!(checks(&found), ["uninjected"]);
        assert!(
            found[0].next.contains("kubectl label namespace shop sconce.dev/injection=enabled"),
            "{found:?}"
        );
    }

    #[test]
    fn pods_that_do_not_ask_or_are_over_are_no_concern() {
        let mut opted_out = bare_pod("a");
        opted_out["metadata"]["labels"][INJECT_LABEL] = "false".into();
        let mut over = bare_pod("b");
        over["status"]["phase"] = "Succeeded".into();
        assert_eq!(check(&with(vec![opted_out, over])), []);
    }

    #[test]
    fn a_sidecar_that_is_not_ready_is_found_with_the_reason_and_given_time_to_start() {
        let view = healthy();
        let mut pod = view.pods.clone().expect("seen").remove(0);
        let status = |pod: &mut Value, state: Value| {
            pod["status"] =
                json!({ "initContainerStatuses": [{ "name": "sconce", "ready": false, "state": state }] });
        };
        status(&mut pod, json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }));
        let found = check(&with(vec![pod.clone()]));
        assert_eq!(checks(&found), ["sidecar-not-ready"]);
        assert!(found[0].problem.contains("no such image"), "{found:?}");
        status(&mut pod, json!({ "running": {} }));
        let found = check(&with(vec![pod.clone()]));
        assert!(found[0].next.contains("kubectl logs -n shop checkout-1 -c sconce"), "{found:?}");
        pod["metadata"]["creationTimestamp"] =
            json!(jiff::Timestamp::from_second(view.now - 5).expect("a moment"));
        assert_eq!(check(&with(vec![pod])), []);
    }

    #[test]
    fn a_namespace_outside_the_mesh_is_found() {
        let mut view = healthy();
        for (labels, expected) in [
            (json!({ "sconce.dev/injection": "enabled" }), 1),
            (json!({ "sconce.dev/injection": "enabled", "istio-injection": "disabled" }), 1),
            (json!({ "sconce.dev/injection": "enabled", "istio.io/rev": "canary" }), 0),
            (json!({ "sconce.dev/injection": "enabled", "istio.io/dataplane-mode": "ambient" }), 0),
        ] {
            view.namespaces.as_mut().expect("seen")[0]["metadata"]["labels"] = labels.clone();
            assert_eq!(check(&view).len(), expected, "{labels}");
        }
    }
}
