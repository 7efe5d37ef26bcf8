//! Following catalogs while the disk or the origin will not have it.

use std::path::Path;

use sconce_catalog::{Model, Serial, Signature, Split};
use sconce_lifecycle::{Readiness, Tasks};

use super::{super::fetch::tests::Store, *};
use crate::engine::{Engine, EngineError, Module, Output, Tensor};

/// Loads anything.
struct Easy;

struct Nothing(Signature);

impl Engine for Easy {
    fn platform(&self) -> &'static str {
        "none"
    }
    fn prepare_thread(&self) {}
    fn load(&self, _: &Path, declared: &Signature) -> Result<Arc<dyn Module>, EngineError> {
        Ok(Arc::new(Nothing(declared.clone())))
    }
    fn release_memory(&self) {}
}

impl Module for Nothing {
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn forward(&self, _: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        Ok(Vec::new())
    }
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// A catalog with this one version.
fn only(serial: u64, name: &str, artifact: Digest) -> Arc<Catalog> {
    let record = VersionRecord {
        artifact,
        size: 0,
        signature: Signature::default(),
        metadata: BTreeMap::new(),
        pushed_at_ms: 0,
        pushed_by: String::new(),
    };
    let model = Model {
        versions: BTreeMap::from([(version(name), record)]),
        split: Some(Split::whole(version(name))),
        ..Model::default()
    };
    let models = BTreeMap::from([("default/digits".parse().expect("a name"), model)]);
    Arc::new(Catalog { serial: Serial(serial), models })
}

/// Waits for a state of things.
async fn until(progress: &mut watch::Receiver<Progress>, holds: impl Fn(&State) -> bool) -> State {
    let found =
        progress.wait_for(|progress| progress.versions.values().any(|standing| holds(&standing.state)));
    let found = found.await.expect("the task runs");
    found.versions.values().next().expect("one version").state.clone()
}

#[tokio::test]
async fn a_full_disk_is_cleared_of_what_nobody_serves_and_the_version_comes_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("it opens");
    let (store, artifacts) = Store::with(&["v1", "v2"]);
    let (catalog, catalogs) = watch::channel(Some(only(1, "1", artifacts[0])));
    let (progress, mut progresses) = watch::channel(Progress::default());
    let loader = Loader::start(Arc::new(Easy)).expect("a thread");
    let (tasks, _) = Tasks::new();
    let reconcile = Reconcile {
        catalog: catalogs,
        live: Live::default(),
        progress,
        disk: disk.clone(),
        origin: Arc::new(store),
        loader: loader.clone(),
        ready: Some(Readiness::default().guard("models")),
    };
    tasks.spawn("reconcile", reconcile.run(tasks.stopping()));
    until(&mut progresses, |state| matches!(state, State::Ready(_))).await;
    assert!(disk.artifact(&artifacts[0]).is_some());

    // A folder stands where the next artifact would be written: as good as no room.
    let blocked = folder.path().join("partial").join(format!("{}.pt", artifacts[1].hex()));
    std::fs::create_dir(&blocked).expect("made");
    catalog.send_replace(Some(only(2, "2", artifacts[1])));
    let state = until(&mut progresses, |state| matches!(state, State::Loading(Some(_)))).await;
    let State::Loading(Some(reason)) = state else { panic!("it waits") };
    assert!(reason.contains("data folder"), "{reason}");
    assert_eq!(disk.artifact(&artifacts[0]), None, "the one that left makes room");

    std::fs::remove_dir(&blocked).expect("removed");
    until(&mut progresses, |state| matches!(state, State::Ready(_))).await;
    assert!(tasks.stop(std::time::Duration::from_secs(5)).await);
    loader.stop();
}
