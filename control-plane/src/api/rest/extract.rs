//! What handlers take out of requests. A part that cannot be read is refused in JSON,
//! like everything else.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use sconce_identity::Principal;
use serde::de::DeserializeOwned;

use crate::{
    access::{Caller, Role},
    api::{Api, ApiError, wire::Act},
};

/// What a request says of its sender.
pub(super) struct Who(Option<Principal>, HeaderMap);

/// The parts of the path.
pub(super) struct Segments<T>(pub(super) T);

/// The query.
pub(super) struct Options<T>(pub(super) T);

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

/// A body of bytes.
pub(super) struct Raw(pub(super) Bytes);

impl Api {
    /// Who sent a request that needs this role.
    pub(super) async fn rest_allow(
        &self,
        who: &Who,
        role: Role,
        act: impl Into<Act<'_>>,
    ) -> Result<Caller, ApiError> {
        let bearer = who.1.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
        let caller = self.access.caller(who.0.as_ref(), bearer).await?;
        self.permit(caller, role, act.into()).await
    }
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Principal>().cloned(), parts.headers.clone()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| Self(segments)).map_err(|error| ApiError::Invalid(error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Options<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(options)| Self(options)).map_err(|error| ApiError::Invalid(error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let json = Json::from_request(request, state).await;
        json.map(|Json(body)| Self(body)).map_err(|error| ApiError::Invalid(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        bytes.map(Self).map_err(|error| ApiError::Invalid(error.body_text()))
    }
}
