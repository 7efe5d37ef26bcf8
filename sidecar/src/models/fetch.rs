//! Brings an artifact onto this machine, sending for no chunk that is here already.
//!
//! Chunks are taken, in this order, from what an interrupted try left behind, from the
//! other artifacts on disk, and from the origin. Each is verified once, where it
//! arrives, and written straight into the artifact's file.

use std::{
    collections::HashMap,
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use sconce_artifact::{Assembly, AssemblyError, artifact_digest};
use sconce_catalog::{Digest, Manifest};
use sconce_telemetry::names;

use super::disk::{Disk, DiskError};

/// Where chunks come from.
pub trait Origin: Send + Sync + 'static {
    /// The manifest of an artifact.
    fn manifest(&self, artifact: Digest) -> BoxFuture<'_, Result<Manifest, OriginError>>;

    /// These chunks of an artifact, in this order.
    fn chunks(
        &self,
        artifact: Digest,
        digests: Vec<Digest>,
    ) -> BoxStream<'static, Result<Bytes, OriginError>>;
}

/// The origin did not give what was asked for; worth another try later.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the control plane did not send it: {0}")]
pub struct OriginError(pub String);

/// Why an artifact could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The origin failed; worth another try.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The disk failed or is full; worth another try.
    #[error("the data folder cannot be used: {0}")]
    Disk(#[from] DiskError),
    /// The manifest is not the one that the version names.
    #[error("its manifest should be {expected} and is {found}")]
    Manifest {
        /// What the catalog says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A chunk is not what the manifest says, or cannot be written.
    #[error(transparent)]
    Chunk(#[from] AssemblyError),
    /// The origin sent fewer chunks than it was asked for.
    #[error("the control plane stopped {0} chunks short")]
    Short(usize),
}

/// An artifact that is here.
#[derive(Debug)]
pub struct Fetched {
    /// Its file.
    pub file: PathBuf,
    /// How many of its bytes had to come from the origin.
    pub moved: u64,
}

/// How many chunks are asked for at once: bounds what a lost stream costs.
const BATCH: usize = 256;

/// Brings the artifact here. `moved` counts bytes from the origin while they come.
///
/// # Errors
/// Where the origin, the disk or a digest fails. What had arrived by then stays, and the
/// next try goes on from there.
pub async fn fetch(
    disk: &Disk,
    origin: &dyn Origin,
    artifact: Digest,
    moved: &AtomicU64,
) -> Result<Fetched, FetchError> {
    if let Some(file) = disk.artifact(&artifact) {
        return Ok(Fetched { file, moved: 0 });
    }
    let manifest = origin.manifest(artifact).await?;
    let found = artifact_digest(&manifest);
    if found != artifact {
        return Err(FetchError::Manifest { expected: artifact, found });
    }
    let (assembly, file) =
        (Arc::new(Assembly::new(manifest.clone())), disk.partial(&artifact, manifest.size())?);
    let file = Arc::new(file);
    let missing = {
        let (disk, assembly, file) = (disk.clone(), Arc::clone(&assembly), Arc::clone(&file));
        blocking(move || take_local(&disk, &assembly, &file)).await?
    };
    let mut total = 0;
    for batch in missing.chunks(BATCH) {
        total += take_remote(origin, &assembly, &file, batch, moved).await?;
    }
    let disk = disk.clone();
    let path = blocking(move || disk.complete(&artifact, &manifest, &file)).await?;
    Ok(Fetched { file: path, moved: total })
}

/// Fills in the chunks that are on this machine and returns the numbers of the others.
fn take_local(disk: &Disk, assembly: &Assembly, file: &File) -> Result<Vec<usize>, FetchError> {
    let present = assembly.present_chunks(file)?;
    let mut missing: HashMap<Digest, usize> = HashMap::new();
    for (number, chunk) in assembly.manifest().chunks().iter().enumerate() {
        if !present[number] {
            missing.insert(chunk.digest, number);
        }
    }
    for other in disk.artifacts() {
        if missing.is_empty() {
            break;
        }
        let (Some(path), Some(manifest)) = (disk.artifact(&other), disk.manifest(&other)) else { continue };
        let Ok(source) = File::open(path) else { continue };
        let theirs = Assembly::new(manifest);
        for (number, chunk) in theirs.manifest().chunks().iter().enumerate() {
            let Some(&wanted) = missing.get(&chunk.digest) else { continue };
            // A damaged neighbour is no reason to fail: the origin has the chunk too.
            let Ok(bytes) = theirs.read_chunk(&source, number) else { continue };
            assembly.write_chunk(file, wanted, &bytes)?;
            missing.remove(&chunk.digest);
        }
    }
    let mut missing: Vec<usize> = missing.into_values().collect();
    missing.sort_unstable();
    Ok(missing)
}

async fn take_remote(
    origin: &dyn Origin,
    assembly: &Arc<Assembly>,
    file: &Arc<File>,
    batch: &[usize],
    moved: &AtomicU64,
) -> Result<u64, FetchError> {
    let digests = batch.iter().map(|&number| assembly.manifest().chunks()[number].digest).collect();
    let mut stream = origin.chunks(artifact_digest(assembly.manifest()), digests);
    let mut total = 0;
    for (done, &number) in batch.iter().enumerate() {
        let bytes = stream.next().await.ok_or(FetchError::Short(batch.len() - done))??;
        let size = bytes.len() as u64;
        let (assembly, file) = (Arc::clone(assembly), Arc::clone(file));
        blocking(move || assembly.write_chunk(&file, number, &bytes)).await?;
        moved.fetch_add(size, Ordering::Relaxed);
        metrics::counter!(names::FETCHED_BYTES).increment(size);
        total += size;
    }
    Ok(total)
}

/// Hashing and writing are no work for a thread that answers requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl FetchError {
    /// Whether the same try may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            FetchError::Origin(_) | FetchError::Disk(_) | FetchError::Short(_) => true,
            FetchError::Chunk(error) => matches!(error, AssemblyError::Io(_)),
            FetchError::Manifest { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
