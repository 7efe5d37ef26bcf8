//! The sidecars: who is connected, and what each says it serves.
//!
//! In memory only: a sidecar that is alive says all of it again when it reconnects.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sconce_proto::v1::{Report, SidecarStatus, VersionState, VersionStatus};

use crate::store::{Event, Store, now_ms};

/// Every sidecar that was seen since the start.
#[derive(Clone)]
pub(crate) struct Fleet {
    sidecars: Arc<Mutex<BTreeMap<String, Seen>>>,
    store: Store,
}

struct Seen {
    status: SidecarStatus,
    /// Which of its connections is the current one: an old one may end after a new one began.
    session: u64,
}

/// One connection of a sidecar. It counts as connected until this is dropped.
pub(crate) struct Session {
    fleet: Fleet,
    name: String,
    number: u64,
}

impl Fleet {
    pub(crate) fn new(store: Store) -> Self {
        Self { sidecars: Arc::default(), store }
    }

    /// A sidecar connects.
    pub(crate) fn join(&self, first: Report) -> Arc<Session> {
        let name = first.sidecar.clone();
        let mut sidecars = self.lock();
        let number = sidecars.get(&name).map_or(0, |seen| seen.session + 1);
        sidecars.insert(name.clone(), Seen { status: status(first), session: number });
        metrics::gauge!(sconce_telemetry::names::SIDECARS_CONNECTED).increment(1.0);
        tracing::info!(sidecar = name, "sidecar connected");
        Arc::new(Session { fleet: self.clone(), name, number })
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<SidecarStatus> {
        self.lock().values().map(|seen| seen.status.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Seen>> {
        // Every statement leaves the map whole.
        self.sidecars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a report in, and records what is new in it.
    pub(crate) async fn report(&self, report: Report) {
        let next = status(report);
        let news = {
            let mut sidecars = self.fleet.lock();
            let Some(seen) = sidecars.get_mut(&self.name).filter(|seen| seen.session == self.number) else {
                return;
            };
            let news = news(&self.name, &seen.status, &next);
            seen.status = next;
            news
        };
        for event in news {
            if let Err(error) = self.fleet.store.record(event).await {
                tracing::error!(sidecar = self.name, %error, "an event was not recorded");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        metrics::gauge!(sconce_telemetry::names::SIDECARS_CONNECTED).decrement(1.0);
        tracing::info!(sidecar = self.name, "sidecar disconnected");
        if let Some(seen) = self.fleet.lock().get_mut(&self.name).filter(|seen| seen.session == self.number) {
            seen.status.connected = false;
        }
    }
}

fn status(report: Report) -> SidecarStatus {
    SidecarStatus {
        sidecar: report.sidecar,
        labels: report.labels,
        connected: true,
        last_seen_ms: now_ms(),
        serial: report.serial,
        versions: report.versions,
        address: report.address,
    }
}

/// Versions that became ready or were rejected between two reports.
fn news(sidecar: &str, before: &SidecarStatus, after: &SidecarStatus) -> Vec<Event> {
    let was = |version: &VersionStatus| {
        let same = |other: &&VersionStatus| other.model == version.model && other.version == version.version;
        before.versions.iter().find(same).map(VersionStatus::state)
    };
    let changed = after.versions.iter().filter(|version| was(version) != Some(version.state()));
    let event = |version: &VersionStatus| {
        let (kind, message) = match version.state() {
            VersionState::Ready => {
                ("version.ready", format!("{}:{} is ready on {sidecar}", version.model, version.version))
            }
            VersionState::Rejected => (
                "version.rejected",
                format!(
                    "{}:{} was rejected by {sidecar}: {}",
                    version.model, version.version, version.reason
                ),
            ),
            VersionState::Unspecified | VersionState::Loading | VersionState::Retired => return None,
        };
        Some(Event {
            at_ms: now_ms(),
            kind: kind.into(),
            model: version.model.clone(),
            version: version.version.clone(),
            sidecar: sidecar.to_owned(),
            message,
            ..Event::default()
        })
    };
    changed.filter_map(event).collect()
}
