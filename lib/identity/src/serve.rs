//! One port with two doors: TLS for everybody, plaintext for the pod itself and its Envoy.
//!
//! The first byte tells which door a connection is at (a TLS record begins with 0x16).
//! Plaintext is the pod's own from loopback or a Unix socket, and other pods' from the
//! address where Envoy hands them over. Whatever is behind the doors is one HTTP service,
//! for HTTP/1.1, HTTP/2 and gRPC alike.

mod caller;
mod entrance;
mod socket;

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
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

pub use self::socket::LocalSocket;
use self::{
    entrance::{Entered, Http, enter},
    socket::LocalDoor,
};
use crate::{Identity, PeerAddr, PeerPolicy};

/// What a port lets in.
#[derive(Clone)]
pub struct Doors {
    /// From [`Identity::server_config`](crate::Identity::server_config).
    pub tls: Arc<ServerConfig>,
    /// Where it is given, requests are answered only while it has a certificate, by
    /// whatever door they came.
    pub identity: Option<Identity>,
    /// Whether plaintext from this machine's loopback is answered, as the pod's own.
    pub plaintext_loopback: bool,
    /// Whose plaintext is answered that a mesh's Envoy hands over; nobody's where none is
    /// given, or no identity.
    pub plaintext_mesh: Option<PeerPolicy>,
    /// How long a connection may take until it is at the HTTP service.
    pub handshake_timeout: Duration,
    /// How many connections may be open.
    pub max_connections: usize,
}

/// Larger than a typical tensor, so that one request does not wait for a window update.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_STREAMS: u32 = 1024;
/// How long a connection may take to get in.
const HANDSHAKE: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 10_000;
const LAST_ENTRY: Duration = Duration::from_secs(1);
/// How long an HTTP/1 connection of somebody unknown may be idle or take over a header.
const UNKNOWN_IDLE: Duration = Duration::from_secs(30);
/// The same for somebody known. Longer than a client's pool keeps connections (Envoy: an
/// hour): one that we closed just as it was used again would be a failed request.
const KNOWN_IDLE: Duration = Duration::from_secs(65 * 60);

impl Doors {
    /// TLS only, ten seconds to get in, ten thousand connections.
    pub fn tls(tls: Arc<ServerConfig>) -> Self {
        Self {
            tls,
            identity: None,
            plaintext_loopback: false,
            plaintext_mesh: None,
            handshake_timeout: HANDSHAKE,
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// Answers connections until `stopping` fires, then finishes the requests in flight.
///
/// Each request carries its [`Principal`](crate::Principal) and [`PeerAddr`] as extensions;
/// one whose caller is not accepted carries the [`Refusal`](crate::Refusal) in place of a
/// principal.
pub async fn serve<S, B>(listener: TcpListener, doors: Doors, service: S, stopping: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    answer(listener, doors, service, stopping).await;
}

/// Answers processes of this pod on a Unix socket, as [`serve`] does: each is
/// [`Principal::Loopback`](crate::Principal::Loopback) while `identity` has a certificate.
/// The socket's file is gone when this returns.
pub async fn serve_local<S, B>(
    socket: LocalSocket,
    identity: Identity,
    service: S,
    stopping: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    answer(socket, LocalDoor(identity), service, stopping).await;
}

/// How connections come in.
trait Entrance: Clone + Send + 'static {
    /// Where they come in.
    type Listener: Send;
    /// A connection that is at the door.
    type Socket: Send + 'static;

    /// How many may be open.
    fn max_connections(&self) -> usize;

    fn accept(listener: &Self::Listener)
    -> impl Future<Output = io::Result<(Self::Socket, PeerAddr)>> + Send;

    /// Lets a connection in; returns nothing once it has been turned away.
    fn enter(&self, socket: Self::Socket, peer: PeerAddr) -> impl Future<Output = Option<Entered>> + Send;
}

impl Entrance for Doors {
    type Listener = TcpListener;
    type Socket = (TcpStream, SocketAddr);

    fn max_connections(&self) -> usize {
        self.max_connections
    }

    async fn accept(listener: &TcpListener) -> io::Result<(Self::Socket, PeerAddr)> {
        let (tcp, address) = listener.accept().await?;
        Ok(((tcp, address), PeerAddr::Tcp(address)))
    }

    async fn enter(&self, (tcp, address): Self::Socket, _: PeerAddr) -> Option<Entered> {
        enter(tcp, address, self).await
    }
}

async fn answer<E, S, B>(listener: E::Listener, entrance: E, service: S, stopping: CancellationToken)
where
    E: Entrance,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(entrance.max_connections()));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept::<E>(&listener, &slots) => accepted,
            () = stopping.cancelled() => break,
        };
        // Results of connections that have ended are not kept.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        let (socket, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was lost before it was accepted");
                // Out of file descriptors, most likely: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (entrance, service, stopping) = (entrance.clone(), service.clone(), stopping.clone());
        // Made here, not in the task: one made after the shutdown began would miss it.
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let _slot = slot;
            let entered = tokio::select! {
                entered = entrance.enter(socket, peer) => entered,
                () = late(&stopping) => None,
            };
            let Some(Entered { stream, caller, http }) = entered else { return };
            // The HTTP library clones the service for every request.
            let (http, caller) = (builder(http, caller.is_known()), Arc::new(caller));
            let service = service.map_request(move |mut request: Request<Incoming>| {
                caller.mark(&mut request, peer);
                request
            });
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, %error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// A little after the stop began. By their own clock, those who are entering just then may
/// have sent a request already; those who only hold the port open are not waited for.
async fn late(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(LAST_ENTRY).await;
}

/// A handler that panics ends its connection alone, but must not do so silently.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

async fn accept<E: Entrance>(
    listener: &E::Listener,
    slots: &Arc<Semaphore>,
) -> io::Result<(E::Socket, PeerAddr, OwnedSemaphorePermit)> {
    // The slot first: above the limit, connections wait in the kernel's queue.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, peer) = E::accept(listener).await?;
    Ok((socket, peer, slot))
}

fn builder(speaks: Http, known: bool) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let idle = if known { KNOWN_IDLE } else { UNKNOWN_IDLE };
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(30));
    match speaks {
        Http::One => http.http1_only(),
        Http::Two => http.http2_only(),
        // The first bytes tell. Only for peers that are known: there is no limit to how
        // long they may take.
        Http::Either => http,
    }
}

#[cfg(test)]
mod tests;
