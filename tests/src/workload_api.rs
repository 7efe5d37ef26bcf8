//! A SPIFFE Workload API, as SPIRE's agent answers it: for what SPIRE cannot be had for here.
//!
//! Numbers and names: spiffe/spiffe `standards/workloadapi.proto`.

use std::{convert::Infallible, path::Path};

use futures::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sconce_identity::authority::Credentials;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tonic::{Request, Response, Status, body::Body, server::ServerStreamingService};

const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// A running agent.
pub struct WorkloadApi {
    held: watch::Sender<Held>,
    serving: JoinHandle<()>,
}

/// What the workload is entitled to.
#[derive(Clone)]
enum Held {
    /// It is not known yet.
    Unknown,
    Svid(X509SvidResponse),
    Denied,
}

#[derive(Clone, PartialEq, Message)]
struct X509SvidRequest {}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

impl WorkloadApi {
    /// Answers at this socket, once it has been told what.
    ///
    /// # Panics
    /// Where the socket cannot be made.
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let (held, receiver) = watch::channel(Held::Unknown);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let agent = Agent(receiver.clone());
                connections.spawn(async move {
                    let answer = service_fn(move |request| answer(agent.clone(), request));
                    let http = http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { held, serving }
    }

    /// Gives the workload this certificate, and these roots to trust.
    ///
    /// # Panics
    /// Where they are not PEM.
    pub fn give(&self, id: &str, own: &Credentials, roots_pem: &str) {
        let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).expect("a key");
        let svid = X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: ders(&own.chain_pem),
            x509_svid_key: key.secret_der().to_vec(),
            bundle: ders(roots_pem),
        };
        self.held.send_replace(Held::Svid(X509SvidResponse { svids: vec![svid] }));
    }

    /// Sends a state without any certificate.
    pub fn give_nothing(&self) {
        self.held.send_replace(Held::Svid(X509SvidResponse { svids: Vec::new() }));
    }

    /// Denies the workload every identity.
    pub fn deny(&self) {
        self.held.send_replace(Held::Denied);
    }

    /// Goes away, with every stream.
    pub async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

fn ders(pem: &str) -> Vec<u8> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .flat_map(|der| der.expect("a certificate").to_vec())
        .collect()
}

async fn answer(agent: Agent, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    assert_eq!(request.uri().path(), FETCH_X509_SVID);
    let codec = tonic_prost::ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
    Ok(tonic::server::Grpc::new(codec).server_streaming(agent, request).await)
}

#[derive(Clone)]
struct Agent(watch::Receiver<Held>);

impl ServerStreamingService<X509SvidRequest> for Agent {
    type Response = X509SvidResponse;
    type ResponseStream = BoxStream<'static, Result<X509SvidResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        // What keeps a request that a browser was tricked into from getting a key.
        let marked = request.metadata().get("workload.spiffe.io").is_some_and(|value| value == "true");
        let mut held = self.0.clone();
        held.mark_changed();
        Box::pin(async move {
            if !marked {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            let states = stream::unfold(Some(held), async |held| {
                let mut held = held?;
                held.changed().await.ok()?;
                let known = held.wait_for(|held| !matches!(held, Held::Unknown)).await.ok()?.clone();
                Some(match known {
                    Held::Unknown => return None,
                    Held::Svid(response) => (Ok(response), Some(held)),
                    Held::Denied => (Err(Status::permission_denied("no identity issued")), None),
                })
            });
            Ok(Response::new(states.boxed()))
        })
    }
}
