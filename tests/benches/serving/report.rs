//! Figures, the ratios of each round, and the table of their medians.

use std::{fmt::Write as _, time::Duration};

use serde_json::json;

/// What one way did in one slice.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// What the issue that asked for the bench wants of a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One line: a value beside what it is compared with, once for each round.
struct Line {
    name: String,
    unit: &'static str,
    target: Option<Target>,
    rounds: Vec<Round>,
}

struct Round {
    value: f64,
    reference: f64,
    p99: Duration,
}

#[derive(Default)]
pub(crate) struct Report(Vec<Line>);

/// The medians of a line.
struct Row<'a> {
    line: &'a Line,
    value: f64,
    reference: f64,
    p99_ms: f64,
    /// The median, the least and the most.
    ratio: [f64; 3],
}

impl Figure {
    pub(crate) fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Self { per_second: latencies.len() as f64 / took.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
    }

    /// With so much done in each.
    pub(crate) fn times(self, much: f64) -> Self {
        Self { per_second: self.per_second * much, ..self }
    }
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most}"),
            Self::AtLeast(least) => format!("≥ {least}"),
        }
    }
}

impl Report {
    /// Adds a round of medians, in microseconds.
    pub(crate) fn latency(&mut self, name: String, target: Option<Target>, own: &Figure, floor: Duration) {
        let round = Round { value: micros(own.p50), reference: micros(floor), p99: own.p99 };
        self.add(name, "p50 µs", target, round);
    }

    /// Adds a round of rows per second.
    pub(crate) fn rate(&mut self, name: String, target: Option<Target>, own: &Figure, reference: f64) {
        self.add(name, "rows/s", target, Round { value: own.per_second, reference, p99: own.p99 });
    }

    fn add(&mut self, name: String, unit: &'static str, target: Option<Target>, round: Round) {
        match self.0.iter_mut().find(|line| line.name == name && line.unit == unit) {
            Some(line) => line.rounds.push(round),
            None => self.0.push(Line { name, unit, target, rounds: vec![round] }),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.iter().map(|line| {
            let sorted = |value: &dyn Fn(&Round) -> f64| {
                let mut values: Vec<f64> = line.rounds.iter().map(value).collect();
                values.sort_unstable_by(f64::total_cmp);
                values
            };
            let median = |values: Vec<f64>| values[values.len() / 2];
            // Of each round by itself: a machine that slows down slows both.
            let ratios = sorted(&|round| round.value / round.reference);
            Row {
                line,
                value: median(sorted(&|round| round.value)),
                reference: median(sorted(&|round| round.reference)),
                p99_ms: median(sorted(&|round| micros(round.p99) / 1e3)),
                ratio: [ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]],
            }
        })
    }

    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table =
            "| | unit | Sconce | reference | ratio | target | p99 ms |\n|---|---|---|---|---|---|---|\n"
                .to_owned();
        for Row { line, value, reference, p99_ms, ratio: [ratio, least, most] } in self.rows() {
            let target = line.target.map_or(String::new(), |target| {
                format!("{}{}", target.text(), if target.is_met(ratio) { "" } else { ", **not met**" })
            });
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "| {} | {} | {value:.0} | {reference:.0} | {ratio:.2} [{least:.2}–{most:.2}] | {target} | {p99_ms:.2} |",
                line.name, line.unit
            );
        }
        table
    }

    /// As JSON.
    pub(crate) fn json(&self, machine: &str) -> String {
        let row = |Row { line, value, reference, p99_ms, ratio: [ratio, least, most] }: Row<'_>| {
            json!({
                "name": line.name, "unit": line.unit, "value": value, "reference": reference, "ratio": ratio,
                "ratio_min": least, "ratio_max": most, "p99_ms": p99_ms, "target": line.target.map(Target::text),
                "met": line.target.map(|target| target.is_met(ratio)),
            })
        };
        json!({ "machine": machine, "rows": self.rows().map(row).collect::<Vec<_>>() }).to_string()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
