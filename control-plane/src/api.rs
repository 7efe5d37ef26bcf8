//! What others may ask: gRPC for tools and sidecars, REST for everybody else.

mod authority;
mod error;
mod events;
mod registry;
mod rest;
mod sidecars;
mod tokens;
mod wire;

use axum::{
    Router,
    body::Body,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use sconce_identity::Refusal;
use sconce_lifecycle::Stopping;
use sconce_proto::v1::{
    certificate_authority_server::CertificateAuthorityServer, registry_server::RegistryServer,
    sidecar_control_server::SidecarControlServer,
};
use tower::{Service, ServiceExt as _};

pub(crate) use self::error::ApiError;
use crate::{access::Access, fleet::Fleet, issuing::Issuing, store::Store};

/// What every service reads.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) access: Access,
    pub(crate) fleet: Fleet,
    /// The built-in CA, where identities come from it.
    pub(crate) issuing: Option<Issuing>,
    pub(crate) stopping: Stopping,
}

impl Api {
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
        SidecarControlServer::new(sidecars::Sidecars(api.clone())).max_decoding_message_size(MAX_MESSAGE);
    let rest = rest::router(api.clone());
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
        .layer(middleware::from_fn(accepted));
    router.map_request(|request: Request<Incoming>| request.map(Body::new))
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
