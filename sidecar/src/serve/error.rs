//! Why a request is not answered, and what that is in HTTP and in gRPC.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use tonic::Code;

use super::measure::Protocol;
use crate::engine::{EngineError, RunError};

/// How long a gRPC client should wait before it retries, in milliseconds (gRPC proposal A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Why a request is not answered. The message is what the caller reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    // Scripts written for Triton look for the first words, which are its own.
    #[error("Request for unknown model: `{0}` is not served here")]
    UnknownModel(String),
    #[error("model `{model}` has no version `{version}` here")]
    UnknownVersion { model: String, version: String },
    #[error("version `{version}` of model `{model}` is not ready: {reason}")]
    VersionNotReady { model: String, version: String, reason: String },
    #[error("model `{model}` is not ready: {reason}")]
    ModelNotReady { model: String, reason: String },
    #[error("{0}")]
    Malformed(String),
    #[error("model `{model}`, version `{version}`: {reason}")]
    Input { model: String, version: String, reason: String },
    #[error("the request is larger than the {limit} bytes that this server accepts")]
    TooLarge { limit: usize },
    #[error("content encoding {0:?} is not supported; send the body as it is, or by gzip or deflate")]
    Encoding(String),
    #[error(
        "there is one repository here, and it has no name; `{0}` is none (models of another namespace are \
         called `namespace/name`)"
    )]
    NoRepository(String),
    #[error(
        "failed to load `{0}`: no model of this name is served here. Models get here by `sconce push`, onto the \
         sidecars that their selectors mean"
    )]
    LoadUnknown(String),
    #[error("failed to load `{model}`: {reason}")]
    LoadFailed { model: String, reason: String },
    #[error(
        "failed to load `{model}`: it cannot be loaded with the parameter `{parameter}`. What it is made of, and \
         how its rows are batched, is said when it is pushed (`sconce push`)"
    )]
    LoadWith { model: String, parameter: String },
    #[error(
        "model `{0}` cannot be unloaded on one sidecar: what is served, the control plane decides. Take a \
         version's share by `sconce split`, then delete it by `sconce delete {0}:VERSION`"
    )]
    Unload(String),
    #[error("{0}")]
    Setting(String),
    #[error(
        "{0} only by the sidecar's own pod, over its loopback or its Unix socket (SCONCE_PLAINTEXT_LOOPBACK, \
         SCONCE_UNIX_SOCKET)"
    )]
    LocalOnly(&'static str),
    #[error("there is no shared memory region `{0}`; register it first")]
    UnknownRegion(String),
    #[error("model `{0}` has no explainer: what is served here predicts")]
    Explain(String),
    #[error("{0}")]
    Sequence(String),
    #[error(
        "model `{model}`, version `{version}` has the {most} sequences that it may have at a time; end one, wait \
         until one has been idle for {} ms, or raise SCONCE_MAX_SEQUENCES", .idle.as_millis()
    )]
    TooManySequences { model: String, version: String, most: usize, idle: Duration },
    #[error("Not Found")]
    UnknownPath,
    #[error("Method Not Allowed")]
    WrongMethod,
    #[error("gRPC needs HTTP/2, and this request came over {0:?}")]
    GrpcVersion(http::Version),
    #[error("a client certificate is needed to call this server")]
    Unauthenticated,
    #[error("{0} may not call this server; its SCONCE_CALLERS says who may")]
    Denied(String),
    #[error("this server has no certificate of its own, not yet or no longer")]
    NoIdentity,
    #[error("the server has more requests than it takes at a time; try again shortly")]
    Overloaded,
    #[error("model `{model}`, version `{version}` is overloaded; try again in {} s", after(.retry).as_secs())]
    Busy { model: String, version: String, retry: Duration },
    #[error(
        "model `{model}`, version `{version}`: the request's deadline passed, or would have while it ran"
    )]
    Late { model: String, version: String },
    #[error("the server is stopping; another one may answer")]
    Stopping,
    #[error("model `{model}`, version `{version}`: {reason}")]
    Model { model: String, version: String, reason: String },
    #[error("the server failed on this request")]
    Panicked,
}

impl ServeError {
    /// What running a version ran into.
    pub(super) fn ran(error: RunError, model: &str, version: &str) -> Self {
        let (model, version) = (model.to_owned(), version.to_owned());
        match error {
            RunError::Overloaded { retry } => Self::Busy { model, version, retry },
            RunError::Late => Self::Late { model, version },
            // A withdrawn version is not an answer: the request is tried again.
            RunError::Stopping | RunError::Withdrawn(_) => Self::Stopping,
            RunError::Engine(EngineError::Input(reason)) => Self::Input { model, version, reason },
            RunError::Engine(
                error @ (EngineError::Model(_) | EngineError::Output(_) | EngineError::Load(_)),
            ) => Self::Model { model, version, reason: error.to_string() },
        }
    }

    /// The table: metric label, HTTP status, gRPC code.
    fn row(&self) -> (&'static str, StatusCode, Code) {
        match self {
            Self::UnknownModel(_) => ("unknown_model", StatusCode::NOT_FOUND, Code::NotFound),
            Self::UnknownVersion { .. } => ("unknown_version", StatusCode::NOT_FOUND, Code::NotFound),
            Self::VersionNotReady { .. } => {
                ("version_not_ready", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Self::ModelNotReady { .. } => {
                ("model_not_ready", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Self::Malformed(_) => ("malformed", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::Input { .. } => ("input", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::Sequence(_) => ("sequence", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::TooManySequences { .. } => {
                ("too_many_sequences", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted)
            }
            Self::TooLarge { .. } => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, Code::OutOfRange),
            Self::Encoding(_) => ("encoding", StatusCode::NOT_IMPLEMENTED, Code::Unimplemented),
            Self::NoRepository(_) => ("no_repository", StatusCode::NOT_IMPLEMENTED, Code::Unimplemented),
            Self::LoadUnknown(_) => ("unknown_model", StatusCode::NOT_FOUND, Code::NotFound),
            Self::LoadFailed { .. } => {
                ("model_not_ready", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Self::LoadWith { .. } | Self::Unload(_) | Self::Explain(_) | Self::Setting(_) => {
                ("unsupported", StatusCode::NOT_IMPLEMENTED, Code::Unimplemented)
            }
            Self::UnknownRegion(_) => ("unknown_region", StatusCode::NOT_FOUND, Code::NotFound),
            Self::LocalOnly(_) => ("denied", StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::UnknownPath => ("unknown_path", StatusCode::NOT_FOUND, Code::Unimplemented),
            Self::WrongMethod => ("wrong_method", StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
            Self::GrpcVersion(_) => {
                ("grpc_version", StatusCode::HTTP_VERSION_NOT_SUPPORTED, Code::Unimplemented)
            }
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            Self::Denied(_) => ("denied", StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::NoIdentity => ("no_identity", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            // What a mesh does not try again elsewhere: that would double the load just when it is
            // too much already.
            Self::Overloaded | Self::Busy { .. } => {
                ("overloaded", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted)
            }
            Self::Late { .. } => ("late", StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
            Self::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::Model { .. } => ("model", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
            Self::Panicked => ("panicked", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }

    /// When trying again may help; `None` where it is not a matter of time.
    fn retry(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry, .. } => Some(*retry),
            Self::Overloaded | Self::Stopping | Self::TooManySequences { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The value of the `outcome` label: bounded, whatever callers send.
    pub(super) fn label(&self) -> &'static str {
        self.row().0
    }

    /// The whole reply, in the words of the protocol that the caller speaks.
    pub(super) fn reply(self, protocol: Protocol) -> Response {
        match protocol {
            Protocol::Http => self.into_response(),
            Protocol::Grpc => tonic::Status::from(self).into_http::<Body>(),
        }
    }
}

/// HTTP counts in whole seconds (RFC 9110 §10.2.3), and none would say nothing.
fn after(retry: &Duration) -> Duration {
    Duration::from_secs(retry.as_secs() + u64::from(retry.subsec_nanos() > 0)).max(Duration::from_secs(1))
}

impl From<ServeError> for tonic::Status {
    fn from(error: ServeError) -> Self {
        let mut status = Self::new(error.row().2, error.to_string());
        if let Some(retry) = error.retry() {
            let ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1);
            status.metadata_mut().insert(PUSHBACK, ms.into());
        }
        status
    }
}

impl IntoResponse for ServeError {
    fn into_response(self) -> Response {
        let body = axum::Json(serde_json::json!({ "error": self.to_string() }));
        let mut response = (self.row().1, body).into_response();
        if let Some(retry) = self.retry() {
            response.headers_mut().insert(header::RETRY_AFTER, after(&retry).as_secs().into());
        }
        if matches!(self, Self::Encoding(_)) {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        }
        response
    }
}
