//! The server that is measured: its address, how it is trusted, and a new connection to it.

use std::{net::IpAddr, path::Path, sync::Arc};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use sconce_identity::{Connector, PeerPolicy};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tower::Service;

use super::record::Failed;
use crate::{
    connection::{self, Callee},
    context::Credentials,
    failure::{Exit, Failure, chain},
};

/// Where requests go, and by which version of HTTP.
#[derive(Clone)]
pub(super) struct Target {
    /// As it was named.
    pub(super) address: String,
    /// Host and port, for the `Host` header.
    pub(super) authority: String,
    uri: Uri,
    security: Security,
    pub(super) http2: bool,
}

#[derive(Clone)]
enum Security {
    Plaintext,
    /// Judged by SPIFFE id.
    Spiffe(Connector),
    /// Judged by name.
    Named(TlsConnector, ServerName<'static>),
}

/// How the server is trusted.
pub(super) struct Trust<'a> {
    pub(super) credentials: Option<&'a Credentials>,
    /// Its name in its certificate, where that is what counts.
    pub(super) name: Option<&'a str>,
}

/// An open connection; it ends when dropped.
pub(super) struct Link {
    pub(super) sender: Sender,
    _driver: JoinSet<()>,
}

/// Where requests are handed over.
pub(super) enum Sender {
    /// One at a time.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// Many at a time, by clones.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Target {
    /// Reads certificates, and connects nowhere yet.
    ///
    /// # Errors
    /// Where the address is none, or what proves who we are is missing or unusable.
    pub(super) async fn new(address: &str, trust: Trust<'_>, http2: bool) -> Result<Self, Failure> {
        let invalid = || {
            Failure::usage(format!("{address:?} is no address of a server"))
                .hint("write it as https://host:8443, or http://host:8000 without TLS")
        };
        let uri: Uri = address.parse().map_err(|_| invalid())?;
        let authority = uri.authority().filter(|a| a.port().is_some()).ok_or_else(invalid)?.to_string();
        let security = match uri.scheme_str() {
            Some("http") => Security::Plaintext,
            Some("https") => secured(address, trust, http2).await?,
            _ => return Err(invalid()),
        };
        Ok(Self { address: address.to_owned(), authority, uri, security, http2 })
    }

    /// How it is called in results.
    pub(super) fn security(&self) -> &'static str {
        match self.security {
            Security::Plaintext => "plaintext",
            Security::Spiffe(_) => "mTLS",
            Security::Named(..) => "TLS",
        }
    }

    /// A new connection, ready for a request.
    pub(super) async fn open(&self) -> Result<Link, Failed> {
        match &self.security {
            Security::Plaintext => {
                let tcp = TcpStream::connect(self.authority.as_str()).await.map_err(unconnected)?;
                let _ = tcp.set_nodelay(true);
                self.over(TokioIo::new(tcp)).await
            }
            Security::Spiffe(connector) => {
                let io = connector.clone().call(self.uri.clone()).await;
                self.over(io.map_err(|error| failed("connect", &error))?).await
            }
            Security::Named(connector, name) => {
                let tcp = TcpStream::connect(self.authority.as_str()).await.map_err(unconnected)?;
                let _ = tcp.set_nodelay(true);
                let tls = connector.connect(name.clone(), tcp).await.map_err(unconnected)?;
                self.over(TokioIo::new(tls)).await
            }
        }
    }

    async fn over<I>(&self, io: I) -> Result<Link, Failed>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let mut driver = JoinSet::new();
        let sender = if self.http2 {
            let shaken = http2::Builder::new(TokioExecutor::new()).adaptive_window(true).handshake(io).await;
            let (sender, connection) = shaken.map_err(|error| failed("connect", &error))?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) =
                http1::handshake(io).await.map_err(|error| failed("connect", &error))?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Link { sender, _driver: driver })
    }
}

async fn secured(address: &str, trust: Trust<'_>, http2: bool) -> Result<Security, Failure> {
    let Some(credentials) = trust.credentials else {
        return Err(Failure::usage(format!("nothing says how to trust {address}"))
            .hint("give --ca, with --cert and --key where the server asks for a certificate"));
    };
    if let Some(name) = trust.name {
        let Credentials::Files { ca, certificate } = credentials else {
            return Err(Failure::usage("--server-name goes with --ca, not with --sds-socket"));
        };
        let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let tls = by_name(ca, certificate.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path())), alpn)?;
        return Ok(Security::Named(TlsConnector::from(Arc::new(tls)), server_name(name)?));
    }
    if matches!(credentials, Credentials::Files { certificate: None, .. }) {
        return Err(Failure::new(Exit::Denied, "sidecars know their callers by certificate, not by token")
            .hint("give --cert and --key; for a server outside of a trust domain, its --server-name"));
    }
    let tls = connection::tls(credentials, PeerPolicy::own_trust_domain()).await?;
    Ok(Security::Spiffe(if http2 { Connector::new(tls) } else { Connector::http1(tls) }))
}

fn server_name(name: &str) -> Result<ServerName<'static>, Failure> {
    let address = name.parse::<IpAddr>().ok().map(|ip| ServerName::IpAddress(ip.into()));
    address.map_or_else(
        || {
            ServerName::try_from(name.to_owned())
                .map_err(|_| Failure::usage(format!("{name:?} is no DNS name")))
        },
        Ok,
    )
}

/// TLS to a server whose certificate names it, as on the web.
fn by_name(ca: &Path, own: Option<(&Path, &Path)>, alpn: &[u8]) -> Result<ClientConfig, Failure> {
    let unusable = |file: &Path, why: &dyn std::error::Error| {
        Failure::failed(format!("{} cannot be used: {}", file.display(), chain(why)))
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(ca, &error))? {
        let root = root.map_err(|error| unusable(ca, &error))?;
        roots.add(root).map_err(|error| unusable(ca, &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let chain = chain.map_err(|error| unusable(cert, &error))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            builder.with_client_auth_cert(chain, private).map_err(|error| unusable(cert, &error))?
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

fn unconnected(error: std::io::Error) -> Failed {
    failed("connect", &error)
}

/// A failure of the connection, with every cause.
pub(super) fn failed(kind: &str, error: &(dyn std::error::Error + 'static)) -> Failed {
    Failed { kind: kind.to_owned(), text: chain(error) }
}

/// What to tell somebody whose server could not even be asked once.
pub(super) fn unreachable(target: &Target, failed: &Failed) -> Failure {
    if failed.text.contains("alert")
        || failed.text.contains("certificate")
        || failed.text.contains("refused by")
    {
        return Failure::new(
            Exit::Denied,
            format!("the server at {} and we do not trust each other: {}", target.address, failed.text),
        )
        .hint(match target.security {
            Security::Named(..) => "are --ca and --server-name right, and does it accept --cert and --key?",
            _ => "are --ca, --cert and --key of its trust domain? One outside of any needs its --server-name",
        });
    }
    Failure::unreachable("server", &target.address, &failed.text).hint(format!(
        "is one running there, and does it speak HTTP/{} {}? Name another with --server; a {} is listed by `sconce sidecars`",
        if target.http2 { "2" } else { "1.1" },
        if matches!(target.security, Security::Plaintext) { "without TLS" } else { "over TLS" },
        Callee::Sidecar.word(),
    ))
}
