//! What the API server says of namespaces: their labels and annotations, their LimitRanges,
//! followed by a watch so that no pod waits for a question.

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{LimitRange, Namespace as KubeNamespace};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use sconce_istio::inject::Namespace;
use serde_json::Value;

/// Reads the watches.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    namespaces: Store<PartialObjectMeta<KubeNamespace>>,
    limits: Store<LimitRange>,
}

impl Cluster {
    /// What is known, and the task that follows it.
    pub(super) fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (namespaces, follow_namespaces) = follow(Api::all(client.clone()), "namespaces");
        let (limits, follow_limits) = follow(Api::all(client.clone()), "limit ranges");
        let tasks = async move {
            // Neither ends; if one did, the other should not go on alone.
            futures::future::select(follow_namespaces.boxed(), follow_limits.boxed()).await;
        };
        (Self { client, namespaces, limits }, tasks)
    }

    /// Returns once everything has been seen once.
    pub(super) async fn ready(&self) {
        // It fails only when the task is gone, and then the process ends.
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.limits.wait_until_ready().await;
    }

    /// A namespace. One that does not permit injection is asked for anew: the API server, which
    /// called because it does, may know more than our watch does yet.
    pub(super) async fn namespace(&self, name: &str) -> Result<Namespace, kube::Error> {
        let known = self.namespaces.get(&ObjectRef::new(name)).map(|object| namespace(&object));
        match known {
            Some(namespace) if namespace.permits() => Ok(namespace),
            _ => {
                let namespaces: Api<PartialObjectMeta<KubeNamespace>> = Api::all(self.client.clone());
                namespaces.get(name).await.map(|object| namespace(&object))
            }
        }
    }

    /// The LimitRanges of a namespace.
    pub(super) fn limits(&self, namespace: &str) -> Vec<Value> {
        let all = self.limits.state();
        let here = all.iter().filter(|range| range.namespace().as_deref() == Some(namespace));
        here.filter_map(|range| serde_json::to_value(&**range).ok()).collect()
    }
}

fn namespace(object: &PartialObjectMeta<KubeNamespace>) -> Namespace {
    Namespace {
        name: object.name_any(),
        labels: object.labels().clone(),
        annotations: object.annotations().clone(),
    }
}

fn follow<K>(api: Api<K>, what: &'static str) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let task = reflector::reflector(writer, events).for_each(move |event| {
        if let Err(error) = event {
            tracing::warn!(%error, what, "a watch broke off and is begun again");
        }
        std::future::ready(())
    });
    (store, task)
}
