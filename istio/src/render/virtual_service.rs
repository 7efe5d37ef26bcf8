//! The route as a VirtualService, whole or as a delegate.

use sconce_catalog::Lane;
use serde_json::{Value, json};

use super::{Backend, Destination, Options, Routing, destinations, stable};
use crate::names::{PIN_HEADER, ROUTE_HEADER};

/// What another pod may be asked for again. A pod that drains, or has nothing of the model
/// ready, answers 503 (gRPC `UNAVAILABLE`) before it runs anything, and `refused-stream` says
/// the same of HTTP/2. Not here: 429, by which a pod says that it is overloaded, because asking
/// the next one as well would double the load just when there is too much; and `reset`, after
/// which a model may have run already.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,retriable-status-codes,503";

/// A model's route, with one weighted destination for every version that has a share.
///
/// No header is set or removed on a route that has several destinations: Envoy applies a route's
/// operations after those of the destination that it picked, so they would win.
pub fn virtual_service(backend: &Backend, routing: &Routing, options: &Options) -> Value {
    let weighted = destinations(backend, routing);
    let retries = retries(options.retries);
    let mut spec = json!({
        "http": [
            pinned_to_stable(backend, routing, &retries),
            pinned(backend, &retries),
            {
                // The name is Envoy's name for the route, as access logs and config dumps have it.
                "name": format!("split-{}", routing.generation),
                "retries": retries,
                "route": weighted.iter().map(|one| destination(backend, one)).collect::<Vec<_>>(),
            },
        ],
    });
    if !options.delegate {
        spec["hosts"] = json!([backend.0.name()]);
    }
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": backend.route_metadata(routing, options),
        "spec": spec,
    })
}

/// A pod lets a pin win over any route header, so these two rules are there for the lane only: a
/// pin to a version that fails must not count against the lane of the stable one. (A pin in the
/// path or in a gRPC message is answered as well, on whatever lane the weights choose: Envoy does
/// not read messages.)
fn pinned_to_stable(backend: &Backend, routing: &Routing, retries: &Value) -> Value {
    json!({
        "match": [{ "headers": { PIN_HEADER: { "exact": routing.split.stable().as_str() } } }],
        "name": "pin-stable",
        "retries": retries,
        "route": [destination(backend, &stable(backend, routing))],
    })
}

/// Any other pin. A route header of the client's own would contradict it and would be counted as
/// proof of a route, so it is removed; that is done on the route, which has one destination.
fn pinned(backend: &Backend, retries: &Value) -> Value {
    json!({
        "match": [{ "headers": { PIN_HEADER: { "regex": ".+" } } }],
        "name": "pin",
        "retries": retries,
        "route": [{
            "destination": at(backend, Lane::Canary),
            "headers": { "request": { "remove": [ROUTE_HEADER] } },
        }],
    })
}

fn destination(backend: &Backend, one: &Destination) -> Value {
    json!({
        "destination": at(backend, one.lane),
        "headers": { "request": { "set": { ROUTE_HEADER: one.header.to_string() } } },
        "weight": one.share.ten_thousandths(),
    })
}

/// By the short name: Istio looks it up in the namespace of the VirtualService, which is the
/// Service's, and no cluster domain has to be known.
fn at(backend: &Backend, lane: Lane) -> Value {
    json!({ "host": backend.0.name(), "port": { "number": lane.service_port() } })
}

fn retries(attempts: u32) -> Value {
    // Left out, it would be the mesh's default; and Istio refuses conditions for no attempt.
    if attempts == 0 {
        return json!({ "attempts": 0 });
    }
    json!({ "attempts": attempts, "retryOn": RETRY_ON })
}
