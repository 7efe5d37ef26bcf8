//! The sidecars: who is connected, and what each says it serves.
//!
//! In memory only: a sidecar that is alive says all of it again when it reconnects.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sconce_catalog::{Labels, ModelName, Selector};
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

    /// Those that serve a model, each with nothing but that model's versions. One that will
    /// serve it and has not heard of it yet is among them: it is one to wait for.
    pub(crate) fn serving(&self, model: &ModelName, selector: &Selector) -> Vec<SidecarStatus> {
        let name = model.to_string();
        let own = |mut sidecar: SidecarStatus| {
            sidecar.versions.retain(|version| version.model == name);
            let labels = Labels::new(sidecar.labels.clone()).unwrap_or_default();
            let expected = sidecar.connected && selector.matches(&labels);
            (expected || !sidecar.versions.is_empty()).then_some(sidecar)
        };
        self.list().into_iter().filter_map(own).collect()
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

/// Versions that became ready, were rejected or went away between two reports.
fn news(sidecar: &str, before: &SidecarStatus, after: &SidecarStatus) -> Vec<Event> {
    let find = |status: &SidecarStatus, version: &VersionStatus| {
        let same = |other: &&VersionStatus| other.model == version.model && other.version == version.version;
        status.versions.iter().find(same).map(VersionStatus::state)
    };
    let changed = after.versions.iter().filter(|version| find(before, version) != Some(version.state()));
    let told = changed.filter_map(|version| {
        let name = format!("{}:{}", version.model, version.version);
        match version.state() {
            VersionState::Ready => {
                Some(event("version.ready", sidecar, version, format!("{name} is ready on {sidecar}")))
            }
            VersionState::Rejected => {
                let message = format!("{name} was rejected by {sidecar}: {}", version.reason);
                Some(event("version.rejected", sidecar, version, message))
            }
            VersionState::Unspecified | VersionState::Loading => None,
        }
    });
    // A report is always complete, so what it leaves out has been let go.
    let gone = before.versions.iter().filter(|version| find(after, version).is_none());
    let gone = gone.map(|version| {
        let message = format!("{}:{} is no longer on {sidecar}", version.model, version.version);
        event("version.retired", sidecar, version, message)
    });
    told.chain(gone).collect()
}

fn event(kind: &str, sidecar: &str, version: &VersionStatus, message: String) -> Event {
    Event {
        at_ms: now_ms(),
        kind: kind.into(),
        model: version.model.clone(),
        version: version.version.clone(),
        sidecar: sidecar.to_owned(),
        message,
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(version: &str, state: VersionState) -> VersionStatus {
        let mut status = VersionStatus {
            model: "default/digits".into(),
            version: version.into(),
            reason: "why".into(),
            ..VersionStatus::default()
        };
        status.set_state(state);
        status
    }

    fn report(versions: &[(&str, VersionState)]) -> SidecarStatus {
        let versions = versions.iter().map(|(version, state)| standing(version, *state)).collect();
        SidecarStatus { versions, ..SidecarStatus::default() }
    }

    #[test]
    fn each_change_is_told_once() {
        use VersionState::{Loading, Ready, Rejected};
        let kinds = |before: &[_], after: &[_]| -> Vec<String> {
            news("a", &report(before), &report(after)).into_iter().map(|event| event.kind).collect()
        };
        assert_eq!(kinds(&[], &[("1", Loading)]), [""; 0]);
        assert_eq!(kinds(&[("1", Loading)], &[("1", Ready), ("2", Loading)]), ["version.ready"]);
        assert_eq!(kinds(&[("1", Ready)], &[("1", Ready)]), [""; 0]);
        assert_eq!(
            kinds(&[("1", Ready), ("2", Loading)], &[("2", Rejected)]),
            ["version.rejected", "version.retired"]
        );
        let told = news("a", &report(&[]), &report(&[("1", Rejected)]));
        assert_eq!(told[0].message, "default/digits:1 was rejected by a: why");
    }
}
