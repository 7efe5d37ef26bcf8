//! Sconce inside a mesh under STRICT mTLS: identities from istiod, predictions through the
//! callers' own Envoys, a canary by VirtualService.

use std::{collections::BTreeMap, path::Path, time::Instant};

use sconce_cluster_tests::{Cluster, Scenario, eventually};
use serde_json::json;

const REQUESTS: u64 = 200;

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The example's versions and a request, where pods find them.
fn put_files(cluster: &Cluster) {
    let models = repository().join("examples/digits/models");
    let from = |version: &str| format!("--from-file={version}.pt={}/{version}/digits.pt", models.display());
    let made = cluster.kubectl(&format!(
        "create configmap models -n sconce-system --dry-run=client -o json {} {}",
        from("v1"),
        from("v2")
    ));
    cluster.apply_text(&made);
    let input = json!({ "name": "image", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64] });
    let body = json!({ "inputs": [input] }).to_string();
    let request = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "request", "namespace": "shop" },
        "data": { "body.json": body },
    });
    cluster.apply_text(&request.to_string());
}

/// Predictions asked for one after the other by a meshed pod; answers by version.
fn ask(cluster: &Cluster, requests: u64) -> (BTreeMap<String, u64>, u64) {
    let line = format!(
        "n=0; while [ $n -lt {requests} ]; do n=$((n+1)); \
         wget -q -O - --post-file /request/body.json http://fraud.ml:8443/v2/models/digits/infer || echo FAILED; echo; done"
    );
    let said = cluster.shell("shop", "checkout", &line).expect("the loop runs");
    let (mut versions, mut failed) = (BTreeMap::new(), 0);
    for line in said.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str::<serde_json::Value>(line) {
            Ok(answer) => {
                *versions.entry(answer["model_version"].as_str().unwrap_or("?").to_owned()).or_default() += 1
            }
            Err(_) => failed += 1,
        }
    }
    (versions, failed)
}

fn once(cluster: &Cluster, pod: &str) -> Result<String, String> {
    let line = "wget -q -O - --post-file /request/body.json http://fraud.ml:8443/v2/models/digits/infer";
    cluster.shell("shop", pod, line)
}

/// Half the width of the interval that a share of `requests` falls into but once in a million
/// times: 4.9 standard deviations of a binomial distribution.
fn tolerance(requests: u64, share: f64) -> f64 {
    4.9 * (requests as f64 * share * (1.0 - share)).sqrt()
}

/// Moves the weights of a VirtualService through a canary's steps, with traffic at each.
fn canary(cluster: &Cluster) {
    let mut scenario = Scenario::begin("canary-by-virtual-service");
    for (generation, weight) in [(1, 5), (2, 25), (3, 100), (4, 0)] {
        let (stable, canary) = ((100 - weight).to_string(), weight.to_string());
        let generation = generation.to_string();
        let values = [("STABLE", stable.as_str()), ("CANARY", &canary), ("GENERATION", &generation)];
        cluster.apply("canary.yaml", &values);
        let applied = Instant::now();
        // In force once nothing but what it asks for is seen; the split underneath is 50/50.
        eventually(&format!("{weight} % is in force"), || {
            let (versions, _) = ask(cluster, 40);
            let seen = *versions.get("2").unwrap_or(&0) as f64;
            (seen - 0.4 * f64::from(weight)).abs() <= tolerance(40, f64::from(weight) / 100.0)
        });
        scenario.figure(&format!("seconds_to_{weight}_percent"), applied.elapsed().as_secs_f64());
        let (versions, failed) = ask(cluster, REQUESTS);
        scenario.count(REQUESTS, failed);
        let (seen, share) = (*versions.get("2").unwrap_or(&0) as f64, f64::from(weight) / 100.0);
        let wanted = REQUESTS as f64 * share;
        assert!(
            failed == 0 && (seen - wanted).abs() <= tolerance(REQUESTS, share),
            "{weight} %: {versions:?} {failed}"
        );
    }
}

#[test]
fn identities_predictions_and_a_canary_go_through_the_mesh() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("identity-from-the-mesh");
    let began = Instant::now();
    cluster.apply("control-plane.yaml", &[]);
    cluster.apply("server.yaml", &[]);
    cluster.apply("client.yaml", &[]);
    put_files(&cluster);
    cluster.kubectl("rollout status -n sconce-system deployment/sconce --timeout=120s");
    cluster.kubectl("rollout status -n ml deployment/fraud --timeout=120s");
    cluster.kubectl("wait -n shop --for=condition=Ready pod/checkout pod/stranger --timeout=120s");
    scenario.figure("seconds_to_ready_pods", began.elapsed().as_secs_f64());

    // The sidecar is who its service account is, and so is the control plane.
    let log = cluster.kubectl("logs -n ml deployment/fraud -c sconce");
    assert!(
        log.contains("spiffe://cluster.local/ns/ml/sa/fraud")
            && log.contains("connected to the control plane")
    );

    let run = began.elapsed().as_millis().to_string();
    let sconce =
        |step: &str, words: &[&str]| cluster.sconce("sconce-system", &format!("{step}-{run}"), words);
    let first = sconce(
        "push-1",
        &["push", "/models/v1.pt", "--model", "ml/digits", "--version", "1", "--activate", "-o", "json"],
    );
    assert_eq!(first["sidecars"]["ready"].as_array().map(Vec::len), Some(1), "{first}");
    let (versions, failed) = ask(&cluster, REQUESTS);
    scenario.count(REQUESTS, failed);
    assert_eq!((versions.get("1"), failed), (Some(&REQUESTS), 0), "{versions:?}");

    let second = sconce(
        "push-2",
        &["push", "/models/v2.pt", "--model", "ml/digits", "--version", "2", "--wait=60", "-o", "json"],
    );
    scenario.figure("second_push_bytes", second["bytes_sent"].clone());
    sconce("split", &["split", "ml/digits", "1=50", "2=50", "-o", "json"]);
    eventually("the split is served", || ask(&cluster, 2).0.len() == 2);
    let (versions, failed) = ask(&cluster, REQUESTS);
    scenario.count(REQUESTS, failed);
    // One sidecar, and no dice: a few off at most, wherever in their order the requests began.
    let half = REQUESTS / 2 - 3..=REQUESTS / 2 + 3;
    assert!(failed == 0 && versions.values().all(|answers| half.contains(answers)), "{versions:?} {failed}");
    assert_eq!(versions.values().sum::<u64>(), REQUESTS);

    // A workload of the mesh that SCONCE_CALLERS does not name, and the log line that says so.
    once(&cluster, "stranger").expect_err("it may not call");
    let log = cluster.kubectl("logs -n ml deployment/fraud -c sconce");
    assert!(log.contains("spiffe://cluster.local/ns/shop/sa/stranger"), "{log}");
    assert!(once(&cluster, "checkout").is_ok(), "others are served on");
    drop(scenario);
    canary(&cluster);
    // Waited for: other scenarios make namespaces of the same names.
    cluster.kubectl("delete namespace ml shop sconce-system --timeout=120s");
}
