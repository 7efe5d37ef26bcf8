//! The harness: real processes' `start`, real sockets, real mTLS, real libtorch.
//!
//! Nothing here stands in for a part of the product. Waits are conditions with patience.

pub mod archives;
mod client;
pub mod files;
pub mod istiod;
pub mod plaintext;
mod plane;
pub mod pulls;
pub mod workload_api;

use std::{future::Future, path::PathBuf, time::Duration};

pub use self::{
    client::{Client, Reply},
    plane::{Plane, Sidecar},
};

/// How long a condition may take to come true: much longer than it ever should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds, and says which one did not.
///
/// # Panics
/// When patience runs out.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !holds().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it never came true: {what}"));
}

/// A version of the digits example, by its folder's name.
pub fn digits(version: &str) -> PathBuf {
    repository().join("examples/digits/models").join(version).join("digits.pt")
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A request for the digits model: an image that no training set has.
pub fn image(seed: usize) -> serde_json::Value {
    let pixels: Vec<f64> = (0..64u32).map(|n| f64::from((n * 7 + seed as u32 * 13) % 17) / 16.0).collect();
    serde_json::json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": [1, 64], "data": pixels }] })
}
