//! TorchScript through libtorch.
//!
//! `tch` links libtorch and steers it; the module itself is behind a shim of ours
//! (`torch/shim.cpp`), because tch leaks every input of a failing forward pass, hides
//! the schema, and cannot tell a module that changes itself.

mod ffi;
mod marshal;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use sconce_catalog::{Kind, Signature};

use self::ffi::{Item, Outcome, RawHandle};
use super::{Data, Engine, EngineError, Module, Output, Tensor};

/// libtorch, ready to load models.
#[derive(Debug, Default)]
pub struct TorchEngine(());

/// One loaded module.
struct TorchModule {
    handle: RawHandle,
    signature: Signature,
    /// `Some` for a module that changes itself when it runs: two threads in it at once
    /// would corrupt memory, so they take turns.
    turn: Option<Mutex<()>>,
}

impl TorchEngine {
    /// Prepares libtorch for this process.
    pub fn new() -> Self {
        // The profiling executor makes the first runs of every version many times slower
        // and the later ones no faster.
        tch::jit::set_profiling_mode(false);
        Self(())
    }
}

impl Engine for TorchEngine {
    fn platform(&self) -> &'static str {
        "pytorch_torchscript"
    }

    fn prepare_thread(&self) {
        // One request, one core: more threads a request are slower under load, and the
        // setting is a thread's own.
        tch::set_num_threads(1);
    }

    fn load(&self, file: &Path, declared: &Signature) -> Result<Arc<dyn Module>, EngineError> {
        let handle = RawHandle::load(file).map_err(|error| EngineError::Load(first_lines(&error)))?;
        let schema = handle.schema().map_err(|error| EngineError::Load(first_lines(&error)))?;
        agrees(&schema, declared).map_err(EngineError::Load)?;
        let turn = handle.is_stateful().then(|| Mutex::new(()));
        Ok(Arc::new(TorchModule { handle, signature: declared.clone(), turn }))
    }

    fn release_memory(&self) {
        ffi::trim();
    }
}

impl Module for TorchModule {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        let prepared = marshal::prepare(&self.signature, &inputs)?;
        // A panic inside leaves nothing half done on our side of the lock.
        let _turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: `prepare` checked every tensor's size; `inputs` outlives the call.
        let outcome = unsafe { self.handle.forward(prepared.values()) };
        outputs(outcome.map_err(|error| EngineError::Model(first_lines(&error)))?)
    }
}

/// The elements of one result, kept alive by whoever holds the bytes.
struct Elements {
    outcome: Arc<Outcome>,
    at: usize,
}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        self.outcome.data(self.at)
    }
}

fn outputs(outcome: Outcome) -> Result<Vec<Output>, EngineError> {
    let outcome = Arc::new(outcome);
    (0..outcome.len())
        .map(|at| {
            let name = match outcome.name(at) {
                unnamed if unnamed.is_empty() => format!("OUTPUT__{at}"),
                named => named,
            };
            let tensor = match outcome.item(at) {
                Item::Strings(strings) => {
                    let strings: Vec<Bytes> = strings.into_iter().map(Bytes::copy_from_slice).collect();
                    let shape = vec![strings.len() as u64];
                    Tensor { datatype: sconce_catalog::Datatype::Bytes, shape, data: Data::Strings(strings) }
                }
                Item::Tensor { scalar_type, shape } => Tensor {
                    datatype: marshal::datatype(scalar_type).ok_or_else(|| {
                        EngineError::Output(format!(
                            "output `{name}` has an element type that has no name on the wire"
                        ))
                    })?,
                    shape: shape.iter().map(|size| size.unsigned_abs()).collect(),
                    data: Data::Fixed(Bytes::from_owner(Elements { outcome: Arc::clone(&outcome), at })),
                },
            };
            Ok(Output { name: name.into(), tensor })
        })
        .collect()
}

/// Whether what the archive's code said is what libtorch found.
fn agrees(schema: &[(String, String, bool)], declared: &Signature) -> Result<(), String> {
    let names =
        |found: &[(String, String, bool)]| found.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    if schema.len() != declared.inputs.len() {
        let declared: Vec<&str> = declared.inputs.iter().map(|field| field.name.as_str()).collect();
        return Err(format!("its forward takes {:?}, and the catalog says {declared:?}", names(schema)));
    }
    for ((name, type_name, _), field) in schema.iter().zip(&declared.inputs) {
        let kind = kind(type_name)
            .ok_or_else(|| format!("argument `{name}` is {type_name}, which has no form on the wire"))?;
        if kind != field.kind {
            return Err(format!("argument `{name}` is {type_name}, and the catalog says {}", field.kind));
        }
    }
    Ok(())
}

fn kind(type_name: &str) -> Option<Kind> {
    let plain =
        type_name.strip_prefix("Optional[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(type_name);
    Some(match plain {
        "Tensor" => Kind::Tensor,
        "int" => Kind::Int,
        "float" => Kind::Float,
        "bool" => Kind::Bool,
        "str" => Kind::String,
        "List[str]" => Kind::StringList,
        "List[Tensor]" => Kind::TensorList,
        _ => return None,
    })
}

/// What a person needs of libtorch's message: the error, not the trace through the
/// model's code above it nor the notes below.
fn first_lines(message: &str) -> String {
    let last_error = message.lines().rev().find(|line| {
        line.split(':').next().is_some_and(|head| head.ends_with("Error") || head.ends_with("Exception"))
    });
    let line = last_error.or_else(|| message.lines().find(|line| !line.trim().is_empty()));
    let text = line.unwrap_or("libtorch gave no reason").trim();
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_down_to_the_error() {
        let long = "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent call last):\n  File \"x.py\", line 3\nRuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)\n";
        assert_eq!(
            first_lines(long),
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"
        );
        assert_eq!(first_lines("\n\nPytorchStreamReader failed\nmore"), "PytorchStreamReader failed");
        assert_eq!(first_lines(""), "libtorch gave no reason");
    }

    #[test]
    fn an_optional_tensor_is_a_tensor() {
        assert_eq!(kind("Optional[Tensor]"), Some(Kind::Tensor));
        assert_eq!(kind("Dict[str, Tensor]"), None);
    }
}
