//! How the bytes of an artifact are put together from chunks.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The recipe for one artifact: its chunks, and the pieces of them in file order.
///
/// The identity of an artifact is the digest of [`Manifest::canonical`], so that a
/// change of 1 MB in 500 MB never makes anyone hash the other 499 again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Manifest {
    chunks: Vec<ChunkRef>,
    pieces: Vec<Piece>,
    size: u64,
}

/// A content-addressed piece of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// BLAKE3 of the chunk's bytes.
    pub digest: Digest,
    /// In bytes; 1 to [`Manifest::MAX_CHUNK`].
    pub size: u32,
}

/// `length` bytes at `offset` of chunk number `chunk` come next in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Index into the manifest's chunks.
    pub chunk: u32,
    /// Where in the chunk the piece begins.
    pub offset: u32,
    /// How long it is, at least 1.
    pub length: u32,
}

/// A manifest that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the artifact's manifest does not add up: {0}")]
pub struct InvalidManifest(String);

impl Manifest {
    /// The largest chunk, in bytes.
    pub const MAX_CHUNK: u32 = 4 << 20;
    /// The largest artifact, in bytes: 256 GiB.
    pub const MAX_SIZE: u64 = 256 << 30;
    /// The most chunks or pieces of one artifact.
    pub const MAX_PARTS: usize = 1 << 20;

    /// The manifest made of these parts.
    ///
    /// # Errors
    /// Where a piece lies outside its chunk, a chunk is listed twice or used by no
    /// piece, or a size is out of bounds.
    pub fn new(chunks: Vec<ChunkRef>, pieces: Vec<Piece>) -> Result<Self, InvalidManifest> {
        let fail = |text: String| Err(InvalidManifest(text));
        if pieces.is_empty() {
            return fail("it is empty".into());
        }
        if chunks.len() > Self::MAX_PARTS || pieces.len() > Self::MAX_PARTS {
            return fail(format!(
                "{} chunks and {} pieces; the limit is {}",
                chunks.len(),
                pieces.len(),
                Self::MAX_PARTS
            ));
        }
        let mut seen = std::collections::HashSet::with_capacity(chunks.len());
        for (i, chunk) in chunks.iter().enumerate() {
            if chunk.size == 0 || chunk.size > Self::MAX_CHUNK {
                return fail(format!(
                    "chunk {i} has {} bytes; 1 to {} are allowed",
                    chunk.size,
                    Self::MAX_CHUNK
                ));
            }
            if !seen.insert(chunk.digest) {
                return fail(format!("chunk {i} is listed twice"));
            }
        }
        let mut used = vec![false; chunks.len()];
        let mut size = 0u64;
        for (i, piece) in pieces.iter().enumerate() {
            let Some(chunk) = chunks.get(piece.chunk as usize) else {
                return fail(format!(
                    "piece {i} names chunk {}, and there are {}",
                    piece.chunk,
                    chunks.len()
                ));
            };
            let end = u64::from(piece.offset) + u64::from(piece.length);
            if piece.length == 0 || end > u64::from(chunk.size) {
                return fail(format!("piece {i} lies outside its chunk"));
            }
            used[piece.chunk as usize] = true;
            size += u64::from(piece.length);
        }
        if let Some(i) = used.iter().position(|used| !used) {
            return fail(format!("chunk {i} is used by no piece"));
        }
        if size > Self::MAX_SIZE {
            return fail(format!("{size} bytes; the limit is {}", Self::MAX_SIZE));
        }
        Ok(Self { chunks, pieces, size })
    }

    /// The chunks, each once.
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// The pieces, in file order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of the whole artifact.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Each piece with the chunk it is cut from and its place in the file.
    pub fn layout(&self) -> impl Iterator<Item = (u64, ChunkRef, Piece)> + '_ {
        let mut at = 0;
        self.pieces.iter().map(move |piece| {
            let here = at;
            at += u64::from(piece.length);
            (here, self.chunks[piece.chunk as usize], *piece)
        })
    }

    /// The bytes whose digest names the artifact: a version line, then every chunk
    /// (digest, size) and every piece (chunk, offset, length), little-endian.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.chunks.len() * 36 + self.pieces.len() * 12);
        out.extend_from_slice(b"sconce-manifest-1\n");
        out.extend_from_slice(&(self.chunks.len() as u64).to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.digest.as_bytes());
            out.extend_from_slice(&chunk.size.to_le_bytes());
        }
        for piece in &self.pieces {
            for number in [piece.chunk, piece.offset, piece.length] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }
}

/// What is written to disk; reading it back goes through [`Manifest::new`].
#[derive(Serialize, Deserialize)]
struct Parts {
    chunks: Vec<ChunkRef>,
    pieces: Vec<Piece>,
}

impl TryFrom<Parts> for Manifest {
    type Error = InvalidManifest;

    fn try_from(parts: Parts) -> Result<Self, InvalidManifest> {
        Self::new(parts.chunks, parts.pieces)
    }
}

impl From<Manifest> for Parts {
    fn from(manifest: Manifest) -> Self {
        Self { chunks: manifest.chunks, pieces: manifest.pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(byte: u8, size: u32) -> ChunkRef {
        ChunkRef { digest: Digest::from_bytes([byte; 32]), size }
    }

    fn piece(chunk: u32, offset: u32, length: u32) -> Piece {
        Piece { chunk, offset, length }
    }

    #[test]
    fn layout_places_every_piece_after_the_one_before() {
        let manifest = Manifest::new(
            vec![chunk(1, 10), chunk(2, 5)],
            vec![piece(0, 0, 4), piece(1, 0, 5), piece(0, 4, 6)],
        )
        .expect("adds up");
        let starts: Vec<u64> = manifest.layout().map(|(at, _, _)| at).collect();
        assert_eq!((starts, manifest.size()), (vec![0, 4, 9], 15));
    }

    #[test]
    fn manifests_that_do_not_add_up_are_refused() {
        let cases: [(&str, Vec<ChunkRef>, Vec<Piece>); 7] = [
            ("empty", vec![], vec![]),
            ("no such chunk", vec![chunk(1, 4)], vec![piece(1, 0, 4)]),
            ("outside its chunk", vec![chunk(1, 4)], vec![piece(0, 2, 3)]),
            ("overflowing", vec![chunk(1, 4)], vec![piece(0, u32::MAX, 1)]),
            ("unused", vec![chunk(1, 4), chunk(2, 4)], vec![piece(0, 0, 4)]),
            ("listed twice", vec![chunk(1, 4), chunk(1, 4)], vec![piece(0, 0, 4), piece(1, 0, 4)]),
            ("too large", vec![chunk(1, Manifest::MAX_CHUNK + 1)], vec![piece(0, 0, 4)]),
        ];
        for (what, chunks, pieces) in cases {
            assert!(Manifest::new(chunks, pieces).is_err(), "{what}");
        }
    }

    #[test]
    fn different_orders_have_different_identities() {
        let chunks = vec![chunk(1, 4), chunk(2, 4)];
        let one = Manifest::new(chunks.clone(), vec![piece(0, 0, 4), piece(1, 0, 4)]).expect("adds up");
        let two = Manifest::new(chunks, vec![piece(1, 0, 4), piece(0, 0, 4)]).expect("adds up");
        assert_ne!(one.canonical(), two.canonical());
    }
}
