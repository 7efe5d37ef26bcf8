//! The kinds of objects that commands look at.

use kube::api::{ApiResource, GroupVersionKind};

/// A kind and the version of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
}

const fn kind(api_version: &'static str, kind: &'static str) -> Kind {
    Kind { api_version, kind }
}

pub(crate) const CONFIG_MAP: Kind = kind("v1", "ConfigMap");
pub(crate) const CRD: Kind = kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
pub(crate) const DEPLOYMENT: Kind = kind("apps/v1", "Deployment");
pub(crate) const ENDPOINT_SLICE: Kind = kind("discovery.k8s.io/v1", "EndpointSlice");
pub(crate) const EVENT: Kind = kind("v1", "Event");
pub(crate) const HTTP_ROUTE: Kind = kind("gateway.networking.k8s.io/v1", "HTTPRoute");
pub(crate) const LEASE: Kind = kind("coordination.k8s.io/v1", "Lease");
pub(crate) const MUTATING_WEBHOOK: Kind =
    kind("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
pub(crate) const NAMESPACE: Kind = kind("v1", "Namespace");
pub(crate) const POD: Kind = kind("v1", "Pod");
pub(crate) const REPLICA_SET: Kind = kind("apps/v1", "ReplicaSet");
pub(crate) const SECRET: Kind = kind("v1", "Secret");
pub(crate) const SERVICE: Kind = kind("v1", "Service");
pub(crate) const VIRTUAL_SERVICE: Kind = kind("networking.istio.io/v1", "VirtualService");

impl Kind {
    pub(crate) fn resource(self) -> ApiResource {
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, self.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_called_as_their_api_calls_them() {
        let plural = |kind: Kind| kind.resource().plural;
        assert_eq!(plural(VIRTUAL_SERVICE), "virtualservices");
        assert_eq!(plural(ENDPOINT_SLICE), "endpointslices");
        assert_eq!(plural(MUTATING_WEBHOOK), "mutatingwebhookconfigurations");
        assert_eq!(plural(kind("networking.k8s.io/v1", "NetworkPolicy")), "networkpolicies");
        assert_eq!(POD.resource().group, "");
    }
}
