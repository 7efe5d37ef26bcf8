//! Sentences for people who wait.

use sconce_catalog::Split;

use super::plan::Pod;
use crate::fleet::Standing;

/// How many pods a sentence names: more would not be read.
const NAMED: usize = 5;

/// A pod, and what it has not got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// The pod's name, without its namespace.
    pub(crate) pod: String,
    text: String,
}

impl Lacking {
    #[cfg(test)]
    pub(crate) fn new(pod: &str, text: &str) -> Self {
        Self { pod: pod.to_owned(), text: text.to_owned() }
    }

    pub(super) fn of(name: &str, pod: &Pod, split: &Split) -> Self {
        if pod.absent.is_some() {
            return Self { pod: name.to_owned(), text: format!("{name} is not connected") };
        }
        let missing = split.shares().iter().filter_map(|(version, _)| {
            Some(match pod.versions.get(version) {
                Some(Standing::Ready) => return None,
                Some(Standing::Loading(None)) => format!("{version} is loading"),
                Some(Standing::Loading(Some(reason))) => format!("{version} is not loaded: {reason}"),
                Some(Standing::Rejected(reason)) => format!("{version} was rejected: {reason}"),
                None => format!("{version} has not been heard of"),
            })
        });
        let text = format!("{name}: {}", missing.collect::<Vec<_>>().join(", "));
        Self { pod: name.to_owned(), text }
    }

    /// The sentence.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

pub(super) fn unheard(names: &[&str]) -> String {
    format!("endpoints that may still have to reconnect: {}", bounded(names, ", "))
}

pub(super) fn below_floor(ready: usize, pods: usize, needed: usize, lacking: &[Lacking]) -> String {
    format!(
        "{ready} of {pods} pods have every version of the split ready, {needed} are needed; {}",
        together(lacking)
    )
}

/// Their sentences, of some where there are many.
pub(crate) fn together(lacking: &[Lacking]) -> String {
    let texts: Vec<&str> = lacking.iter().map(Lacking::text).collect();
    bounded(&texts, "; ")
}

fn bounded(all: &[&str], between: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(between);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
