//! One port with two doors: TLS for everybody, plaintext for the pod itself.
//!
//! The first byte tells which door a connection is at (a TLS record begins with 0x16).
//! Whatever is behind the door is one HTTP service, for HTTP/1.1, HTTP/2 and gRPC alike.

mod entrance;

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

use self::entrance::{Entered, Http, enter};
use crate::{PeerAddr, Principal};

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
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        let (tcp, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was lost before it was accepted");
                // Out of file descriptors, most likely: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (doors, service, stopping) = (doors.clone(), service.clone(), stopping.clone());
        // Made here, not in the task: one made after the shutdown began would miss it.
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let _slot = slot;
            let entered = tokio::select! {
                entered = enter(tcp, peer, &doors) => entered,
                () = late(&stopping) => None,
            };
            let Some(Entered { stream, principal, http }) = entered else { return };
            let http = builder(http, &principal);
            let service = service.map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(principal.clone());
                request.extensions_mut().insert(PeerAddr(peer));
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

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The slot first: above the limit, connections wait in the kernel's queue.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, peer) = listener.accept().await?;
    Ok((tcp, peer, slot))
}

fn builder(speaks: Http, principal: &Principal) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    let idle = if *principal == Principal::Anonymous { UNKNOWN_IDLE } else { KNOWN_IDLE };
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
