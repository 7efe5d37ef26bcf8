//! Everything that the checks look at, read once.

use sconce_catalog::{Catalog, ModelName};
use serde::Serialize;
use serde_json::Value;

use crate::client::{Sidecar, SplitProgress};

/// What of a cluster was seen. A list that is `None` could not be read, and says nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Where Sconce itself runs.
    pub(super) system: String,
    /// Of this program.
    pub(super) version: String,
    /// Seconds since the Unix epoch.
    pub(super) now: i64,
    /// Whether Istio's VirtualServices, and the Gateway API's HTTPRoutes, are kinds of this cluster.
    pub(super) has_istio: Option<bool>,
    pub(super) has_gateway_api: Option<bool>,
    pub(super) registrations: Option<Vec<Value>>,
    pub(super) namespaces: Option<Vec<Value>>,
    pub(super) pods: Option<Vec<Value>>,
    pub(super) services: Option<Vec<Value>>,
    pub(super) slices: Option<Vec<Value>>,
    /// All of them: roots are users'.
    pub(super) virtual_services: Option<Vec<Value>>,
    pub(super) http_routes: Option<Vec<Value>>,
    /// Of Sconce itself, wherever they are.
    pub(super) deployments: Option<Vec<Value>>,
    /// Of Sconce's own namespace.
    pub(super) replica_sets: Option<Vec<Value>>,
    pub(super) system_pods: Option<Vec<Value>>,
    pub(super) events: Option<Vec<Value>>,
    /// One object each, or none.
    pub(super) settings: Option<Vec<Value>>,
    pub(super) secret: Option<Vec<Value>>,
    pub(super) lease: Option<Vec<Value>>,
    pub(super) mesh_roots: Option<Vec<Value>>,
    /// What the control plane wants published, how far it has come, and who is connected to it.
    pub(super) catalog: Option<Catalog>,
    pub(super) splits: Option<Vec<(ModelName, SplitProgress)>>,
    pub(super) sidecars: Option<Vec<Sidecar>>,
    pub(super) unread: Vec<Unread>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Unread {
    pub(super) what: String,
    pub(super) why: String,
}

impl View {
    /// A Deployment of Sconce's own namespace; `None` where it is not there or was not seen.
    pub(super) fn deployment(&self, name: &str) -> Option<&Value> {
        let here = |object: &&Value| {
            object["metadata"]["namespace"] == *self.system && object["metadata"]["name"] == name
        };
        self.deployments.iter().flatten().find(here)
    }

    /// A namespace's labels and annotations.
    pub(super) fn namespace(&self, name: &str) -> Option<&Value> {
        self.namespaces.iter().flatten().find(|namespace| namespace["metadata"]["name"] == name)
    }
}

/// Text of a field; empty where it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The namespace and name of an object.
pub(super) fn place(object: &Value) -> (&str, &str) {
    (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}
