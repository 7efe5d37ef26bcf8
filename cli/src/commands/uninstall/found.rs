//! What of Sconce is in a cluster, in the order in which it is taken away.

use kube::api::{ApiResource, GroupVersionKind};
use sconce_istio::{
    install::{self, CONTROL_PLANE, GROUP, LEASE, NAME_LABEL, RECONCILER_LEASE, Settings, WEBHOOK},
    names::{LANES_SERVICE, MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, MODEL_LABEL_PREFIX, NAMESPACE_LABEL},
    render,
};
use serde_json::Value;

use crate::{
    args::Uninstall,
    cluster::{
        self, Cluster, DEPLOYMENT, HTTP_ROUTE, Id, Kind, NAMESPACE, POD, SECRET, SERVICE, VIRTUAL_SERVICE,
    },
    failure::{Exit, Failure},
    pods,
    troubles::named,
};

/// Helm writes it onto what it has installed.
const RELEASE: &str = "meta.helm.sh/release-name";
/// What outlives its release, such as data, says so.
const POLICY: &str = "helm.sh/resource-policy";

/// Everything that there is.
#[derive(Default)]
pub(super) struct Found {
    /// Routes, then Services.
    pub(super) published: Vec<Value>,
    /// Pods that carry a label of a model.
    pub(super) endpoints: Vec<Value>,
    /// VirtualServices of others that hand requests to routes of ours.
    pub(super) roots: Vec<String>,
    /// The Deployment of the control plane, and its pods.
    pub(super) control_plane: Option<Value>,
    pub(super) control_pods: Vec<Value>,
    /// What was installed, the last that was applied first.
    pub(super) installed: Vec<Value>,
    /// Pods with a sidecar.
    pub(super) sidecars: Vec<Value>,
    /// Namespaces that permit injection.
    pub(super) permitting: Vec<Value>,
}

/// What was published; a kind that the cluster does not have has no objects.
pub(super) async fn published(cluster: &Cluster) -> Result<Vec<Value>, Failure> {
    let ours = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
    let mut all = Vec::new();
    // A route without its Service would answer 503, so routes go first.
    for kind in [VIRTUAL_SERVICE, HTTP_ROUTE, SERVICE] {
        all.extend(list(cluster, kind, None, &ours).await?.into_iter().filter(is_published));
    }
    Ok(all)
}

/// Whether publishing made an object of ours, and not whoever installed.
fn is_published(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["labels"].get(MODEL_LABEL).is_some() || metadata["name"] == LANES_SERVICE
}

async fn list(
    cluster: &Cluster,
    kind: Kind,
    namespace: Option<&str>,
    labels: &str,
) -> Result<Vec<Value>, Failure> {
    match cluster.list(kind, namespace, labels).await {
        Err(error) if cluster::is_absent(&error) => Ok(Vec::new()),
        other => other.map_err(|error| cluster.failure(format!("every {}", kind.kind), error)),
    }
}

impl Found {
    pub(super) async fn look(cluster: &Cluster, namespace: &str) -> Result<Self, Failure> {
        let get = async |id: Id| cluster.get(&id).await.map_err(|error| cluster.failure(&id, error));
        let control_plane =
            get(Id::new(DEPLOYMENT, Some(namespace), CONTROL_PLANE)).await?.filter(is_installed);
        let control_pods = list(cluster, POD, Some(namespace), "app=sconce").await?;
        let published = published(cluster).await?;
        let roots = roots(&list(cluster, VIRTUAL_SERVICE, None, "").await?, &published);
        let pods = list(cluster, POD, None, "").await?;
        let permitting = list(cluster, NAMESPACE, None, &format!("{NAMESPACE_LABEL}=enabled")).await?;
        let mut installed = Vec::new();
        for id in ids(namespace) {
            installed.extend(get(id).await?.filter(is_installed));
        }
        let (endpoints, sidecars) = (
            pods.iter().filter(|pod| is_endpoint(pod)),
            pods.iter().filter(|pod| pods::sidecar(pod).is_some()),
        );
        Ok(Self {
            endpoints: endpoints.cloned().collect(),
            sidecars: sidecars.cloned().collect(),
            published,
            roots,
            control_plane,
            control_pods,
            installed,
            permitting,
        })
    }

    /// What must be settled first.
    pub(super) fn refuse(&self, args: &Uninstall) -> Result<(), Failure> {
        let released = self.installed.iter().find_map(|object| {
            let annotations = &object["metadata"]["annotations"];
            let release = annotations[RELEASE].as_str().filter(|_| annotations[POLICY] != "keep")?;
            Some((named(object), release.to_owned()))
        });
        if let Some((object, release)) = released.filter(|_| !args.published_only) {
            return Err(Failure::new(Exit::Conflict, format!("{object} belongs to the helm release {release}")).hint(format!(
                "run `sconce uninstall --published-only --namespace {0}`, then `helm uninstall {release} --namespace {0}`",
                args.namespace
            )));
        }
        if !self.roots.is_empty() && !args.force {
            return Err(Failure::new(Exit::Conflict, self.roots.join("\n")).hint(
                "take those rules away first, or use --force: Istio then answers such requests with 404 or 503",
            ));
        }
        Ok(())
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.published.is_empty() && self.endpoints.is_empty() && self.installed.is_empty()
    }
}

/// What was applied, and what came to be while it ran, in the reverse order.
fn ids(namespace: &str) -> Vec<Id> {
    let settings = Settings { namespace: namespace.to_owned(), ..Settings::default() };
    let mut applied: Vec<Id> = install::objects(&settings).iter().filter_map(Id::of).collect();
    // Both go before the namespace, and after those who would make them again.
    let at = applied.iter().position(|id| id.kind == "Deployment").unwrap_or_default();
    applied.insert(at, Id::new(SECRET, Some(namespace), WEBHOOK));
    applied.insert(at, Id::new(cluster::LEASE, Some(namespace), LEASE));
    applied.insert(at, Id::new(cluster::LEASE, Some(namespace), RECONCILER_LEASE));
    applied.reverse();
    applied
}

/// Whether an object of one of our names is ours. What the processes make themselves carries no
/// label of the chart's.
fn is_installed(object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    labels[NAME_LABEL] == "sconce"
        || labels[MANAGED_BY_LABEL] == MANAGED_BY
        || object["kind"] == "Lease"
        || object["spec"]["group"] == GROUP
}

/// Why an object stays, where it does.
pub(super) fn kept(object: &Value, purge: bool) -> Option<&'static str> {
    let made_by_us = object["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY;
    match object["kind"].as_str() {
        Some("Namespace") if !made_by_us => Some("somebody else made it"),
        Some("Namespace") if !purge => Some("--purge takes it away, with everything in it"),
        Some("PersistentVolumeClaim") if !purge => Some("it has what was pushed; --purge takes it away"),
        Some("CustomResourceDefinition") if !purge => {
            Some("with it would go every object of its kind; --purge takes it away")
        }
        _ => None,
    }
}

/// The kind that a definition defines, in the version that is stored.
pub(super) fn defined(object: &Value) -> Option<ApiResource> {
    let spec = object
        .get("spec")
        .filter(|spec| object["kind"] == "CustomResourceDefinition" && spec["group"] == GROUP)?;
    let stored = spec["versions"].as_array()?.iter().find(|version| version["storage"] == true)?;
    let kind = GroupVersionKind::gvk(GROUP, stored["name"].as_str()?, spec["names"]["kind"].as_str()?);
    Some(ApiResource::from_gvk_with_plural(&kind, spec["names"]["plural"].as_str()?))
}

/// An object's finalizers without ours; nothing where it has none of ours.
pub(super) fn released(object: &Value) -> Option<Vec<&str>> {
    let all: Vec<&str> =
        object["metadata"]["finalizers"].as_array()?.iter().filter_map(Value::as_str).collect();
    let others: Vec<&str> =
        all.iter().copied().filter(|name| !name.starts_with(&format!("{GROUP}/"))).collect();
    (others.len() < all.len()).then_some(others)
}

fn is_endpoint(pod: &Value) -> bool {
    let labels = pod["metadata"]["labels"].as_object();
    labels.is_some_and(|labels| labels.keys().any(|key| key.starts_with(MODEL_LABEL_PREFIX)))
}

/// Each VirtualService that delegates to one of the published, said in a sentence.
fn roots(all: &[Value], published: &[Value]) -> Vec<String> {
    let is_ours = |namespace: &str, name: &str| {
        published.iter().any(|object| {
            object["kind"] == "VirtualService"
                && object["metadata"]["namespace"] == namespace
                && object["metadata"]["name"] == name
        })
    };
    let of_root = |root: &Value| -> Vec<String> {
        let ours = render::delegates(root).into_iter().filter(|(namespace, name)| is_ours(namespace, name));
        ours.map(|(namespace, name)| {
            format!("{} hands requests to {namespace}/{name}, which would be gone", named(root))
        })
        .collect()
    };
    all.iter().flat_map(of_root).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::args::{Args, Command};

    fn typed(line: &str) -> Uninstall {
        match Args::try_parse_from(line.split(' ')).expect("valid").command {
            Command::Uninstall(uninstall) => uninstall,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_registration_goes_before_the_injector_and_the_namespace_last() {
        let ids = ids("serving");
        let at = |kind: &str, name: &str| {
            ids.iter()
                .position(|id| id.kind == kind && id.name == name)
                .unwrap_or_else(|| panic!("{kind} {name}"))
        };
        let order = [
            at("MutatingWebhookConfiguration", "a.sconce-injector"),
            at("Deployment", "sconce-injector"),
            at("Secret", "sconce-webhook"),
            at("ServiceAccount", "sconce-injector"),
            at("Namespace", "serving"),
        ];
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(at("Namespace", "serving"), ids.len() - 1);
    }

    #[test]
    fn what_was_published_is_told_from_what_was_installed() {
        let object = |name: &str, labels: Value| json!({ "kind": "Service", "metadata": { "name": name, "labels": labels } });
        assert!(is_published(&object("digits", json!({ "sconce.dev/model": "digits" }))));
        assert!(is_published(&object("sconce-lanes", json!({}))));
        assert!(!is_published(&object("sconce-webhook", json!({ "app.kubernetes.io/name": "sconce" }))));
    }

    #[test]
    fn data_and_namespaces_stay_unless_they_are_asked_for() {
        let claim = json!({ "kind": "PersistentVolumeClaim", "metadata": {} });
        let own = json!({ "kind": "Namespace", "metadata": { "labels": { "app.kubernetes.io/managed-by": "sconce" } } });
        let foreign =
            json!({ "kind": "Namespace", "metadata": { "labels": { "app.kubernetes.io/name": "sconce" } } });
        let kept = |purge| [&claim, &own, &foreign].map(|object| kept(object, purge).is_some());
        assert_eq!((kept(false), kept(true)), ([true, true, true], [false, false, true]));
    }

    #[test]
    fn objects_of_our_kinds_are_released_and_keep_the_finalizers_of_others() {
        let definition = json!({
            "kind": "CustomResourceDefinition",
            "spec": {
                "group": "sconce.dev", "names": { "kind": "ModelVersion", "plural": "modelversions" },
                "versions": [{ "name": "v1alpha1" }, { "name": "v1", "storage": true }],
            },
        });
        let kind = defined(&definition).expect("ours");
        assert_eq!((kind.api_version.as_str(), kind.plural.as_str()), ("sconce.dev/v1", "modelversions"));
        let foreign = json!({ "kind": "CustomResourceDefinition", "spec": { "group": "example.org" } });
        assert!(defined(&foreign).is_none() && defined(&json!({ "kind": "Namespace" })).is_none());
        let object = |finalizers: &[&str]| json!({ "metadata": { "finalizers": finalizers } });
        assert_eq!(released(&object(&["example.org/a", "sconce.dev/version"])), Some(vec!["example.org/a"]));
        assert_eq!(released(&object(&["example.org/a"])), None);
        assert_eq!(released(&json!({ "metadata": {} })), None);
    }

    #[test]
    fn a_root_that_would_lead_nowhere_is_named_and_stops_everything() {
        let ours =
            json!({ "kind": "VirtualService", "metadata": { "namespace": "shop", "name": "sconce-digits" } });
        let rule = json!({ "delegate": { "name": "sconce-digits" } });
        let root = json!({ "kind": "VirtualService", "metadata": { "namespace": "shop", "name": "digits" }, "spec": { "http": [rule] } });
        let roots = roots(&[ours.clone(), root], &[ours]);
        assert_eq!(
            roots,
            ["VirtualService shop/digits hands requests to shop/sconce-digits, which would be gone"]
        );
        let found = Found { roots, ..Found::default() };
        let failure = found.refuse(&typed("sconce uninstall")).expect_err("it would dangle");
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(found.refuse(&typed("sconce uninstall --force")).is_ok());
    }

    #[test]
    fn what_helm_installed_is_left_to_helm_but_for_what_was_published() {
        let metadata = json!({ "namespace": "s", "name": "sconce", "annotations": { "meta.helm.sh/release-name": "prod" } });
        let found = Found {
            installed: vec![json!({ "kind": "Deployment", "metadata": metadata })],
            ..Found::default()
        };
        let failure = found.refuse(&typed("sconce uninstall --namespace s")).expect_err("helm's");
        assert!(failure.to_string().contains("helm uninstall prod --namespace s"), "{failure}");
        assert!(found.refuse(&typed("sconce uninstall --namespace s --published-only")).is_ok());
        // What a release has left behind, when it went, is nobody's any more.
        let annotations = json!({ "meta.helm.sh/release-name": "prod", "helm.sh/resource-policy": "keep" });
        let left = json!({ "kind": "CustomResourceDefinition", "metadata": { "name": "a", "annotations": annotations } });
        let found = Found { installed: vec![left], ..Found::default() };
        assert!(found.refuse(&typed("sconce uninstall --namespace s")).is_ok());
    }
}
