//! A version that the control plane fetches itself: this program only asks for it, and shows how
//! far it is.

use std::{collections::BTreeMap, path::Path};

use sconce_catalog::Version;

use super::{Landed, Progress};
use crate::{
    args::Push,
    client::{Announcement, Control, PullStage, Wanted},
    failure::Failure,
};

/// What a pull did.
pub(super) struct Pulled {
    pub(super) version: Version,
    pub(super) landed: Landed,
    pub(super) bytes_stored: u64,
    pub(super) already_committed: bool,
}

/// Has an address pulled.
pub(super) async fn pull(
    address: &str,
    args: &Push,
    announcement: &Announcement,
    control: &mut Control,
) -> Result<Pulled, Failure> {
    let Some(digest) = args.digest.clone() else {
        return Err(Failure::usage(format!("{address} needs a digest of what must be there"))
            .hint("give it as --digest sha256:…, as `sha256sum` prints it"));
    };
    let credentials = args.credentials.as_deref().map(credentials).transpose()?.unwrap_or_default();
    let wanted = Wanted { address: address.to_owned(), digest, credentials, activate: args.activate };
    let mut shown = Shown::Nothing;
    let pulled = control.pull(announcement, wanted, |stage| shown.tell(stage)).await?;
    if let Shown::Fetching(progress, _) = &shown {
        progress.finish();
    }
    Ok(Pulled {
        version: pulled.version,
        landed: Landed { record: pulled.record, split: pulled.split, serial: Some(pulled.serial) },
        bytes_stored: pulled.bytes_stored,
        already_committed: pulled.already_committed,
    })
}

/// What has been shown of a pull.
enum Shown {
    Nothing,
    Waiting,
    /// And how many bytes of it.
    Fetching(Progress, u64),
    Checking,
}

impl Shown {
    fn tell(&mut self, stage: PullStage) {
        match (stage, &mut *self) {
            (PullStage::Waiting, Shown::Nothing) => {
                eprintln!("waiting for other pulls");
                *self = Shown::Waiting;
            }
            // How long a bar is must be known.
            (PullStage::Fetching(bytes, Some(total)), Shown::Nothing | Shown::Waiting) => {
                let progress = Progress::new("fetched", total);
                progress.sent(bytes);
                *self = Shown::Fetching(progress, bytes);
            }
            (PullStage::Fetching(bytes, _), Shown::Fetching(progress, told)) => {
                progress.sent(bytes.saturating_sub(*told));
                *told = bytes.max(*told);
            }
            (PullStage::Checking, Shown::Fetching(progress, _)) => {
                progress.finish();
                *self = Shown::Checking;
            }
            _ => {}
        }
    }
}

/// Lines of `NAME=VALUE`; empty ones, and those that begin with `#`, say nothing.
fn credentials(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let read = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let pair = |(number, line): (usize, &str)| {
        let pair =
            line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        pair.ok_or_else(|| {
            // The line itself may be a secret.
            Failure::failed(format!("{}, line {}: expected NAME=VALUE", file.display(), number + 1))
        })
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lines_of_names_and_values_and_no_error_shows_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("credentials");
        std::fs::write(&file, "# of CI\n\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b=c\n")
            .expect("written");
        let read = credentials(&file).expect("valid");
        assert_eq!(read["AWS_SECRET_ACCESS_KEY"], "b=c");
        std::fs::write(&file, "AWS_ACCESS_KEY_ID=a\nsecret\n").expect("written");
        let error = credentials(&file).expect_err("no name").to_string();
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
    }
}
