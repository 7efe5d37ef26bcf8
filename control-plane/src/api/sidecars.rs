//! For sidecars: catalogs down, reports up, and the chunks in between.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use sconce_catalog::{Catalog, Digest, Labels, Manifest};
use sconce_identity::{Principal, SpiffeId};
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
        let id = sidecar(&request)?;
        let namespace = namespace(&id)?.to_owned();
        let mut reports = request.into_inner();
        let first = reports.message().await?;
        let first =
            first.ok_or_else(|| ApiError::Invalid("the stream ended before its first report".into()))?;
        let labels =
            Labels::new(first.labels.clone()).map_err(|error| ApiError::Invalid(error.to_string()))?;
        let session = self.0.fleet.join(first, &id)?;
        // Reports are read for as long as catalogs are sent; whichever ends, ends both.
        let reading = read(reports, Arc::clone(&session));
        let catalogs = tokio_stream::wrappers::WatchStream::new(self.0.store.catalog());
        let mut sent: Option<Catalog> = None;
        let catalogs = catalogs.filter_map(move |catalog| {
            let mut own = catalog.for_sidecar(&namespace, &labels);
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
        let id = sidecar(&request)?;
        let artifact = digest(&request.into_inner().artifact)?;
        Ok(Response::new((&self.manifest_for(&id, artifact).await?).into()))
    }

    type FetchChunksStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn fetch_chunks(
        &self,
        request: Request<v1::FetchChunksRequest>,
    ) -> Answer<Self::FetchChunksStream> {
        let id = sidecar(&request)?;
        let request = request.into_inner();
        let manifest = self.manifest_for(&id, digest(&request.artifact)?).await?;
        let own: HashSet<&Digest> = manifest.chunks().iter().map(|chunk| &chunk.digest).collect();
        let digests: Result<Vec<Digest>, ApiError> = request.digests.iter().map(|d| digest(d)).collect();
        let digests = digests?;
        if let Some(other) = digests.iter().find(|digest| !own.contains(digest)) {
            return Err(ApiError::NotFound(format!("the artifact has no chunk {other}")).into());
        }
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

impl Sidecars {
    /// The manifest of an artifact, if a version in the caller's namespace has it.
    async fn manifest_for(&self, id: &SpiffeId, artifact: Digest) -> Result<Manifest, ApiError> {
        let namespace = namespace(id)?;
        let catalog = self.0.store.catalog().borrow().clone();
        let own = catalog.models.iter().filter(|(name, _)| name.namespace() == namespace);
        if !own.flat_map(|(_, model)| model.versions.values()).any(|record| record.artifact == artifact) {
            return Err(ApiError::NotFound(format!(
                "no version in the namespace `{namespace}` has the artifact {artifact}"
            )));
        }
        self.0.store.manifest(&artifact).await
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
fn sidecar<T>(request: &Request<T>) -> Result<SpiffeId, ApiError> {
    match request.extensions().get::<Principal>() {
        Some(Principal::Spiffe(id)) => Ok(id.clone()),
        _ => Err(ApiError::Unauthenticated("sidecars show a client certificate; join first".into())),
    }
}

/// The namespace whose models a sidecar is given.
fn namespace(id: &SpiffeId) -> Result<&str, ApiError> {
    id.namespace().ok_or_else(|| {
        ApiError::Denied(format!(
            "{id} proves no namespace, so no model is its own; the id of a sidecar ends in /ns/<namespace>/sa/<account>"
        ))
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, ApiError> {
    Digest::try_from(bytes).map_err(|error| ApiError::Invalid(error.to_string()))
}
