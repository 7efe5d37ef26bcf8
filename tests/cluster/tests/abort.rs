//! An abort while the mesh cannot be told of it: the sidecars see to it themselves.

use std::{thread, time::Duration};

use jiff::Timestamp;
use sconce_cluster_tests::{
    Cluster, Scenario, eventually,
    stage::{MODEL, Stage},
};
use serde_json::Value;

#[test]
fn a_bad_version_is_taken_from_everybody_although_the_mesh_cannot_be_told() {
    let Some(cluster) = Cluster::from_env() else { return };
    let stage = Stage::set(&cluster);
    let mut scenario = Scenario::begin("abort-without-istiod");
    // What is promised is promised of those that are connected.
    eventually("every server is connected", || {
        let sidecars = stage.sconce.sconce(&["sidecars"]);
        let sidecars: &[Value] = sidecars.as_array().map_or(&[], Vec::as_slice);
        let connected = |pod: &String| {
            let name = format!("models/{pod}");
            sidecars.iter().any(|sidecar| sidecar["name"] == *name && sidecar["connected"] == true)
        };
        stage.servers().iter().all(connected)
    });
    stage.cluster.kubectl("scale -n istio-system deployment/istiod --replicas=0");
    stage.cluster.kubectl("wait -n istio-system --for=delete pod -l app=istiod --timeout=120s");
    let callers = stage.keep_calling();
    let aborted = stage.sconce.sconce(&["split", MODEL, "1=100", "--wait=0"]);
    scenario.figure("progress", aborted["progress"]["message"].clone());
    // Seen for long enough that a version which came back would be noticed.
    thread::sleep(Duration::from_secs(3));
    let [http, grpc] = callers;
    let seen = [stage.buyer().stop(http), stage.buyer().stop(grpc)];
    let events = stage.sconce.events();
    let called = events.iter().rfind(|event| event["type"] == "split.changed").expect("the abort");
    assert!(called["message"].as_str().is_some_and(|said| said.contains("to 1=100 %")), "{called}");
    let called: Timestamp = called["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let called = u64::try_from(called.as_millisecond()).expect("after 1970");
    let after = |ms: u64| ms as i64 - called as i64;
    for (protocol, seen) in ["http", "grpc"].into_iter().zip(seen) {
        let seen = seen.none_failed(&mut scenario, "while a version was aborted without istiod");
        let (sent, answered) = (seen.last_sent("2"), seen.last("2"));
        assert!(seen.answers("1") > 0 && answered > 0, "{seen:?}");
        // In between it began to run, so the one is too early and the other too late.
        scenario.figure(&format!("last_sent_ms_after_abort_{protocol}"), after(sent));
        scenario.figure(&format!("last_answer_ms_after_abort_{protocol}"), after(answered));
        // A machine that is busy with something else is no fault of the abort's; a route that is waited
        // for would never end this.
        assert!(after(sent) < 2_000, "version 2 answered a request sent {} ms after the abort", after(sent));
    }
    stage.cluster.kubectl("scale -n istio-system deployment/istiod --replicas=1");
    stage.cluster.kubectl("rollout status -n istio-system deployment/istiod --timeout=120s");
    eventually("the abort is proven, with istiod back", || {
        stage.sconce.sconce(&["split", MODEL])["progress"]["state"] == "applied"
    });
    drop(scenario);
    stage.sconce.uninstall("models buyers");
}
