//! The sidecars: who is connected, and what each says it serves.
//!
//! In memory only: a sidecar that is alive says all of it again when it reconnects.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sconce_catalog::{Labels, ModelName, Selector};
use sconce_identity::SpiffeId;
use sconce_proto::v1::{Report, SidecarStatus, VersionState, VersionStatus};
use tokio::sync::watch;

use crate::{
    api::ApiError,
    store::{Event, Store, now_ms},
};

mod members;

pub(crate) use members::{Member, Members, PodName, Standing, members};

/// Every sidecar that was seen since the start.
#[derive(Clone)]
pub(crate) struct Fleet {
    sidecars: Arc<watch::Sender<Sidecars>>,
    store: Store,
    /// Until when sidecars of an earlier process may still be on their way back.
    coming_back: Option<Instant>,
}

/// Sidecars by their names.
pub(crate) type Sidecars = BTreeMap<String, Seen>;

/// A sidecar as it was last heard of.
pub(crate) struct Seen {
    pub(crate) status: SidecarStatus,
    /// Who it has proven to be.
    id: SpiffeId,
    /// Which of its connections is the current one: an old one may end after a new one began.
    session: u64,
}

/// One connection of a sidecar. It counts as connected until this is dropped.
pub(crate) struct Session {
    fleet: Fleet,
    name: String,
    number: u64,
}

/// How long after a start a sidecar may take to come back: its longest wait between two tries,
/// and the time of one.
const COMING_BACK: Duration = Duration::from_secs(15);
/// How long one that has gone is still told of.
const FORGOTTEN_MS: i64 = 10 * 60 * 1_000;
/// As much of a reason as somebody reads.
const LONGEST_REASON: usize = 2_000;

impl Fleet {
    pub(crate) fn new(store: Store) -> Self {
        // They are spread out over ten seconds.
        let known = !store.catalog().borrow().models.is_empty();
        let coming_back = known.then(|| Instant::now() + COMING_BACK);
        Self { sidecars: Arc::default(), store, coming_back }
    }

    /// Whether it is too early to say who is not there.
    pub(crate) fn is_coming_back(&self) -> bool {
        self.coming_back.is_some_and(|until| Instant::now() < until)
    }

    /// A sidecar connects.
    ///
    /// # Errors
    /// Where another workload is connected under its name, or the name is of another namespace.
    pub(crate) fn join(&self, first: Report, id: &SpiffeId) -> Result<Arc<Session>, ApiError> {
        let name = first.sidecar.clone();
        // As injected sidecars are called: `<namespace>/<pod>`.
        if let Some((namespace, _)) = name.split_once('/')
            && id.namespace() != Some(namespace)
        {
            return Err(ApiError::Denied(format!("{id} is not of the namespace of the name `{name}`")));
        }
        let mut joined = Ok(0);
        self.sidecars.send_if_modified(|sidecars| {
            let before = sidecars.get(&name);
            if let Some(other) = before.filter(|seen| seen.status.connected && seen.id != *id) {
                joined = Err(ApiError::Denied(format!(
                    "{} is connected under the name `{name}`; set SCONCE_NAME of {id} to another one",
                    other.id
                )));
                return false;
            }
            let session = before.map_or(0, |seen| seen.session + 1);
            let long_ago = now_ms() - FORGOTTEN_MS;
            sidecars.retain(|_, seen| seen.status.connected || seen.status.last_seen_ms > long_ago);
            joined = Ok(session);
            sidecars.insert(name.clone(), Seen { status: status(first, id), id: id.clone(), session });
            true
        });
        let number = joined?;
        metrics::gauge!(sconce_telemetry::names::SIDECARS_CONNECTED).increment(1.0);
        tracing::info!(sidecar = name, %id, "sidecar connected");
        Ok(Arc::new(Session { fleet: self.clone(), name, number }))
    }

    /// Follows what the sidecars say. Counts alone are no reason to wake anybody.
    pub(crate) fn watch(&self) -> watch::Receiver<Sidecars> {
        self.sidecars.subscribe()
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<SidecarStatus> {
        self.sidecars.borrow().values().map(|seen| seen.status.clone()).collect()
    }

    /// Those that serve a model, each with nothing but that model's versions. One that will
    /// serve it and has not heard of it yet is among them: it is one to wait for.
    pub(crate) fn serving(&self, model: &ModelName, selector: &Selector) -> Vec<SidecarStatus> {
        let name = model.to_string();
        let own = |mut sidecar: SidecarStatus| {
            sidecar.versions.retain(|version| version.model == name);
            sidecar.routes.retain(|route| route.model == name);
            let expected = sidecar.connected && is_for(model, selector, &sidecar);
            (expected || !sidecar.versions.is_empty()).then_some(sidecar)
        };
        self.list().into_iter().filter_map(own).collect()
    }
}

/// Whether a model is this sidecar's to serve.
pub(crate) fn is_for(model: &ModelName, selector: &Selector, sidecar: &SidecarStatus) -> bool {
    let labels = Labels::new(sidecar.labels.clone()).unwrap_or_default();
    sidecar.namespace == model.namespace() && selector.matches(&labels)
}

impl Session {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a report in, and records what is new in it.
    pub(crate) async fn report(&self, report: Report) {
        let mut events = Vec::new();
        self.fleet.sidecars.send_if_modified(|sidecars| {
            let Some(seen) = sidecars.get_mut(&self.name).filter(|seen| seen.session == self.number) else {
                return false;
            };
            let next = status(report, &seen.id);
            events = news(&self.name, &seen.status, &next);
            let standings = |status: &SidecarStatus| {
                let versions = status.versions.iter();
                versions.map(|v| (v.model.clone(), v.version.clone(), v.state)).collect::<Vec<_>>()
            };
            let matters = standings(&seen.status) != standings(&next)
                || seen.status.generations != next.generations
                || seen.status.serial != next.serial;
            seen.status = next;
            matters
        });
        for event in events {
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
        self.fleet.sidecars.send_if_modified(|sidecars| {
            let own = sidecars.get_mut(&self.name).filter(|seen| seen.session == self.number);
            own.map(|seen| seen.status.connected = false).is_some()
        });
    }
}

/// What a sidecar says, as far as it is its own to say.
fn status(mut report: Report, id: &SpiffeId) -> SidecarStatus {
    let namespace = id.namespace().unwrap_or_default();
    let own = |model: &str| model.parse::<ModelName>().is_ok_and(|model| model.namespace() == namespace);
    report.versions.retain(|version| own(&version.model));
    report.routes.retain(|route| own(&route.model));
    report.generations.retain(|model, _| own(model));
    for version in &mut report.versions {
        if let Some((end, _)) = version.reason.char_indices().nth(LONGEST_REASON) {
            version.reason.truncate(end);
        }
    }
    SidecarStatus {
        sidecar: report.sidecar,
        labels: report.labels,
        connected: true,
        last_seen_ms: now_ms(),
        serial: report.serial,
        versions: report.versions,
        address: report.address,
        namespace: namespace.to_owned(),
        routes: report.routes,
        generations: report.generations,
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
    fn a_sidecar_is_heard_on_the_models_of_its_own_namespace_only_and_not_at_any_length() {
        let id = "spiffe://test/ns/default/sa/a".parse().expect("an id");
        let version = |model: &str| VersionStatus {
            model: model.into(),
            reason: "é".repeat(LONGEST_REASON + 1),
            ..VersionStatus::default()
        };
        let report = Report {
            versions: ["digits", "default/other", "pay/digits"].map(version).into(),
            generations: [("digits".to_owned(), 3), ("pay/digits".to_owned(), 0)].into(),
            ..Report::default()
        };
        let status = status(report, &id);
        let models: Vec<&str> = status.versions.iter().map(|version| &*version.model).collect();
        assert_eq!(models, ["digits", "default/other"]);
        assert_eq!(status.generations.keys().collect::<Vec<_>>(), ["digits"]);
        assert_eq!(status.versions[0].reason.chars().count(), LONGEST_REASON);
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
