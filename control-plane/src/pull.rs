//! Pulls: versions whose bytes the control plane fetches itself, from a bucket, a registry or a
//! server of files.
//!
//! What arrives goes through the same door as a push: cut into chunks, checked, committed in one
//! transaction. A pull belongs to whoever waits for it, and ends with it: nothing of it is kept but
//! chunks that are on the disk already, which the next one need not store again.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use sconce_catalog::{ModelName, Selector, Signature, Version};
use sconce_telemetry::names;
use tokio::sync::{Semaphore, watch};

mod address;
mod credentials;
mod download;
mod failure;
mod origin;
mod policy;
mod web;

pub(crate) use self::web::NoWeb;
use self::web::Web;
pub(crate) use self::{
    address::{Address, Sha256},
    credentials::Credentials,
    failure::PullError,
    policy::Policy,
};
use crate::{
    api::ApiError,
    store::{Announced, Arrived, SOURCE_DIGEST, Store},
};

/// What operators say of pulls.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What may be pulled from.
    pub(crate) policy: Policy,
    /// Roots to trust besides the machine's.
    pub(crate) ca: Option<PathBuf>,
}

/// An address and the digest that what is there must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) address: Address,
    pub(crate) digest: Sha256,
}

/// What somebody wants to have pulled.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) model: ModelName,
    /// `None` counts up.
    pub(crate) version: Option<Version>,
    pub(crate) source: Source,
    pub(crate) credentials: Credentials,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) selector: Option<Selector>,
    pub(crate) overrides: Signature,
    pub(crate) activate: bool,
}

/// How far a pull has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Of the file, so far.
    pub(crate) bytes: u64,
    pub(crate) total: Option<u64>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Others are pulled before it.
    Waiting,
    #[default]
    Fetching,
    /// It is cut into chunks, checked and committed.
    Checking,
}

/// Pulls so many at a time: each may fill a disk.
const AT_ONCE: usize = 4;

/// Handle to what pulls. Clones share their turns.
#[derive(Clone)]
pub(crate) struct Pulls {
    store: Store,
    web: Web,
    turns: Arc<Semaphore>,
}

impl Pulls {
    pub(crate) fn new(settings: Settings, store: Store) -> Result<Self, NoWeb> {
        let web = Web::new(Arc::new(settings.policy), settings.ca.as_ref())?;
        Ok(Self { store, web, turns: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Pulls a version, and returns once it is committed. Dropping this ends the pull.
    pub(crate) async fn run(
        &self,
        principal: &str,
        pull: Pull,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arrived, PullError> {
        let pulled = self.attempt(principal, pull, progress).await;
        let outcome = pulled.as_ref().map_or_else(PullError::reason, |_| "pulled");
        metrics::counter!(names::PULLS, "outcome" => outcome).increment(1);
        pulled
    }

    async fn attempt(
        &self,
        principal: &str,
        pull: Pull,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arrived, PullError> {
        // What can be said at once is said before others are waited for.
        self.web.policy().permits(&pull.source.address)?;
        if let Some(name) = pull.credentials.missing() {
            return Err(PullError::Invalid(format!("the credentials lack `{name}`")));
        }
        if let Some(arrived) = self.there(principal, &pull).await? {
            return Ok(arrived);
        }
        let _turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                progress.send_modify(|progress| progress.stage = Stage::Waiting);
                let turn = self.turns.acquire().await;
                progress.send_replace(Progress::default());
                turn.map_err(|error| PullError::Store(ApiError::internal(&"the pull", &error)))?
            }
        };
        let file = self.store.scratch_file().map_err(PullError::Store)?;
        let file = download::download(&self.web, &pull.source, &pull.credentials, file, progress).await?;
        progress.send_modify(|progress| progress.stage = Stage::Checking);
        let address = pull.source.address.to_string();
        let Pull { model, version, source, metadata, selector, overrides, activate, .. } = pull;
        let source = Some((address.clone(), source.digest.to_string()));
        let what = Announced { model, version, metadata, selector, overrides, source };
        let arrived = self.store.take_in(principal, file, what, activate).await;
        arrived.map_err(|error| match error {
            ApiError::Invalid(said) => PullError::NotAModel { address, said },
            other => PullError::Store(other),
        })
    }

    /// The version, where it was pulled before: then nothing need be fetched to know that.
    async fn there(&self, principal: &str, pull: &Pull) -> Result<Option<Arrived>, PullError> {
        let Some(version) = &pull.version else { return Ok(None) };
        let digest = pull.source.digest.to_string();
        let catalog = self.store.catalog().borrow().clone();
        let record = catalog.models.get(&pull.model).and_then(|model| model.versions.get(version));
        if record.is_none_or(|record| record.metadata.get(SOURCE_DIGEST) != Some(&digest)) {
            return Ok(None);
        }
        let again = self.store.again(principal, &pull.model, version, pull.activate).await;
        again.map(Some).map_err(PullError::Store)
    }
}
