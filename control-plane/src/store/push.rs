//! Pushes: begun, filled with chunks, committed.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sconce_artifact::{Assembly, AssemblyError, Limits, artifact_digest, digest, discover, precheck};
use sconce_catalog::{
    Digest, Manifest, Model, ModelName, Selector, Serial, Signature, Split, Version, VersionRecord,
};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::{Store, archive::foreign, change, now_ms};
use crate::api::ApiError;

/// What a pusher announces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) model: ModelName,
    /// `None` counts up.
    pub(crate) version: Option<Version>,
    pub(crate) manifest: Manifest,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) selector: Option<Selector>,
    pub(crate) overrides: Signature,
}

/// What is left to do for a push.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) push: String,
    pub(crate) version: Version,
    pub(crate) missing: Vec<Digest>,
    pub(crate) bytes_present: u64,
    pub(crate) already_committed: bool,
}

/// A push that is over.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) version: Version,
    pub(crate) record: VersionRecord,
    pub(crate) serial: Serial,
    pub(crate) split: Option<Split>,
}

impl Store {
    /// Begins a push, or finds the one that these bytes were pushed by before.
    pub(crate) async fn begin_push(&self, begin: Begin) -> Result<Begun, ApiError> {
        foreign(&begin.metadata)?;
        self.open_push(begin).await
    }

    /// The same for metadata of our own.
    pub(super) async fn open_push(&self, begin: Begin) -> Result<Begun, ApiError> {
        let artifact = artifact_digest(&begin.manifest);
        let (version, push, already_committed) = {
            let _writing = self.write().await;
            self.place(&begin, artifact).await?
        };
        let (mut missing, mut bytes_present) = (Vec::new(), 0);
        for chunk in begin.manifest.chunks() {
            if already_committed || self.chunks().has(&chunk.digest).await? {
                bytes_present += u64::from(chunk.size);
            } else {
                missing.push(chunk.digest);
            }
        }
        Ok(Begun { push, version, missing, bytes_present, already_committed })
    }

    /// The version this push is for, its id, and whether it is there already.
    async fn place(&self, begin: &Begin, artifact: Digest) -> Result<(Version, String, bool), ApiError> {
        let catalog = self.current();
        let model = catalog.models.get(&begin.model);
        let version = match &begin.version {
            Some(version) => version.clone(),
            None => match self.auto_version(begin, model, artifact).await? {
                Auto::Committed(version) => return Ok((version, String::new(), true)),
                Auto::Open(version) => version,
            },
        };
        if let Some(record) = model.and_then(|model| model.versions.get(&version)) {
            if record.artifact == artifact {
                return Ok((version, String::new(), true));
            }
            return Err(ApiError::Conflict(format!(
                "version {version} of `{}` exists with other bytes, and versions never change; push under another name, or `auto`",
                begin.model
            )));
        }
        let id = digest(format!("{}\n{version}\n{artifact}", begin.model).as_bytes()).hex();
        let kept = Begin { version: Some(version.clone()), ..begin.clone() };
        let body = serde_json::to_string(&kept).map_err(|error| ApiError::internal(&"the push", &error))?;
        sqlx::query("INSERT INTO pushes (id, model, version, artifact, auto, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
            .bind(&id)
            .bind(begin.model.to_string())
            .bind(version.as_str())
            .bind(artifact.hex())
            .bind(begin.version.is_none())
            .bind(body)
            .execute(&self.0.database)
            .await?;
        Ok((version, id, false))
    }

    /// A repeated push of the same bytes is the same push; another one counts up, past
    /// those that are under way.
    async fn auto_version(
        &self,
        begin: &Begin,
        model: Option<&Model>,
        artifact: Digest,
    ) -> Result<Auto, ApiError> {
        let newest =
            model.and_then(|model| model.versions.iter().max_by_key(|(_, record)| record.pushed_at_ms));
        if let Some((version, record)) = newest
            && record.artifact == artifact
        {
            return Ok(Auto::Committed(version.clone()));
        }
        let rows = sqlx::query("SELECT version, artifact, auto FROM pushes WHERE model = $1")
            .bind(begin.model.to_string())
            .fetch_all(&self.0.database)
            .await?;
        let mut next = model.map_or_else(|| Model::default().next_version(), Model::next_version);
        for row in rows {
            let (version, bytes, auto): (String, String, bool) =
                (row.try_get("version")?, row.try_get("artifact")?, row.try_get("auto")?);
            let Ok(version) = version.parse::<Version>() else { continue };
            let taken = model.is_some_and(|model| model.versions.contains_key(&version));
            if auto && !taken && bytes == artifact.hex() {
                return Ok(Auto::Open(version));
            }
            if version.number() >= next.number() {
                let number = version.number().unwrap_or_default() + 1;
                next =
                    number.to_string().parse().map_err(|error| ApiError::internal(&"the version", &error))?;
            }
        }
        Ok(Auto::Open(next))
    }

    /// The chunks that a push may send.
    pub(crate) async fn push(&self, id: &str) -> Result<Begin, ApiError> {
        let row = sqlx::query("SELECT body FROM pushes WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.0.database)
            .await?;
        let row = row.ok_or_else(|| {
            ApiError::NotFound(format!(
                "there is no push {id:?}; it may be committed already, so begin it again"
            ))
        })?;
        let body: String = row.try_get("body")?;
        serde_json::from_str(&body).map_err(|error| ApiError::internal(&"the push", &error))
    }

    /// Stores one chunk of a push once its bytes are sure to be its own.
    pub(crate) async fn put_chunk(
        &self,
        push: &Begin,
        claimed: Digest,
        bytes: Bytes,
    ) -> Result<(), ApiError> {
        if !push.manifest.chunks().iter().any(|chunk| chunk.digest == claimed) {
            return Err(ApiError::Invalid(format!(
                "the chunk {claimed} is not in the manifest of this push"
            )));
        }
        let found = digest(&bytes);
        if found != claimed {
            return Err(ApiError::Invalid(format!(
                "the chunk should be {claimed} and its bytes are {found}; they were changed on the way, send it again"
            )));
        }
        self.chunks().put(&claimed, bytes).await
    }

    /// Makes a version visible whose chunks are all there.
    pub(crate) async fn commit_push(
        &self,
        principal: &str,
        id: &str,
        activate: bool,
    ) -> Result<Committed, ApiError> {
        let begin = self.push(id).await?;
        let signature = self.judge(&begin).await?;
        let writing = self.write().await;
        // Under the lock again: another commit may have been faster.
        let begin_version =
            begin.version.clone().ok_or_else(|| ApiError::internal(&"the push", &"it has no version"))?;
        let mut catalog = sconce_catalog::Catalog::clone(&self.current());
        let generation = catalog.next_generation();
        let model = catalog.models.entry(begin.model.clone()).or_default();
        if model.versions.contains_key(&begin_version) {
            return Err(ApiError::Conflict(format!(
                "version {begin_version} of `{}` was pushed meanwhile",
                begin.model
            )));
        }
        let artifact = artifact_digest(&begin.manifest);
        let record = VersionRecord {
            artifact,
            size: begin.manifest.size(),
            signature,
            metadata: begin.metadata.clone(),
            pushed_at_ms: now_ms(),
            pushed_by: principal.to_owned(),
        };
        model.versions.insert(begin_version.clone(), record.clone());
        if let Some(selector) = begin.selector.clone() {
            model.selector = selector;
        }
        // Somebody has to answer: the first version does.
        if activate || model.split.is_none() {
            model.split = Some(Split::whole(begin_version.clone()));
            model.generation = generation;
        }
        let split = model.split.clone();
        let message = format!("{}:{begin_version} pushed by {principal}", begin.model);
        let mut change =
            change("version.pushed", principal, "push", &begin.model, Some(&begin_version), message);
        let body = serde_json::to_string(&begin.manifest)
            .map_err(|error| ApiError::internal(&"the manifest", &error))?;
        change.manifest = Some((artifact.hex(), body));
        change.push = Some(id.to_owned());
        let serial = self.commit(writing, catalog, change).await?;
        metrics::counter!(sconce_telemetry::names::PUSHES).increment(1);
        Ok(Committed { version: begin_version, record, serial, split })
    }

    /// Puts the artifact together and has it checked as the sidecars will.
    async fn judge(&self, begin: &Begin) -> Result<Signature, ApiError> {
        let file = tempfile::NamedTempFile::new_in(&self.0.scratch);
        let file = file.map_err(|error| ApiError::internal(&self.0.scratch.display(), &error))?;
        let assembly = Arc::new(Assembly::new(begin.manifest.clone()));
        let mut damaged = 0;
        for (number, chunk) in begin.manifest.chunks().iter().enumerate() {
            let bytes = self.chunks().get(&chunk.digest).await.map_err(|error| match error {
                ApiError::NotFound(_) => {
                    ApiError::Failed(format!("the chunk {} was not uploaded", chunk.digest))
                }
                other => other,
            })?;
            let (assembly, target) = (Arc::clone(&assembly), file.as_file().try_clone());
            let target = target.map_err(|error| ApiError::internal(&self.0.scratch.display(), &error))?;
            match blocking(move || assembly.write_chunk(&target, number, &bytes)).await? {
                Ok(()) => {}
                // It was right when it arrived: the disk has lost bits of it.
                Err(AssemblyError::Digest { expected, found, .. }) => {
                    tracing::error!(chunk = %expected, %found, "a chunk was damaged in the store");
                    self.chunks().discard(&expected).await?;
                    damaged += 1;
                }
                Err(error) => return Err(ApiError::Invalid(error.to_string())),
            }
        }
        if damaged > 0 {
            return Err(ApiError::Failed(format!(
                "{damaged} of its chunks had been damaged in the store and were thrown away; push it again, and they are replaced"
            )));
        }
        let overrides = begin.overrides.clone();
        let name = begin.model.clone();
        blocking(move || {
            let checked = precheck(file.path(), &Limits::default());
            let checked =
                checked.map_err(|error| ApiError::Invalid(format!("`{name}` is refused: {error}")))?;
            discover(&checked, &overrides)
                .map_err(|error| ApiError::Invalid(format!("`{name}` is refused: {error}")))
        })
        .await?
    }

    /// The manifest of an artifact that a version has.
    pub(crate) async fn manifest(&self, artifact: &Digest) -> Result<Manifest, ApiError> {
        let row = sqlx::query("SELECT body FROM manifests WHERE artifact = $1")
            .bind(artifact.hex())
            .fetch_optional(&self.0.database)
            .await?;
        let row = row.ok_or_else(|| ApiError::NotFound(format!("there is no artifact {artifact}")))?;
        let body: String = row.try_get("body")?;
        serde_json::from_str(&body).map_err(|error| ApiError::internal(&"the manifest", &error))
    }
}

enum Auto {
    Committed(Version),
    Open(Version),
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&"the archive", &error))
}
