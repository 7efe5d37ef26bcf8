//! The request path, outermost layer first.

use std::{convert::Infallible, sync::Arc};

use ::http::{Request, Version, header};
use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use hyper::body::Incoming;
use sconce_identity::Principal;
use sconce_telemetry::names;
use tower::{
    Service, ServiceBuilder, ServiceExt as _, limit::GlobalConcurrencyLimitLayer, load_shed::LoadShedLayer,
};
use tower_http::catch_panic::CatchPanicLayer;

use super::{Config, ServeError, Server, grpc, http};
use crate::{engine::Pool, models::live::Live};

/// The service behind the inference port, for `sconce_identity::serve`.
pub fn stack(
    config: Config,
    live: Live,
    pool: Pool,
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    let (in_flight, body) = (config.max_in_flight, config.max_body_bytes);
    let server = Server { config: Arc::new(config), live, pool, ready };
    let layers = ServiceBuilder::new()
        // A panic in a handler is that request's 500, not the connection's end.
        .layer(CatchPanicLayer::custom(|_| {
            ServeError::Model("the server has a bug; its log has more".into()).into_response()
        }))
        // Counted before anything can refuse it.
        .layer(from_fn(count))
        // Who may not call takes no place from those who may.
        .layer(from_fn(authorise))
        // Refusals become replies here, so that nothing further out sees an error.
        .layer(axum::error_handling::HandleErrorLayer::new(async |_| ServeError::Overloaded))
        // Full means refused now, not queued.
        .layer(LoadShedLayer::new())
        // Bodies are held in memory: this times the body limit is the most they can take.
        .layer(GlobalConcurrencyLimitLayer::new(in_flight))
        .layer(DefaultBodyLimit::max(body));
    routes(server).layer(layers).map_request(|request: Request<Incoming>| request.map(Body::new))
}

fn routes(server: Server) -> Router {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(sconce_proto::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut grpc = tonic::service::Routes::new(grpc::service(server.clone()));
    match reflection {
        Ok(reflection) => grpc = grpc.add_service(reflection),
        Err(error) => tracing::error!(%error, "gRPC reflection is off: its descriptors are not valid"),
    }
    // tonic's router brings a fallback of its own, and there can be only one.
    grpc.into_axum_router().reset_fallback().merge(http::router(server)).fallback(unknown)
}

/// An unknown path, in the caller's protocol.
async fn unknown(request: Request<Body>) -> Response {
    if is_grpc(&request) {
        return tonic::Status::unimplemented(format!("{} is not served here", request.uri().path()))
            .into_http();
    }
    ServeError::NotFound("Not Found".into()).into_response()
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

async fn count(request: Request<Body>, next: Next) -> Response {
    metrics::gauge!(names::REQUESTS_IN_FLIGHT).increment(1.0);
    // Lowered by a guard, since a caller who leaves drops this future.
    let _lower = Lower;
    next.run(request).await
}

struct Lower;

impl Drop for Lower {
    fn drop(&mut self) {
        metrics::gauge!(names::REQUESTS_IN_FLIGHT).decrement(1.0);
    }
}

async fn authorise(request: Request<Body>, next: Next) -> Response {
    let refuse = |text: &str, request: &Request<Body>| {
        let error = ServeError::Denied(text.into());
        if is_grpc(request) { tonic::Status::from(error).into_http() } else { error.into_response() }
    };
    match request.extensions().get::<Principal>() {
        Some(Principal::Spiffe(_) | Principal::Loopback) => {}
        Some(Principal::Anonymous) | None => return refuse("a client certificate is needed", &request),
    }
    // A reply to gRPC over HTTP/1.1 has no place for its status, and would read as success.
    if is_grpc(&request) && request.version() < Version::HTTP_2 {
        return ServeError::Invalid("gRPC needs HTTP/2".into()).into_response();
    }
    next.run(request).await
}
