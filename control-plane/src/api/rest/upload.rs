//! A push in one request: the archive is the body.

use std::{collections::BTreeMap, io::Write as _, sync::Arc};

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::{Path, Query, State},
};
use futures::StreamExt as _;
use sconce_artifact::{Assembly, chunk_file};
use sconce_catalog::{Manifest, Signature};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Who, name,
    views::{Failed, VersionView},
};
use crate::{
    access::Role,
    api::{Api, ApiError},
    store::Begin,
};

#[derive(Deserialize, IntoParams)]
pub(super) struct Options {
    /// Give it all of the traffic once it is pushed.
    #[serde(default)]
    activate: bool,
}

/// A version that was pushed.
#[derive(Serialize, ToSchema)]
pub(super) struct Pushed {
    version: VersionView,
    serial: u64,
    /// Bytes that the store lacked.
    bytes_stored: u64,
}

/// Pushes a version: the body is the TorchScript archive, `auto` counts up.
#[utoipa::path(put, path = "/api/v1/models/{namespace}/{model}/versions/{version}", params(("namespace" = String, Path), ("model" = String, Path), ("version" = String, Path), Options), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = Pushed), (status = 400, body = Failed), (status = 409, body = Failed)))]
pub(super) async fn push(
    State(api): State<Api>,
    Path((namespace, model, version)): Path<(String, String, String)>,
    Query(options): Query<Options>,
    who: Who,
    body: Body,
) -> Result<Json<Pushed>, ApiError> {
    let role = if options.activate { Role::Operator } else { Role::Pusher };
    let caller = api.rest_allow(&who, role, "push").await?;
    let model = name(&(namespace, model))?;
    let version = if version == "auto" { None } else { Some(version.parse()?) };
    let file = Arc::new(receive(&api, body.into_data_stream()).await?);
    let manifest = chunked(&file).await?;
    let begin = Begin {
        model,
        version,
        manifest: manifest.clone(),
        metadata: BTreeMap::new(),
        selector: None,
        overrides: Signature::default(),
    };
    let begun = api.store.begin_push(begin.clone()).await?;
    if begun.already_committed {
        return Err(ApiError::Conflict(format!("these bytes are version {} already", begun.version)));
    }
    let bytes_stored = store(&api, &begin, &file, manifest, &begun.missing).await?;
    let committed = api.store.commit_push(&caller.name, &begun.push, options.activate).await?;
    Ok(Json(Pushed {
        version: VersionView::new(committed.version.as_str(), &committed.record),
        serial: committed.serial.0,
        bytes_stored,
    }))
}

/// The body as a file, which is gone when it is closed.
async fn receive(api: &Api, mut body: BodyDataStream) -> Result<std::fs::File, ApiError> {
    let mut file = api.store.scratch_file()?;
    let mut size = 0u64;
    while let Some(part) = body.next().await {
        let part =
            part.map_err(|error| ApiError::Invalid(format!("the body did not arrive whole: {error}")))?;
        size += part.len() as u64;
        if size > Manifest::MAX_SIZE {
            return Err(ApiError::Invalid(format!(
                "the archive is larger than {} bytes",
                Manifest::MAX_SIZE
            )));
        }
        file = blocking(move || file.write_all(&part).map(|()| file))
            .await?
            .map_err(|error| ApiError::internal(&"the archive cannot be kept", &error))?;
    }
    Ok(file)
}

async fn chunked(file: &Arc<std::fs::File>) -> Result<Manifest, ApiError> {
    let file = Arc::clone(file);
    blocking(move || chunk_file(&file)).await?.map_err(|error| ApiError::Invalid(error.to_string()))
}

async fn store(
    api: &Api,
    begin: &Begin,
    file: &Arc<std::fs::File>,
    manifest: Manifest,
    missing: &[sconce_catalog::Digest],
) -> Result<u64, ApiError> {
    let assembly = Arc::new(Assembly::new(manifest));
    let mut stored = 0;
    for digest in missing {
        let Some(number) = assembly.chunk_with(digest) else { continue };
        let (assembly, file) = (Arc::clone(&assembly), Arc::clone(file));
        let bytes = blocking(move || assembly.read_chunk(&file, number)).await?;
        let bytes = bytes.map_err(|error| ApiError::internal(&"the archive", &error))?;
        stored += bytes.len() as u64;
        api.store.put_chunk(begin, *digest, bytes.into()).await?;
    }
    Ok(stored)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&"the archive", &error))
}
