//! Where models run: the seam between serving and the inference threads.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::engine::{Module, Output, Pool, RunError, Tensor};

/// Runs models somewhere else than on the calling thread.
pub trait Run: Send + Sync + 'static {
    /// Runs the model on inputs in the order of its signature. Dropping the future gives
    /// the request up.
    fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>>;
}

impl Run for Pool {
    fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let pool = self.clone();
        Box::pin(async move { Pool::run(&pool, module, inputs).await })
    }
}
