//! Whether everything is of one version.

use std::collections::BTreeMap;

use sconce_istio::{
    inject::Settings,
    install::{CONTROL_PLANE, INJECTOR},
    names::ANNOTATION_PREFIX,
};
use serde_json::Value;

use super::super::{
    Finding, View,
    view::{place, text},
};
use crate::{pods, troubles::named};

/// Which version a Deployment of the chart is of.
const VERSION_LABEL: &str = "app.kubernetes.io/version";

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [CONTROL_PLANE, INJECTOR].iter().filter_map(|name| ours(view, name)).collect();
    findings.extend(images(view));
    let Some(text) = view.settings.iter().flatten().find_map(|map| map["data"]["settings.yaml"].as_str())
    else {
        return findings;
    };
    match Settings::from_yaml(text) {
        Ok(settings) => findings.extend(sidecars(view, &settings)),
        Err(error) => findings.push(Finding::error(
            "settings",
            format!("ConfigMap {}/{INJECTOR}", view.system),
            format!("its settings.yaml cannot be used, so that older settings are: {error}"),
            "put it right: docs/injection.md has every option",
        )),
    }
    findings
}

fn ours(view: &View, name: &str) -> Option<Finding> {
    let deployment = view.deployment(name)?;
    let version = deployment["metadata"]["labels"][VERSION_LABEL].as_str()?;
    (version != view.version).then(|| {
        let problem = format!("it is of version {version}, and this `sconce` of {}", view.version);
        Finding::warning(
            "version-skew",
            named(deployment),
            problem,
            format!("use `sconce` {version}, or install {} (`sconce install`, `helm upgrade`)", view.version),
        )
    })
}

fn image(deployment: &Value) -> &str {
    text(&deployment["spec"]["template"]["spec"]["containers"][0]["image"])
}

/// The webhook is a process of the control plane's image.
fn images(view: &View) -> Option<Finding> {
    let (control_plane, injector) = (view.deployment(CONTROL_PLANE)?, view.deployment(INJECTOR)?);
    (image(control_plane) != image(injector)).then(|| {
        let problem = format!("it runs {}, and the control plane {}", image(injector), image(control_plane));
        Finding::warning(
            "version-skew",
            named(injector),
            problem,
            "install both alike: `sconce install`, or `helm upgrade`",
        )
    })
}

/// Sidecars that are not what a pod would be given now, unless somebody asked for that.
fn sidecars(view: &View, settings: &Settings) -> Vec<Finding> {
    let Some(wanted) = settings.defaults.get("image") else { return Vec::new() };
    let mut older = BTreeMap::<(String, String), usize>::new();
    for pod in view.pods.iter().flatten().filter(|pod| pods::is_current(pod) && !is_chosen(pod, view)) {
        let Some(image) = pods::sidecar(pod).map(|container| text(&container["image"])) else { continue };
        if image != wanted {
            *older.entry((pods::workload(pod), image.to_owned())).or_default() += 1;
        }
    }
    let one = |((workload, image), count): ((String, String), usize)| {
        let problem = format!("sidecars of {count} of its pods are {image}, and new ones are {wanted}");
        let next = match workload.strip_prefix("pod/") {
            Some(_) => format!("make the pod anew: `kubectl delete {workload}`, then create it"),
            None => format!("`kubectl rollout restart {workload}`"),
        };
        Finding::warning("sidecar-skew", workload, problem, next)
    };
    older.into_iter().map(one).collect()
}

/// Whether the pod, or its namespace, names an image; or a partial container of the user's.
fn is_chosen(pod: &Value, view: &View) -> bool {
    let key = format!("{ANNOTATION_PREFIX}image");
    let says = |object: &Value| object["metadata"]["annotations"][&key].is_string();
    let partial = pod["metadata"]["annotations"][sconce_istio::names::OVERRIDES_ANNOTATION].is_string();
    says(pod) || partial || view.namespace(place(pod).0).is_none_or(says)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    #[test]
    fn another_version_of_this_program_is_found() {
        let view = View { version: "0.0.9".into(), ..healthy() };
        let found = check(&view);
        assert_eq!(checks(&found), ["version-skew", "version-skew"]);
        assert!(found[0].problem.contains("this `sconce` of 0.0.9"), "{found:?}");
    }

    #[test]
    fn an_injector_of_another_image_is_found() {
        let mut view = healthy();
        by_name(view.deployments.as_mut().expect("seen"), INJECTOR)["spec"]["template"]["spec"]["containers"]
            [0]["image"] = "old:1".into();
        assert_eq!(checks(&check(&view)), ["version-skew"]);
    }

    #[test]
    fn sidecars_that_new_pods_would_not_get_are_found_unless_they_were_chosen() {
        let mut view = healthy();
        let settings = &mut view.settings.as_mut().expect("seen")[0]["data"]["settings.yaml"];
        *settings = json!(
            settings
                .as_str()
                .expect("text")
                .replace(&format!("sidecar:{}", env!("CARGO_PKG_VERSION")), "sidecar:9")
        );
        let found = check(&view);
        assert_eq!(checks(&found), ["sidecar-skew"]);
        assert!(found[0].problem.contains("sidecar:9"), "{found:?}");
        view.namespaces.as_mut().expect("seen")[0]["metadata"]["annotations"] =
            json!({ "sconce.dev/image": "mine:1" });
        assert_eq!(check(&view), []);
    }

    #[test]
    fn settings_that_cannot_be_used_are_found() {
        let mut view = healthy();
        view.settings.as_mut().expect("seen")[0]["data"]["settings.yaml"] =
            "defaults: { colour: red }".into();
        let found = check(&view);
        assert_eq!(checks(&found), ["settings"]);
        assert!(found[0].problem.contains("colour"), "{found:?}");
    }
}
