//! How soon something may be tried again.

use std::time::{Duration, Instant};

/// Delays that double with every attempt, and begin anew after a calm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
    latest: Option<Instant>,
}

impl Backoff {
    /// For calls that fail.
    pub(crate) fn for_failures() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(30))
    }

    /// For sources that cannot be read: somebody may have to mend them.
    pub(crate) fn for_sources() -> Self {
        Self::new(Duration::from_secs(5), Duration::from_secs(300))
    }

    /// For repairs: whoever changes an object for ever is answered ever less often.
    pub(crate) fn for_repairs() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(300))
    }

    fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempts: 0, latest: None }
    }

    /// Takes down an attempt.
    pub(crate) fn attempted(&mut self, now: Instant) {
        // The longest delay twice without an attempt is a calm: whatever it was is over.
        if self.latest.is_some_and(|latest| now.duration_since(latest) > 2 * self.most) {
            self.attempts = 0;
        }
        self.attempts += 1;
        self.latest = Some(now);
    }

    /// When the next attempt may be made, where that is not now.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let doubled = self.first.saturating_mul(1 << self.attempts.saturating_sub(1).min(16));
        self.latest.map(|latest| latest + doubled.min(self.most)).filter(|due| *due > now)
    }

    /// How many attempts there have been since the last calm.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_are_forgiven_after_a_calm() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        assert_eq!(backoff.due(start), None);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..6 {
            backoff.attempted(now);
            let due = backoff.due(now).expect("not at once");
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        assert_eq!(backoff.due(now), None);
        let later = now + Duration::from_secs(20);
        backoff.attempted(later);
        assert_eq!((backoff.attempts(), backoff.due(later)), (1, Some(later + Duration::from_secs(1))));
    }
}
