//! How a measurement goes: a bar on a terminal with what the last second was like, plain lines
//! elsewhere, always on standard error.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    load::Running,
    record::{Look, span},
    table,
};

/// How often somebody looks.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// Lines that a whole measurement makes where there is no terminal, at most.
const LINES: u32 = 10;

/// A measurement under way, shown.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    duration: Duration,
    /// When the next line is due, where there is no terminal.
    next: Duration,
    before: Before,
}

/// The last look.
struct Before {
    at: Instant,
    answered: u64,
}

impl Progress {
    pub(super) fn new(title: &str, duration: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(duration.as_millis() as u64);
            let form = "{prefix} {bar:24} {msg}";
            bar.set_style(
                ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_prefix(title.to_owned());
            bar.set_message("warming up");
            bar
        });
        if bar.is_none() {
            eprintln!("{title}");
        }
        let before = Before { at: Instant::now(), answered: 0 };
        Self { bar, duration, next: Duration::ZERO, before }
    }

    /// Shows where it stands.
    pub(super) fn look(&mut self, running: &Running) {
        let now = Instant::now();
        let Some(at) = now.checked_duration_since(running.began()) else { return };
        if self.bar.is_none() && at < self.next {
            return;
        }
        let line = self.line(&running.look(), now, running.outstanding());
        match &self.bar {
            Some(bar) => {
                bar.set_position(at.min(self.duration).as_millis() as u64);
                bar.set_message(line);
            }
            None => {
                self.next = at + (self.duration / LINES).max(Duration::from_secs(1));
                eprintln!("{:>6.1} s  {line}", at.as_secs_f64());
            }
        }
    }

    fn line(&mut self, look: &Look, now: Instant, outstanding: u64) -> String {
        let seconds = now.duration_since(self.before.at).as_secs_f64();
        let rate = (look.answered - self.before.answered) as f64 / seconds.max(1e-3);
        self.before = Before { at: now, answered: look.answered };
        line(look, rate, outstanding)
    }

    /// Clears the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(look: &Look, rate: f64, outstanding: u64) -> String {
    let mut text = format!("{:>7}/s", table::number(rate));
    let recent: &Histogram<u64> = &look.recent;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        let shown = match recent.is_empty() {
            true => "-".into(),
            false => table::ms(span(recent.value_at_quantile(quantile)).as_secs_f64() * 1e3),
        };
        text += &format!("  {name} {shown:>9}");
    }
    text += &format!("  waiting {outstanding}");
    for (what, count) in [("failed", look.failed), ("unsent", look.unsent)] {
        if count > 0 {
            text += &format!("  {what} {count}");
        }
    }
    if look.versions.len() > 1 {
        let shares = look.versions.iter();
        let share = |count: u64| count as f64 * 100.0 / look.answered.max(1) as f64;
        let shares: Vec<String> = shares.map(|(v, count)| format!("{v}: {:.1} %", share(*count))).collect();
        text += &format!("  {}", shares.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::record::{Record, Sample};

    #[test]
    fn a_line_has_the_last_second_and_what_goes_wrong() {
        let mut record = Record::new(Duration::from_secs(1));
        let ms = Duration::from_millis;
        for (version, took) in [("1", 4), ("2", 6)] {
            record.add(Sample { due: ms(0), sent: ms(0), done: ms(took), outcome: Ok(version.into()) });
        }
        let text = line(&record.look(), 2.0, 7);
        assert!(text.trim_start().starts_with("2/s  p50"), "{text}");
        assert!(text.contains("waiting 7") && text.contains("1: 50.0 %, 2: 50.0 %"), "{text}");
        assert!(!text.contains("failed"), "{text}");
        record.unsent(ms(3));
        let text = line(&record.look(), 0.0, 0);
        assert!(text.contains("p50         -") && text.contains("unsent 1"), "{text}");
    }
}
