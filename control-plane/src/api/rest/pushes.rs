//! A push in steps, as the command line does it: announce what the archive is made of, send
//! the chunks that the store lacks, commit. Announcing it again resumes it.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use sconce_catalog::{ChunkRef, Digest, Labels, Manifest, Piece, Selector, Signature};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    extract::{Body, Options, Raw, Segments, Who},
    upload::{Activate, Pushed},
    views::{Failed, VersionView},
};
use crate::{
    access::Role,
    api::{Api, ApiError},
    store::Begin,
};

/// What is about to be pushed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Announced {
    /// `namespace/name`, or `name` in the namespace `default`.
    model: String,
    /// Absent or `auto` counts up.
    version: Option<String>,
    manifest: ManifestView,
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

/// How the archive is put together.
#[derive(Deserialize, ToSchema)]
struct ManifestView {
    chunks: Vec<ChunkView>,
    /// In file order.
    pieces: Vec<PieceView>,
}

/// A run of bytes by its digest.
#[derive(Deserialize, ToSchema)]
struct ChunkView {
    /// `blake3:` and 64 hexadecimal digits.
    #[schema(value_type = String)]
    digest: Digest,
    /// In bytes, at most 4 MiB.
    size: u32,
}

/// `length` bytes at `offset` of chunk number `chunk` come next in the file.
#[derive(Deserialize, ToSchema)]
struct PieceView {
    chunk: u32,
    offset: u32,
    length: u32,
}

/// A push that may go on.
#[derive(Serialize, ToSchema)]
pub(super) struct Begun {
    /// Names the push in the paths below; empty where nothing is left to do.
    push: String,
    version: String,
    /// Digests of the chunks that the store lacks.
    #[schema(value_type = Vec<String>)]
    missing: Vec<Digest>,
    bytes_present: u64,
    /// The same bytes are this version already.
    already_committed: bool,
}

/// Announces a version.
#[utoipa::path(post, path = "/api/v1/pushes", request_body = Announced, responses((status = 200, body = Begun), (status = 400, body = Failed), (status = 409, body = Failed)))]
pub(super) async fn begin(
    State(api): State<Api>,
    who: Who,
    Body(announced): Body<Announced>,
) -> Result<Json<Begun>, ApiError> {
    api.rest_allow(&who, Role::Pusher, ("push", &announced.model)).await?;
    let begun = api.store.begin_push(announced.try_into()?).await?;
    Ok(Json(Begun {
        push: begun.push,
        version: begun.version.to_string(),
        missing: begun.missing,
        bytes_present: begun.bytes_present,
        already_committed: begun.already_committed,
    }))
}

/// Stores one chunk. It is durable once this is answered.
#[utoipa::path(put, path = "/api/v1/pushes/{push}/chunks/{digest}", params(("push" = String, Path), ("digest" = String, Path)), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 204), (status = 400, body = Failed), (status = 404, body = Failed)))]
pub(super) async fn chunk(
    State(api): State<Api>,
    Segments((push, digest)): Segments<(String, Digest)>,
    who: Who,
    Raw(bytes): Raw,
) -> Result<http::StatusCode, ApiError> {
    api.rest_allow(&who, Role::Pusher, ("push", &push)).await?;
    let size = bytes.len() as u64;
    api.store.put_chunk(&api.store.push(&push).await?, digest, bytes).await?;
    metrics::counter!(sconce_telemetry::names::PUSHED_BYTES).increment(size);
    Ok(http::StatusCode::NO_CONTENT)
}

/// Makes the version visible. It survives anything once this is answered.
#[utoipa::path(post, path = "/api/v1/pushes/{push}/commit", params(("push" = String, Path), Activate), responses((status = 200, body = Pushed), (status = 400, body = Failed), (status = 409, body = Failed)))]
pub(super) async fn commit(
    State(api): State<Api>,
    Segments(push): Segments<String>,
    Options(Activate { activate }): Options<Activate>,
    who: Who,
) -> Result<Json<Pushed>, ApiError> {
    let role = if activate { Role::Operator } else { Role::Pusher };
    let caller = api.rest_allow(&who, role, ("push", &push)).await?;
    let committed = api.store.commit_push(&caller.name, &push, activate).await?;
    Ok(Json(Pushed {
        version: VersionView::new(committed.version.as_str(), &committed.record),
        serial: committed.serial.0,
        bytes_stored: None,
    }))
}

impl TryFrom<Announced> for Begin {
    type Error = ApiError;

    fn try_from(announced: Announced) -> Result<Self, ApiError> {
        let chunks = announced.manifest.chunks.into_iter();
        let chunks = chunks.map(|chunk| ChunkRef { digest: chunk.digest, size: chunk.size }).collect();
        let pieces = announced.manifest.pieces.into_iter();
        let pieces =
            pieces.map(|PieceView { chunk, offset, length }| Piece { chunk, offset, length }).collect();
        let version = announced.version.filter(|version| version != "auto" && !version.is_empty());
        let selector = announced.selector.map(Labels::new).transpose();
        Ok(Self {
            model: announced.model.parse()?,
            version: version.map(|version| version.parse()).transpose()?,
            manifest: Manifest::new(chunks, pieces).map_err(|error| ApiError::Invalid(error.to_string()))?,
            metadata: announced.metadata,
            selector: selector.map_err(|error| ApiError::Invalid(error.to_string()))?.map(Selector::new),
            overrides: announced.overrides,
        })
    }
}
