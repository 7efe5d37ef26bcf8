//! How far an upload is: a bar on a terminal, plain lines elsewhere, always on standard
//! error.

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::bytes;

/// Shows a line each time another tenth is done.
const TENTHS: u64 = 10;

/// An upload under way. Clones count together.
#[derive(Clone)]
pub(super) struct Progress(Arc<Shown>);

struct Shown {
    total: u64,
    /// What is done to them: `sent`.
    done: &'static str,
    sent: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// So many bytes, and what is done to them.
    pub(super) fn new(done: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let form = "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
            bar.set_style(
                ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        if bar.is_none() {
            eprintln!("{} to be {done}", bytes(total));
        }
        Self(Arc::new(Shown { total, done, sent: AtomicU64::new(0), bar }))
    }

    /// This many more bytes are on their way.
    pub(super) fn sent(&self, count: u64) {
        let before = self.0.sent.fetch_add(count, Ordering::Relaxed);
        match &self.0.bar {
            Some(bar) => bar.inc(count),
            None => {
                if let Some(tenths) = reached(before, before + count, self.0.total) {
                    eprintln!("{} % {}", tenths * 100 / TENTHS, self.0.done);
                }
            }
        }
    }

    /// All of it is stored.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.0.bar {
            bar.finish_and_clear();
        }
    }
}

/// The last tenth passed between two counts, if one was.
fn reached(before: u64, now: u64, total: u64) -> Option<u64> {
    let tenths = |count: u64| count * TENTHS / total.max(1);
    (tenths(now) > tenths(before)).then(|| tenths(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_for_each_tenth_and_not_for_each_chunk() {
        assert_eq!(reached(0, 5, 100), None);
        assert_eq!(reached(5, 10, 100), Some(1));
        assert_eq!(reached(10, 55, 100), Some(5));
        assert_eq!(reached(99, 100, 100), Some(10));
        assert_eq!(reached(0, 0, 0), None);
    }
}
