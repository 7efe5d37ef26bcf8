//! Fetching from an origin that is honest, breaks off, or lies.

use std::{path::Path, sync::Mutex};

use futures::stream;
use sconce_artifact::chunk_file;

use super::*;

/// The example's versions, and what was asked for.
#[derive(Default)]
struct Store {
    artifacts: HashMap<Digest, Manifest>,
    chunks: HashMap<Digest, Bytes>,
    asked: Mutex<Vec<Digest>>,
    /// Breaks off after so many chunks.
    patience: Option<usize>,
}

impl Store {
    fn with(versions: &[&str]) -> (Self, Vec<Digest>) {
        let mut store = Self::default();
        let artifacts = versions.iter().map(|version| store.add(version)).collect();
        (store, artifacts)
    }

    fn add(&mut self, version: &str) -> Digest {
        let file = File::open(example(version)).expect("the example");
        let assembly = Assembly::new(chunk_file(&file).expect("an archive"));
        for (number, chunk) in assembly.manifest().chunks().iter().enumerate() {
            self.chunks.insert(chunk.digest, assembly.read_chunk(&file, number).expect("readable").into());
        }
        let artifact = artifact_digest(assembly.manifest());
        self.artifacts.insert(artifact, assembly.manifest().clone());
        artifact
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().expect("no panic")).len()
    }
}

impl Origin for Store {
    fn manifest(&self, artifact: Digest) -> BoxFuture<'_, Result<Manifest, OriginError>> {
        let found = self.artifacts.get(&artifact).cloned();
        Box::pin(async move { found.ok_or_else(|| OriginError("there is no such artifact".into())) })
    }

    fn chunks(
        &self,
        artifact: Digest,
        digests: Vec<Digest>,
    ) -> BoxStream<'static, Result<Bytes, OriginError>> {
        assert!(self.artifacts.contains_key(&artifact), "chunks of an artifact that is not there");
        let patience = self.patience.unwrap_or(usize::MAX);
        let sent: Vec<_> =
            digests.iter().take(patience).map(|digest| Ok(self.chunks[digest].clone())).collect();
        self.asked.lock().expect("no panic").extend(digests);
        stream::iter(sent).boxed()
    }
}

fn example(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/models").join(version).join("digits.pt")
}

fn disk() -> (tempfile::TempDir, Disk) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("it opens");
    (folder, disk)
}

async fn bring(disk: &Disk, store: &Store, artifact: Digest) -> Result<Fetched, FetchError> {
    fetch(disk, store, artifact, &AtomicU64::new(0)).await
}

#[tokio::test]
async fn only_what_changed_comes_from_the_origin() {
    let (_folder, disk) = disk();
    let (store, artifacts) = Store::with(&["v1", "v2"]);
    let first = bring(&disk, &store, artifacts[0]).await.expect("fetched");
    assert!(std::fs::read(first.file).expect("there") == std::fs::read(example("v1")).expect("there"));
    let all = store.asked();

    let second = bring(&disk, &store, artifacts[1]).await.expect("fetched");
    assert!(std::fs::read(second.file).expect("there") == std::fs::read(example("v2")).expect("there"));
    let asked = store.asked();
    assert!(asked > 0 && asked < all, "{asked} chunks after {all}");
    assert!(second.moved < first.moved / 4, "{} bytes after {}", second.moved, first.moved);
    assert_eq!(bring(&disk, &store, artifacts[0]).await.expect("here").moved, 0);
    assert_eq!(store.asked(), 0, "what is here is not asked for");
}

#[tokio::test]
async fn a_fetch_that_breaks_off_goes_on_where_it_was() {
    let (folder, disk) = disk();
    let (mut store, artifacts) = Store::with(&["v1"]);
    store.patience = Some(2);
    let error = bring(&disk, &store, artifacts[0]).await.expect_err("it broke off");
    assert!(matches!(error, FetchError::Short(_)) && error.is_passing(), "{error}");
    assert!(disk.artifact(&artifacts[0]).is_none(), "half an artifact is none");
    let all = store.asked();

    store.patience = None;
    // Also after a restart.
    let disk = Disk::open(folder.path()).expect("it opens");
    bring(&disk, &store, artifacts[0]).await.expect("fetched");
    assert_eq!(store.asked(), all - 2);
}

#[tokio::test]
async fn bytes_that_are_not_what_the_catalog_names_are_refused() {
    let (_folder, disk) = disk();
    let (mut store, artifacts) = Store::with(&["v1", "v2"]);
    let other = store.artifacts[&artifacts[1]].clone();
    let honest = store.artifacts.insert(artifacts[0], other).expect("it was there");
    let error = bring(&disk, &store, artifacts[0]).await.expect_err("another manifest");
    assert!(matches!(error, FetchError::Manifest { .. }) && !error.is_passing(), "{error}");

    let damaged = honest.chunks()[1].digest;
    store.artifacts.insert(artifacts[0], honest);
    let mut bytes = store.chunks[&damaged].to_vec();
    bytes[0] ^= 1;
    store.chunks.insert(damaged, bytes.into());
    let error = bring(&disk, &store, artifacts[0]).await.expect_err("another chunk");
    assert!(error.to_string().contains("changed or damaged on the way"), "{error}");
    assert!(disk.artifact(&artifacts[0]).is_none());
}
