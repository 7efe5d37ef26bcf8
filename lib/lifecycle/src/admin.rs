//! The admin port: alive, ready, metrics.
//!
//! Plain HTTP on an address of its own, so that a probe or a scraper needs no
//! identity and never queues behind predictions.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::{Readiness, Stopping};

/// Renders the metrics in Prometheus' text form.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: Render,
    stopping: Stopping,
}

/// Answers `/livez`, `/readyz` and `/metrics`, for ever: spawn it with
/// [`Tasks::spawn_through_drain`](crate::Tasks::spawn_through_drain).
///
/// `/readyz` is 503 until every guard is dropped that holds readiness back, and again once
/// `stopping` has fired, which should be the token that fires first, of
/// [`Tasks::leaving`](crate::Tasks::leaving); it names what is pending, a line each.
pub async fn admin(listener: TcpListener, readiness: Readiness, metrics: Render, stopping: Stopping) {
    let state = Admin { readiness, metrics, stopping };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(state);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let waiting = admin.readiness.pending().into_iter().map(|name| format!("waiting for {name}\n"));
    if admin.readiness.is_ready() {
        (StatusCode::OK, format!("ok\n{}", waiting.collect::<String>()))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting.collect())
    }
}

async fn render(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (admin.metrics)())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("the admin port listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("answered");
        reply
    }

    #[tokio::test]
    async fn readyz_names_what_is_pending_and_turns_off_when_stopping() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (readiness, stopping) = (Readiness::default(), Stopping::new());
        let (identity, notices) = (readiness.guard("identity"), readiness.clone());
        let server = admin(listener, readiness, Arc::new(|| "sconce_up 1\n".to_owned()), stopping.clone());
        let checks = async {
            let waiting = get(address, "/readyz").await;
            assert!(
                waiting.starts_with("HTTP/1.1 503") && waiting.contains("waiting for identity"),
                "{waiting}"
            );
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/metrics").await.ends_with("sconce_up 1\n"));
            let models = notices.notice("models");
            drop(identity);
            let ready = get(address, "/readyz").await;
            assert!(
                ready.starts_with("HTTP/1.1 200") && ready.ends_with("ok\nwaiting for models\n"),
                "{ready}"
            );
            drop(models);
            assert!(get(address, "/readyz").await.ends_with("\r\n\r\nok\n"));
            stopping.cancel();
            assert!(get(address, "/readyz").await.contains("stopping"));
        };
        tokio::select! {
            () = server => panic!("the admin port ended"),
            () = checks => {}
        }
    }
}
