//! Where models run: the seam between serving and the inference threads.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::engine::{Module, Output, Permit, Pool, RunError, Tensor};

/// Runs models somewhere else than on the calling thread.
pub trait Run: Send + Sync + 'static {
    /// Runs the model on inputs in the order of its signature, if the permit still stands by
    /// then. Dropping the future gives the request up.
    fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
        permit: Option<Permit>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>>;
}

impl Run for Pool {
    fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
        permit: Option<Permit>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let pool = self.clone();
        Box::pin(async move { Pool::run(&pool, module, inputs, permit).await })
    }
}
