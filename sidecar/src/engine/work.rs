//! One request, as the inference threads see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{EngineError, Tensor, Turn};

/// What is to be run, and on what terms.
#[derive(Debug)]
pub struct Work {
    /// In the order of the model's signature; `None` where an optional one was left out.
    pub inputs: Vec<Option<Tensor>>,
    /// What its beginning depends on; `None` where the caller asked for this very version.
    pub permit: Option<Permit>,
    /// When its answer is of no use any more.
    pub deadline: Instant,
    /// Who goes first.
    pub priority: Priority,
    /// Of a sequence: what it runs on instead of the model itself. Over when it has run, or when it is
    /// known that it will not.
    pub turn: Option<Turn>,
}

/// Whose turn it is among the requests that wait for one version: the smaller number's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u64);

/// Whether requests that wait for a version may still begin. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Permit(Arc<AtomicBool>);

/// Why a model did not run, or what it ran into.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// More waits for the version than may, or than can be done by the deadline.
    #[error("the version has more to do than it can")]
    Overloaded {
        /// When less will be waiting, by all that is known now.
        retry: Duration,
    },
    /// Its time was over before it could run, or would have been before it had run.
    #[error("the deadline passed, or would have while the model ran")]
    Late,
    /// The process is ending.
    #[error("the server is stopping")]
    Stopping,
    /// It was not to begin any more when its turn came. Its inputs come back.
    #[error("the version was withdrawn")]
    Withdrawn(Vec<Option<Tensor>>),
    /// The model or its inputs are at fault.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Priority {
    /// From the protocol's `priority`: 1 is the highest, and 0 leaves it to the server, which makes
    /// it a 2: callers can ask to go first, and offer to go last.
    pub fn new(number: u64) -> Self {
        if number == 0 { Self::default() } else { Self(number) }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(2)
    }
}

impl Permit {
    /// Lets waiting requests begin, or not any more.
    pub fn set(&self, may_begin: bool) {
        self.0.store(may_begin, Ordering::Relaxed);
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Permit {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}
