//! Certificates from istiod's CA, in exchange for a token of the pod's service account.
//!
//! What Istio's own agent does, for a pod that has none: the id in the certificate is that of
//! the service account, `spiffe://<trust domain>/ns/<namespace>/sa/<name>`, whatever the
//! request says. istiod is known by its DNS name and the roots that it puts into every
//! namespace (ConfigMap `istio-ca-root-cert`).

mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use self::wire::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use crate::{
    issued::{IssueError, Issued, Issuer},
    roots::{Roots, provider},
};

/// How istiod is reached, and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Istiod {
    /// `https://istiod.istio-system.svc:15012`; the host is the name in its certificate.
    pub address: Uri,
    /// A service account's token for the audience `istio-ca`; the kubelet renews it.
    pub token: PathBuf,
    /// PEM roots to recognise istiod by, and to trust besides those that it answers with.
    pub roots: PathBuf,
}

/// Asks istiod to sign.
pub struct IstiodIssuer {
    istiod: Istiod,
    /// The roots as they were when it was asked last.
    asked_with: Mutex<Option<Vec<u8>>>,
}

/// As long as Istio's agent asks for.
const LIFE: Duration = Duration::from_secs(24 * 3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the roots are looked at. They change once in years, but then in earnest.
const EVERY: Duration = Duration::from_secs(2);

impl IstiodIssuer {
    /// An issuer that has not asked yet.
    pub fn new(istiod: Istiod) -> Self {
        Self { istiod, asked_with: Mutex::new(None) }
    }

    async fn ask(&self, csr: String) -> Result<Issued, IssueError> {
        let roots = read("SCONCE_ISTIOD_ROOT", &self.istiod.roots)?;
        // Kept also where istiod does not answer: one try for each change.
        *self.asked_with.lock().unwrap_or_else(PoisonError::into_inner) = Some(roots.clone());
        let token = read("SCONCE_ISTIOD_TOKEN", &self.istiod.token)?;
        let channel = self.connect(&roots).await?;
        let answer = call(channel, csr, &token).await.map_err(|status| {
            IssueError(format!("istiod at {} refused: {}", self.istiod.address, status.message()))
        })?;
        issued(answer.cert_chain, &roots).ok_or_else(|| {
            IssueError(format!("istiod at {} answered with no certificate", self.istiod.address))
        })
    }

    async fn connect(&self, roots: &[u8]) -> Result<Channel, IssueError> {
        let Istiod { address, roots: file, .. } = &self.istiod;
        let tls = client_config(roots)
            .map_err(|error| IssueError(format!("SCONCE_ISTIOD_ROOT {}: {error}", file.display())))?;
        let dial = service_fn(move |uri: Uri| dial(Arc::clone(&tls), uri));
        let authority = address.authority().map_or("", |authority| authority.as_str());
        // As `http`, since TLS is the connector's: tonic has none of its own here.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"));
        let connected =
            async { endpoint?.connect_timeout(CONNECT_TIMEOUT).connect_with_connector(dial).await };
        connected.await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            IssueError(format!(
                "istiod at {address} cannot be reached: {}",
                cause.unwrap_or(error.to_string())
            ))
        })
    }
}

impl Issuer for IstiodIssuer {
    fn issue(&self, csr_pem: String) -> BoxFuture<'_, Result<Issued, IssueError>> {
        Box::pin(self.ask(csr_pem))
    }

    fn outdated(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                tokio::time::sleep(EVERY).await;
                let asked_with = self.asked_with.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // Unreadable is no news: asking would only fail.
                if fs::read(&self.istiod.roots).is_ok_and(|now| asked_with.as_ref() != Some(&now)) {
                    return;
                }
            }
        })
    }
}

fn read(variable: &str, path: &Path) -> Result<Vec<u8>, IssueError> {
    fs::read(path).map_err(|error| IssueError(format!("{variable} {}: {error}", path.display())))
}

/// TLS towards a server that has a DNS name and no SPIFFE id.
fn client_config(roots_pem: &[u8]) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Roots::from_pem(roots_pem)?.store())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

async fn dial(
    tls: Arc<ClientConfig>,
    uri: Uri,
) -> Result<TokioIo<TlsStream<TcpStream>>, Box<dyn std::error::Error + Send + Sync>> {
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(443));
    let tcp = TcpStream::connect((host.as_str(), port)).await?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from(host)?, tcp).await?;
    Ok(TokioIo::new(stream))
}

async fn call(channel: Channel, csr: String, token: &[u8]) -> Result<CertificateResponse, tonic::Status> {
    let mut request = tonic::Request::new(CertificateRequest {
        csr,
        validity_duration: i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX),
    });
    let bearer = [b"Bearer ", token.trim_ascii()].concat();
    let bearer = MetadataValue::try_from(bearer.as_slice())
        .map_err(|_| tonic::Status::invalid_argument("SCONCE_ISTIOD_TOKEN holds no token"))?;
    request.metadata_mut().insert("authorization", bearer);
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
    Ok(client.unary(request, path, codec).await?.into_inner())
}

/// What istiod gave: the last certificate is the root. Those of the file are trusted too,
/// since while roots rotate other pods have certificates of either.
fn issued(mut chain: Vec<String>, roots: &[u8]) -> Option<Issued> {
    // Not every one ends in a line break, and two PEM sections must not share a line.
    let joined =
        |parts: &[String]| parts.iter().map(|part| format!("{}\n", part.trim_end())).collect::<String>();
    let root = if chain.len() > 1 { chain.pop() } else { None };
    let roots = joined(&[root.unwrap_or_default(), String::from_utf8_lossy(roots).into_owned()]);
    (!chain.is_empty()).then(|| Issued { chain_pem: joined(&chain), roots_pem: roots })
}

#[cfg(test)]
mod tests;
