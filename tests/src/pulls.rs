//! Asking for pulls, and what comes of them.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use sconce_proto::v1::{self, pull_version_response::State};
use tonic::{Code, Status};

use crate::{Plane, digits, files::Files};

/// The digest that a source is asked for by.
pub fn sha256(bytes: &[u8]) -> String {
    let found = digest(&SHA256, bytes);
    let digits: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// The bytes of a version of the digits example.
///
/// # Panics
/// Where it cannot be read.
pub fn example(version: &str) -> Bytes {
    std::fs::read(digits(version)).expect("the example").into()
}

/// A control plane that may pull from this server, wherever it is.
pub async fn plane_for(files: &Files) -> Plane {
    let sources = format!("public,https://{0}/,oci://{0}/", files.authority);
    let ca = files.ca().display().to_string();
    Plane::start_with(&[("SCONCE_SOURCES", &sources), ("SCONCE_SOURCES_CA", &ca)]).await
}

/// A version of the model `digits`.
pub fn wanted(version: &str, source: &str, digest: &str) -> v1::PullVersionRequest {
    v1::PullVersionRequest {
        model: "digits".into(),
        version: version.into(),
        source: source.into(),
        digest: digest.into(),
        ..Default::default()
    }
}

/// What comes of a pull, and what was told of it.
///
/// # Errors
/// As the control plane says.
///
/// # Panics
/// Where it says nothing.
pub async fn pull(
    plane: &Plane,
    wanted: v1::PullVersionRequest,
) -> Result<(v1::Pulled, Vec<v1::PullProgress>), Status> {
    let mut told = Vec::new();
    let mut messages = plane.registry().pull_version(wanted).await?.into_inner();
    while let Some(message) = messages.message().await? {
        match message.state.expect("something") {
            State::Progress(progress) => told.push(progress),
            State::Pulled(pulled) => return Ok((pulled, told)),
        }
    }
    panic!("it ended without an outcome: {told:?}");
}

/// Expects a pull to fail, and why.
///
/// # Panics
/// Where it does otherwise.
pub async fn refused(plane: &Plane, wanted: v1::PullVersionRequest, code: Code, says: &str) {
    let status = pull(plane, wanted).await.expect_err(says);
    assert!(status.code() == code && status.message().contains(says), "{says}: {status:?}");
}
