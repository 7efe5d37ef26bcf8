//! The protocol before this one, of TensorFlow Serving, which KServe calls V1 and still speaks.
//!
//! A request has no datatypes and no shapes, so what it brings is read only once the version that
//! answers is known: by that version's signature. Sources: KServe's V1 data plane (`instances` or
//! `inputs` in, `predictions` out) and TensorFlow Serving's REST API, whose forms of both they are.

mod instances;
mod outline;
mod predictions;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{State, rejection::BytesRejection},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use self::instances::Instances;
use super::{
    super::{
        Server,
        deadline::deadline,
        error::ServeError,
        infer::{Infer, Inputs},
        measure::{Measure, Protocol},
    },
    Target, encoding, whole,
};

/// Every path under `/v1`.
pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/models", get(models))
        // What is to be done stands behind a colon, within the last segment.
        .route("/v1/models/{model}", get(ready).post(act))
}

async fn models(State(server): State<Server>) -> Json<Value> {
    Json(json!({ "models": server.models() }))
}

async fn ready(State(server): State<Server>, target: Target) -> Result<Json<Value>, ServeError> {
    server.check_ready(&target.model, target.version.as_deref())?;
    Ok(Json(json!({ "name": target.model, "ready": true })))
}

async fn act(
    State(server): State<Server>,
    mut target: Target,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ServeError> {
    let Some((name, verb)) = target.model.rsplit_once(':') else { return Err(ServeError::WrongMethod) };
    target.model = match verb {
        "predict" => name.to_owned(),
        "explain" => return Err(ServeError::Explain(name.to_owned())),
        _ => return Err(ServeError::UnknownPath),
    };
    let mut measure = Measure::begin(Protocol::Http, target.lane);
    let result = predict(&server, target, headers, body, &mut measure).await;
    measure.ended(&result);
    result
}

async fn predict(
    server: &Server,
    target: Target,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
    measure: &mut Measure,
) -> Result<Response, ServeError> {
    let body = encoding::decode(&headers, whole(server, body)?, server.0.config.max_body_bytes).await?;
    let accepted = encoding::accepted(&headers);
    let instances = Instances::read(&body).map_err(ServeError::Malformed)?;
    let rows = instances.rows();
    let infer = Infer {
        model: target.model,
        lane: target.lane,
        pin: target.version,
        routed: target.routed,
        headers,
        deadline: deadline(target.due, None)?,
        priority: Default::default(),
        sequence: None,
        id: None,
        inputs: Inputs::Untyped(Arc::new(instances)),
        outputs: Vec::new(),
        classes: Default::default(),
        arguments: Default::default(),
    };
    let answer = server.infer(infer, measure).await?;
    let reply = predictions::write(&answer, rows).map_err(ServeError::Malformed)?;
    encoding::encode(reply, accepted).await
}
