//! Files that hold keys and certificates: they appear whole or not at all.

use std::{
    fs::{File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// This user only: keys and tokens.
    Owner,
    /// Everybody: certificates.
    Everybody,
}

/// Writes a file whole: it appears under its name only complete and synced.
pub(crate) fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let folder = folder(path);
    filled(folder, bytes, readers)?.persist(path)?;
    File::open(folder)?.sync_all()
}

/// As [`write`], but leaves a file that exists and returns false.
pub(crate) fn create(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<bool> {
    let folder = folder(path);
    match filled(folder, bytes, readers)?.persist_noclobber(path) {
        Ok(_) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

fn filled(folder: &Path, bytes: &[u8], readers: Readers) -> io::Result<NamedTempFile> {
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    // A bare file name has an empty parent, which cannot be opened.
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_for_its_owner_even_where_the_file_was_open_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem");
        fs::write(&key, "old").unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();

        write(&key, b"new", Readers::Owner).unwrap();

        assert_eq!((fs::read(&key).unwrap().as_slice(), mode(&key)), (b"new".as_slice(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn creating_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        assert!(create(&path, b"first", Readers::Owner).unwrap());
        assert!(!create(&path, b"second", Readers::Owner).unwrap());
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (b"first".as_slice(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }
}
