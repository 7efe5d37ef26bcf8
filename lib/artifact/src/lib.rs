//! The TorchScript archive: entries, chunks, signature, and the pre-check of its code.
//!
//! Synchronous and without libtorch, so that the command line, the control plane and
//! the sidecar all judge a file the same way before anything is loaded.

mod assembly;
mod check;
mod chunk;
mod code;
mod contents;
mod directory;
mod labels;
mod pickle;
mod signature;

pub use assembly::{Assembly, AssemblyError};
pub use check::{Checked, Limits, Rejection, precheck};
pub use chunk::{CHUNK, ChunkError, LARGE_ENTRY, artifact_digest, chunk_file, digest};
pub use directory::ArchiveError;
pub use labels::{Labels, labels};
pub use signature::{SignatureError, discover};
