//! The Service: one address for callers, one port for each lane.

use sconce_catalog::Lane;
use serde_json::{Value, json};

use super::{Backend, Options};
use crate::names::READY;

/// A model's Service. A pod is behind it once the control plane has labelled it, which it does
/// when the pod has every version with a share ready.
pub fn service(backend: &Backend, options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": backend.metadata(backend.0.name(), options),
        "spec": {
            "ports": Lane::ALL.map(port),
            "selector": { backend.label(): READY },
        },
    })
}

pub(super) fn port(lane: Lane) -> Value {
    json!({
        // docs/adr/0001: as `http`, Envoy would turn gRPC into HTTP/1.1 on its way to us.
        "appProtocol": "kubernetes.io/h2c",
        "name": lane.to_string(),
        "port": lane.service_port(),
        "protocol": "TCP",
        "targetPort": lane.container_port(),
    })
}
