//! A real cluster, through its API server.

use std::time::Duration;

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
    },
};
use sconce_istio::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{Cluster, ClusterError, Force, Kind, ObjectId, added_to};
use crate::{
    fleet::PodName,
    publish::lease::{Duty, Leases, Record},
};

/// A cluster's API server.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    client: Client,
    /// What its lease is of.
    duty: Duty,
}

impl Kubernetes {
    pub(crate) fn new(client: Client, duty: Duty) -> Self {
        Self { client, duty }
    }

    fn objects(&self, id: &ObjectId) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &id.namespace, &resource(id.kind))
    }

    fn leases(&self) -> Api<Lease> {
        Api::default_namespaced(self.client.clone())
    }
}

/// How the API server calls a kind.
pub(super) fn resource(kind: Kind) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Service => ("", "v1", "Service", "services"),
        Kind::VirtualService => ("networking.istio.io", "v1", "VirtualService", "virtualservices"),
        Kind::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version,
        kind: kind.into(),
        plural: plural.into(),
    }
}

impl Cluster for Kubernetes {
    async fn get(&self, id: &ObjectId) -> Result<Option<Value>, ClusterError> {
        self.objects(id).get_opt(&id.name).await.map_err(failure)?.map(|object| value(&object)).transpose()
    }

    async fn apply(&self, object: &Value, force: Force) -> Result<Value, ClusterError> {
        let id =
            ObjectId::of(object).ok_or_else(|| ClusterError::Refused("an object without a name".into()))?;
        let api = self.objects(&id);
        let params = PatchParams { force: force == Force::Yes, ..PatchParams::apply(FIELD_MANAGER) };
        let held = value(&api.patch(&id.name, &params, &Patch::Apply(object)).await.map_err(failure)?)?;
        let added = added_to(object, &held);
        if force == Force::No || added.is_empty() {
            return Ok(held);
        }
        // Applying takes over what we set; what others have added has to be removed by name.
        let gone: serde_json::Map<String, Value> = added.into_iter().map(|key| (key, Value::Null)).collect();
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": gone }));
        value(&api.patch(&id.name, &params, &patch).await.map_err(failure)?)
    }

    async fn delete(&self, id: &ObjectId, uid: &str) -> Result<(), ClusterError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.objects(id).delete(&id.name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another object by now.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    async fn label(&self, pod: &PodName, key: &str, value: Option<&str>) -> Result<(), ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        // Exactly this label: a null removes it.
        let patch = Patch::Merge(json!({ "metadata": { "labels": { key: value } } }));
        match pods.patch_metadata(&pod.name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }
}

fn value(object: &DynamicObject) -> Result<Value, ClusterError> {
    serde_json::to_value(object)
        .map_err(|error| ClusterError::Refused(format!("its answer is not JSON: {error}")))
}

/// Whether it is worth trying again, and whose fault it is.
pub(crate) fn failure(error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => ClusterError::Conflict(status.message),
            // The API server is there, and somebody's webhook is not, such as the one by which istiod
            // checks routes: other objects need not wait for it.
            500 if status.message.contains("failed calling webhook") => ClusterError::Refused(status.message),
            // Too many requests, or one that took too long, is the server's state and not ours.
            408 | 429 | 500.. => ClusterError::Unreachable(status.message),
            _ => ClusterError::Refused(status.message),
        },
        kube::Error::SerdeError(error) => {
            ClusterError::Refused(format!("its answer is not understood: {error}"))
        }
        error => ClusterError::Unreachable(chain(&error)),
    }
}

/// An error and its causes: kube's own text often says only that the service failed.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl Leases for Kubernetes {
    fn duty(&self) -> Duty {
        self.duty
    }

    async fn read(&self) -> Result<Option<Record>, ClusterError> {
        Ok(self.leases().get_opt(self.duty.lease).await.map_err(failure)?.map(record))
    }

    async fn write(&self, next: &Record) -> Result<Record, ClusterError> {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let seconds = i32::try_from(next.duration.as_secs()).unwrap_or(i32::MAX);
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.duty.lease.into()),
                resource_version: Some(next.revision.clone()).filter(|revision| !revision.is_empty()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(next.holder.clone()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(next.transitions),
                renew_time: now,
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        // Replacing what is not there any more, or creating what is, fails: somebody was faster.
        let written = if next.revision.is_empty() {
            self.leases().create(&params, &lease).await
        } else {
            self.leases().replace(self.duty.lease, &params, &lease).await
        };
        written.map(record).map_err(failure)
    }
}

fn record(lease: Lease) -> Record {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map_or(crate::publish::lease::DURATION, Duration::from_secs),
        revision: lease.metadata.resource_version.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}
