//! What was measured, as values: the JSON for machines, and what tables and plots are made of.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    events::Happened,
    load::Load,
    machine::Machine,
    record::{Answers, Failures, LATE, Record, Slice, span},
};
use crate::args::{Arrivals, Protocol};

/// Everything about one command.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Results {
    /// The version of this program.
    pub(super) sconce: &'static str,
    pub(super) began_at: String,
    pub(super) server: String,
    /// `plaintext`, `mTLS` or `TLS`.
    pub(super) security: &'static str,
    pub(super) model: String,
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) interrupted: bool,
    /// Each protocol and load, in the order they were measured.
    pub(super) points: Vec<Point>,
}

/// What all points have in common.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    pub(super) inputs: &'static str,
    pub(super) version: Option<String>,
    pub(super) duration_s: f64,
    pub(super) requests: Option<u64>,
    pub(super) warmup_s: f64,
    pub(super) timeout_s: f64,
    pub(super) outstanding: u16,
    pub(super) connections: Option<u16>,
    pub(super) threads: u16,
    pub(super) seed: u64,
    pub(super) http2: bool,
}

/// One protocol under one load.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) protocol: &'static str,
    pub(super) load: Offered,
    /// Bytes of the body of the first request.
    pub(super) request_bytes: usize,
    /// How long it was measured, until the last answer.
    pub(super) measured_s: f64,
    /// Those that were due: answered, failed and unsent.
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) unsent: u64,
    /// Of those that were sent, this many more than a millisecond after they were due.
    pub(super) late: u64,
    pub(super) answered_per_s: f64,
    pub(super) connections_opened: u64,
    /// From when a request was due to its answer.
    pub(super) latency: Spread,
    /// From when it was sent to its answer.
    pub(super) service: Spread,
    /// From when it was due to when it was sent.
    pub(super) send_delay: Spread,
    pub(super) versions: Vec<VersionAnswers>,
    pub(super) failures: Vec<FailureKind>,
    pub(super) events: Vec<TimelineEvent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) timeline: Vec<TimelineSlice>,
}

/// What was asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub(super) enum Offered {
    Open { arrivals: &'static str, per_s: f64 },
    Closed { callers: u16 },
}

/// How lengths of time are distributed, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) mean_ms: f64,
    pub(super) stdev_ms: f64,
    pub(super) min_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// The whole histogram: up to this many milliseconds, this many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) buckets: Vec<(f64, u64)>,
}

/// How often a version answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct VersionAnswers {
    /// Empty where the server does not name it.
    pub(super) version: String,
    pub(super) answers: u64,
    pub(super) first_s: f64,
    pub(super) last_s: f64,
}

/// How often requests failed in one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FailureKind {
    pub(super) kind: String,
    pub(super) count: u64,
    pub(super) example: String,
}

/// Something that happened while it was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TimelineEvent {
    pub(super) at_s: f64,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) version: String,
    pub(super) message: String,
}

/// What was due in one slice of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TimelineSlice {
    pub(super) from_s: f64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) unsent: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// A finished run, from which a point is made.
pub(super) struct Run<'a> {
    pub(super) protocol: Protocol,
    pub(super) load: Load,
    pub(super) request_bytes: usize,
    pub(super) record: &'a Record,
    pub(super) began: Instant,
    /// How long requests became due.
    pub(super) took: Duration,
    pub(super) connections: u64,
    pub(super) happened: Vec<Happened>,
}

impl Results {
    /// Without histograms and timelines, which people look at elsewhere.
    pub(super) fn summary(&self) -> Self {
        let mut summary = self.clone();
        for point in &mut summary.points {
            point.timeline.clear();
            for spread in [&mut point.latency, &mut point.service, &mut point.send_delay] {
                spread.buckets.clear();
            }
        }
        summary
    }

    /// The share of requests that failed or were never sent, in percent.
    pub(super) fn percent_failed(&self) -> f64 {
        let all: u64 = self.points.iter().map(|point| point.requests).sum();
        let bad: u64 = self.points.iter().map(|point| point.failed + point.unsent).sum();
        if all == 0 { 0.0 } else { bad as f64 * 100.0 / all as f64 }
    }
}

impl Run<'_> {
    pub(super) fn point(self) -> Point {
        let record = self.record;
        let took = self.took.max(record.last).as_secs_f64();
        let answered = record.latency.len();
        let versions: Vec<VersionAnswers> =
            record.versions.iter().map(|(version, answers)| VersionAnswers::new(version, *answers)).collect();
        let mut events: Vec<TimelineEvent> =
            self.happened.into_iter().map(|happened| TimelineEvent::new(happened, self.began)).collect();
        events.extend(changes(&versions, took));
        events.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Point {
            protocol: name(self.protocol),
            load: self.load.into(),
            request_bytes: self.request_bytes,
            measured_s: took,
            requests: answered + record.failed() + record.unsent,
            answered,
            failed: record.failed(),
            unsent: record.unsent,
            late: record.late,
            answered_per_s: if took > 0.0 { answered as f64 / took } else { 0.0 },
            connections_opened: self.connections,
            latency: Spread::of(&record.latency),
            service: Spread::of(&record.service),
            send_delay: Spread::of(&record.delay),
            failures: record.failures.iter().map(|(kind, f)| FailureKind::new(kind, f)).collect(),
            timeline: timeline(&record.slices, record.width()),
            versions,
            events,
        }
    }
}

/// A version that begins to answer, or no longer does, as the callers themselves see it.
fn changes(versions: &[VersionAnswers], took: f64) -> Vec<TimelineEvent> {
    let Some(first) = versions.iter().map(|version| version.first_s).min_by(f64::total_cmp) else {
        return vec![];
    };
    // One that has a small share may be silent for a while without having gone; of one that
    // answered once nothing can be said.
    let gone = |version: &VersionAnswers| {
        let gap = (version.last_s - version.first_s) / (version.answers.max(2) - 1) as f64;
        version.answers > 1 && version.last_s + (20.0 * gap).max(took / 50.0) < took
    };
    let seen = |at_s, kind: &str, version: &VersionAnswers, message: String| TimelineEvent {
        at_s,
        kind: kind.into(),
        version: version.version.clone(),
        message,
    };
    let mut events = vec![];
    for version in versions {
        if version.first_s > first + took / 50.0 {
            let message = format!("version {} answers for the first time", version.version);
            events.push(seen(version.first_s, "first.answer", version, message));
        }
        if gone(version) {
            let message = format!("version {} answers for the last time", version.version);
            events.push(seen(version.last_s, "last.answer", version, message));
        }
    }
    events
}

fn timeline(slices: &[Slice], width: Duration) -> Vec<TimelineSlice> {
    let at = |slice: &Slice, quantile| ms(slice.latency.value_at_quantile(quantile));
    let each = slices.iter().enumerate();
    each.map(|(index, slice)| TimelineSlice {
        from_s: width.as_secs_f64() * index as f64,
        answered: slice.latency.len(),
        failed: slice.failed,
        unsent: slice.unsent,
        p50_ms: at(slice, 0.5),
        p99_ms: at(slice, 0.99),
        max_ms: ms(slice.latency.max()),
    })
    .collect()
}

impl Spread {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        let buckets = histogram.iter_recorded();
        Self {
            mean_ms: histogram.mean() / 1e6,
            stdev_ms: histogram.stdev() / 1e6,
            min_ms: ms(histogram.min()),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(histogram.max()),
            buckets: buckets
                .map(|bucket| (ms(bucket.value_iterated_to()), bucket.count_since_last_iteration()))
                .collect(),
        }
    }
}

impl VersionAnswers {
    fn new(version: &str, answers: Answers) -> Self {
        Self {
            version: version.to_owned(),
            answers: answers.count,
            first_s: answers.first.as_secs_f64(),
            last_s: answers.last.as_secs_f64(),
        }
    }
}

impl FailureKind {
    fn new(kind: &str, failures: &Failures) -> Self {
        Self { kind: kind.to_owned(), count: failures.count, example: failures.example.clone() }
    }
}

impl TimelineEvent {
    fn new(happened: Happened, began: Instant) -> Self {
        Self {
            at_s: happened.at.saturating_duration_since(began).as_secs_f64(),
            kind: happened.kind,
            version: happened.version,
            message: happened.message,
        }
    }
}

impl From<Load> for Offered {
    fn from(load: Load) -> Self {
        match load {
            Load::Open { arrivals: Arrivals::Poisson, rate } => {
                Self::Open { arrivals: "poisson", per_s: rate }
            }
            Load::Open { arrivals: Arrivals::Constant, rate } => {
                Self::Open { arrivals: "constant", per_s: rate }
            }
            Load::Closed { concurrency } => Self::Closed { callers: concurrency },
        }
    }
}

/// How a protocol is called in results.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json => "json",
        Protocol::Binary => "binary",
        Protocol::Grpc => "grpc",
    }
}

fn ms(nanos: u64) -> f64 {
    span(nanos).as_secs_f64() * 1e3
}

/// From when on a request counts as late, for people.
pub(super) fn late_ms() -> f64 {
    LATE.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::specimen;

    fn version(version: &str, answers: u64, first_s: f64, last_s: f64) -> VersionAnswers {
        VersionAnswers { version: version.into(), answers, first_s, last_s }
    }

    #[test]
    fn a_swap_is_seen_by_the_callers_themselves() {
        let seen = changes(&[version("1", 500, 0.0, 5.0), version("2", 500, 5.01, 9.99)], 10.0);
        let seen: Vec<_> = seen.iter().map(|e| (e.kind.as_str(), e.version.as_str(), e.at_s)).collect();
        assert_eq!(seen, [("last.answer", "1", 5.0), ("first.answer", "2", 5.01)]);
    }

    #[test]
    fn a_version_with_a_small_share_has_not_gone_whenever_it_is_silent() {
        assert_eq!(changes(&[version("1", 995, 0.0, 9.99), version("2", 5, 0.1, 8.0)], 10.0), []);
    }

    #[test]
    fn a_point_counts_everything_that_was_due() {
        let point = specimen::point();
        assert_eq!((point.requests, point.answered, point.failed, point.unsent), (4, 2, 1, 1));
        assert_eq!(point.late, 3, "all were sent two milliseconds late");
        assert_eq!(point.timeline.iter().map(|slice| slice.answered).sum::<u64>(), 2);
        assert!((point.latency.max_ms - 8.0).abs() < 0.01 && (point.service.max_ms - 6.0).abs() < 0.01);
        let kinds: Vec<&str> = point.events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["split.changed", "first.answer"]);
    }

    #[test]
    fn a_summary_has_no_histograms_and_the_share_of_failures_counts_the_unsent() {
        let results = specimen::results(2);
        assert!((results.percent_failed() - 50.0).abs() < 1e-9);
        assert_eq!(specimen::results(0).percent_failed(), 0.0);
        let json = serde_json::to_value(results.summary()).expect("JSON");
        assert_eq!(json["points"][0]["latency"]["buckets"], serde_json::Value::Null);
        assert_eq!(
            json["points"][0]["load"],
            serde_json::json!({"loop": "open", "arrivals": "poisson", "per_s": 100.0})
        );
        assert!(results.points[0].latency.buckets.iter().map(|(_, count)| count).sum::<u64>() == 2);
    }
}
