//! Whether Sconce itself is there, runs, and publishes.

use sconce_istio::install::{CONTROL_PLANE, INJECTOR, LEASE};
use serde_json::Value;

use super::super::{
    Finding, View,
    view::{place, text},
};
use crate::troubles::{self, Workload, named, typed};

/// Whether there is nothing of an installation.
pub(super) fn is_absent(view: &View) -> bool {
    let gone = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(Vec::is_empty);
    gone(&view.deployments) && gone(&view.settings)
}

pub(super) fn check(view: &View) -> Vec<Finding> {
    if is_absent(view) {
        let next = "run `sconce install`, or name its namespace with --namespace";
        return vec![Finding::error("not-installed", "the cluster", "Sconce is not installed", next)];
    }
    let mut findings = second(view);
    if view.deployments.is_some() {
        findings.extend([CONTROL_PLANE, INJECTOR].into_iter().flat_map(|name| running(view, name)));
    }
    findings.extend(mesh(view));
    findings.extend(publisher(view));
    findings
}

/// Two installations would take each other's objects for left-overs.
fn second(view: &View) -> Vec<Finding> {
    let others = view.deployments.iter().flatten().filter(|deployment| {
        let (namespace, name) = place(deployment);
        name == CONTROL_PLANE && namespace != view.system
    });
    others
        .map(|other| {
            let namespace = place(other).0;
            let problem = format!(
                "a second installation beside that in {}: each takes what the other publishes away",
                view.system
            );
            Finding::error(
                "second-installation",
                named(other),
                problem,
                format!("`sconce uninstall --namespace {namespace}`"),
            )
        })
        .collect()
}

fn running(view: &View, name: &str) -> Vec<Finding> {
    let Some(deployment) = view.deployment(name) else {
        let object = format!("Deployment {}/{name}", view.system);
        return vec![Finding::error(
            "not-running",
            object,
            "it is not there",
            "run `sconce install`, or `helm upgrade`",
        )];
    };
    if deployment["spec"]["replicas"] == 0 {
        let next = format!("`kubectl scale {} --replicas=1`", typed(deployment));
        return vec![Finding::error("not-running", named(deployment), "it has no replicas", next)];
    }
    if troubles::is_available(deployment) {
        return Vec::new();
    }
    let list = |list: &'_ Option<Vec<Value>>| list.clone().unwrap_or_default();
    let workload = Workload {
        deployment,
        replica_sets: &list(&view.replica_sets),
        pods: &list(&view.system_pods),
        events: &list(&view.events),
    };
    troubles::of_workload(&workload).into_iter().map(|trouble| Finding::of("not-running", trouble)).collect()
}

/// What the control plane is to publish as.
fn form(view: &View) -> Option<&str> {
    let container = &view.deployment(CONTROL_PLANE)?["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == "SCONCE_PUBLISH")?["value"].as_str()
}

fn mesh(view: &View) -> Option<Finding> {
    let (kind, from) = match (form(view)?, view.has_istio, view.has_gateway_api) {
        ("istio", Some(false), _) => ("VirtualService", "install Istio"),
        ("gateway-api", _, Some(false)) => ("HTTPRoute", "install the Gateway API"),
        _ => return None,
    };
    let problem = format!("the cluster has no kind {kind}, as which splits are to be published");
    Some(Finding::error(
        "no-mesh-kinds",
        "the cluster",
        problem,
        format!("{from}, or publish as something else (the chart's controlPlane.publish)"),
    ))
}

/// Whoever publishes renews a Lease; it is nobody's while nobody does.
fn publisher(view: &View) -> Option<Finding> {
    let leases = view.lease.as_ref()?;
    let deployment = view.deployment(CONTROL_PLANE)?;
    // One that does not run has been told of already.
    if form(view)? == "off" || !troubles::is_available(deployment) {
        return None;
    }
    let spec = leases.first().map(|lease| &lease["spec"]);
    let holder = spec.map(|spec| text(&spec["holderIdentity"])).unwrap_or_default();
    let problem = match spec.filter(|_| !holder.is_empty()) {
        None => "no control plane publishes".to_owned(),
        Some(spec) => {
            let renewed: jiff::Timestamp = text(&spec["renewTime"]).parse().ok()?;
            let over = renewed.as_second() + spec["leaseDurationSeconds"].as_i64().unwrap_or(15);
            if over >= view.now {
                return None;
            }
            format!("{holder} has not renewed it since {renewed}")
        }
    };
    let next = format!(
        "read `kubectl logs {}`: may it write to Leases, and does it reach the API server?",
        typed(deployment)
    );
    Some(Finding::error("nobody-publishes", format!("Lease {}/{LEASE}", view.system), problem, next))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    #[test]
    fn a_control_plane_that_does_not_run_is_found_with_the_reason() {
        let mut view = healthy();
        let deployments = view.deployments.as_mut().expect("seen");
        deployments.iter_mut().find(|one| one["metadata"]["name"] == "sconce").expect("there")["status"]["availableReplicas"] =
            json!(0);
        let found = check(&view);
        assert_eq!(checks(&found), ["not-running"]);
        assert_eq!(found[0].object, "Deployment sconce-system/sconce");
        view.deployments.as_mut().expect("seen").retain(|one| one["metadata"]["name"] != "sconce");
        assert!(check(&view)[0].problem.contains("not there"));
    }

    #[test]
    fn an_injector_without_replicas_and_a_second_installation_are_found() {
        let mut view = healthy();
        let mut other = view.deployment("sconce").expect("there").clone();
        other["metadata"]["namespace"] = "old".into();
        let deployments = view.deployments.as_mut().expect("seen");
        by_name(deployments, "sconce-injector")["spec"]["replicas"] = json!(0);
        deployments.push(other);
        let found = check(&view);
        assert_eq!(checks(&found), ["second-installation", "not-running"]);
        assert!(found[0].next.contains("--namespace old"), "{found:?}");
        assert!(
            found[1].next.contains("kubectl scale deployment/sconce-injector -n sconce-system"),
            "{found:?}"
        );
    }

    #[test]
    fn a_lease_that_nobody_holds_or_renews_is_found() {
        let mut view = healthy();
        view.now += 3600;
        assert!(check(&view)[0].problem.contains("has not renewed it since"));
        view.lease = Some(Vec::new());
        assert_eq!(checks(&check(&view)), ["nobody-publishes"]);
    }

    #[test]
    fn a_mesh_that_is_not_there_is_found() {
        let view = View { has_istio: Some(false), ..healthy() };
        assert_eq!(checks(&check(&view)), ["no-mesh-kinds"]);
    }
}
