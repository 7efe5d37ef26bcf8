//! Cuts an archive into chunks that stay the same where its tensors stay the same.
//!
//! Offsets move from export to export (the stem is part of every header), so large
//! entries are cut by their content. Headers and small entries, which change every
//! time, share one stream of their own: the skeleton.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use sconce_catalog::{ChunkRef, Digest, InvalidManifest, Manifest, Piece};

use crate::directory::{self, ArchiveError};

/// Entries with a payload at least this large get chunks of their own.
pub const LARGE_ENTRY: u64 = 4 << 10;
/// Where a large entry, and the skeleton, is cut.
pub const CHUNK: u32 = 1 << 20;

/// Why a file could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// It is no archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It could not be read.
    #[error("the model file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is larger than an artifact may be.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
}

/// The digest of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// The identity of an artifact: the digest of its manifest.
pub fn artifact_digest(manifest: &Manifest) -> Digest {
    digest(&manifest.canonical())
}

/// Cuts an archive into chunks, reading it once from start to end.
///
/// # Errors
/// Where the file is no zip archive or cannot be read.
pub fn chunk_file(file: &File) -> Result<Manifest, ChunkError> {
    let length = file.metadata()?.len();
    let large: Vec<_> = directory::read(file)?.into_iter().filter(|e| e.stored >= LARGE_ENTRY).collect();
    let mut reader = file;
    reader.seek(SeekFrom::Start(0))?;

    let mut cutter = Cutter { reader, skeleton: Vec::new(), parts: Parts::default() };
    let mut at = 0;
    for entry in large {
        cutter.skeleton(entry.start - at)?;
        cutter.entry(entry.stored)?;
        at = entry.start + entry.stored;
    }
    cutter.skeleton(length - at)?;
    cutter.flush();
    Ok(cutter.parts.into_manifest()?)
}

struct Cutter<'a> {
    reader: &'a File,
    /// What of the skeleton is not yet in a chunk.
    skeleton: Vec<u8>,
    parts: Parts,
}

impl Cutter<'_> {
    fn entry(&mut self, mut left: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK.min(u32::try_from(left).unwrap_or(CHUNK)) as usize];
        while left > 0 {
            let size = left.min(u64::from(CHUNK)) as usize;
            self.reader.read_exact(&mut buffer[..size])?;
            let chunk = self.parts.chunk(&buffer[..size]);
            self.parts.pieces.push((Source::Entry(chunk), 0, size as u32));
            left -= size as u64;
        }
        Ok(())
    }

    fn skeleton(&mut self, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let from = self.skeleton.len();
            let size = left.min(u64::from(CHUNK) - from as u64) as usize;
            self.skeleton.resize(from + size, 0);
            self.reader.read_exact(&mut self.skeleton[from..])?;
            self.parts.pieces.push((Source::Skeleton(self.parts.skeletons.len()), from as u32, size as u32));
            left -= size as u64;
            if self.skeleton.len() == CHUNK as usize {
                self.flush();
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.skeleton.is_empty() {
            let chunk = self.parts.chunk(&self.skeleton);
            self.parts.skeletons.push(chunk);
            self.skeleton.clear();
        }
    }
}

/// Which chunk a piece comes from. A chunk of the skeleton has no number until it is full.
enum Source {
    Entry(u32),
    Skeleton(usize),
}

#[derive(Default)]
struct Parts {
    chunks: Vec<ChunkRef>,
    numbers: HashMap<Digest, u32>,
    pieces: Vec<(Source, u32, u32)>,
    skeletons: Vec<u32>,
}

impl Parts {
    fn chunk(&mut self, bytes: &[u8]) -> u32 {
        let digest = digest(bytes);
        *self.numbers.entry(digest).or_insert_with(|| {
            self.chunks.push(ChunkRef { digest, size: bytes.len() as u32 });
            self.chunks.len() as u32 - 1
        })
    }

    fn into_manifest(self) -> Result<Manifest, InvalidManifest> {
        let pieces = self
            .pieces
            .into_iter()
            .map(|(source, offset, length)| {
                let chunk = match source {
                    Source::Entry(chunk) => chunk,
                    Source::Skeleton(number) => self.skeletons[number],
                };
                Piece { chunk, offset, length }
            })
            .collect();
        Manifest::new(self.chunks, pieces)
    }
}
