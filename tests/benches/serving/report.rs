//! Figures, and the table of their medians.

use std::{collections::BTreeMap, time::Duration};

use crate::ways::Workload;

/// What one way did in one slice.
pub(crate) struct Figure {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Images a request, callers, and the way's place in the order of its first run.
type Key = (i64, usize, usize);

#[derive(Default)]
pub(crate) struct Report {
    names: Vec<&'static str>,
    rows: BTreeMap<Key, Vec<Row>>,
}

struct Row {
    figure: Figure,
    /// Requests per second, as a share of the direct loop's in the same round.
    of_direct: f64,
    /// Microseconds that a request took longer than a direct call.
    added: f64,
}

impl Figure {
    pub(crate) fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Self { per_second: latencies.len() as f64 / took.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
    }
}

impl Report {
    pub(crate) fn add(
        &mut self,
        workload: &Workload,
        callers: usize,
        name: &'static str,
        figure: &Figure,
        base: &Figure,
    ) {
        let place = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        let row = Row {
            of_direct: figure.per_second / base.per_second,
            added: micros(figure.p50) - micros(base.p50),
            figure: Figure { ..*figure },
        };
        self.rows.entry((workload.images(), callers, place)).or_default().push(row);
    }

    fn medians(&self) -> impl Iterator<Item = (Key, [f64; 5])> + '_ {
        self.rows.iter().map(|(key, rows)| {
            let of = |value: fn(&Row) -> f64| {
                let mut values: Vec<f64> = rows.iter().map(value).collect();
                values.sort_unstable_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let medians = [
                of(|row| row.figure.per_second),
                of(|row| row.of_direct),
                of(|row| micros(row.figure.p50)),
                of(|row| micros(row.figure.p99)),
                of(|row| row.added),
            ];
            (*key, medians)
        })
    }

    pub(crate) fn print(&self) {
        println!(
            "{:>7} {:>8}  {:24} {:>11} {:>9} {:>9} {:>9} {:>10}",
            "images", "callers", "way", "requests/s", "of direct", "p50 µs", "p99 µs", "added µs"
        );
        for ((images, callers, place), [per_second, of_direct, p50, p99, added]) in self.medians() {
            let name = self.names[place];
            println!(
                "{images:>7} {callers:>8}  {name:24} {per_second:>11.0} {of_direct:>9.3} {p50:>9.0} {p99:>9.0} {added:>10.0}"
            );
        }
    }

    pub(crate) fn json(&self) -> String {
        let row = |((images, callers, place), [per_second, of_direct, p50, p99, added]): (Key, [f64; 5])| {
            serde_json::json!({
                "images": images, "callers": callers, "way": self.names[place], "requests_per_second": per_second,
                "of_direct": of_direct, "p50_us": p50, "p99_us": p99, "added_p50_us": added,
            })
        };
        serde_json::Value::from(self.medians().map(row).collect::<Vec<_>>()).to_string()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
