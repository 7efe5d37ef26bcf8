//! For tests: a cluster in memory that can refuse, conflict, lag and lose its connection.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sconce_istio::names::{LANES_SERVICE, MODEL_LABEL_PREFIX};
use serde_json::json;
use tokio::sync::watch;

use super::*;

/// Clones are the same cluster.
#[derive(Clone)]
pub(in crate::publish) struct Memory(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    observed: watch::Sender<Observed>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectId, Value>,
    /// The fields that our last apply set.
    applied: BTreeMap<ObjectId, Value>,
    seen: Observed,
    log: Vec<String>,
    revision: u64,
    down: bool,
    /// Calls that were not answered.
    missed: usize,
    lagging: bool,
    refusing: Option<String>,
}

impl Memory {
    pub(in crate::publish) fn new() -> Self {
        let state = State::default();
        let memory = Self(Arc::new(Inner { state: Mutex::new(state), observed: watch::Sender::default() }));
        memory.change(|state| {
            let kinds = [Kind::Service, Kind::VirtualService, Kind::HttpRoute].map(Source::Objects);
            state.seen.listed = kinds.into_iter().chain([Source::Pods]).collect();
        });
        memory
    }

    pub(in crate::publish) fn observed(&self) -> watch::Receiver<Observed> {
        self.0.observed.subscribe()
    }

    /// Everything that was written for models, in order.
    pub(in crate::publish) fn log(&self) -> Vec<String> {
        let of_models = |line: &&String| !line.ends_with(LANES_SERVICE);
        self.lock().log.iter().filter(of_models).cloned().collect()
    }

    pub(in crate::publish) fn object(&self, id: &ObjectId) -> Option<Value> {
        self.lock().objects.get(id).cloned()
    }

    /// No call is answered any more, or they are again.
    pub(in crate::publish) fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// How many calls were not answered.
    pub(in crate::publish) fn missed(&self) -> usize {
        self.lock().missed
    }

    /// The watches say nothing new any more, or they catch up.
    pub(in crate::publish) fn set_lagging(&self, lagging: bool) {
        self.change(|state| state.lagging = lagging);
    }

    /// Writes to objects of which the id holds this text are refused.
    pub(in crate::publish) fn refuse(&self, text: Option<&str>) {
        self.lock().refusing = text.map(str::to_owned);
    }

    /// Somebody else changes or adds an object.
    pub(in crate::publish) fn edit(
        &self,
        id: &ObjectId,
        manager: &str,
        operation: &str,
        edit: impl FnOnce(&mut Value),
    ) {
        self.change(|state| {
            state.revision += 1;
            let uid = format!("uid-{}", state.revision);
            let object = state.objects.entry(id.clone()).or_insert_with(|| {
                json!({ "metadata": { "name": id.name, "namespace": id.namespace, "uid": uid, "managedFields": [] } })
            });
            edit(object);
            let entry = json!({ "manager": manager, "operation": operation, "fieldsV1": { "f:spec": {} } });
            let managers = object["metadata"]["managedFields"].as_array_mut();
            managers.expect("managers").push(entry);
        });
    }

    /// Somebody else deletes an object.
    pub(in crate::publish) fn remove(&self, id: &ObjectId) {
        self.change(|state| {
            state.objects.remove(id);
        });
    }

    /// A root VirtualService in `of` hands requests to a delegate.
    pub(in crate::publish) fn add_root(&self, of: &str, delegate: (&str, &str)) {
        let delegate = (delegate.0.to_owned(), delegate.1.to_owned());
        self.change(|state| {
            state.seen.roots.insert((of.into(), "root".into()), vec![delegate]);
        });
    }

    /// The pods that are endpoints of a model.
    pub(in crate::publish) fn endpoints(&self, model: &str) -> Vec<String> {
        let state = self.lock();
        let labelled = state.seen.pods.iter().filter(|(_, marks)| marks.models.contains(model));
        labelled.map(|(pod, _)| pod.name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        if !state.lagging {
            let own = state.objects.iter().filter(|(_, object)| ours(object));
            let own = own.map(|(id, object)| (id.clone(), Arc::new(object.clone()))).collect();
            state.seen.objects = own;
            self.0.observed.send_replace(state.seen.clone());
        }
        result
    }

    fn write<T>(
        &self,
        what: String,
        change: impl FnOnce(&mut State) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        self.reach()?;
        if let Some(text) = self.lock().refusing.as_ref().filter(|text| what.contains(*text)) {
            return Err(ClusterError::Refused(format!("not {text}")));
        }
        let result = self.change(change)?;
        self.lock().log.push(what);
        Ok(result)
    }

    fn reach(&self) -> Result<(), ClusterError> {
        let mut state = self.lock();
        if state.down {
            state.missed += 1;
            return Err(ClusterError::Unreachable("down".into()));
        }
        Ok(())
    }
}

impl Cluster for Memory {
    async fn get(&self, id: &ObjectId) -> Result<Option<Value>, ClusterError> {
        self.reach()?;
        Ok(self.object(id))
    }

    async fn apply(&self, object: &Value, force: Force) -> Result<Value, ClusterError> {
        let id = ObjectId::of(object).expect("an object with a name");
        let verb = if force == Force::Yes { "force" } else { "apply" };
        self.write(format!("{verb} {id}"), |state| {
            state.revision += 1;
            let mut next = object.clone();
            let ours =
                json!({ "manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": { "f:spec": {} } });
            let mut managers = vec![ours];
            next["metadata"]["uid"] = format!("uid-{}", state.revision).into();
            if let Some(live) = state.objects.get(&id) {
                next["metadata"]["uid"] = live["metadata"]["uid"].clone();
                let others = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                let others: Vec<Value> =
                    others.into_iter().filter(|entry| entry["manager"] != FIELD_MANAGER).collect();
                let before = state.applied.get(&id).unwrap_or(&Value::Null);
                let keys = live["spec"].as_object().cloned().unwrap_or_default();
                let added = keys.iter().filter(|(key, _)| before["spec"].get(key.as_str()).is_none());
                let added: Vec<_> = added.map(|(key, value)| (key.clone(), value.clone())).collect();
                let differs = keys
                    .iter()
                    .any(|(key, value)| object["spec"].get(key).is_some_and(|wanted| wanted != value));
                if force == Force::No {
                    if !others.is_empty() && differs {
                        return Err(ClusterError::Conflict("other managers".into()));
                    }
                    managers.extend(others);
                    for (key, value) in added {
                        next["spec"][key] = value;
                    }
                }
            }
            next["metadata"]["managedFields"] = managers.into();
            state.objects.insert(id.clone(), next.clone());
            state.applied.insert(id, object.clone());
            Ok(next)
        })
    }

    async fn delete(&self, id: &ObjectId, uid: &str) -> Result<(), ClusterError> {
        self.write(format!("delete {id}"), |state| {
            if state.objects.get(id).is_some_and(|object| object["metadata"]["uid"] == uid) {
                state.objects.remove(id);
            }
            Ok(())
        })
    }

    async fn label(&self, pod: &PodName, key: &str, value: Option<&str>) -> Result<(), ClusterError> {
        let model = key.strip_prefix(MODEL_LABEL_PREFIX).expect("a label of ours").to_owned();
        let sign = if value.is_some() { '+' } else { '-' };
        self.write(format!("{sign}{}/{}", pod.namespace, pod.name), |state| {
            let marks = state.seen.pods.entry(pod.clone()).or_default();
            if value.is_some() {
                marks.models.insert(model);
            } else {
                marks.models.remove(&model);
            }
            state.seen.pods.retain(|_, marks| !marks.models.is_empty());
            Ok(())
        })
    }
}
