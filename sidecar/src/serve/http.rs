//! The protocol over HTTP: paths and headers. Bodies are read in `request`, written in `reply`.

mod data;
mod encoding;
mod frames;
mod numbers;
mod reply;
mod request;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, State, rejection::BytesRejection},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use sconce_catalog::Lane;
use sconce_identity::Principal;
use serde_json::json;

use super::{
    Server,
    deadline::Due,
    describe::{Description, EXTENSIONS},
    error::ServeError,
    measure::{self, Measure, Protocol},
    routed::{ROUTE, Routed},
};

/// Bytes of a body's JSON part; there only where a binary part follows.
const JSON_LENGTH: &str = "inference-header-content-length";
/// Names the version that answered.
pub(super) const VERSION: &str = "x-sconce-version";
/// Names the version that must answer.
pub(super) const PIN: &str = "x-sconce-pin";

/// Every path under `/v2`.
pub(super) fn routes(server: Server) -> Router {
    Router::new()
        .route("/v2", get(metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models", get(models))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(model))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .with_state(server)
}

/// The model and the version that a request names, and what the mesh says of it.
struct Target {
    model: String,
    lane: Lane,
    version: Option<String>,
    routed: Option<Routed>,
    due: Option<Due>,
    caller: Option<Principal>,
}

#[derive(serde::Deserialize)]
struct Segments {
    model: String,
    #[serde(default)]
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ServeError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServeError> {
        let Path(Segments { model, version }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| ServeError::Malformed(format!("the path cannot be read: {error}")))?;
        let (lane, due) = (measure::lane(&parts.extensions), parts.extensions.get().copied());
        let caller = parts.extensions.get::<Principal>().cloned();
        // Nobody asks for what these say there, so neither for what is wrong with them.
        if lane == Lane::Shadow {
            return Ok(Self { model, lane, version, routed: None, due, caller });
        }
        let text = |name: &str| {
            let value = parts.headers.get(name).map(HeaderValue::to_str).transpose();
            value.map_err(|_| ServeError::Malformed(format!("the header {name} is not text")))
        };
        let routed = Routed::read(text(ROUTE)?, caller.as_ref())?;
        Ok(Self { model, lane, version: pinned(version, text(PIN)?)?, routed, due, caller })
    }
}

/// The one version that a request's two places for it name.
pub(super) fn pinned(version: Option<String>, pin: Option<&str>) -> Result<Option<String>, ServeError> {
    match (version, pin) {
        (Some(version), Some(pin)) if version != pin => Err(ServeError::Malformed(format!(
            "the request names version `{version}`, and its {PIN} version `{pin}`"
        ))),
        (None, Some(pin)) => Ok(Some(pin.to_owned())),
        (version, _) => Ok(version),
    }
}

async fn metadata(State(server): State<Server>) -> Response {
    let config = &server.0.config;
    let body =
        json!({ "name": config.server_name, "version": config.server_version, "extensions": EXTENSIONS });
    Json(body).into_response()
}

async fn live(State(server): State<Server>) -> Response {
    Json(json!({ "live": true, "ready": server.is_ready() })).into_response()
}

async fn ready(State(server): State<Server>) -> Response {
    let ready = server.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "live": true, "ready": ready }))).into_response()
}

async fn models(State(server): State<Server>) -> Response {
    Json(json!({ "models": server.models() })).into_response()
}

async fn model(State(server): State<Server>, target: Target) -> Result<Json<Description>, ServeError> {
    server.describe(&target.model, target.version.as_deref()).map(Json)
}

async fn model_ready(State(server): State<Server>, target: Target) -> Result<Response, ServeError> {
    server.check_ready(&target.model, target.version.as_deref())?;
    Ok(Json(json!({ "name": target.model, "ready": true })).into_response())
}

async fn infer(
    State(server): State<Server>,
    target: Target,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ServeError> {
    let mut measure = Measure::begin(Protocol::Http, target.lane);
    let result = answer(&server, target, headers, body, &mut measure).await;
    measure.ended(&result);
    result
}

async fn answer(
    server: &Server,
    target: Target,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
    measure: &mut Measure,
) -> Result<Response, ServeError> {
    let limit = server.0.config.max_body_bytes;
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ServeError::TooLarge { limit },
        _ => ServeError::Malformed(format!("the body cannot be read: {}", error.body_text())),
    })?;
    let body = encoding::decode(&headers, body, limit).await?;
    let accepted = encoding::accepted(&headers);
    let (infer, forms) = request::read(target, headers, body)?;
    let answer = server.infer(infer, measure).await?;
    let reply = reply::write(answer, &forms).map_err(ServeError::Malformed)?;
    encoding::encode(reply, accepted).await
}
