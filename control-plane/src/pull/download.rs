//! Brings a source into a file, whatever happens on the way: broken connections are taken up where
//! they broke, servers that stall are given up, and the digest is made of what is on the disk.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    time::Duration,
};

use aws_lc_rs::digest::{self, Context, SHA256};
use bytes::Bytes;
use futures::StreamExt as _;
use sconce_catalog::Manifest;
use tokio::{sync::watch, time::Instant};

use super::{
    Progress, Source, Stage,
    address::Sha256,
    credentials::Credentials,
    failure::PullError,
    origin::{Body, Origin},
    web::Web,
};
use crate::api::ApiError;

/// Attempts that bring nothing, one after another.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A source that brings less than so much in that time is given up: a trickle would hold its place
/// for ever.
const TRICKLE: (u64, Duration) = (64 << 10, Duration::from_secs(60));

/// A file that grows, and the digest of what is in it.
struct Landing {
    file: File,
    digest: Context,
    size: u64,
}

/// Brings a source whole into `file`.
pub(super) async fn download(
    web: &Web,
    source: &Source,
    credentials: &Credentials,
    file: File,
    progress: &watch::Sender<Progress>,
) -> Result<File, PullError> {
    let mut landing = Landing { file, digest: Context::new(&SHA256), size: 0 };
    let (mut origin, mut expected) = Origin::find(web, source, credentials).await?;
    let mut fruitless = 0;
    loop {
        let before = landing.size;
        let error = match attempt(web, source, &mut origin, &mut landing, progress).await {
            Ok(()) => break,
            Err(error) => error,
        };
        // What let us in may have run out on the way, such as a registry's token.
        let again = match &error {
            PullError::Unreachable { .. } => true,
            PullError::Denied { .. } => landing.size > 0,
            _ => false,
        };
        // A trickle that breaks off again and again is no progress either.
        fruitless = if landing.size >= before + TRICKLE.0 { 1 } else { fruitless + 1 };
        if !again || fruitless > ATTEMPTS {
            return Err(error);
        }
        let pause = FIRST_PAUSE * (1 << (fruitless - 1).min(5));
        tracing::info!(%error, size = landing.size, ?pause, "a pull broke off and is gone on with");
        tokio::time::sleep(pause).await;
        if matches!(error, PullError::Denied { .. }) {
            (origin, expected) = Origin::find(web, source, credentials).await?;
        }
    }
    let found = finished(landing.digest);
    if found != expected {
        return Err(PullError::Digest { address: source.address.to_string(), expected, found });
    }
    Ok(landing.file)
}

/// Reads as far as the source goes.
async fn attempt(
    web: &Web,
    source: &Source,
    origin: &mut Origin,
    landing: &mut Landing,
    progress: &watch::Sender<Progress>,
) -> Result<(), PullError> {
    let address = &source.address;
    let Body { from, total, mut stream } = origin.read(web, source, landing.size).await?;
    let too_large = || PullError::TooLarge { address: address.to_string(), most: Manifest::MAX_SIZE };
    if total.is_some_and(|total| total > Manifest::MAX_SIZE) {
        return Err(too_large());
    }
    if from != landing.size {
        landing.restart()?;
    }
    let mut since = (landing.size, Instant::now());
    loop {
        progress.send_replace(Progress { stage: Stage::Fetching, bytes: landing.size, total });
        let stalled = || PullError::unreachable(address, format!("it stalls after {} bytes", landing.size));
        let part = match tokio::time::timeout(TRICKLE.1, stream.next()).await {
            Ok(Some(part)) => part?,
            Ok(None) => break,
            Err(_) => return Err(stalled()),
        };
        if landing.size + part.len() as u64 > Manifest::MAX_SIZE {
            return Err(too_large());
        }
        if since.1.elapsed() > TRICKLE.1 {
            if landing.size + part.len() as u64 - since.0 < TRICKLE.0 {
                return Err(stalled());
            }
            since = (landing.size, Instant::now());
        }
        landing.write(part).await?;
    }
    match total {
        Some(total) if landing.size < total => {
            Err(PullError::unreachable(address, format!("it ended after {} of {total} bytes", landing.size)))
        }
        _ => Ok(()),
    }
}

impl Landing {
    /// Writes in place of waiting for room: the disk is the only buffer.
    async fn write(&mut self, part: Bytes) -> Result<(), PullError> {
        self.digest.update(&part);
        self.size += part.len() as u64;
        metrics::counter!(sconce_telemetry::names::PULLED_BYTES).increment(part.len() as u64);
        let file = self.file.try_clone().map_err(|error| kept(&error))?;
        let written = tokio::task::spawn_blocking(move || (&file).write_all(&part)).await;
        written.map_err(|error| kept(&error))?.map_err(|error| kept(&error))
    }

    fn restart(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|error| kept(&error))?;
        (self.digest, self.size) = (Context::new(&SHA256), 0);
        Ok(())
    }
}

fn kept(error: &dyn std::fmt::Display) -> PullError {
    PullError::Store(ApiError::internal(&"what was pulled cannot be kept", error))
}

fn finished(digest: Context) -> Sha256 {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    Sha256(bytes)
}

/// The digest of what is held whole.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut found = [0; 32];
    found.copy_from_slice(digest::digest(&SHA256, bytes).as_ref());
    Sha256(found)
}
