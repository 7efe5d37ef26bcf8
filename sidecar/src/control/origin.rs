//! Manifests and chunks from the control plane.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};
use sconce_catalog::{Digest, Manifest};
use sconce_proto::v1::{
    FetchChunksRequest, GetManifestRequest, sidecar_control_client::SidecarControlClient,
};

use super::link::Link;
use crate::models::fetch::{Origin, OriginError};

/// The largest message: a chunk, or the manifest of a very large artifact.
const MAX_MESSAGE: usize = 64 << 20;

impl Origin for Link {
    fn manifest(&self, artifact: Digest) -> BoxFuture<'_, Result<Manifest, OriginError>> {
        let mut client = SidecarControlClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        Box::pin(async move {
            let request = GetManifestRequest { artifact: artifact.as_bytes().to_vec() };
            let wire = client.get_manifest(request).await.map_err(failed)?.into_inner();
            Manifest::try_from(wire).map_err(|error| OriginError(error.to_string()))
        })
    }

    fn chunks(
        &self,
        artifact: Digest,
        digests: Vec<Digest>,
    ) -> BoxStream<'static, Result<Bytes, OriginError>> {
        let mut client = SidecarControlClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE);
        let digests = digests.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let request = FetchChunksRequest { digests, artifact: artifact.as_bytes().to_vec() };
        let stream = async move { client.fetch_chunks(request).await.map(tonic::Response::into_inner) };
        futures::stream::once(stream).try_flatten().map(|chunk| chunk.map(|c| c.data).map_err(failed)).boxed()
    }
}

fn failed(status: tonic::Status) -> OriginError {
    OriginError(format!("{:?}: {}", status.code(), status.message()))
}
