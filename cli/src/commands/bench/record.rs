//! What is kept of every answer: histograms, failures by kind, versions, and the same in
//! slices of time.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// Three digits of every latency.
const DIGITS: u8 = 3;
/// Two of those in a slice, of which there are many.
const SLICE_DIGITS: u8 = 2;
/// Longer than this after it was due, a request counts as sent late.
pub(super) const LATE: Duration = Duration::from_millis(1);

/// Why a request has no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Such as `HTTP 503`, `gRPC UNAVAILABLE` or `timeout`: what failures are counted by.
    pub(super) kind: String,
    /// In the server's words, or the system's.
    pub(super) text: String,
}

/// One request and what became of it; times count from when measuring began.
#[derive(Debug)]
pub(super) struct Sample {
    /// When it should have been sent.
    pub(super) due: Duration,
    /// When it was.
    pub(super) sent: Duration,
    /// When the answer was complete.
    pub(super) done: Duration,
    /// The version that answered, empty where the server does not say.
    pub(super) outcome: Result<String, Failed>,
}

/// Everything that one thread has seen.
pub(super) struct Record {
    /// From when a request was due to its answer, of those that have one, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// From when it was sent.
    pub(super) service: Histogram<u64>,
    /// From when it was due to when it was sent, of all.
    pub(super) delay: Histogram<u64>,
    pub(super) late: u64,
    /// Due, and not sent before its time was over or the run was.
    pub(super) unsent: u64,
    pub(super) failures: BTreeMap<String, Failures>,
    pub(super) versions: BTreeMap<String, Answers>,
    pub(super) slices: Vec<Slice>,
    width: Duration,
    /// When the last answer came.
    pub(super) last: Duration,
    /// Latencies since somebody looked.
    recent: Histogram<u64>,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) count: u64,
    /// The first one's text.
    pub(super) example: String,
}

/// The answers of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) count: u64,
    pub(super) first: Duration,
    pub(super) last: Duration,
}

/// What was due in one slice of time.
pub(super) struct Slice {
    pub(super) latency: Histogram<u64>,
    pub(super) failed: u64,
    pub(super) unsent: u64,
}

/// Where a run stands, and what happened since the last look.
pub(super) struct Look {
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) unsent: u64,
    pub(super) recent: Histogram<u64>,
    pub(super) versions: BTreeMap<String, u64>,
}

/// A histogram of nanoseconds that grows as it must.
fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new(digits).expect("1 to 5 digits are valid")
}

fn add(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("it resizes itself");
}

/// The histogram's own way to record all values, `saturating_record`, does not let it grow.
fn count(histogram: &mut Histogram<u64>, span: Duration) {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    histogram.record(nanos).expect("it resizes itself");
}

/// A latency of the histogram as a length of time.
pub(super) fn span(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

impl Record {
    /// An empty one, with slices of this width.
    pub(super) fn new(width: Duration) -> Self {
        Self {
            latency: histogram(DIGITS),
            service: histogram(DIGITS),
            delay: histogram(DIGITS),
            late: 0,
            unsent: 0,
            failures: BTreeMap::new(),
            versions: BTreeMap::new(),
            slices: vec![],
            width,
            last: Duration::ZERO,
            recent: histogram(SLICE_DIGITS),
        }
    }

    /// Counts a request that was sent.
    pub(super) fn add(&mut self, sample: Sample) {
        let Sample { due, sent, done, outcome } = sample;
        let delay = sent.saturating_sub(due);
        count(&mut self.delay, delay);
        self.late += u64::from(delay > LATE);
        self.last = self.last.max(done);
        match outcome {
            Ok(version) => {
                let latency = done.saturating_sub(due);
                count(&mut self.latency, latency);
                count(&mut self.service, done.saturating_sub(sent));
                count(&mut self.recent, latency);
                count(&mut self.slice(due).latency, latency);
                self.answered_by(version, done);
            }
            Err(Failed { kind, text }) => {
                self.slice(due).failed += 1;
                let failures = self.failures.entry(kind).or_insert(Failures { count: 0, example: text });
                failures.count += 1;
            }
        }
    }

    fn answered_by(&mut self, version: String, at: Duration) {
        let new = Answers { count: 0, first: at, last: at };
        let answers = self.versions.entry(version).or_insert(new);
        answers.count += 1;
        answers.first = answers.first.min(at);
        answers.last = answers.last.max(at);
    }

    /// Counts a request that was due then and never sent.
    pub(super) fn unsent(&mut self, due: Duration) {
        self.unsent += 1;
        self.slice(due).unsent += 1;
    }

    fn slice(&mut self, due: Duration) -> &mut Slice {
        let index = (due.as_nanos() / self.width.as_nanos().max(1)) as usize;
        while self.slices.len() <= index {
            self.slices.push(Slice { latency: histogram(SLICE_DIGITS), failed: 0, unsent: 0 });
        }
        &mut self.slices[index]
    }

    pub(super) fn width(&self) -> Duration {
        self.width
    }

    /// Requests that were sent and came to nothing.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// Takes in what another thread has seen in the same time.
    pub(super) fn merge(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
        add(&mut self.delay, &other.delay);
        add(&mut self.recent, &other.recent);
        self.late += other.late;
        self.unsent += other.unsent;
        self.last = self.last.max(other.last);
        for (kind, theirs) in &other.failures {
            let ours = self.failures.entry(kind.clone());
            ours.and_modify(|ours| ours.count += theirs.count).or_insert_with(|| theirs.clone());
        }
        for (version, theirs) in &other.versions {
            let ours = self.versions.entry(version.clone()).or_insert(Answers { count: 0, ..*theirs });
            ours.count += theirs.count;
            ours.first = ours.first.min(theirs.first);
            ours.last = ours.last.max(theirs.last);
        }
        for (index, theirs) in other.slices.iter().enumerate() {
            let ours = self.slice(self.width * u32::try_from(index).unwrap_or(u32::MAX));
            add(&mut ours.latency, &theirs.latency);
            ours.failed += theirs.failed;
            ours.unsent += theirs.unsent;
        }
    }

    /// Where it stands; the next look begins here.
    pub(super) fn look(&mut self) -> Look {
        Look {
            answered: self.latency.len(),
            failed: self.failed(),
            unsent: self.unsent,
            recent: std::mem::replace(&mut self.recent, histogram(SLICE_DIGITS)),
            versions: self
                .versions
                .iter()
                .map(|(version, answers)| (version.clone(), answers.count))
                .collect(),
        }
    }
}

impl Look {
    /// Takes in where another thread stands.
    pub(super) fn merge(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.unsent += other.unsent;
        add(&mut self.recent, &other.recent);
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(100);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn sample(due: u64, sent: u64, done: u64, outcome: Result<&str, (&str, &str)>) -> Sample {
        let outcome = outcome
            .map(str::to_owned)
            .map_err(|(kind, text)| Failed { kind: kind.to_owned(), text: text.to_owned() });
        Sample { due: ms(due), sent: ms(sent), done: ms(done), outcome }
    }

    fn close(nanos: u64, wanted: Duration) -> bool {
        span(nanos).abs_diff(wanted) < wanted / 500
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due_and_service_from_when_it_was_sent() {
        let mut record = Record::new(SLICE);
        record.add(sample(100, 400, 450, Ok("1")));
        assert!(close(record.latency.max(), ms(350)), "{}", record.latency.max());
        assert!(close(record.service.max(), ms(50)), "{}", record.service.max());
        assert!(close(record.delay.max(), ms(300)), "{}", record.delay.max());
        assert_eq!(record.late, 1);
        // It shows where it was due, not where the answer came.
        assert_eq!(record.slices.iter().map(|slice| slice.latency.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_failed_is_counted_by_kind_and_not_in_the_latencies() {
        let mut record = Record::new(SLICE);
        record.add(sample(0, 0, 1, Err(("HTTP 503", "the queue is full"))));
        record.add(sample(0, 0, 9, Err(("HTTP 503", "the queue is still full"))));
        record.add(sample(0, 0, 1, Err(("timeout", "no answer in 1 s"))));
        record.unsent(ms(150));
        assert_eq!((record.failed(), record.unsent, record.latency.len()), (3, 1, 0));
        let kept = Failures { count: 2, example: "the queue is full".into() };
        assert_eq!(record.failures["HTTP 503"], kept);
        assert_eq!((record.slices[0].failed, record.slices[1].unsent), (3, 1));
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut two) = (Record::new(SLICE), Record::new(SLICE));
        one.add(sample(0, 0, 10, Ok("1")));
        two.add(sample(0, 0, 30, Ok("1")));
        two.add(sample(250, 250, 260, Ok("2")));
        two.add(sample(250, 250, 260, Err(("timeout", "no answer"))));
        one.merge(&two);
        assert_eq!((one.latency.len(), one.failed(), one.last), (3, 1, ms(260)));
        assert_eq!(one.versions["1"], Answers { count: 2, first: ms(10), last: ms(30) });
        assert_eq!(one.versions["2"], Answers { count: 1, first: ms(260), last: ms(260) });
        assert_eq!(one.slices.iter().map(|slice| slice.latency.len()).collect::<Vec<_>>(), [2, 0, 1]);
    }

    #[test]
    fn a_look_has_only_what_is_new_beside_the_totals() {
        let mut record = Record::new(SLICE);
        record.add(sample(0, 0, 10, Ok("1")));
        assert_eq!(record.look().recent.len(), 1);
        record.add(sample(0, 0, 20, Ok("1")));
        let look = record.look();
        assert_eq!((look.answered, look.recent.len()), (2, 1));
        assert!(close(look.recent.max(), ms(20)) || look.recent.max() > 19_000_000);
    }
}
