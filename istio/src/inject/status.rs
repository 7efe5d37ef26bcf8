//! What the injector writes onto a pod about what it did to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Skip, shape};
use crate::names;

/// What was added, so that it can be found again and taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// Of everything that should be there.
    pub(super) hash: String,
    /// Volumes that were not there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) volumes: Vec<String>,
    /// Containers that were given the socket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<String>,
    /// Secrets that were not there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) image_pull_secrets: Vec<String>,
    /// Ports that were added to annotations of Istio's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) excluded: BTreeMap<String, Vec<u16>>,
    /// Whether the pod's label was added too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) label: bool,
    /// The model whose selector asked, where nobody else did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) selected_by: Option<String>,
}

/// The user's partial container, and where it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Partial {
    pub(super) list: List,
    pub(super) index: usize,
    pub(super) container: Value,
}

/// One of the two lists of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum List {
    Containers,
    InitContainers,
}

impl List {
    /// Its key in a pod's spec.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
        }
    }
}

/// What a pod says was done to it; nothing where nothing was.
pub(super) fn status(pod: &Value) -> Option<Status> {
    serde_json::from_str(shape::text(pod, "annotations", names::STATUS_ANNOTATION)?).ok()
}

/// The user's partial container of a pod that has been injected.
pub(super) fn partial(pod: &Value) -> Option<Partial> {
    serde_json::from_str(shape::text(pod, "annotations", names::OVERRIDES_ANNOTATION)?).ok()
}

/// What [`STATUS_ANNOTATION`](names::STATUS_ANNOTATION) says of a pod that was left as it is.
pub fn skipped(skip: &Skip) -> String {
    format!("skipped: {skip}")
}
