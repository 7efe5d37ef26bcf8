//! A push in one request: the archive is the body.

use std::{io::Write as _, sync::Arc};

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::State,
};
use futures::StreamExt as _;
use sconce_artifact::{Assembly, chunk_file};
use sconce_catalog::{Labels, Manifest, ModelName, Selector, Signature, Split, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Options, Segments, Who},
    views::{Failed, VersionView},
};
use crate::{
    access::{Caller, Role},
    api::{Api, ApiError},
    store::Begin,
};

#[derive(Deserialize, IntoParams)]
pub(super) struct Activate {
    /// Give it all of the traffic once it is pushed, which takes an operator.
    #[serde(default)]
    pub(super) activate: bool,
}

#[derive(Deserialize, IntoParams)]
pub(super) struct Wanted {
    /// Give it all of the traffic once it is pushed, which takes an operator.
    #[serde(default)]
    activate: bool,
    /// Free text about the version: `commit=1a2b3c,trained=today`.
    metadata: Option<String>,
    /// Labels a sidecar must have to serve the model: `team=pay`. Absent leaves them as they are.
    selector: Option<String>,
}

/// A version that was pushed.
#[derive(Serialize, ToSchema)]
pub(super) struct Pushed {
    pub(super) version: VersionView,
    pub(super) serial: u64,
    /// Bytes that the store lacked, where this call brought them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_stored: Option<u64>,
}

/// Pushes a version: the body is the TorchScript archive, `auto` counts up. The same bytes
/// under the same version may be pushed again, and change nothing.
#[utoipa::path(put, path = "/api/v1/models/{namespace}/{model}/versions/{version}", params(("namespace" = String, Path), ("model" = String, Path), ("version" = String, Path), Wanted), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = Pushed), (status = 400, body = Failed), (status = 409, body = Failed)))]
pub(super) async fn push(
    State(api): State<Api>,
    Segments((namespace, model, version)): Segments<(String, String, String)>,
    Options(wanted): Options<Wanted>,
    who: Who,
    body: Body,
) -> Result<Json<Pushed>, ApiError> {
    let role = if wanted.activate { Role::Operator } else { Role::Pusher };
    let subject = format!("{namespace}/{model}:{version}");
    let caller = api.rest_allow(&who, role, ("push", &subject)).await?;
    let model = ModelName::new(&namespace, &model)?;
    let labels = |text: &str| text.parse::<Labels>().map_err(|error| ApiError::Invalid(error.to_string()));
    let metadata = wanted.metadata.as_deref().map(labels).transpose()?.unwrap_or_default();
    let selector = wanted.selector.as_deref().map(labels).transpose()?.map(Selector::new);
    let version = if version == "auto" { None } else { Some(version.parse()?) };
    let file = Arc::new(receive(&api, body.into_data_stream()).await?);
    let manifest = chunked(&file).await?;
    let begin = Begin {
        model,
        version,
        manifest: manifest.clone(),
        metadata: metadata.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        selector,
        overrides: Signature::default(),
    };
    let begun = api.store.begin_push(begin.clone()).await?;
    if begun.already_committed {
        return again(&api, &caller, &begin.model, &begun.version, wanted.activate).await.map(Json);
    }
    let bytes_stored = store(&api, &begin, &file, manifest, &begun.missing).await?;
    let committed = api.store.commit_push(&caller.name, &begun.push, wanted.activate).await?;
    Ok(Json(Pushed {
        version: VersionView::new(committed.version.as_str(), &committed.record),
        serial: committed.serial.0,
        bytes_stored: Some(bytes_stored),
    }))
}

/// The answer to a push of what is there already: whoever lost the first answer gets it now.
async fn again(
    api: &Api,
    caller: &Caller,
    model: &ModelName,
    version: &Version,
    activate: bool,
) -> Result<Pushed, ApiError> {
    if activate {
        api.store.set_split(&caller.name, model, Split::whole(version.clone())).await?;
    }
    let catalog = api.store.catalog().borrow().clone();
    let record = catalog.models.get(model).and_then(|model| model.versions.get(version));
    let record = record
        .ok_or_else(|| ApiError::NotFound(format!("version {version} of `{model}` was deleted meanwhile")))?;
    Ok(Pushed {
        version: VersionView::new(version.as_str(), record),
        serial: catalog.serial.0,
        bytes_stored: Some(0),
    })
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
