//! HTTPS for pulls: every request, redirect and connection is held against the policy.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use http::{HeaderMap, StatusCode, header};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use url::Url;

use super::{
    address::Address,
    failure::PullError,
    origin::Body,
    policy::{Policy, Refusal},
};

/// A client that goes nowhere else.
#[derive(Clone, Debug)]
pub(super) struct Web {
    client: Client,
    policy: Arc<Policy>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum NoWeb {
    /// The roots to trust cannot be read.
    #[error("SCONCE_SOURCES_CA {0}: {1}")]
    Roots(String, String),
    /// Something of TLS.
    #[error("pulls have no TLS: {0}")]
    Tls(String),
}

const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may take to begin its answer, or to go on with it.
const ANSWER: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 5;

impl Web {
    /// Trusts the roots of the machine, Mozilla's where it has none, and those of a file.
    pub(super) fn new(policy: Arc<Policy>, ca: Option<&PathBuf>) -> Result<Self, NoWeb> {
        let tls = |error: &dyn std::fmt::Display| NoWeb::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let judge = Arc::clone(&policy);
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .https_only(true)
            // A proxy would resolve names itself, beyond our judgement.
            .no_proxy()
            .dns_resolver(Resolver(Arc::clone(&policy)))
            .redirect(redirect::Policy::custom(move |attempt| {
                if attempt.previous().len() > REDIRECTS {
                    return attempt.error(io::Error::other("it redirects for ever"));
                }
                match judge.permits_url(attempt.url()) {
                    Ok(()) => attempt.follow(),
                    Err(refusal) => attempt.error(refusal),
                }
            }))
            .referer(false)
            .connect_timeout(CONNECT)
            .read_timeout(ANSWER)
            .user_agent(concat!("sconce/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| tls(&error))?;
        Ok(Self { client, policy })
    }

    /// Asks for a URL, and gives back any answer.
    pub(super) async fn get(
        &self,
        address: &Address,
        url: Url,
        headers: HeaderMap,
    ) -> Result<Response, PullError> {
        self.policy.permits_url(&url)?;
        let answer = self.client.get(url).headers(headers).send().await;
        // The URL is in the address, or is a secret.
        answer.map_err(|error| PullError::request(address, &error.without_url()))
    }

    /// Asks for a file from a place on. The version that was begun is insisted on.
    pub(super) async fn file(
        &self,
        address: &Address,
        url: Url,
        mut headers: HeaderMap,
        from: u64,
        tag: &mut Option<http::HeaderValue>,
    ) -> Result<Body, PullError> {
        if from > 0 {
            let range = http::HeaderValue::from_str(&format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (header::RANGE, range)));
            headers.extend(tag.clone().map(|tag| (header::IF_RANGE, tag)));
        }
        let answer = self.get(address, url, headers).await?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(answer.headers(), from) => from,
            StatusCode::OK => 0,
            status => return Err(PullError::status(address, status)),
        };
        *tag = answer.headers().get(header::ETAG).cloned();
        let total = answer.content_length().map(|rest| from + rest);
        let whose = address.clone();
        let stream = answer.bytes_stream();
        let stream = stream.map_err(move |error| PullError::request(&whose, &error.without_url()));
        Ok(Body { from, total, stream: stream.boxed() })
    }

    /// The same client for the libraries of clouds.
    pub(super) fn connector(&self) -> impl HttpConnector + use<> {
        Connector(self.clone())
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }
}

fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn roots(ca: Option<&PathBuf>) -> Result<RootCertStore, NoWeb> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let Some(file) = ca else { return Ok(roots) };
    let wrong = |error: &dyn std::fmt::Display| NoWeb::Roots(file.display().to_string(), error.to_string());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
    let mut some = false;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
        some = true;
    }
    if some { Ok(roots) } else { Err(wrong(&"it has no certificate in it")) }
}

/// Leaves out what may not be connected to, after the name was resolved: what is connected to is
/// what was judged.
struct Resolver(Arc<Policy>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let mut refused: Option<Refusal> = None;
            let mut permitted = Vec::new();
            for address in found {
                match policy.permits_resolved(name, address.ip()) {
                    Ok(()) => permitted.push(address),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if permitted.is_empty() => Err(refusal.into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

/// Hands our client to `object_store`.
#[derive(Debug)]
struct Connector(Web);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Web {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let url = Url::parse(&request.uri().to_string());
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        self.policy.permits_url(&url).map_err(|refusal| HttpError::new(HttpErrorKind::Unknown, refusal))?;
        HttpService::call(&self.client, request).await
    }
}

/// Bytes of a file, as they come.
pub(super) type Stream = BoxStream<'static, Result<Bytes, PullError>>;
