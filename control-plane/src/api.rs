//! What others may ask: gRPC for tools and sidecars, REST for everybody else.

mod authority;
mod error;
mod events;
mod pulls;
mod registry;
mod rest;
mod sidecars;
mod tokens;
mod wire;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{Request, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Incoming;
use sconce_catalog::{Model, ModelName};
use sconce_identity::{Principal, Refusal, lingering};
use sconce_lifecycle::Stopping;
use sconce_proto::v1::{
    SidecarStatus, certificate_authority_server::CertificateAuthorityServer, registry_server::RegistryServer,
    sidecar_control_server::SidecarControlServer,
};
use tower::{Service, ServiceExt as _};
use tower_http::timeout::TimeoutBody;

pub(crate) use self::error::ApiError;
use crate::{
    access::Access,
    fleet::Fleet,
    issuing::Issuing,
    proof::{self, Progress},
    publish::Publications,
    pull::Pulls,
    store::Store,
};

/// What every service reads.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) access: Access,
    pub(crate) fleet: Fleet,
    /// The built-in CA, where identities come from it.
    pub(crate) issuing: Option<Issuing>,
    /// What the mesh has been given.
    pub(crate) publications: Publications,
    pub(crate) pulls: Pulls,
    pub(crate) stopping: Stopping,
}

impl Api {
    /// How far a model's split has come on these sidecars, which serve it.
    fn progress(&self, name: &ModelName, model: &Model, sidecars: &[SidecarStatus]) -> Progress {
        proof::judge(&self.fleet, &self.publications, (name, model), sidecars)
    }

    /// The built-in CA, or who is asked instead.
    fn issuing(&self) -> Result<&Issuing, ApiError> {
        self.issuing.as_ref().ok_or_else(|| {
            ApiError::Failed(
                "this control plane issues no certificates: identities come from its mesh (SCONCE_IDENTITY)"
                    .into(),
            )
        })
    }
}

/// A manifest of the largest artifact.
const MAX_MESSAGE: usize = 64 << 20;
/// A report of very many models, or the digests of a batch of chunks.
const MAX_REPORT: usize = 4 << 20;
/// How long a stranger may pause in the middle of a body.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a caller may send whom nobody knows: a request for a certificate, and little more.
const MAX_FROM_STRANGERS: usize = 64 << 10;

/// The service behind the API's port, for `sconce_identity::serve`.
pub(crate) fn service(
    api: Api,
) -> impl Service<Request<Incoming>, Response = Response, Error = std::convert::Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let registry =
        RegistryServer::new(registry::Registry(api.clone())).max_decoding_message_size(MAX_MESSAGE);
    let sidecars =
        SidecarControlServer::new(sidecars::Sidecars(api.clone())).max_decoding_message_size(MAX_REPORT);
    let (rest, doorkeeper) = (rest::router(api.clone()), api.clone());
    let authority = CertificateAuthorityServer::new(authority::Authority(api));
    let mut routes = tonic::service::Routes::new(registry).add_service(sidecars).add_service(authority);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(sconce_proto::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "gRPC reflection is off: its descriptors are not valid"),
    }
    let router: Router = routes
        .into_axum_router()
        .reset_fallback()
        .merge(rest)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(doorkeeper, keep_short))
        .layer(middleware::from_fn(accepted));
    router.map_request(|request: Request<Incoming>| lingering(request).map(Body::new))
}

/// Bodies are read before a handler asks who sends them, and a certificate is optional here:
/// without this, anybody could fill the memory with megabytes that are then refused.
async fn keep_short(State(api): State<Api>, request: Request<Body>, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let known = api.access.caller(request.extensions().get::<Principal>(), bearer).await.is_ok();
    let short = |body| Body::new(TimeoutBody::new(LONGEST_PAUSE, Limited::new(body, MAX_FROM_STRANGERS)));
    next.run(if known { request } else { request.map(short) }).await
}

/// Turns away what the door did not accept: where this process is nobody itself, a token must
/// not count either.
async fn accepted(request: Request<Body>, next: Next) -> Response {
    if request.extensions().get::<Refusal>().is_none() {
        return next.run(request).await;
    }
    let error = "this server has no certificate of its own, not yet or no longer";
    if speaks_grpc(&request) {
        return tonic::Status::unavailable(error).into_http();
    }
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(serde_json::json!({ "error": error }))).into_response()
}

fn speaks_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

async fn unknown(request: Request<Body>) -> Response {
    if speaks_grpc(&request) {
        return tonic::Status::unimplemented(format!("{} is not served here", request.uri().path()))
            .into_http();
    }
    (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({ "error": "Not Found" }))).into_response()
}

async fn wrong_method(method: http::Method) -> Response {
    let error = format!("this path does not take {method}; the API is described at /api/v1/openapi.json");
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(serde_json::json!({ "error": error }))).into_response()
}
