//! The TorchScript archive: entries, chunks, signature, and the pre-check of its code.
//!
//! Synchronous and without libtorch, so that the command line, the control plane and
//! the sidecar all judge a file the same way before anything is loaded.

mod assembly;
mod chunk;
mod directory;

pub use assembly::{Assembly, AssemblyError};
pub use chunk::{CHUNK, ChunkError, LARGE_ENTRY, artifact_digest, chunk_file, digest};
pub use directory::ArchiveError;
