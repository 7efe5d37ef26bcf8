//! Makes what is served follow the catalog.
//!
//! One task, and the only one that publishes a [`ModelSet`]. A change of split or a
//! removal takes effect at once; a version that is new is fetched, checked, loaded and
//! warmed first, one at a time, and joins when it is ready. A version that fails is
//! rejected alone. A newer catalog is taken up between two versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use sconce_artifact::Labels;
use sconce_catalog::{
    Catalog, Digest, Generation, Model, ModelName, ServedSplit, Share, Version, VersionRecord,
};
use sconce_lifecycle::{Guard, Stopping};
use sconce_telemetry::names;
use tokio::sync::watch;

use super::{
    disk::Disk,
    fetch::{Origin, fetch},
    live::{Live, ModelSet, ServedModel, ServedVersion, Unready},
    progress::{Progress, Splitting, Standing, State},
    retiring::Retiring,
};
use crate::engine::{Loader, Permit, Queue};

/// What the task works with.
pub struct Reconcile {
    /// What should be served.
    pub catalog: watch::Receiver<Option<Arc<Catalog>>>,
    /// What is served.
    pub live: Live,
    /// Where it stands.
    pub progress: watch::Sender<Progress>,
    /// Keeps artifacts and the catalog.
    pub disk: Disk,
    /// Sends what is missing.
    pub origin: Arc<dyn Origin>,
    /// Loads and frees.
    pub loader: Loader,
    /// Dropped once everything in the first catalog is ready or rejected.
    pub ready: Option<Guard>,
}

type Key = (ModelName, Version);

/// What is known about versions from one catalog to the next.
#[derive(Default)]
struct Known {
    standings: BTreeMap<Key, (Digest, Standing)>,
}

/// Why a version did not become ready.
struct Failed {
    reason: String,
    passing: bool,
}

/// Between the first two tries at a version that failed for a passing reason; then twice as
/// long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl Reconcile {
    /// Follows the catalog until the process stops.
    pub async fn run(self, stopping: Stopping) {
        stopping.run_until_cancelled(self.follow()).await;
    }

    async fn follow(mut self) {
        let mut known = Known::default();
        let Some(mut catalog) = self.next_catalog().await else { return };
        let mut wait = FIRST_RETRY;
        loop {
            let arrived = Instant::now();
            known.keep(&catalog);
            self.publish(&catalog, &known);
            let mut retry = false;
            for (key, record) in wanted(&catalog) {
                if self.catalog.has_changed().unwrap_or(false) {
                    break;
                }
                if known.is_settled(&key, &record) {
                    continue;
                }
                retry |= !self.bring(&mut known, &catalog, key, &record).await;
                metrics::histogram!(names::SWAP_SECONDS).record(arrived.elapsed());
            }
            if known.all_settled(&catalog) {
                self.ready.take();
                self.disk.keep_only(&artifacts(&catalog));
            }
            let due = retry.then_some(wait);
            let Some(next) = self.changed_or(due, &catalog).await else { return };
            // Whatever changed may have been what was missing.
            wait = if retry && Arc::ptr_eq(&next, &catalog) {
                (wait * 2).min(LONGEST_RETRY)
            } else {
                FIRST_RETRY
            };
            catalog = next;
        }
    }

    /// Tries one version; `false` where another try is due later.
    async fn bring(&self, known: &mut Known, catalog: &Catalog, key: Key, record: &VersionRecord) -> bool {
        let moved = known.start(&key, record.artifact);
        self.publish(catalog, known);
        let outcome = self.load(catalog, &key, record, &moved).await;
        let settled = match outcome {
            Ok(version) => {
                tracing::info!(model = %key.0, version = %key.1, "version ready");
                known.settle(&key, State::Ready(version));
                true
            }
            Err(Failed { reason, passing: false }) => {
                tracing::warn!(model = %key.0, version = %key.1, reason, "version rejected");
                metrics::counter!(names::REJECTIONS, "model" => key.0.to_string(), "version" => key.1.to_string())
                    .increment(1);
                known.settle(&key, State::Rejected(reason));
                true
            }
            Err(Failed { reason, passing: true }) => {
                tracing::warn!(model = %key.0, version = %key.1, reason, "version not here yet, trying again");
                known.settle(&key, State::Loading(Some(reason)));
                false
            }
        };
        self.publish(catalog, known);
        settled
    }

    async fn load(
        &self,
        catalog: &Catalog,
        key: &Key,
        record: &VersionRecord,
        moved: &AtomicU64,
    ) -> Result<Arc<ServedVersion>, Failed> {
        let fetched = fetch(&self.disk, self.origin.as_ref(), record.artifact, moved).await;
        let fetched = fetched.map_err(|error| {
            if error.is_of_disk() {
                // What the catalog has no longer may be what takes the room.
                self.disk.keep_only(&artifacts(catalog));
            }
            Failed { reason: error.to_string(), passing: error.is_passing() }
        })?;
        let labels = check(fetched.file.clone()).await?;
        let module = self.loader.load(fetched.file, record.signature.clone()).await;
        let module = module.map_err(|error| Failed { reason: error.to_string(), passing: false })?;
        let module = Arc::new(Retiring::new(module, self.loader.clone()));
        Ok(Arc::new(ServedVersion {
            version: key.1.clone(),
            artifact: record.artifact,
            labels,
            queue: Queue::new(module, &key.0.to_string(), key.1.as_str()),
            permit: Permit::default(),
            counts: Default::default(),
        }))
    }

    /// Publishes what of the catalog is known to be ready.
    fn publish(&self, catalog: &Catalog, known: &Known) {
        let before = self.live.snapshot();
        let models = catalog.models.iter().map(|(name, model)| {
            let old = before.models.get(name);
            let mut served = ServedModel::default();
            if let Some(old) = old {
                served.tickets = old.tickets.clone();
                served.routes = old.routes.clone();
            }
            for version in model.versions.keys() {
                match known.state(name, version) {
                    Some(State::Ready(ready)) => {
                        drop(served.ready.insert(version.clone(), Arc::clone(ready)))
                    }
                    Some(State::Rejected(reason)) => {
                        drop(served.unready.insert(version.clone(), Unready::Rejected(reason.clone())))
                    }
                    _ => drop(served.unready.insert(version.clone(), Unready::Loading)),
                }
            }
            (served.split, served.generation) = split(model, old, &served.ready);
            served.sticky = model.sticky.clone();
            (name.clone(), served)
        });
        let models: BTreeMap<ModelName, ServedModel> = models.collect();
        let splits = models.iter().map(|(name, served)| {
            let (generation, routes) = (served.generation, served.routes.clone());
            (name.clone(), Splitting { generation, routes })
        });
        let progress = known.progress(catalog, splits.collect());
        // Permits are given before and taken after: whoever is sent away finds the new set.
        let permits = permits(&models);
        for (permit, _) in permits.iter().filter(|(_, given)| *given) {
            permit.set(true);
        }
        // What the old set held is freed by the loader: see `retiring`.
        drop(self.live.publish(ModelSet { serial: catalog.serial, models }));
        for (permit, _) in permits.iter().filter(|(_, given)| !given) {
            permit.set(false);
        }
        metrics::counter!(names::SWAPS).increment(1);
        // A serial is a count of changes: exact in an f64 for the next 285 million years at one a second.
        metrics::gauge!(names::CATALOG_SERIAL).set(catalog.serial.0 as f64);
        for label in ["loading", "ready", "rejected"] {
            let count = progress.versions.values().filter(|standing| standing.state.label() == label).count();
            metrics::gauge!(names::VERSIONS, "state" => label).set(count as f64);
        }
        self.progress.send_replace(progress);
    }

    async fn next_catalog(&mut self) -> Option<Arc<Catalog>> {
        let catalog = self.catalog.wait_for(Option::is_some).await.ok()?.clone();
        self.catalog.mark_unchanged();
        catalog
    }

    /// The next catalog; the same one again where a retry is due before there is a newer.
    async fn changed_or(&mut self, retry: Option<Duration>, catalog: &Arc<Catalog>) -> Option<Arc<Catalog>> {
        let changed = self.catalog.changed();
        if let Some(wait) = retry {
            if let Ok(changed) = tokio::time::timeout(wait, changed).await {
                changed.ok()?;
            } else {
                return Some(Arc::clone(catalog));
            }
        } else {
            changed.await.ok()?;
        }
        self.catalog.borrow_and_update().clone()
    }
}

/// Who answers: the wanted split, or the one until now where none of its versions is ready yet,
/// since nobody should wait for a version that is on its way while another one is here.
fn split(
    model: &Model,
    old: Option<&ServedModel>,
    ready: &BTreeMap<Version, Arc<ServedVersion>>,
) -> (Option<ServedSplit>, Generation) {
    let among = |split| ServedSplit::among(split, |version| ready.contains_key(version));
    let wanted = model.split.as_ref().and_then(among).map(|split| (split, model.generation));
    let until_now = || {
        let old = old?;
        Some((among(old.split.as_ref()?.split())?, old.generation))
    };
    match wanted.or_else(until_now) {
        Some((split, generation)) => (Some(split), generation),
        None => (None, model.generation),
    }
}

/// Whether what waits for each version may still begin.
fn permits(models: &BTreeMap<ModelName, ServedModel>) -> Vec<(Permit, bool)> {
    let permits = models.values().flat_map(|model| {
        let split = model.split.as_ref().map(ServedSplit::split);
        let share = move |version| split.map_or(Share::WHOLE, |split| split.share(version));
        model
            .ready
            .iter()
            .map(move |(version, served)| (served.permit.clone(), share(version) > Share::NOTHING))
    });
    permits.collect()
}

/// Judges the archive before libtorch sees it, and reads its labels.
async fn check(file: PathBuf) -> Result<Labels, Failed> {
    let checked = tokio::task::spawn_blocking(move || {
        let checked = sconce_artifact::precheck(&file, &sconce_artifact::Limits::default());
        let checked = checked.map_err(|error| error.to_string())?;
        sconce_artifact::labels(&checked).map_err(|error| error.to_string())
    });
    match checked.await {
        Ok(Ok(labels)) => Ok(labels),
        Ok(Err(reason)) => Err(Failed { reason, passing: false }),
        Err(error) => {
            Err(Failed { reason: format!("the check of the archive broke off: {error}"), passing: false })
        }
    }
}

/// Every version of the catalog, those that should answer requests first.
fn wanted(catalog: &Catalog) -> Vec<(Key, VersionRecord)> {
    let mut all = Vec::new();
    for (name, model) in &catalog.models {
        for (version, record) in &model.versions {
            let share = model.split.as_ref().map_or(0, |split| split.share(version).ten_thousandths());
            all.push((std::cmp::Reverse(share), (name.clone(), version.clone()), record.clone()));
        }
    }
    all.sort_by_key(|(share, ..)| *share);
    all.into_iter().map(|(_, key, record)| (key, record)).collect()
}

fn artifacts(catalog: &Catalog) -> BTreeSet<Digest> {
    catalog.models.values().flat_map(|model| model.versions.values()).map(|record| record.artifact).collect()
}

impl Known {
    /// Forgets versions that the catalog has no longer, or has with other bytes.
    fn keep(&mut self, catalog: &Catalog) {
        self.standings.retain(|(name, version), (artifact, _)| {
            let record = catalog.models.get(name).and_then(|model| model.versions.get(version));
            record.is_some_and(|record| record.artifact == *artifact)
        });
    }

    fn state(&self, name: &ModelName, version: &Version) -> Option<&State> {
        self.standings.get(&(name.clone(), version.clone())).map(|(_, standing)| &standing.state)
    }

    fn is_settled(&self, key: &Key, record: &VersionRecord) -> bool {
        self.standings.get(key).is_some_and(|(artifact, standing)| {
            *artifact == record.artifact && !matches!(standing.state, State::Loading(_))
        })
    }

    fn all_settled(&self, catalog: &Catalog) -> bool {
        wanted(catalog).iter().all(|(key, record)| self.is_settled(key, record))
    }

    fn start(&mut self, key: &Key, artifact: Digest) -> Arc<AtomicU64> {
        let fresh = || (artifact, Standing { state: State::Loading(None), moved: Arc::default() });
        Arc::clone(&self.standings.entry(key.clone()).or_insert_with(fresh).1.moved)
    }

    fn settle(&mut self, key: &Key, state: State) {
        if let Some((_, standing)) = self.standings.get_mut(key) {
            standing.state = state;
        }
    }

    fn progress(&self, catalog: &Catalog, splits: BTreeMap<ModelName, Splitting>) -> Progress {
        let standings = self.standings.iter().map(|(key, (_, standing))| (key.clone(), standing.clone()));
        Progress { serial: catalog.serial, versions: standings.collect(), splits }
    }
}

#[cfg(test)]
mod tests;
