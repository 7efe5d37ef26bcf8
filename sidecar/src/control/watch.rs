//! The one stream to the control plane: catalogs come down, reports go up.
//!
//! It reconnects for ever, and a lost stream changes nothing that is served: readers
//! keep the last catalog, which is also on disk.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use rand::RngExt as _;
use sconce_catalog::{Catalog, Serial};
use sconce_lifecycle::Stopping;
use sconce_proto::v1::{self, Report, sidecar_control_client::SidecarControlClient};
use sconce_telemetry::names;
use tokio::sync::watch;

pub use super::report::Reporter;
use super::{describe, link::Link};
use crate::models::{disk::Disk, progress::Progress};

/// What the task works with.
pub struct Watch {
    /// To the control plane.
    pub link: Link,
    /// Who this is.
    pub reporter: Reporter,
    /// Where versions stand: reported when it changes, and every few seconds for the counts.
    pub progress: watch::Receiver<Progress>,
    /// Receives each catalog.
    pub catalog: watch::Sender<Option<Arc<Catalog>>>,
    /// Keeps the last one.
    pub disk: Disk,
}

/// How often counts are reported when nothing else happens.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long until a catalog that could not be saved is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A catalog of very many models and versions.
const MAX_CATALOG: usize = 256 << 20;

impl Watch {
    /// Keeps the stream open until the process stops.
    pub async fn run(self, stopping: Stopping) {
        stopping.run_until_cancelled(self.reconnect()).await;
    }

    async fn reconnect(self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let mut received = false;
            let error = self.stream(&mut received).await;
            metrics::gauge!(names::CONTROL_CONNECTED).set(0.0);
            // A stream that worked is a reason to start over with short waits.
            backoff = if received { FIRST_BACKOFF } else { (backoff * 2).min(LONGEST_BACKOFF) };
            let control_plane = self.link.address();
            tracing::warn!(control_plane, error, "the control plane is out of reach, serving what is here");
            // Spread out, so that a fleet does not come back in one second.
            let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(wait).await;
        }
    }

    /// Follows one stream to its end and says why it ended.
    async fn stream(&self, received: &mut bool) -> String {
        let mut client =
            SidecarControlClient::new(self.link.channel()).max_decoding_message_size(MAX_CATALOG);
        let mut catalogs = match client.watch(self.reports()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return describe(&status),
        };
        tracing::info!(control_plane = self.link.address(), "connected to the control plane");
        metrics::gauge!(names::CONTROL_CONNECTED).set(1.0);
        let mut unsaved: Option<Arc<Catalog>> = None;
        loop {
            let message = tokio::select! {
                message = catalogs.message() => message,
                // A disk that was full may have room by now.
                () = tokio::time::sleep(SAVE_AGAIN), if unsaved.is_some() => {
                    unsaved = unsaved.filter(|catalog| !self.save(catalog));
                    continue;
                }
            };
            match message {
                Ok(Some(wire)) => {
                    *received = true;
                    unsaved = self.take(wire).filter(|catalog| !self.save(catalog));
                }
                Ok(None) => return "the control plane ended the stream".to_owned(),
                Err(status) => return describe(&status),
            }
        }
    }

    /// Hands a catalog on, if it is valid.
    fn take(&self, wire: v1::Catalog) -> Option<Arc<Catalog>> {
        let serial = Serial(wire.serial);
        let catalog = match Catalog::try_from(wire) {
            Ok(catalog) => Arc::new(catalog),
            Err(error) => {
                tracing::error!(serial = serial.0, %error, "the catalog received is not valid, keeping the last one");
                return None;
            }
        };
        tracing::info!(serial = serial.0, models = catalog.models.len(), "catalog received");
        self.catalog.send_replace(Some(Arc::clone(&catalog)));
        Some(catalog)
    }

    /// Whether a restart would find this catalog.
    fn save(&self, catalog: &Catalog) -> bool {
        let saved = self.disk.save_catalog(catalog);
        if let Err(error) = &saved {
            tracing::error!(%error, "the catalog cannot be saved, a restart may serve an older one");
        }
        saved.is_ok()
    }

    fn reports(&self) -> impl Stream<Item = Report> + Send + use<> {
        let (reporter, progress) = (self.reporter.clone(), self.progress.clone());
        // The first tick is at once: the first message up is a full report.
        let tick = tokio::time::interval(REPORT_EVERY);
        let progresses = futures::stream::unfold((progress, tick), |(mut progress, mut tick)| async move {
            tokio::select! {
                _ = tick.tick() => {}
                changed = progress.changed() => changed.ok()?,
            }
            let now = progress.borrow_and_update().clone();
            Some((now, (progress, tick)))
        });
        progresses.map(move |progress| reporter.report(&progress))
    }
}
