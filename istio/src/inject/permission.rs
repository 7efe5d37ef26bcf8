//! Whether a pod is to have a sidecar: who permits it, who asks for it, and what is never
//! touched.

use serde_json::Value;

use super::{Rejection, Request, shape};
use crate::names;

/// Who wants the sidecar. (A model's selector will be a third, once models are objects of
/// the cluster.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The namespace's label permits it and the pod's label asks for it.
    ByLabels,
    /// Somebody ran the command on this very pod, which gives it the label.
    ByCommand,
}

/// Why a pod is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Its label says so.
    #[error("the pod's label {} is \"false\"", names::INJECT_LABEL)]
    OptedOut,
    /// Its label does not ask.
    #[error("the pod has no label {}: \"true\"", names::INJECT_LABEL)]
    NotAsked,
    /// The namespace's label does not permit it.
    #[error("the namespace {0} has no label {label}: enabled", label = names::NAMESPACE_LABEL)]
    NotPermitted(String),
    /// Sconce itself runs there, and must be able to start without its webhook.
    #[error("{0} is the namespace of Sconce itself")]
    OwnNamespace(String),
    /// Kubernetes itself runs there.
    #[error("{0} is a namespace of Kubernetes itself")]
    SystemNamespace(String),
    /// A kubelet runs it from a file; what the API server shows is a mirror.
    #[error("it is a static pod, which a kubelet runs from a file")]
    Static,
    /// There is no sidecar for it.
    #[error("it runs on Windows, and the sidecar is a Linux program")]
    Windows,
}

pub(super) const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Kubelets write these onto the pods that they run from files.
const STATIC: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.source"];

/// Why the pod is left as it is; nothing where it is to have a sidecar.
pub(super) fn skip(pod: &Value, request: &Request<'_>) -> Result<Option<Skip>, Rejection> {
    let namespace = &request.namespace.name;
    if *namespace == request.settings.own_namespace {
        return Ok(Some(Skip::OwnNamespace(namespace.clone())));
    }
    if SYSTEM.contains(&namespace.as_str()) {
        return Ok(Some(Skip::SystemNamespace(namespace.clone())));
    }
    if is_static(pod) {
        return Ok(Some(Skip::Static));
    }
    match (shape::text(pod, "labels", names::INJECT_LABEL), request.asked) {
        (Some("true"), _) | (None, Asked::ByCommand) => {}
        (Some("false"), _) => return Ok(Some(Skip::OptedOut)),
        (None, Asked::ByLabels) => return Ok(Some(Skip::NotAsked)),
        (Some(other), _) => return Err(Rejection::UnclearLabel(other.to_owned())),
    }
    if request.asked == Asked::ByLabels && !request.namespace.permits() {
        return Ok(Some(Skip::NotPermitted(namespace.clone())));
    }
    Ok(is_windows(pod).then_some(Skip::Windows))
}

fn is_static(pod: &Value) -> bool {
    // `api` is what a kubelet writes onto pods that are not static.
    STATIC.iter().any(|key| shape::text(pod, "annotations", key).is_some_and(|source| source != "api"))
}

fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows" || pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "windows"
}
