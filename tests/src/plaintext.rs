//! Callers without TLS: a pod's own processes, and a mesh's Envoy in front of it.

use std::{io, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// How a server is reached.
#[derive(Clone, Debug)]
pub enum From {
    /// By a process of the pod.
    Pod(SocketAddr),
    /// By the pod's Envoy, with what other pods sent.
    Envoy(SocketAddr),
    /// By a process of the pod, through a Unix socket.
    Socket(PathBuf),
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl From {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn connect(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Pod(address) => Box::new(TcpStream::connect(address).await?),
            Self::Envoy(address) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(([127, 0, 0, 6], 0).into())?;
                Box::new(socket.connect(address).await?)
            }
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    /// One exchange on a connection of its own, by HTTP/1.1, or by HTTP/2 where the request
    /// says so.
    ///
    /// # Panics
    /// Where there is no answer.
    pub async fn exchange(self, mut request: Request<Bytes>) -> Response<Bytes> {
        let stream = TokioIo::new(self.connect().await.expect("somebody listens"));
        let response = if request.version() == http::Version::HTTP_2 {
            *request.uri_mut() = format!("http://pod{}", request.uri().path()).parse().expect("a uri");
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request.map(Full::new)).await
        } else {
            request.headers_mut().insert("host", http::HeaderValue::from_static("pod"));
            let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request.map(Full::new)).await
        };
        let (parts, body) = response.expect("an answer").into_parts();
        Response::from_parts(parts, body.collect().await.expect("its body").to_bytes())
    }

    /// A connection for gRPC.
    pub fn channel(self) -> Channel {
        let dial = tower::service_fn(move |_: Uri| {
            let connecting = self.clone().connect();
            async move { connecting.await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://pod").connect_with_connector_lazy(dial)
    }
}
