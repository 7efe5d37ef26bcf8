//! What the scenarios showed, in the file that `CLUSTER_OUT` names.

use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

static DONE: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// One scenario. It is in the report when this is dropped, passed or not.
pub struct Scenario {
    name: &'static str,
    requests: u64,
    failed: u64,
    figures: Map<String, Value>,
}

impl Scenario {
    /// Begins one.
    pub fn begin(name: &'static str) -> Self {
        Self { name, requests: 0, failed: 0, figures: Map::new() }
    }

    /// Counts requests of clients, and those of them that failed.
    pub fn count(&mut self, requests: u64, failed: u64) {
        self.requests += requests;
        self.failed += failed;
    }

    /// Notes a figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Notes one more value of a figure that was measured several times.
    pub fn measured(&mut self, name: &str, value: impl Into<Value>) {
        let all = self.figures.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(all) = all.as_array_mut() {
            all.push(value.into());
        }
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let passed = !std::thread::panicking();
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(json!({
            "name": self.name, "passed": passed, "requests": self.requests,
            "failed_requests": self.failed, "figures": self.figures,
        }));
        let Some(file) = std::env::var_os("CLUSTER_OUT") else { return };
        let report = json!({ "scenarios": *done }).to_string();
        if let Err(error) = std::fs::write(&file, report) {
            eprintln!("CLUSTER_OUT {}: {error}", file.display());
        }
    }
}
