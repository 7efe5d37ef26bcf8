//! What a model is, in the terms of Triton's model configuration: the extension of that name.
//!
//! A sidecar has no such file. What is said here comes from the signature, from what is declared of
//! its rows and from the sidecar's limits, so that clients which plan by it, such as perf_analyzer,
//! plan by what is true.

use std::time::Duration;

use sconce_catalog::{Datatype, Field, Kind};

use super::{Server, error::ServeError, inputs};

/// Triton's name for what runs TorchScript, beside the one that the protocol itself has for it.
pub(super) const PLATFORM: &str = "pytorch_libtorch";
/// The name of the backend that it is in Triton.
pub(super) const BACKEND: &str = "pytorch";

/// One version's configuration.
pub(super) struct ModelConfig {
    /// As the caller spells it.
    pub(super) name: String,
    /// Rows of the largest batch; 0 where rows of several requests do not run as one. Where it is not
    /// 0, dimension 0 is not among the dimensions below.
    pub(super) max_batch_size: i32,
    pub(super) inputs: Vec<TensorConfig>,
    pub(super) outputs: Vec<TensorConfig>,
    /// How often it may run at once.
    pub(super) runs: i32,
    /// Requests that may wait for it.
    pub(super) queue: u32,
    /// How long a request may take that does not say.
    pub(super) timeout: Duration,
}

/// One input or output.
pub(super) struct TensorConfig {
    pub(super) name: String,
    /// `None` where nobody says.
    pub(super) datatype: Option<Datatype>,
    /// -1 is of variable size.
    pub(super) dims: Vec<i64>,
    pub(super) optional: bool,
}

impl Server {
    /// Tells the configuration of the version named, else of the one with the largest share.
    pub(super) fn model_config(
        &self,
        spelled: &str,
        version: Option<&str>,
    ) -> Result<ModelConfig, ServeError> {
        let set = self.0.live.snapshot();
        let (_, model) = self.model(&set, spelled)?;
        let served = self.described(model, spelled, version)?;
        let (queue, limits) = (&served.queue, &self.0.config.limits);
        let batches = queue.batches();
        let tensors = |fields: &[Field]| fields.iter().map(|field| tensor(field, batches)).collect();
        let signature = queue.module().signature();
        let runs = if queue.module().is_stateful() { 1 } else { limits.runs };
        Ok(ModelConfig {
            name: spelled.to_owned(),
            max_batch_size: if batches { capped(limits.batch_rows) } else { 0 },
            inputs: tensors(&signature.inputs),
            outputs: tensors(&signature.outputs),
            runs: capped(runs),
            queue: u32::try_from(limits.queue).unwrap_or(u32::MAX),
            timeout: self.0.config.default_timeout,
        })
    }
}

fn capped(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn tensor(field: &Field, batches: bool) -> TensorConfig {
    let mut dims = inputs::sizes(field);
    // Numbers and texts go with a request as a whole, and have no rows.
    if batches && field.kind == Kind::Tensor && !dims.is_empty() {
        dims.remove(0);
        // Where not even the number of dimensions is known, the one that stands for them was taken.
        if field.shape.is_none() {
            dims.push(-1);
        }
    }
    TensorConfig {
        name: field.name.clone(),
        datatype: inputs::datatype(field),
        dims,
        optional: field.optional,
    }
}

/// Triton's name for a datatype.
pub(super) const fn type_name(datatype: Option<Datatype>) -> &'static str {
    match datatype {
        None => "TYPE_INVALID",
        Some(Datatype::Bool) => "TYPE_BOOL",
        Some(Datatype::Uint8) => "TYPE_UINT8",
        Some(Datatype::Uint16) => "TYPE_UINT16",
        Some(Datatype::Uint32) => "TYPE_UINT32",
        Some(Datatype::Uint64) => "TYPE_UINT64",
        Some(Datatype::Int8) => "TYPE_INT8",
        Some(Datatype::Int16) => "TYPE_INT16",
        Some(Datatype::Int32) => "TYPE_INT32",
        Some(Datatype::Int64) => "TYPE_INT64",
        Some(Datatype::Fp16) => "TYPE_FP16",
        Some(Datatype::Bf16) => "TYPE_BF16",
        Some(Datatype::Fp32) => "TYPE_FP32",
        Some(Datatype::Fp64) => "TYPE_FP64",
        Some(Datatype::Bytes) => "TYPE_STRING",
    }
}
