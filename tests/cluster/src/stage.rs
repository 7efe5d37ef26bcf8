//! Where most scenarios play: a model at half and half in two injected pods, and who calls it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Background, Caller, Cluster, Release, Scenario, application, eventually};

/// The model.
pub const MODEL: &str = "models/digits";
/// As callers in the mesh spell it.
const SERVICE: &str = "digits.models:80";

/// A model at half and half in two injected pods, and who calls it.
pub struct Stage<'c> {
    /// Where.
    pub cluster: &'c Cluster,
    /// Who serves it.
    pub sconce: Release<'c>,
}

impl<'c> Stage<'c> {
    /// Sets it up: installed, injected, both versions pushed, the split proven.
    ///
    /// # Panics
    /// Where something of that fails.
    pub fn set(cluster: &'c Cluster) -> Self {
        let sconce = Release::install(cluster, &[]);
        application::injected(cluster);
        let stage = Self { cluster, sconce };
        stage.sconce.push(MODEL, "1", &["--activate"]);
        stage.sconce.push(MODEL, "2", &[]);
        stage.endpoints(2);
        // A split is proven by requests.
        let callers = stage.keep_calling();
        stage.sconce.split(MODEL, 50);
        callers.into_iter().for_each(|caller| drop(stage.buyer().stop(caller)));
        stage
    }

    /// Whose pod is called from.
    pub fn buyer(&self) -> Caller<'c> {
        Caller::new(self.cluster, "buyers", "buyer")
    }

    /// One who calls over each protocol.
    pub fn keep_calling(&self) -> [Background; 2] {
        let one = |protocol| {
            self.buyer().keep_calling(protocol, SERVICE, &format!("all-{protocol}"), "--callers 2")
        };
        ["http", "grpc"].map(one)
    }

    /// Ends the callers, none of whose requests may have failed, and who were answered by both versions.
    ///
    /// # Panics
    /// Where that is not so.
    pub fn none_failed(&self, callers: [Background; 2], scenario: &mut Scenario, when: &str) {
        for caller in callers {
            let seen = self.buyer().stop(caller).none_failed(scenario, when);
            assert!(seen.answers("1") > 0 && seen.answers("2") > 0, "{seen:?}");
        }
    }

    /// Pods that injected servers run in, and that are not on their way out.
    ///
    /// # Panics
    /// Where the API server says something else than expected.
    pub fn servers(&self) -> BTreeSet<String> {
        let pods = self.cluster.kubectl("get pods -n models -l app=server,sconce.dev/inject=true -o json");
        let pods: Value = serde_json::from_str(&pods).expect("JSON");
        let staying = |pod: &&Value| pod["metadata"].get("deletionTimestamp").is_none();
        let pods = pods["items"].as_array().into_iter().flatten().filter(staying);
        pods.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until so many pods serve, and nobody else.
    ///
    /// # Panics
    /// Where the API server says something else than expected.
    pub fn endpoints(&self, wanted: usize) {
        let what = format!("{wanted} pods are endpoints");
        self.cluster.kubectl("rollout status -n models deployment/server --timeout=180s");
        eventually(&what, || {
            let slices = self
                .cluster
                .kubectl("get endpointslices -n models -l kubernetes.io/service-name=digits -o json");
            let slices: Value = serde_json::from_str(&slices).expect("JSON");
            let all = slices["items"].as_array().into_iter().flatten();
            let all: Vec<&Value> =
                all.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten()).collect();
            let ready = all.iter().filter(|endpoint| endpoint["conditions"]["ready"] == true).count();
            all.len() == wanted && ready == wanted
        });
    }

    /// A counter of a pod's sidecar, summed over its labels.
    ///
    /// # Panics
    /// Where the API server says something else than expected.
    pub fn counter(&self, pod: &str, name: &str) -> f64 {
        let metrics = self
            .cluster
            .kubectl(&format!("get --raw /api/v1/namespaces/models/pods/{pod}:9443/proxy/metrics"));
        let values = metrics.lines().filter(|line| line.starts_with(name));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
