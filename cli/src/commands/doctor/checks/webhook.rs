//! Whether the API server calls the injector, once, at the right moment, and can.

use k8s_openapi::ByteString;
use sconce_istio::{
    inject::{LABELLED, SELECTED, registration},
    install::{INJECTOR, REGISTRATION, WEBHOOK},
};
use serde_json::Value;

use super::super::{
    Finding, View,
    view::{place, text},
};
use crate::troubles::named;

/// How the webhooks of Istio's injector end.
const ISTIO: &str = "sidecar-injector.istio.io";

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings: Vec<Finding> = endpoints(view).into_iter().collect();
    let Some(all) = &view.registrations else { return findings };
    let ours: Vec<&Value> = all.iter().filter(|one| is_ours(one)).collect();
    if ours.is_empty() {
        findings.push(Finding::error(
            "webhook-missing",
            format!("MutatingWebhookConfiguration {REGISTRATION}"),
            "it is not there, so no pod is given a sidecar",
            "run `sconce install`, or `helm upgrade`",
        ));
    }
    findings.extend(ours.iter().skip(1).map(|extra| {
        let next = format!(
            "`kubectl delete mutatingwebhookconfiguration {}`, or whichever is not yours to keep",
            place(extra).1
        );
        Finding::error(
            "webhook-duplicate",
            named(extra),
            format!("the injector is registered here and in {}", place(ours[0]).1),
            next,
        )
    }));
    for one in ours {
        findings.extend(order(one, all));
        findings.extend(bundle(one, view));
        findings.extend(altered(one, view));
    }
    findings
}

fn webhooks(registration: &Value) -> impl Iterator<Item = &Value> {
    registration["webhooks"].as_array().into_iter().flatten()
}

fn is_ours(registration: &Value) -> bool {
    webhooks(registration)
        .any(|webhook| webhook["name"] == LABELLED || webhook["clientConfig"]["service"]["name"] == WEBHOOK)
}

/// Webhooks run in the order of their registrations' names.
fn order(ours: &Value, all: &[Value]) -> Option<Finding> {
    let name = place(ours).1;
    let is_istio = |one: &&Value| webhooks(one).any(|webhook| text(&webhook["name"]).ends_with(ISTIO));
    let before = all.iter().filter(is_istio).map(|one| place(one).1).find(|istio| *istio < name)?;
    Some(Finding::warning(
        "webhook-order",
        named(ours),
        format!("it runs after {before}, whose sidecar then captures ports that it should not"),
        format!("register it as {REGISTRATION}: `sconce install`, or `helm upgrade`"),
    ))
}

/// The roots in a registration must be those of the certificates that are served.
fn bundle(ours: &Value, view: &View) -> Option<Finding> {
    let found = |problem: &str| {
        let next = format!(
            "the injector puts it right when it runs and may patch it: `kubectl rollout restart deployment/{INJECTOR} -n {}`",
            view.system
        );
        Some(Finding::error("webhook-ca", named(ours), problem, next))
    };
    let bundles: Vec<Option<String>> =
        webhooks(ours).map(|webhook| decoded(&webhook["clientConfig"]["caBundle"])).collect();
    if bundles.iter().any(|bundle| bundle.as_deref().is_none_or(|bundle| bundle.trim().is_empty())) {
        return found("it has no caBundle, so that labelled pods are refused");
    }
    let secret = view.secret.as_ref()?.first()?;
    let kept = decoded(&secret["data"]["ca.crt"])?;
    let other =
        |bundle: &Option<String>| bundle.as_deref().is_some_and(|bundle| bundle.trim() != kept.trim());
    if !bundles.iter().any(other) {
        return None;
    }
    found(&format!(
        "its caBundle is not that of the Secret {}/{WEBHOOK}, so that labelled pods are refused",
        view.system
    ))
}

/// Base64 of text, as Secrets and caBundles are.
pub(super) fn decoded(value: &Value) -> Option<String> {
    let bytes: ByteString = serde_json::from_value(value.clone()).ok()?;
    String::from_utf8(bytes.0).ok()
}

/// Fields that whoever edited the registration has changed.
fn altered(ours: &Value, view: &View) -> Option<Finding> {
    let wanted = registration(REGISTRATION, &view.system, WEBHOOK);
    let mut changed: Vec<String> = Vec::new();
    for name in [SELECTED, LABELLED] {
        let of = |registration| webhooks(registration).find(|webhook| webhook["name"] == name);
        match (of(&wanted), of(ours)) {
            (Some(wanted), Some(held)) => {
                changed.extend(differences(wanted, held).iter().map(|field| format!("{field} of {name}")));
            }
            _ => changed.push(format!("{name} is missing")),
        }
    }
    (!changed.is_empty()).then(|| {
        Finding::warning(
            "webhook-altered",
            named(ours),
            format!("it is not as it was installed: {}", changed.join(", ")),
            "put it back with `sconce install --force-conflicts`, or `helm upgrade`",
        )
    })
}

/// Fields in which a webhook is not as wanted, but for its roots, which are looked at elsewhere.
fn differences<'a>(wanted: &'a Value, held: &Value) -> Vec<&'a str> {
    let fields = wanted.as_object().into_iter().flatten();
    let differ = fields.filter(|(key, value)| *key != "clientConfig" && held[key.as_str()] != **value);
    let mut changed: Vec<&str> = differ.map(|(key, _)| key.as_str()).collect();
    if wanted["clientConfig"]["service"] != held["clientConfig"]["service"] {
        changed.push("clientConfig.service");
    }
    changed
}

fn endpoints(view: &View) -> Option<Finding> {
    let slices = view.slices.as_ref()?;
    let own = |slice: &&Value| {
        slice["metadata"]["namespace"] == *view.system
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == WEBHOOK
    };
    let ready = slices.iter().filter(own).flat_map(ready).count();
    (ready == 0).then(|| {
        Finding::error(
            "webhook-endpoints",
            format!("Service {}/{WEBHOOK}", view.system),
            "no injector is ready behind it, so that labelled pods are refused",
            format!("`kubectl rollout status deployment/{INJECTOR} -n {}`", view.system),
        )
    })
}

/// The endpoints of a slice that are called.
pub(super) fn ready(slice: &Value) -> impl Iterator<Item = &Value> {
    let all = slice["endpoints"].as_array().into_iter().flatten();
    // Not said is ready (discovery.k8s.io/v1).
    all.filter(|endpoint| endpoint["conditions"]["ready"] != false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{by_name, checks, healthy};

    fn planted(plant: impl FnOnce(&mut Vec<Value>)) -> Vec<Finding> {
        let mut view = healthy();
        plant(view.registrations.as_mut().expect("seen"));
        check(&view)
    }

    #[test]
    fn a_registration_that_is_missing_or_twice_is_found() {
        assert_eq!(checks(&planted(|all| all.retain(|one| !is_ours(one)))), ["webhook-missing"]);
        let twice = planted(|all| {
            let mut copy = by_name(all, REGISTRATION).clone();
            copy["metadata"]["name"] = "b.sconce".into();
            all.push(copy);
        });
        assert_eq!(checks(&twice), ["webhook-duplicate"]);
        assert_eq!(twice[0].object, "MutatingWebhookConfiguration b.sconce");
    }

    #[test]
    fn one_that_runs_after_istio_is_found() {
        let late = planted(|all| by_name(all, REGISTRATION)["metadata"]["name"] = "sconce-injector".into());
        assert_eq!(checks(&late), ["webhook-order"]);
        assert!(late[0].problem.contains("istio-sidecar-injector"), "{late:?}");
    }

    #[test]
    fn a_bundle_that_is_missing_or_another_is_found() {
        let bundle = |value: Value| {
            planted(move |all| by_name(all, REGISTRATION)["webhooks"][0]["clientConfig"]["caBundle"] = value)
        };
        assert!(bundle(Value::Null)[0].problem.contains("no caBundle"));
        let other = bundle(json!(ByteString(b"another".to_vec())));
        assert_eq!(checks(&other), ["webhook-ca"]);
        assert!(other[0].problem.contains("Secret sconce-system/sconce-webhook"), "{other:?}");
    }

    #[test]
    fn what_somebody_has_edited_is_named() {
        let edited = planted(|all| {
            let webhooks = &mut by_name(all, REGISTRATION)["webhooks"];
            webhooks[0]["timeoutSeconds"] = 10.into();
            webhooks[1]["failurePolicy"] = "Ignore".into();
            webhooks[1]["clientConfig"]["service"]["port"] = 8443.into();
        });
        assert_eq!(checks(&edited), ["webhook-altered"]);
        let fields = "timeoutSeconds of models.injector.sconce.dev, failurePolicy of pods.injector.sconce.dev, \
                      clientConfig.service of pods.injector.sconce.dev";
        assert!(edited[0].problem.ends_with(fields), "{edited:?}");
        // As a chart of before had it.
        let older = planted(|all| {
            let webhooks = by_name(all, REGISTRATION)["webhooks"].as_array_mut().expect("a list");
            webhooks.retain(|webhook| webhook["name"] == LABELLED);
        });
        assert_eq!(checks(&older), ["webhook-altered"]);
        assert!(older[0].problem.ends_with("models.injector.sconce.dev is missing"), "{older:?}");
    }

    #[test]
    fn a_webhook_that_nobody_answers_is_found() {
        let mut view = healthy();
        for slice in view.slices.as_mut().expect("seen") {
            slice["endpoints"][0]["conditions"]["ready"] = false.into();
        }
        assert_eq!(checks(&check(&view)), ["webhook-endpoints"]);
        view.slices = Some(Vec::new());
        assert_eq!(checks(&check(&view)), ["webhook-endpoints"]);
    }
}
