//! Whether a model's lanes reach its sidecars.

use std::collections::BTreeSet;

use sconce_catalog::Lane;
use sconce_istio::{
    names::{LANES_SERVICE, MODEL_LABEL_PREFIX, READY},
    render::{Backend, Options, lanes, service},
    selectors::Selectors,
};
use serde_json::Value;

use super::{
    super::{
        Finding, View,
        view::{place, text},
    },
    routes::model,
    webhook::ready,
};
use crate::{
    pods,
    troubles::{named, typed},
};

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    for object in view.services.iter().flatten() {
        let Some(backend) = model(object).and_then(|name| Backend::new(name).ok()) else { continue };
        findings.extend(altered(object, &service(&backend, &Options::default())));
        findings.extend(without_endpoints(object, view));
    }
    findings.extend(untold(view));
    findings.extend(view.pods.iter().flatten().filter(|pod| pods::is_current(pod)).filter_map(without_port));
    findings
}

/// What of a Service's lanes somebody has changed: with another `appProtocol`, for one, gRPC
/// arrives as HTTP/1.1.
fn altered(object: &Value, wanted: &Value) -> Option<Finding> {
    let mut changed = Vec::new();
    let held = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in wanted["spec"]["ports"].as_array().into_iter().flatten() {
        let lane = text(&port["name"]);
        let Some(found) = held.iter().find(|one| one["name"] == lane) else {
            changed.push(format!("the lane {lane} is missing"));
            continue;
        };
        let fields = port.as_object().into_iter().flatten();
        let other = fields.filter(|(key, value)| found[key.as_str()] != **value);
        changed.extend(other.map(|(key, value)| {
            format!("{key} of the lane {lane} is {} and not {value}", found[key.as_str()])
        }));
    }
    if object["spec"]["selector"] != wanted["spec"]["selector"] {
        changed.push("its selector is another".into());
    }
    (!changed.is_empty()).then(|| {
        let next = format!(
            "`kubectl delete {}`, and the control plane writes it anew; or `sconce render` prints it",
            typed(object)
        );
        Finding::error("lane-altered", named(object), changed.join("; "), next)
    })
}

/// Namespaces with models in which the mesh is not told what the lanes of every pod speak.
fn untold(view: &View) -> Vec<Finding> {
    let Some(services) = &view.services else { return Vec::new() };
    let namespaces: BTreeSet<&str> =
        services.iter().filter(|object| model(object).is_some()).map(|object| place(object).0).collect();
    let of = |namespace: &str| services.iter().find(|object| place(object) == (namespace, LANES_SERVICE));
    let check = |namespace: &str| match of(namespace) {
        Some(held) => altered(held, &lanes(namespace, &Selectors::of(held))),
        None => Some(Finding::error(
            "lanes-untold",
            format!("Service {namespace}/{LANES_SERVICE}"),
            "it is not there, so that workloads of the mesh may forge who they are to pods that are no endpoint yet",
            "the control plane writes it where it publishes and may: see `sconce events`, and its log",
        )),
    };
    namespaces.into_iter().filter_map(check).collect()
}

fn without_endpoints(object: &Value, view: &View) -> Option<Finding> {
    let (namespace, name) = place(object);
    let own = |slice: &&Value| {
        place(slice).0 == namespace && slice["metadata"]["labels"]["kubernetes.io/service-name"] == name
    };
    let endpoints = view.slices.as_ref()?.iter().filter(own).flat_map(ready).count();
    if endpoints > 0 {
        return None;
    }
    let label = format!("{MODEL_LABEL_PREFIX}{name}");
    let in_namespace =
        view.pods.iter().flatten().filter(|pod| pods::is_current(pod) && place(pod).0 == namespace);
    let (labelled, unlabelled): (Vec<&Value>, Vec<&Value>) = in_namespace
        .filter(|pod| pods::sidecar(pod).is_some())
        .partition(|pod| pod["metadata"]["labels"][&label] == READY);
    let (problem, next) = match (labelled.len(), unlabelled.len()) {
        (0, 0) => (
            "no pod of its namespace has a sidecar".to_owned(),
            format!("label the namespace and a workload of {namespace}: docs/injection.md"),
        ),
        (0, count) => (
            format!("none of {count} pods with a sidecar has every version with a share"),
            format!("see `sconce versions {namespace}/{name}` for what they lack"),
        ),
        (count, _) => (
            format!("{count} pods have the versions, and none is ready"),
            format!("look at `kubectl get pods -n {namespace} -l {label}={READY}`"),
        ),
    };
    Some(Finding::error(
        "no-endpoints",
        named(object),
        format!("no pod is behind it, so that every request is answered 503: {problem}"),
        next,
    ))
}

/// A partial container of the user's, or another injector, may have taken a lane's port away.
fn without_port(pod: &Value) -> Option<Finding> {
    let container = pods::sidecar(pod)?;
    let ports: Vec<&Value> =
        container["ports"].as_array().into_iter().flatten().map(|port| &port["containerPort"]).collect();
    let missing: Vec<String> = Lane::ALL
        .into_iter()
        .filter(|lane| !ports.iter().any(|port| **port == lane.container_port()))
        .map(|lane| format!("{} ({lane})", lane.container_port()))
        .collect();
    (!missing.is_empty()).then(|| {
        let problem = format!(
            "its sidecar does not declare {}, so that Istio's sidecar may not pass that on",
            missing.join(", ")
        );
        Finding::warning(
            "lane-port-missing",
            named(pod),
            problem,
            format!("take the change of `ports` away and make the pod anew ({})", pods::workload(pod)),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    fn edited(edit: impl FnOnce(&mut Value)) -> Vec<Finding> {
        let mut view = healthy();
        edit(by_name(view.services.as_mut().expect("seen"), "digits"));
        check(&view)
    }

    #[test]
    fn a_lane_that_was_changed_or_taken_away_is_named() {
        let protocol = edited(|service| service["spec"]["ports"][1]["appProtocol"] = "http".into());
        assert_eq!(checks(&protocol), ["lane-altered"]);
        assert!(
            protocol[0]
                .problem
                .contains("appProtocol of the lane canary is \"http\" and not \"kubernetes.io/h2c\""),
            "{protocol:?}"
        );
        let gone = edited(|service| drop(service["spec"]["ports"].as_array_mut().expect("ports").remove(0)));
        assert!(gone[0].problem.contains("the lane live is missing"), "{gone:?}");
        let selector = edited(|service| service["spec"]["selector"] = json!({ "app": "checkout" }));
        assert!(selector[0].problem.contains("selector"), "{selector:?}");
        // What the API server adds is no change.
        assert_eq!(edited(|service| service["spec"]["ports"][0]["nodePort"] = json!(30_000)), []);
    }

    #[test]
    fn a_namespace_whose_lanes_the_mesh_is_not_told_of_is_found() {
        let mut view = healthy();
        let services = view.services.as_mut().expect("seen");
        by_name(services, "sconce-lanes")["spec"]["ports"][0]["appProtocol"] = "tcp".into();
        assert_eq!(checks(&check(&view)), ["lane-altered"]);
        view.services.as_mut().expect("seen").retain(|service| place(service).1 != "sconce-lanes");
        assert_eq!(checks(&check(&view)), ["lanes-untold"]);
    }

    #[test]
    fn a_service_with_nobody_behind_it_is_found_with_the_reason() {
        let mut view = healthy();
        view.slices.as_mut().expect("seen").retain(|slice| place(slice).0 != "shop");
        assert!(check(&view)[0].problem.ends_with("1 pods have the versions, and none is ready"));
        let pods = view.pods.as_mut().expect("seen");
        pods[0]["metadata"]["labels"].as_object_mut().expect("labels").remove("sconce.dev/model.digits");
        let found = check(&view);
        assert_eq!(checks(&found), ["no-endpoints"]);
        assert!(found[0].next.contains("sconce versions shop/digits"), "{found:?}");
        view.pods = Some(Vec::new());
        assert!(check(&view)[0].problem.contains("no pod of its namespace has a sidecar"));
    }

    #[test]
    fn a_sidecar_without_the_port_of_a_lane_is_found() {
        let mut view = healthy();
        let pod = &mut view.pods.as_mut().expect("seen")[0];
        let container = pod["spec"]["initContainers"]
            .as_array_mut()
            .expect("a list")
            .iter_mut()
            .find(|one| one["name"] == "sconce")
            .expect("ours");
        container["ports"].as_array_mut().expect("ports").retain(|port| port["containerPort"] != 8444);
        let found = check(&view);
        assert_eq!(checks(&found), ["lane-port-missing"]);
        assert!(found[0].problem.contains("8444 (canary)"), "{found:?}");
    }
}
