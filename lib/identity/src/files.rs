//! Certificates from a folder that somebody else renews, such as cert-manager.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{InvalidMaterial, Material, Publisher};

/// Why the files are not a certificate to use.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The files do not belong together, or break a rule.
    #[error("the certificate in {folder} cannot be used: {source}")]
    Invalid {
        /// Where they are.
        folder: String,
        /// What is wrong.
        source: InvalidMaterial,
    },
}

/// How often the folder is read. Reading three small files costs nothing, and notices a
/// change on every kind of volume: Kubernetes swaps a symlink two levels up, which
/// file watches miss.
const EVERY: Duration = Duration::from_secs(2);

/// Reads `cert.pem` (leaf first), `key.pem` and `ca.pem` from a folder.
///
/// # Errors
/// Where a file is missing or the three are not a valid set.
pub fn read(folder: &Path) -> Result<Material, FilesError> {
    let [chain, key, roots] = contents(folder)?;
    material(folder, &chain, &key, &roots)
}

/// Publishes what is in the folder, now and whenever it changes, for ever.
///
/// The files are taken as a set, only when the key matches the leaf: while they are being
/// replaced one by one, the set before stays in use. A bad set is logged once.
pub async fn watch(folder: PathBuf, publisher: Publisher) {
    let mut tick = tokio::time::interval(EVERY);
    let mut seen = None;
    let mut complained = String::new();
    loop {
        tick.tick().await;
        let outcome = contents(&folder).and_then(|set| {
            if seen.as_ref() == Some(&set) {
                return Ok(());
            }
            publisher.publish(material(&folder, &set[0], &set[1], &set[2])?);
            seen = Some(set);
            Ok(())
        });
        let complaint = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        if !complaint.is_empty() && complaint != complained {
            tracing::warn!(folder = %folder.display(), error = complaint, "no new certificate taken");
        }
        complained = complaint;
    }
}

fn contents(folder: &Path) -> Result<[Vec<u8>; 3], FilesError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FilesError::Read { path: path.display().to_string(), source })
    };
    Ok([read("cert.pem")?, read("key.pem")?, read("ca.pem")?])
}

fn material(folder: &Path, chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Material, FilesError> {
    Material::from_pem(chain, key, roots)
        .map_err(|source| FilesError::Invalid { folder: folder.display().to_string(), source })
}
