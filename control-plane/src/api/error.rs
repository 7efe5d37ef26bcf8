//! Every way a call can fail, and what each is on the wire.

use std::fmt::Display;

use sconce_proto::InvalidMessage;
use tonic::{Code, Status};

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It exists already, and otherwise.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows who is calling.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not.
    #[error("{0}")]
    Denied(String),
    /// Ours to mend.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// A failure of this server, with what it happened to.
    pub(crate) fn internal(what: &dyn Display, error: &dyn Display) -> Self {
        Self::Internal(format!("{what}: {error}"))
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::Conflict(_) => Code::AlreadyExists,
            Self::Failed(_) => Code::FailedPrecondition,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Denied(_) => Code::PermissionDenied,
            Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        if matches!(error, ApiError::Internal(_)) {
            tracing::error!(%error, "a call failed");
        }
        Status::new(error.code(), error.to_string())
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        Self::internal(&"the database", &error)
    }
}

impl From<object_store::Error> for ApiError {
    fn from(error: object_store::Error) -> Self {
        Self::internal(&"the chunk store", &error)
    }
}

impl From<InvalidMessage> for ApiError {
    fn from(error: InvalidMessage) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<sconce_catalog::InvalidStickyHeader> for ApiError {
    fn from(error: sconce_catalog::InvalidStickyHeader) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<sconce_catalog::InvalidName> for ApiError {
    fn from(error: sconce_catalog::InvalidName) -> Self {
        Self::Invalid(error.to_string())
    }
}
