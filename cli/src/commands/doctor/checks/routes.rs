//! Routes that lead nowhere: of models or versions that are gone, or to Services that are.

use sconce_catalog::{Catalog, Model, ModelName};
use sconce_istio::{
    names::{MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, MODEL_LABEL_PREFIX},
    render,
};
use serde_json::Value;

use super::super::{Finding, View, view::place};
use crate::{
    pods,
    troubles::{named, typed},
};

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(catalog) = &view.catalog {
        let published = [&view.virtual_services, &view.http_routes, &view.services];
        findings
            .extend(published.into_iter().flatten().flatten().filter_map(|object| stale(object, catalog)));
    }
    findings.extend(without_service(view));
    findings.extend(dangling(view));
    findings.extend(labels(view));
    findings
}

/// The model that an object is published for; nothing where it is not ours.
pub(super) fn model(object: &Value) -> Option<ModelName> {
    let labels = &object["metadata"]["labels"];
    let ours = labels[MANAGED_BY_LABEL] == MANAGED_BY;
    let model = labels[MODEL_LABEL].as_str().filter(|_| ours)?;
    ModelName::new(place(object).0, model).ok()
}

fn stale(object: &Value, catalog: &Catalog) -> Option<Finding> {
    let name = model(object)?;
    let Some(model) = catalog.models.get(&name) else {
        let next = format!(
            "`kubectl delete {}`; a control plane that may would have done so: see `sconce events`",
            typed(object)
        );
        return Some(Finding::error(
            "stale-route",
            named(object),
            format!("the control plane has no model {name}"),
            next,
        ));
    };
    (object["kind"] != "Service").then(|| of_version(object, &name, model)).flatten()
}

fn of_version(route: &Value, name: &ModelName, model: &Model) -> Option<Finding> {
    let next = format!(
        "see `sconce split {name}` and `sconce events`: the control plane repairs it where it publishes and may"
    );
    let Some(routing) = render::read(route) else {
        return Some(Finding::error("stale-route", named(route), "it is not as Sconce writes routes", next));
    };
    let gone: Vec<&str> = routing
        .split
        .shares()
        .iter()
        .map(|(version, _)| version)
        .filter(|version| !model.versions.contains_key(version))
        .map(|version| version.as_str())
        .collect();
    (!gone.is_empty()).then(|| {
        let problem = format!("it gives shares to versions that are not there: {}", gone.join(", "));
        Finding::error("stale-route", named(route), problem, next)
    })
}

/// Such a route answers 503.
fn without_service(view: &View) -> Vec<Finding> {
    let Some(services) = &view.services else { return Vec::new() };
    let has_service =
        |name: &ModelName| services.iter().any(|service| place(service) == (name.namespace(), name.name()));
    let routes = [&view.virtual_services, &view.http_routes].into_iter().flatten().flatten();
    let alone =
        routes.filter_map(|route| Some((route, model(route)?))).filter(|(_, name)| !has_service(name));
    alone
        .map(|(route, name)| {
            let problem = format!("the Service {name} that it sends requests to is not there: they are answered 503");
            let next = format!("`kubectl delete {}`, or find out in `sconce events` why the control plane does not write the Service", typed(route));
            Finding::error("stale-route", named(route), problem, next)
        })
        .collect()
}

/// Roots of users' that hand requests to a route of ours which is gone.
fn dangling(view: &View) -> Vec<Finding> {
    let Some(all) = &view.virtual_services else { return Vec::new() };
    let exists = |namespace: &str, name: &str| all.iter().any(|one| place(one) == (namespace, name));
    let of_root = |root: &Value| -> Vec<Finding> {
        let gone = render::delegates(root)
            .into_iter()
            .filter(|(namespace, name)| name.starts_with("sconce-") && !exists(namespace, name));
        gone.map(|(namespace, name)| {
            let problem = format!("it hands requests to {namespace}/{name}, which is not there");
            Finding::error(
                "dangling-delegate",
                named(root),
                problem,
                "push and split that model, or take the rule away",
            )
        })
        .collect()
    };
    // Of one namespace only, a delegate of another would seem to be gone.
    if view.namespaces.is_none() { Vec::new() } else { all.iter().flat_map(of_root).collect() }
}

/// Pods that are labelled as endpoints of a Service that there is not.
fn labels(view: &View) -> Vec<Finding> {
    let (Some(services), Some(pods)) = (&view.services, &view.pods) else { return Vec::new() };
    let mut findings = Vec::new();
    for pod in pods.iter().filter(|pod| pods::is_current(pod)) {
        let (namespace, _) = place(pod);
        let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
        for (key, model) in labels.filter_map(|(key, _)| Some((key, key.strip_prefix(MODEL_LABEL_PREFIX)?))) {
            if !services.iter().any(|service| place(service) == (namespace, model)) {
                let problem = format!("its label {key} makes it an endpoint of a Service that is not there");
                findings.push(Finding::warning(
                    "stale-label",
                    named(pod),
                    problem,
                    format!("`kubectl label {} {key}-`", typed(pod)),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    #[test]
    fn what_is_published_for_a_model_that_is_gone_is_found() {
        let view = View { catalog: Some(Catalog::default()), ..healthy() };
        let found = check(&view);
        assert_eq!(checks(&found), ["stale-route", "stale-route"]);
        assert_eq!(found[0].object, "VirtualService shop/sconce-digits");
        assert!(found[0].next.contains("kubectl delete virtualservice/sconce-digits -n shop"), "{found:?}");
    }

    #[test]
    fn a_route_to_a_version_that_is_gone_is_found() {
        let mut view = healthy();
        let catalog = view.catalog.as_mut().expect("seen");
        catalog
            .models
            .values_mut()
            .for_each(|model| model.versions.retain(|version, _| version.as_str() != "2"));
        let found = check(&view);
        assert_eq!(checks(&found), ["stale-route"]);
        assert!(found[0].problem.ends_with("not there: 2"), "{found:?}");
    }

    #[test]
    fn a_route_that_somebody_made_unreadable_is_found() {
        let mut view = healthy();
        by_name(view.virtual_services.as_mut().expect("seen"), "sconce-digits")["spec"]["http"] = json!([]);
        assert_eq!(checks(&check(&view)), ["stale-route"]);
    }

    #[test]
    fn a_route_without_its_service_and_labels_for_none_are_found() {
        let mut view = healthy();
        view.services.as_mut().expect("seen").retain(|service| place(service).1 != "digits");
        let found = check(&view);
        assert_eq!(checks(&found), ["stale-route", "stale-label"]);
        assert!(found[1].next.contains("sconce.dev/model.digits-"), "{found:?}");
    }

    #[test]
    fn a_root_that_hands_requests_to_nobody_is_found() {
        let mut view = healthy();
        let root = json!({
            "kind": "VirtualService", "metadata": { "namespace": "shop", "name": "front" },
            "spec": { "http": [{ "delegate": { "name": "sconce-fraud" } }, { "delegate": { "name": "sconce-digits" } }] },
        });
        view.virtual_services.as_mut().expect("seen").push(root);
        let found = check(&view);
        assert_eq!(checks(&found), ["dangling-delegate"]);
        assert!(found[0].problem.contains("shop/sconce-fraud"), "{found:?}");
    }
}
