//! What is looked at before anything is applied.

use sconce_istio::install::{CONTROL_PLANE, INJECTOR, REGISTRATION, Settings};
use serde_json::Value;

use crate::{
    cluster::{self, Cluster, DEPLOYMENT, Id, MUTATING_WEBHOOK, NAMESPACE},
    failure::{Exit, Failure},
};

/// Helm writes it onto what it has installed.
const RELEASE: &str = "meta.helm.sh/release-name";
const ISTIO_CRD: &str = "virtualservices.networking.istio.io";

/// Refuses what cannot end well, and warns of what may not.
pub(super) async fn check(
    cluster: &Cluster,
    settings: &Settings,
    objects: &[Value],
) -> Result<Vec<String>, Failure> {
    let namespace = settings.namespace.as_str();
    let look = async |id: Id| cluster.get(&id).await.map_err(|error| cluster.failure(&id, error));
    let found = Found {
        namespace: look(Id::new(NAMESPACE, None, namespace)).await?,
        registration: look(Id::new(MUTATING_WEBHOOK, None, REGISTRATION)).await?,
        deployments: [
            look(Id::new(DEPLOYMENT, Some(namespace), CONTROL_PLANE)).await?,
            look(Id::new(DEPLOYMENT, Some(namespace), INJECTOR)).await?,
        ],
    };
    refuse(&found, namespace)?;
    let ids: Vec<Id> = objects.iter().filter_map(Id::of).collect();
    let lacking = cluster::lacking(cluster, &["get", "create", "patch"], &ids).await;
    let lacking = lacking.map_err(|error| cluster.failure("your rights", error))?;
    if !lacking.is_empty() {
        return Err(Failure::new(Exit::Denied, format!("you may not {}", lacking.join(", nor ")))
            .hint("nothing was applied; somebody who administers the cluster can run this, or apply what --dry-run prints"));
    }
    let istio = look(Id::new(cluster::CRD, None, ISTIO_CRD)).await?;
    Ok(istio.is_none().then(no_istio).into_iter().collect())
}

fn no_istio() -> String {
    "Istio is not in this cluster: until it is, sidecars have no identity of the mesh and splits are not published \
     (`istioctl install`, then `kubectl rollout restart` what should have both)"
        .into()
}

/// What is there already.
struct Found {
    namespace: Option<Value>,
    registration: Option<Value>,
    deployments: [Option<Value>; 2],
}

fn refuse(found: &Found, namespace: &str) -> Result<(), Failure> {
    let conflict = |message: String| Failure::new(Exit::Conflict, message);
    if let Some(object) = &found.namespace
        && object["metadata"].get("deletionTimestamp").is_some()
    {
        return Err(conflict(format!("the namespace {namespace} is being deleted"))
            .hint("wait until it is gone, or name another with --namespace"));
    }
    let all = found.deployments.iter().chain([&found.registration]).flatten();
    for object in all {
        if let Some(release) = object["metadata"]["annotations"][RELEASE].as_str() {
            let kind = object["kind"].as_str().unwrap_or_default();
            return Err(conflict(format!("{kind} {} belongs to the helm release {release}", object["metadata"]["name"]))
                .hint(format!("go on with `helm upgrade {release} istio/chart --namespace {namespace}`, or uninstall that first")));
        }
    }
    let elsewhere = found.registration.as_ref().and_then(|registration| {
        registration["webhooks"][0]["clientConfig"]["service"]["namespace"]
            .as_str()
            .filter(|other| *other != namespace)
    });
    if let Some(other) = elsewhere {
        return Err(conflict(format!(
            "Sconce is installed in {other} already, and a cluster has one installation"
        ))
        .hint(format!("use --namespace {other}, or `sconce uninstall --namespace {other}` first")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found() -> Found {
        Found { namespace: None, registration: None, deployments: [None, None] }
    }

    #[test]
    fn an_empty_cluster_and_an_earlier_installation_are_no_obstacles() {
        assert!(refuse(&found(), "sconce-system").is_ok());
        let service = json!({ "name": "sconce-webhook", "namespace": "sconce-system" });
        let registration = json!({ "webhooks": [{ "clientConfig": { "service": service } }] });
        let earlier =
            Found { registration: Some(registration), namespace: Some(json!({ "metadata": {} })), ..found() };
        assert!(refuse(&earlier, "sconce-system").is_ok());
        let failure = refuse(&earlier, "other").expect_err("a second one");
        assert!(failure.to_string().contains("--namespace sconce-system"), "{failure}");
    }

    #[test]
    fn what_helm_owns_is_left_to_helm() {
        let metadata = json!({ "name": "sconce", "annotations": { "meta.helm.sh/release-name": "prod" } });
        let deployment = json!({ "kind": "Deployment", "metadata": metadata });
        let failure =
            refuse(&Found { deployments: [Some(deployment), None], ..found() }, "s").expect_err("helm's");
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.to_string().contains("helm upgrade prod istio/chart --namespace s"), "{failure}");
    }

    #[test]
    fn a_namespace_that_is_on_its_way_out_takes_nothing() {
        let namespace = json!({ "metadata": { "deletionTimestamp": "2026-11-22T00:00:00Z" } });
        let failure = refuse(&Found { namespace: Some(namespace), ..found() }, "s").expect_err("going");
        assert!(failure.to_string().contains("being deleted"), "{failure}");
    }
}
