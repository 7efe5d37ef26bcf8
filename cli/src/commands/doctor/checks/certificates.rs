//! Certificates that have ended, will soon, or cannot be read.
//!
//! Those of sidecars and control planes are in their processes only; whoever lacks one is not
//! ready, which `pods` finds. What can be seen is what they all hang from, and the webhook's.

use sconce_istio::install::WEBHOOK;
use serde_json::Value;
use x509_parser::pem::Pem;

use super::{
    super::{Finding, View, view::text},
    webhook::decoded,
};
use crate::troubles::named;

const DAY: i64 = 24 * 3600;
/// The webhook renews its certificate 15 days before its end, and a root 90 days: one that has
/// less left than this was not renewed.
const SERVING: i64 = 7 * DAY;
const ROOT: i64 = 30 * DAY;

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    for secret in view.secret.iter().flatten() {
        findings.extend(of_secret(secret, view));
    }
    for roots in view.mesh_roots.iter().flatten() {
        let next = "give istiod a new root before it ends (Istio: plug in CA certificates)";
        let pem = text(&roots["data"]["root-cert.pem"]);
        findings.extend(of_pem(pem, ROOT, view.now, &named(roots), "Istio's root", next));
    }
    findings
}

fn of_secret(secret: &Value, view: &View) -> Vec<Finding> {
    let object = named(secret);
    let restart = format!(
        "`kubectl delete secret {WEBHOOK} -n {}`: the injector makes another within seconds",
        view.system
    );
    let renewal = format!(
        "the injector renews it when it runs and may write the Secret: `kubectl logs -n {} deployment/sconce-injector`",
        view.system
    );
    let Some(bundle) = decoded(&secret["data"]["ca.crt"]) else {
        return vec![Finding::error("certificate", object, "it has no ca.crt that can be read", restart)];
    };
    let mut findings = of_pem(&bundle, ROOT, view.now, &object, "the webhook's root", &renewal);
    // Beside keys, which are nobody's business here.
    let keys =
        decoded(&secret["data"]["keys.json"]).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    match keys.as_ref().and_then(|keys| keys["serving"]["certificate"].as_str()) {
        Some(serving) => findings.extend(of_pem(
            serving,
            SERVING,
            view.now,
            &object,
            "the webhook's certificate",
            &renewal,
        )),
        None => findings.push(Finding::error(
            "certificate",
            object,
            "its keys.json has no certificate that can be read",
            restart,
        )),
    }
    findings
}

/// Whatever is wrong with these certificates: the one that ends first decides.
fn of_pem(pem: &str, notice: i64, now: i64, object: &str, what: &str, next: &str) -> Vec<Finding> {
    let found = |severe: bool, problem: String| {
        let make = if severe { Finding::error } else { Finding::warning };
        vec![make("certificate", object, problem, next)]
    };
    let ends: Result<Vec<i64>, String> = Pem::iter_from_buffer(pem.as_bytes())
        .map(|one| {
            let one = one.map_err(|error| error.to_string())?;
            let certificate = one.parse_x509().map_err(|error| error.to_string())?;
            Ok(certificate.validity().not_after.timestamp())
        })
        .collect();
    let ends = match ends {
        Ok(ends) => ends,
        Err(why) => return found(true, format!("{what} cannot be read: {why}")),
    };
    // Of a bundle the old ones may end: it is enough that one remains.
    let Some(end) = ends.iter().max() else { return found(true, format!("{what} is not there")) };
    let at = jiff::Timestamp::from_second(*end).map_or_else(|_| end.to_string(), |at| at.to_string());
    match end - now {
        left if left <= 0 => found(true, format!("{what} ended at {at}")),
        left if left < notice => found(false, format!("{what} ends at {at}, in {} days", left / DAY)),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::specimen::{checks, healthy};

    fn at(days: i64) -> Vec<Finding> {
        let mut view = healthy();
        view.now += days * DAY;
        check(&view)
    }

    #[test]
    fn what_was_not_renewed_is_a_warning_and_what_has_ended_an_error() {
        use crate::commands::doctor::finding::Severity::{Error, Warning};
        assert_eq!(at(22), []);
        let soon = at(24);
        assert_eq!(soon.len(), 1, "{soon:?}");
        assert!(
            soon[0].severity == Warning && soon[0].problem.contains("the webhook's certificate ends at"),
            "{soon:?}"
        );
        let over = at(31);
        assert!(over[0].severity == Error && over[0].problem.contains("ended at"), "{over:?}");
        let years = at(365 * 11);
        assert_eq!(years.len(), 3, "the webhook's root, its certificate and Istio's root: {years:?}");
    }

    #[test]
    fn what_cannot_be_read_is_found() {
        let mut view = healthy();
        let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        view.secret.as_mut().expect("seen")[0]["data"] = json!({ "ca.crt": bytes("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "keys.json": bytes("{}") });
        let found = check(&view);
        assert_eq!(checks(&found), ["certificate", "certificate"]);
        assert!(
            found[0].problem.contains("cannot be read") && found[1].next.contains("kubectl delete secret"),
            "{found:?}"
        );
    }
}
