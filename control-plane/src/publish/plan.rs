//! What should change for one model: a pure function of what is wanted, what is published, and
//! what its pods say.
//!
//! A pod is an endpoint by a label, and the label promises that every version with a share is
//! ready there. Hence the order in which a plan is carried out: pods that could not keep the
//! promise of the next route lose the label, then the route changes, then pods that keep it gain
//! the label.
//!
//! Two things are not done although they look right. A pod that cannot be heard keeps its label
//! for a while: it serves what it served, and after a restart of the control plane nobody can be
//! heard. And labels are not taken from so many pods that fewer than the floor are left: then it
//! is more likely that we are wrong, or cut off, than they, and a pod that lacks one version
//! answers with another.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sconce_catalog::{Split, Version};
use sconce_istio::render::Routing;

use super::reasons::{self, Lacking};
use crate::fleet::Standing;

#[cfg(test)]
pub(super) mod tests;

/// Everything that a plan depends on.
#[derive(Clone, Copy)]
pub(super) struct Situation<'a> {
    /// The catalog's split.
    pub(super) wanted: &'a Routing,
    /// What the mesh has been given.
    pub(super) published: Option<&'a Routing>,
    /// Pods that are connected and should serve the model, and those with its label.
    pub(super) pods: &'a BTreeMap<String, Pod>,
    pub(super) rules: Rules,
}

/// One pod, as far as the model is concerned.
#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    /// It has the label.
    pub(super) endpoint: bool,
    /// How long it has not been heard of; `None` while it is connected.
    pub(super) absent: Option<Duration>,
    /// Where the model's versions stand on it, as it said last.
    pub(super) versions: BTreeMap<Version, Standing>,
}

/// What people may set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How much of the pods, in percent, must be endpoints.
    pub(crate) floor: u8,
    /// How long an endpoint may be unheard of before it counts as lost.
    pub(crate) grace: Duration,
}

/// What to do, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) unlabel: BTreeSet<String>,
    pub(super) route: Next,
    pub(super) label: BTreeSet<String>,
    /// Endpoints that stay although they lack something, each with what.
    pub(super) lacking: Vec<Lacking>,
    /// Connected pods that are no endpoints, each with what it lacks.
    pub(super) left_out: Vec<Lacking>,
    /// When the passing of time alone may change the plan.
    pub(super) recheck: Option<Duration>,
}

/// What to do about the route.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    /// The wanted split is published.
    #[default]
    Stay,
    /// The wanted split becomes the published one.
    Publish,
    /// Whatever is published stays, for this reason.
    Wait(String),
}

/// The plan for one model.
pub(super) fn plan(situation: Situation<'_>) -> Plan {
    let route = situation.next();
    let recheck = situation.recheck();
    let target = match &route {
        Next::Wait(_) => situation.published,
        Next::Stay | Next::Publish => Some(situation.wanted),
    };
    let Some(target) = target else { return Plan { route, recheck, ..Plan::default() } };
    let ready: Vec<(&String, &Pod)> = situation.pods.iter().filter(|(_, pod)| pod.keeps(target)).collect();
    let label: BTreeSet<String> =
        ready.iter().filter(|(_, pod)| !pod.endpoint).map(|(name, _)| (*name).clone()).collect();
    let unlabel = if route == Next::Publish && situation.brings_new() {
        // The floor has been looked at, and a share must not point at what a pod has not loaded.
        situation.unfit(target, Duration::ZERO).map(|(name, _)| name.clone()).collect()
    } else {
        situation.expendable(target, label.len())
    };
    let stays = |(name, _): &(&String, &Pod)| !unlabel.contains(*name);
    let lacking = situation.unfit(target, situation.rules.grace).filter(stays);
    let lacking = lacking.map(|(name, pod)| Lacking::of(name, pod, &target.split)).collect();
    let left_out = situation.pods.iter().filter(|(name, pod)| {
        pod.absent.is_none() && !pod.keeps(target) && (!pod.endpoint || unlabel.contains(*name))
    });
    let left_out = left_out.map(|(name, pod)| Lacking::of(name, pod, &target.split)).collect();
    Plan { unlabel, route, label, lacking, left_out, recheck }
}

impl Situation<'_> {
    fn next(&self) -> Next {
        if self.published == Some(self.wanted) {
            return Next::Stay;
        }
        // An abort, or the next step between the same versions: every endpoint has them, so there
        // is nothing to wait for.
        if !self.brings_new() {
            return Next::Publish;
        }
        if self.pods.values().all(|pod| pod.absent.is_some()) {
            return Next::Wait("no pod that should serve it is connected".into());
        }
        let unheard = |pod: &Pod| pod.endpoint && pod.absent.is_some_and(|absent| absent < self.rules.grace);
        let unheard: Vec<&str> =
            self.pods.iter().filter(|(_, pod)| unheard(pod)).map(|(name, _)| name.as_str()).collect();
        if !unheard.is_empty() {
            return Next::Wait(reasons::unheard(&unheard));
        }
        let lacking: Vec<Lacking> = self
            .pods
            .iter()
            .filter(|(_, pod)| !pod.keeps(self.wanted))
            .map(|(name, pod)| Lacking::of(name, pod, &self.wanted.split))
            .collect();
        let ready = self.pods.len() - lacking.len();
        if ready < self.needed() {
            return Next::Wait(reasons::below_floor(ready, self.pods.len(), self.needed(), &lacking));
        }
        Next::Publish
    }

    /// Whether the wanted split names a version that the published one does not.
    fn brings_new(&self) -> bool {
        let published = self.published.map(|published| versions(&published.split)).unwrap_or_default();
        !versions(&self.wanted.split).is_subset(&published)
    }

    /// Endpoints that do not keep the promise, those included that have been silent for `grace`.
    fn unfit(&self, target: &Routing, grace: Duration) -> impl Iterator<Item = (&String, &Pod)> {
        self.pods.iter().filter(move |(_, pod)| {
            pod.endpoint
                && match pod.absent {
                    None => !pod.keeps(target),
                    Some(absent) => absent >= grace,
                }
        })
    }

    /// Endpoints to take the label from under a route that asks for nothing new: those that can
    /// answer nothing, and of the others as many as the floor allows.
    fn expendable(&self, target: &Routing, joining: usize) -> BTreeSet<String> {
        let mut left = self.pods.values().filter(|pod| pod.endpoint).count() + joining;
        let mut gone = BTreeSet::new();
        let (useless, lame): (Vec<_>, Vec<_>) =
            self.unfit(target, self.rules.grace).partition(|(_, pod)| pod.answers_nothing(target));
        for (name, _) in useless {
            gone.insert(name.clone());
            left -= 1;
        }
        for (name, _) in lame {
            if left <= self.needed() {
                break;
            }
            gone.insert(name.clone());
            left -= 1;
        }
        gone
    }

    /// How many endpoints there must be.
    fn needed(&self) -> usize {
        (self.pods.len() * usize::from(self.rules.floor)).div_ceil(100)
    }

    fn recheck(&self) -> Option<Duration> {
        let absent = self.pods.values().filter(|pod| pod.endpoint).filter_map(|pod| pod.absent);
        absent.filter_map(|absent| self.rules.grace.checked_sub(absent)).filter(|left| !left.is_zero()).min()
    }
}

impl Pod {
    /// Whether it is connected and has every version with a share ready.
    fn keeps(&self, target: &Routing) -> bool {
        self.absent.is_none() && target.split.shares().iter().all(|(version, _)| self.has(version))
    }

    /// Whether it says that it has none of the versions with a share.
    fn answers_nothing(&self, target: &Routing) -> bool {
        self.absent.is_none() && !target.split.shares().iter().any(|(version, _)| self.has(version))
    }

    fn has(&self, version: &Version) -> bool {
        self.versions.get(version) == Some(&Standing::Ready)
    }
}

fn versions(split: &Split) -> BTreeSet<&Version> {
    split.shares().iter().map(|(version, _)| version).collect()
}
