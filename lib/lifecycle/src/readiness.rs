//! What the process still waits for before it is ready.

use std::sync::{Arc, Mutex, PoisonError};

/// Hands out guards; ready when all of them have been dropped.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Pending>>);

/// Holds readiness back until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is held back only while the guard lives"]
pub struct Guard {
    id: u64,
    readiness: Readiness,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    // A few entries at start, none later: a list beats a map.
    names: Vec<(u64, String)>,
}

impl Readiness {
    /// A guard under this name, which `/readyz` shows while it lives.
    pub fn guard(&self, name: impl Into<String>) -> Guard {
        let mut pending = self.lock();
        let id = pending.next;
        pending.next += 1;
        pending.names.push((id, name.into()));
        Guard { id, readiness: self.clone() }
    }

    /// Names of the guards that are still held, oldest first.
    pub fn pending(&self) -> Vec<String> {
        self.lock().names.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Whether no guard is held.
    pub fn is_ready(&self) -> bool {
        self.lock().names.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // The list is whole after every statement, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut pending = self.readiness.lock();
        let name =
            pending.names.iter().position(|(id, _)| *id == self.id).map(|at| pending.names.remove(at).1);
        tracing::info!(ready = name, pending = pending.names.len(), "one thing fewer to wait for");
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
    fn two_guards_of_one_name_are_two_guards() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.guard("model"), readiness.guard("model"));
        drop(one);
        assert!(!readiness.is_ready());
        drop(two);
        assert!(readiness.is_ready());
    }
}
