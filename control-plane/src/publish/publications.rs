//! What has become of each model's split, for people and for the API.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use sconce_catalog::{Generation, ModelName};
use sconce_telemetry::names;
use tokio::sync::watch;

use super::reasons::Lacking;
use crate::store::{Event, now_ms};

/// What the rest of the control plane may know of publishing.
#[derive(Clone)]
pub(crate) struct Publications(pub(super) Option<watch::Receiver<Known>>);

/// What is known of publishing.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// What has become of each model's split. Empty while another control plane publishes.
    pub(super) models: BTreeMap<ModelName, Publication>,
    /// Why nothing at all is published at the moment.
    pub(super) trouble: Option<String>,
}

/// Writes down an event.
pub(super) type Journal = Box<dyn Fn(Event) -> BoxFuture<'static, ()> + Send + Sync>;

/// What has become of a model's split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    /// What the mesh was given last.
    pub(crate) in_force: Option<InForce>,
    pub(crate) state: State,
    /// Pods that are endpoints although they lack a version, each with what: taking them away
    /// would leave too few.
    pub(crate) lacking: Vec<Lacking>,
    /// Connected pods that are no endpoints, each with the version that it lacks.
    pub(crate) left_out: Vec<Lacking>,
}

/// A route that the mesh was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) generation: Generation,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
}

impl Publications {
    /// What has become of a model's split; `None` where nothing is published at all.
    pub(crate) fn of(&self, model: &ModelName) -> Option<Publication> {
        let known = self.0.as_ref()?.borrow();
        let model = known.models.get(model);
        let waits = |reason: &str| Publication {
            in_force: model.and_then(|model| model.in_force),
            state: State::Waiting(reason.to_owned()),
            lacking: Vec::new(),
            left_out: Vec::new(),
        };
        Some(match (&known.trouble, model) {
            (Some(trouble), _) => waits(trouble),
            (None, Some(model)) => model.clone(),
            (None, None) => waits("this control plane does not publish, or has only begun to"),
        })
    }
}

/// How far publishing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The catalog's split is in force.
    Published,
    /// Not yet, for this reason.
    Waiting(String),
    /// Somebody else has, or changes, what we would write.
    Conflict(String),
    /// The cluster refuses.
    Failed(String),
}

/// The one writer of the publications.
pub(super) struct Board {
    known: watch::Sender<Known>,
    journal: Journal,
}

impl Board {
    pub(super) fn new(journal: Journal) -> (Self, watch::Receiver<Known>) {
        let (known, reader) = watch::channel(Known::default());
        (Self { known, journal }, reader)
    }

    /// Says what has become of a model, and makes an event of it where that is news.
    pub(super) async fn set(&self, model: &ModelName, next: Publication) {
        let before = self.known.borrow().models.get(model).cloned();
        if before.as_ref() == Some(&next) {
            return;
        }
        if let Some(in_force) = next.in_force {
            // Generations stay far below 2^53, up to which this is exact.
            metrics::gauge!(names::ROUTE_GENERATION, "model" => model.to_string())
                .set(in_force.generation.0 as f64);
        }
        let same_route = before.as_ref().and_then(|before| before.in_force) == next.in_force;
        let same_state = before.as_ref().is_some_and(|before| before.state == next.state);
        let news = (!same_route || !same_state).then(|| told(model, &next));
        self.known.send_modify(|known| {
            known.models.insert(model.clone(), next);
        });
        if let Some((kind, message)) = news {
            metrics::counter!(names::PUBLICATIONS, "outcome" => kind).increment(1);
            self.event(model, kind, message).await;
        }
    }

    /// A model is not published any more. Told once: the watches may show its objects for longer.
    pub(super) async fn remove(&self, model: &ModelName) {
        if self.known.send_if_modified(|known| known.models.remove(model).is_some()) {
            self.event(model, "route.withdrawn", format!("{model} is no longer in the mesh")).await;
        }
    }

    /// Nothing at all is published, for this reason; or that is over. An event for each model would
    /// drown those that matter.
    pub(super) fn trouble(&self, trouble: Option<String>) {
        self.known.send_if_modified(|known| {
            let news = known.trouble != trouble;
            known.trouble = trouble;
            news
        });
    }

    /// Something of a model's was put back.
    pub(super) async fn repaired(&self, model: &ModelName, what: String) {
        metrics::counter!(names::REPAIRS, "model" => model.to_string()).increment(1);
        self.event(model, "route.repaired", what).await;
    }

    /// Nothing is known: another control plane publishes.
    pub(super) fn clear(&self) {
        self.known.send_if_modified(|known| !std::mem::take(&mut known.models).is_empty());
    }

    async fn event(&self, model: &ModelName, kind: &'static str, message: String) {
        tracing::info!(%model, kind, message, "publishing");
        (self.journal)(Event {
            at_ms: now_ms(),
            kind: kind.into(),
            model: model.to_string(),
            message,
            ..Event::default()
        })
        .await;
    }
}

fn told(model: &ModelName, next: &Publication) -> (&'static str, String) {
    match (&next.state, next.in_force) {
        (State::Published, in_force) => {
            let generation = in_force.map(|in_force| in_force.generation).unwrap_or_default();
            ("route.published", format!("generation {generation} of {model} is in the mesh's hands"))
        }
        (State::Waiting(reason), _) => ("route.waiting", format!("the split of {model} waits: {reason}")),
        (State::Conflict(reason), _) => ("route.conflict", reason.clone()),
        (State::Failed(reason), _) => {
            ("route.failed", format!("the split of {model} is not published: {reason}"))
        }
    }
}
