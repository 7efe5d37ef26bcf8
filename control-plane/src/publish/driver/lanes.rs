//! The Service of each namespace with models: it tells the mesh what lanes speak, and the injector
//! which pods models ask for.

use std::{collections::BTreeMap, sync::Arc};

use sconce_istio::render;

use super::{Cluster, ClusterError, Driver, Trouble, World};
use crate::publish::{keeper::Outcome, world::lanes_id};

/// Namespaces whose Service is not as it should be, with why.
pub(super) type Unclear = BTreeMap<String, String>;

impl<C: Cluster> Driver<C> {
    /// Keeps it wherever there is a model, split or not: from then on pods have something to be
    /// asked for. Nothing waits for it, an abort least of all; trouble is logged once.
    pub(super) async fn tell_what_lanes_speak(&mut self, world: &World) -> Result<(), ClusterError> {
        for namespace in world.namespaces() {
            let seen = world.observed.objects.get(&lanes_id(namespace)).map(Arc::as_ref);
            let lanes = render::lanes(namespace, &world.selectors(namespace));
            let kept = self.keeper.keep(&self.cluster, lanes, seen).await;
            let trouble = match kept {
                Ok(Outcome::Kept) => None,
                Ok(Outcome::Repaired(what)) => {
                    tracing::warn!(namespace, "{what}");
                    None
                }
                Err(Trouble::Cluster(error @ (ClusterError::Unreachable(_) | ClusterError::NotLeading))) => {
                    return Err(error);
                }
                Err(Trouble::Cluster(error)) => Some(error.to_string()),
                Err(Trouble::Conflict { reason, .. }) => Some(reason),
            };
            self.note(namespace, trouble);
        }
        for namespace in world.without_models() {
            self.delete(world, &lanes_id(namespace)).await?;
            self.note(namespace, None);
        }
        Ok(())
    }

    fn note(&mut self, namespace: &str, trouble: Option<String>) {
        let Some(trouble) = trouble else {
            self.unclear.remove(namespace);
            return;
        };
        if self.unclear.get(namespace) != Some(&trouble) {
            tracing::warn!(
                namespace,
                reason = trouble,
                "the mesh is not told what lanes speak, so workloads of the mesh may forge who they are to pods \
                 that are no endpoint yet; nor is the injector told what models select"
            );
            self.unclear.insert(namespace.to_owned(), trouble);
        }
    }
}
