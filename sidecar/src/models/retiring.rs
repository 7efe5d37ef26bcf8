//! Frees a model where freeing belongs.
//!
//! Whoever drops the last reference to a version pays for freeing its tensors, and
//! that may be a request which outlived a swap. This wrapper turns the drop into a
//! message to the loader.

use std::sync::Arc;

use sconce_catalog::Signature;

use crate::engine::{EngineError, Loader, Module, Output, Phases, State, Tensor};

pub(super) struct Retiring {
    /// `Some` until the drop.
    module: Option<Arc<dyn Module>>,
    loader: Loader,
    /// Whether it is one of many small ones.
    is_instance: bool,
}

impl Retiring {
    pub(super) fn new(module: Arc<dyn Module>, loader: Loader) -> Self {
        Self { module: Some(module), loader, is_instance: false }
    }

    fn instance_of(module: Arc<dyn Module>, loader: Loader) -> Self {
        Self { module: Some(module), loader, is_instance: true }
    }

    fn module(&self) -> &dyn Module {
        self.module.as_deref().expect("the module is taken only when this is dropped")
    }
}

impl Module for Retiring {
    fn signature(&self) -> &Signature {
        self.module().signature()
    }

    fn state(&self) -> State {
        self.module().state()
    }

    fn instance(&self) -> Result<Arc<dyn Module>, EngineError> {
        Ok(Arc::new(Self::instance_of(self.module().instance()?, self.loader.clone())))
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        self.module().forward(inputs)
    }

    fn forward_timed(
        &self,
        inputs: Vec<Option<Tensor>>,
        phases: &mut Phases,
    ) -> Result<Vec<Output>, EngineError> {
        self.module().forward_timed(inputs, phases)
    }
}

impl Drop for Retiring {
    fn drop(&mut self) {
        let Some(module) = self.module.take() else { return };
        if self.is_instance {
            // Others like it will want the memory.
            self.loader.drop_here(Box::new(module));
        } else {
            self.loader.free(Box::new(module));
        }
    }
}
