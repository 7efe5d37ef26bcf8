//! Why a pull did not bring a version: what went wrong, whose it is to mend, and what to do.

use std::error::Error;

use super::{
    address::{Address, Sha256},
    policy::Refusal,
};
use crate::api::ApiError;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It may not be pulled from, or leads where nothing may be pulled from.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The source does not let us in.
    #[error("{address} does not let us read it ({said}); check the credentials, and that they may read this")]
    Denied { address: String, said: String },
    /// The source has no such thing.
    #[error("{address} is not there ({said}); check the address")]
    Missing { address: String, said: String },
    /// The source does not answer, or not properly. It may do so later.
    #[error("{address} cannot be read: {said}")]
    Unreachable { address: String, said: String },
    /// It is not what was asked for.
    #[error(
        "{address} has other bytes than asked for: {found}, not {expected}; it was changed, or the digest is of another file"
    )]
    Digest { address: String, expected: Sha256, found: Sha256 },
    /// It is larger than an artifact may be.
    #[error("{address} is larger than {most} bytes, which is as much as a version may have")]
    TooLarge { address: String, most: u64 },
    /// It arrived, and is no model that can be served.
    #[error("{address} is no model that can be served: {said}")]
    NotAModel { address: String, said: String },
    /// The store does not take it.
    #[error(transparent)]
    Store(ApiError),
}

impl PullError {
    /// One word for machines, as a condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "InvalidSource",
            Self::Refused(_) => "SourceNotAllowed",
            Self::Denied { .. } => "SourceDenied",
            Self::Missing { .. } => "SourceMissing",
            Self::Unreachable { .. } => "SourceUnreachable",
            Self::Digest { .. } => "DigestMismatch",
            Self::TooLarge { .. } => "TooLarge",
            Self::NotAModel { .. } => "NotAModel",
            Self::Store(ApiError::Conflict(_)) => "Conflict",
            Self::Store(_) => "StoreFailed",
        }
    }

    /// Whether the same pull may well succeed later although nobody changes anything of it.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Missing { .. } | Self::Unreachable { .. } => true,
            Self::Store(error) => matches!(error, ApiError::Internal(_) | ApiError::Failed(_)),
            Self::Invalid(_)
            | Self::Refused(_)
            | Self::Digest { .. }
            | Self::TooLarge { .. }
            | Self::NotAModel { .. } => false,
        }
    }

    pub(super) fn unreachable(address: &Address, said: impl Into<String>) -> Self {
        Self::Unreachable { address: address.to_string(), said: said.into() }
    }

    /// What an answer other than success means.
    pub(super) fn status(address: &Address, status: http::StatusCode) -> Self {
        let (address, said) = (address.to_string(), format!("it answers {status}"));
        match status.as_u16() {
            401 | 403 => Self::Denied { address, said },
            404 | 410 => Self::Missing { address, said },
            _ => Self::Unreachable { address, said },
        }
    }

    /// What an error of a request means: ours, where we refused to go on.
    pub(super) fn request(address: &Address, error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return refusal.clone().into();
            }
            cause = error.source();
        }
        Self::unreachable(address, chain(error))
    }
}

/// An error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let text = error.to_string();
        match error {
            PullError::Store(error) => error,
            PullError::Missing { .. } => Self::NotFound(text),
            PullError::Denied { .. } | PullError::Unreachable { .. } => Self::Failed(text),
            PullError::Refused(_) => Self::Denied(text),
            PullError::Invalid(_)
            | PullError::Digest { .. }
            | PullError::TooLarge { .. }
            | PullError::NotAModel { .. } => Self::Invalid(text),
        }
    }
}
