//! Every way a request can fail, and the one table of what each is on the wire.

use ::http::StatusCode;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use tonic::Code;

use crate::engine::{EngineError, RunError};

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The request breaks the protocol or does not suit the model.
    #[error("{0}")]
    Invalid(String),
    /// There is no such model, version or path.
    #[error("{0}")]
    NotFound(String),
    /// It exists, and cannot answer now.
    #[error("{0}")]
    Unavailable(String),
    /// Too much is waiting already.
    #[error("the server is overloaded; try again shortly")]
    Overloaded,
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// The body is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// What is asked for is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The path exists with another method.
    #[error("this path does not take that method")]
    Method,
    /// The model's own code failed.
    #[error("{0}")]
    Model(String),
}

impl ServeError {
    fn row(&self) -> (&'static str, StatusCode, Code) {
        match self {
            Self::Invalid(_) => ("invalid", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::NotFound(_) => ("not_found", StatusCode::NOT_FOUND, Code::NotFound),
            Self::Unavailable(_) => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, Code::ResourceExhausted),
            Self::Denied(_) => ("denied", StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::TooLarge(_) => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
            Self::Unsupported(_) => ("unsupported", StatusCode::NOT_IMPLEMENTED, Code::Unimplemented),
            Self::Method => ("method", StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::Model(_) => ("model", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }

    /// The label that metrics carry.
    pub fn label(&self) -> &'static str {
        self.row().0
    }
}

impl From<RunError> for ServeError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Overloaded => Self::Overloaded,
            RunError::Stopping => Self::Unavailable("the server is stopping".into()),
            RunError::Engine(EngineError::Input(text)) => Self::Invalid(text),
            RunError::Engine(error) => Self::Model(error.to_string()),
        }
    }
}

impl IntoResponse for ServeError {
    fn into_response(self) -> Response {
        let (_, status, _) = self.row();
        let mut response = (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response();
        if matches!(self, Self::Overloaded) {
            response.headers_mut().insert(::http::header::RETRY_AFTER, ::http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ServeError> for tonic::Status {
    fn from(error: ServeError) -> Self {
        let (_, _, code) = error.row();
        tonic::Status::new(code, error.to_string())
    }
}
