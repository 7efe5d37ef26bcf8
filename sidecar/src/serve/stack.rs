//! The whole path of a request.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, Request, Version, header},
    middleware::{self, Next},
    response::Response,
};
use futures::FutureExt as _;
use sconce_catalog::Lane;
use sconce_identity::{Principal, lingering};
use sconce_lifecycle::Stopping;
use tokio::sync::Semaphore;
use tower::{BoxError, ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_http::trace::TraceLayer;

use super::{
    Config, Parts, Ready, Run, Server,
    authorise::authorise,
    deadline,
    error::ServeError,
    grpc, http,
    measure::{self, Protocol},
    pause::limited,
    shared_memory::Regions,
};
use crate::models::live::Live;

/// Everything that answers requests, as one service for every connection.
///
/// Expects each request to carry its [`Principal`], and the [`Lane`] it came by where that is
/// not the live one; one without a principal is refused.
pub fn stack(config: Config, live: Live, runner: impl Run, ready: Ready) -> Router {
    let (max_body, max_in_flight) = (config.max_body_bytes, config.max_in_flight);
    let (longest_pause, leaving) = (config.longest_pause, config.leaving.clone());
    let going = leaving.clone();
    // Requests of a stream take theirs one by one: the stream itself is answered when it begins.
    let places = Arc::new(Semaphore::new(max_in_flight));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&places));
    let (runner, regions) = (Box::new(runner), Regions::default());
    let server = Server(Arc::new(Parts { config, live, runner, regions, ready, places }));
    Router::new()
        .merge(http::routes(server.clone()))
        .merge(grpc::routes(server))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(
            ServiceBuilder::new()
                // A bug in one request must not close a connection that others share.
                .layer(middleware::from_fn(contain))
                // A connection that is about to be closed should not be used again.
                .layer(middleware::from_fn(move |request, next| take_leave(leaving.clone(), request, next)))
                // Who sends half a request and no more would hold a place for as long as it likes.
                .layer(middleware::from_fn(move |request, next| keep_coming(longest_pause, request, next)))
                // Whatever is logged below says which request it belongs to.
                .layer(TraceLayer::new_for_http().make_span_with(span))
                // Before anything is spent on the request: strangers cost nothing.
                .layer(middleware::from_fn(authorise))
                // Its time runs from here: reading the body takes part of it.
                .map_request(deadline::note)
                // What says itself that it is too large is not waited for.
                .layer(middleware::from_fn(move |request, next| declared(max_body, request, next)))
                // An excess request is refused now rather than answered too late.
                .layer(HandleErrorLayer::new(move |headers, lane, _: BoxError| {
                    shed(going.clone(), headers, lane)
                }))
                .load_shed()
                .layer(limit)
                // For HTTP, on the way in. gRPC has the same limit in its decoder.
                .layer(DefaultBodyLimit::max(max_body)),
        )
}

fn span<B>(request: &Request<B>) -> tracing::Span {
    let caller = request.extensions().get::<Principal>().map(tracing::field::display);
    let lane = measure::lane(request.extensions()).as_str();
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), lane, caller)
}

async fn declared(limit: usize, request: Request<Body>, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        let (protocol, error) = (Protocol::of(request.headers()), ServeError::TooLarge { limit });
        measure::refused(protocol, measure::lane(request.extensions()), &error);
        return error.reply(protocol);
    }
    next.run(request).await
}

/// HTTP/1 clients keep a connection until they are told, and one that is closed just as they
/// use it again is a failed request. HTTP/2 has a frame for it, which the connection sends.
async fn take_leave(leaving: Stopping, request: Request<Body>, next: Next) -> Response {
    let tells = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if tells && leaving.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn keep_coming(longest_pause: Duration, request: Request<Body>, next: Next) -> Response {
    next.run(limited(longest_pause, lingering(request).map(Body::new))).await
}

async fn shed(leaving: Stopping, headers: HeaderMap, lane: Option<Extension<Lane>>) -> Response {
    let (protocol, lane) = (Protocol::of(&headers), lane.map_or(Lane::Live, |Extension(lane)| lane));
    // Nobody knows how long those will take; and who leaves is not worth coming back to.
    let error = if leaving.is_cancelled() { ServeError::Stopping } else { ServeError::Overloaded };
    measure::refused(protocol, lane, &error);
    error.reply(protocol)
}

async fn unknown_path(headers: HeaderMap) -> Response {
    ServeError::UnknownPath.reply(Protocol::of(&headers))
}

async fn wrong_method() -> ServeError {
    ServeError::WrongMethod
}

/// Turns a panic into a refusal. Its message went to the log through the panic hook; it is
/// not the caller's business.
async fn contain(request: Request<Body>, next: Next) -> Response {
    let (protocol, lane) = (Protocol::of(request.headers()), measure::lane(request.extensions()));
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        measure::refused(protocol, lane, &ServeError::Panicked);
        ServeError::Panicked.reply(protocol)
    })
}
