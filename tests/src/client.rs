//! A caller with a certificate of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::ClientConfig;
use sconce_identity::{Connector, Material, PeerPolicy, Publisher, authority::Credentials, identity};

/// An HTTP client over mTLS; of HTTP/1.1 where nothing else is said.
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    _publisher: Option<Publisher>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body as JSON; null where it is none.
    pub json: serde_json::Value,
}

impl Client {
    /// Calls as whoever these credentials are of, trusting these roots.
    ///
    /// # Panics
    /// Where they are no valid set.
    pub fn new(credentials: &Credentials, roots_pem: &str) -> Self {
        let (publisher, own) = identity();
        let material = Material::from_pem(
            credentials.chain_pem.as_bytes(),
            credentials.key_pem.as_bytes(),
            roots_pem.as_bytes(),
        );
        publisher.publish(material.expect("valid credentials"));
        let tls = own.client_config(PeerPolicy::own_trust_domain());
        Self { _publisher: Some(publisher), ..Self::with_tls(tls) }
    }

    /// Calls with this TLS, whatever it is.
    pub fn with_tls(tls: Arc<ClientConfig>) -> Self {
        let connector = Connector::http1(tls);
        Self { http: legacy::Client::builder(TokioExecutor::new()).build(connector), _publisher: None }
    }

    /// Calls over HTTP/2 with this TLS.
    pub fn http2(tls: Arc<ClientConfig>) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(Connector::new(tls));
        Self { http, _publisher: None }
    }

    /// Sends JSON; `Err` where no exchange came about.
    ///
    /// # Errors
    /// With every cause in one line.
    ///
    /// # Panics
    /// Where the address is none.
    pub async fn send(
        &self,
        method: &str,
        uri: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Reply, String> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        self.exchange(request.body(body.into()).expect("a valid request")).await
    }

    /// Sends anything.
    ///
    /// # Errors
    /// With every cause in one line.
    pub async fn exchange(&self, request: Request<Bytes>) -> Result<Reply, String> {
        let response = self.raw(request).await?;
        let json = serde_json::from_slice(response.body()).unwrap_or_default();
        Ok(Reply { status: response.status().as_u16(), json })
    }

    /// Sends anything, and reads nothing into the answer.
    ///
    /// # Errors
    /// With every cause in one line.
    pub async fn raw(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (parts, body) = self.open(request).await?.into_parts();
        let body = body.collect().await.map_err(|error| causes(&error))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    /// Sends anything, and leaves the answer's body to come.
    ///
    /// # Errors
    /// With every cause in one line.
    pub async fn open(&self, request: Request<Bytes>) -> Result<Response<Incoming>, String> {
        self.http.request(request.map(Full::new)).await.map_err(|error| causes(&error))
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
