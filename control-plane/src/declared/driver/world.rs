//! One look at everything that is declared, and at the pods.

use std::{collections::BTreeMap, sync::Arc};

use sconce_catalog::{Model, ModelName, Selector, Version};

use crate::{
    declared::objects::{Kind, Object, ObjectId, VersionSpec},
    fleet::{Member, Members, Standing},
};

/// Taken once for each pass, so that a pass sees one state of everything.
pub(super) struct World {
    pub(super) objects: BTreeMap<ObjectId, Object>,
    members: Arc<Members>,
    /// Of objects that declare the same version, the one that was there first.
    pub(super) first: BTreeMap<(ModelName, Version), ObjectId>,
}

impl World {
    pub(super) fn new(objects: BTreeMap<ObjectId, Object>, members: Arc<Members>) -> Self {
        let mut first: BTreeMap<(ModelName, Version), &Object> = BTreeMap::new();
        for object in objects.values().filter(|object| object.id.kind == Kind::Version) {
            let Ok(spec) = object.version() else { continue };
            let of = first.entry((spec.model, spec.version)).or_insert(object);
            if (&object.created, &object.id) < (&of.created, &of.id) {
                *of = object;
            }
        }
        let first = first.into_iter().map(|(version, object)| (version, object.id.clone())).collect();
        Self { objects, members, first }
    }

    /// The connected pods that serve a model, and where the version stands on each.
    pub(super) fn pods(
        &self,
        spec: &VersionSpec,
        model: Option<&Model>,
    ) -> BTreeMap<String, Option<Standing>> {
        let serve = self.members.iter().filter(|(pod, member)| {
            pod.namespace == spec.model.namespace()
                && member.connected
                && model.is_some_and(|model| model.selector.matches(&member.labels))
        });
        let standing = |member: &Member| {
            member.versions.get(&spec.model).and_then(|versions| versions.get(&spec.version)).cloned()
        };
        serve.map(|(pod, member)| (pod.name.clone(), standing(member))).collect()
    }

    /// Whether every version of a model belongs to an object that is being deleted.
    pub(super) fn all_go(&self, name: &ModelName, model: &Model) -> bool {
        model.versions.iter().all(|(version, record)| {
            let owner = self.first.get(&(name.clone(), version.clone())).and_then(|id| self.objects.get(id));
            owner.is_some_and(|owner| owner.deleting && record.pushed_by == owner.id.principal())
        })
    }

    /// What the model's own object says of the pods that serve it.
    pub(super) fn selector(&self, model: &ModelName) -> Option<Selector> {
        let (namespace, name) = (model.namespace().to_owned(), model.name().to_owned());
        let object = self.objects.get(&ObjectId { kind: Kind::Model, namespace, name })?;
        object.model().ok()?.selector
    }
}
