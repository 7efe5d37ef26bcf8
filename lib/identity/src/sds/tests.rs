//! A service on a socket that gives, rotates, goes away and errs.

use std::{convert::Infallible, sync::Arc};

use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use prost::Message as _;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tonic::{Request, Response, Streaming, body::Body, server::StreamingService};

use super::{
    wire::{Any, DataSource, TlsCertificate, ValidationContext},
    *,
};
use crate::{
    Identity, SpiffeId,
    authority::{Authority, Credentials},
    identity,
    testing::{authority, hour, id, patiently},
};

/// What the service has: both parts change independently.
#[derive(Clone, Default)]
struct Held {
    certificate: Option<(String, String)>,
    roots: Option<String>,
}

/// One running service.
struct Agent {
    held: watch::Sender<Held>,
    /// How many states have been sent.
    sent: Arc<watch::Sender<usize>>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Service(watch::Receiver<Held>, Arc<watch::Sender<usize>>);

impl StreamingService<DiscoveryRequest> for Service {
    type Response = DiscoveryResponse;
    type ResponseStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let (held, sent) = (self.0.clone(), Arc::clone(&self.1));
        Box::pin(async move {
            let mut requests = request.into_inner();
            let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("no request"))?;
            let name = first.resource_names.concat();
            let states = stream::unfold((held, requests, true), move |(mut held, mut requests, first)| {
                let (name, sent) = (name.clone(), Arc::clone(&sent));
                async move {
                    loop {
                        if !first && held.changed().await.is_err() {
                            return None;
                        }
                        let secret = secret(&name, &held.borrow_and_update());
                        let Some(secret) = secret else {
                            held.changed().await.ok()?;
                            held.mark_changed();
                            continue;
                        };
                        let resources = vec![Any { type_url: SECRET.into(), value: secret.encode_to_vec() }];
                        let state = DiscoveryResponse {
                            resources,
                            version_info: "1".into(),
                            nonce: "n".into(),
                            type_url: SECRET.into(),
                        };
                        if !first {
                            // The state before must have been acknowledged, as Envoy does.
                            let acknowledged = requests.message().await.ok()??;
                            assert_eq!(acknowledged.response_nonce, "n");
                        }
                        sent.send_modify(|sent| *sent += 1);
                        return Some((Ok(state), (held, requests, false)));
                    }
                }
            });
            Ok(Response::new(states.boxed()))
        })
    }
}

fn secret(name: &str, held: &Held) -> Option<Secret> {
    let inline = |text: &str| Some(DataSource { inline_bytes: text.into(), ..DataSource::default() });
    let mut secret = Secret { name: name.to_owned(), ..Secret::default() };
    if name == ROOTS {
        secret.validation_context = Some(ValidationContext { trusted_ca: inline(held.roots.as_ref()?) });
    } else {
        let (chain, key) = held.certificate.as_ref()?;
        secret.tls_certificate =
            Some(TlsCertificate { certificate_chain: inline(chain), private_key: inline(key) });
    }
    Some(secret)
}

impl Agent {
    fn start(socket: &Path, held: Held) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let (sender, receiver) = watch::channel(held);
        let sent = Arc::new(watch::Sender::new(0));
        let counter = Arc::clone(&sent);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = Service(receiver.clone(), Arc::clone(&counter));
                connections.spawn(async move {
                    let answer =
                        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                            let service = service.clone();
                            async move {
                                assert_eq!(request.uri().path(), STREAM_SECRETS);
                                let codec =
                                    tonic_prost::ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
                                let reply: http::Response<Body> =
                                    tonic::server::Grpc::new(codec).streaming(service, request).await;
                                Ok::<_, Infallible>(reply)
                            }
                        });
                    let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { held: sender, sent, serving }
    }

    async fn end(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

fn certificate(ca: &Authority, path: &str) -> (String, String) {
    let Credentials { chain_pem, key_pem } =
        ca.issue_credentials(&id(path), &[], hour()).expect("a certificate");
    (chain_pem, key_pem)
}

fn start(socket: &Path) -> (Identity, JoinHandle<()>) {
    let (publisher, identity) = identity();
    (identity, tokio::spawn(watch(socket.to_owned(), publisher)))
}

async fn becomes(identity: &Identity, wanted: &SpiffeId) {
    let mut identity = identity.clone();
    patiently(async {
        while identity.current().is_none_or(|current| current.id() != wanted) {
            identity.changed().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_identity_is_certificate_and_roots_and_follows_their_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, ca) = (folder.path().join("socket"), Arc::new(authority()));
    let agent =
        Agent::start(&socket, Held { certificate: Some(certificate(&ca, "/ns/a/sa/one")), roots: None });
    let (identity, watching) = start(&socket);
    agent.held.send_modify(|held| held.roots = Some(ca.roots_pem().to_owned()));
    becomes(&identity, &id("/ns/a/sa/one")).await;

    for path in ["/ns/a/sa/two", "/ns/a/sa/three"] {
        agent.held.send_modify(|held| held.certificate = Some(certificate(&ca, path)));
        becomes(&identity, &id(path)).await;
    }
    watching.abort();
    agent.end().await;
}

#[tokio::test]
async fn an_agent_that_comes_late_or_again_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, ca) = (folder.path().join("socket"), authority());
    let held = |path: &str| Held {
        certificate: Some(certificate(&ca, path)),
        roots: Some(ca.roots_pem().to_owned()),
    };
    let (identity, watching) = start(&socket);
    let agent = Agent::start(&socket, held("/ns/a/sa/one"));
    becomes(&identity, &id("/ns/a/sa/one")).await;
    agent.end().await;

    let agent = Agent::start(&socket, held("/ns/a/sa/two"));
    becomes(&identity, &id("/ns/a/sa/two")).await;
    watching.abort();
    agent.end().await;
}

#[tokio::test]
async fn a_key_of_another_certificate_is_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, ca) = (folder.path().join("socket"), authority());
    let roots = Some(ca.roots_pem().to_owned());
    let agent = Agent::start(&socket, Held { certificate: Some(certificate(&ca, "/ns/a/sa/one")), roots });
    let (identity, watching) = start(&socket);
    becomes(&identity, &id("/ns/a/sa/one")).await;

    let ((chain, _), (_, key)) = (certificate(&ca, "/ns/a/sa/two"), certificate(&ca, "/ns/a/sa/two"));
    let before = *agent.sent.borrow();
    agent.held.send_modify(|held| held.certificate = Some((chain, key)));
    // Both streams send what changed, so that the bad set is not passed over.
    patiently(agent.sent.subscribe().wait_for(|sent| *sent >= before + 2)).await.expect("sent");
    assert_eq!(identity.current().expect("kept").id(), &id("/ns/a/sa/one"));
    agent.held.send_modify(|held| held.certificate = Some(certificate(&ca, "/ns/a/sa/three")));
    becomes(&identity, &id("/ns/a/sa/three")).await;
    watching.abort();
    agent.end().await;
}
