//! What runs a model: the seam between serving and a tensor library.
//!
//! Everything above this line speaks of [`Tensor`]s as bytes with a datatype and a
//! shape; only `engine/torch` knows libtorch. The traits are synchronous and
//! object-safe: a forward pass is CPU work, and it runs on threads of its own.

mod batch;
mod estimate;
pub mod instance;
mod loader;
mod meters;
mod pool;
mod queue;
mod run;
mod schedule;
mod tallies;
pub mod torch;
mod warm;
mod work;

use std::{path::Path, sync::Arc, time::Instant};

use bytes::Bytes;
use sconce_catalog::{Datatype, Signature};

pub use self::{
    instance::{Instance, Turn},
    loader::Loader,
    pool::Pool,
    queue::Queue,
    schedule::Limits,
    tallies::{MOST_ROWS, Phases, Statistics, Total},
    work::{Permit, Priority, RunError, Work},
};

/// A tensor library that loads models from files.
pub trait Engine: Send + Sync + 'static {
    /// The Open Inference Protocol's name for what it runs, such as `pytorch_torchscript`.
    fn platform(&self) -> &'static str;

    /// Makes the calling thread fit to run models. Called once on each, before anything else.
    fn prepare_thread(&self);

    /// Loads the model in this file. `declared` is what the catalog says of it.
    ///
    /// Blocks for as long as loading takes, so it belongs on a loader thread.
    ///
    /// # Errors
    /// Where the file is no model, or its code contradicts `declared`.
    fn load(&self, file: &Path, declared: &Signature) -> Result<Arc<dyn Module>, EngineError>;

    /// Hands memory that dropped models have left behind back to the system.
    fn release_memory(&self);
}

/// A loaded model, shared by all requests, or an instance of one.
pub trait Module: Send + Sync + 'static {
    /// Inputs in the order [`forward`](Module::forward) wants them.
    fn signature(&self) -> &Signature;

    /// What running it changes.
    fn state(&self) -> State {
        State::None
    }

    /// Whether it keeps anything from one run to the next: then its rows are not independent,
    /// whatever anybody declares.
    fn is_stateful(&self) -> bool {
        self.state() != State::None
    }

    /// The same model with a state of its own, which is the one that the model was loaded with. Each
    /// run of the instance changes that state, and no other's.
    ///
    /// Costs memory for what running it changes, and the time to copy that.
    ///
    /// # Errors
    /// Where its state is not [`State::Instance`], or there is no memory for it.
    fn instance(&self) -> Result<Arc<dyn Module>, EngineError> {
        Err(EngineError::Model("it has no state that an instance could have for itself".to_owned()))
    }

    /// Runs the model on inputs in the order of [`signature`](Module::signature);
    /// `None` stands for an optional input that was left out.
    ///
    /// A model with [instances](Module::instance) begins each time as it was loaded; an instance goes
    /// on from its last run.
    ///
    /// # Errors
    /// Where the inputs do not suit the model or its code fails on them.
    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError>;

    /// The same, and how long each part of it took; all of it counts as the model's own time where
    /// the parts cannot be told apart.
    ///
    /// # Errors
    /// As [`forward`](Module::forward).
    fn forward_timed(
        &self,
        inputs: Vec<Option<Tensor>>,
        phases: &mut Phases,
    ) -> Result<Vec<Output>, EngineError> {
        let began = Instant::now();
        let outcome = self.forward(inputs);
        phases.infer += began.elapsed();
        outcome
    }
}

/// What running a model changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    None,
    /// The instance that runs. Others know nothing of it.
    Instance,
    /// Something that all instances would share: one run at a time, and one state for all callers.
    Shared,
}

/// A tensor as it travels: row-major, little-endian, dense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Type of every element.
    pub datatype: Datatype,
    /// Sizes of the dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// The elements.
    pub data: Data,
}

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of a datatype with a fixed width: exactly elements × width bytes.
    Fixed(Bytes),
    /// Of BYTES: one entry an element.
    Strings(Vec<Bytes>),
}

/// One named result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The model's own name for it (a dict key), else `OUTPUT__<index>`.
    pub name: Arc<str>,
    /// Its value.
    pub tensor: Tensor,
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file is no model, or not one that can be served. The pusher's fault.
    #[error("the model cannot be loaded: {0}")]
    Load(String),
    /// The inputs do not suit the model. The caller's fault.
    #[error("{0}")]
    Input(String),
    /// The model's own code failed on these inputs, with the library's first line of why.
    #[error("the model failed: {0}")]
    Model(String),
    /// The model gave something that has no form on the wire. The pusher's fault.
    #[error("the model's result cannot be sent: {0}")]
    Output(String),
}

impl Tensor {
    /// Number of elements its shape asks for; `None` where that overflows.
    pub fn elements(shape: &[u64]) -> Option<usize> {
        shape.iter().try_fold(1usize, |n, size| n.checked_mul(usize::try_from(*size).ok()?))
    }
}
