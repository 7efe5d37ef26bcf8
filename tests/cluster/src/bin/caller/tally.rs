//! What came of the requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::Unanswered;

/// Answers by version, refusals, failures, and how long each request took.
#[derive(Default)]
pub(crate) struct Tally {
    versions: BTreeMap<String, u64>,
    /// When each version answered last, in milliseconds since 1970.
    last: BTreeMap<String, u64>,
    /// When the last request was sent that it answered.
    last_sent: BTreeMap<String, u64>,
    /// Which versions answered each person.
    people: BTreeMap<u64, BTreeSet<String>>,
    refused: u64,
    failed: u64,
    errors: Vec<String>,
    took: Vec<Duration>,
}

/// As many different errors as somebody reads.
const ERRORS: usize = 5;

impl Tally {
    pub(crate) fn note(&mut self, outcome: Result<String, Unanswered>, took: Duration, person: Option<u64>) {
        self.took.push(took);
        match outcome {
            Ok(version) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                self.last.insert(version.clone(), ms(now));
                let sent = self.last_sent.entry(version.clone()).or_default();
                *sent = (*sent).max(ms(now.saturating_sub(took)));
                if let Some(person) = person {
                    self.people.entry(person).or_default().insert(version.clone());
                }
                *self.versions.entry(version).or_default() += 1;
            }
            Err(Unanswered::Refused) => self.refused += 1,
            Err(Unanswered::Failed(error)) => {
                self.failed += 1;
                if self.errors.len() < ERRORS && !self.errors.contains(&error) {
                    self.errors.push(error);
                }
            }
        }
    }

    pub(crate) fn report(&mut self, whole: Duration) -> serde_json::Value {
        self.took.sort_unstable();
        let at = |share: f64| {
            let index = (self.took.len() as f64 * share) as usize;
            self.took.get(index.min(self.took.len().saturating_sub(1))).map(|took| took.as_secs_f64() * 1e3)
        };
        let mut people: BTreeMap<&str, u64> = BTreeMap::new();
        for versions in self.people.values() {
            let only = versions.first().filter(|_| versions.len() == 1);
            *people.entry(only.map_or("several", String::as_str)).or_default() += 1;
        }
        serde_json::json!({
            "people": people,
            "requests": self.took.len(), "refused": self.refused, "failed": self.failed, "versions": self.versions,
            "last_ms": self.last, "last_sent_ms": self.last_sent,
            "errors": self.errors, "p50_ms": at(0.5), "p99_ms": at(0.99), "seconds": whole.as_secs_f64(),
        })
    }
}
