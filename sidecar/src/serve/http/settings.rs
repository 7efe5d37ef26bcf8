//! The logging extension over HTTP, and what is answered of traces.

use std::collections::BTreeMap;

use axum::{
    Extension, Json, Router,
    extract::{State, rejection::BytesRejection},
    routing::get,
};
use bytes::Bytes;
use sconce_identity::Principal;

use super::{
    super::{
        Server,
        error::ServeError,
        settings::{Settings, TraceSettings},
    },
    Target, read, whole,
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v2/logging", get(log).post(set_log))
        .route("/v2/trace/setting", get(trace).post(set_trace))
        .route("/v2/models/{model}/trace/setting", get(trace_of).post(set_trace_of))
}

/// One value, several, or null for what the whole server has.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a trace setting is a text, a list of them or null")]
enum Values {
    One(String),
    Many(Vec<String>),
    Nothing,
}

async fn log(State(server): State<Server>) -> Result<Json<Settings>, ServeError> {
    server.log_settings(Settings::new(), None).map(Json)
}

async fn set_log(
    State(server): State<Server>,
    caller: Option<Extension<Principal>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Settings>, ServeError> {
    let changes = read(&whole(&server, body)?)?;
    server.log_settings(changes, caller.as_deref()).map(Json)
}

async fn trace(State(server): State<Server>) -> Result<Json<TraceSettings>, ServeError> {
    server.trace_settings(None, &TraceSettings::new()).map(Json)
}

async fn set_trace(
    State(server): State<Server>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<TraceSettings>, ServeError> {
    let changes = changes(&whole(&server, body)?)?;
    server.trace_settings(None, &changes).map(Json)
}

async fn trace_of(State(server): State<Server>, target: Target) -> Result<Json<TraceSettings>, ServeError> {
    server.trace_settings(Some(&target.model), &TraceSettings::new()).map(Json)
}

async fn set_trace_of(
    State(server): State<Server>,
    target: Target,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<TraceSettings>, ServeError> {
    let changes = changes(&whole(&server, body)?)?;
    server.trace_settings(Some(&target.model), &changes).map(Json)
}

fn changes(body: &[u8]) -> Result<TraceSettings, ServeError> {
    let said: BTreeMap<String, Values> = read(body)?;
    let values = |values| match values {
        Values::One(value) => vec![value],
        Values::Many(values) => values,
        Values::Nothing => Vec::new(),
    };
    Ok(said.into_iter().map(|(name, said)| (name, values(said))).collect())
}
