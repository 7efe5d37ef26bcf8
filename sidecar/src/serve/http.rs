//! The Open Inference Protocol over HTTP.
//!
//! Paths and bodies: kserve/open-inference-protocol `inference_rest.md`. Where servers
//! differ, the answer is one that each of their clients accepts.

mod elements;
mod request;
mod response;

pub(super) use self::{
    request::{check, from_binary},
    response::to_binary,
};

use ::http::{HeaderMap, StatusCode};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use super::{ServeError, Server, metadata};

/// A model's name and, in longer paths, a version.
type Target = (String, Option<String>);

pub(super) fn router(server: Server) -> Router {
    let one = |path: &'static str| format!("/v2/models/{{model}}{path}");
    let versioned = |path: &'static str| format!("/v2/models/{{model}}/versions/{{version}}{path}");
    let model = get(async |State(server), Path(model): Path<String>| describe(&server, (model, None)));
    let version =
        get(async |State(server), Path((m, v)): Path<(String, String)>| describe(&server, (m, Some(v))));
    let ready = get(async |State(server), Path(model): Path<String>| model_ready(&server, (model, None)));
    let version_ready =
        get(async |State(server), Path((m, v)): Path<(String, String)>| model_ready(&server, (m, Some(v))));
    let infer = post(async |State(server), Path(model): Path<String>, headers, body| {
        run(&server, (model, None), headers, body).await
    });
    let version_infer = post(async |State(server), Path((m, v)): Path<(String, String)>, headers, body| {
        run(&server, (m, Some(v)), headers, body).await
    });
    Router::new()
        .route("/v2", get(about))
        .route("/v2/health/live", get(async || Json(json!({ "live": true }))))
        .route(
            "/v2/health/ready",
            get(async |State(server): State<Server>| health("ready", server.is_ready(), json!({}))),
        )
        .route("/v2/models", get(list))
        .route(&one(""), model)
        .route(&one("/ready"), ready)
        .route(&one("/infer"), infer)
        .route(&versioned(""), version)
        .route(&versioned("/ready"), version_ready)
        .route(&versioned("/infer"), version_infer)
        .method_not_allowed_fallback(async || ServeError::Method)
        .with_state(server)
}

async fn about() -> impl IntoResponse {
    Json(json!({
        "name": metadata::SERVER_NAME,
        "version": metadata::SERVER_VERSION,
        "extensions": metadata::EXTENSIONS,
    }))
}

async fn list(State(server): State<Server>) -> impl IntoResponse {
    let names: Vec<String> = server.live.snapshot().models.keys().map(ToString::to_string).collect();
    Json(json!({ "models": names }))
}

fn health(key: &str, healthy: bool, mut body: serde_json::Value) -> Response {
    body[key] = healthy.into();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

fn describe(server: &Server, (model, version): Target) -> Result<Response, ServeError> {
    let about = server.metadata(&model, version.as_deref())?;
    Ok(Json(json!({
        "name": about.name,
        "versions": about.versions,
        "platform": about.platform,
        "inputs": about.inputs,
        "outputs": about.outputs,
    }))
    .into_response())
}

fn model_ready(server: &Server, (model, version): Target) -> Result<Response, ServeError> {
    let ready = server.is_model_ready(&model, version.as_deref())?;
    Ok(health("ready", ready, json!({ "name": model })))
}

async fn run(
    server: &Server,
    (model, version): Target,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ServeError> {
    let limit = server.config.max_body_bytes;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ServeError::TooLarge(format!("the body is larger than {limit} bytes"))
        }
        _ => ServeError::Invalid(format!("the body did not arrive whole: {rejection}")),
    })?;
    let (mut infer, form) = request::read(&headers, body)?;
    infer.pin = match (version, headers.get("x-sconce-pin")) {
        (Some(version), _) => Some(version),
        (None, Some(pin)) => {
            let text =
                pin.to_str().map_err(|_| ServeError::Invalid("the header x-sconce-pin is no text".into()))?;
            Some(text.to_owned())
        }
        (None, None) => None,
    };
    infer.model = model.clone();
    let id = infer.id.clone();
    let answer = server.infer(infer).await?;
    response::write(&model, &id, answer, &form)
}
