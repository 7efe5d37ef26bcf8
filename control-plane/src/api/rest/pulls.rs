//! A pull in one request. It is answered when the version is there; hanging up ends it.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use sconce_catalog::{Labels, ModelName, Selector, Signature};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{
    extract::{Body, Segments, Who},
    upload::Pushed,
    views::Failed,
};
use crate::{
    access::Role,
    api::{Api, ApiError, pulls},
    pull::{Progress, Pull},
};

/// What is to be pulled.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `s3://bucket/key`, `gs://bucket/key`, `az://account/container/name`, `https://host/path` or
    /// `oci://registry/repository`.
    source: String,
    /// `sha256:` and 64 hexadecimal digits: of the file; of a registry, of the manifest or the layer.
    digest: String,
    /// What the source wants to be shown, such as `AWS_ACCESS_KEY_ID`. It is not kept.
    #[serde(default)]
    credentials: BTreeMap<String, String>,
    /// Give it all of the traffic once it is pulled, which takes an operator.
    #[serde(default)]
    activate: bool,
    /// Free text, such as a git commit.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Labels a sidecar must have to serve the model; absent leaves them as they are.
    selector: Option<BTreeMap<String, String>>,
    /// What the archive does not say of its inputs and outputs, and whether rows may be batched.
    #[schema(value_type = Option<Object>)]
    #[serde(default)]
    overrides: Signature,
}

/// Has the control plane fetch a version itself; `auto` counts up.
#[utoipa::path(post, path = "/api/v1/models/{namespace}/{model}/versions/{version}/pull", params(("namespace" = String, Path), ("model" = String, Path), ("version" = String, Path)), request_body = Wanted, responses((status = 200, body = Pushed), (status = 400, body = Failed), (status = 403, body = Failed), (status = 404, body = Failed), (status = 409, body = Failed)))]
pub(super) async fn pull(
    State(api): State<Api>,
    Segments((namespace, model, version)): Segments<(String, String, String)>,
    who: Who,
    Body(wanted): Body<Wanted>,
) -> Result<Json<Pushed>, ApiError> {
    let role = if wanted.activate { Role::Operator } else { Role::Pusher };
    let subject = format!("{namespace}/{model}:{version}");
    let caller = api.rest_allow(&who, role, ("pull", &subject)).await?;
    let (source, credentials) = pulls::source(&wanted.source, &wanted.digest, wanted.credentials)?;
    let selector = wanted.selector.map(Labels::new).transpose();
    let pull = Pull {
        model: ModelName::new(&namespace, &model)?,
        version: if version == "auto" { None } else { Some(version.parse()?) },
        source,
        credentials,
        metadata: wanted.metadata,
        selector: selector.map_err(|error| ApiError::Invalid(error.to_string()))?.map(Selector::new),
        overrides: wanted.overrides,
        activate: wanted.activate,
    };
    let progress = watch::Sender::new(Progress::default());
    Ok(Json(api.pull(&caller, pull, &progress).await?.into()))
}
