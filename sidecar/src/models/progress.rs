//! Where every version stands on this sidecar: what is reported and what metrics show.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use sconce_catalog::{Generation, ModelName, Serial, Version};

use super::{live::ServedVersion, routes::Routes};

/// One state of things. Published whole; counters inside go on counting.
#[derive(Clone, Default)]
pub struct Progress {
    /// The catalog that is served.
    pub serial: Serial,
    /// By model and version.
    pub versions: BTreeMap<(ModelName, Version), Standing>,
    /// By model.
    pub splits: BTreeMap<ModelName, Splitting>,
}

/// Whose traffic is split how.
#[derive(Clone)]
pub struct Splitting {
    /// Which split is served; older than the catalog's while none of its versions is ready.
    pub generation: Generation,
    /// What was seen of routes in a mesh.
    pub routes: Routes,
}

/// Where one version stands.
#[derive(Clone)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Bytes that came from the control plane for it.
    pub moved: Arc<AtomicU64>,
}

/// The states of a version on a sidecar.
#[derive(Clone)]
pub enum State {
    /// On its way. The text says what went wrong with the last try, if one did.
    Loading(Option<String>),
    /// Verified, loaded and warm.
    Ready(Arc<ServedVersion>),
    /// It will not be served, and why.
    Rejected(String),
}

impl State {
    /// The label that metrics carry.
    pub fn label(&self) -> &'static str {
        match self {
            State::Loading(_) => "loading",
            State::Ready(_) => "ready",
            State::Rejected(_) => "rejected",
        }
    }
}
