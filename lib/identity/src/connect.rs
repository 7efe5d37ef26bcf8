//! The client's side of a connection: TCP, then TLS judged by SPIFFE id.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection as HyperConnection},
    rt::TokioIo,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Reason, Refusal, refusal};

/// Opens mTLS connections, for tonic's `connect_with_connector` and for hyper's clients.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
}

/// One open connection.
#[derive(Debug)]
pub struct Connection(TlsStream<TcpStream>);

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address says too little.
    #[error("the address {0:?} names no host and port")]
    Address(String),
    /// Nobody answers there.
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers who is not accepted, or does not accept us.
    #[error("the connection to {address} was refused: {refusal}")]
    Refused {
        /// Host and port.
        address: String,
        /// By which side, and why.
        refusal: Refusal,
    },
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Connector {
    /// Connects with this TLS, offering HTTP/2 only: what gRPC needs.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self::with_protocols(tls, &[b"h2"])
    }

    /// Connects with this TLS, offering HTTP/2 and HTTP/1.1: for clients that speak either.
    pub fn http(tls: Arc<ClientConfig>) -> Self {
        Self::with_protocols(tls, &[b"h2", b"http/1.1"])
    }

    /// Connects with this TLS, offering HTTP/1.1 only.
    pub fn http1(tls: Arc<ClientConfig>) -> Self {
        Self::with_protocols(tls, &[b"http/1.1"])
    }

    fn with_protocols(tls: Arc<ClientConfig>, protocols: &[&[u8]]) -> Self {
        let mut tls = ClientConfig::clone(&tls);
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { tls: Arc::new(tls) }
    }

    async fn connect(self, uri: Uri) -> Result<Connection, ConnectError> {
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(ConnectError::Address(uri.to_string()));
        };
        // An IPv6 host comes in brackets, which the resolver does not know.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = format!("{host}:{port}");
        let tcp = within(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
        let tcp = tcp.map_err(|source| ConnectError::Unreachable { address: address.clone(), source })?;
        // Requests are small and waited for: Nagle would only add its delay.
        let _ = tcp.set_nodelay(true);
        let refused = |refusal| ConnectError::Refused { address: address.clone(), refusal };
        // The name is a form that TLS asks for; the peer is judged by its SPIFFE id.
        let name = ServerName::try_from("sconce.invalid").expect("it is a valid DNS name");
        let handshake = TlsConnector::from(self.tls).connect(name, tcp);
        let (stream, noted) = refusal::observe(within(HANDSHAKE_TIMEOUT, handshake)).await;
        match stream {
            Ok(stream) => Ok(Connection(stream)),
            Err(error) => Err(refused(noted.unwrap_or_else(|| Refusal::of_handshake(&error)))),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", limit.as_secs()))),
    }
}

impl ConnectError {
    /// Why the other side or we refused, where one did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.reason()),
            Self::Address(_) | Self::Unreachable { .. } => None,
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl HyperConnection for Connection {
    fn connected(&self) -> Connected {
        let h2 = self.0.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}
