//! A push in one request: the archive is the body.

use std::io::Write as _;

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::State,
};
use futures::StreamExt as _;
use sconce_catalog::{Batching, Labels, Manifest, ModelName, Selector, Signature};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Options, Segments, Who},
    views::{Failed, VersionView},
};
use crate::{
    access::Role,
    api::{Api, ApiError},
    store::{Announced, Arrived},
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
    /// `rows`: rows of several requests may run as one batch; `off`: they may not. Absent leaves it to
    /// the archive.
    batching: Option<String>,
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
    let batching = wanted.batching.as_deref().map(str::parse::<Batching>).transpose();
    let batching = batching.map_err(|error| ApiError::Invalid(format!("batching: {error}")))?;
    let version = if version == "auto" { None } else { Some(version.parse()?) };
    let file = receive(&api, body.into_data_stream()).await?;
    let what = Announced {
        model,
        version,
        metadata: metadata.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        selector,
        overrides: Signature { batching, ..Signature::default() },
        source: None,
    };
    Ok(Json(api.store.take_in(&caller.name, file, what, wanted.activate).await?.into()))
}

impl From<Arrived> for Pushed {
    fn from(arrived: Arrived) -> Self {
        Self {
            version: VersionView::new(arrived.version.as_str(), &arrived.record),
            serial: arrived.serial.0,
            bytes_stored: Some(arrived.bytes_stored),
        }
    }
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

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&"the archive", &error))
}
