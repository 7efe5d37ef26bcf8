//! Where the control plane's and the sidecar's binaries are.

use std::path::{Path, PathBuf};

use crate::{config::Surroundings, failure::Failure};

/// The binaries that `up` runs.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) control_plane: PathBuf,
    pub(super) sidecar: PathBuf,
}

impl Binaries {
    /// Looks beside this program, then in `PATH`.
    pub(super) fn find(around: &Surroundings) -> Result<Self, Failure> {
        let own = std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok());
        let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
        let path = around.path.as_ref().map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        let folders: Vec<PathBuf> = beside.into_iter().chain::<Vec<_>>(path).collect();
        Ok(Self {
            control_plane: find(&folders, "sconce-control-plane")?,
            sidecar: find(&folders, "sconce-sidecar")?,
        })
    }
}

fn find(folders: &[PathBuf], name: &str) -> Result<PathBuf, Failure> {
    folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        Failure::failed(format!("there is no `{name}` beside this program or in PATH"))
            .hint("build all of them with `cargo build --release --workspace`, or `make build`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = [folder.path().to_owned()];
        let failure = find(&folders, "sconce-sidecar").expect_err("it is not there");
        assert!(failure.to_string().contains("cargo build"), "{failure}");
        std::fs::write(folder.path().join("sconce-sidecar"), "").expect("written");
        assert!(find(&folders, "sconce-sidecar").is_ok());
    }
}
