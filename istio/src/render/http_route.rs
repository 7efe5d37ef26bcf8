//! The route as an HTTPRoute of the Gateway API: for ambient meshes, where a VirtualService is
//! not for production, and for meshes other than Istio.

use sconce_catalog::{Lane, ModelName};
use serde_json::{Value, json};

use super::{Backend, Destination, Options, Routing, destinations, stable};
use crate::names::{PIN_HEADER, ROUTE_HEADER};

/// `maxItems` of `backendRefs` in the Gateway API.
const MOST: usize = 16;

/// A split among more versions than one rule can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} versions of `{model}` have a share, and an HTTPRoute has at most {MOST} destinations")]
pub struct TooManyVersions {
    model: ModelName,
    count: usize,
}

/// The same route as [`virtual_service`](super::virtual_service)'s, bound to the Service itself.
///
/// Fields that the API server would fill in are written out, so that what it holds is what was
/// applied. There are no retries: the field is experimental (Gateway API 1.6), and Istio's
/// defaults, which apply then, do not retry a 429 either.
///
/// # Errors
/// Where there are too many versions for one rule.
pub fn http_route(backend: &Backend, routing: &Routing, options: &Options) -> Result<Value, TooManyVersions> {
    let weighted = destinations(backend, routing);
    if weighted.len() > MOST {
        return Err(TooManyVersions { model: backend.0.clone(), count: weighted.len() });
    }
    let stable = stable(backend, routing);
    let split: Vec<Value> = weighted.iter().map(|one| set(backend, one)).collect();
    Ok(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": backend.route_metadata(routing, options),
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": backend.0.name() }],
            // Why pins have rules: see the VirtualService's. Among rules that match equally well,
            // the Gateway API takes the first.
            "rules": [
                {
                    "backendRefs": [set(backend, &stable)],
                    "matches": [by_pin("Exact", routing.split.stable().as_str())],
                },
                { "backendRefs": [unset(backend)], "matches": [by_pin("RegularExpression", ".+")] },
                { "backendRefs": split, "matches": [{ "path": everywhere() }] },
            ],
        },
    }))
}

fn by_pin(kind: &str, value: &str) -> Value {
    json!({ "headers": [{ "name": PIN_HEADER, "type": kind, "value": value }], "path": everywhere() })
}

fn everywhere() -> Value {
    json!({ "type": "PathPrefix", "value": "/" })
}

fn set(backend: &Backend, one: &Destination) -> Value {
    let header = json!({ "set": [{ "name": ROUTE_HEADER, "value": one.header.to_string() }] });
    reference(backend, one.lane, one.share.ten_thousandths(), &header)
}

fn unset(backend: &Backend) -> Value {
    reference(backend, Lane::Canary, 1, &json!({ "remove": [ROUTE_HEADER] }))
}

fn reference(backend: &Backend, lane: Lane, weight: u32, header: &Value) -> Value {
    json!({
        "filters": [{ "requestHeaderModifier": header, "type": "RequestHeaderModifier" }],
        "group": "",
        "kind": "Service",
        "name": backend.0.name(),
        "port": lane.service_port(),
        "weight": weight,
    })
}
