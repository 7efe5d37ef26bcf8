//! What became of a version's requests, and where their time went.
//!
//! Written by the threads that answer and read by whoever asks for statistics, without a lock: each
//! number is exact, and numbers of one reading may be a request apart.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the parts of one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Making the model's inputs of what was sent.
    pub input: Duration,
    /// The model itself.
    pub infer: Duration,
    /// Making what is sent of its results.
    pub output: Duration,
}

/// How often something happened, and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Times.
    pub count: u64,
    /// Nanoseconds of all of them together.
    pub ns: u64,
}

/// What became of a version's requests since it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Milliseconds since the Unix epoch at which the latest request was answered or failed; 0
    /// before the first.
    pub last_ms: u64,
    /// Rows that were answered; one a request where rows are not counted.
    pub rows: u64,
    /// Runs that succeeded; a batch is one.
    pub runs: u64,
    /// Requests that were answered, from their arrival to the answer.
    pub success: Total,
    /// Requests that were not, whatever the reason.
    pub fail: Total,
    /// The wait of those that were answered.
    pub queue: Total,
    /// Their share of the phases. A member of a batch has had all of the batch's time.
    pub compute: [Total; 3],
    /// The runs by rows, up to [`MOST_ROWS`]; each with the phases of its runs.
    pub batches: Vec<(u64, [Total; 3])>,
}

/// Runs of more rows are in every total, and not among the batches: callers choose how many
/// rows a request has, and each number of them takes memory.
pub const MOST_ROWS: usize = 128;

/// The counters of one version.
pub(super) struct Tallies {
    last_ms: AtomicU64,
    rows: AtomicU64,
    runs: AtomicU64,
    success: Tally,
    fail: Tally,
    queue: Tally,
    compute: [Tally; 3],
    batches: Box<[[Tally; 3]]>,
}

#[derive(Default)]
struct Tally {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Phases {
    fn all(&self) -> [Duration; 3] {
        [self.input, self.infer, self.output]
    }
}

impl Default for Tallies {
    fn default() -> Self {
        Self {
            last_ms: AtomicU64::default(),
            rows: AtomicU64::default(),
            runs: AtomicU64::default(),
            success: Tally::default(),
            fail: Tally::default(),
            queue: Tally::default(),
            compute: Default::default(),
            batches: std::iter::repeat_with(Default::default).take(MOST_ROWS).collect(),
        }
    }
}

impl Tallies {
    /// A run of this many rows succeeded.
    pub(super) fn ran(&self, rows: usize, phases: &Phases) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(batch) = rows.checked_sub(1).and_then(|at| self.batches.get(at)) {
            add(batch, phases);
        }
    }

    /// A request of this many rows is answered, of which the run had these phases.
    pub(super) fn answered(&self, rows: usize, took: Duration, queued: Duration, phases: &Phases) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.success.add(took);
        self.queue.add(queued);
        add(&self.compute, phases);
        self.touch();
    }

    /// A request is not answered.
    pub(super) fn failed(&self, took: Duration) {
        self.fail.add(took);
        self.touch();
    }

    pub(super) fn read(&self) -> Statistics {
        let read = |tallies: &[Tally; 3]| [0, 1, 2].map(|at| tallies[at].read());
        let batches = self.batches.iter().zip(1u64..).map(|(batch, rows)| (rows, read(batch)));
        Statistics {
            last_ms: self.last_ms.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            runs: self.runs.load(Ordering::Relaxed),
            success: self.success.read(),
            fail: self.fail.read(),
            queue: self.queue.read(),
            compute: read(&self.compute),
            batches: batches.filter(|(_, [input, ..])| input.count > 0).collect(),
        }
    }

    fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A clock that is set back must not make the latest request an older one.
        self.last_ms.fetch_max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Tally {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // 584 years of them fit.
        self.ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self) -> Total {
        Total { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

fn add(tallies: &[Tally; 3], phases: &Phases) {
    tallies.iter().zip(phases.all()).for_each(|(tally, took)| tally.add(took));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: Phases = Phases {
        input: Duration::from_nanos(1),
        infer: Duration::from_nanos(20),
        output: Duration::from_nanos(3),
    };

    fn total(count: u64, ns: u64) -> Total {
        Total { count, ns }
    }

    #[test]
    fn every_member_of_a_batch_has_had_all_of_its_time_and_the_batch_is_one_run() {
        let tallies = Tallies::default();
        tallies.ran(3, &PHASES);
        for (rows, queued) in [(1, 5), (2, 7)] {
            let (took, queued) = (Duration::from_nanos(50), Duration::from_nanos(queued));
            tallies.answered(rows, took, queued, &PHASES);
        }
        let read = tallies.read();
        assert_eq!((read.runs, read.rows), (1, 3));
        assert_eq!((read.success, read.queue, read.fail), (total(2, 100), total(2, 12), total(0, 0)));
        assert_eq!(read.compute, [total(2, 2), total(2, 40), total(2, 6)]);
        assert_eq!(read.batches, [(3, [total(1, 1), total(1, 20), total(1, 3)])]);
        assert!(read.last_ms > 1_700_000_000_000, "{} ms", read.last_ms);
    }

    #[test]
    fn rows_that_a_caller_makes_up_take_no_memory() {
        let tallies = Tallies::default();
        for rows in [0, 1, MOST_ROWS, MOST_ROWS + 1, usize::MAX] {
            tallies.ran(rows, &PHASES);
        }
        let rows: Vec<u64> = tallies.read().batches.into_iter().map(|(rows, _)| rows).collect();
        assert_eq!(rows, [1, MOST_ROWS as u64]);
        assert_eq!(tallies.read().runs, 5);
    }
}
