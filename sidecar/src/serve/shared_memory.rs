//! The system shared memory extension: tensors that a process of the pod leaves in memory that it
//! shares, and finds the results there.
//!
//! A region is a file of `/dev/shm`, which is read and written by `pread` and `pwrite` and never
//! mapped: whoever made it can shrink it at any time, and a mapped page that is gone ends the process.
//! The copy that this costs is the one that a socket costs, too; the socket itself is saved.
//!
//! Only the pod itself may name regions. To anybody else they would be a way to have the sidecar read
//! and write memory of the pod's.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use sconce_identity::Principal;

use super::{Server, error::ServeError};

/// Where `shm_open` keeps what it makes, on Linux.
const FOLDER: &str = "/dev/shm";
/// A region holds a file open, and processes of the pod register as many as they like.
const MOST_REGIONS: usize = 256;
/// Of a name and of a key, in bytes. No file's name is longer.
const LONGEST_NAME: usize = 255;

/// The regions that are registered, by name.
#[derive(Default)]
pub(super) struct Regions(Mutex<BTreeMap<String, Arc<Region>>>);

/// One region.
#[derive(Debug)]
pub(super) struct Region {
    /// What `shm_open` was given.
    pub(super) key: String,
    /// Where in the file it begins, in bytes.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) byte_size: u64,
    file: File,
}

/// A part of a region, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) region: String,
    /// From the beginning of the region, in bytes.
    pub(super) offset: u64,
    /// Bytes of a tensor, or room for one.
    pub(super) byte_size: u64,
}

/// Where outputs go that are not sent, by their names.
pub(super) type Sinks = BTreeMap<String, Sink>;

/// Room for an output.
#[derive(Debug)]
pub(super) struct Sink {
    region: Arc<Region>,
    pub(super) place: Place,
}

/// One request's access to the regions.
pub(super) struct Access<'a> {
    regions: &'a Regions,
    is_local: bool,
    limit: usize,
    /// Bytes that it may still read.
    left: Cell<u64>,
}

impl Server {
    /// The regions, for a caller from the pod itself.
    pub(super) fn regions(&self, caller: Option<&Principal>) -> Result<&Regions, ServeError> {
        if caller == Some(&Principal::Loopback) { Ok(&self.0.regions) } else { Err(not_local()) }
    }

    /// The access of one request, which may come to as many bytes as a body may have.
    pub(super) fn access(&self, caller: Option<&Principal>) -> Access<'_> {
        let (limit, is_local) = (self.0.config.max_body_bytes, caller == Some(&Principal::Loopback));
        Access { regions: &self.0.regions, is_local, limit, left: Cell::new(limit as u64) }
    }
}

fn not_local() -> ServeError {
    ServeError::LocalOnly("shared memory can be used")
}

impl Regions {
    /// Opens a region under a name that is free.
    pub(super) fn register(
        &self,
        name: &str,
        key: &str,
        offset: u64,
        byte_size: u64,
    ) -> Result<(), ServeError> {
        let wrong =
            |reason: String| ServeError::Malformed(format!("shared memory region `{name}`: {reason}"));
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(wrong(format!("a name has 1 to {LONGEST_NAME} bytes")));
        }
        let region = Region::open(key, offset, byte_size).map_err(wrong)?;
        let mut regions = self.regions();
        if regions.contains_key(name) {
            return Err(wrong("it is registered already; unregister it first".to_owned()));
        }
        if regions.len() >= MOST_REGIONS {
            return Err(wrong(format!(
                "there are {MOST_REGIONS} of them, and no more are taken; unregister one"
            )));
        }
        regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets this region, or every region where the name is empty; one that is not there is fine.
    pub(super) fn unregister(&self, name: &str) {
        let mut regions = self.regions();
        if name.is_empty() {
            regions.clear();
        } else {
            regions.remove(name);
        }
    }

    /// This region, or every one where the name is empty.
    pub(super) fn status(&self, name: &str) -> Result<Vec<(String, Arc<Region>)>, ServeError> {
        let regions = self.regions();
        if name.is_empty() {
            return Ok(regions.iter().map(|(name, region)| (name.clone(), Arc::clone(region))).collect());
        }
        let region = regions.get(name).ok_or_else(|| ServeError::UnknownRegion(name.to_owned()))?;
        Ok(vec![(name.to_owned(), Arc::clone(region))])
    }

    fn get(&self, name: &str) -> Result<Arc<Region>, ServeError> {
        self.regions().get(name).cloned().ok_or_else(|| ServeError::UnknownRegion(name.to_owned()))
    }

    /// Held for as long as it takes to look one up.
    fn regions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    fn open(key: &str, offset: u64, byte_size: u64) -> Result<Self, String> {
        let file_name = key.strip_prefix('/').unwrap_or(key);
        let is_plain =
            !file_name.is_empty() && !file_name.contains(['/', '\0']) && ![".", ".."].contains(&file_name);
        if !is_plain || file_name.len() > LONGEST_NAME {
            return Err(format!("{key:?} is no key of shared memory; it is one name, such as \"/input\""));
        }
        let path = Path::new(FOLDER).join(file_name);
        // No link leads elsewhere, and nothing that is no file keeps this waiting.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        let file = file.map_err(|error| format!("the key {key:?} cannot be opened here: {error}"))?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err(format!("the key {key:?} is no shared memory"));
        }
        if byte_size == 0 {
            return Err("it has no bytes".to_owned());
        }
        match offset.checked_add(byte_size) {
            Some(end) if end <= metadata.len() => Ok(Self { key: key.to_owned(), offset, byte_size, file }),
            _ => Err(format!(
                "{byte_size} bytes from {offset} on are not within the {} bytes that the key {key:?} has",
                metadata.len()
            )),
        }
    }

    /// Where in the file a part of this region is.
    fn position(&self, place: &Place) -> Result<u64, String> {
        let end = place.offset.checked_add(place.byte_size);
        match (end, self.offset.checked_add(place.offset)) {
            (Some(end), Some(position)) if end <= self.byte_size => Ok(position),
            _ => Err(format!(
                "{} bytes from {} on are not within the {} bytes of shared memory region `{}`",
                place.byte_size, place.offset, self.byte_size, place.region
            )),
        }
    }
}

impl Place {
    /// The place that parameters name: `None` where they name none, an error where they do not fit.
    pub(super) fn read<'a>(
        text: impl Fn(&'static str) -> Option<Result<&'a str, ()>>,
        number: impl Fn(&'static str) -> Option<Result<u64, ()>>,
    ) -> Result<Option<Self>, String> {
        const REGION: &str = "shared_memory_region";
        let region = match text(REGION) {
            None | Some(Ok("")) => return Ok(None),
            Some(Ok(region)) => region.to_owned(),
            Some(Err(())) => return Err(format!("the parameter {REGION} is no text")),
        };
        let number = |name| match number(name) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(())) => Err(format!("the parameter {name} is not a whole number from 0 on")),
        };
        let offset = number("shared_memory_offset")?.unwrap_or(0);
        let byte_size = number("shared_memory_byte_size")?
            .ok_or_else(|| format!("{REGION} needs the parameter shared_memory_byte_size"))?;
        Ok(Some(Self { region, offset, byte_size }))
    }
}

impl Access<'_> {
    /// The bytes in this place.
    pub(super) fn read(&self, place: &Place) -> Result<Bytes, ServeError> {
        if !self.is_local {
            return Err(not_local());
        }
        let region = self.regions.get(&place.region)?;
        let position = region.position(place).map_err(ServeError::Malformed)?;
        // Nothing is set apart for bytes that may not come.
        let left = self.left.get().checked_sub(place.byte_size);
        self.left.set(left.ok_or(ServeError::TooLarge { limit: self.limit })?);
        let size =
            usize::try_from(place.byte_size).map_err(|_| ServeError::TooLarge { limit: self.limit })?;
        let mut bytes = vec![0; size];
        region.file.read_exact_at(&mut bytes, position).map_err(|error| {
            ServeError::Malformed(format!(
                "shared memory region `{}` is not what it was when it was registered: {error}",
                place.region
            ))
        })?;
        Ok(bytes.into())
    }

    /// Room for an output.
    pub(super) fn sink(&self, place: Place) -> Result<Sink, ServeError> {
        if !self.is_local {
            return Err(not_local());
        }
        let region = self.regions.get(&place.region)?;
        region.position(&place).map_err(ServeError::Malformed)?;
        Ok(Sink { region, place })
    }
}

impl Sink {
    /// Puts an output there.
    pub(super) fn write(&self, output: &str, bytes: &[u8]) -> Result<(), String> {
        let Place { region, byte_size, .. } = &self.place;
        if bytes.len() as u64 > *byte_size {
            return Err(format!(
                "output `{output}` has {} bytes, and there is room for {byte_size} in shared memory region \
                 `{region}`",
                bytes.len()
            ));
        }
        let position = self.region.position(&self.place)?;
        let gone = || format!("shared memory region `{region}` is smaller than when it was registered");
        // Writing beyond the end would make it larger again, and its maker no wiser.
        let length = self.region.file.metadata().map_err(|error| error.to_string())?.len();
        if position.checked_add(bytes.len() as u64).is_none_or(|end| end > length) {
            return Err(gone());
        }
        self.region.file.write_all_at(bytes, position).map_err(|error| format!("{}: {error}", gone()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of shared memory, which goes with the test.
    pub(in super::super) fn memory(bytes: &[u8]) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::Builder::new().prefix("sconce-test-").tempfile_in(FOLDER).expect("a file");
        file.as_file().write_all_at(bytes, 0).expect("it is written");
        let key = format!("/{}", file.path().file_name().and_then(|name| name.to_str()).expect("a name"));
        (file, key)
    }

    fn place(offset: u64, byte_size: u64) -> Place {
        Place { region: "r".to_owned(), offset, byte_size }
    }

    fn access(regions: &Regions, limit: usize) -> Access<'_> {
        Access { regions, is_local: true, limit, left: Cell::new(limit as u64) }
    }

    #[test]
    fn bytes_are_read_and_written_within_the_region_and_nowhere_else() {
        let (file, key) = memory(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let regions = Regions::default();
        regions.register("r", &key, 2, 4).expect("it is there");
        let access = access(&regions, 100);
        assert_eq!(access.read(&place(1, 2)).expect("inside")[..], [3, 4]);
        for (offset, size) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 2), (1, u64::MAX)] {
            assert!(access.read(&place(offset, size)).is_err(), "{offset} {size}");
            assert!(access.sink(place(offset, size)).is_err(), "{offset} {size}");
        }
        let sink = access.sink(place(1, 3)).expect("inside");
        assert!(sink.write("y", &[9; 4]).expect_err("no room").contains("room for 3"));
        sink.write("y", &[9, 9]).expect("there is room");
        assert_eq!(std::fs::read(file.path()).expect("it is there"), [0, 1, 2, 9, 9, 5, 6, 7]);
    }

    #[test]
    fn a_region_that_shrinks_is_an_error_and_stays_as_small() {
        let (file, key) = memory(&[7; 8192]);
        let regions = Regions::default();
        regions.register("r", &key, 0, 8192).expect("it is there");
        let access = access(&regions, 1 << 20);
        let sink = access.sink(place(0, 8192)).expect("inside");
        file.as_file().set_len(10).expect("it shrinks");
        let error = access.read(&place(0, 8192)).expect_err("it is gone").to_string();
        assert!(error.contains("`r` is not what it was"), "{error}");
        assert!(sink.write("y", &[1; 4096]).expect_err("it is gone").contains("smaller"));
        assert_eq!(file.as_file().metadata().expect("it is there").len(), 10);
        assert_eq!(access.read(&place(0, 10)).expect("this is left")[..], [7; 10]);
    }

    #[test]
    fn one_request_reads_no_more_than_a_body_may_have() {
        let (_file, key) = memory(&[7; 100]);
        let regions = Regions::default();
        regions.register("r", &key, 0, 100).expect("it is there");
        let access = access(&regions, 150);
        assert!(access.read(&place(0, 100)).is_ok());
        assert!(matches!(access.read(&place(0, 100)), Err(ServeError::TooLarge { limit: 150 })));
        assert!(access.read(&place(0, 50)).is_ok());
    }

    #[test]
    fn only_files_of_shared_memory_are_regions() {
        let regions = Regions::default();
        let (file, key) = memory(&[0; 8]);
        let link = file.path().with_extension("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).expect("a link");
        let link_key = format!("/{}", link.file_name().and_then(|name| name.to_str()).expect("a name"));
        for bad in ["", "/", ".", "..", "/../etc/hostname", "a/b", "/a\0b", "/no-such-sconce-test", &link_key]
        {
            assert!(regions.register("r", bad, 0, 1).is_err(), "{bad:?}");
        }
        std::fs::remove_file(link).expect("it was made");
        for (offset, size) in [(0, 0), (0, 9), (8, 1), (u64::MAX, 1)] {
            assert!(regions.register("r", &key, offset, size).is_err(), "{offset} {size}");
        }
        assert!(regions.register("", &key, 0, 8).is_err());
        regions.register("r", &key, 0, 8).expect("it is there");
        let again = regions.register("r", &key, 0, 8).expect_err("it is taken").to_string();
        assert!(again.contains("unregister"), "{again}");
    }

    #[test]
    fn regions_are_as_many_as_there_is_room_for_and_can_be_forgotten() {
        let regions = Regions::default();
        let (_file, key) = memory(&[0; 8]);
        for number in 0..MOST_REGIONS {
            regions.register(&number.to_string(), &key, 0, 8).expect("there is room");
        }
        assert!(regions.register("one too many", &key, 0, 8).is_err());
        assert_eq!(regions.status("7").expect("it is there")[0].1.byte_size, 8);
        regions.unregister("7");
        regions.unregister("7");
        assert!(matches!(regions.status("7"), Err(ServeError::UnknownRegion(_))));
        regions.unregister("");
        assert!(regions.status("").expect("none").is_empty());
    }
}
