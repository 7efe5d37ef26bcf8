//! The Service that nobody calls: it tells the mesh what every injected pod speaks on its lanes.

use sconce_catalog::Lane;
use serde_json::{Value, json};

use super::service::port;
use crate::{
    names::{INJECT_LABEL, LANES_SERVICE, MANAGED_BY, MANAGED_BY_LABEL, SELECTORS_ANNOTATION},
    selectors::Selectors,
};

/// The headless Service of a namespace with models.
///
/// Istio's inbound listener takes a port that no Service selects for one of unknown protocol, and
/// then a caller can have its bytes passed on as they are: also an `x-forwarded-client-cert` of
/// the caller's own making, which the sidecar would take for the mesh's word. A pod that is no
/// model's endpoint yet is selected by this Service, so that its lanes are HTTP to the mesh from
/// the beginning, and the header is always Envoy's.
///
/// It also carries the selectors of the namespace's models, for the injector to read.
pub fn lanes(namespace: &str, selectors: &Selectors) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "labels": { MANAGED_BY_LABEL: MANAGED_BY },
            "name": LANES_SERVICE,
            "namespace": namespace,
        },
        "spec": {
            "clusterIP": "None",
            "ports": Lane::ALL.map(container_port),
            // Whether or not they are ready.
            "publishNotReadyAddresses": true,
            // The injector sees to it that every pod with a sidecar has the label.
            "selector": { INJECT_LABEL: "true" },
        },
    });
    if !selectors.is_empty() {
        service["metadata"]["annotations"] = json!({ SELECTORS_ANNOTATION: selectors.to_text() });
    }
    service
}

/// A headless Service has no ports of its own: its names lead to the pods' ports.
fn container_port(lane: Lane) -> Value {
    let mut port = port(lane);
    port["port"] = lane.container_port().into();
    port
}
