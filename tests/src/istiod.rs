//! istiod's certificate service, with a CA of the test's and one token that it takes.
//!
//! Numbers and names: istio/api `security/v1alpha1/ca.proto`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use hyper::body::Incoming;
use prost::Message;
use sconce_identity::{
    ClientAuth, Doors, Material, PeerPolicy, SpiffeId,
    authority::{Authority, Validity},
    identity, serve,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, server::UnaryService};

const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A running istiod, which ends when it is dropped.
pub struct Istiod {
    /// `https://localhost:port`.
    pub address: String,
    /// The token that it takes.
    pub token: watch::Sender<String>,
    /// How many certificates it has issued.
    pub issued: watch::Receiver<usize>,
    _stops: DropGuard,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

#[derive(Clone)]
struct Service {
    ca: Arc<Authority>,
    id: SpiffeId,
    token: watch::Receiver<String>,
    issued: watch::Sender<usize>,
}

impl Istiod {
    /// Certifies holders of the token as `id`, calling itself `name`.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub async fn start(ca: Authority, name: &str, id: SpiffeId, token: &str) -> Self {
        let own = SpiffeId::new(ca.trust_domain(), "/ns/istio-system/sa/istiod").expect("a valid id");
        let own = ca.issue_credentials(&own, &[name.to_owned()], hour()).expect("a certificate");
        let (publisher, identity) = identity();
        let roots = ca.roots_pem().as_bytes();
        let material = Material::from_pem(own.chain_pem.as_bytes(), own.key_pem.as_bytes(), roots);
        publisher.publish(material.expect("valid credentials"));
        let doors = Doors::tls(identity.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain()));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let (token, tokens) = watch::channel(token.to_owned());
        let (count, issued) = watch::channel(0);
        let service = Service { ca: Arc::new(ca), id, token: tokens, issued: count };
        let answer = tower::service_fn(move |request: http::Request<Incoming>| {
            let service = service.clone();
            async move {
                assert_eq!(request.uri().path(), CREATE_CERTIFICATE);
                let codec = tonic_prost::ProstCodec::<CertificateResponse, CertificateRequest>::default();
                Ok::<_, Infallible>(tonic::server::Grpc::new(codec).unary(service, request).await)
            }
        });
        let stopping = CancellationToken::new();
        tokio::spawn(serve(listener, doors, answer, stopping.clone()));
        Self { address, token, issued, _stops: stopping.drop_guard() }
    }
}

fn hour() -> Validity {
    Validity::of(Duration::from_secs(3600))
}

impl UnaryService<CertificateRequest> for Service {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let expected = format!("Bearer {}", *service.token.borrow());
            if request.metadata().get("authorization").is_none_or(|shown| shown != expected.as_str()) {
                return Err(Status::unauthenticated("authentication failure"));
            }
            let request = request.into_inner();
            assert_eq!(request.validity_duration, 24 * 3600);
            let leaf = service.ca.issue(&request.csr, &service.id, &[], hour());
            let leaf = leaf.map_err(|error| Status::invalid_argument(error.to_string()))?;
            service.issued.send_modify(|issued| *issued += 1);
            Ok(Response::new(CertificateResponse {
                cert_chain: vec![leaf, service.ca.roots_pem().to_owned()],
            }))
        })
    }
}
