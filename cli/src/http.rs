//! Plain HTTP/1.1, one connection at a time: to a sidecar's inference port and to the
//! admin ports of what `sconce up` runs.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};
use tower::Service;

use crate::{
    connection::{self, Callee},
    context::{Access, Credentials},
    failure::{Exit, Failure, chain},
};

const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An open connection to a sidecar.
pub(crate) struct Peer {
    address: String,
    authority: String,
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection, and knows why it ended.
    connection: JoinSet<hyper::Result<()>>,
}

impl Peer {
    /// Connects to `https://host:port`, or without TLS to `http://host:port`.
    pub(crate) async fn connect(access: &Access, address: &str) -> Result<Self, Failure> {
        let invalid = || {
            Failure::usage(format!("{address:?} is no address of a sidecar"))
                .hint("write it as https://host:8443")
        };
        let uri: Uri = address.parse().map_err(|_| invalid())?;
        let authority = uri.authority().filter(|a| a.port().is_some()).ok_or_else(invalid)?.to_string();
        match uri.scheme_str() {
            Some("https") if matches!(access.identity, Credentials::Files { certificate: None, .. }) => {
                Err(Failure::new(Exit::Denied, "sidecars know their callers by certificate, not by token")
                    .hint("give --cert and --key"))
            }
            Some("https") => {
                let mut connector = connection::connector(access, Callee::Sidecar).await?;
                let io = connector.call(uri).await;
                let io = io.map_err(|error| connection::failure(Callee::Sidecar, address, &error))?;
                Self::over(io, address, authority).await
            }
            Some("http") => {
                let tcp = TcpStream::connect(&authority).await.map_err(|error| {
                    Failure::unreachable("sidecar", address, error)
                        .hint("see `sconce sidecars`, and name one with --sidecar")
                })?;
                Self::over(TokioIo::new(tcp), address, authority).await
            }
            _ => Err(invalid()),
        }
    }

    async fn over<I>(io: I, address: &str, authority: String) -> Result<Self, Failure>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(io).await.map_err(|error| broken(address, &error))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { address: address.to_owned(), authority, sender, connection: driver })
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let host = self.authority.parse().map_err(|_| Failure::usage("the address is no host name"))?;
        request.headers_mut().insert(http::header::HOST, host);
        let (parts, body) = match self.sender.send_request(request).await {
            Ok(response) => response.into_parts(),
            Err(error) => return Err(self.why(error).await),
        };
        match body.collect().await {
            Ok(body) => Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }),
            Err(error) => Err(self.why(error).await),
        }
    }

    /// What ended the connection explains a request that was never sent.
    async fn why(&mut self, error: hyper::Error) -> Failure {
        let ended = if error.is_canceled() { self.connection.join_next().await } else { None };
        match ended {
            Some(Ok(Err(cause))) => broken(&self.address, &cause),
            _ => broken(&self.address, &error),
        }
    }
}

fn broken(address: &str, error: &hyper::Error) -> Failure {
    let cause = chain(error);
    if cause.contains("alert") {
        // In TLS 1.3 a refused client learns of it only with its first request.
        return Failure::new(
            Exit::Denied,
            format!("the sidecar at {address} refused our certificate: {cause}"),
        )
        .hint("are --cert and --key of its trust domain, and may this caller ask it (SCONCE_CALLERS)?");
    }
    Failure::unreachable("sidecar", address, cause)
}

/// Asks an admin port of this machine.
pub(crate) async fn admin(address: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
    let asking = async {
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            handshake(TokioIo::new(tcp)).await.map_err(|error| error.to_string())?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let request = Request::get(path).header(http::header::HOST, address.to_string());
        let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
        let (parts, body) = sender.send_request(request).await.map_err(|e| e.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((parts.status, String::from_utf8_lossy(&body).trim().to_owned()))
    };
    tokio::time::timeout(ADMIN_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {} s", ADMIN_TIMEOUT.as_secs())))
}
