//! What `sconce up` leaves on disk: credentials, tokens, the context file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    context::Context,
    failure::{Exit, Failure},
};

/// The folder, made if it is not there; only this user looks into it.
pub(super) fn folder(dir: &Path) -> Result<PathBuf, Failure> {
    for part in ["", "client", "tokens", "logs"] {
        let folder = dir.join(part);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| Failure::failed(format!("{} cannot be made: {error}", folder.display())))?;
    }
    // Absolute, as the context file is read from anywhere.
    dir.canonicalize().map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))
}

/// Makes sure that nobody else runs from this folder, for as long as the file is held.
pub(super) fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("up.lock");
    let file =
        File::create(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Exit::Conflict, format!("another `sconce up` runs from {}", dir.display()))
                .hint("stop it, or choose another folder with --dir"))
        }
        Err(TryLockError::Error(error)) => Err(Failure::failed(format!("{}: {error}", path.display()))),
    }
}

/// Copies the operator's credentials to where the context file names them.
pub(super) fn credentials(dir: &Path, operator: &Path) -> Result<Context, Failure> {
    let place = |name: &str| dir.join("client").join(name);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let from = operator.join(name);
        let bytes = fs::read(&from).map_err(|error| {
            Failure::failed(format!("the control plane left no {}: {error}", from.display()))
        })?;
        write_secret(&place(name), &bytes)?;
    }
    Ok(Context {
        control_plane: String::new(),
        ca: place("ca.pem"),
        cert: place("cert.pem"),
        key: place("key.pem"),
        sidecars: vec![],
    })
}

/// Writes a file that only this user can read.
pub(super) fn write_secret(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        // A file that is there keeps its mode, so it is never one from before.
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)
    };
    write().map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))
}

/// Writes the context file whole or not at all, as others wait for it to appear.
pub(super) fn write_context(file: &Path, context: &Context) -> Result<(), Failure> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut draft, context)?;
        draft.write_all(b"\n")?;
        draft.persist(file)?;
        Ok(())
    };
    write().map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_readable_by_its_owner_alone_even_where_a_file_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key.pem");
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
        write_secret(&file, b"new").expect("written");
        assert_eq!(fs::read(&file).expect("there"), b"new");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_never_run_from_one_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = lock(folder.path()).expect("free");
        assert_eq!(lock(folder.path()).expect_err("held").exit, Exit::Conflict);
        drop(first);
        assert!(lock(folder.path()).is_ok());
    }

    #[test]
    fn credentials_are_copied_and_missing_ones_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = super::folder(folder.path()).expect("made");
        let operator = dir.join("operator");
        fs::create_dir(&operator).expect("made");
        let failure = credentials(&dir, &operator).expect_err("nothing there");
        assert!(failure.to_string().contains("operator/ca.pem"), "{failure}");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(operator.join(name), name).expect("written");
        }
        let context = credentials(&dir, &operator).expect("copied");
        assert_eq!(fs::read_to_string(context.key).expect("there"), "key.pem");
    }
}
