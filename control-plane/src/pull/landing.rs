//! The file that a source is brought into, as fast as it comes and no slower than somebody waits for.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::StreamExt as _;
use sconce_catalog::Manifest;
use tokio::{sync::watch, time::Instant};

use super::{
    Progress, Stage,
    address::{Address, Sha256},
    failure::PullError,
    origin::Body,
};
use crate::api::ApiError;

/// How slow a source may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// So many bytes at least,
    pub(super) least: u64,
    /// in so long: a trickle would hold its place for ever.
    pub(super) within: Duration,
}

/// For every source.
pub(super) const PATIENCE: Patience = Patience { least: 64 << 10, within: Duration::from_secs(60) };

/// A file that grows, and the digest of what is in it.
pub(super) struct Landing {
    file: File,
    digest: Context,
    size: u64,
}

impl Landing {
    pub(super) fn new(file: File) -> Self {
        Self { file, digest: Context::new(&SHA256), size: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads as far as the source goes.
    pub(super) async fn receive(
        &mut self,
        address: &Address,
        body: Body,
        progress: &watch::Sender<Progress>,
        patience: Patience,
    ) -> Result<(), PullError> {
        let Body { from, total, mut stream } = body;
        let too_large = || PullError::TooLarge { address: address.to_string(), most: Manifest::MAX_SIZE };
        if total.is_some_and(|total| total > Manifest::MAX_SIZE) {
            return Err(too_large());
        }
        if from != self.size {
            self.restart()?;
        }
        let mut since = (self.size, Instant::now());
        loop {
            progress.send_replace(Progress { stage: Stage::Fetching, bytes: self.size, total });
            let stalled = || PullError::unreachable(address, format!("it stalls after {} bytes", self.size));
            let part = match tokio::time::timeout(patience.within, stream.next()).await {
                Ok(Some(part)) => part?,
                Ok(None) => break,
                Err(_) => return Err(stalled()),
            };
            if self.size + part.len() as u64 > Manifest::MAX_SIZE {
                return Err(too_large());
            }
            if since.1.elapsed() > patience.within {
                if self.size + part.len() as u64 - since.0 < patience.least {
                    return Err(stalled());
                }
                since = (self.size, Instant::now());
            }
            self.write(part).await?;
        }
        match total {
            Some(total) if self.size < total => {
                Err(PullError::unreachable(address, format!("it ended after {} of {total} bytes", self.size)))
            }
            _ => Ok(()),
        }
    }

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

    pub(super) fn finish(self) -> (File, Sha256) {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.digest.finish().as_ref());
        (self.file, Sha256(bytes))
    }
}

fn kept(error: &dyn std::fmt::Display) -> PullError {
    PullError::Store(ApiError::internal(&"what was pulled cannot be kept", error))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// What becomes of a body that comes like this.
    async fn received(
        from: u64,
        total: Option<u64>,
        stream: super::super::web::Stream,
    ) -> Result<u64, String> {
        let mut landing = Landing::new(tempfile::tempfile().expect("a file"));
        let (progress, _) = watch::channel(Progress::default());
        let address = "https://models.example.com/7.pt".parse().expect("valid");
        let patience = Patience { least: 1_000, within: Duration::from_millis(50) };
        let body = Body { from, total, stream };
        let done = landing.receive(&address, body, &progress, patience).await;
        done.map(|()| landing.size()).map_err(|error| error.to_string())
    }

    fn part(size: usize) -> Result<Bytes, PullError> {
        Ok(Bytes::from(vec![7; size]))
    }

    #[tokio::test]
    async fn a_source_that_stalls_trickles_or_ends_early_is_given_up_and_a_slow_one_is_not() {
        let silent = stream::iter([part(10)]).chain(stream::pending()).boxed();
        assert!(received(0, Some(20), silent).await.expect_err("silent").contains("stalls after 10 bytes"));
        let every = |size: usize, times: usize| {
            let ticks = stream::unfold(0, move |count| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                (count < times).then(|| (part(size), count + 1))
            });
            ticks.boxed()
        };
        assert!(received(0, None, every(1, 10_000)).await.expect_err("a trickle").contains("stalls after"));
        assert_eq!(received(0, None, every(500, 40)).await, Ok(20_000));
        let short = received(0, Some(20), stream::iter([part(10)]).boxed()).await;
        assert!(short.expect_err("short").contains("ended after 10 of 20 bytes"));
        let large = received(0, Some(Manifest::MAX_SIZE + 1), stream::pending().boxed()).await;
        assert!(large.expect_err("large").contains("is larger than"));
    }
}
