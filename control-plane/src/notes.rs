//! Events on the objects that people look at, for what these cannot tell them themselves.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) about: ObjectReference,
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) warning: bool,
}

/// Takes notes without making anybody wait.
#[derive(Clone)]
pub(crate) struct Notes(mpsc::Sender<Note>);

/// More than this many at once say the same thing.
const WAITING: usize = 64;
/// Longest note of an Event, in bytes (events.k8s.io/v1).
const LONGEST: usize = 1024;

impl Notes {
    /// Where to leave notes, and the task that posts them as this controller.
    pub(crate) fn new(
        client: Client,
        controller: &'static str,
        action: &'static str,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let recorder = Recorder::new(client, Reporter { controller: controller.into(), instance: None });
        let post = async move {
            while let Some(note) = receiver.recv().await {
                let Note { about, .. } = &note;
                if let Err(error) = recorder.publish(&event(&note, action), about).await {
                    tracing::warn!(%error, kind = about.kind, name = about.name, "an event was not posted");
                }
            }
            std::future::pending().await
        };
        (Self(sender), post)
    }

    /// Leaves a note; where too many wait, it goes to the log alone.
    pub(crate) fn leave(&self, note: Note) {
        if let Err(error) = self.0.try_send(note) {
            tracing::warn!(%error, "an event was dropped");
        }
    }
}

fn event(note: &Note, action: &str) -> Event {
    let mut text = note.text.clone();
    while text.len() > LONGEST {
        text.pop();
    }
    Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.clone(),
        note: Some(text),
        action: action.into(),
        secondary: None,
    }
}
