//! A cluster that takes writes only while this control plane may publish.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::cluster::{Cluster, ClusterError, Force, ObjectId};
use crate::fleet::PodName;

/// How long one call may take. A write begins only where the lease is held for longer than that,
/// so that it is over before anybody else may write.
const CALL: Duration = Duration::from_secs(3);

/// Wraps every call to a cluster, so that none can forget to ask.
pub(super) struct Leading<C> {
    cluster: C,
    held: watch::Receiver<Option<Instant>>,
}

impl<C> Leading<C> {
    pub(super) fn new(cluster: C, held: watch::Receiver<Option<Instant>>) -> Self {
        Self { cluster, held }
    }

    /// Whether a write may begin now.
    pub(super) fn leads(&self) -> bool {
        self.held.borrow().is_some_and(|until| until > Instant::now() + CALL)
    }

    async fn write<T>(&self, call: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
        if self.leads() { within(call).await } else { Err(ClusterError::NotLeading) }
    }
}

async fn within<T>(call: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    let late = || ClusterError::Unreachable(format!("no answer in {} s", CALL.as_secs()));
    tokio::time::timeout(CALL, call).await.unwrap_or_else(|_| Err(late()))
}

impl<C: Cluster> Cluster for Leading<C> {
    async fn get(&self, id: &ObjectId) -> Result<Option<Value>, ClusterError> {
        within(self.cluster.get(id)).await
    }

    async fn apply(&self, object: &Value, force: Force) -> Result<Value, ClusterError> {
        self.write(self.cluster.apply(object, force)).await
    }

    async fn delete(&self, id: &ObjectId, uid: &str) -> Result<(), ClusterError> {
        self.write(self.cluster.delete(id, uid)).await
    }

    async fn label(&self, pod: &PodName, key: &str, value: Option<&str>) -> Result<(), ClusterError> {
        self.write(self.cluster.label(pod, key, value)).await
    }
}
