//! Waiting between tries at a source that does not answer.

use std::{fmt::Display, time::Duration};

/// How long until the next try, and what has been said about the last.
pub(crate) struct Retry {
    wait: Duration,
    said: String,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

impl Retry {
    pub(crate) fn new() -> Self {
        Self { wait: FIRST, said: String::new() }
    }

    /// The source works: the next failure is a new one.
    pub(crate) fn worked(&mut self) {
        *self = Self::new();
    }

    /// Waits after a failure. `log` is called once for as long as it is the same: while an
    /// agent starts, one line is enough.
    pub(crate) async fn failed(&mut self, error: impl Display, log: impl FnOnce(&str)) {
        let error = error.to_string();
        if error != self.said {
            log(&error);
            self.said = error;
        }
        // Spread, since all pods of a node lose their agent at the same moment.
        tokio::time::sleep(self.wait.mul_f64(rand::random_range(0.5..1.0))).await;
        self.wait = (self.wait * 2).min(LONGEST);
    }
}
