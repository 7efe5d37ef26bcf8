//! TorchScript through libtorch.
//!
//! `tch` links libtorch and steers it; the module itself is behind a shim of ours
//! (`torch/shim.cpp`), because tch leaks every input of a failing forward pass, hides
//! the schema, and cannot tell a module that changes itself.

mod ffi;
mod marshal;
mod reason;
mod schema;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use sconce_catalog::{Datatype, Signature};

use self::{
    ffi::{Failure, Item, Outcome, RawHandle},
    reason::reason,
};
use super::{Data, Engine, EngineError, Module, Output, Phases, State, Tensor};

/// libtorch, ready to load models.
#[derive(Debug)]
pub struct TorchEngine {
    /// Threads that one run may use.
    intra_op: i32,
}

/// One loaded module, or an instance of it.
struct TorchModule {
    handle: RawHandle,
    known: Arc<Known>,
    /// `Some` for a module that is changed when it runs: two threads in it at once would corrupt
    /// memory. Instances are such, and what cannot be copied.
    turn: Option<Mutex<()>>,
}

/// What a module and its instances have in common.
struct Known {
    signature: Signature,
    /// Which input goes to which argument of `forward`.
    places: Vec<Option<usize>>,
    state: State,
}

impl TorchEngine {
    /// Prepares libtorch for this process, with one thread for each run.
    pub fn new() -> Self {
        Self::with_threads(1)
    }

    /// Prepares libtorch for this process. Each run may use this many threads.
    ///
    /// Call it on a thread of normal priority: those that libtorch starts here inherit it.
    pub fn with_threads(intra_op: usize) -> Self {
        let intra_op = i32::try_from(intra_op).unwrap_or(i32::MAX);
        // The profiling executor makes the first runs of every version many times slower
        // and the later ones no faster.
        tch::jit::set_profiling_mode(false);
        // The setting is this thread's, and the default of every thread yet to come.
        tch::set_num_threads(intra_op);
        if let Err(error) = ffi::start() {
            tracing::warn!(error, "libtorch did not start its threads; models that fork may run slowly");
        }
        Self { intra_op }
    }
}

impl Default for TorchEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for TorchEngine {
    fn platform(&self) -> &'static str {
        "pytorch_torchscript"
    }

    fn prepare_thread(&self) {
        // One by default: on few cores, two runs with one thread each beat one with two. The setting
        // is a thread's own.
        tch::set_num_threads(self.intra_op);
    }

    fn load(&self, file: &Path, declared: &Signature) -> Result<Arc<dyn Module>, EngineError> {
        let handle = RawHandle::load(file).map_err(|error| EngineError::Load(reason(&error)))?;
        let schema = handle.schema().map_err(|error| EngineError::Load(reason(&error)))?;
        let places = schema::places(&schema, declared).map_err(EngineError::Load)?;
        let state = handle.state();
        if state == State::Shared {
            tracing::warn!(
                file = %file.display(),
                "the model changes what its copies would share, such as a constant of its code, so it has one \
                 state for all its callers, who take turns; make it a buffer for a state by sequence"
            );
        }
        let turn = (state == State::Shared).then(Mutex::default);
        let known = Arc::new(Known { signature: declared.clone(), places, state });
        Ok(Arc::new(TorchModule { handle, known, turn }))
    }

    fn release_memory(&self) {
        ffi::trim();
    }
}

impl TorchModule {
    fn run(&self, inputs: &[Option<Tensor>], phases: &mut Phases) -> Result<Vec<Output>, EngineError> {
        let began = Instant::now();
        let prepared = marshal::prepare(&self.known.signature, &self.known.places, inputs)?;
        // A panic inside leaves nothing half done on our side of the lock.
        let turn = self.turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let running = Instant::now();
        // SAFETY: `prepare` checked every tensor's size; `inputs` outlives the call.
        let outcome = unsafe { self.handle.forward(prepared.values()) };
        let ran = Instant::now();
        drop(turn);
        let outputs = outputs(outcome.map_err(|failure| match failure {
            Failure::Model(text) => EngineError::Model(reason(&text)),
            Failure::Unsendable(text) => EngineError::Output(text),
        })?);
        phases.input += running - began;
        phases.infer += ran - running;
        phases.output += ran.elapsed();
        outputs
    }

    fn copy(&self) -> Result<Self, EngineError> {
        let handle = self.handle.copy().map_err(|error| EngineError::Model(reason(&error)))?;
        Ok(Self { handle, known: Arc::clone(&self.known), turn: Some(Mutex::default()) })
    }
}

impl Module for TorchModule {
    fn signature(&self) -> &Signature {
        &self.known.signature
    }

    fn state(&self) -> State {
        self.known.state
    }

    fn instance(&self) -> Result<Arc<dyn Module>, EngineError> {
        Ok(Arc::new(self.copy()?))
    }

    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        self.forward_timed(inputs, &mut Phases::default())
    }

    fn forward_timed(
        &self,
        inputs: Vec<Option<Tensor>>,
        phases: &mut Phases,
    ) -> Result<Vec<Output>, EngineError> {
        // Only its instances run, so that each begins as the model was loaded.
        if self.known.state == State::Instance && self.turn.is_none() {
            let began = Instant::now();
            let copy = self.copy()?;
            phases.input += began.elapsed();
            return copy.run(&inputs, phases);
        }
        self.run(&inputs, phases)
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
    let outputs = (0..outcome.len()).map(|at| output(&outcome, at)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::with_capacity(outputs.len());
    // Two dicts in one tuple: a caller could not tell which of the two it has.
    match outputs.iter().find(|output| !seen.insert(&*output.name)) {
        Some(twice) => Err(EngineError::Output(format!("two outputs are called `{}`", twice.name))),
        None => Ok(outputs),
    }
}

fn output(outcome: &Arc<Outcome>, at: usize) -> Result<Output, EngineError> {
    let name = match outcome.name(at) {
        unnamed if unnamed.is_empty() => format!("OUTPUT__{at}"),
        named => named,
    };
    let tensor = match outcome.item(at) {
        Item::Strings(strings) => {
            let strings: Vec<Bytes> = strings.into_iter().map(Bytes::copy_from_slice).collect();
            let shape = vec![strings.len() as u64];
            Tensor { datatype: Datatype::Bytes, shape, data: Data::Strings(strings) }
        }
        Item::Tensor { scalar_type, shape } => Tensor {
            datatype: marshal::datatype(scalar_type).ok_or_else(|| {
                EngineError::Output(format!(
                    "output `{name}` has an element type that has no name on the wire"
                ))
            })?,
            shape: shape.iter().map(|size| size.unsigned_abs()).collect(),
            data: Data::Fixed(Bytes::from_owner(Elements { outcome: Arc::clone(outcome), at })),
        },
    };
    Ok(Output { name: name.into(), tensor })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What running each model in a folder changes, by its name.
    fn judged(folder: &str) -> Vec<(String, State)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(folder);
        let files = std::fs::read_dir(folder).expect("the models are there");
        let files = files.map(|file| file.expect("readable").path());
        let judge = |file: std::path::PathBuf| {
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let handle = RawHandle::load(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, handle.state())
        };
        files.filter(|file| file.extension().is_some_and(|extension| extension == "pt")).map(judge).collect()
    }

    #[test]
    fn a_model_that_changes_itself_is_found_out_whichever_way_it_takes() {
        let judged = judged("state");
        assert!(judged.len() > 10);
        for (name, state) in judged {
            let expected = match name.split_once('_').map(|(kind, _)| kind) {
                Some("changes") => State::Instance,
                Some("shares") => State::Shared,
                _ => State::None,
            };
            assert_eq!(state, expected, "{name}");
        }
    }

    #[test]
    fn a_model_that_only_writes_to_what_it_made_does_not_wait() {
        for (name, state) in judged("") {
            let keeps = ["counter", "accumulate", "streaming"].contains(&name.as_str());
            assert_eq!(state != State::None, keeps, "{name}");
        }
    }
}
