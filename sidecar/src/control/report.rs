//! What this sidecar says of itself.

use std::{sync::atomic::Ordering, time::Instant};

use sconce_catalog::Labels;
use sconce_proto::{
    labels_to_wire,
    v1::{Report, RouteSeen, VersionState, VersionStatus},
};

use crate::models::progress::{Progress, State};

/// Who reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// Unique among the sidecars of a control plane, such as the pod's name.
    pub sidecar: String,
    /// What models select by.
    pub labels: Labels,
    /// Where it answers predictions.
    pub address: String,
}

fn routes(progress: &Progress) -> Vec<RouteSeen> {
    let now = Instant::now();
    let seen = progress.splits.iter().flat_map(|(model, split)| {
        split.routes.lately(now).into_iter().map(|sighting| RouteSeen {
            model: model.to_string(),
            caller: sighting.caller.to_string(),
            generation: sighting.generation.0,
            // A sighting is forgotten within a minute or two.
            ms_ago: sighting.ago.as_millis().try_into().unwrap_or(u64::MAX),
        })
    });
    seen.collect()
}

impl Reporter {
    pub(super) fn report(&self, progress: &Progress) -> Report {
        let versions = progress.versions.iter().map(|((model, version), standing)| {
            let (state, reason, (answered, failed)) = match &standing.state {
                State::Loading(reason) => (VersionState::Loading, reason.clone().unwrap_or_default(), (0, 0)),
                State::Ready(ready) => (VersionState::Ready, String::new(), ready.counts.read()),
                State::Rejected(reason) => (VersionState::Rejected, reason.clone(), (0, 0)),
            };
            VersionStatus {
                model: model.to_string(),
                version: version.to_string(),
                state: state.into(),
                reason,
                answered,
                failed,
                bytes_fetched: standing.moved.load(Ordering::Relaxed),
            }
        });
        Report {
            sidecar: self.sidecar.clone(),
            labels: labels_to_wire(&self.labels),
            serial: progress.serial.0,
            versions: versions.collect(),
            address: self.address.clone(),
            routes: routes(progress),
            generations: progress
                .splits
                .iter()
                .map(|(m, split)| (m.to_string(), split.generation.0))
                .collect(),
        }
    }
}
