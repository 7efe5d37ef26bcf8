//! What the process still waits for before it is ready.

use std::sync::{Arc, Mutex, PoisonError};

/// Hands out guards; ready when all that hold it back have been dropped.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Pending>>);

/// Something that is pending until this is dropped.
#[derive(Debug)]
#[must_use = "it is pending only while the guard lives"]
pub struct Guard {
    id: u64,
    readiness: Readiness,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    // A few entries at start, none later: a list beats a map.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    name: String,
    holds_back: bool,
}

impl Readiness {
    /// A guard under this name, which `/readyz` waits for while it lives.
    pub fn guard(&self, name: impl Into<String>) -> Guard {
        self.enter(name.into(), true)
    }

    /// A guard under this name that `/readyz` shows and does not wait for.
    pub fn notice(&self, name: impl Into<String>) -> Guard {
        self.enter(name.into(), false)
    }

    fn enter(&self, name: String, holds_back: bool) -> Guard {
        let mut pending = self.lock();
        let id = pending.next;
        pending.next += 1;
        pending.entries.push(Entry { id, name, holds_back });
        Guard { id, readiness: self.clone() }
    }

    /// Names of what is still pending, oldest first.
    pub fn pending(&self) -> Vec<String> {
        self.lock().entries.iter().map(|entry| entry.name.clone()).collect()
    }

    /// Whether nothing holds it back.
    pub fn is_ready(&self) -> bool {
        !self.lock().entries.iter().any(|entry| entry.holds_back)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // The list is whole after every statement, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut pending = self.readiness.lock();
        let at = pending.entries.iter().position(|entry| entry.id == self.id);
        let name = at.map(|at| pending.entries.remove(at).name);
        tracing::info!(ready = name, pending = pending.entries.len(), "one thing fewer to wait for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::default();
        let (identity, models) = (readiness.guard("identity"), readiness.guard("models"));
        assert_eq!(readiness.pending(), ["identity", "models"]);
        drop(identity);
        assert_eq!(readiness.pending(), ["models"]);
        drop(models);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_notice_is_shown_and_not_waited_for() {
        let readiness = Readiness::default();
        let (identity, models) = (readiness.guard("identity"), readiness.notice("models"));
        assert_eq!(readiness.pending(), ["identity", "models"]);
        assert!(!readiness.is_ready());
        drop(identity);
        assert!(readiness.is_ready());
        assert_eq!(readiness.pending(), ["models"]);
        drop(models);
        assert!(readiness.pending().is_empty());
    }

    #[test]
    fn two_guards_of_one_name_are_two_guards() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.guard("model"), readiness.guard("model"));
        drop(one);
        assert!(!readiness.is_ready());
        drop(two);
        assert!(readiness.is_ready());
    }
}
