//! Policies that go with a model and that a cluster's owner may want. Never applied: who may
//! call, and how a mesh behaves, is not ours to decide.

use std::str::FromStr;

use sconce_catalog::Lane;
use serde_json::{Map, Value, json};

use super::{Backend, route_name};
use crate::names::{MODEL_LABEL, READY};

/// A policy that can be printed beside a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snippet {
    /// Who may call the model's lanes.
    AuthorizationPolicy,
    /// The lanes take mTLS only.
    PeerAuthentication,
    /// Istio's own metrics tell versions apart.
    Telemetry,
    /// Each lane ejects its own outliers, and retries have a budget.
    DestinationRule,
}

/// Text that is no snippet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no snippet; there are authorization-policy, peer-authentication, telemetry and destination-rule"
)]
pub struct UnknownSnippet(String);

impl FromStr for Snippet {
    type Err = UnknownSnippet;

    fn from_str(text: &str) -> Result<Self, UnknownSnippet> {
        Ok(match text {
            "authorization-policy" => Self::AuthorizationPolicy,
            "peer-authentication" => Self::PeerAuthentication,
            "telemetry" => Self::Telemetry,
            "destination-rule" => Self::DestinationRule,
            _ => return Err(UnknownSnippet(text.to_owned())),
        })
    }
}

impl Snippet {
    /// The object, for one model.
    pub fn render(self, backend: &Backend) -> Value {
        let (api, kind, spec) = match self {
            Self::AuthorizationPolicy => ("security", "AuthorizationPolicy", authorization(backend)),
            Self::PeerAuthentication => ("security", "PeerAuthentication", mutual_tls(backend)),
            Self::Telemetry => ("telemetry", "Telemetry", version_tag(backend)),
            Self::DestinationRule => ("networking", "DestinationRule", lanes(backend)),
        };
        json!({
            "apiVersion": format!("{api}.istio.io/v1"),
            "kind": kind,
            // Whoever applies it manages it: it does not carry our mark of ownership.
            "metadata": {
                "labels": { MODEL_LABEL: backend.0.name() },
                "name": route_name(&backend.0),
                "namespace": backend.0.namespace(),
            },
            "spec": spec,
        })
    }
}

fn selector(backend: &Backend) -> Value {
    json!({ "matchLabels": { backend.label(): READY } })
}

/// Denies what is not meant rather than allowing what is: the first ALLOW on a pod denies
/// everything else that reaches it, and the pod is somebody's application.
fn authorization(backend: &Backend) -> Value {
    let ports = Lane::ALL.map(|lane| lane.container_port().to_string());
    json!({
        "action": "DENY",
        "rules": [{
            "from": [{ "source": { "notNamespaces": [backend.0.namespace()] } }],
            "to": [{ "operation": { "ports": ports } }],
        }],
        "selector": selector(backend),
    })
}

fn mutual_tls(backend: &Backend) -> Value {
    // The keys are the container's ports, not the Service's.
    let port = |lane: Lane| (lane.container_port().to_string(), json!({ "mode": "STRICT" }));
    let ports: Map<String, Value> = Lane::ALL.map(port).into_iter().collect();
    json!({ "portLevelMtls": ports, "selector": selector(backend) })
}

fn version_tag(backend: &Backend) -> Value {
    let metric = |name: &str| {
        json!({
            "match": { "metric": name, "mode": "SERVER" },
            // The answer's header and not the request's: it is what really happened.
            "tagOverrides": {
                "sconce_version": { "operation": "UPSERT", "value": "response.headers['x-sconce-version']" },
            },
        })
    };
    json!({
        "metrics": [{
            "overrides": [metric("REQUEST_COUNT"), metric("REQUEST_DURATION")],
            "providers": [{ "name": "prometheus" }],
        }],
        "selector": selector(backend),
    })
}

/// Says nothing of TLS: a DestinationRule that did would override what the mesh works out.
fn lanes(backend: &Backend) -> Value {
    let lane = |lane: Lane| {
        json!({
            "connectionPool": { "http": { "maxRetries": 3 } },
            // Gateway errors only: a 500 is the model's own failure, which is the same in every pod.
            "outlierDetection": {
                "baseEjectionTime": "30s",
                "consecutiveGatewayErrors": 5,
                "interval": "5s",
                "maxEjectionPercent": 50,
            },
            "port": { "number": lane.service_port() },
        })
    };
    json!({
        "host": backend.0.name(),
        "trafficPolicy": { "portLevelSettings": Lane::ALL.map(lane) },
    })
}
