//! When the requests of an open loop become due: a pure sequence, known before anything is
//! sent, so that a slow server cannot slow it down.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::args::Arrivals;

/// The moments at which requests become due, counted from the beginning. They never end and
/// never go back.
pub(super) struct Schedule {
    /// Seconds between two requests, on average.
    gap: f64,
    /// Seconds from the beginning to the next request.
    next: f64,
    dice: Option<StdRng>,
}

impl Schedule {
    /// The part of one of `threads` that together make `rate` requests a second.
    ///
    /// Independent Poisson processes add up to one, and constant ones that are shifted against
    /// each other to a constant one: the whole is the same for any number of threads.
    pub(super) fn new(arrivals: Arrivals, rate: f64, seed: u64, thread: u16, threads: u16) -> Self {
        let gap = f64::from(threads) / rate;
        match arrivals {
            Arrivals::Constant => {
                Self { gap, next: gap * f64::from(thread) / f64::from(threads), dice: None }
            }
            Arrivals::Poisson => {
                let mut dice = StdRng::seed_from_u64(seed.wrapping_add(u64::from(thread) << 32));
                Self { gap, next: exponential(&mut dice) * gap, dice: Some(dice) }
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = self.next;
        self.next += match &mut self.dice {
            Some(dice) => exponential(dice) * self.gap,
            None => self.gap,
        };
        Some(Duration::from_secs_f64(due))
    }
}

/// An exponentially distributed number of mean 1: the distance between Poisson arrivals.
fn exponential(dice: &mut StdRng) -> f64 {
    // 1 - [0, 1) is never 0, whose logarithm would be infinite.
    -(1.0 - dice.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrivals in each of `seconds` seconds.
    fn counts(threads: u16, rate: f64, seconds: usize) -> Vec<f64> {
        let mut counts = vec![0.0; seconds];
        for thread in 0..threads {
            let schedule = Schedule::new(Arrivals::Poisson, rate, 7, thread, threads);
            for due in schedule.take_while(|due| due.as_secs_f64() < seconds as f64) {
                counts[due.as_secs() as usize] += 1.0;
            }
        }
        counts
    }

    fn mean_and_variance(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_variance_of_their_rate() {
        for threads in [1, 4] {
            let (mean, variance) = mean_and_variance(&counts(threads, 50.0, 20_000));
            // Standard errors: 0.05 of the mean, 0.5 of the variance.
            assert!((mean - 50.0).abs() < 0.25, "{threads} threads: mean {mean}");
            assert!((variance - 50.0).abs() < 2.5, "{threads} threads: variance {variance}");
        }
    }

    #[test]
    fn the_distances_of_poisson_arrivals_are_exponential() {
        let due: Vec<f64> = Schedule::new(Arrivals::Poisson, 1_000.0, 3, 0, 1)
            .take(100_001)
            .map(|due| due.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 0.0), "time goes back");
        let (mean, variance) = mean_and_variance(&gaps);
        assert!((mean * 1e3 - 1.0).abs() < 0.02, "{mean}");
        assert!((variance * 1e6 - 1.0).abs() < 0.05, "{variance}");
        let longer = gaps.iter().filter(|gap| **gap > 1e-3).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1f64).exp()).abs() < 0.01, "{longer} are longer than the mean");
    }

    #[test]
    fn constant_arrivals_are_equally_far_apart_over_all_threads() {
        let mut due: Vec<Duration> = (0..3)
            .flat_map(|thread| Schedule::new(Arrivals::Constant, 300.0, 0, thread, 3).take(100))
            .collect();
        due.sort_unstable();
        assert_eq!(due[0], Duration::ZERO);
        for (at, due) in due.iter().enumerate() {
            assert!((due.as_secs_f64() - at as f64 / 300.0).abs() < 1e-8, "{at}: {due:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_again_and_another_others() {
        let of = |seed, thread| {
            Schedule::new(Arrivals::Poisson, 10.0, seed, thread, 2).take(50).collect::<Vec<_>>()
        };
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(2, 0));
        assert_ne!(of(1, 0), of(1, 1));
    }
}
