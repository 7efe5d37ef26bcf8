//! What is said of an object to whoever looks at it: conditions, and a few figures for columns.

use std::collections::BTreeMap;

use sconce_catalog::{Model, Version, VersionRecord};
use serde::{Deserialize, Serialize};

use crate::{
    fleet::Standing,
    pull::{Progress, Stage},
};

/// The status of an object of either kind. What is absent is taken away when it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) observed_generation: Option<i64>,
    pub(super) conditions: Vec<Condition>,
    /// Of a model.
    pub(super) versions: Option<usize>,
    pub(super) split: Option<String>,
    pub(super) generation: Option<u64>,
    /// Of a version.
    pub(super) artifact: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) share: Option<String>,
    pub(super) pods: Option<String>,
}

/// One condition, in the form that `kubectl wait` knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) observed_generation: i64,
    pub(super) last_transition_time: String,
}

/// As much of a message as the schema takes.
const LONGEST: usize = 2_000;
/// As many pods as a message names.
const NAMED: usize = 5;

impl Status {
    pub(super) fn of(generation: i64) -> Self {
        Self { observed_generation: Some(generation), ..Self::default() }
    }

    /// Says whether something holds, and why.
    pub(super) fn say(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
        }
        self.conditions.push(Condition {
            r#type: kind.into(),
            status: if holds { "True" } else { "False" }.into(),
            reason: reason.into(),
            message,
            observed_generation: self.observed_generation.unwrap_or_default(),
            last_transition_time: String::new(),
        });
    }

    pub(super) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == kind)
    }

    /// The same with the times since when its conditions stand as they do.
    pub(super) fn since(mut self, before: &Self, now: &str) -> Self {
        for condition in &mut self.conditions {
            let same = before.condition(&condition.r#type).filter(|old| old.status == condition.status);
            condition.last_transition_time =
                same.map_or_else(|| now.to_owned(), |old| old.last_transition_time.clone());
        }
        self
    }

    /// What of it is worth an Event: conditions that stand otherwise than before.
    pub(super) fn news<'a>(&'a self, before: &Self) -> Vec<&'a Condition> {
        let known = |condition: &Condition| {
            before.condition(&condition.r#type).is_some_and(|old| old.reason == condition.reason)
        };
        let passing = [PULLING, WAITING, LOADING, NOT_PULLED, SPLIT_MOVING];
        // What keeps a version from being pulled keeps it from being ready, and is told once.
        let repeated = |at: usize, condition: &Condition| {
            self.conditions[..at].iter().any(|earlier| earlier.reason == condition.reason)
        };
        let all = self.conditions.iter().enumerate();
        let news = all.filter(|(at, condition)| {
            !known(condition) && !repeated(*at, condition) && !passing.contains(&condition.reason.as_str())
        });
        news.map(|(_, condition)| condition).collect()
    }
}

const PULLING: &str = "Pulling";
const WAITING: &str = "WaitingForOthers";
const LOADING: &str = "Loading";
const NOT_PULLED: &str = "NotPulled";
pub(super) const SPLIT_MOVING: &str = "SplitMoving";
/// Something is not as the schema has it.
pub(super) const INVALID: &str = "Invalid";

/// Whether the bytes of a version are there.
#[derive(Clone, Debug)]
pub(super) enum Bytes<'a> {
    There(&'a VersionRecord),
    Coming(Progress),
    /// And why not.
    Missing {
        reason: &'static str,
        message: String,
    },
}

/// The status of a version, given the pods that serve its model.
pub(super) fn of_version(
    generation: i64,
    name: &Version,
    bytes: Bytes<'_>,
    model: Option<&Model>,
    pods: &BTreeMap<String, Option<Standing>>,
) -> Status {
    let mut status = Status::of(generation);
    let record = match bytes {
        Bytes::There(record) => record,
        Bytes::Coming(progress) => {
            let (reason, message) = coming(&progress);
            status.say("Pulled", false, reason, message);
            status.say("Ready", false, NOT_PULLED, "its bytes are on their way");
            return status;
        }
        Bytes::Missing { reason, message } => {
            status.say("Pulled", false, reason, &message);
            status.say("Ready", false, reason, message);
            return status;
        }
    };
    status.artifact = Some(record.artifact.to_string());
    status.size = Some(record.size);
    status.share = model.and_then(|model| model.split.as_ref()).map(|split| split.share(name).to_string());
    status.say("Pulled", true, "Pulled", format!("{} bytes, checked and stored", record.size));
    let ready = pods.values().filter(|standing| **standing == Some(Standing::Ready)).count();
    status.pods = Some(format!("{ready}/{}", pods.len()));
    let rejected: Vec<String> = pods
        .iter()
        .filter_map(|(pod, standing)| match standing {
            Some(Standing::Rejected(reason)) => Some(format!("{pod}: {reason}")),
            Some(Standing::Ready | Standing::Loading(_)) | None => None,
        })
        .collect();
    if !rejected.is_empty() {
        let text =
            format!("rejected by {} of {} pods: {}", rejected.len(), pods.len(), bounded(&rejected, "; "));
        status.say("Ready", false, "Rejected", text);
    } else if pods.is_empty() {
        status.say("Ready", false, "NoPods", "no pod that serves this model is connected");
    } else if ready < pods.len() {
        let waits = pods.iter().filter(|(_, standing)| **standing != Some(Standing::Ready));
        let one = |(pod, standing): (&String, &Option<Standing>)| match standing {
            Some(Standing::Loading(Some(reason))) => format!("{pod} ({reason})"),
            _ => pod.clone(),
        };
        let waits: Vec<String> = waits.map(one).collect();
        status.say("Ready", false, LOADING, format!("not loaded yet by {}", bounded(&waits, ", ")));
    } else {
        status.say("Ready", true, "Ready", format!("ready on {ready} of {ready} pods"));
    }
    status
}

/// In steps of a tenth: every step is written to the API server.
fn coming(progress: &Progress) -> (&'static str, String) {
    match (progress.stage, progress.total) {
        (Stage::Waiting, _) => (WAITING, "other versions are pulled before it".into()),
        (Stage::Fetching, Some(total)) if total > 0 => {
            let tenths = progress.bytes * 10 / total;
            (PULLING, format!("{} % of {total} bytes are there", tenths * 10))
        }
        (Stage::Fetching, _) => (PULLING, "it is being fetched".into()),
        (Stage::Checking, _) => (PULLING, "it is being checked and stored".into()),
    }
}

fn bounded(all: &[String], between: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(between);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use sconce_catalog::{Digest, Signature, Split};

    use super::*;

    fn record() -> VersionRecord {
        VersionRecord {
            artifact: Digest::from_bytes([7; 32]),
            size: 10,
            signature: Signature::default(),
            metadata: BTreeMap::new(),
            pushed_at_ms: 0,
            pushed_by: String::new(),
        }
    }

    fn told(pods: &[(&str, Option<Standing>)]) -> Status {
        let (version, record) = ("7".parse().expect("valid"), record());
        let model = Model { split: Some(Split::whole("7".parse().expect("valid"))), ..Model::default() };
        let pods = pods.iter().map(|(pod, standing)| ((*pod).to_owned(), standing.clone())).collect();
        of_version(1, &version, Bytes::There(&record), Some(&model), &pods)
    }

    fn ready(status: &Status) -> (String, String) {
        let ready = status.condition("Ready").expect("there");
        (ready.reason.clone(), ready.message.clone())
    }

    #[test]
    fn a_version_is_ready_where_every_connected_pod_has_it() {
        let both = told(&[("a", Some(Standing::Ready)), ("b", Some(Standing::Ready))]);
        assert_eq!((both.pods.as_deref(), both.share.as_deref()), (Some("2/2"), Some("100 %")));
        assert_eq!(both.condition("Ready").map(|ready| ready.status.as_str()), Some("True"));
        let one = told(&[("a", Some(Standing::Ready)), ("b", None)]);
        assert_eq!(ready(&one), ("Loading".into(), "not loaded yet by b".into()));
        let bad = told(&[("a", Some(Standing::Ready)), ("b", Some(Standing::Rejected("NaN".into())))]);
        assert_eq!(ready(&bad), ("Rejected".into(), "rejected by 1 of 2 pods: b: NaN".into()));
        assert_eq!(ready(&told(&[])).0, "NoPods");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_stands_otherwise_and_is_news_when_its_reason_changes() {
        let before = told(&[("a", None)]).since(&Status::default(), "1");
        let same = told(&[("a", Some(Standing::Loading(None)))]).since(&before, "2");
        assert_eq!(same, before);
        let after = told(&[("a", Some(Standing::Ready))]).since(&before, "3");
        let times: Vec<&str> =
            after.conditions.iter().map(|condition| condition.last_transition_time.as_str()).collect();
        assert_eq!(times, ["1", "3"]);
        assert_eq!(
            after.news(&before).iter().map(|told| told.reason.as_str()).collect::<Vec<_>>(),
            ["Ready"]
        );
        assert!(before.news(&Status::default()).iter().all(|told| told.reason != "Loading"));
    }
}
