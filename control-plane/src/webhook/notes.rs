//! Events on the objects that people look at, for what a pod cannot tell them itself.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    pub(super) about: ObjectReference,
    pub(super) reason: &'static str,
    pub(super) text: String,
    pub(super) warning: bool,
}

/// Takes notes without making anybody wait.
#[derive(Clone)]
pub(super) struct Notes(mpsc::Sender<Note>);

/// More than this many at once say the same thing.
const WAITING: usize = 64;
/// Longest note of an Event, in bytes (events.k8s.io/v1).
const LONGEST: usize = 1024;

impl Notes {
    /// Where to leave notes, and the task that posts them.
    pub(super) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let recorder =
            Recorder::new(client, Reporter { controller: "sconce-webhook".into(), instance: None });
        let post = async move {
            while let Some(note) = receiver.recv().await {
                let Note { about, .. } = &note;
                if let Err(error) = recorder.publish(&event(&note), about).await {
                    tracing::warn!(%error, kind = about.kind, name = about.name, "an event was not posted");
                }
            }
            std::future::pending().await
        };
        (Self(sender), post)
    }

    /// Leaves a note; where too many wait, it goes to the log alone.
    pub(super) fn leave(&self, note: Note) {
        if let Err(error) = self.0.try_send(note) {
            tracing::warn!(%error, "an event was dropped");
        }
    }
}

fn event(note: &Note) -> Event {
    let mut text = note.text.clone();
    while text.len() > LONGEST {
        text.pop();
    }
    Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.into(),
        note: Some(text),
        action: "Inject".into(),
        secondary: None,
    }
}
