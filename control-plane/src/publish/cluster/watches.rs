//! Keeps [`Observed`] true.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use sconce_istio::{
    names::{LANES_SERVICE, MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, MODEL_LABEL_PREFIX},
    render,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    Kind, Marks, ObjectId, Observed, Source,
    kubernetes::{chain, resource},
    ours,
};
use crate::fleet::PodName;

/// Watches for ever. A kind that the cluster does not have is never listed, and asked for again
/// now and then: it may be installed later.
pub(in crate::publish) async fn follow(client: Client, observed: &watch::Sender<Observed>) {
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
    let own = watcher::Config::default().labels(&labels);
    let objects = |kind| Api::<DynamicObject>::all_with(client.clone(), &resource(kind));
    tokio::join!(
        one(Source::Objects(Kind::Service), objects(Kind::Service), own.clone(), observed, put_object),
        one(Source::Objects(Kind::HttpRoute), objects(Kind::HttpRoute), own, observed, put_object),
        // All of them, because a user's root says whom it delegates to.
        one(
            Source::Objects(Kind::VirtualService),
            objects(Kind::VirtualService),
            watcher::Config::default(),
            observed,
            put_object,
        ),
        // Only their metadata, and all pods, because labels of models that are gone are found so.
        one(
            Source::Pods,
            Api::<PartialObjectMeta<Pod>>::all(client.clone()),
            watcher::Config::default(),
            observed,
            put_pod,
        ),
    );
}

/// Puts one object, or takes it away, and says whether that changed anything: most pods of a
/// cluster are no concern of ours, and readers are not woken for them.
type Put<K> = fn(&mut Observed, Source, &K, bool) -> bool;

async fn one<K>(
    source: Source,
    api: Api<K>,
    config: watcher::Config,
    observed: &watch::Sender<Observed>,
    put: Put<K>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut failing = false;
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Err(error) => {
                if !failing {
                    tracing::warn!(?source, error = chain(&error), "a watch of the cluster is interrupted");
                }
                failing = true;
                continue;
            }
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => listing.push(object),
            // All at once, so that nobody takes half a list for the whole.
            Ok(Event::InitDone) => observed.send_modify(|observed| {
                observed.forget(source);
                for object in listing.drain(..) {
                    put(observed, source, &object, true);
                }
                observed.listed.insert(source);
            }),
            Ok(Event::Apply(object)) => {
                observed.send_if_modified(|observed| put(observed, source, &object, true));
            }
            Ok(Event::Delete(object)) => {
                observed.send_if_modified(|observed| put(observed, source, &object, false));
            }
        }
        failing = false;
    }
}

impl Observed {
    fn forget(&mut self, source: Source) {
        match source {
            Source::Pods => self.pods.clear(),
            Source::Objects(kind) => {
                self.objects.retain(|id, _| id.kind != kind);
                if kind == Kind::VirtualService {
                    self.roots.clear();
                }
            }
        }
    }
}

fn put_object(observed: &mut Observed, source: Source, object: &DynamicObject, there: bool) -> bool {
    let (Source::Objects(kind), Ok(mut value)) = (source, serde_json::to_value(object)) else { return false };
    // Entries of a list of built-in objects do not say what they are: the list does.
    value["kind"] = resource(kind).kind.into();
    let Some(id) = ObjectId::of(&value) else { return false };
    let published = value["metadata"]["labels"].get(MODEL_LABEL).is_some() || id.name == LANES_SERVICE;
    let own = ours(&value) && published;
    let root = (id.namespace.clone(), id.name.clone());
    let delegates =
        if id.kind == Kind::VirtualService && !own { render::delegates(&value) } else { Vec::new() };
    let of_roots = replace(&mut observed.roots, root, (there && !delegates.is_empty()).then_some(delegates));
    let of_own = replace(&mut observed.objects, id, (there && own).then(|| Arc::new(value)));
    of_roots || of_own
}

fn put_pod(observed: &mut Observed, _: Source, pod: &PartialObjectMeta<Pod>, there: bool) -> bool {
    let name = PodName { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
    let models = pod.labels().keys().filter_map(|key| key.strip_prefix(MODEL_LABEL_PREFIX));
    let marks = Marks {
        models: models.map(str::to_owned).collect(),
        terminating: pod.meta().deletion_timestamp.is_some(),
    };
    let marks = (there && !marks.models.is_empty()).then_some(marks);
    replace(&mut observed.pods, name, marks)
}

/// Sets or removes an entry, and says whether it is another one now.
fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if map.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROUTES: Source = Source::Objects(Kind::VirtualService);

    fn virtual_service(labels: &serde_json::Value, delegate: Option<&str>) -> DynamicObject {
        let rule = delegate.map_or(json!({}), |name| json!({ "delegate": { "name": name } }));
        let object = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": { "name": "fraud", "namespace": "ml", "labels": labels },
            "spec": { "http": [rule] },
        });
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn entries_of_lists_count_although_they_do_not_say_what_they_are() {
        let labels = json!({ "app.kubernetes.io/managed-by": "sconce", "sconce.dev/model": "fraud" });
        let entry =
            json!({ "metadata": { "name": "fraud", "namespace": "ml", "labels": labels }, "spec": {} });
        let entry: DynamicObject = serde_json::from_value(entry).expect("an object");
        let mut observed = Observed::default();
        assert!(put_object(&mut observed, Source::Objects(Kind::Service), &entry, true));
        assert_eq!(observed.objects.keys().map(|id| id.kind).collect::<Vec<_>>(), [Kind::Service]);
    }

    #[test]
    fn objects_are_ours_or_roots_or_no_concern_of_ours() {
        let mut observed = Observed::default();
        let marks = json!({ "app.kubernetes.io/managed-by": "sconce", "sconce.dev/model": "fraud" });
        assert!(put_object(&mut observed, ROUTES, &virtual_service(&marks, None), true));
        assert!(!put_object(&mut observed, ROUTES, &virtual_service(&marks, None), true), "nothing new");
        assert_eq!((observed.objects.len(), observed.roots.len()), (1, 0));
        // Somebody takes our label away, and makes a root of it.
        assert!(put_object(&mut observed, ROUTES, &virtual_service(&json!({}), Some("sconce-fraud")), true));
        assert_eq!((observed.objects.len(), observed.is_delegate("ml", "sconce-fraud")), (0, true));
        assert!(!observed.is_delegate("shop", "sconce-fraud"));
        assert!(put_object(&mut observed, ROUTES, &virtual_service(&json!({}), None), true));
        assert!(!put_object(&mut observed, ROUTES, &virtual_service(&json!({}), None), false));
        assert!(observed.objects.is_empty() && observed.roots.is_empty());
    }

    #[test]
    fn a_pod_counts_while_it_has_a_label_of_a_model() {
        let mut observed = Observed::default();
        let pod = |labels| -> PartialObjectMeta<Pod> {
            let pod = json!({ "metadata": { "name": "a", "namespace": "ml", "labels": labels } });
            serde_json::from_value(pod).expect("a pod")
        };
        assert!(!put_pod(&mut observed, Source::Pods, &pod(json!({ "app": "shop" })), true));
        let marked = pod(json!({ "sconce.dev/model.fraud": "ready", "sconce.dev/inject": "true" }));
        assert!(put_pod(&mut observed, Source::Pods, &marked, true));
        let marks = observed.pods.values().next().expect("one");
        assert_eq!(marks.models.iter().collect::<Vec<_>>(), ["fraud"]);
        assert!(put_pod(&mut observed, Source::Pods, &pod(json!({})), true));
        assert!(observed.pods.is_empty());
    }
}
