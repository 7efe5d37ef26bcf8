//! What a person sees: one live line on a terminal, one line a phase everywhere.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::{PhaseReport, Report, Tally};

/// Where it is shown.
pub(crate) struct Show {
    live: Option<ProgressBar>,
}

const REDRAW: Duration = Duration::from_millis(100);

impl Show {
    pub(crate) fn new() -> Self {
        let live = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Self { live }
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    /// Redraws the phase for ever; without a terminal it only waits.
    pub(crate) async fn live(&self, tally: &Tally) {
        let Some(bar) = &self.live else { return std::future::pending().await };
        let mut tick = tokio::time::interval(REDRAW);
        loop {
            tick.tick().await;
            bar.set_message(line(&tally.so_far()));
            bar.tick();
        }
    }

    pub(crate) fn phase(&self, phase: &PhaseReport) {
        self.say(&format!("  {}", line(phase)));
    }

    pub(crate) fn summary(&self, seen: &Report) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
        println!();
        for (version, counted) in &seen.versions {
            println!(
                "version {version} answered {} images, {:.1} % of them right",
                counted.answers,
                counted.accuracy * 100.0
            );
        }
        println!(
            "{} requests, {} failed; first prediction after {:.1} s",
            seen.requests, seen.failed, seen.seconds_to_first_prediction
        );
    }

    pub(crate) fn farewell(&self) {
        println!(
            "\nTry it yourself:\n  \
             export PATH=\"$PWD/target/release:$PATH\"\n  \
             sconce up    # and in another terminal, after the same export:\n  \
             sconce push examples/digits/models/v1/digits.pt --model digits --activate\n  \
             sconce infer digits --input image=examples/digits/seven.npy\n  \
             sconce push examples/digits/models/v3/digits.pt --model digits    # answers fast, and wrong\n  \
             sconce split digits 1=95 2=5\n  \
             sconce --help"
        );
    }
}

fn line(phase: &PhaseReport) -> String {
    let shares = |of: &BTreeMap<String, f64>| {
        let parts: Vec<String> = of
            .iter()
            .map(|(version, share)| {
                let right = phase
                    .accuracy
                    .get(version)
                    .map_or_else(String::new, |right| format!(" ({:.0} % right)", right * 100.0));
                format!("v{version} {share:.1} %{right}")
            })
            .collect();
        parts.join(", ")
    };
    format!(
        "{:<20} {}   p50 {:.2} ms  p99 {:.2} ms  failed {}",
        phase.name,
        shares(&phase.observed),
        phase.p50_ms,
        phase.p99_ms,
        phase.failed
    )
}
