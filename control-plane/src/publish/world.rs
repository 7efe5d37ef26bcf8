//! One look at everything that publishing depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use sconce_catalog::{Catalog, Model, ModelName};
use sconce_istio::{
    names::LANES_SERVICE,
    render::{self, Owner, Routing},
    selectors::Selectors,
};

use super::{
    cluster::{Kind, ObjectId, Observed},
    plan::Pod,
};
use crate::{
    declared::Owners,
    fleet::{Member, Members, PodName},
};

/// Kinds that a route may have.
const ROUTES: [Kind; 2] = [Kind::VirtualService, Kind::HttpRoute];

/// Taken once for each pass, so that a pass sees one state of everything.
pub(super) struct World {
    pub(super) catalog: Arc<Catalog>,
    pub(super) members: Arc<Members>,
    pub(super) owners: Owners,
    pub(super) observed: Observed,
}

/// Since when endpoints have not been heard of, as far as this process can tell. Whoever begins to
/// publish begins to count: a control plane that has just started has heard of nobody.
#[derive(Default)]
pub(super) struct Silence(BTreeMap<PodName, Instant>);

impl Silence {
    pub(super) fn note(&mut self, world: &World, now: Instant) {
        let connected = |pod: &PodName| world.members.get(pod).is_some_and(|member| member.connected);
        self.0.retain(|pod, _| world.observed.pods.contains_key(pod) && !connected(pod));
        for pod in world.observed.pods.keys().filter(|pod| !connected(pod)) {
            self.0.entry(pod.clone()).or_insert(now);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl World {
    /// The pods that matter to a model.
    pub(super) fn pods(
        &self,
        name: &ModelName,
        model: &Model,
        silence: &Silence,
        now: Instant,
    ) -> BTreeMap<String, Pod> {
        let endpoint = |pod: &PodName| {
            self.observed.pods.get(pod).is_some_and(|marks| marks.models.contains(name.name()))
        };
        let leaving = |pod: &PodName| self.observed.pods.get(pod).is_some_and(|marks| marks.terminating);
        let serves = |member: &&Member| member.connected && model.selector.matches(&member.labels);
        let own =
            self.members.iter().filter(|(pod, member)| pod.namespace == name.namespace() && serves(member));
        let labelled =
            self.observed.pods.keys().filter(|pod| pod.namespace == name.namespace() && endpoint(pod));
        let all: BTreeSet<&PodName> =
            own.map(|(pod, _)| pod).chain(labelled).filter(|pod| !leaving(pod)).collect();
        let one = |pod: &PodName| {
            let member = self.members.get(pod).filter(|member| member.connected);
            let absent = match member {
                Some(_) => None,
                None => Some(now.duration_since(silence.0.get(pod).copied().unwrap_or(now))),
            };
            // One that is connected and no longer meant to serve the model has nothing of it.
            let versions = member.filter(serves).and_then(|member| member.versions.get(name));
            Pod { endpoint: endpoint(pod), absent, versions: versions.cloned().unwrap_or_default() }
        };
        all.into_iter().map(|pod| (pod.name.clone(), one(pod))).collect()
    }

    /// What the cluster's own route says is published, whatever form it has: of two, the newer is
    /// the one that was being put in place of the other.
    pub(super) fn routing(&self, model: &ModelName) -> Option<Routing> {
        let routes = ROUTES.iter().filter_map(|kind| self.observed.objects.get(&route_id(*kind, model)));
        routes.filter_map(|route| render::read(route)).max_by_key(|routing| routing.generation)
    }

    /// The object that declares a model. While it is not known which do, whoever it was before: a
    /// control plane that has just started takes nothing from anybody.
    pub(super) fn owner(&self, model: &ModelName) -> Option<Owner> {
        match &self.owners {
            Some(owners) => owners.get(model).cloned(),
            None => {
                let published = self.objects_of(model).into_iter();
                published
                    .filter_map(|id| self.observed.objects.get(&id))
                    .find_map(|object| render::owner(object))
            }
        }
    }

    /// Objects of a model, as they are called; nothing else is ever deleted.
    pub(super) fn objects_of(&self, model: &ModelName) -> Vec<ObjectId> {
        // Routes first: one without its Service would answer 503.
        let routes = ROUTES.map(|kind| route_id(kind, model));
        let all = routes.into_iter().chain([service_id(model)]);
        all.filter(|id| self.observed.objects.contains_key(id)).collect()
    }

    /// Models that something in the cluster is labelled for and that the catalog has not.
    pub(super) fn left_over(&self) -> BTreeSet<ModelName> {
        let objects = self.observed.objects.iter().filter_map(|(id, object)| {
            let model = object["metadata"]["labels"][sconce_istio::names::MODEL_LABEL].as_str()?;
            ModelName::new(&id.namespace, model).ok()
        });
        let labels = self.observed.pods.iter().flat_map(|(pod, marks)| {
            marks.models.iter().filter_map(|model| ModelName::new(&pod.namespace, model).ok())
        });
        objects.chain(labels).filter(|model| !self.catalog.models.contains_key(model)).collect()
    }

    /// Namespaces that have the Service of lanes and no model any more.
    pub(super) fn without_models(&self) -> BTreeSet<&str> {
        let lanes = self.observed.objects.keys().filter(|id| **id == lanes_id(&id.namespace));
        let models = self.namespaces();
        lanes.map(|id| id.namespace.as_str()).filter(|namespace| !models.contains(namespace)).collect()
    }

    /// Namespaces with models.
    pub(super) fn namespaces(&self) -> BTreeSet<&str> {
        self.catalog.models.keys().map(ModelName::namespace).collect()
    }

    /// By which labels the models of a namespace ask for pods.
    pub(super) fn selectors(&self, namespace: &str) -> Selectors {
        let models = self.catalog.models.iter().filter(|(name, _)| name.namespace() == namespace);
        models.map(|(name, model)| (name.name().to_owned(), model.selector.clone())).collect()
    }

    /// Pods that are endpoints of a model.
    pub(super) fn endpoints(&self, model: &ModelName) -> Vec<&PodName> {
        let all = self.observed.pods.iter();
        all.filter(|(pod, marks)| pod.namespace == model.namespace() && marks.models.contains(model.name()))
            .map(|(pod, _)| pod)
            .collect()
    }
}

/// The id of a namespace's Service that tells the mesh what its lanes speak.
pub(super) fn lanes_id(namespace: &str) -> ObjectId {
    ObjectId { kind: Kind::Service, namespace: namespace.to_owned(), name: LANES_SERVICE.to_owned() }
}

pub(super) fn route_id(kind: Kind, model: &ModelName) -> ObjectId {
    let name = render::route_name(model);
    ObjectId { kind, namespace: model.namespace().to_owned(), name }
}

pub(super) fn service_id(model: &ModelName) -> ObjectId {
    ObjectId { kind: Kind::Service, namespace: model.namespace().to_owned(), name: model.name().to_owned() }
}
