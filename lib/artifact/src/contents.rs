//! The payloads of entries, inflated within limits and checked against their CRC.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use flate2::{Crc, read::DeflateDecoder};

use crate::{Rejection, directory::Entry};

/// Reads a part of a file from its own place, so that one file can be read in many.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        if got == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// Reads an entry whole. Its declared size must be within the caller's limits already.
pub(crate) fn read(file: &File, entry: &Entry) -> Result<Vec<u8>, Rejection> {
    let mut bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or(0).min(1 << 20));
    pour(file, entry, |part| bytes.extend_from_slice(part))?;
    Ok(bytes)
}

/// Reads an entry in small parts and checks its size and CRC.
pub(crate) fn verify(file: &File, entry: &Entry) -> Result<(), Rejection> {
    pour(file, entry, |_| {})
}

fn pour(file: &File, entry: &Entry, mut take: impl FnMut(&[u8])) -> Result<(), Rejection> {
    let part = Part { file, at: entry.start, left: entry.stored };
    let mut source: Box<dyn Read> =
        if entry.deflated { Box::new(DeflateDecoder::new(part)) } else { Box::new(part) };
    let damaged = |what: String| Rejection::Entry { entry: entry.name.clone(), what };
    let (mut crc, mut size, mut buffer) = (Crc::new(), 0u64, vec![0; 64 << 10]);
    loop {
        let got = source.read(&mut buffer).map_err(|error| damaged(format!("it cannot be read: {error}")))?;
        if got == 0 {
            break;
        }
        size += got as u64;
        // What an entry inflates to must not be what it says, or a bomb would say little.
        if size > entry.size {
            return Err(damaged(format!("it holds more than the {} bytes it declares", entry.size)));
        }
        crc.update(&buffer[..got]);
        take(&buffer[..got]);
    }
    if size != entry.size {
        return Err(damaged(format!("it holds {size} bytes and declares {}", entry.size)));
    }
    if crc.sum() != entry.crc {
        return Err(damaged("its checksum is wrong: a bit was flipped on the way or on disk".into()));
    }
    Ok(())
}
