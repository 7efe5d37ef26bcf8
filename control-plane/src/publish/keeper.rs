//! Keeps objects as they should be, without fighting for them.
//!
//! Three cases are told apart. An object that does not carry our label, or that somebody else
//! declares as well by server-side apply, is a conflict: it is reported and left alone. An object
//! of ours that somebody edited has drifted: it is put back, or only reported, as configured, and
//! ever more rarely while it goes on. Anything else is a change of our own.

use std::{collections::BTreeMap, time::Instant};

use sconce_istio::names::ANNOTATION_PREFIX;
use serde_json::Value;

use super::{
    backoff::Backoff,
    cluster::{Cluster, ClusterError, Force, ObjectId, added_to, editors, other_owner, ours},
};

/// What is done about drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Drift {
    /// Put back.
    #[default]
    Repair,
    /// Only reported.
    Report,
}

/// What was applied, and what became of it.
pub(super) struct Keeper {
    drift: Drift,
    kept: BTreeMap<ObjectId, Kept>,
    repairs: BTreeMap<ObjectId, Backoff>,
}

struct Kept {
    desired: Value,
    /// As the API server returned it: its defaults are no drift.
    held: Value,
}

/// What keeping an object came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it should be.
    Kept,
    /// It was put back, from this.
    Repaired(String),
}

/// Why an object is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not ours, or somebody keeps changing it; worth another look then.
    Conflict { reason: String, again: Option<Instant> },
    /// The cluster did not do as asked.
    Cluster(ClusterError),
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl Keeper {
    pub(super) fn new(drift: Drift) -> Self {
        Self { drift, kept: BTreeMap::new(), repairs: BTreeMap::new() }
    }

    /// Forgets what was applied: somebody else may have applied since.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    /// Forgets one object, which has been deleted.
    pub(super) fn forget_one(&mut self, id: &ObjectId) {
        self.kept.remove(id);
    }

    /// Makes an object what is desired, given what the watch last said of it.
    pub(super) async fn keep(
        &mut self,
        cluster: &impl Cluster,
        desired: Value,
        seen: Option<&Value>,
    ) -> Result<Outcome, Trouble> {
        let id = ObjectId::of(&desired).ok_or_else(|| refused("an object without a name"))?;
        let kept = self.kept.get(&id).filter(|kept| kept.desired == desired);
        if let (Some(kept), Some(seen)) = (kept, seen)
            && same(&kept.held, seen)
        {
            return Ok(Outcome::Kept);
        }
        // The watch lags behind what we applied a moment ago, so it accuses nobody.
        let live = cluster.get(&id).await?;
        if let Some(live) = &live
            && !ours(live)
        {
            return Err(conflict(format!(
                "{id} exists and is not managed by Sconce; rename or delete it, or push the model under \
                 another name"
            )));
        }
        if let Some(kept) = kept {
            if live.as_ref().is_some_and(|live| same(&kept.held, live)) {
                return Ok(Outcome::Kept);
            }
            return self.repair(cluster, id, desired, live).await;
        }
        match cluster.apply(&desired, Force::No).await {
            Ok(held) if added_to(&desired, &held).is_empty() => {
                self.kept.insert(id, Kept { desired, held });
                Ok(Outcome::Kept)
            }
            Ok(_) | Err(ClusterError::Conflict(_)) => self.repair(cluster, id, desired, live).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn repair(
        &mut self,
        cluster: &impl Cluster,
        id: ObjectId,
        desired: Value,
        live: Option<Value>,
    ) -> Result<Outcome, Trouble> {
        if let Some(owner) = live.as_ref().and_then(other_owner) {
            return Err(conflict(format!(
                "{id} is also applied by `{owner}`; let only one of the two manage it"
            )));
        }
        let what = match &live {
            Some(live) => format!("{id} was changed by {}", editors(live)),
            None => format!("{id} was deleted"),
        };
        if self.drift == Drift::Report {
            return Err(conflict(format!("{what}; SCONCE_PUBLISH_DRIFT=repair would put it back")));
        }
        let now = Instant::now();
        let repairs = self.repairs.entry(id.clone()).or_insert_with(Backoff::for_repairs);
        if let Some(due) = repairs.due(now) {
            let reason = format!(
                "{what} again after {} repairs; the next is in {} s",
                repairs.attempts(),
                due.duration_since(now).as_secs_f32().ceil()
            );
            return Err(Trouble::Conflict { reason, again: Some(due) });
        }
        repairs.attempted(now);
        let held = cluster.apply(&desired, Force::Yes).await?;
        self.kept.insert(id, Kept { desired, held });
        Ok(Outcome::Repaired(format!("{what} and has been put back")))
    }
}

fn conflict(reason: String) -> Trouble {
    Trouble::Conflict { reason, again: None }
}

fn refused(what: &str) -> Trouble {
    Trouble::Cluster(ClusterError::Refused(what.to_owned()))
}

/// Whether nothing of what we set differs. The rest of the metadata is anybody's, but for the
/// labels by which we know our own, and our annotations, which we and the injector read.
fn same(held: &Value, seen: &Value) -> bool {
    held["spec"] == seen["spec"]
        && held["metadata"]["uid"] == seen["metadata"]["uid"]
        && annotations_stay(held, seen)
        && ours(seen)
}

/// Whether ours are as they were; others may be added.
fn annotations_stay(held: &Value, seen: &Value) -> bool {
    let held = held["metadata"]["annotations"].as_object().into_iter().flatten();
    let mut own = held.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    own.all(|(key, value)| seen["metadata"]["annotations"][key.as_str()] == *value)
}
