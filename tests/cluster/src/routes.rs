//! Somebody who watches a route for as long as a scenario lasts: what a mesh might have been
//! given at any moment, and not only what was there when somebody looked.

use std::{
    io::{BufReader, Read as _},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

/// A watch in the background.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Vec<Value>>,
}

impl Watcher {
    /// Watches the VirtualService of this name, through restarts of the API server.
    ///
    /// # Panics
    /// Where there is no `kubectl`.
    pub fn virtual_service(namespace: &str, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, what) = (Arc::clone(&stop), [namespace.to_owned(), name.to_owned()]);
        let watching = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                watch(&what, &stopped, &mut seen);
            }
            seen
        });
        Self { stop, watching }
    }

    /// Every state that was seen.
    ///
    /// # Panics
    /// Where the watch did.
    pub fn stop(self) -> Vec<Value> {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().expect("it watches to the end")
    }
}

fn watch([namespace, name]: &[String; 2], stop: &AtomicBool, seen: &mut Vec<Value>) {
    let field = format!("--field-selector=metadata.name={name}");
    let mut kubectl = Command::new("kubectl")
        .args(["get", "virtualservices", "-n", namespace, &field, "--watch", "-o", "json"])
        .args(["--request-timeout=5s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl is in PATH");
    let mut text = String::new();
    // It ends after its timeout, or with the API server; what is missed between two watches is
    // seen by neither, so a scenario with enough changes is watched long enough.
    let read = BufReader::new(kubectl.stdout.take().expect("piped")).read_to_string(&mut text);
    let _ = kubectl.wait();
    if read.is_err() || (text.is_empty() && !stop.load(Ordering::Relaxed)) {
        // The API server is away for the moment: it is asked again, not in a tight loop.
        thread::sleep(Duration::from_millis(100));
    }
    let states = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    seen.extend(states.map_while(Result::ok));
}

/// What a route says, where it says nothing wrong: its generation, and the weights of versions.
///
/// # Errors
/// With what is wrong with it.
pub fn read(route: &Value) -> Result<(u64, Vec<(String, u64)>), String> {
    let rules = route["spec"]["http"].as_array().ok_or("no rules")?;
    let weighted = rules.last().and_then(|rule| rule["route"].as_array()).ok_or("no destinations")?;
    let mut generations = Vec::new();
    let mut shares = Vec::new();
    for destination in weighted {
        let header =
            destination["headers"]["request"]["set"]["x-sconce-route"].as_str().ok_or("no header")?;
        let (route, generation) = header.split_once('@').ok_or("no generation")?;
        let version = route.rsplit('/').next().ok_or("no version")?;
        generations.push(generation.parse::<u64>().map_err(|error| error.to_string())?);
        shares.push((version.to_owned(), destination["weight"].as_u64().ok_or("no weight")?));
    }
    generations.dedup();
    let sum: u64 = shares.iter().map(|(_, weight)| weight).sum();
    match generations[..] {
        [generation] if sum == 10_000 => Ok((generation, shares)),
        [_] => Err(format!("weights that sum to {sum}")),
        _ => Err(format!("several generations: {generations:?}")),
    }
}
