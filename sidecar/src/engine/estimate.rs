//! How long a version runs, learned from its runs.
//!
//! A run of n rows takes about `base + n × each`. Both are fitted by least squares over runs of
//! which older ones count less and less, so a machine that slows down is noticed within a few.

use std::time::Duration;

/// Weight of the newest run once there have been many.
const NEWEST: f64 = 1.0 / 16.0;
/// What is left of an estimate each time that it kept something from running: one that is too high
/// would otherwise never be found out.
const DOUBT: f64 = 0.98;

/// A running estimate. Knows nothing at first.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    runs: f64,
    /// Weighted means: of rows, of seconds, and of their products.
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
    base: f64,
    each: f64,
}

impl Estimate {
    /// Learns from one run.
    pub(super) fn observe(&mut self, rows: usize, took: Duration) {
        let (rows, seconds) = (rows as f64, took.as_secs_f64());
        self.runs += 1.0;
        let weight = (1.0 / self.runs).max(NEWEST);
        let toward = |mean: &mut f64, value: f64| *mean += (value - *mean) * weight;
        toward(&mut self.rows, rows);
        toward(&mut self.seconds, seconds);
        toward(&mut self.rows_rows, rows * rows);
        toward(&mut self.rows_seconds, rows * seconds);
        let spread = self.rows_rows - self.rows * self.rows;
        let at_most = self.seconds / self.rows.max(1.0);
        // Where all runs were of one size, nothing says how much of it the rows cost: half of it.
        let one_size = spread < 1e-6 * self.rows_rows.max(1.0);
        let slope = (self.rows_seconds - self.rows * self.seconds) / spread;
        self.each = if one_size { at_most / 2.0 } else { slope.clamp(0.0, at_most) };
        self.base = self.seconds - self.each * self.rows;
    }

    /// Believes in it a little less.
    pub(super) fn doubt(&mut self) {
        for value in [&mut self.seconds, &mut self.rows_seconds, &mut self.base, &mut self.each] {
            *value *= DOUBT;
        }
    }

    /// A run of this many rows; nothing before the first run.
    pub(super) fn of(&self, rows: usize) -> Duration {
        Duration::try_from_secs_f64(self.base + self.each * rows as f64).unwrap_or_default()
    }

    /// This many rows in runs of at most `most`.
    pub(super) fn in_runs(&self, rows: usize, most: usize) -> Duration {
        let runs = u32::try_from(rows / most).unwrap_or(u32::MAX);
        let rest = match rows % most {
            0 => Duration::ZERO,
            rest => self.of(rest),
        };
        self.of(most).saturating_mul(runs).saturating_add(rest)
    }

    /// The most rows that run within `target`; 1 where even that takes longer.
    pub(super) fn within(&self, target: Duration) -> usize {
        let rows = (target.as_secs_f64() - self.base) / self.each;
        // NaN and infinity come from runs that took no time: then any number will do.
        if rows.is_finite() { rows.clamp(1.0, 1e9) as usize } else { usize::MAX }
    }

    /// A usual run.
    pub(super) fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: f64) -> Duration {
        Duration::from_secs_f64(number / 1000.0)
    }

    fn close(found: Duration, expected: Duration) {
        let (found, expected) = (found.as_secs_f64(), expected.as_secs_f64());
        assert!((found - expected).abs() < 0.02 * expected, "{found} for {expected}");
    }

    #[test]
    fn it_finds_what_a_run_costs_and_what_a_row() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.of(8), Duration::ZERO);
        for rows in [1, 8, 3, 1, 16, 2] {
            estimate.observe(rows, ms(10.0 + 2.0 * rows as f64));
        }
        close(estimate.of(1), ms(12.0));
        close(estimate.of(32), ms(74.0));
        close(estimate.in_runs(35, 16), ms(42.0 * 2.0 + 16.0));
        assert_eq!(estimate.within(ms(30.5)), 10);
        assert_eq!(estimate.within(ms(1.0)), 1);
    }

    #[test]
    fn with_one_size_alone_rows_are_taken_to_cost_half_of_it() {
        let mut estimate = Estimate::default();
        for _ in 0..3 {
            estimate.observe(4, ms(8.0));
        }
        close(estimate.of(4), ms(8.0));
        close(estimate.of(8), ms(12.0));
    }

    #[test]
    fn it_follows_a_machine_that_slows_down_and_comes_down_again_when_doubted() {
        let mut estimate = Estimate::default();
        for took in [10.0, 10.0, 10.0] {
            estimate.observe(1, ms(took));
        }
        for _ in 0..40 {
            estimate.observe(1, ms(30.0));
        }
        assert!(estimate.of(1) > ms(27.0));
        for _ in 0..100 {
            estimate.doubt();
        }
        assert!(estimate.of(1) < ms(5.0));
    }
}
