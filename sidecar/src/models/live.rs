//! The models this sidecar answers for, and the only place they change.
//!
//! Every request takes one [`snapshot`](Live::snapshot) and keeps it until its
//! reply is sent, so no request sees half of an update. One task, `reconcile`,
//! builds the next [`ModelSet`] off to the side and hands it to
//! [`publish`](Live::publish). Nothing here locks, waits or fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use sconce_artifact::Labels;
use sconce_catalog::{Digest, Generation, ModelName, Serial, ServedSplit, StickyHeader, Ticket, Version};

use super::routes::Routes;
use crate::engine::{Permit, Queue};

/// Shared handle to the current [`ModelSet`]. All clones see the same updates.
#[derive(Clone, Default)]
pub struct Live(Arc<ArcSwap<ModelSet>>);

/// What is served at one catalog serial. Never changed once published.
#[derive(Default)]
pub struct ModelSet {
    /// The catalog this set was made from.
    pub serial: Serial,
    /// By name.
    pub models: BTreeMap<ModelName, ServedModel>,
}

/// One model as it is served.
#[derive(Clone, Default)]
pub struct ServedModel {
    /// The versions that are verified, loaded and warm.
    pub ready: BTreeMap<Version, Arc<ServedVersion>>,
    /// The versions that the catalog has and this sidecar has not (yet), with the reason.
    pub unready: BTreeMap<Version, Unready>,
    /// Who answers requests that name no version; `None` until a version with a share is ready.
    pub split: Option<ServedSplit>,
    /// Which split of the model's that is.
    pub generation: Generation,
    /// The header by which callers are known, each of which the split gives to one version.
    pub sticky: Option<StickyHeader>,
    /// Handed from set to set, so that a swap does not restart the walk along the shares.
    pub tickets: Tickets,
    /// What was seen of its routes in a mesh; handed on in the same way.
    pub routes: Routes,
}

/// Why a version cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// It is on its way.
    #[error("it is still loading")]
    Loading,
    /// It will not be served, for this reason.
    #[error("{0}")]
    Rejected(String),
}

/// One version as it is served.
pub struct ServedVersion {
    /// Its name, as requests and replies spell it.
    pub version: Version,
    /// Which bytes these are.
    pub artifact: Digest,
    /// What the classes of its outputs are called.
    pub labels: Labels,
    /// Where requests wait for it.
    pub queue: Queue,
    /// Stands for as long as the split gives it a share: what it was picked for and has not
    /// begun goes to another version when that is over.
    pub permit: Permit,
    /// Requests it answered, and requests it failed.
    pub counts: Counts,
}

/// What a version did since it was loaded.
#[derive(Default)]
pub struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// The order of a model's requests.
#[derive(Clone, Default)]
pub struct Tickets(Arc<AtomicU64>);

impl Live {
    /// The current set.
    pub fn snapshot(&self) -> Arc<ModelSet> {
        // `load_full`, not `load`: requests hold this across awaits, and a held
        // `Guard` would use up one of its thread's few fast slots.
        self.0.load_full()
    }

    /// Makes `next` the current set and returns the one it replaced.
    ///
    /// Requests in flight may still hold the old set, and whoever drops the last
    /// reference pays for freeing its tensors. That should not be a request.
    #[must_use = "keep it until it is the only reference, then free it off the request path"]
    pub fn publish(&self, next: ModelSet) -> Arc<ModelSet> {
        self.0.swap(Arc::new(next))
    }
}

impl Tickets {
    /// The next place in the order.
    pub fn next(&self) -> Ticket {
        Ticket(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Counts {
    /// Counts one request that was answered.
    pub fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request that the model failed.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Answered and failed so far.
    pub fn read(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_the_set_it_started_with() {
        let live = Live::default();
        let in_flight = live.snapshot();

        let _old = live.publish(ModelSet { serial: Serial(1), ..Default::default() });

        assert_eq!(in_flight.serial, Serial(0));
        assert_eq!(live.snapshot().serial, Serial(1));
    }
}
