//! For tests: a driver on a cluster in memory, with everything that it reads in the test's hands.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use sconce_catalog::{Serial, Version};
use sconce_istio::render::Owner;
use tokio::task::JoinSet;

use super::*;
use crate::{
    fleet::{Member, Standing},
    publish::{
        cluster::memory::Memory,
        keeper::Drift,
        plan::{Rules, tests::routing},
        publications::{Known, Publications},
        world::service_id,
    },
    store::Event,
};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bench {
    pub(super) memory: Memory,
    pub(super) settings: Settings,
    catalog: watch::Sender<Arc<Catalog>>,
    members: watch::Sender<Arc<Members>>,
    owners: watch::Sender<Owners>,
    pub(super) held: watch::Sender<Option<Instant>>,
    known: watch::Receiver<Known>,
    events: Arc<Mutex<Vec<Event>>>,
    driver: JoinSet<()>,
}

pub(super) fn fraud() -> ModelName {
    "ml/fraud".parse().expect("valid")
}

pub(super) fn route() -> ObjectId {
    route_id(Kind::VirtualService, &fraud())
}

pub(super) fn service() -> ObjectId {
    service_id(&fraud())
}

impl Bench {
    /// A driver that leads, with nothing to do.
    pub(super) fn start() -> Self {
        let rules = Rules { floor: 75, grace: Duration::from_secs(600) };
        Self::with(Settings { form: Form::Istio, drift: Drift::Repair, rules, retries: 2 }, Memory::new())
    }

    pub(super) fn with(settings: Settings, memory: Memory) -> Self {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let kept = Arc::clone(&events);
        let (board, known) = Board::new(Box::new(move |event| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            Box::pin(async {})
        }));
        let mut bench = Self {
            memory,
            settings,
            catalog: watch::Sender::default(),
            members: watch::Sender::default(),
            owners: watch::Sender::new(crate::declared::nobody()),
            held: watch::Sender::new(Some(Instant::now() + PATIENCE * 10)),
            known,
            events,
            driver: JoinSet::new(),
        };
        bench.spawn(board);
        bench
    }

    fn spawn(&mut self, board: Board) {
        let inputs = Inputs {
            catalog: self.catalog.subscribe(),
            members: self.members.subscribe(),
            owners: self.owners.subscribe(),
            observed: self.memory.observed(),
            held: self.held.subscribe(),
        };
        self.driver.spawn(Driver::new(self.settings, self.memory.clone(), inputs, board).run());
    }

    /// Another control plane takes over the cluster, knowing the catalog and no sidecar yet.
    pub(super) async fn succeed(mut self) -> Self {
        self.driver.shutdown().await;
        let next = Self::with(self.settings, self.memory.clone());
        next.owners.send_replace(None);
        next.catalog.send_replace(self.catalog.borrow().clone());
        next
    }

    /// `1=90,2=10@5`: the split of `ml/fraud`, in a catalog of that serial.
    pub(super) fn want(&self, text: &str) {
        let Routing { split, generation, .. } = routing(text);
        let model = Model { split: Some(split), generation, ..Model::default() };
        self.set(Some(("ml/fraud", model)), generation.0);
    }

    /// The catalog has one model, or none.
    pub(super) fn set(&self, model: Option<(&str, Model)>, serial: u64) {
        let models = model.into_iter().map(|(name, model)| (name.parse().expect("valid"), model)).collect();
        self.catalog.send_replace(Arc::new(Catalog { serial: Serial(serial), models }));
    }

    /// Two models with one split.
    pub(super) fn want_two(&self, names: [&str; 2], text: &str) {
        let Routing { split, generation, .. } = routing(text);
        let model = |name: &str| {
            let model = Model { split: Some(split.clone()), generation, ..Model::default() };
            (name.parse().expect("valid"), model)
        };
        let models = names.map(model).into();
        self.catalog.send_replace(Arc::new(Catalog { serial: Serial(generation.0), models }));
    }

    /// The `Model`s of `ml/fraud` by their uid: one, or none; or it is not known yet.
    pub(super) fn declare(&self, known: Option<&[&str]>) {
        let owner = |uid: &&str| (fraud(), Owner { uid: (*uid).to_owned() });
        self.owners.send_replace(known.map(|uids| Arc::new(uids.iter().map(owner).collect())));
    }

    /// Whom the published objects belong to.
    pub(super) fn owned_by(&self) -> [Option<String>; 2] {
        [service(), route()].map(|id| {
            let object = self.memory.object(&id).expect("published");
            render::owner(&object).map(|owner| owner.uid)
        })
    }

    /// The connected sidecars, each with what it has ready of every model.
    pub(super) fn report(&self, pods: &[(&str, &[&str])]) {
        let versions = |ready: &[&str]| -> BTreeMap<Version, Standing> {
            ready.iter().map(|version| (version.parse().expect("valid"), Standing::Ready)).collect()
        };
        let models: BTreeSet<ModelName> = self.catalog.borrow().models.keys().cloned().collect();
        let one = |(name, ready): &(&str, &[&str])| {
            let versions = models.iter().map(|model| (model.clone(), versions(ready))).collect();
            let pod = PodName { namespace: "ml".into(), name: (*name).into() };
            (pod, Member { connected: true, versions, ..Member::default() })
        };
        self.members.send_replace(Arc::new(pods.iter().map(one).collect()));
    }

    /// Waits until this is what has become of the model.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Publication) -> bool) -> Publication {
        self.until_of("ml/fraud", what, holds).await
    }

    pub(super) async fn until_of(
        &mut self,
        model: &str,
        what: &str,
        holds: impl Fn(&Publication) -> bool,
    ) -> Publication {
        let model: ModelName = model.parse().expect("valid");
        let found = self.known.wait_for(|known| known.models.get(&model).is_some_and(&holds));
        let Ok(found) = tokio::time::timeout(PATIENCE, found).await else {
            panic!("it never came true: {what}; {:?}, {:?}", self.known.borrow(), self.memory.log());
        };
        found.expect("the driver lives").models.get(&model).cloned().expect("just seen")
    }

    pub(super) async fn published(&mut self, generation: u64) -> Publication {
        let at = |it: &Publication| it.in_force.is_some_and(|in_force| in_force.generation.0 == generation);
        self.until("published", |it| it.state == State::Published && at(it)).await
    }

    /// Waits until nothing is said of any model.
    pub(super) async fn until_silent(&mut self) {
        let empty = self.known.wait_for(|known| known.models.is_empty());
        tokio::time::timeout(PATIENCE, empty).await.expect("in time").expect("the driver lives");
    }

    /// Waits until this was written down.
    pub(super) async fn until_event(&mut self, kind: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.events().into_iter().rfind(|event| event.kind == kind);
            if let Some(event) = found {
                return event.message;
            }
            assert!(Instant::now() < deadline, "no {kind} among {:?}", self.events());
            tokio::task::yield_now().await;
        }
    }

    /// What the API would say.
    pub(super) fn told(&self) -> Option<Publication> {
        Publications(Some(self.known.clone())).of(&fraud())
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn shares(&self) -> Option<Routing> {
        self.memory.object(&route()).as_ref().and_then(render::read)
    }
}
