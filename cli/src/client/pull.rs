//! Having the control plane fetch a version itself.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use sconce_catalog::{Signature, Split, Version, VersionRecord};
use sconce_proto::{InvalidMessage, labels_to_wire, v1};

use super::{Announcement, Control, nonsense};
use crate::failure::Failure;

/// What is at the source, and what it takes to read it.
pub(crate) struct Wanted {
    pub(crate) address: String,
    pub(crate) digest: String,
    pub(crate) credentials: BTreeMap<String, String>,
    pub(crate) activate: bool,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    /// So many bytes of the file are there, of how many where that is known.
    Fetching(u64, Option<u64>),
    Checking,
}

/// A version that was pulled.
pub(crate) struct Pulled {
    pub(crate) version: Version,
    pub(crate) record: VersionRecord,
    pub(crate) serial: u64,
    pub(crate) split: Option<Split>,
    pub(crate) bytes_stored: u64,
    pub(crate) already_committed: bool,
}

impl Control {
    /// Has a version pulled, and says how far it is until it is there. Dropping this ends the pull.
    pub(crate) async fn pull(
        &mut self,
        what: &Announcement,
        wanted: Wanted,
        mut progress: impl FnMut(Stage),
    ) -> Result<Pulled, Failure> {
        let overrides = &what.overrides;
        let request = self.request(v1::PullVersionRequest {
            model: what.model.to_string(),
            version: what.version.as_ref().map_or_else(|| "auto".to_owned(), Version::to_string),
            metadata: what.metadata.clone().into_iter().collect(),
            selector: what.selector.as_ref().map(|labels| v1::Selector { labels: labels_to_wire(labels) }),
            overrides: (*overrides != Signature::default()).then(|| overrides.into()),
            activate: wanted.activate,
            source: wanted.address,
            digest: wanted.digest,
            credentials: wanted.credentials.into_iter().collect(),
        });
        let answer = self.registry.pull_version(request).await.map_err(|status| self.failure(status))?;
        let mut messages = answer.into_inner();
        while let Some(message) = messages.next().await {
            match message.map_err(|status| self.failure(status))?.state {
                Some(v1::pull_version_response::State::Progress(told)) => progress(stage(&told)),
                Some(v1::pull_version_response::State::Pulled(pulled)) => return landed(pulled),
                None => {}
            }
        }
        let why = "it stopped before the pull was over";
        Err(Failure::unreachable("control plane", &self.address, why).hint("repeat the same command"))
    }
}

fn stage(told: &v1::PullProgress) -> Stage {
    match told.stage() {
        v1::PullStage::Waiting | v1::PullStage::Unspecified => Stage::Waiting,
        v1::PullStage::Fetching => Stage::Fetching(told.bytes, Some(told.total).filter(|total| *total > 0)),
        v1::PullStage::Checking => Stage::Checking,
    }
}

fn landed(pulled: v1::Pulled) -> Result<Pulled, Failure> {
    let version = pulled.version.unwrap_or_default();
    Ok(Pulled {
        version: version.version.parse().map_err(|error| nonsense(InvalidMessage::Name(error)))?,
        record: version.try_into().map_err(nonsense)?,
        serial: pulled.serial,
        split: pulled.split.map(Split::try_from).transpose().map_err(nonsense)?,
        bytes_stored: pulled.bytes_stored,
        already_committed: pulled.already_committed,
    })
}
