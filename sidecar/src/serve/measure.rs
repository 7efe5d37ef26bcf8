//! Counts and times requests.
//!
//! A [`Measure`] is begun when a request has been read and reports when it is dropped,
//! so that a caller who goes away is counted too.

use std::time::Instant;

use http::{Extensions, HeaderMap, header};
use sconce_catalog::Lane;
use sconce_telemetry::names;

use super::error::ServeError;

/// What a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

/// One request from its last byte to the first of its reply.
pub(super) struct Measure {
    protocol: Protocol,
    lane: Lane,
    began: Instant,
    model: String,
    version: String,
    outcome: &'static str,
}

impl Protocol {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if kind.starts_with(b"application/grpc") { Self::Grpc } else { Self::Http }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

impl Measure {
    pub(super) fn begin(protocol: Protocol, lane: Lane) -> Self {
        metrics::gauge!(names::REQUESTS_IN_FLIGHT).increment(1.0);
        // No model yet: a name that callers choose freely must not become a label.
        Self {
            protocol,
            lane,
            began: Instant::now(),
            model: String::new(),
            version: String::new(),
            outcome: "cancelled",
        }
    }

    /// The model and the version that answer, which are known to exist.
    pub(super) fn picked(&mut self, model: &str, version: &str) {
        model.clone_into(&mut self.model);
        version.clone_into(&mut self.version);
    }

    /// How it ended.
    pub(super) fn ended<T>(&mut self, result: &Result<T, ServeError>) {
        self.outcome = result.as_ref().map_or_else(ServeError::label, |_| "ok");
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        metrics::gauge!(names::REQUESTS_IN_FLIGHT).decrement(1.0);
        let (model, version, protocol) = (self.model.clone(), self.version.clone(), self.protocol.label());
        metrics::counter!(names::REQUESTS, "model" => model.clone(), "version" => version.clone(),
            "lane" => self.lane.as_str(), "protocol" => protocol, "outcome" => self.outcome)
        .increment(1);
        metrics::histogram!(names::REQUEST_SECONDS, "model" => model, "version" => version,
            "protocol" => protocol)
        .record(self.began.elapsed());
    }
}

/// The lane that a request came by: the port that took it says so.
pub(super) fn lane(extensions: &Extensions) -> Lane {
    // Only the live lane has other ways in than its port.
    extensions.get().copied().unwrap_or(Lane::Live)
}

/// Counts a request that was refused before it was read.
pub(super) fn refused(protocol: Protocol, lane: Lane, error: &ServeError) {
    metrics::counter!(names::REQUESTS, "model" => "", "version" => "", "lane" => lane.as_str(),
        "protocol" => protocol.label(), "outcome" => error.label())
    .increment(1);
}
