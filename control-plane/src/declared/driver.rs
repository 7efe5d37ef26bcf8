//! Makes the catalog what is declared, and says of each object what has become of it.
//!
//! Everything goes through the store's own doors, as whoever the object is. Versions that were not
//! made by an object are left alone, whatever is declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sconce_catalog::{Catalog, Signature, Split};
use tokio::sync::watch;

use super::{
    cluster::{Cluster, Observed},
    objects::{FINALIZER, Kind, Object, ObjectId, VersionSpec},
    pulling::{Pulling, Standing},
    status::{self, Bytes, INVALID, Status},
};
use crate::{
    api::ApiError,
    fleet::{Fleet, Members},
    publish::{Backoff, ClusterError, Publications},
    pull::{Credentials, Pull, Pulls},
    store::{SOURCE_DIGEST, Sticky, Store},
};

mod models;
#[cfg(test)]
mod tests;
mod world;

use self::world::World;

/// Changes that come in a flurry are looked at together.
const FLURRY: Duration = Duration::from_millis(20);
/// How often something is looked at that goes on by itself: a pull, a split on its way.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon something is tried again that the API server refused.
const REFUSED: Duration = Duration::from_secs(30);
/// A write begins only where the lease is held for longer than a call may take.
const CALL: Duration = Duration::from_secs(3);

/// Where news comes from.
pub(super) struct Inputs {
    pub(super) observed: watch::Receiver<Observed>,
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) members: watch::Receiver<Arc<Members>>,
    pub(super) held: watch::Receiver<Option<Instant>>,
}

/// What is changed and asked.
pub(super) struct Plane {
    pub(super) store: Store,
    pub(super) fleet: Fleet,
    pub(super) publications: Publications,
    pub(super) pulls: Pulls,
}

/// The loop, and what it remembers from one pass to the next. Losing it costs a few calls.
pub(super) struct Driver<C> {
    cluster: C,
    inputs: Inputs,
    store: Store,
    fleet: Fleet,
    publications: Publications,
    pulling: Pulling<C>,
    /// What was written of an object of this revision: the watch lags behind it.
    told: BTreeMap<ObjectId, (String, Status)>,
    /// Objects of which the API server refused something.
    refused: BTreeSet<ObjectId>,
    unreachable: Option<Backoff>,
}

impl<C: Cluster> Driver<C> {
    pub(super) fn new(cluster: C, inputs: Inputs, plane: Plane) -> Self {
        let Plane { store, fleet, publications, pulls } = plane;
        let pulling = Pulling::new(cluster.clone(), pulls);
        let (told, refused, unreachable) = (BTreeMap::new(), BTreeSet::new(), None);
        Self { cluster, inputs, store, fleet, publications, pulling, told, refused, unreachable }
    }

    /// Reconciles until an input ends.
    pub(super) async fn run(mut self) {
        loop {
            let wake = match self.pass().await {
                Ok(wake) => {
                    if self.unreachable.take().is_some() {
                        tracing::info!("declared objects are reconciled again");
                    }
                    wake
                }
                Err(ClusterError::NotLeading) => {
                    self.pulling.end_all();
                    self.told.clear();
                    None
                }
                Err(error) => Some(self.failed(&error)),
            };
            if !self.changed(wake).await {
                return;
            }
            // Whatever else changes meanwhile does not make the API server answer.
            if let Some(due) = self.unreachable.as_ref().and_then(|backoff| backoff.due(Instant::now())) {
                tokio::time::sleep_until(due.into()).await;
            }
        }
    }

    /// Said once, however long it lasts.
    fn failed(&mut self, error: &ClusterError) -> Instant {
        if self.unreachable.is_none() {
            tracing::warn!(%error, "declared objects are not reconciled until that is over");
        }
        let now = Instant::now();
        let backoff = self.unreachable.get_or_insert_with(Backoff::for_failures);
        backoff.attempted(now);
        backoff.due(now).unwrap_or(now)
    }

    fn lead(&self) -> Result<(), ClusterError> {
        let leads = self.inputs.held.borrow().is_some_and(|until| until > Instant::now() + CALL);
        if leads { Ok(()) } else { Err(ClusterError::NotLeading) }
    }

    async fn pass(&mut self) -> Result<Option<Instant>, ClusterError> {
        self.inputs.held.mark_unchanged();
        self.inputs.catalog.mark_unchanged();
        let observed = self.inputs.observed.borrow_and_update().clone();
        let members = self.inputs.members.borrow_and_update().clone();
        self.lead()?;
        if observed.listed.len() < 2 {
            return Ok(None);
        }
        let world = World::new(observed.objects, members);
        self.pulling.keep(|id| world.objects.contains_key(id));
        self.told.retain(|id, _| world.objects.contains_key(id));
        self.refused.retain(|id| world.objects.contains_key(id));
        let mut wake = None;
        for object in world.objects.values() {
            self.lead()?;
            let again = match object.id.kind {
                Kind::Model => self.model(object).await,
                Kind::Version => self.version(&world, object).await,
            };
            let again = self.unless_refused(&object.id, again)?;
            wake = [wake, again].into_iter().flatten().min();
        }
        if self.pulling.is_running() {
            wake = [wake, Some(Instant::now() + AGAIN)].into_iter().flatten().min();
        }
        Ok(wake)
    }

    /// What the API server refuses of one object keeps no other waiting.
    fn unless_refused(
        &mut self,
        id: &ObjectId,
        outcome: Result<Option<Instant>, ClusterError>,
    ) -> Result<Option<Instant>, ClusterError> {
        match outcome {
            Err(error @ (ClusterError::Refused(_) | ClusterError::Conflict(_))) => {
                if self.refused.insert(id.clone()) {
                    tracing::warn!(object = %id, %error, "what is said of an object is not taken");
                }
                Ok(Some(Instant::now() + REFUSED))
            }
            other => {
                self.refused.remove(id);
                other
            }
        }
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.store.catalog().borrow().clone()
    }

    async fn version(&mut self, world: &World, object: &Object) -> Result<Option<Instant>, ClusterError> {
        let spec = match object.version() {
            Ok(spec) => spec,
            Err(_) if object.deleting => {
                self.release(object).await?;
                return Ok(None);
            }
            Err(why) => {
                let mut status = Status::of(object.generation);
                status.say("Pulled", false, INVALID, &why);
                status.say("Ready", false, INVALID, why);
                self.say(object, status).await?;
                return Ok(None);
            }
        };
        if object.deleting {
            // A pull that is ended may be committing: whether it did is seen a moment later.
            if self.pulling.end(&object.id) {
                return Ok(Some(Instant::now() + AGAIN));
            }
            self.retire(world, object, &spec).await?;
            return Ok(None);
        }
        if !object.is_held() {
            let finalizers = [&object.finalizers[..], &[FINALIZER.to_owned()]].concat();
            self.cluster.set_finalizers(object, &finalizers).await?;
            return Ok(None);
        }
        let catalog = self.catalog();
        let model = catalog.models.get(&spec.model);
        let record = model.and_then(|model| model.versions.get(&spec.version));
        let (mut again, conflict) = (None, |message| Bytes::Missing { reason: "Conflict", message });
        let first = world.first.get(&(spec.model.clone(), spec.version.clone()));
        let bytes = match record {
            _ if first.is_some_and(|first| *first != object.id) => {
                let first = first.map(ObjectId::to_string).unwrap_or_default();
                conflict(format!("{first} declares the same version; delete one of the two"))
            }
            Some(record) if record.pushed_by != object.id.principal() => conflict(format!(
                "version {} of {} was pushed by {} and is left as it is; declare another version, or delete that one",
                spec.version, spec.model, record.pushed_by
            )),
            Some(record) if record.metadata.get(SOURCE_DIGEST) != Some(&spec.source.digest.to_string()) => {
                conflict(format!(
                    "version {} of {} is there with other bytes, and versions never change; declare another version",
                    spec.version, spec.model
                ))
            }
            Some(record) => Bytes::There(record),
            None => {
                let selector = world.selector(&spec.model);
                let pull = || {
                    let VersionSpec { model, version, source, metadata, .. } = spec.clone();
                    let pull = Pull {
                        model,
                        version: Some(version),
                        source,
                        credentials: Credentials::default(),
                        metadata,
                        selector,
                        overrides: Signature::default(),
                        activate: false,
                    };
                    (spec.clone(), pull)
                };
                match self.pulling.stand(object, pull, Instant::now()) {
                    Standing::Coming(progress) => Bytes::Coming(progress),
                    Standing::Failed(failure, due) => {
                        again = due;
                        Bytes::Missing { reason: failure.reason, message: failure.message }
                    }
                }
            }
        };
        let pods = world.pods(&spec, model);
        let status = status::of_version(object.generation, &spec.version, bytes, model, &pods);
        self.say(object, status).await?;
        Ok(again)
    }

    /// Takes a version out of the catalog, if it is this object's, and lets the object go.
    async fn retire(
        &mut self,
        world: &World,
        object: &Object,
        spec: &VersionSpec,
    ) -> Result<(), ClusterError> {
        if !object.is_held() {
            return Ok(());
        }
        let catalog = self.catalog();
        let model = catalog.models.get(&spec.model);
        let record = model.and_then(|model| model.versions.get(&spec.version));
        let principal = object.id.principal();
        let (Some(model), Some(record)) = (model, record) else { return self.release(object).await };
        if record.pushed_by != principal {
            return self.release(object).await;
        }
        // Where everything goes, no share keeps anything: the last one takes them all along.
        if model.versions.len() > 1 && world.all_go(&spec.model, model) {
            let keep = model.versions.keys().next_back().cloned().unwrap_or_else(|| spec.version.clone());
            let whole = Split::whole(keep.clone());
            if let Err(error) = self.store.set_split(&principal, &spec.model, whole, Sticky::AsItIs).await {
                tracing::warn!(object = %object.id, %error, "shares were not taken from versions that go");
            }
            if keep == spec.version {
                return Ok(());
            }
        }
        match self.store.delete(&principal, &spec.model, &spec.version).await {
            Ok(_) | Err(ApiError::NotFound(_)) => self.release(object).await,
            Err(error) => {
                let (bytes, pods) = (Bytes::There(record), world.pods(spec, Some(model)));
                let mut status =
                    status::of_version(object.generation, &spec.version, bytes, Some(model), &pods);
                status.say("Deleted", false, "HasShare", error.to_string());
                self.say(object, status).await
            }
        }
    }

    async fn release(&self, object: &Object) -> Result<(), ClusterError> {
        let others = object.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER);
        let others: Vec<String> = others.cloned().collect();
        self.cluster.set_finalizers(object, &others).await
    }

    /// Writes what is said of an object, where that is news.
    async fn say(&mut self, object: &Object, status: Status) -> Result<(), ClusterError> {
        let told = self.told.get(&object.id).filter(|(revision, _)| *revision == object.resource_version);
        let before = told.map_or(&object.status, |(_, status)| status);
        let status = status.since(before, &jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if status == *before {
            return Ok(());
        }
        self.cluster.set_status(&object.id, &status).await?;
        for condition in status.news(before) {
            self.cluster.note(object, condition);
        }
        self.told.insert(object.id.clone(), (object.resource_version.clone(), status));
        Ok(())
    }

    /// Waits for any news, or for `wake`. `false` once an input has ended.
    async fn changed(&mut self, wake: Option<Instant>) -> bool {
        let woken = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake.into()).await,
                None => std::future::pending().await,
            }
        };
        let inputs = &mut self.inputs;
        let alive = tokio::select! {
            news = inputs.observed.changed() => news.is_ok(),
            news = inputs.catalog.changed() => news.is_ok(),
            news = inputs.members.changed() => news.is_ok(),
            news = inputs.held.changed() => news.is_ok(),
            () = self.pulling.over() => true,
            () = woken => true,
        };
        tokio::time::sleep(FLURRY).await;
        alive
    }
}
