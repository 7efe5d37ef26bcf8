//! The sequences that are running: which version each of them is on, and its state.
//!
//! A sequence stays on the version that it started on, whatever becomes of the split and of the
//! catalog's version, and so keeps that version loaded: until its last request, or until it has
//! been idle for too long. There are only so many of a version at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sconce_catalog::{Lane, ModelName};
use sconce_lifecycle::Stopping;
use sconce_telemetry::names;
use tokio::time::MissedTickBehavior;

use super::{
    error::ServeError,
    sequence::{Sequence, SequenceId},
};
use crate::{
    engine::{Instance, State, Turn, instance::Place},
    models::live::ServedVersion,
};

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct SequenceLimits {
    /// Sequences of one version at a time.
    pub most: usize,
    /// How long one may be idle.
    pub idle: Duration,
    /// Requests of one sequence that may wait for its turn.
    pub waiting: usize,
}

/// The sequences that are running. Clones share them.
#[derive(Clone)]
pub struct Sequences(Arc<Shared>);

struct Shared {
    limits: SequenceLimits,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    running: HashMap<Key, Running>,
    /// Sequences of each version, by its address.
    of: HashMap<usize, usize>,
    begun: u64,
}

/// By what a sequence is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    model: ModelName,
    caller: String,
    id: SequenceId,
    /// Whether the requests are copies of others, which may come to the same pod.
    is_mirrored: bool,
}

struct Running {
    served: Arc<ServedVersion>,
    instance: Instance,
    /// Tells it from another of the same name, earlier or later.
    number: u64,
    /// Its last request is here.
    is_ending: bool,
}

/// One request of a sequence. Dropped, it counts as one that has run.
pub(super) struct Visit {
    sequences: Sequences,
    key: Key,
    number: u64,
    starts: bool,
    ends: bool,
    place: Option<Place>,
}

impl Default for SequenceLimits {
    fn default() -> Self {
        Self { most: 1024, idle: Duration::from_secs(60), waiting: 256 }
    }
}

impl Default for Sequences {
    fn default() -> Self {
        Self::new(SequenceLimits::default())
    }
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.limits.fmt(f)
    }
}

impl Key {
    /// `None` where the request does not name its sequence.
    pub(super) fn of(model: &ModelName, lane: Lane, sequence: &Sequence) -> Option<Self> {
        let (id, caller) = (sequence.id.clone()?, sequence.caller.clone());
        Some(Self { model: model.clone(), caller, id, is_mirrored: lane == Lane::Shadow })
    }
}

impl Sequences {
    /// None yet.
    pub fn new(limits: SequenceLimits) -> Self {
        Self(Arc::new(Shared { limits, table: Mutex::default() }))
    }

    /// Ends those that are idle for too long, until the process stops.
    pub async fn expire(self, stopping: Stopping) {
        // A quarter late at most; who asks for one that is due finds it gone whatever the hour.
        let every = (self.0.limits.idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(tick.tick()).await.is_some() {
            drop(self.expired());
        }
    }

    /// The version that this sequence is on.
    pub(super) fn version(&self, key: &Key) -> Option<Arc<ServedVersion>> {
        let running = self.table();
        running.running.get(key).map(|running| Arc::clone(&running.served))
    }

    /// Lets a request of a model that keeps state in: begins its sequence where it says so, and
    /// gives it a place in the order. `spelled` is the model as the caller calls it, `key` is
    /// `None` where the request does not name its sequence.
    pub(super) fn enter(
        &self,
        key: Option<Key>,
        sequence: &Sequence,
        served: &Arc<ServedVersion>,
        spelled: &str,
    ) -> Result<Visit, ServeError> {
        let Some(key) = key else {
            return Err(ServeError::Sequence(format!(
                "inference request to model '{spelled}' must specify a non-zero or non-empty correlation ID \
                 (the parameter sequence_id), since it says that a sequence starts or ends"
            )));
        };
        if served.queue.module().state() == State::Shared {
            return Err(ServeError::Sequence(format!(
                "model `{spelled}`, version `{}` has one state for all its callers, as it changes what copies of \
                 it would share (such as a constant of its code); make that a buffer of the module",
                served.version
            )));
        }
        if sequence.start {
            self.begin(&key, served, spelled)?;
        }
        let mut table = self.table();
        let found = table.running.get_mut(&key);
        // Somebody else may have begun it anew on another version since this request was read.
        let found = found.filter(|running| !running.is_ending && Arc::ptr_eq(&running.served, served));
        let Some(running) = found.filter(|running| !self.0.limits.is_over(running)) else {
            return Err(self.unknown(&key, spelled));
        };
        let place = running.instance.ask(self.0.limits.waiting).map_err(|_| ServeError::Busy {
            model: spelled.to_owned(),
            version: served.version.to_string(),
            retry: Duration::from_secs(1),
        })?;
        running.is_ending = sequence.end;
        let (number, starts, ends) = (running.number, sequence.start, sequence.end);
        drop(table);
        Ok(Visit { sequences: self.clone(), key, number, starts, ends, place: Some(place) })
    }

    /// Begins a sequence, in the place of one of the same name.
    fn begin(&self, key: &Key, served: &Arc<ServedVersion>, spelled: &str) -> Result<(), ServeError> {
        let most = self.0.limits.most;
        let is_full = |table: &Table| {
            let before = table.running.get(key).filter(|before| Arc::ptr_eq(&before.served, served));
            table.count(served) - usize::from(before.is_some()) >= most
        };
        let mut table = self.table();
        let mut over = Vec::new();
        if is_full(&table) {
            over = table.take_if("expired", |running| self.0.limits.is_over(running));
        }
        if is_full(&table) {
            return Err(ServeError::TooManySequences {
                model: spelled.to_owned(),
                version: served.version.to_string(),
                most,
                idle: self.0.limits.idle,
            });
        }
        over.extend(table.take(key, "restarted"));
        table.put(key.clone(), Arc::clone(served));
        drop(table);
        // Freed without the lock.
        drop(over);
        Ok(())
    }

    fn expired(&self) -> Vec<Running> {
        self.table().take_if("expired", |running| self.0.limits.is_over(running))
    }

    fn unknown(&self, key: &Key, spelled: &str) -> ServeError {
        ServeError::Sequence(format!(
            "inference request for sequence {} to model '{spelled}' must specify the START flag on the first \
             request of the sequence; if it did, the sequence has ended, was idle for {} ms or more, or runs in \
             another pod",
            key.id,
            self.0.limits.idle.as_millis()
        ))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SequenceLimits {
    fn is_over(&self, running: &Running) -> bool {
        running.instance.idle_since().is_some_and(|since| since.elapsed() >= self.idle)
    }
}

impl Visit {
    /// The request's turn; an error where it has not come by then.
    pub(super) async fn turn(&mut self, deadline: Instant) -> Result<Turn, ()> {
        let place = self.place.take().ok_or(())?;
        tokio::time::timeout_at(deadline.into(), place.turn()).await.map_err(drop)
    }

    /// It will not run: the sequence is where it was before, and one that this request was to begin
    /// is not there.
    pub(super) fn undo(mut self) {
        let mut table = self.sequences.table();
        let gone = table.running.get_mut(&self.key).filter(|running| running.number == self.number);
        let gone = gone.is_some_and(|running| {
            running.is_ending = false;
            self.starts
        });
        let gone = if gone { table.take(&self.key, "refused") } else { None };
        drop(table);
        drop(gone);
        self.ends = false;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.ends {
            let mut table = self.sequences.table();
            let own = table.running.get(&self.key).is_some_and(|running| running.number == self.number);
            let gone = if own { table.take(&self.key, "ended") } else { None };
            drop(table);
            drop(gone);
        }
    }
}

impl Table {
    fn count(&self, served: &Arc<ServedVersion>) -> usize {
        self.of.get(&address(served)).copied().unwrap_or(0)
    }

    fn put(&mut self, key: Key, served: Arc<ServedVersion>) {
        self.begun += 1;
        let count = self.of.entry(address(&served)).or_default();
        *count += 1;
        gauge(&key, &served, *count);
        let running = Running { served, instance: Instance::new(), number: self.begun, is_ending: false };
        self.running.insert(key, running);
    }

    /// Takes one out, to be dropped without the lock.
    fn take(&mut self, key: &Key, why: &'static str) -> Option<Running> {
        let (key, running) = self.running.remove_entry(key)?;
        self.forget(&key, &running, why);
        Some(running)
    }

    fn take_if(&mut self, why: &'static str, is_over: impl Fn(&Running) -> bool) -> Vec<Running> {
        let taken: Vec<_> = self.running.extract_if(|_, running| is_over(running)).collect();
        taken.iter().for_each(|(key, running)| self.forget(key, running, why));
        taken.into_iter().map(|(_, running)| running).collect()
    }

    fn forget(&mut self, key: &Key, running: &Running, why: &'static str) {
        let address = address(&running.served);
        let left = self.of.get(&address).map_or(0, |count| count - 1);
        if left == 0 {
            self.of.remove(&address);
        } else {
            self.of.insert(address, left);
        }
        gauge(key, &running.served, left);
        let (model, version) = (key.model.to_string(), running.served.version.to_string());
        metrics::counter!(names::SEQUENCES_ENDED, "model" => model, "version" => version, "reason" => why)
            .increment(1);
    }
}

/// Tells versions apart while somebody holds them.
fn address(served: &Arc<ServedVersion>) -> usize {
    Arc::as_ptr(served).addr()
}

fn gauge(key: &Key, served: &ServedVersion, count: usize) {
    let (model, version) = (key.model.to_string(), served.version.to_string());
    metrics::gauge!(names::SEQUENCES, "model" => model, "version" => version).set(count as f64);
}
