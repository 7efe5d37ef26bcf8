//! A cluster, as far as publishing needs one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use sconce_istio::names::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use serde_json::Value;

use crate::fleet::PodName;

pub(super) mod kubernetes;
#[cfg(test)]
pub(super) mod memory;
pub(super) mod watches;

/// What publishing does to a cluster.
pub(super) trait Cluster: Send + Sync {
    /// The object as it is now.
    fn get(&self, id: &ObjectId) -> impl Future<Output = Result<Option<Value>, ClusterError>> + Send;

    /// Makes an object what is given, and returns it as it is then.
    fn apply(&self, object: &Value, force: Force)
    -> impl Future<Output = Result<Value, ClusterError>> + Send;

    /// Deletes an object if it is still the one with this uid; one that is gone is no error.
    fn delete(&self, id: &ObjectId, uid: &str) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Sets or clears one label of a pod; a pod that is gone is no error.
    fn label(
        &self,
        pod: &PodName,
        key: &str,
        value: Option<&str>,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
}

/// What to do about fields that somebody else has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// Fail with [`ClusterError::Conflict`].
    No,
    /// Take them over, and remove what was added to a route.
    Yes,
}

/// Why a cluster did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Nobody answers, or not yet.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// Somebody else has set fields that we would change.
    #[error("{0}")]
    Conflict(String),
    /// It was refused, and will be until something is done about it.
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// Another control plane does it now.
    #[error("another control plane leads")]
    NotLeading,
}

/// Kinds of objects that are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Service,
    VirtualService,
    HttpRoute,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What the watches say of a cluster. It may be a moment old.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// What of it has been listed in full, once at least.
    pub(super) listed: BTreeSet<Source>,
    /// Objects that carry our labels.
    pub(super) objects: BTreeMap<ObjectId, Arc<Value>>,
    /// Pods that are endpoints of a model.
    pub(super) pods: BTreeMap<PodName, Marks>,
    /// For each VirtualService of somebody else, whom it hands requests to.
    pub(super) roots: BTreeMap<(String, String), Vec<(String, String)>>,
}

/// One of the things that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Objects(Kind),
    Pods,
}

/// What a pod's metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Names of models that it is an endpoint of.
    pub(super) models: BTreeSet<String>,
    /// It is on its way out, and no endpoint any more whatever its labels.
    pub(super) terminating: bool,
}

impl Observed {
    /// Whether a root VirtualService hands requests to this one.
    pub(super) fn is_delegate(&self, namespace: &str, name: &str) -> bool {
        self.roots.values().flatten().any(|(of, to)| of == namespace && to == name)
    }
}

impl Kind {
    fn of(object: &Value) -> Option<Self> {
        match object["kind"].as_str()? {
            "Service" => Some(Kind::Service),
            "VirtualService" => Some(Kind::VirtualService),
            "HTTPRoute" => Some(Kind::HttpRoute),
            _ => None,
        }
    }
}

impl ObjectId {
    /// The id of an object of one of these kinds.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let text = |key: &str| object["metadata"][key].as_str().map(str::to_owned);
        Some(Self { kind: Kind::of(object)?, namespace: text("namespace")?, name: text("name")? })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Service => "Service",
            Kind::VirtualService => "VirtualService",
            Kind::HttpRoute => "HTTPRoute",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// Whether an object is ours to change. Who takes the label away takes the object from us.
pub(super) fn ours(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY_LABEL] == MANAGED_BY
}

/// Who else declares what an object should be, rather than having edited it once: a second
/// server-side apply is another owner, and what two owners disagree about is for people.
pub(super) fn other_owner(object: &Value) -> Option<&str> {
    let managers = object["metadata"]["managedFields"].as_array()?;
    let declares = |entry: &&Value| {
        entry["operation"] == "Apply"
            && entry["manager"] != FIELD_MANAGER
            && entry["fieldsV1"].get("f:spec").is_some()
    };
    managers.iter().find(declares)?["manager"].as_str()
}

/// Who has edited an object since we applied it, for people to read.
pub(super) fn editors(object: &Value) -> String {
    let managers = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let edits = managers
        .iter()
        .filter(|entry| entry["manager"] != FIELD_MANAGER && entry["fieldsV1"].get("f:spec").is_some());
    let names: BTreeSet<&str> = edits.filter_map(|entry| entry["manager"].as_str()).collect();
    if names.is_empty() { "somebody".into() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Whether somebody has added to a route's `spec` a field that we do not set, such as a gateway.
/// A Service's has many, from the API server.
pub(super) fn added_to(applied: &Value, held: &Value) -> Vec<String> {
    let keys = |object: &Value| {
        let spec = object["spec"].as_object();
        spec.map(|spec| spec.keys().cloned().collect::<BTreeSet<String>>()).unwrap_or_default()
    };
    match Kind::of(applied) {
        Some(Kind::VirtualService | Kind::HttpRoute) => {
            keys(held).difference(&keys(applied)).cloned().collect()
        }
        Some(Kind::Service) | None => Vec::new(),
    }
}
