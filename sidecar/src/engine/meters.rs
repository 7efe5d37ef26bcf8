//! What is counted of one version's queue and runs.
//!
//! Handles are made once: looking a metric up by its labels on every request would show.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use sconce_telemetry::names;

use super::tallies::Tallies;

/// The metrics of one version, and its statistics, which the protocol asks for.
pub(super) struct Meters {
    pub(super) tallies: Tallies,
    queued: Gauge,
    runs: Counter,
    rows: Counter,
    batch_rows: Histogram,
    waited: Histogram,
    late: Counter,
    abandoned: Counter,
    displaced: Counter,
    taken_apart: Counter,
}

/// Why a request left its queue without having run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// Its deadline passed, or would have while it ran.
    Late,
    /// Its caller went away.
    Abandoned,
    /// Another of a higher priority needed its place.
    Displaced,
}

impl Meters {
    pub(super) fn new(model: &str, version: &str) -> Self {
        let labels = || [("model", model.to_owned()), ("version", version.to_owned())];
        let saved = |reason: &'static str| {
            let [model, version] = labels();
            metrics::counter!(names::SAVED_ROWS, &[model, version, ("reason", reason.to_owned())])
        };
        Self {
            tallies: Tallies::default(),
            queued: metrics::gauge!(names::QUEUED, &labels()),
            runs: metrics::counter!(names::RUNS, &labels()),
            rows: metrics::counter!(names::ROWS, &labels()),
            batch_rows: metrics::histogram!(names::BATCH_ROWS, &labels()),
            waited: metrics::histogram!(names::QUEUE_SECONDS, &labels()),
            late: saved("late"),
            abandoned: saved("abandoned"),
            displaced: saved("displaced"),
            taken_apart: metrics::counter!(names::BATCHES_TAKEN_APART, &labels()),
        }
    }

    /// How many requests wait now.
    pub(super) fn queued(&self, requests: usize) {
        self.queued.set(requests as f64);
    }

    /// A request begins after this long.
    pub(super) fn waited(&self, waited: Duration) {
        self.waited.record(waited);
    }

    /// The model is about to run on this many rows.
    pub(super) fn ran(&self, rows: usize) {
        self.runs.increment(1);
        self.rows.increment(rows as u64);
        self.batch_rows.record(rows as f64);
    }

    /// Rows that will not run.
    pub(super) fn saved(&self, reason: Saved, rows: usize) {
        let counter = match reason {
            Saved::Late => &self.late,
            Saved::Abandoned => &self.abandoned,
            Saved::Displaced => &self.displaced,
        };
        counter.increment(rows as u64);
    }

    /// A batch whose members had to run one by one.
    pub(super) fn taken_apart(&self) {
        self.taken_apart.increment(1);
    }
}
