//! A real cluster, through its API server.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, Secret as KubeSecret};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use sconce_istio::names::FIELD_MANAGER;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Cluster, ClusterError, Condition, Object, ObjectId, Observed, Secret, Status};
use crate::{
    declared::objects::{API_VERSION, GROUP, Kind},
    notes::{Note, Notes},
    publish::failure,
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);

/// A cluster's API server.
#[derive(Clone)]
pub(in crate::declared) struct Kubernetes {
    client: Client,
    notes: Notes,
}

impl Kubernetes {
    pub(in crate::declared) fn new(client: Client, notes: Notes) -> Self {
        Self { client, notes }
    }

    fn objects(&self, id: &ObjectId) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &id.namespace, &resource(id.kind))
    }
}

fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: GROUP.into(),
        version: API_VERSION.into(),
        api_version: format!("{GROUP}/{API_VERSION}"),
        kind: kind.name().into(),
        plural: kind.plural().into(),
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    let late = |_| ClusterError::Unreachable(format!("no answer in {} s", CALL.as_secs()));
    tokio::time::timeout(CALL, call).await.map_err(late)?.map_err(failure)
}

/// A change of an object that may be gone by now.
async fn changed<T>(call: impl Future<Output = kube::Result<T>>) -> Result<(), ClusterError> {
    within(async {
        match call.await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    })
    .await
}

impl Cluster for Kubernetes {
    async fn set_status(&self, id: &ObjectId, status: &Status) -> Result<(), ClusterError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "status": status }));
        changed(self.objects(id).patch_status(&id.name, &params, &patch)).await
    }

    async fn set_finalizers(&self, object: &Object, finalizers: &[String]) -> Result<(), ClusterError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        // The revision is named, so that nobody else's finalizer is lost.
        let metadata = json!({ "finalizers": finalizers, "resourceVersion": object.resource_version });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match changed(self.objects(&object.id).patch(&object.id.name, &params, &patch)).await {
            // It has changed, so the watch brings it anew.
            Err(ClusterError::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let found = within(secrets.get_opt(name)).await?;
        // What is no text is no credential of ours.
        let text =
            |(key, bytes): (String, k8s_openapi::ByteString)| Some((key, String::from_utf8(bytes.0).ok()?));
        Ok(found.map(|secret| Secret {
            annotations: secret.metadata.annotations.unwrap_or_default(),
            values: secret.data.unwrap_or_default().into_iter().filter_map(text).collect(),
        }))
    }

    fn note(&self, object: &Object, condition: &Condition) {
        let about = ObjectReference {
            api_version: Some(format!("{GROUP}/{API_VERSION}")),
            kind: Some(object.id.kind.name().into()),
            name: Some(object.id.name.clone()),
            namespace: Some(object.id.namespace.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        let warning = condition.status != "True";
        let text = condition.message.clone();
        self.notes.leave(Note { about, reason: condition.reason.clone(), text, warning });
    }
}

/// Watches both kinds for ever.
pub(in crate::declared) async fn follow(client: Client, observed: &watch::Sender<Observed>) {
    tokio::join!(one(Kind::Model, client.clone(), observed), one(Kind::Version, client, observed));
}

async fn one(kind: Kind, client: Client, observed: &watch::Sender<Observed>) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let (mut failing, mut listing) = (false, Vec::new());
    let read = |object: &DynamicObject| {
        let value: Value = serde_json::to_value(object).ok()?;
        Object::read(kind, &value)
    };
    while let Some(event) = events.next().await {
        match event {
            Err(error) => {
                if !failing {
                    let next = "are the CustomResourceDefinitions installed?";
                    tracing::warn!(kind = kind.name(), %error, next, "declared objects are not watched");
                }
                failing = true;
                continue;
            }
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => listing.extend(read(&object)),
            // All at once, so that nobody takes half a list for the whole.
            Ok(Event::InitDone) => observed.send_modify(|observed| {
                observed.objects.retain(|id, _| id.kind != kind);
                observed.objects.extend(listing.drain(..).map(|object| (object.id.clone(), object)));
                observed.listed.insert(kind);
            }),
            Ok(Event::Apply(object)) => {
                if let Some(object) = read(&object) {
                    observed.send_modify(|observed| {
                        observed.objects.insert(object.id.clone(), object);
                    });
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(object) = read(&object) {
                    observed.send_modify(|observed| {
                        observed.objects.remove(&object.id);
                    });
                }
            }
        }
        failing = false;
    }
}
