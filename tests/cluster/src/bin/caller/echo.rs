//! A server that does nothing: what a request through the mesh costs without a model.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// About as long as the example's answer to one row.
const ANSWER: &str = r#"{"model_name":"digits","model_version":"echo","outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,10],"data":[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1]}]}"#;

pub(crate) async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    // The first process of a container dies of no signal that it does not ask for.
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let (tcp, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
        };
        tcp.set_nodelay(true)?;
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A caller that leaves is no news.
            let _ = builder.serve_connection(TokioIo::new(tcp), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // Read to its end, as a model's input is.
    let _ = request.into_body().collect().await;
    let response = Response::builder().header("x-sconce-version", "echo");
    Ok(response.header("content-type", "application/json").body(Full::from(ANSWER)).expect("valid headers"))
}
