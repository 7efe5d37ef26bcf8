//! For sidecars: catalogs down, reports up, and the chunks in between.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use sconce_catalog::{Catalog, Digest, Labels};
use sconce_identity::Principal;
use sconce_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, ApiError};
use crate::fleet::Session;

pub(super) struct Sidecars(pub(super) Api);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::sidecar_control_server::SidecarControl for Sidecars {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Catalog, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<v1::Report>>) -> Answer<Self::WatchStream> {
        sidecar(&request)?;
        let mut reports = request.into_inner();
        let first = reports.message().await?;
        let first =
            first.ok_or_else(|| ApiError::Invalid("the stream ended before its first report".into()))?;
        let labels =
            Labels::new(first.labels.clone()).map_err(|error| ApiError::Invalid(error.to_string()))?;
        let session = self.0.fleet.join(first);
        // Reports are read for as long as catalogs are sent; whichever ends, ends both.
        let reading = read(reports, Arc::clone(&session));
        let catalogs = tokio_stream::wrappers::WatchStream::new(self.0.store.catalog());
        let mut sent: Option<Catalog> = None;
        let catalogs = catalogs.filter_map(move |catalog| {
            let mut own = catalog.for_labels(&labels);
            let news = sent.as_ref().is_none_or(|sent| sent.models != own.models);
            let wire = news.then(|| Ok(v1::Catalog::from(&own)));
            if news {
                sent = Some(std::mem::take(&mut own));
            }
            std::future::ready(wire)
        });
        let stream = catalogs.take_until(reading).take_until(self.0.stopping.clone().cancelled_owned());
        // The stream owns the session: it ends when the stream does, also by being dropped.
        let stream = stream.map(move |catalog| {
            let _session = &session;
            catalog
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_manifest(&self, request: Request<v1::GetManifestRequest>) -> Answer<v1::Manifest> {
        sidecar(&request)?;
        let artifact = digest(&request.into_inner().artifact)?;
        let catalog = self.0.store.catalog().borrow().clone();
        let versions = catalog.models.values().flat_map(|model| model.versions.values());
        if !versions.into_iter().any(|record| record.artifact == artifact) {
            return Err(ApiError::NotFound(format!("no version has the artifact {artifact}")).into());
        }
        Ok(Response::new((&self.0.store.manifest(&artifact).await?).into()))
    }

    type FetchChunksStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn fetch_chunks(
        &self,
        request: Request<v1::FetchChunksRequest>,
    ) -> Answer<Self::FetchChunksStream> {
        sidecar(&request)?;
        let digests: Result<Vec<Digest>, ApiError> =
            request.into_inner().digests.iter().map(|d| digest(d)).collect();
        let digests = digests?;
        if digests.len() != digests.iter().collect::<HashSet<_>>().len() {
            return Err(ApiError::Invalid("a chunk is asked for twice".into()).into());
        }
        let store = self.0.store.clone();
        let chunks = futures::stream::iter(digests).then(move |digest| {
            let store = store.clone();
            async move {
                let data = store.chunks().get(&digest).await?;
                Ok(v1::Chunk { digest: digest.as_bytes().to_vec(), data })
            }
        });
        Ok(Response::new(Box::pin(chunks.take_until(self.0.stopping.clone().cancelled_owned()))))
    }
}

async fn read(mut reports: Streaming<v1::Report>, session: Arc<Session>) {
    loop {
        match reports.message().await {
            Ok(Some(report)) => session.report(report).await,
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(sidecar = session.name(), %status, "a sidecar's stream broke off");
                return;
            }
        }
    }
}

/// Artifacts are for workloads of the trust domain: a token holder has no use for them.
fn sidecar<T>(request: &Request<T>) -> Result<(), ApiError> {
    match request.extensions().get::<Principal>() {
        Some(Principal::Spiffe(_)) => Ok(()),
        _ => Err(ApiError::Unauthenticated("sidecars show a client certificate; join first".into())),
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, ApiError> {
    Digest::try_from(bytes).map_err(|error| ApiError::Invalid(error.to_string()))
}
