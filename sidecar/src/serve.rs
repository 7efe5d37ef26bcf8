//! Answers requests: the Open Inference Protocol v2 over HTTP and gRPC, on one service.
//!
//! [`stack`](stack()) lists the whole path of a request. HTTP and gRPC are two thin
//! translations onto one `Infer`; what it means to answer one is told once, in `infer`.

mod arguments;
mod authorise;
mod classify;
mod deadline;
mod describe;
mod error;
mod grpc;
mod http;
mod infer;
mod inputs;
mod measure;
mod model_config;
mod parameters;
mod pause;
mod raw;
mod repository;
mod routed;
mod run;
mod sequence;
mod sequences;
mod settings;
mod shared_memory;
mod stack;
mod statistics;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use sconce_lifecycle::Stopping;
use sconce_telemetry::Logs;
use tokio::sync::Semaphore;

use self::shared_memory::Regions;
pub use self::{
    run::Run,
    sequences::{SequenceLimits, Sequences},
    stack::stack,
};
use crate::{engine::Limits, models::live::Live};

/// What can be set about serving.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where a model named without a namespace is looked for.
    pub namespace: String,
    /// Largest request, in bytes; a larger one is refused before all of it is read.
    pub max_body_bytes: usize,
    /// Most requests at a time, over all connections; one more is refused at once.
    pub max_in_flight: usize,
    /// What the inference threads are told, for who asks.
    pub limits: Limits,
    /// How long an answer may take where the request does not say.
    pub default_timeout: Duration,
    /// How long a caller may pause within a body.
    pub longest_pause: Duration,
    /// Those that are running; whoever starts the server sees to it that idle ones end.
    pub sequences: Sequences,
    /// Fires when callers should go elsewhere.
    pub leaving: Stopping,
    /// The filter of the process's logs, where it has one.
    pub logs: Option<&'static Logs>,
    /// Fires when what is here should be finished and nothing more be read.
    pub stopping: Stopping,
    /// What the server calls itself in its metadata.
    pub server_name: String,
    /// Its version there.
    pub server_version: String,
    /// What runs the models, by the protocol's name for it.
    pub platform: &'static str,
}

/// Whether the process itself is fit to serve: it has an identity, and it is not stopping.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// What every request is answered from. Clones share it.
#[derive(Clone)]
struct Server(Arc<Parts>);

struct Parts {
    config: Config,
    live: Live,
    runner: Box<dyn Run>,
    regions: Regions,
    ready: Ready,
    /// As many as requests that may be here at a time.
    places: Arc<Semaphore>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            max_body_bytes: 64 << 20,
            max_in_flight: 1024,
            limits: Limits { runs: 1, queue: 256, batch_rows: 32, batch_target: None },
            default_timeout: Duration::from_secs(60),
            longest_pause: Duration::from_secs(30),
            sequences: Sequences::default(),
            leaving: Stopping::new(),
            logs: None,
            stopping: Stopping::new(),
            server_name: "sconce".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            platform: "pytorch_torchscript",
        }
    }
}

impl Server {
    /// Whether the process is fit to serve.
    ///
    /// Models have a probe each. One that cannot answer must not take every pod out of
    /// service, and with it the models that can.
    fn is_ready(&self) -> bool {
        (self.0.ready)()
    }
}
