//! Between a file and its chunks: reads a chunk back out, writes one into its places.
//!
//! Every chunk is checked against its digest on the way, in both directions, so a
//! file that was changed while it was pushed or damaged on the way is noticed here.

use std::{fs::File, io, os::unix::fs::FileExt};

use sconce_catalog::{ChunkRef, Digest, Manifest};

use crate::chunk::digest;

/// A manifest, and where in the file the bytes of each chunk go.
#[derive(Clone, Debug)]
pub struct Assembly {
    manifest: Manifest,
    /// All places, grouped by chunk.
    places: Vec<Place>,
    /// Where the places of each chunk begin, and one more for the end.
    first: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    in_file: u64,
    in_chunk: u32,
    length: u32,
}

/// Why a chunk was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The manifest has fewer chunks.
    #[error("chunk {0} does not exist: the artifact has {1} chunks")]
    Unknown(usize, usize),
    /// The bytes are not the chunk's.
    #[error(
        "chunk {chunk} should be {expected} and is {found}: its bytes were changed or damaged on the way"
    )]
    Digest {
        /// Its number.
        chunk: usize,
        /// What the manifest says.
        expected: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// No bytes of the chunk were wanted in a part of it, so that it cannot be read back.
    #[error("chunk {0} is only partly used by the artifact, so it cannot be read back from it")]
    Partial(usize),
    /// The file could not be read or written.
    #[error("the artifact's file cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl Assembly {
    /// Works out the places of every chunk.
    pub fn new(manifest: Manifest) -> Self {
        let mut first = vec![0; manifest.chunks().len() + 1];
        for piece in manifest.pieces() {
            first[piece.chunk as usize + 1] += 1;
        }
        for chunk in 1..first.len() {
            first[chunk] += first[chunk - 1];
        }
        let mut next = first.clone();
        let mut places = vec![Place::default(); manifest.pieces().len()];
        for (in_file, _, piece) in manifest.layout() {
            let slot = &mut next[piece.chunk as usize];
            places[*slot] = Place { in_file, in_chunk: piece.offset, length: piece.length };
            *slot += 1;
        }
        Self { manifest, places, first }
    }

    /// What is being assembled.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of the chunk with this digest.
    pub fn chunk_with(&self, digest: &Digest) -> Option<usize> {
        self.manifest.chunks().iter().position(|chunk| chunk.digest == *digest)
    }

    /// The bytes of a chunk, out of a file that holds the artifact or a part of it.
    ///
    /// # Errors
    /// Where the file's bytes are not the chunk's.
    pub fn read_chunk(&self, file: &File, chunk: usize) -> Result<Vec<u8>, AssemblyError> {
        let (wanted, places) = self.chunk(chunk)?;
        let mut bytes = vec![0; wanted.size as usize];
        let mut covered = Vec::with_capacity(places.len());
        for place in places {
            let end = place.in_chunk + place.length;
            // A chunk that is used many times over is read once, not once a use.
            if covered.last().is_some_and(|&(from, to)| from <= place.in_chunk && end <= to) {
                continue;
            }
            file.read_exact_at(&mut bytes[place.in_chunk as usize..end as usize], place.in_file)?;
            covered.push((place.in_chunk, end));
        }
        covered.sort_unstable();
        let reach = covered.iter().try_fold(0, |reach, &(from, to)| (from <= reach).then_some(reach.max(to)));
        if reach != Some(wanted.size) {
            return Err(AssemblyError::Partial(chunk));
        }
        verify(chunk, wanted, &bytes)?;
        Ok(bytes)
    }

    /// Writes a chunk into every place of the file that it belongs to.
    ///
    /// # Errors
    /// Where the bytes are not the chunk's; then nothing is written.
    pub fn write_chunk(&self, file: &File, chunk: usize, bytes: &[u8]) -> Result<(), AssemblyError> {
        let (wanted, places) = self.chunk(chunk)?;
        verify(chunk, wanted, bytes)?;
        for place in places {
            let part = &bytes[place.in_chunk as usize..(place.in_chunk + place.length) as usize];
            file.write_all_at(part, place.in_file)?;
        }
        Ok(())
    }

    /// For every chunk, whether all of its places in the file already hold it, for
    /// resuming after an interruption. Reads the whole file once.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn present_chunks(&self, file: &File) -> Result<Vec<bool>, AssemblyError> {
        (0..self.manifest.chunks().len()).map(|chunk| self.is_present(file, chunk)).collect()
    }

    fn is_present(&self, file: &File, chunk: usize) -> Result<bool, AssemblyError> {
        let bytes = match self.read_chunk(file, chunk) {
            Ok(bytes) => bytes,
            Err(AssemblyError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(AssemblyError::Io(error));
            }
            Err(_) => return Ok(false),
        };
        let mut there = Vec::new();
        for place in self.chunk(chunk)?.1 {
            there.resize(place.length as usize, 0);
            match file.read_exact_at(&mut there, place.in_file) {
                Ok(()) if there == bytes[place.in_chunk as usize..][..there.len()] => {}
                Ok(()) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn chunk(&self, chunk: usize) -> Result<(ChunkRef, &[Place]), AssemblyError> {
        let chunks = self.manifest.chunks();
        let wanted = chunks.get(chunk).ok_or(AssemblyError::Unknown(chunk, chunks.len()))?;
        Ok((*wanted, &self.places[self.first[chunk]..self.first[chunk + 1]]))
    }
}

fn verify(chunk: usize, wanted: ChunkRef, bytes: &[u8]) -> Result<(), AssemblyError> {
    let found = digest(bytes);
    if found == wanted.digest && bytes.len() == wanted.size as usize {
        return Ok(());
    }
    Err(AssemblyError::Digest { chunk, expected: wanted.digest, found })
}
