//! What the control plane says happens to the model while it is measured.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _};
use sconce_catalog::ModelName;
use tokio::task::JoinSet;

use crate::{
    client::{Control, Event},
    context::Access,
    failure::Failure,
};

/// How long the control plane may take to be reached, and to tell what was before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that happened, by our clock: the control plane's may differ, and is told in whole
/// seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) at: Instant,
    pub(super) kind: String,
    pub(super) version: String,
    pub(super) message: String,
}

/// Follows the events of one model until it is dropped.
pub(super) struct Follower {
    seen: Arc<Mutex<Vec<Happened>>>,
    _task: JoinSet<()>,
}

impl Follower {
    /// Begins with what comes next.
    ///
    /// # Errors
    /// Where the control plane cannot be reached, or does not let us look.
    pub(super) async fn start(access: &Access, model: ModelName) -> Result<Self, Failure> {
        let begin = async {
            let mut control = Control::connect(access).await?;
            let past = control.events(0, true).await?;
            let newest =
                past.fold(Ok(0), async |newest: Result<u64, Failure>, event| Ok(newest?.max(event?.id)));
            let newest = newest.await?;
            control.events(newest, false).await
        };
        let events = tokio::time::timeout(PATIENCE, begin).await.unwrap_or_else(|_| {
            let why = format!("its events did not come in {} s", PATIENCE.as_secs());
            Err(Failure::unreachable("control plane", &access.control_plane, why))
        })?;
        let seen = Arc::<Mutex<Vec<Happened>>>::default();
        let mut task = JoinSet::new();
        task.spawn(follow(events, model, seen.clone()));
        Ok(Self { seen, _task: task })
    }

    /// What happened from then on.
    pub(super) fn since(&self, then: Instant) -> Vec<Happened> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|happened| happened.at >= then).cloned().collect()
    }
}

async fn follow(
    mut events: impl Stream<Item = Result<Event, Failure>> + Unpin,
    model: ModelName,
    seen: Arc<Mutex<Vec<Happened>>>,
) {
    // A stream that breaks ends the timeline of events, not the measurement.
    while let Some(Ok(event)) = events.next().await {
        if event.model.parse().is_ok_and(|name: ModelName| name == model) {
            let happened = Happened {
                at: Instant::now(),
                kind: event.kind,
                version: event.version,
                message: event.message,
            };
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(happened);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(model: &str, kind: &str) -> Result<Event, Failure> {
        Ok(Event {
            id: 1,
            at: String::new(),
            kind: kind.into(),
            model: model.into(),
            version: "2".into(),
            sidecar: String::new(),
            message: "it happened".into(),
        })
    }

    #[tokio::test]
    async fn only_the_model_that_is_measured_is_followed() {
        let seen = Arc::<Mutex<Vec<Happened>>>::default();
        let events = vec![
            event("digits", "version.ready"),
            event("other", "version.ready"),
            event("default/digits", "split.changed"),
        ];
        let model = "digits".parse().expect("a name");
        follow(futures::stream::iter(events), model, seen.clone()).await;
        let kinds: Vec<String> = seen.lock().expect("unpoisoned").iter().map(|h| h.kind.clone()).collect();
        assert_eq!(kinds, ["version.ready", "split.changed"]);
    }
}
