//! Certificates from a secret discovery service on a Unix socket, such as Istio's agent.
//!
//! The protocol is Envoy's (`envoy.service.secret.v3.SecretDiscoveryService`), of which
//! Istio's agent answers `StreamSecrets` alone. It names the certificate `default` and the
//! roots `ROOTCA`, pushes both when they rotate, and makes its socket anew when it
//! restarts (istio/istio `security/pkg/nodeagent/sds`).

mod wire;

use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc};
use tonic::{
    Status,
    client::Grpc,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use self::wire::{DiscoveryRequest, DiscoveryResponse, Node, SECRET, STREAM_SECRETS, Secret};
use crate::{Material, Publisher, retry::Retry};

const CERTIFICATE: &str = "default";
const ROOTS: &str = "ROOTCA";

/// Why there is nothing new from the socket.
#[derive(Debug, thiserror::Error)]
enum SdsError {
    #[error("nobody answers: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("the stream ended: {0}")]
    Stream(#[from] Status),
    #[error("the stream ended")]
    Over,
    #[error("the secret `{name}` cannot be read: {reason}")]
    Secret { name: &'static str, reason: String },
}

/// What has arrived of a set.
#[derive(Default)]
struct Parts {
    chain: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
}

/// Publishes what the service at this socket says, now and whenever it changes, for ever.
///
/// Certificate and roots come separately and are taken as a set: while the two do not fit,
/// the set before stays in use.
pub async fn watch(socket: PathBuf, publisher: Publisher) {
    let mut retry = Retry::new();
    loop {
        let error = follow(&socket, &publisher, &mut retry).await;
        let log = |error: &str| {
            tracing::warn!(socket = %socket.display(), error, "no certificate from the secret discovery service, trying again");
        };
        retry.failed(error, log).await;
    }
}

/// Follows both secrets until a stream ends, and says why it did.
async fn follow(socket: &Path, publisher: &Publisher, retry: &mut Retry) -> SdsError {
    let channel = match connect(socket).await {
        Ok(channel) => channel,
        Err(error) => return error.into(),
    };
    // A stream each, as Envoy has it: the agent keeps one watch to a stream.
    let (certificate, roots) = (subscribe(channel.clone(), CERTIFICATE), subscribe(channel, ROOTS));
    let mut secrets = Box::pin(stream::select(certificate, roots));
    let mut parts = Parts::default();
    while let Some(next) = secrets.next().await {
        let taken = next.and_then(|(name, secret)| parts.take(name, secret));
        if let Err(error) = taken {
            return error;
        }
        retry.worked();
        if !parts.is_whole() {
            continue;
        }
        match Material::from_pem(&parts.chain, &parts.key, &parts.roots) {
            Ok(material) => publisher.publish(material),
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "the secrets do not make up an identity, keeping the one before");
            }
        }
    }
    SdsError::Over
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let dial = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is a formality: the connector dials the socket whatever it says.
    Endpoint::from_static("http://sds").connect_with_connector(dial).await
}

/// Each state of one secret, acknowledged as it is taken.
fn subscribe(
    channel: Channel,
    name: &'static str,
) -> impl Stream<Item = Result<(&'static str, Secret), SdsError>> + Send {
    let opened = async move {
        let (acknowledge, requests) = mpsc::channel(2);
        let first = DiscoveryRequest {
            node: Some(Node { id: "sconce".into() }),
            resource_names: vec![name.into()],
            type_url: SECRET.into(),
            ..DiscoveryRequest::default()
        };
        let requests = stream::once(std::future::ready(first)).chain(received(requests));
        let mut client = Grpc::new(channel);
        client.ready().await?;
        let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
        let path = http::uri::PathAndQuery::from_static(STREAM_SECRETS);
        let responses = client.streaming(tonic::Request::new(requests), path, codec).await?.into_inner();
        Ok::<_, SdsError>((responses, acknowledge))
    };
    let states = async move {
        match opened.await {
            Ok((responses, acknowledge)) => responses
                .filter_map(move |response| {
                    let acknowledge = acknowledge.clone();
                    async move {
                        let response = match response {
                            Ok(response) => response,
                            Err(status) => return Some(Err(status.into())),
                        };
                        // A full channel means that the service does not read: it needs no more.
                        let _ = acknowledge.try_send(response.acknowledged(name));
                        response.secret(name).transpose()
                    }
                })
                .map(move |secret| secret.map(|secret| (name, secret)))
                .left_stream(),
            Err(error) => stream::once(std::future::ready(Err(error))).right_stream(),
        }
    };
    stream::once(states).flatten()
}

fn received<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|next| (next, receiver)))
}

impl Parts {
    fn take(&mut self, name: &'static str, secret: Secret) -> Result<(), SdsError> {
        let missing = |what: &str| SdsError::Secret { name, reason: format!("it has no {what}") };
        if name == ROOTS {
            self.roots = secret.roots().ok_or_else(|| missing("inline trusted_ca"))?;
        } else {
            let (chain, key) = secret.certificate().ok_or_else(|| missing("inline certificate and key"))?;
            (self.chain, self.key) = (chain, key);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        !self.chain.is_empty() && !self.roots.is_empty()
    }
}

#[cfg(test)]
mod tests;
