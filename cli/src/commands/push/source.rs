//! The file that is pushed, as chunks. It is read twice, once to learn its digests and
//! once to send what is missing, and never held whole.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use futures::Stream;
use sconce_catalog::{ChunkRef, Digest, Manifest};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

use super::progress::Progress;
use crate::failure::{Failure, chain};

/// Chunks read ahead of the network.
const AHEAD: usize = 4;

/// A file and its chunks.
pub(super) struct Source {
    path: PathBuf,
    file: File,
    manifest: Manifest,
}

impl Source {
    /// Reads a file and learns its chunks.
    pub(super) async fn open(path: PathBuf) -> Result<Self, Failure> {
        let reading = tokio::task::spawn_blocking(move || {
            let failed = |why: String| Failure::failed(format!("{}: {why}", path.display()));
            let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
            let manifest = sconce_artifact::chunk_file(&file).map_err(|error| {
                failed(chain(&error)).hint("push the file that `torch.jit.save` or `ScriptModule.save` wrote")
            })?;
            Ok(Self { path, file, manifest })
        });
        reading.await.unwrap_or_else(|error| Err(Failure::failed(format!("reading stopped: {error}"))))
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of those chunks.
    pub(super) fn size_of(&self, chunks: &HashSet<Digest>) -> u64 {
        let wanted = self.manifest.chunks().iter().filter(|chunk| chunks.contains(&chunk.digest));
        wanted.map(|chunk| u64::from(chunk.size)).sum()
    }

    /// Those chunks, in file order, and how reading them went.
    pub(super) fn read(
        self: Arc<Self>,
        wanted: HashSet<Digest>,
        progress: Progress,
    ) -> (impl Stream<Item = (Digest, Bytes)> + use<>, JoinHandle<Result<(), Failure>>) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            let places = self.places();
            for (index, chunk) in self.manifest.chunks().iter().enumerate() {
                if !wanted.contains(&chunk.digest) {
                    continue;
                }
                let bytes = self.chunk(*chunk, &places[&(index as u32)])?;
                if sender.blocking_send((chunk.digest, bytes)).is_err() {
                    return Ok(());
                }
                progress.sent(u64::from(chunk.size));
            }
            Ok(())
        });
        (ReceiverStream::new(receiver), reading)
    }

    /// Where in the file the bytes of each chunk are: file offset, offset in the chunk,
    /// length.
    fn places(&self) -> HashMap<u32, Vec<(u64, usize, usize)>> {
        let mut places: HashMap<u32, Vec<(u64, usize, usize)>> = HashMap::new();
        for (at, _, piece) in self.manifest.layout() {
            let place = (at, piece.offset as usize, piece.length as usize);
            let of_chunk = places.entry(piece.chunk).or_default();
            // Equal parts of a file share a chunk: read them once.
            if !of_chunk.iter().any(|(_, offset, _)| *offset == place.1) {
                of_chunk.push(place);
            }
        }
        places
    }

    fn chunk(&self, chunk: ChunkRef, places: &[(u64, usize, usize)]) -> Result<Bytes, Failure> {
        let failed = |why: String| Failure::failed(format!("{}: {why}", self.path.display()));
        let mut bytes = vec![0; chunk.size as usize];
        for (at, offset, length) in places {
            let part = &mut bytes[*offset..offset + length];
            self.file.read_exact_at(part, *at).map_err(|error| failed(error.to_string()))?;
        }
        if sconce_artifact::digest(&bytes) != chunk.digest {
            return Err(failed("the file changed while it was pushed".into())
                .hint("repeat the command when whatever writes it is done"));
        }
        Ok(bytes.into())
    }
}
