//! Brings a source into a file, whatever happens on the way: broken connections are taken up where
//! they broke, servers that stall are given up, and the digest is made of what is on the disk.

use std::{fs::File, time::Duration};

use aws_lc_rs::digest::{self, SHA256};
use tokio::sync::watch;

use super::{
    Progress, Source,
    address::Sha256,
    credentials::Credentials,
    failure::PullError,
    landing::{Landing, PATIENCE},
    origin::Origin,
    web::Web,
};

/// Attempts that bring nothing, one after another.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Brings a source whole into `file`.
pub(super) async fn download(
    web: &Web,
    source: &Source,
    credentials: &Credentials,
    file: File,
    progress: &watch::Sender<Progress>,
) -> Result<File, PullError> {
    let mut landing = Landing::new(file);
    let (mut origin, mut expected) = Origin::find(web, source, credentials).await?;
    let mut fruitless = 0;
    loop {
        let before = landing.size();
        let attempt = async {
            let body = origin.read(web, source, landing.size()).await?;
            landing.receive(&source.address, body, progress, PATIENCE).await
        };
        let error = match attempt.await {
            Ok(()) => break,
            Err(error) => error,
        };
        // What let us in may have run out on the way, such as a registry's token.
        let again = match &error {
            PullError::Unreachable { .. } => true,
            PullError::Denied { .. } => landing.size() > 0,
            _ => false,
        };
        // A trickle that breaks off again and again is no progress either.
        fruitless = if landing.size() >= before + PATIENCE.least { 1 } else { fruitless + 1 };
        if !again || fruitless > ATTEMPTS {
            return Err(error);
        }
        let pause = FIRST_PAUSE * (1 << (fruitless - 1).min(5));
        tracing::info!(%error, size = landing.size(), ?pause, "a pull broke off and is gone on with");
        tokio::time::sleep(pause).await;
        if matches!(error, PullError::Denied { .. }) {
            (origin, expected) = Origin::find(web, source, credentials).await?;
        }
    }
    let (file, found) = landing.finish();
    if found != expected {
        return Err(PullError::Digest { address: source.address.to_string(), expected, found });
    }
    Ok(file)
}

/// The digest of what is held whole.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut found = [0; 32];
    found.copy_from_slice(digest::digest(&SHA256, bytes).as_ref());
    Sha256(found)
}
