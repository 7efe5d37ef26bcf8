//! The sidecar's end of the control plane: one reconnecting stream, and what it is
//! asked for besides.

use std::error::Error as _;

pub mod issuer;
pub mod link;
mod origin;
mod report;
pub mod watch;

/// A status with its causes: "transport error" alone helps nobody.
fn describe(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
