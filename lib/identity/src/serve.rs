//! One port with two doors: TLS for everybody, plaintext for the pod itself.
//!
//! The first byte tells which door a connection is at (a TLS record begins with 0x16).
//! Whatever is behind the door is one HTTP service, for HTTP/1.1, HTTP/2 and gRPC alike.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::{PeerAddr, Principal, Reason, Refusal, SpiffeId, principal::is_this_pod, refusal, svid::Svid};

/// What a port lets in.
#[derive(Clone)]
pub struct Doors {
    /// From [`Identity::server_config`](crate::Identity::server_config).
    pub tls: Arc<ServerConfig>,
    /// Whether plaintext from this machine's loopback is answered.
    pub plaintext_loopback: bool,
    /// How long a connection may take until it is at the HTTP service.
    pub handshake_timeout: Duration,
    /// How many connections may be open.
    pub max_connections: usize,
}

/// Larger than a typical tensor, so that one request does not wait for a window update.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_STREAMS: u32 = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const TLS_HANDSHAKE: u8 = 0x16;

impl Doors {
    /// TLS only, ten seconds to get in, ten thousand connections.
    pub fn tls(tls: Arc<ServerConfig>) -> Self {
        Self {
            tls,
            plaintext_loopback: false,
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
        }
    }
}

/// Answers connections until `stopping` fires, then finishes the requests in flight.
///
/// Each request carries its [`Principal`] and [`PeerAddr`] as extensions.
pub async fn serve<S, B>(listener: TcpListener, doors: Doors, service: S, stopping: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(doors.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stopping.cancelled() => break,
        };
        // Results of connections that have ended are not kept.
        while connections.try_join_next().is_some() {}
        let (tcp, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was lost before it was accepted");
                // Out of file descriptors, most likely: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (doors, service, watcher) = (doors.clone(), service.clone(), graceful.watcher());
        connections.spawn(async move {
            let _slot = slot;
            let Some((stream, principal)) = enter(tcp, peer, &doors).await else { return };
            let service = service.map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(principal.clone());
                request.extensions_mut().insert(PeerAddr(peer));
                request
            });
            let http = http();
            let connection =
                http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, %error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The slot first: above the limit, connections wait in the kernel's queue.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, peer) = listener.accept().await?;
    Ok((tcp, peer, slot))
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30));
    http
}

/// A connection that is in, by either door.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Lets a connection in, or logs why not.
async fn enter(tcp: TcpStream, peer: SocketAddr, doors: &Doors) -> Option<(Box<dyn Stream>, Principal)> {
    let _ = tcp.set_nodelay(true);
    match tokio::time::timeout(doors.handshake_timeout, choose(tcp, peer, doors)).await {
        Ok(Ok(entered)) => entered,
        Ok(Err(refusal)) => {
            refusal.log(peer);
            None
        }
        Err(_) => {
            Refusal::new(Reason::TooSlow, format!("over {} s", doors.handshake_timeout.as_secs())).log(peer);
            None
        }
    }
}

async fn choose(
    tcp: TcpStream,
    peer: SocketAddr,
    doors: &Doors,
) -> Result<Option<(Box<dyn Stream>, Principal)>, Refusal> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        // A probe of the port, not a caller.
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) => {}
    }
    if first[0] == TLS_HANDSHAKE {
        let (stream, principal) = tls(tcp, doors).await?;
        return Ok(Some((Box::new(stream), principal)));
    }
    if doors.plaintext_loopback && is_this_pod(peer.ip()) {
        return Ok(Some((Box::new(tcp), Principal::Loopback)));
    }
    turn_away(tcp).await;
    Err(Refusal::new(Reason::Plaintext, "this port speaks TLS"))
}

async fn tls(tcp: TcpStream, doors: &Doors) -> Result<(TlsStream<TcpStream>, Principal), Refusal> {
    let (accepted, noted) = refusal::observe(TlsAcceptor::from(Arc::clone(&doors.tls)).accept(tcp)).await;
    let stream = accepted.map_err(|error| noted.unwrap_or_else(|| Refusal::of_handshake(&error)))?;
    let principal = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        Some(leaf) => Principal::Spiffe(proven(leaf)?),
        None => Principal::Anonymous,
    };
    Ok((stream, principal))
}

/// The id in a certificate that the verifier has accepted.
fn proven(leaf: &[u8]) -> Result<SpiffeId, Refusal> {
    Svid::from_der(leaf).map(|svid| svid.id).map_err(|rule| Refusal::not_svid(leaf, &rule))
}

/// Tells a plaintext caller what it did wrong, which a closed connection would not.
async fn turn_away(mut tcp: TcpStream) {
    let body = "{\"error\":\"this port speaks TLS: call it with https and a client certificate\"}";
    let reply = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = tcp.write_all(reply.as_bytes()).await;
    let _ = tcp.shutdown().await;
}
