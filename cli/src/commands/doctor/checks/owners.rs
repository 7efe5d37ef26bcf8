//! Whether somebody else declares what our objects are.

use sconce_istio::names::FIELD_MANAGER;
use serde_json::Value;

use super::{
    super::{Finding, View, view::text},
    routes::model,
};
use crate::troubles::{named, typed};

pub(super) fn check(view: &View) -> Vec<Finding> {
    let published = [&view.virtual_services, &view.http_routes, &view.services];
    published
        .into_iter()
        .flatten()
        .flatten()
        .filter(|object| model(object).is_some())
        .flat_map(others)
        .collect()
}

/// Managers of fields of a `spec` that is ours: server-side apply takes part in what it should be,
/// anything else has edited it once.
fn others(object: &Value) -> Vec<Finding> {
    let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let foreign = managers
        .filter(|entry| entry["manager"] != FIELD_MANAGER && entry["fieldsV1"].get("f:spec").is_some());
    foreign
        .map(|entry| {
            let manager = text(&entry["manager"]);
            if entry["operation"] == "Apply" {
                let problem = format!("{manager} applies it too, so that the control plane writes nothing more to it");
                let next = format!("keep it out of what {manager} applies; rules of yours belong into a root VirtualService (docs/publishing.md)");
                Finding::error("second-owner", named(object), problem, next)
            } else {
                let next = format!("the control plane puts it back where it may (controlPlane.drift); else `kubectl delete {}`", typed(object));
                Finding::warning("edited", named(object), format!("{manager} has edited its spec"), next)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    #[test]
    fn a_second_owner_is_an_error_and_an_edit_a_warning() {
        let mut view = healthy();
        let route = by_name(view.virtual_services.as_mut().expect("seen"), "sconce-digits");
        route["metadata"]["managedFields"].as_array_mut().expect("managers").extend([
            json!({ "manager": "flagger", "operation": "Apply", "fieldsV1": { "f:spec": {} } }),
            json!({ "manager": "kubectl-edit", "operation": "Update", "fieldsV1": { "f:spec": {} } }),
            json!({ "manager": "labeller", "operation": "Update", "fieldsV1": { "f:metadata": {} } }),
        ]);
        let found = check(&view);
        assert_eq!(checks(&found), ["second-owner", "edited"]);
        assert!(found[0].problem.starts_with("flagger applies it too"), "{found:?}");
    }

    #[test]
    fn objects_of_others_are_their_own_business() {
        let mut view = healthy();
        let route = by_name(view.virtual_services.as_mut().expect("seen"), "sconce-digits");
        route["metadata"]["labels"] = json!({});
        route["metadata"]["managedFields"] =
            json!([{ "manager": "flagger", "operation": "Apply", "fieldsV1": { "f:spec": {} } }]);
        assert_eq!(check(&view), []);
    }
}
