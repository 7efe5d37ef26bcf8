//! What survives a restart: the last good catalog, and the artifacts it names.
//!
//! ```text
//! catalog.json            the last catalog that was received
//! artifacts/<hex>.pt      a whole artifact, verified when it arrived
//! artifacts/<hex>.json    its manifest: which chunks it is made of
//! partial/<hex>.pt        an artifact on its way
//! ```
//!
//! Files appear under their final name only whole and synced, by a rename.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sconce_catalog::{Catalog, Digest, Manifest};

/// The sidecar's folder.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DiskError {
    path: String,
    source: io::Error,
}

impl Disk {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    /// Where it cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let disk = Self { root: root.to_owned() };
        for folder in ["artifacts", "partial"] {
            let path = disk.root.join(folder);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        Ok(disk)
    }

    /// The catalog that was saved last; `None` where there is none or it cannot be read,
    /// which is logged: the control plane has the real one.
    pub fn catalog(&self) -> Option<Catalog> {
        let path = self.root.join("catalog.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the saved catalog cannot be read");
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "the saved catalog is damaged"),
            )
            .ok()
    }

    /// Saves the catalog.
    ///
    /// # Errors
    /// Where it cannot be written; the one before is then still there.
    pub fn save_catalog(&self, catalog: &Catalog) -> Result<(), DiskError> {
        let path = self.root.join("catalog.json");
        let text = serde_json::to_vec(catalog).map_err(io::Error::from).map_err(at(&path))?;
        write_whole(&path, &text)
    }

    /// The file of an artifact that is there whole.
    pub fn artifact(&self, artifact: &Digest) -> Option<PathBuf> {
        let file = self.artifact_path(artifact);
        (file.exists() && self.manifest(artifact).is_some()).then_some(file)
    }

    /// The manifest of an artifact that is there.
    pub fn manifest(&self, artifact: &Digest) -> Option<Manifest> {
        serde_json::from_slice(&fs::read(self.manifest_path(artifact)).ok()?).ok()
    }

    /// Every artifact that is there whole.
    pub fn artifacts(&self) -> Vec<Digest> {
        let Ok(entries) = fs::read_dir(self.root.join("artifacts")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| name.strip_suffix(".pt")?.parse().ok())
            .filter(|d| self.artifact(d).is_some())
            .collect()
    }

    /// A file of the right size to write an artifact's chunks into. What an earlier try
    /// left in it is still there.
    ///
    /// # Errors
    /// Where it cannot be made, also because the disk is full.
    pub fn partial(&self, artifact: &Digest, size: u64) -> Result<File, DiskError> {
        let path = self.partial_path(artifact);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        open.and_then(|file| file.set_len(size).map(|()| file)).map_err(at(&path))
    }

    /// Makes a partial artifact, all of whose chunks are there, a whole one.
    ///
    /// # Errors
    /// Where it cannot be synced or renamed.
    pub fn complete(
        &self,
        artifact: &Digest,
        manifest: &Manifest,
        file: &File,
    ) -> Result<PathBuf, DiskError> {
        let (from, to) = (self.partial_path(artifact), self.artifact_path(artifact));
        file.sync_all().map_err(at(&from))?;
        let manifest_path = self.manifest_path(artifact);
        let text = serde_json::to_vec(manifest).map_err(io::Error::from).map_err(at(&manifest_path))?;
        // The manifest first: an artifact counts as there only with both.
        write_whole(&manifest_path, &text)?;
        fs::rename(&from, &to).map_err(at(&to))?;
        sync_folder(&to)?;
        Ok(to)
    }

    /// Makes a whole artifact a partial one, so that what is damaged in it can be replaced.
    ///
    /// # Errors
    /// Where it cannot be renamed.
    pub fn reopen(&self, artifact: &Digest) -> Result<(), DiskError> {
        let (from, to) = (self.artifact_path(artifact), self.partial_path(artifact));
        fs::rename(&from, &to).map_err(at(&from))
    }

    /// Removes every artifact, whole or partial, that is not in `keep`.
    pub fn keep_only(&self, keep: &BTreeSet<Digest>) {
        for folder in ["artifacts", "partial"] {
            let Ok(entries) = fs::read_dir(self.root.join(folder)) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let digest = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Digest>().ok());
                if digest.is_none_or(|digest| !keep.contains(&digest))
                    && let Err(error) = fs::remove_file(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "an artifact that nobody needs cannot be removed");
                }
            }
        }
    }

    fn artifact_path(&self, artifact: &Digest) -> PathBuf {
        self.root.join("artifacts").join(format!("{}.pt", artifact.hex()))
    }

    fn manifest_path(&self, artifact: &Digest) -> PathBuf {
        self.root.join("artifacts").join(format!("{}.json", artifact.hex()))
    }

    fn partial_path(&self, artifact: &Digest) -> PathBuf {
        self.root.join("partial").join(format!("{}.pt", artifact.hex()))
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(at(path))?;
    sync_folder(path)
}

fn sync_folder(of: &Path) -> Result<(), DiskError> {
    let folder = of.parent().unwrap_or(of);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

fn at(path: &Path) -> impl Fn(io::Error) -> DiskError + '_ {
    move |source| DiskError { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use sconce_catalog::{ChunkRef, Piece, Serial};

    use super::*;

    fn disk() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let disk = Disk::open(folder.path()).expect("it opens");
        (folder, disk)
    }

    #[test]
    fn the_catalog_is_there_after_a_restart_and_damage_is_not_fatal() {
        let (folder, disk) = disk();
        assert_eq!(disk.catalog(), None);
        let catalog = Catalog { serial: Serial(7), ..Default::default() };
        disk.save_catalog(&catalog).expect("it saves");
        assert_eq!(Disk::open(folder.path()).expect("it opens").catalog(), Some(catalog));
        fs::write(folder.path().join("catalog.json"), b"{\"serial\":").expect("it writes");
        assert_eq!(disk.catalog(), None);
    }

    #[test]
    fn an_artifact_counts_only_when_it_is_whole_and_only_while_it_is_kept() {
        let (_folder, disk) = disk();
        let digest = Digest::from_bytes([1; 32]);
        let chunk = ChunkRef { digest: Digest::from_bytes([2; 32]), size: 3 };
        let manifest =
            Manifest::new(vec![chunk], vec![Piece { chunk: 0, offset: 0, length: 3 }]).expect("adds up");
        let file = disk.partial(&digest, 3).expect("there is room");
        file.write_all_at(b"abc", 0).expect("it writes");
        assert_eq!(disk.artifact(&digest), None);
        let path = disk.complete(&digest, &manifest, &file).expect("it completes");
        assert_eq!(disk.artifact(&digest), Some(path));
        assert_eq!(disk.artifacts(), [digest]);
        disk.keep_only(&[digest].into());
        assert_eq!(disk.manifest(&digest), Some(manifest));
        disk.keep_only(&BTreeSet::new());
        assert_eq!(disk.artifact(&digest), None);
    }
}
