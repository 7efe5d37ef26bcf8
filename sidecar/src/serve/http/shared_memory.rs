//! The shared memory extensions over HTTP.

use axum::{
    Extension, Json, Router,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    routing::{get, post},
};
use bytes::Bytes;
use sconce_identity::Principal;
use serde_json::{Value, json};

use super::{
    super::{Server, error::ServeError},
    read, unread, whole,
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v2/systemsharedmemory/status", get(all))
        .route("/v2/systemsharedmemory/region/{region}/status", get(one))
        .route("/v2/systemsharedmemory/region/{region}/register", post(register))
        .route("/v2/systemsharedmemory/unregister", post(unregister_all))
        .route("/v2/systemsharedmemory/region/{region}/unregister", post(unregister))
        // There is no memory of a GPU here, which these can say; clients tidy up before they begin.
        .route("/v2/cudasharedmemory/status", get(no_regions))
        .route("/v2/cudasharedmemory/unregister", post(nothing))
        .route("/v2/cudasharedmemory/region/{region}/unregister", post(nothing))
}

type Caller = Option<Extension<Principal>>;
type Named = Result<Path<String>, PathRejection>;

#[derive(Default, serde::Deserialize)]
struct Register {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

async fn all(State(server): State<Server>, caller: Caller) -> Result<Json<Value>, ServeError> {
    status(&server, caller, "")
}

async fn one(State(server): State<Server>, caller: Caller, region: Named) -> Result<Json<Value>, ServeError> {
    status(&server, caller, &name(region)?)
}

fn status(server: &Server, caller: Caller, name: &str) -> Result<Json<Value>, ServeError> {
    let regions = server.regions(caller.as_deref())?.status(name)?;
    let told = regions.iter().map(|(name, region)| {
        json!({ "name": name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size })
    });
    Ok(Json(told.collect()))
}

async fn register(
    State(server): State<Server>,
    caller: Caller,
    region: Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<(), ServeError> {
    let regions = server.regions(caller.as_deref())?;
    let (name, body) = (name(region)?, whole(&server, body)?);
    let Register { key, offset, byte_size } = read(&body)?;
    regions.register(&name, &key, offset, byte_size)
}

async fn unregister(State(server): State<Server>, caller: Caller, region: Named) -> Result<(), ServeError> {
    let name = name(region)?;
    server.regions(caller.as_deref())?.unregister(&name);
    Ok(())
}

async fn unregister_all(State(server): State<Server>, caller: Caller) -> Result<(), ServeError> {
    server.regions(caller.as_deref())?.unregister("");
    Ok(())
}

async fn no_regions() -> Json<Value> {
    Json(json!([]))
}

async fn nothing() {}

fn name(region: Named) -> Result<String, ServeError> {
    region.map(|Path(name)| name).map_err(|error| unread(&error))
}
