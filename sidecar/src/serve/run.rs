//! Where models run: the seam between serving and the inference threads.

use futures::future::BoxFuture;

use crate::engine::{Output, Pool, Queue, RunError, Work};

/// Runs models somewhere else than on the calling thread.
pub trait Run: Send + Sync + 'static {
    /// Runs the version whose queue this is, on the terms of the request. Dropping the future gives
    /// the request up.
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>>;
}

impl Run for Pool {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let (pool, queue) = (self.clone(), queue.clone());
        Box::pin(async move { Pool::run(&pool, &queue, work).await })
    }
}
