//! What holds for every pod, and what a namespace says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rejection, options::Options};
use crate::{names, selectors::Selectors};

/// How an installation injects: one file, read by the webhook and by the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Where Sconce itself runs; pods there are never injected.
    pub own_namespace: String,
    /// Whether the cluster has native sidecars (Kubernetes 1.29 and later); the webhook asks the
    /// nodes where this is not said, the command line assumes it.
    pub native_sidecars: Option<bool>,
    /// Whether Istio's injector makes its proxy a native sidecar. Istio does so by itself where
    /// every node is 1.33 or later.
    pub native_proxy: Option<bool>,
    /// Secrets of the pod's namespace to pull the sidecar's image with.
    pub image_pull_secrets: Vec<String>,
    /// Any of the options that annotations set, without the prefix: `image`, `memory`, …
    pub defaults: BTreeMap<String, String>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// Not YAML or JSON, or a key that there is not.
    #[error("{0}")]
    Unreadable(String),
    /// An option that is unknown or wrong.
    #[error(transparent)]
    Option(#[from] Rejection),
}

/// A pod's namespace, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels: whether it permits injection, whether it is in the mesh.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: options for all its pods.
    pub annotations: BTreeMap<String, String>,
    /// By which labels its models ask for pods.
    pub selectors: Selectors,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own_namespace: "sconce-system".into(),
            native_sidecars: None,
            native_proxy: None,
            image_pull_secrets: Vec::new(),
            defaults: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// Where it is neither, has a key that there is not, or an option that cannot be.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidSettings> {
        let settings: Self =
            serde_saphyr::from_str(text).map_err(|error| InvalidSettings::Unreadable(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether every default is one that there is.
    ///
    /// # Errors
    /// Naming the first that is not.
    pub fn check(&self) -> Result<(), Rejection> {
        Options::default().with_defaults(self).map(drop)
    }
}

impl Namespace {
    /// Whether pods in it may be injected.
    pub fn permits(&self) -> bool {
        self.labels.get(names::NAMESPACE_LABEL).is_some_and(|value| value == "enabled")
    }
}
