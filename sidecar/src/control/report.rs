//! What this sidecar says of itself.

use std::sync::atomic::Ordering;

use sconce_catalog::Labels;
use sconce_proto::{
    labels_to_wire,
    v1::{Report, VersionState, VersionStatus},
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
        }
    }
}
