//! What the control plane says of things that are not part of the catalog: plain values,
//! which are also the JSON that machines read.

use std::collections::BTreeMap;

use sconce_catalog::Model;
use sconce_proto::v1;
use serde::Serialize;

use crate::output::time;

/// A model, and where its versions stand.
pub(crate) struct Described {
    pub(crate) model: Model,
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) progress: SplitProgress,
}

/// How far a model's split has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SplitProgress {
    pub(crate) state: SplitState,
    pub(crate) message: String,
}

/// Whether a split is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SplitState {
    Unknown,
    Moving,
    Applied,
    Stuck,
}

/// A sidecar as the control plane last heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sidecar {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) connected: bool,
    pub(crate) last_seen: String,
    pub(crate) address: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) serial: u64,
    pub(crate) versions: Vec<VersionStatus>,
}

/// Where one version stands on one sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VersionStatus {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) bytes_fetched: u64,
}

/// The state of a version on a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Unknown,
    Loading,
    Ready,
    Rejected,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) at: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) sidecar: String,
    pub(crate) message: String,
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AuditEntry {
    pub(crate) id: u64,
    pub(crate) at: String,
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) allowed: bool,
    pub(crate) detail: String,
}

impl State {
    /// The word people read.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Rejected => "rejected",
        }
    }
}

impl From<v1::SidecarStatus> for Sidecar {
    fn from(wire: v1::SidecarStatus) -> Self {
        Self {
            name: wire.sidecar,
            namespace: wire.namespace,
            connected: wire.connected,
            last_seen: time(wire.last_seen_ms),
            address: wire.address,
            labels: wire.labels.into_iter().collect(),
            serial: wire.serial,
            versions: wire.versions.into_iter().map(VersionStatus::from).collect(),
        }
    }
}

impl SplitProgress {
    pub(super) fn new(state: v1::SplitState, message: String) -> Self {
        let state = match state {
            v1::SplitState::Unspecified => SplitState::Unknown,
            v1::SplitState::Moving => SplitState::Moving,
            v1::SplitState::Applied => SplitState::Applied,
            v1::SplitState::Stuck => SplitState::Stuck,
        };
        Self { state, message }
    }
}

impl From<v1::VersionStatus> for VersionStatus {
    fn from(wire: v1::VersionStatus) -> Self {
        let state = match wire.state() {
            v1::VersionState::Unspecified => State::Unknown,
            v1::VersionState::Loading => State::Loading,
            v1::VersionState::Ready => State::Ready,
            v1::VersionState::Rejected => State::Rejected,
        };
        Self {
            model: wire.model,
            version: wire.version,
            state,
            reason: wire.reason,
            answered: wire.answered,
            failed: wire.failed,
            bytes_fetched: wire.bytes_fetched,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(wire: v1::Event) -> Self {
        Self {
            id: wire.id,
            at: time(wire.at_ms),
            kind: wire.r#type,
            model: wire.model,
            version: wire.version,
            sidecar: wire.sidecar,
            message: wire.message,
        }
    }
}

impl From<v1::AuditEntry> for AuditEntry {
    fn from(wire: v1::AuditEntry) -> Self {
        Self {
            id: wire.id,
            at: time(wire.at_ms),
            principal: wire.principal,
            action: wire.action,
            subject: wire.subject,
            allowed: wire.allowed,
            detail: wire.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_sidecar_has_stable_keys() {
        let sidecar = Sidecar::from(v1::SidecarStatus {
            sidecar: "edge-1".into(),
            connected: true,
            last_seen_ms: 1_763_972_400_000,
            serial: 3,
            address: "https://127.0.0.1:8443".into(),
            labels: [("team".to_owned(), "pay".to_owned())].into(),
            versions: vec![v1::VersionStatus {
                model: "fraud".into(),
                version: "7".into(),
                state: v1::VersionState::Rejected.into(),
                reason: "no".into(),
                ..Default::default()
            }],
            namespace: "default".into(),
            ..Default::default()
        });
        assert_eq!(
            serde_json::to_value(&sidecar).expect("valid"),
            serde_json::json!({
                "name": "edge-1", "namespace": "default", "connected": true, "last_seen": "2025-11-24T08:20:00.000Z",
                "address": "https://127.0.0.1:8443", "labels": {"team": "pay"}, "serial": 3,
                "versions": [{"model": "fraud", "version": "7", "state": "rejected", "reason": "no",
                              "answered": 0, "failed": 0, "bytes_fetched": 0}],
            })
        );
    }
}
