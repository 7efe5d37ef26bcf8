//! The model repository extension over HTTP.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    routing::post,
};
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{Server, error::ServeError, repository::Indexed},
    Target, read, unread, whole,
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/{repository}/index", post(index_of))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
        .route("/v2/repository/{repository}/models/{model}/load", post(load))
        .route("/v2/repository/{repository}/models/{model}/unload", post(unload))
}

#[derive(Default, serde::Deserialize)]
struct Index {
    #[serde(default)]
    ready: bool,
}

#[derive(Default, serde::Deserialize)]
struct Load<'a> {
    // Whatever they say, they are refused: a file that comes as one of them is not read.
    #[serde(borrow, default)]
    parameters: BTreeMap<String, &'a RawValue>,
}

async fn index(
    State(server): State<Server>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ServeError> {
    let body = whole(&server, body)?;
    let Index { ready } = read(&body)?;
    Ok(Json(server.index("", ready)?.into_iter().map(write).collect()))
}

async fn index_of(
    State(server): State<Server>,
    repository: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ServeError> {
    let Path(repository) = repository.map_err(|error| unread(&error))?;
    Ok(Json(server.index(&repository, false)?.into_iter().map(write).collect()))
}

async fn load(
    State(server): State<Server>,
    target: Target,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ServeError> {
    let body = whole(&server, body)?;
    let Load { parameters } = read(&body)?;
    server.load(&target.model, parameters.keys().map(String::as_str))?;
    // KServe's clients read it, Triton's read no body.
    Ok(Json(json!({ "name": target.model, "load": true })))
}

async fn unload(State(server): State<Server>, target: Target) -> ServeError {
    server.unload(&target.model)
}

fn write(Indexed { name, version, state, reason }: Indexed) -> Value {
    let mut json = json!({ "name": name, "state": state, "reason": reason });
    if let Some(version) = version {
        json["version"] = version.into();
    }
    json
}
