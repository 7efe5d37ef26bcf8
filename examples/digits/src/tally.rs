//! What was seen, in all and phase by phase.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use tokio::sync::Notify;

use crate::sconce::Push;

/// Counts answers as they come.
#[derive(Default)]
pub(crate) struct Tally {
    state: Mutex<State>,
    counted: Notify,
}

#[derive(Default)]
struct State {
    requests: u64,
    failed: u64,
    first_failure: Option<String>,
    versions: BTreeMap<String, Version>,
    current: Phase,
    phases: Vec<PhaseReport>,
}

#[derive(Clone, Default)]
struct Version {
    answers: u64,
    right: u64,
}

#[derive(Default)]
struct Phase {
    name: String,
    began: Option<Instant>,
    asked: BTreeMap<String, u32>,
    versions: BTreeMap<String, Version>,
    micros: Vec<u64>,
}

/// The form of `DEMO_OUT`.
#[derive(Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) versions: BTreeMap<String, VersionReport>,
    phases: Vec<PhaseReport>,
    pub(crate) pushes: Vec<Push>,
    pub(crate) seconds_to_first_prediction: f64,
}

#[derive(Clone, Serialize)]
pub(crate) struct VersionReport {
    pub(crate) answers: u64,
    pub(crate) accuracy: f64,
}

#[derive(Clone, Default, Serialize)]
pub(crate) struct PhaseReport {
    pub(crate) name: String,
    /// Percent by version.
    pub(crate) asked: BTreeMap<String, u32>,
    /// Percent by version.
    pub(crate) observed: BTreeMap<String, f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    #[serde(skip)]
    pub(crate) accuracy: BTreeMap<String, f64>,
    #[serde(skip)]
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn answered(&self, sent: Instant, version: &str, right: bool) {
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.requests += 1;
        count(&mut state.versions, version, right);
        // A request that was under way when the phase began belongs to the one before.
        if state.current.began.is_none_or(|began| sent >= began) {
            count(&mut state.current.versions, version, right);
            state.current.micros.push(micros);
        }
        drop(state);
        self.counted.notify_waiters();
    }

    pub(crate) fn failed(&self, why: String) {
        let mut state = self.lock();
        state.requests += 1;
        state.failed += 1;
        state.first_failure.get_or_insert(why);
    }

    pub(crate) fn first_failure(&self) -> String {
        self.lock().first_failure.clone().unwrap_or_default()
    }

    /// Begins a phase; only requests sent from now on count for it.
    pub(crate) fn begin(&self, name: &str, asked: &[(&str, u32)]) {
        let asked = asked.iter().map(|(version, percent)| ((*version).to_owned(), *percent)).collect();
        self.lock().current =
            Phase { name: name.to_owned(), began: Some(Instant::now()), asked, ..Phase::default() };
    }

    /// Waits until the phase has this many answers.
    pub(crate) async fn answers(&self, wanted: u64) {
        loop {
            let counted = self.counted.notified();
            if self.lock().current.micros.len() as u64 >= wanted {
                return;
            }
            counted.await;
        }
    }

    /// The phase so far.
    pub(crate) fn so_far(&self) -> PhaseReport {
        let state = self.lock();
        PhaseReport { failed: state.failed, ..state.current.report() }
    }

    /// Ends the phase.
    pub(crate) fn end(&self) -> PhaseReport {
        let report = self.so_far();
        self.lock().phases.push(report.clone());
        report
    }

    pub(crate) fn report(&self, pushes: Vec<Push>, seconds_to_first_prediction: f64) -> Report {
        let state = self.lock();
        let version =
            |version: &Version| VersionReport { answers: version.answers, accuracy: accuracy(version) };
        Report {
            requests: state.requests,
            failed: state.failed,
            versions: state.versions.iter().map(|(name, counted)| (name.clone(), version(counted))).collect(),
            phases: state.phases.clone(),
            pushes,
            seconds_to_first_prediction,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    fn report(&self) -> PhaseReport {
        let all: u64 = self.versions.values().map(|version| version.answers).sum();
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let mut observed: BTreeMap<String, f64> =
            self.asked.keys().map(|version| (version.clone(), 0.0)).collect();
        for (version, counted) in &self.versions {
            observed.insert(version.clone(), 100.0 * counted.answers as f64 / all.max(1) as f64);
        }
        PhaseReport {
            name: self.name.clone(),
            asked: self.asked.clone(),
            observed,
            p50_ms: percentile(&sorted, 50),
            p99_ms: percentile(&sorted, 99),
            accuracy: self.versions.iter().map(|(name, counted)| (name.clone(), accuracy(counted))).collect(),
            failed: 0,
        }
    }
}

fn count(versions: &mut BTreeMap<String, Version>, name: &str, right: bool) {
    let version = versions.entry(name.to_owned()).or_default();
    version.answers += 1;
    version.right += u64::from(right);
}

fn accuracy(version: &Version) -> f64 {
    version.right as f64 / version.answers.max(1) as f64
}

/// In milliseconds, of sorted microseconds: the smallest value that this percentage is at or below.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |micros| *micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!(percentile(&sorted, 50), 50.0);
        assert_eq!(percentile(&sorted, 99), 99.0);
        assert_eq!(percentile(&sorted[..1], 99), 1.0);
        assert_eq!(percentile(&[], 50), 0.0);
    }

    #[test]
    fn a_phase_counts_only_what_was_sent_in_it() {
        let tally = Tally::default();
        let before = Instant::now();
        tally.begin("half", &[("1", 50), ("2", 50)]);
        tally.answered(before, "1", true);
        tally.answered(Instant::now(), "2", true);
        tally.answered(Instant::now(), "2", false);
        tally.failed("on purpose".into());
        let phase = tally.end();
        assert_eq!(phase.observed, BTreeMap::from([("1".into(), 0.0), ("2".into(), 100.0)]));
        assert_eq!(phase.accuracy["2"], 0.5);
        let report = tally.report(vec![], 1.0);
        assert_eq!((report.requests, report.failed, report.versions["1"].answers), (4, 1, 1));
    }
}
