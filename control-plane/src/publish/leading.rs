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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::publish::cluster::memory::Memory;

    #[tokio::test]
    async fn a_write_begins_only_where_it_is_over_before_the_lease_is() {
        let memory = Memory::new();
        let (held, holding) = watch::channel(None);
        let leading = Leading::new(memory.clone(), holding);
        let service =
            json!({ "kind": "Service", "metadata": { "name": "fraud", "namespace": "ml" }, "spec": {} });
        let pod = PodName { namespace: "ml".into(), name: "a".into() };
        let id = ObjectId::of(&service).expect("an id");
        for until in [None, Some(Instant::now()), Some(Instant::now() + CALL)] {
            held.send_replace(until);
            let key = "sconce.dev/model.fraud";
            assert_eq!(leading.apply(&service, Force::Yes).await, Err(ClusterError::NotLeading));
            assert_eq!(leading.delete(&id, "u").await, Err(ClusterError::NotLeading));
            assert_eq!(leading.label(&pod, key, None).await, Err(ClusterError::NotLeading));
        }
        assert_eq!(memory.log().len(), 0);
        held.send_replace(Some(Instant::now() + 2 * CALL));
        assert!(leading.apply(&service, Force::No).await.is_ok());
    }
}
