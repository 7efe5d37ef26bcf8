//! The three calls of a push.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sconce_catalog::{Digest, Labels, Manifest, ModelName, Signature, Split, Version, VersionRecord};
use sconce_proto::{InvalidMessage, labels_to_wire, v1};

use super::{Control, nonsense};
use crate::failure::Failure;

/// What is announced before any byte is sent.
pub(crate) struct Announcement {
    pub(crate) model: ModelName,
    /// The next number where none is given.
    pub(crate) version: Option<Version>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) selector: Option<Labels>,
    pub(crate) overrides: Signature,
}

/// A push that may go on.
pub(crate) struct Begun {
    pub(crate) push: String,
    pub(crate) version: Version,
    pub(crate) missing: HashSet<Digest>,
    pub(crate) already_committed: bool,
}

/// A version that everybody sees.
pub(crate) struct Committed {
    pub(crate) record: VersionRecord,
    pub(crate) serial: u64,
    pub(crate) split: Option<Split>,
}

impl Control {
    /// Announces a version; the answer says what the store lacks.
    pub(crate) async fn begin_push(
        &mut self,
        what: &Announcement,
        manifest: &Manifest,
    ) -> Result<Begun, Failure> {
        let overrides = &what.overrides;
        let request = self.request(v1::BeginPushRequest {
            model: what.model.to_string(),
            version: what.version.as_ref().map_or_else(|| "auto".to_owned(), Version::to_string),
            manifest: Some(manifest.into()),
            metadata: what.metadata.clone().into_iter().collect(),
            selector: what.selector.as_ref().map(|labels| v1::Selector { labels: labels_to_wire(labels) }),
            overrides: (*overrides != Signature::default()).then(|| overrides.into()),
        });
        let answer = self.registry.begin_push(request).await.map_err(|status| self.failure(status))?;
        let answer = answer.into_inner();
        let missing = answer.missing.iter().map(|digest| Digest::try_from(&digest[..]));
        Ok(Begun {
            push: answer.push,
            version: answer.version.parse().map_err(|e| nonsense(InvalidMessage::Name(e)))?,
            missing: missing.collect::<Result<_, _>>().map_err(|e| nonsense(InvalidMessage::Digest(e)))?,
            already_committed: answer.already_committed,
        })
    }

    /// Sends chunks; answers when all of them are durable.
    pub(crate) async fn upload_chunks(
        &mut self,
        push: &str,
        chunks: impl Stream<Item = (Digest, Bytes)> + Send + 'static,
    ) -> Result<(), Failure> {
        let mut push = Some(push.to_owned());
        let messages = chunks.map(move |(digest, data)| v1::UploadChunksRequest {
            push: push.take().unwrap_or_default(),
            chunk: Some(v1::Chunk { digest: digest.as_bytes().to_vec(), data }),
        });
        let request = self.request(messages);
        self.registry.upload_chunks(request).await.map_err(|status| self.failure(status))?;
        Ok(())
    }

    /// Makes the version visible. Once this answers it survives anything.
    pub(crate) async fn commit_push(&mut self, push: &str, activate: bool) -> Result<Committed, Failure> {
        let request = self.request(v1::CommitPushRequest { push: push.to_owned(), activate });
        let answer = self.registry.commit_push(request).await.map_err(|status| self.failure(status))?;
        let answer = answer.into_inner();
        Ok(Committed {
            record: answer.version.unwrap_or_default().try_into().map_err(nonsense)?,
            serial: answer.serial,
            split: answer.split.map(Split::try_from).transpose().map_err(nonsense)?,
        })
    }
}
