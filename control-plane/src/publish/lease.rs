//! One control plane at a time does what must not be done twice: whoever holds a Lease of
//! `coordination.k8s.io`.
//!
//! The holder trusts the lease for less time than the others wait for it, and counts from before
//! it asked for the renewal, while they count from when they saw it. So one has stopped before
//! another begins, whatever their clocks show: only that clocks run equally fast is assumed.

use std::time::{Duration, Instant};

use sconce_lifecycle::Stopping;
use sconce_telemetry::names;
use tokio::sync::watch;

use super::cluster::ClusterError;

/// What is done by one control plane at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duty {
    /// What the lease is called, in the control plane's own namespace.
    pub(crate) lease: &'static str,
    /// The metric that is 1 while this control plane has it.
    gauge: &'static str,
}

/// To publish.
pub(crate) const PUBLISHING: Duty = Duty { lease: "sconce-publisher", gauge: names::PUBLISHES };
/// To reconcile declared objects.
pub(crate) const RECONCILING: Duty = Duty { lease: "sconce-reconciler", gauge: names::RECONCILES };

/// How long others wait after a renewal that they saw.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How long the holder counts on a renewal that it sent.
const TRUSTED: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// A lease as the cluster holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Nobody, where it is empty.
    pub(crate) holder: String,
    pub(crate) duration: Duration,
    /// Changes with every write, and must be named to write.
    pub(crate) revision: String,
    /// How often the holder has changed.
    pub(crate) transitions: i32,
}

/// Where the lease is.
pub(crate) trait Leases: Send + Sync {
    /// What it is of.
    fn duty(&self) -> Duty;

    /// The lease, `None` where there is none yet.
    fn read(&self) -> impl Future<Output = Result<Option<Record>, ClusterError>> + Send;

    /// Writes the lease over the revision that `record` names, or creates it where that is empty.
    /// Fails with [`ClusterError::Conflict`] where somebody else was faster.
    fn write(&self, record: &Record) -> impl Future<Output = Result<Record, ClusterError>> + Send;
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// What one candidate remembers of the lease.
struct Candidate {
    name: String,
    /// The revision that it saw last, and since when.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    fn step(&mut self, record: Option<&Record>, now: Instant) -> Step {
        let Some(record) = record.filter(|record| !record.holder.is_empty()) else { return Step::Take };
        if record.holder == self.name {
            return Step::Renew;
        }
        match &self.seen {
            Some((revision, since)) if *revision == record.revision => {
                if now.duration_since(*since) >= record.duration { Step::Take } else { Step::Wait }
            }
            _ => {
                self.seen = Some((record.revision.clone(), now));
                Step::Wait
            }
        }
    }

    fn record(&self, step: Step, before: Option<&Record>) -> Record {
        let transitions = before.map_or(0, |record| record.transitions) + i32::from(step == Step::Take);
        let revision = before.map(|record| record.revision.clone()).unwrap_or_default();
        Record { holder: self.name.clone(), duration: DURATION, revision, transitions }
    }
}

/// Holds the lease whenever it can be had, and says until when it counts. Ends when stopping.
///
/// The lease is not given up here: call [`release`] once nothing is written any more.
pub(crate) async fn hold(
    leases: &impl Leases,
    name: &str,
    held: &watch::Sender<Option<Instant>>,
    stopping: Stopping,
) {
    let mut candidate = Candidate { name: name.to_owned(), seen: None };
    while !stopping.is_cancelled() {
        match attempt(leases, &mut candidate).await {
            Ok(until) => say(held, until, name, leases.duty()),
            // A failure proves nothing: what was held counts until its time is up.
            Err(error) => tracing::debug!(%error, "a lease could not be looked after"),
        }
        stopping.run_until_cancelled(tokio::time::sleep(PERIOD)).await;
    }
}

async fn attempt(leases: &impl Leases, candidate: &mut Candidate) -> Result<Option<Instant>, ClusterError> {
    let asked = Instant::now();
    let answer = async {
        let before = leases.read().await?;
        let step = candidate.step(before.as_ref(), Instant::now());
        if step == Step::Wait {
            return Ok(None);
        }
        leases.write(&candidate.record(step, before.as_ref())).await?;
        Ok(Some(asked + TRUSTED))
    };
    // An answer that comes later than this would be of no use.
    let late = |_| ClusterError::Unreachable("no answer in time".into());
    match tokio::time::timeout(PERIOD * 2, answer).await.map_err(late)? {
        // Somebody else was faster, so it is theirs.
        Err(ClusterError::Conflict(_)) => Ok(None),
        other => other,
    }
}

fn say(held: &watch::Sender<Option<Instant>>, until: Option<Instant>, name: &str, duty: Duty) {
    let before = held.send_replace(until);
    let leads = |until: Option<Instant>| until.is_some_and(|until| until > Instant::now());
    match (leads(before), until.is_some()) {
        (false, true) => tracing::info!(name, lease = duty.lease, "this control plane holds the lease now"),
        (true, false) => {
            tracing::warn!(name, lease = duty.lease, "another control plane holds the lease now")
        }
        (true, true) | (false, false) => {}
    }
    metrics::gauge!(duty.gauge).set(f64::from(u8::from(until.is_some())));
}

/// Gives the lease up, if it is held, so that nobody has to wait for it.
pub(crate) async fn release(leases: &impl Leases, name: &str) -> Result<(), ClusterError> {
    match leases.read().await? {
        Some(record) if record.holder == name => {
            leases.write(&Record { holder: String::new(), ..record }).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same where nobody waits for what comes of it.
pub(crate) async fn give_up(leases: &impl Leases, name: &str) {
    let released = tokio::time::timeout(PERIOD, release(leases, name)).await;
    if !matches!(released, Ok(Ok(()))) {
        let lease = leases.duty().lease;
        tracing::warn!(lease, "a lease was not given up; another control plane waits until it is over");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A lease in memory, which can be out of reach.
    #[derive(Default)]
    struct Shelf {
        record: Mutex<Option<Record>>,
        gone: std::sync::atomic::AtomicBool,
    }

    impl Shelf {
        fn answer<T>(
            &self,
            then: impl FnOnce(&mut Option<Record>) -> Result<T, ClusterError>,
        ) -> Result<T, ClusterError> {
            if self.gone.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(ClusterError::Unreachable("gone".into()));
            }
            then(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Leases for Shelf {
        fn duty(&self) -> Duty {
            PUBLISHING
        }

        async fn read(&self) -> Result<Option<Record>, ClusterError> {
            self.answer(|record| Ok(record.clone()))
        }

        async fn write(&self, next: &Record) -> Result<Record, ClusterError> {
            self.answer(|record| {
                let held = record.as_ref().map(|record| record.revision.clone()).unwrap_or_default();
                if held != next.revision {
                    return Err(ClusterError::Conflict("somebody was faster".into()));
                }
                let revision = (held.parse::<u64>().unwrap_or_default() + 1).to_string();
                Ok(record.insert(Record { revision, ..next.clone() }).clone())
            })
        }
    }

    fn candidate(name: &str) -> Candidate {
        Candidate { name: name.into(), seen: None }
    }

    #[test]
    fn a_lease_is_taken_only_after_it_was_seen_unchanged_for_its_whole_duration() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut b = candidate("b");
        let record = |revision: &str| {
            Some(Record { holder: "a".into(), duration: DURATION, revision: revision.into(), transitions: 1 })
        };
        assert_eq!(b.step(record("1").as_ref(), at(0)), Step::Wait);
        assert_eq!(b.step(record("1").as_ref(), at(14)), Step::Wait);
        // A renewal begins the wait anew, however late it is seen.
        assert_eq!(b.step(record("2").as_ref(), at(20)), Step::Wait);
        assert_eq!(b.step(record("2").as_ref(), at(34)), Step::Wait);
        assert_eq!(b.step(record("2").as_ref(), at(35)), Step::Take);
        assert_eq!(b.step(None, at(0)), Step::Take);
        let free = Record { holder: String::new(), ..record("3").expect("there") };
        assert_eq!(b.step(Some(&free), at(0)), Step::Take);
    }

    #[test]
    fn the_holder_stops_counting_on_a_lease_before_another_may_take_it() {
        // The other sees a renewal after it was sent, and waits for the duration from then on.
        const { assert!(TRUSTED.as_secs() < DURATION.as_secs()) };
        // And two renewals may fail without the lease being lost.
        const { assert!(3 * PERIOD.as_secs() < TRUSTED.as_secs()) };
    }

    #[tokio::test]
    async fn one_of_two_holds_it_and_the_other_gets_it_when_it_is_released() {
        let shelf = Shelf::default();
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        assert!(attempt(&shelf, &mut a).await.expect("reached").is_some());
        assert_eq!(attempt(&shelf, &mut b).await, Ok(None));
        assert!(attempt(&shelf, &mut a).await.expect("reached").is_some());
        release(&shelf, "b").await.expect("nothing of b's to release");
        assert_eq!(attempt(&shelf, &mut b).await, Ok(None));
        release(&shelf, "a").await.expect("released");
        assert!(attempt(&shelf, &mut b).await.expect("reached").is_some());
        assert_eq!(attempt(&shelf, &mut a).await, Ok(None));
        let record = shelf.read().await.expect("reached").expect("there");
        assert_eq!((record.holder.as_str(), record.transitions), ("b", 2));
    }

    #[tokio::test]
    async fn of_two_that_reach_for_it_at_once_one_gets_it() {
        let shelf = Shelf::default();
        let (a, b) = (candidate("a"), candidate("b"));
        // Both have read that there is none.
        assert!(shelf.write(&a.record(Step::Take, None)).await.is_ok());
        assert!(matches!(shelf.write(&b.record(Step::Take, None)).await, Err(ClusterError::Conflict(_))));
    }

    #[tokio::test]
    async fn what_is_held_counts_no_longer_than_trusted_when_renewals_fail() {
        let shelf = Shelf::default();
        let mut a = candidate("a");
        let before = Instant::now();
        let until = attempt(&shelf, &mut a).await.expect("reached").expect("held");
        assert!(until >= before + TRUSTED && until <= Instant::now() + TRUSTED);
        shelf.gone.store(true, std::sync::atomic::Ordering::SeqCst);
        // An error, not a promise: whoever watches keeps the time that it was told.
        assert!(matches!(attempt(&shelf, &mut a).await, Err(ClusterError::Unreachable(_))));
    }
}
