//! Carries plans out: waits for any change, looks, plans, applies. The only thing that writes to a
//! cluster.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sconce_catalog::{Catalog, Model, ModelName, Share};
use sconce_istio::{
    names::READY,
    render::{self, Backend, Routing},
};
use sconce_telemetry::names;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Form, Settings,
    backoff::Backoff,
    cluster::{Cluster, ClusterError, Kind, ObjectId, Observed, Source},
    keeper::{Keeper, Outcome, Trouble},
    leading::Leading,
    plan::{Next, Plan, Situation, plan},
    publications::{Board, InForce, Publication, State},
    world::{Silence, World, route_id},
};
use crate::{
    declared::Owners,
    fleet::{Members, PodName},
    store::now_ms,
};

#[cfg(test)]
mod bench;
mod lanes;
#[cfg(test)]
mod tests;

/// Changes that come in a flurry, such as the reports of a whole fleet, are looked at together.
const FLURRY: Duration = Duration::from_millis(20);
/// When to look again at an object of somebody else's: it is not watched.
const FOREIGN: Duration = Duration::from_secs(15);

/// Where news comes from.
pub(super) struct Inputs {
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) members: watch::Receiver<Arc<Members>>,
    pub(super) owners: watch::Receiver<Owners>,
    pub(super) observed: watch::Receiver<Observed>,
    pub(super) held: watch::Receiver<Option<Instant>>,
}

/// The loop, and what it remembers from one pass to the next. Losing it costs nothing but a few
/// calls: what is published is read back from the cluster.
pub(super) struct Driver<C> {
    settings: Settings,
    cluster: Leading<C>,
    inputs: Inputs,
    board: Board,
    keeper: Keeper,
    published: BTreeMap<ModelName, (Routing, InForce)>,
    silence: Silence,
    /// Models whose objects the cluster refused, with the split that it was.
    refused: BTreeMap<ModelName, (Routing, Backoff)>,
    unreachable: Option<Backoff>,
    unclear: lanes::Unclear,
}

impl<C: Cluster> Driver<C> {
    pub(super) fn new(settings: Settings, cluster: C, inputs: Inputs, board: Board) -> Self {
        Self {
            settings,
            cluster: Leading::new(cluster, inputs.held.clone()),
            inputs,
            board,
            keeper: Keeper::new(settings.drift),
            published: BTreeMap::new(),
            silence: Silence::default(),
            refused: BTreeMap::new(),
            unreachable: None,
            unclear: lanes::Unclear::default(),
        }
    }

    /// Publishes until an input ends.
    pub(super) async fn run(mut self) {
        loop {
            let wake = match self.pass().await {
                Ok(wake) => {
                    if self.unreachable.take().is_some() {
                        tracing::info!("the API server is reached again");
                        self.board.trouble(None);
                    }
                    wake
                }
                Err(ClusterError::NotLeading) => None,
                Err(error) => Some(self.failed(&error)),
            };
            if !self.inputs.changed(wake).await {
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
            tracing::warn!(%error, "nothing is published until the API server answers");
            self.board.trouble(Some(error.to_string()));
        }
        let now = Instant::now();
        let backoff = self.unreachable.get_or_insert_with(Backoff::for_failures);
        backoff.attempted(now);
        backoff.due(now).unwrap_or(now)
    }

    /// One look at everything and what follows from it; gives back when to look again even if
    /// nothing changes.
    async fn pass(&mut self) -> Result<Option<Instant>, ClusterError> {
        let world = self.inputs.look();
        if !self.cluster.leads() {
            self.stand_down();
            return Err(ClusterError::NotLeading);
        }
        if !self.settings.needs().iter().all(|source| world.observed.listed.contains(source)) {
            return Ok(None);
        }
        self.silence.note(&world, Instant::now());
        self.tell_what_lanes_speak(&world).await?;
        let mut wake: Option<Instant> = None;
        for (name, model) in &world.catalog.models {
            let due = self.look_after(&world, name, model).await?;
            wake = wake.into_iter().chain(due).min();
        }
        for model in world.left_over() {
            self.withdraw(&world, &model).await?;
        }
        Ok(wake)
    }

    /// Somebody else may write from now on, so nothing that we remember is certain.
    fn stand_down(&mut self) {
        self.keeper.forget();
        self.published.clear();
        self.silence.clear();
        self.board.clear();
    }

    async fn look_after(
        &mut self,
        world: &World,
        name: &ModelName,
        model: &Model,
    ) -> Result<Option<Instant>, ClusterError> {
        let Some(wanted) = Routing::of(model) else { return Ok(None) };
        let now = Instant::now();
        let again = self.refused.get(name).filter(|(refused, _)| *refused == wanted);
        if let Some(due) = again.and_then(|(_, backoff)| backoff.due(now)) {
            return Ok(Some(due));
        }
        let backend = match Backend::new(name.clone()) {
            Ok(backend) => backend,
            Err(error) => {
                self.say(name, State::Failed(error.to_string()), &Plan::default()).await;
                return Ok(None);
            }
        };
        let published = self.published(world, &backend);
        let pods = world.pods(name, model, &self.silence, now);
        let rules = self.settings.rules;
        let plan = plan(Situation { wanted: &wanted, published: published.as_ref(), pods: &pods, rules });
        let target = match &plan.route {
            Next::Wait(_) => published,
            Next::Stay | Next::Publish => Some(wanted.clone()),
        };
        let done = self.carry_out(world, &backend, target.as_ref(), &plan).await;
        let endpoints =
            pods.iter().filter(|(name, pod)| pod.endpoint && !plan.unlabel.contains(*name)).count();
        metrics::gauge!(names::ENDPOINTS, "model" => name.to_string())
            .set((endpoints + plan.label.len()) as f64);
        let recheck = plan.recheck.map(|wait| now + wait);
        let again = self.conclude(&backend, wanted, plan, target, done).await?;
        Ok(recheck.into_iter().chain(again).min())
    }

    /// What the mesh has: as we remember it, or as the cluster says.
    fn published(&mut self, world: &World, backend: &Backend) -> Option<Routing> {
        let model = backend.model();
        if !self.published.contains_key(model) {
            let routing = world.routing(model)?;
            self.in_force(model, routing);
        }
        self.published.get(model).map(|(routing, _)| routing.clone())
    }

    fn in_force(&mut self, model: &ModelName, routing: Routing) {
        let now = InForce { generation: routing.generation, at_ms: now_ms() };
        self.published.insert(model.clone(), (routing, now));
    }

    /// In this order: pods that would break the next route's promise leave, the route changes,
    /// pods that keep it join. A step that fails keeps the later ones from happening, but for
    /// pods that join: without them a route in conflict would lose its endpoints one by one.
    async fn carry_out(
        &mut self,
        world: &World,
        backend: &Backend,
        target: Option<&Routing>,
        plan: &Plan,
    ) -> Result<(), Trouble> {
        let key = backend.label();
        let namespace = backend.model().namespace();
        let pod = |name: &String| PodName { namespace: namespace.to_owned(), name: name.clone() };
        let before = self.published(world, backend);
        let brings = target.is_some_and(|target| brings_something_new(target, before.as_ref()));
        let mut left = None;
        for name in &plan.unlabel {
            if let Err(error) = self.cluster.label(&pod(name), &key, None).await {
                // A route that brings no version would break no promise to those that stay: an
                // abort is not for one pod to hold up.
                if brings {
                    return Err(error.into());
                }
                left = left.or(Some(error));
            }
        }
        let Some(target) = target else { return left.map_or(Ok(()), |error| Err(error.into())) };
        let options = render::Options {
            delegate: world.observed.is_delegate(namespace, &render::route_name(backend.model())),
            owner: world.owner(backend.model()),
            retries: self.settings.retries,
        };
        self.keep(world, backend, render::service(backend, &options)).await?;
        let routed = match self.settings.form {
            Form::Istio => {
                self.keep(world, backend, render::virtual_service(backend, target, &options)).await
            }
            Form::GatewayApi => match render::http_route(backend, target, &options) {
                Ok(route) => self.keep(world, backend, route).await,
                Err(error) => Err(Trouble::Cluster(ClusterError::Refused(error.to_string()))),
            },
        };
        for name in &plan.label {
            self.cluster.label(&pod(name), &key, Some(READY)).await?;
        }
        routed?;
        // What an earlier configuration published, now that this one's is there.
        let other = match self.settings.form {
            Form::Istio => Kind::HttpRoute,
            Form::GatewayApi => Kind::VirtualService,
        };
        self.delete(world, &route_id(other, backend.model())).await?;
        left.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn keep(&mut self, world: &World, backend: &Backend, object: Value) -> Result<(), Trouble> {
        let seen = ObjectId::of(&object).and_then(|id| world.observed.objects.get(&id));
        match self.keeper.keep(&self.cluster, object, seen.map(Arc::as_ref)).await? {
            Outcome::Kept => {}
            Outcome::Repaired(what) => self.board.repaired(backend.model(), what).await,
        }
        Ok(())
    }

    /// Says what came of it, and when to try again.
    async fn conclude(
        &mut self,
        backend: &Backend,
        wanted: Routing,
        plan: Plan,
        target: Option<Routing>,
        done: Result<(), Trouble>,
    ) -> Result<Option<Instant>, ClusterError> {
        let model = backend.model();
        let (state, again) = match done {
            Ok(()) => {
                if let Some(target) = target
                    && self.published.get(model).is_none_or(|(routing, _)| *routing != target)
                {
                    self.in_force(model, target);
                }
                self.refused.remove(model);
                match &plan.route {
                    Next::Wait(reason) => (State::Waiting(reason.clone()), None),
                    Next::Stay | Next::Publish => (State::Published, None),
                }
            }
            Err(Trouble::Conflict { reason, again }) => {
                (State::Conflict(reason), again.or_else(|| Some(Instant::now() + FOREIGN)))
            }
            Err(Trouble::Cluster(error @ (ClusterError::Unreachable(_) | ClusterError::NotLeading))) => {
                return Err(error);
            }
            Err(Trouble::Cluster(error @ (ClusterError::Refused(_) | ClusterError::Conflict(_)))) => {
                let now = Instant::now();
                let (before, backoff) = self
                    .refused
                    .entry(model.clone())
                    .or_insert_with(|| (wanted.clone(), Backoff::for_failures()));
                *before = wanted;
                backoff.attempted(now);
                (State::Failed(error.to_string()), backoff.due(now))
            }
        };
        self.say(model, state, &plan).await;
        Ok(again)
    }

    async fn say(&self, model: &ModelName, state: State, plan: &Plan) {
        let in_force = self.published.get(model).map(|(_, in_force)| *in_force);
        let (lacking, left_out) = (plan.lacking.clone(), plan.left_out.clone());
        self.board.set(model, Publication { in_force, state, lacking, left_out }).await;
    }

    /// Removes what is left of a model that the catalog has not.
    async fn withdraw(&mut self, world: &World, model: &ModelName) -> Result<(), ClusterError> {
        let newest = world.routing(model).map(|routing| routing.generation);
        // Generations are serials, so this route is from a catalog that ours knows nothing of: the
        // data were lost, or are those of another day. Removing it would turn that into an outage.
        if newest.is_some_and(|generation| generation.0 > world.catalog.serial.0) {
            let reason = "its route is newer than this control plane's catalog, so it is left as it is; restore \
                          the data folder, or push the model again";
            self.say(model, State::Conflict(reason.into()), &Plan::default()).await;
            return Ok(());
        }
        for id in world.objects_of(model) {
            self.delete(world, &id).await?;
        }
        if let Ok(backend) = Backend::new(model.clone()) {
            for pod in world.endpoints(model) {
                self.cluster.label(pod, &backend.label(), None).await?;
            }
        }
        self.published.remove(model);
        self.board.remove(model).await;
        Ok(())
    }

    async fn delete(&mut self, world: &World, id: &ObjectId) -> Result<(), ClusterError> {
        let Some(object) = world.observed.objects.get(id) else { return Ok(()) };
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        self.cluster.delete(id, uid).await?;
        self.keeper.forget_one(id);
        Ok(())
    }
}

impl Inputs {
    fn look(&mut self) -> World {
        self.held.mark_unchanged();
        World {
            catalog: self.catalog.borrow_and_update().clone(),
            members: self.members.borrow_and_update().clone(),
            owners: self.owners.borrow_and_update().clone(),
            observed: self.observed.borrow_and_update().clone(),
        }
    }

    /// Waits for any news, or for `wake`. `false` once an input has ended.
    async fn changed(&mut self, wake: Option<Instant>) -> bool {
        let woken = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake.into()).await,
                None => std::future::pending().await,
            }
        };
        let alive = tokio::select! {
            news = self.catalog.changed() => news.is_ok(),
            news = self.members.changed() => news.is_ok(),
            news = self.owners.changed() => news.is_ok(),
            news = self.observed.changed() => news.is_ok(),
            news = self.held.changed() => news.is_ok(),
            () = woken => true,
        };
        tokio::time::sleep(FLURRY).await;
        alive
    }
}

impl Settings {
    /// What must have been listed before anything is concluded from what is not there.
    pub(super) fn needs(&self) -> [Source; 3] {
        [Source::Objects(Kind::Service), Source::Objects(self.form.kind()), Source::Pods]
    }
}

/// Whether the route names a version that the one before did not.
fn brings_something_new(next: &Routing, before: Option<&Routing>) -> bool {
    let had = |version| before.is_some_and(|before| before.split.share(version) > Share::NOTHING);
    next.split.shares().iter().any(|(version, _)| !had(version))
}
