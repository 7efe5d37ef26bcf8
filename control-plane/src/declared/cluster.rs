//! A cluster, as far as declared objects need one.

use std::collections::BTreeMap;

use super::{
    objects::{Object, ObjectId},
    status::{Condition, Status},
};
use crate::publish::ClusterError;

pub(super) mod kubernetes;
#[cfg(test)]
pub(super) mod memory;

/// What is done to a cluster.
pub(super) trait Cluster: Clone + Send + Sync + 'static {
    /// Writes what is said of an object; one that is gone is no error.
    fn set_status(
        &self,
        id: &ObjectId,
        status: &Status,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Writes an object's finalizers if it is still as we saw it; one that is gone is no error.
    fn set_finalizers(
        &self,
        object: &Object,
        finalizers: &[String],
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// A Secret, `None` where there is none.
    fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Secret>, ClusterError>> + Send;

    /// Makes an Event of a condition, without waiting for it.
    fn note(&self, object: &Object, condition: &Condition);
}

/// A Secret's annotations and values.
#[derive(Clone, Default)]
pub(super) struct Secret {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) values: BTreeMap<String, String>,
}

/// What the watches say. It may be a moment old.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Kinds that have been listed in full, once at least.
    pub(super) listed: std::collections::BTreeSet<super::objects::Kind>,
    pub(super) objects: BTreeMap<ObjectId, Object>,
}
