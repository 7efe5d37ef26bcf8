//! For tests: a cluster in memory, in which objects are applied and deleted as an API server does it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::declared::objects::Kind;

/// Clones are the same cluster.
#[derive(Clone)]
pub(in crate::declared) struct Memory(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    observed: watch::Sender<Observed>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectId, Value>,
    secrets: BTreeMap<(String, String), Secret>,
    /// Namespaces whose Secrets may not be read.
    forbidden: Vec<String>,
    notes: Vec<(ObjectId, String)>,
    revision: u64,
}

impl Memory {
    pub(in crate::declared) fn new() -> Self {
        let memory = Self(Arc::new(Inner { state: Mutex::default(), observed: watch::Sender::default() }));
        memory.change(|_| ());
        memory
    }

    pub(in crate::declared) fn observed(&self) -> watch::Receiver<Observed> {
        self.0.observed.subscribe()
    }

    /// Somebody applies an object.
    pub(in crate::declared) fn apply(&self, kind: Kind, mut object: Value) -> ObjectId {
        let id = Object::read(kind, &object).expect("a name").id;
        self.change(|state| {
            state.revision += 1;
            let before = state.objects.get(&id).cloned().unwrap_or_default();
            let metadata = &mut object["metadata"];
            metadata["generation"] =
                (before["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
            metadata["finalizers"] = before["metadata"]["finalizers"].clone();
            metadata["creationTimestamp"] = format!("{:08}", state.revision).into();
            if let Some(created) = before["metadata"]["creationTimestamp"].as_str() {
                metadata["creationTimestamp"] = created.into();
            }
            metadata["resourceVersion"] = state.revision.to_string().into();
            metadata["uid"] = format!("uid-of-{}", id.name).into();
            object["status"] = before["status"].clone();
            state.objects.insert(id.clone(), object);
        });
        id
    }

    /// Somebody deletes an object: it stays while it has finalizers.
    pub(in crate::declared) fn delete(&self, id: &ObjectId) {
        self.change(|state| {
            if let Some(object) = state.objects.get_mut(id) {
                object["metadata"]["deletionTimestamp"] = "now".into();
            }
            state.collect(id);
        });
    }

    pub(in crate::declared) fn put_secret(&self, namespace: &str, name: &str, secret: Secret) {
        self.lock().secrets.insert((namespace.into(), name.into()), secret);
    }

    pub(in crate::declared) fn forbid_secrets(&self, namespace: &str) {
        self.lock().forbidden.push(namespace.into());
    }

    /// The Events so far: of what, and the reason.
    pub(in crate::declared) fn notes(&self) -> Vec<(ObjectId, String)> {
        self.lock().notes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let read = |(id, object): (&ObjectId, &Value)| Some((id.clone(), Object::read(id.kind, object)?));
        let objects = state.objects.iter().filter_map(read).collect();
        self.0.observed.send_replace(Observed { listed: [Kind::Model, Kind::Version].into(), objects });
        result
    }
}

impl State {
    fn collect(&mut self, id: &ObjectId) {
        let Some(object) = self.objects.get(id) else { return };
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if !object["metadata"]["deletionTimestamp"].is_null() && !held {
            self.objects.remove(id);
        }
    }
}

impl Cluster for Memory {
    async fn set_status(&self, id: &ObjectId, status: &Status) -> Result<(), ClusterError> {
        self.change(|state| {
            if let Some(object) = state.objects.get_mut(id) {
                object["status"] = json!(status);
            }
        });
        Ok(())
    }

    async fn set_finalizers(&self, object: &Object, finalizers: &[String]) -> Result<(), ClusterError> {
        self.change(|state| {
            if let Some(held) = state.objects.get_mut(&object.id) {
                held["metadata"]["finalizers"] = json!(finalizers);
            }
            state.collect(&object.id);
        });
        Ok(())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        let state = self.lock();
        if state.forbidden.iter().any(|forbidden| forbidden == namespace) {
            return Err(ClusterError::Refused("secrets is forbidden".into()));
        }
        Ok(state.secrets.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    fn note(&self, object: &Object, condition: &Condition) {
        self.lock().notes.push((object.id.clone(), condition.reason.clone()));
    }
}
