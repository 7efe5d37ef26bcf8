//! Frees a model where freeing belongs.
//!
//! Whoever drops the last reference to a version pays for freeing its tensors, and
//! that may be a request which outlived a swap. This wrapper turns the drop into a
//! message to the loader.

use std::sync::Arc;

use sconce_catalog::Signature;

use crate::engine::{EngineError, Loader, Module, Output, Phases, Tensor};

pub(super) struct Retiring {
    /// `Some` until the drop.
    module: Option<Arc<dyn Module>>,
    loader: Loader,
}

impl Retiring {
    pub(super) fn new(module: Arc<dyn Module>, loader: Loader) -> Self {
        Self { module: Some(module), loader }
    }

    fn module(&self) -> &dyn Module {
        self.module.as_deref().expect("the module is taken only when this is dropped")
    }
}

impl Module for Retiring {
    fn signature(&self) -> &Signature {
        self.module().signature()
    }

    fn is_stateful(&self) -> bool {
        self.module().is_stateful()
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
        if let Some(module) = self.module.take() {
            self.loader.free(Box::new(module));
        }
    }
}
