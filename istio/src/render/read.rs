//! What a cluster's objects say is published.

use std::collections::BTreeSet;

use sconce_catalog::{Route, RouteHeader, Share, Split};
use serde_json::Value;

use super::{Routing, sticky};
use crate::names::{MODEL_LABEL, ROUTE_HEADER};

/// What a route of ours, as a cluster holds it, publishes; `None` where it is no route that
/// [`virtual_service`](super::virtual_service) or [`http_route`](super::http_route) has made.
pub fn read(object: &Value) -> Option<Routing> {
    let spec = &object["spec"];
    let (rules, destinations, kind) = match object["kind"].as_str()? {
        "VirtualService" => (&spec["http"], "route", Kind::VirtualService),
        "HTTPRoute" => (&spec["rules"], "backendRefs", Kind::HttpRoute),
        _ => return None,
    };
    // The rule without a condition comes last: pins stand above it.
    let weighted = rules.as_array()?.last()?[destinations].as_array()?;
    let metadata = &object["metadata"];
    let model = format!("{}/{}", metadata["namespace"].as_str()?, metadata["labels"][MODEL_LABEL].as_str()?);
    let read = |destination: &Value| -> Option<Route> {
        kind.header(destination)?.parse::<RouteHeader>().ok()?.of(|spelled| spelled == model)
    };
    if let [only] = weighted.as_slice()
        && let Some(Route { version: None, generation }) = read(only)
    {
        let (split, header) = sticky::read(metadata)?;
        return Some(Routing { split, generation, sticky: Some(header) });
    }
    let mut generations = BTreeSet::new();
    let shares = weighted.iter().map(|one| {
        let route = read(one)?;
        generations.insert(route.generation);
        let share = Share::new(u32::try_from(one["weight"].as_u64()?).ok()?).ok()?;
        Some((route.version?, share))
    });
    let split = Split::new(shares.collect::<Option<Vec<_>>>()?).ok()?;
    let generation = generations.pop_first().filter(|_| generations.is_empty())?;
    Some(Routing { split, generation, sticky: None })
}

#[derive(Clone, Copy)]
enum Kind {
    VirtualService,
    HttpRoute,
}

impl Kind {
    fn header(self, destination: &Value) -> Option<&str> {
        match self {
            Kind::VirtualService => destination["headers"]["request"]["set"][ROUTE_HEADER].as_str(),
            Kind::HttpRoute => {
                let modifier = &destination["filters"][0]["requestHeaderModifier"]["set"][0];
                (modifier["name"] == ROUTE_HEADER).then(|| modifier["value"].as_str()).flatten()
            }
        }
    }
}

/// The VirtualServices, by namespace and name, that a root VirtualService hands requests to.
pub fn delegates(root: &Value) -> Vec<(String, String)> {
    let own = root["metadata"]["namespace"].as_str().unwrap_or_default();
    let rules = root["spec"]["http"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |rule: &Value| {
        let delegate = &rule["delegate"];
        let namespace = delegate["namespace"].as_str().filter(|text| !text.is_empty()).unwrap_or(own);
        Some((namespace.to_owned(), delegate["name"].as_str()?.to_owned()))
    };
    rules.iter().filter_map(one).collect()
}
