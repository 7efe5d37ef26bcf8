//! Pulls for whoever asks: what is asked for is checked, what is refused goes on record, and how
//! far it is can be followed.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, future::BoxFuture};
use sconce_catalog::{Labels, Selector, Signature};
use sconce_proto::{v1, version_to_wire};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{Api, ApiError};
use crate::{
    access::Caller,
    pull::{Credentials, Progress, Pull, PullError, Source, Stage},
    store::Arrived,
};

/// As often as anybody looks at a progress bar.
const OFTEN: Duration = Duration::from_millis(200);

pub(super) type Told = Pin<Box<dyn Stream<Item = Result<v1::PullVersionResponse, Status>> + Send>>;

impl Api {
    /// Pulls a version. Dropping this ends the pull.
    pub(super) async fn pull(
        &self,
        caller: &Caller,
        pull: Pull,
        progress: &watch::Sender<Progress>,
    ) -> Result<Arrived, ApiError> {
        let subject = match &pull.version {
            Some(version) => format!("{}:{version}", pull.model),
            None => pull.model.to_string(),
        };
        let pulled = self.pulls.run(&caller.name, pull, progress).await;
        if let Err(refused @ PullError::Refused(_)) = &pulled {
            self.denied(&caller.name, "pull", &subject, refused.to_string()).await?;
        }
        Ok(pulled?)
    }

    /// Pulls a version and tells how far it is. The pull ends with the stream.
    pub(super) fn pull_and_tell(&self, caller: Caller, pull: Pull) -> Told {
        let (sender, progress) = watch::channel(Progress::default());
        let (api, stopping) = (self.clone(), self.stopping.clone());
        let pulling = Box::pin(async move { api.pull(&caller, pull, &sender).await });
        let telling = Telling { pulling: Some(pulling), progress, told: None };
        // A stream that nobody ends would hold up the end of the process.
        Box::pin(futures::stream::unfold(telling, Telling::next).take_until(stopping.cancelled_owned()))
    }
}

struct Telling {
    pulling: Option<BoxFuture<'static, Result<Arrived, ApiError>>>,
    progress: watch::Receiver<Progress>,
    told: Option<Instant>,
}

impl Telling {
    async fn next(mut self) -> Option<(Result<v1::PullVersionResponse, Status>, Self)> {
        let mut pulling = self.pulling.take()?;
        let news = async {
            if let Some(told) = self.told {
                tokio::time::sleep_until(told + OFTEN).await;
                if self.progress.changed().await.is_err() {
                    // The pull is over, and says so itself.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            arrived = &mut pulling => {
                Some((arrived.map(|arrived| said(pulled(&arrived))).map_err(Status::from), self))
            }
            () = news => {
                self.told = Some(Instant::now());
                let progress = wire(&self.progress.borrow_and_update());
                self.pulling = Some(pulling);
                Some((Ok(said(v1::pull_version_response::State::Progress(progress))), self))
            }
        }
    }
}

fn said(state: v1::pull_version_response::State) -> v1::PullVersionResponse {
    v1::PullVersionResponse { state: Some(state) }
}

fn pulled(arrived: &Arrived) -> v1::pull_version_response::State {
    v1::pull_version_response::State::Pulled(v1::Pulled {
        version: Some(version_to_wire(&arrived.version, &arrived.record)),
        serial: arrived.serial.0,
        split: arrived.split.as_ref().map(v1::Split::from),
        bytes_stored: arrived.bytes_stored,
        already_committed: arrived.already_committed,
    })
}

fn wire(progress: &Progress) -> v1::PullProgress {
    let stage = match progress.stage {
        Stage::Waiting => v1::PullStage::Waiting,
        Stage::Fetching => v1::PullStage::Fetching,
        Stage::Checking => v1::PullStage::Checking,
    };
    v1::PullProgress { stage: stage.into(), bytes: progress.bytes, total: progress.total.unwrap_or_default() }
}

/// Address, digest and credentials as they were written.
pub(super) fn source(
    address: &str,
    digest: &str,
    credentials: impl IntoIterator<Item = (String, String)>,
) -> Result<(Source, Credentials), ApiError> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::Invalid(error.to_string());
    let credentials: Credentials = credentials.into_iter().collect();
    if let Some(name) = credentials.unknown() {
        return Err(ApiError::Invalid(format!(
            "no source knows credentials called `{name}`; docs/declarative.md has their names"
        )));
    }
    let source = Source {
        address: address.parse().map_err(|error| invalid(&error))?,
        digest: digest.parse().map_err(|error| invalid(&error))?,
    };
    Ok((source, credentials))
}

pub(super) fn from_wire(wire: v1::PullVersionRequest) -> Result<Pull, ApiError> {
    let (source, credentials) = source(&wire.source, &wire.digest, wire.credentials)?;
    let version = wire.version;
    let version = if version.is_empty() || version == "auto" { None } else { Some(version.parse()?) };
    let selector = wire.selector.map(|selector| Labels::new(selector.labels)).transpose();
    Ok(Pull {
        model: wire.model.parse()?,
        version,
        source,
        credentials,
        metadata: wire.metadata.into_iter().collect(),
        selector: selector.map_err(|error| ApiError::Invalid(error.to_string()))?.map(Selector::new),
        overrides: Signature::try_from(wire.overrides.unwrap_or_default())?,
        activate: wire.activate,
    })
}
