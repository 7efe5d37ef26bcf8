//! Answers requests: the Open Inference Protocol over HTTP and gRPC, on one port.
//!
//! HTTP and gRPC are two thin translations onto one [`infer`] request; what it means to
//! answer one is written once, there.

mod error;
mod grpc;
mod http;
pub mod infer;
mod metadata;
mod stack;

use std::sync::Arc;

pub use self::{error::ServeError, stack::stack};
use crate::{engine::Pool, models::live::Live};

/// What serving is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where a model's name without a namespace is looked up.
    pub namespace: String,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// How many requests may be in hand at once; more are refused.
    pub max_in_flight: usize,
    /// What the models are run by, in the protocol's words.
    pub platform: &'static str,
}

/// What every handler reads.
#[derive(Clone)]
pub(crate) struct Server {
    config: Arc<Config>,
    live: Live,
    pool: Pool,
    /// Whether the process as a whole is ready.
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            max_body_bytes: 64 << 20,
            max_in_flight: 4096,
            platform: "pytorch_torchscript",
        }
    }
}

impl Server {
    /// Ready means that predictions can be answered: an identity, and the models settled
    /// at least once. A model that loads later makes nothing unready.
    fn is_ready(&self) -> bool {
        (self.ready)()
    }
}
