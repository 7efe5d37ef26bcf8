//! The least that a server can do: read a request, and answer with bytes that it has already.

use std::{convert::Infallible, future::Ready, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sconce_proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, server::Grpc};
use tonic_prost::ProstCodec;

use crate::{direct::Direct, models::Model};

/// What it answers with.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes.
    Http(Response<Bytes>),
    /// These bytes, once the model has run on this very thread.
    Run(Response<Bytes>, Arc<(Direct, Model)>),
    /// This message, through tonic's codec.
    Grpc(Arc<ModelInferResponse>),
}

/// Starts a server, of TLS where it is given.
pub(crate) async fn serve(answer: Answer, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(connection(answer.clone(), tls.clone(), tcp));
        }
    });
    address
}

async fn connection(answer: Answer, tls: Option<TlsAcceptor>, tcp: TcpStream) {
    tcp.set_nodelay(true).expect("a socket");
    match tls {
        None => speak(answer, tcp).await,
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => speak(answer, stream).await,
            Err(error) => eprintln!("no TLS: {error}"),
        },
    }
}

/// A caller that leaves is no news.
async fn speak(answer: Answer, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let io = TokioIo::new(stream);
    let _ = match answer {
        Answer::Grpc(message) => {
            let service = service_fn(move |request| grpc(Arc::clone(&message), request));
            http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        }
        answer => {
            let service = service_fn(move |request| http(answer.clone(), request));
            http1::Builder::new().serve_connection(io, service).await
        }
    };
}

async fn http(answer: Answer, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    std::hint::black_box(body);
    match answer {
        Answer::Http(reply) => Ok(reply.map(Full::new)),
        Answer::Run(reply, served) => {
            let (direct, model) = &*served;
            std::hint::black_box(direct.once(model.tensor(1)));
            Ok(reply.map(Full::new))
        }
        Answer::Grpc(_) => unreachable!("it has a connection of its own"),
    }
}

#[derive(Clone)]
struct Unary(Arc<ModelInferResponse>);

impl tonic::server::UnaryService<ModelInferRequest> for Unary {
    type Response = ModelInferResponse;
    type Future = Ready<Result<tonic::Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        std::hint::black_box(request);
        std::future::ready(Ok(tonic::Response::new((*self.0).clone())))
    }
}

async fn grpc(
    message: Arc<ModelInferResponse>,
    request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    let codec = ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
    Ok(Grpc::new(codec).unary(Unary(message), request).await)
}
