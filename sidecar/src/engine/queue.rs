//! The queue of one version: who waits for it, and what is known of how it runs.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use sconce_catalog::Batching;
use tokio::sync::oneshot;

use super::{
    Module, Output, Permit, Priority, RunError, Statistics, Tensor, Turn, Work, batch, estimate::Estimate,
    meters::Meters,
};

/// A version's queue, and the version's module. Clones are the same queue.
///
/// It belongs to the pool that it is first given to.
#[derive(Clone)]
pub struct Queue(Arc<Line>);

pub(super) type Reply = oneshot::Sender<Result<Vec<Output>, RunError>>;

/// What a [`Queue`] is.
pub(super) struct Line {
    pub(super) module: Arc<dyn Module>,
    pub(super) meters: Meters,
    /// What the version is called in logs.
    name: String,
    /// Whether rows may be joined, as far as is known by now.
    batches: AtomicBool,
    /// Only ever locked by who holds the schedule's lock, so nobody waits for it.
    waiting: Mutex<Waiting>,
}

/// The part that changes.
#[derive(Default)]
pub(super) struct Waiting {
    /// In the order of their turns.
    entries: VecDeque<(Place, Entry)>,
    /// Of all entries together.
    rows: usize,
    /// Entries so far.
    arrived: u64,
    /// Runs at this moment.
    pub(super) running: usize,
    /// Seconds of inference threads that it has had, on the scale of the schedule's clock.
    pub(super) used: f64,
    pub(super) estimate: Estimate,
}

/// A place in a queue: by priority, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Priority, u64);

/// A request that waits, or runs.
pub(super) struct Entry {
    pub(super) inputs: Vec<Option<Tensor>>,
    pub(super) permit: Option<Permit>,
    pub(super) deadline: Instant,
    pub(super) queued: Instant,
    /// 1 for a version whose rows nobody counts.
    pub(super) rows: usize,
    /// Whether its rows may be joined with others.
    pub(super) joins: bool,
    pub(super) turn: Option<Turn>,
    pub(super) reply: Reply,
}

impl Queue {
    /// An empty queue for this version of a model.
    pub fn new(module: Arc<dyn Module>, model: &str, version: &str) -> Self {
        let name = format!("{model}:{version}");
        let declared = module.signature().batching == Some(Batching::Rows);
        let reason = match module.signature().has_rows() {
            _ if module.is_stateful() => Some("it changes itself when it runs".to_owned()),
            Ok(()) => None,
            Err(reason) => Some(reason.to_string()),
        };
        if let (true, Some(reason)) = (declared, &reason) {
            tracing::warn!(version = name, reason, "rows are declared independent and run one by one");
        }
        Self(Arc::new(Line {
            batches: AtomicBool::new(declared && reason.is_none()),
            meters: Meters::new(model, version),
            waiting: Mutex::default(),
            module,
            name,
        }))
    }

    /// The version that requests wait for.
    pub fn module(&self) -> &Arc<dyn Module> {
        &self.0.module
    }

    /// Whether rows of several requests may run as one, as far as is known by now.
    pub fn batches(&self) -> bool {
        self.0.batches()
    }

    /// What became of its requests since it was loaded.
    pub fn statistics(&self) -> Statistics {
        self.0.meters.tallies.read()
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Line {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether rows of several requests may be joined.
    pub(super) fn batches(&self) -> bool {
        self.batches.load(Ordering::Relaxed)
    }

    /// Runs every request on its own from now on.
    pub(super) fn stop_batching(&self, reason: &str) {
        if self.batches.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                version = self.name,
                reason,
                "rows were declared independent, but the outputs cannot be cut apart by rows; every request runs \
                 alone from now on"
            );
        }
    }

    /// Notes that a request is not answered. Said before it is told, so that whoever asks afterwards
    /// finds it counted.
    pub(super) fn failed(&self, entry: &Entry) {
        self.meters.tallies.failed(entry.queued.elapsed());
    }

    /// A request that wants into this queue.
    pub(super) fn entry(&self, work: Work, queued: Instant, reply: Reply) -> (Priority, Entry) {
        let Work { inputs, permit, deadline, priority, turn } = work;
        let rows = if self.batches() { batch::rows(self.module.signature(), &inputs) } else { None };
        let (joins, rows) = (rows.is_some(), rows.unwrap_or(1));
        (priority, Entry { inputs, permit, deadline, queued, rows, joins, turn, reply })
    }
}

impl Entry {
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| !permit.is_given())
    }
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Requests and rows whose turn comes before that of a new one with this priority.
    pub(super) fn before(&self, priority: Priority) -> usize {
        match self.entries.back() {
            Some((last, _)) if last.0 > priority => {
                let first = self.entries.iter().take_while(|(place, _)| place.0 <= priority);
                first.map(|(_, entry)| entry.rows).sum()
            }
            _ => self.rows,
        }
    }

    /// Whether the last of them would have to wait behind one with this priority.
    pub(super) fn yields_to(&self, priority: Priority) -> bool {
        self.entries.back().is_some_and(|(last, _)| last.0 > priority)
    }

    pub(super) fn push(&mut self, priority: Priority, entry: Entry) -> Place {
        self.arrived += 1;
        self.rows += entry.rows;
        let place = Place(priority, self.arrived);
        // Nearly always the end: most requests are of one priority.
        let at = match self.entries.back() {
            Some((last, _)) if *last > place => self.entries.partition_point(|(other, _)| *other < place),
            _ => self.entries.len(),
        };
        self.entries.insert(at, (place, entry));
        place
    }

    pub(super) fn at(&self, at: usize) -> Option<&Entry> {
        self.entries.get(at).map(|(_, entry)| entry)
    }

    pub(super) fn take(&mut self, at: usize) -> Option<Entry> {
        // Cheap at both ends, and the front is where it nearly always is.
        let (_, entry) = self.entries.remove(at)?;
        self.rows -= entry.rows;
        Some(entry)
    }

    pub(super) fn take_last(&mut self) -> Option<Entry> {
        self.take(self.entries.len().checked_sub(1)?)
    }

    /// The one in this place, if it has not begun.
    pub(super) fn leave(&mut self, place: Place) -> Option<Entry> {
        let at = self.entries.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        self.take(at)
    }
}
