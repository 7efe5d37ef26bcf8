//! Results as people read them.

use super::results::{Offered, Point, Results, Spread, late_ms};
use crate::output::{Table, bytes};

/// Everything, for the end of a command.
pub(super) fn all(results: &Results) -> String {
    let mut text = format!("{} at {} ({})\n", results.model, results.server, results.security);
    if let [point] = &results.points[..] {
        text += &format!("{}\n\n{}", headline(point, results), one(point));
        return text;
    }
    text += &format!("\n{}", overview(&results.points));
    for point in &results.points {
        let details = [failures(point), events(point)].concat();
        if !details.is_empty() {
            text += &format!("\n{} {}\n{details}", point.protocol, load(&point.load));
        }
    }
    text
}

fn headline(point: &Point, results: &Results) -> String {
    let load = match point.load {
        Offered::Open { arrivals, per_s } => format!("open loop, {arrivals}: {}/s due", number(per_s)),
        Offered::Closed { callers: 1 } => "closed loop: 1 caller".into(),
        Offered::Closed { callers } => format!("closed loop: {callers} callers"),
    };
    format!(
        "{} over {}, {} a request; {load}, {}/s answered, for {:.1} s after {:.1} s of warm-up",
        point.protocol,
        if results.settings.http2 || point.protocol == "grpc" { "HTTP/2" } else { "HTTP/1.1" },
        bytes(point.request_bytes as u64),
        number(point.answered_per_s),
        point.measured_s,
        results.settings.warmup_s
    )
}

/// One point in full.
fn one(point: &Point) -> String {
    let mut spreads = Table::new(["", "MEAN", "P50", "P90", "P99", "P99.9", "MAX", "SINCE"], "");
    spreads.row(spread("latency", &point.latency, "the request was due"));
    // In a closed loop a request is due when it is sent.
    if matches!(point.load, Offered::Open { .. }) {
        spreads.row(spread("service", &point.service, "it was sent"));
    }
    let mut text = format!(
        "{spreads}\n{} requests: {} answered, {} failed, {} unsent; {} sent more than {} ms late; connections opened: {}\n",
        point.requests,
        point.answered,
        point.failed,
        point.unsent,
        point.late,
        late_ms(),
        point.connections_opened
    );
    let mut versions = Table::new(["VERSION", "ANSWERS", "SHARE", "FIRST", "LAST"], "");
    for version in &point.versions {
        versions.row([
            if version.version.is_empty() { "(unnamed)".into() } else { version.version.clone() },
            version.answers.to_string(),
            format!("{:.2} %", version.answers as f64 * 100.0 / point.answered.max(1) as f64),
            at(version.first_s),
            at(version.last_s),
        ]);
    }
    if !point.versions.is_empty() {
        text += &format!("\n{versions}");
    }
    for part in [failures(point), events(point)] {
        if !part.is_empty() {
            text += &format!("\n{part}");
        }
    }
    text
}

fn overview(points: &[Point]) -> String {
    let mut table = Table::new(
        ["PROTOCOL", "LOAD", "ANSWERED/S", "P50", "P90", "P99", "P99.9", "MAX", "FAILED", "UNSENT"],
        "nothing was measured",
    );
    for point in points {
        let latency = &point.latency;
        table.row([
            point.protocol.into(),
            load(&point.load),
            number(point.answered_per_s),
            ms(latency.p50_ms),
            ms(latency.p90_ms),
            ms(latency.p99_ms),
            ms(latency.p999_ms),
            ms(latency.max_ms),
            point.failed.to_string(),
            point.unsent.to_string(),
        ]);
    }
    table.to_string()
}

fn failures(point: &Point) -> String {
    let mut table = Table::new(["FAILURE", "COUNT", "FOR EXAMPLE"], "");
    for failure in &point.failures {
        table.row([failure.kind.clone(), failure.count.to_string(), failure.example.clone()]);
    }
    if point.failures.is_empty() { String::new() } else { table.to_string() }
}

fn events(point: &Point) -> String {
    let mut table = Table::new(["AT", "EVENT", "VERSION", "WHAT HAPPENED"], "");
    for event in &point.events {
        table.row([at(event.at_s), event.kind.clone(), event.version.clone(), event.message.clone()]);
    }
    if point.events.is_empty() { String::new() } else { table.to_string() }
}

/// A load in a few words.
pub(super) fn load(load: &Offered) -> String {
    match load {
        Offered::Open { per_s, .. } => format!("{}/s", number(*per_s)),
        Offered::Closed { callers: 1 } => "1 caller".into(),
        Offered::Closed { callers } => format!("{callers} callers"),
    }
}

fn spread(what: &str, spread: &Spread, since: &str) -> [String; 8] {
    [
        what.into(),
        ms(spread.mean_ms),
        ms(spread.p50_ms),
        ms(spread.p90_ms),
        ms(spread.p99_ms),
        ms(spread.p999_ms),
        ms(spread.max_ms),
        since.into(),
    ]
}

/// Milliseconds with three digits that mean something.
pub(super) fn ms(value: f64) -> String {
    let decimals = match value {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        v if v < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} ms")
}

/// A rate, with decimals where it is small.
pub(super) fn number(value: f64) -> String {
    match value {
        v if v == v.trunc() || v >= 1000.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn at(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::specimen;

    #[test]
    fn one_point_is_shown_in_full() {
        let text = all(&specimen::results(1));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "digits at https://localhost:8443 (mTLS)");
        assert!(
            lines[1].starts_with("binary over HTTP/1.1, 423 B a request; open loop, poisson: 100/s due"),
            "{text}"
        );
        assert!(lines[3].contains("MEAN") && lines[3].contains("P99.9"), "{text}");
        assert!(lines[4].starts_with("latency") && lines[4].ends_with("the request was due"), "{text}");
        assert!(lines[5].starts_with("service"), "{text}");
        assert!(text.contains("4 requests: 2 answered, 1 failed, 1 unsent"), "{text}");
        assert!(text.contains("HTTP 503  1      the queue is full\n"), "{text}");
        assert!(text.contains("0.50 s  split.changed"), "{text}");
        assert!(text.contains("1        1        50.00 %"), "{text}");
    }

    #[test]
    fn several_points_are_rows_and_only_trouble_is_told_beside() {
        let mut results = specimen::results(3);
        results.points[0].failures.clear();
        results.points[0].events.clear();
        let text = all(&results);
        assert_eq!(text.lines().filter(|line| line.starts_with("binary    100/s")).count(), 3, "{text}");
        assert_eq!(text.matches("the queue is full").count(), 2, "{text}");
    }

    #[test]
    fn lengths_of_time_keep_three_digits() {
        assert_eq!(
            [0.0421, 9.87, 42.13, 421.3, 4213.0].map(ms),
            ["0.042 ms", "9.870 ms", "42.13 ms", "421.3 ms", "4213 ms"]
        );
        assert_eq!([0.5, 100.0, 99.95, 1998.6].map(number), ["0.50", "100", "100.0", "1999"]);
    }
}
