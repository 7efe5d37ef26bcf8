//! Tokens over REST.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    extract::{Body, Segments, Who},
    views::Failed,
};
use crate::{
    access::Role,
    api::{Api, ApiError},
    store::Join,
};

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// What it is called in the audit log, and when it is revoked.
    name: String,
    /// `reader`, `pusher` or `operator`.
    role: String,
}

/// A join token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJoinToken {
    /// Path of the SPIFFE id that its bearer receives, such as `/ns/default/sa/fraud`.
    spiffe_path: String,
    /// DNS names and IP addresses its certificate may carry besides.
    #[serde(default)]
    names: Vec<String>,
    /// Ten minutes where absent.
    #[serde(default)]
    ttl_seconds: u32,
    /// How many certificates it may be exchanged for; one where absent.
    #[serde(default)]
    uses: u32,
}

/// A token. It is shown once: the store keeps only its digest.
#[derive(Serialize, ToSchema)]
pub(super) struct Made {
    token: String,
}

/// Makes a token for callers without a certificate.
#[utoipa::path(post, path = "/api/v1/tokens", request_body = NewToken, responses((status = 200, body = Made), (status = 409, body = Failed)))]
pub(super) async fn create(
    State(api): State<Api>,
    who: Who,
    Body(NewToken { name, role }): Body<NewToken>,
) -> Result<Json<Made>, ApiError> {
    let caller = api.rest_allow(&who, Role::Operator, ("token.create", &name)).await?;
    let role = role.parse().map_err(ApiError::Invalid)?;
    Ok(Json(Made { token: api.create_token(&caller, &name, role).await? }))
}

/// Takes a token back.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", params(("name" = String, Path)), responses((status = 204), (status = 404, body = Failed)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    who: Who,
) -> Result<http::StatusCode, ApiError> {
    let caller = api.rest_allow(&who, Role::Operator, ("token.revoke", &name)).await?;
    api.revoke_token(&caller, &name).await?;
    Ok(http::StatusCode::NO_CONTENT)
}

/// Makes a token for a sidecar that is about to join.
#[utoipa::path(post, path = "/api/v1/join-tokens", request_body = NewJoinToken, responses((status = 200, body = Made), (status = 403, body = Failed)))]
pub(super) async fn create_join(
    State(api): State<Api>,
    who: Who,
    Body(wanted): Body<NewJoinToken>,
) -> Result<Json<Made>, ApiError> {
    let caller = api.rest_allow(&who, Role::Operator, ("join-token.create", &wanted.spiffe_path)).await?;
    let join = Join { spiffe_path: wanted.spiffe_path, names: wanted.names };
    Ok(Json(Made { token: api.create_join_token(&caller, &join, wanted.ttl_seconds, wanted.uses).await? }))
}
