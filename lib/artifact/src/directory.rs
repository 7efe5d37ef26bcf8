//! Where the entries of a zip file lie, read strictly.
//!
//! Written here rather than taken from a crate because two readers that disagree
//! about a file are how a check is evaded: libtorch reads archives with miniz, so
//! whatever miniz might see differently (two directories, entries that overlap, a
//! local header that contradicts the directory) is refused instead of interpreted.

use std::{fs::File, io, os::unix::fs::FileExt};

const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

const END_SIZE: u64 = 22;
const END64_SIZE: u64 = 56;
const LOCATOR64_SIZE: u64 = 20;
const CENTRAL_SIZE: usize = 46;
const LOCAL_SIZE: usize = 30;

/// The largest central directory, in bytes: room for some 250,000 entries.
const MAX_DIRECTORY: u64 = 32 << 20;
const MAX_NAME: usize = 1024;
const ENCRYPTED: u16 = 1;

/// One entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Where its payload begins in the file.
    pub(crate) start: u64,
    /// Bytes of the payload as stored.
    pub(crate) stored: u64,
    /// Bytes of the payload once inflated.
    pub(crate) size: u64,
    pub(crate) deflated: bool,
    pub(crate) crc: u32,
}

/// Why a file is not an archive that can be trusted to mean one thing.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file could not be read.
    #[error("the model file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no zip directory at its end.
    #[error(
        "the file is no TorchScript archive, or it is cut short: it does not end with a zip directory; \
         save the model with `torch.jit.save` and copy the whole file"
    )]
    NotAnArchive,
    /// The directory contradicts itself or the file.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
}

/// The entries of an archive, in the order of their payloads.
pub(crate) fn read(file: &File) -> Result<Vec<Entry>, ArchiveError> {
    let length = file.metadata()?.len();
    let end = End::find(file, length)?;
    let mut bytes = vec![0; usize::try_from(end.size).map_err(|_| damaged("its directory is too large"))?];
    file.read_exact_at(&mut bytes, end.offset)?;

    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    for number in 0..end.count {
        let (entry, header) =
            central(&mut rest).map_err(|what| damaged(format!("entry {number}: {what}")))?;
        entries.push((header, entry));
    }
    if !rest.is_empty() {
        return Err(damaged("bytes are left over in its directory"));
    }
    // miniz goes by offsets, so order in the directory means nothing.
    entries.sort_by_key(|(header, _)| *header);
    let mut after = 0;
    let mut placed = Vec::with_capacity(entries.len());
    for (header, mut entry) in entries {
        entry.start = payload(file, header, &entry.name)?;
        if header < after {
            return Err(damaged(format!("entry `{}` overlaps the one before it", entry.name)));
        }
        after = entry.start.checked_add(entry.stored).filter(|end| *end <= length).ok_or_else(|| {
            damaged(format!(
                "entry `{}` declares {} bytes, which reach beyond the end of the file ({length} bytes)",
                entry.name, entry.stored
            ))
        })?;
        placed.push(entry);
    }
    if after > end.offset {
        return Err(damaged("an entry overlaps the directory"));
    }
    Ok(placed)
}

/// What the records at the end of a zip file say of its directory.
struct End {
    offset: u64,
    size: u64,
    count: u64,
}

impl End {
    fn find(file: &File, length: u64) -> Result<Self, ArchiveError> {
        let at = length.checked_sub(END_SIZE).ok_or(ArchiveError::NotAnArchive)?;
        let mut record = [0; END_SIZE as usize];
        file.read_exact_at(&mut record, at)?;
        // No search for a comment: torch writes none, and a search can find two ends.
        if record[..4] != END || u16_at(&record, 20) != 0 {
            return Err(ArchiveError::NotAnArchive);
        }
        let mut end = Self {
            count: u64::from(u16_at(&record, 10)),
            size: u64::from(u32_at(&record, 12)),
            offset: u64::from(u32_at(&record, 16)),
        };
        let mut limit = at;
        if let Some(place) = at.checked_sub(LOCATOR64_SIZE) {
            let mut locator = [0; LOCATOR64_SIZE as usize];
            file.read_exact_at(&mut locator, place)?;
            if locator[..4] == LOCATOR64 {
                limit = u64_at(&locator, 8);
                end = end.wide(file, limit, place)?;
            }
        }
        if end.size > MAX_DIRECTORY {
            return Err(damaged(format!(
                "its directory has {} bytes; the limit is {MAX_DIRECTORY}",
                end.size
            )));
        }
        if end.offset.checked_add(end.size) != Some(limit) {
            return Err(damaged("its directory is not where its end says"));
        }
        if end.count.saturating_mul(CENTRAL_SIZE as u64) > end.size {
            return Err(damaged(format!("it declares {} entries in {} bytes", end.count, end.size)));
        }
        Ok(end)
    }

    /// The 64-bit form, which torch always writes and miniz prefers.
    fn wide(self, file: &File, at: u64, locator: u64) -> Result<Self, ArchiveError> {
        if at.checked_add(END64_SIZE) != Some(locator) {
            return Err(damaged("its 64-bit end is not where its locator says"));
        }
        let mut record = [0; END64_SIZE as usize];
        file.read_exact_at(&mut record, at)?;
        if record[..4] != END64 {
            return Err(damaged("its 64-bit end is missing"));
        }
        let wide =
            Self { count: u64_at(&record, 32), size: u64_at(&record, 40), offset: u64_at(&record, 48) };
        let agrees = |narrow: u64, wide: u64, full: u64| narrow == full || narrow == wide;
        if !agrees(self.count, wide.count, u64::from(u16::MAX))
            || !agrees(self.size, wide.size, u64::from(u32::MAX))
            || !agrees(self.offset, wide.offset, u64::from(u32::MAX))
        {
            return Err(damaged("its two ends contradict each other"));
        }
        Ok(wide)
    }
}

/// Takes one record off the directory: the entry, and where its local header is.
fn central(rest: &mut &[u8]) -> Result<(Entry, u64), String> {
    let record = rest.get(..CENTRAL_SIZE).filter(|r| r[..4] == CENTRAL).ok_or("its record is missing")?;
    let (name, extra, comment) =
        (u16_at(record, 28) as usize, u16_at(record, 30) as usize, u16_at(record, 32) as usize);
    let whole = CENTRAL_SIZE + name + extra + comment;
    let record = rest.get(..whole).ok_or("its record is cut short")?;
    *rest = &rest[whole..];

    let (name, extra) = (&record[CENTRAL_SIZE..CENTRAL_SIZE + name], &record[CENTRAL_SIZE + name..][..extra]);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("its name has {} bytes; 1 to {MAX_NAME} are allowed", name.len()));
    }
    let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?.to_owned();
    if u16_at(record, 8) & ENCRYPTED != 0 {
        return Err(format!("`{name}` is encrypted"));
    }
    let deflated = match u16_at(record, 10) {
        0 => false,
        8 => true,
        other => return Err(format!("`{name}` is compressed by method {other}; only deflate is known")),
    };
    let mut wide = Wide::find(extra);
    let size = wide.replace(u32_at(record, 24))?;
    let stored = wide.replace(u32_at(record, 20))?;
    let header = wide.replace(u32_at(record, 42))?;
    if !deflated && size != stored {
        return Err(format!("`{name}` is stored in {stored} bytes and declares {size}"));
    }
    Ok((Entry { name, start: 0, stored, size, deflated, crc: u32_at(record, 16) }, header))
}

/// The 64-bit numbers that stand in for 32-bit ones that are all ones.
struct Wide<'a>(&'a [u8]);

impl<'a> Wide<'a> {
    fn find(mut extra: &'a [u8]) -> Self {
        while extra.len() >= 4 {
            let (id, size) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
            let Some(field) = extra.get(4..4 + size) else { break };
            if id == 1 {
                return Self(field);
            }
            extra = &extra[4 + size..];
        }
        Self(&[])
    }

    fn replace(&mut self, narrow: u32) -> Result<u64, String> {
        if narrow != u32::MAX {
            return Ok(u64::from(narrow));
        }
        let number = self.0.first_chunk::<8>().ok_or("its 64-bit size is missing")?;
        self.0 = &self.0[8..];
        Ok(u64::from_le_bytes(*number))
    }
}

/// Where the payload behind a local header begins.
fn payload(file: &File, header: u64, name: &str) -> Result<u64, ArchiveError> {
    let mut record = vec![0; LOCAL_SIZE + name.len()];
    let missing = || damaged(format!("entry `{name}` has no header of its own"));
    file.read_exact_at(&mut record, header).map_err(|_| missing())?;
    if record[..4] != LOCAL {
        return Err(missing());
    }
    if u16_at(&record, 26) as usize != name.len() || &record[LOCAL_SIZE..] != name.as_bytes() {
        return Err(damaged(format!("entry `{name}` has another name in its own header")));
    }
    Ok(header + (LOCAL_SIZE + name.len()) as u64 + u64::from(u16_at(&record, 28)))
}

fn damaged(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Damaged(what.into())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
