//! Whether a pod is to have a sidecar: who permits it, who asks for it, and what is never
//! touched.

use serde_json::Value;

use super::{Rejection, Request, options::Options, shape, sidecar, status};
use crate::names;

/// Who wants the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The namespace's label permits it, and the pod's label or the selector of a model of the
    /// namespace asks for it.
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
    /// Nobody asks.
    #[error("the pod has no label {}: \"true\", and no model's selector asks for it", names::INJECT_LABEL)]
    NotAsked,
    /// Only a model's selector asks, which says nothing of this pod in particular: it starts without
    /// a sidecar rather than not at all.
    #[error("the selector of the model {model} asks for it, but {why}")]
    Unfit {
        /// The model's name.
        model: String,
        /// What would have been refused had the pod's own label asked.
        why: String,
    },
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

/// Who asks for a pod's sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The pod's own label, or whoever ran the command on it.
    Owner,
    /// The selector of this model.
    Model(String),
}

/// Who asks for the pod's sidecar, or why it is left as it is.
pub(super) fn asker(pod: &Value, request: &Request<'_>) -> Result<Result<Asker, Skip>, Rejection> {
    let namespace = &request.namespace.name;
    if *namespace == request.settings.own_namespace {
        return Ok(Err(Skip::OwnNamespace(namespace.clone())));
    }
    if SYSTEM.contains(&namespace.as_str()) {
        return Ok(Err(Skip::SystemNamespace(namespace.clone())));
    }
    let label = shape::text(pod, "labels", names::INJECT_LABEL);
    let asker = match (label, request.asked) {
        (Some("true"), _) => added(pod).unwrap_or(Asker::Owner),
        (Some(_), _) | (None, Asked::ByCommand) => Asker::Owner,
        (None, Asked::ByLabels) => match selected(pod, request) {
            Some(model) => Asker::Model(model),
            // Before anything that is worth an explanation: it concerns nobody.
            None => return Ok(Err(Skip::NotAsked)),
        },
    };
    if is_static(pod) {
        return Ok(Err(Skip::Static));
    }
    match label {
        None | Some("true") => {}
        Some("false") => return Ok(Err(Skip::OptedOut)),
        Some(other) => return Err(Rejection::UnclearLabel(other.to_owned())),
    }
    if request.asked == Asked::ByLabels && !request.namespace.permits() {
        return Ok(Err(Skip::NotPermitted(namespace.clone())));
    }
    Ok(if is_windows(pod) { Err(Skip::Windows) } else { Ok(asker) })
}

/// The model that asked when an earlier pass added the label.
fn added(pod: &Value) -> Option<Asker> {
    let status = status::status(pod).filter(|status| status.label)?;
    status.selected_by.map(Asker::Model)
}

/// The model that asks for the pod by its selector: by the same labels by which the sidecar will be
/// given the model.
fn selected(pod: &Value, request: &Request<'_>) -> Option<String> {
    let selectors = &request.namespace.selectors;
    if selectors.is_empty() {
        return None;
    }
    let more = Options::of(pod, request.namespace, request.settings).map(|options| options.labels);
    let labels = sidecar::labels(pod, &more.unwrap_or_default());
    selectors.asking(&labels).map(|(model, _)| model.to_owned())
}

fn is_static(pod: &Value) -> bool {
    // `api` is what a kubelet writes onto pods that are not static.
    STATIC.iter().any(|key| shape::text(pod, "annotations", key).is_some_and(|source| source != "api"))
}

fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows" || pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "windows"
}
