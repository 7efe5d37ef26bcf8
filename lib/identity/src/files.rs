//! Certificates from a folder that somebody else renews, such as cert-manager.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    InvalidMaterial, Material, Publisher,
    authority::Credentials,
    disk::{self, Readers},
};

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

/// What certificate (leaf first), key and roots are called: by us, by Istio's agent where it
/// is told `OUTPUT_CERTS`, and by cert-manager. The first whose certificate is there.
const NAMES: [[&str; 3]; 3] = [
    ["cert.pem", "key.pem", "ca.pem"],
    ["cert-chain.pem", "key.pem", "root-cert.pem"],
    ["tls.crt", "tls.key", "ca.crt"],
];

/// Reads `cert.pem` (leaf first), `key.pem` and `ca.pem` from a folder, or what Istio's agent
/// or cert-manager calls them.
///
/// # Errors
/// Where a file is missing or the three are not a valid set.
pub fn read(folder: &Path) -> Result<Material, FilesError> {
    let [chain, key, roots] = contents(folder)?;
    material(folder, &chain, &key, &roots)
}

/// Writes a set that [`read`] reads: the key last and for this user only.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write(folder: &Path, credentials: &Credentials, roots_pem: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    disk::write(&folder.join("ca.pem"), roots_pem.as_bytes(), Readers::Everybody)?;
    disk::write(&folder.join("cert.pem"), credentials.chain_pem.as_bytes(), Readers::Everybody)?;
    disk::write(&folder.join("key.pem"), credentials.key_pem.as_bytes(), Readers::Owner)
}

/// Publishes what is in the folder, now and whenever it changes, for ever.
///
/// The files are taken as a set, only when the key matches the leaf: while they are being
/// replaced one by one, the set before stays in use. A bad set that stays is logged once.
pub async fn watch(folder: PathBuf, publisher: Publisher) {
    watch_every(EVERY, folder, publisher).await;
}

async fn watch_every(every: Duration, folder: PathBuf, publisher: Publisher) {
    let mut tick = tokio::time::interval(every);
    let (mut complaint, mut complained) = (String::new(), String::new());
    let mut seen = None;
    loop {
        tick.tick().await;
        let next = match look(folder.clone(), seen.clone()).await {
            Ok(None) => String::new(),
            Ok(Some((set, material))) => {
                publisher.publish(material);
                seen = Some(set);
                String::new()
            }
            Err(error) => error.to_string(),
        };
        // The first time it may be a set that is just being replaced.
        if !next.is_empty() && next == complaint && next != complained {
            tracing::warn!(folder = %folder.display(), error = next, "no new certificate taken");
            complained.clone_from(&next);
        }
        if next.is_empty() {
            complained.clear();
        }
        complaint = next;
    }
}

type FileSet = [Vec<u8>; 3];

/// The set in the folder, where it is another one than was seen last.
async fn look(folder: PathBuf, seen: Option<FileSet>) -> Result<Option<(FileSet, Material)>, FilesError> {
    let read = move || {
        let set = contents(&folder)?;
        if seen.as_ref() == Some(&set) {
            return Ok(None);
        }
        let material = material(&folder, &set[0], &set[1], &set[2])?;
        Ok(Some((set, material)))
    };
    // A volume that hangs must not take a worker of the runtime with it.
    tokio::task::spawn_blocking(read).await.expect("reading three files does not panic")
}

fn contents(folder: &Path) -> Result<FileSet, FilesError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| FilesError::Read { path: path.display().to_string(), source })
    };
    let there = |names: &&[&str; 3]| folder.join(names[0]).exists();
    let [certificate, key, roots] = NAMES.iter().find(there).unwrap_or(&NAMES[0]);
    Ok([read(certificate)?, read(key)?, read(roots)?])
}

fn material(folder: &Path, chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Material, FilesError> {
    Material::from_pem(chain, key, roots)
        .map_err(|source| FilesError::Invalid { folder: folder.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{authority, id, patiently, pem_set};

    fn put(folder: &Path, set: &[String; 3]) {
        for (name, text) in ["cert.pem", "key.pem", "ca.pem"].iter().zip(set) {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn watched(folder: &Path) -> (crate::Identity, tokio::task::JoinHandle<()>) {
        let (publisher, identity) = crate::identity();
        let watch = watch_every(Duration::from_millis(10), folder.to_owned(), publisher);
        (identity, tokio::spawn(watch))
    }

    #[tokio::test]
    async fn a_new_set_is_taken_and_a_mismatched_one_is_not() {
        let (ca, folder) = (authority(), tempfile::tempdir().unwrap());
        let log = crate::testing::Log::capture();
        let (mut identity, watch) = watched(folder.path());

        let (first, second) = (pem_set(&ca, &id("/first")), pem_set(&ca, &id("/second")));
        put(folder.path(), &first);
        assert_eq!(*patiently(identity.changed()).await.id(), id("/first"));

        // Half of a replacement: the new chain beside the old key.
        fs::write(folder.path().join("cert.pem"), &second[0]).unwrap();
        log.line(&["does not belong to the first", &folder.path().display().to_string()]).await;
        assert_eq!(*identity.current().unwrap().id(), id("/first"));

        put(folder.path(), &second);
        assert_eq!(*patiently(identity.changed()).await.id(), id("/second"));
        watch.abort();
    }

    #[tokio::test]
    async fn what_istios_agent_and_cert_manager_write_is_read_too() {
        let ca = authority();
        for names in &NAMES[1..] {
            let folder = tempfile::tempdir().unwrap();
            let (first, second) = (pem_set(&ca, &id("/first")), pem_set(&ca, &id("/second")));
            let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
            for (name, text) in names.iter().zip(&first) {
                write(name, text);
            }
            let log = crate::testing::Log::capture();
            let (mut identity, watch) = watched(folder.path());
            assert_eq!(*patiently(identity.changed()).await.id(), id("/first"));

            // The agent replaces each file by itself; the set is taken when it fits together.
            write(names[1], &second[1]);
            log.line(&["does not belong to the first", &folder.path().display().to_string()]).await;
            assert_eq!(*identity.current().unwrap().id(), id("/first"));
            write(names[0], &second[0]);
            assert_eq!(*patiently(identity.changed()).await.id(), id("/second"));
            watch.abort();
        }
    }

    #[tokio::test]
    async fn a_symlink_swapped_two_levels_up_is_noticed() {
        let (ca, folder) = (authority(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        for name in ["1", "2"] {
            fs::create_dir(at(name)).unwrap();
            put(&at(name), &pem_set(&ca, &id(&format!("/{name}"))));
        }
        std::os::unix::fs::symlink("1", at("..data")).unwrap();
        for name in ["cert.pem", "key.pem", "ca.pem"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), at(name)).unwrap();
        }
        let (mut identity, watch) = watched(folder.path());
        assert_eq!(*patiently(identity.changed()).await.id(), id("/1"));

        std::os::unix::fs::symlink("2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(*patiently(identity.changed()).await.id(), id("/2"));
        watch.abort();
    }
}
