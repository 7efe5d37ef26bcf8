//! What the API server says of namespaces: their labels and annotations, their LimitRanges, and the
//! selectors of their models, followed by a watch so that no pod waits for a question.

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{LimitRange, Namespace as KubeNamespace, Service};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use sconce_istio::{
    inject::Namespace,
    names::{LANES_SERVICE, MANAGED_BY, MANAGED_BY_LABEL, SELECTORS_ANNOTATION},
    selectors::Selectors,
};
use serde_json::Value;

/// Reads the watches.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    namespaces: Store<PartialObjectMeta<KubeNamespace>>,
    limits: Store<LimitRange>,
    lanes: Store<PartialObjectMeta<Service>>,
}

impl Cluster {
    /// What is known, and the task that follows it.
    pub(super) fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let all = watcher::Config::default;
        // By its name, which is all that our rights are for.
        let one = all()
            .fields(&format!("metadata.name={LANES_SERVICE}"))
            .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let (namespaces, follow_namespaces) = follow(Api::all(client.clone()), all(), "namespaces");
        let (limits, follow_limits) = follow(Api::all(client.clone()), all(), "limit ranges");
        let (lanes, follow_lanes) = follow(Api::all(client.clone()), one, "models' selectors");
        let tasks = async move {
            // None ends; if one did, the others should not go on alone.
            let follow = [follow_namespaces.boxed(), follow_limits.boxed(), follow_lanes.boxed()];
            futures::future::select_all(follow).await;
        };
        (Self { client, namespaces, limits, lanes }, tasks)
    }

    /// Returns once everything has been seen once.
    pub(super) async fn ready(&self) {
        // It fails only when the task is gone, and then the process ends.
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.limits.wait_until_ready().await;
        let _ = self.lanes.wait_until_ready().await;
    }

    /// A namespace. One that does not permit injection is asked for anew: the API server, which
    /// called because it does, may know more than our watch does yet.
    pub(super) async fn namespace(&self, name: &str) -> Result<Namespace, kube::Error> {
        let known = self.namespaces.get(&ObjectRef::new(name)).map(|object| self.complete(&object));
        match known {
            Some(namespace) if namespace.permits() => Ok(namespace),
            _ => {
                let namespaces: Api<PartialObjectMeta<KubeNamespace>> = Api::all(self.client.clone());
                namespaces.get(name).await.map(|object| self.complete(&object))
            }
        }
    }

    fn complete(&self, object: &PartialObjectMeta<KubeNamespace>) -> Namespace {
        let name = object.name_any();
        let lanes = self.lanes.get(&ObjectRef::new(LANES_SERVICE).within(&name));
        let text = lanes.as_ref().and_then(|lanes| lanes.annotations().get(SELECTORS_ANNOTATION));
        Namespace {
            selectors: Selectors::read(text.map(String::as_str)),
            labels: object.labels().clone(),
            annotations: object.annotations().clone(),
            name,
        }
    }

    /// The LimitRanges of a namespace.
    pub(super) fn limits(&self, namespace: &str) -> Vec<Value> {
        let all = self.limits.state();
        let here = all.iter().filter(|range| range.namespace().as_deref() == Some(namespace));
        here.filter_map(|range| serde_json::to_value(&**range).ok()).collect()
    }
}

fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
) -> (Store<K>, impl Future<Output = ()> + Send)
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
    let events = watcher(api, config).default_backoff();
    let task = reflector::reflector(writer, events).for_each(move |event| {
        if let Err(error) = event {
            tracing::warn!(%error, what, "a watch broke off and is begun again");
        }
        std::future::ready(())
    });
    (store, task)
}
