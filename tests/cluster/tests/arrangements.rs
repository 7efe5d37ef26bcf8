//! What each arrangement of TLS costs, with small and large tensors: the figures of
//! `docs/adr/0002`. One run, one machine, the arrangements in turn.

use sconce_cluster_tests::{Caller, Cluster, Release, Scenario, eventually};

/// Rows of 256 bytes, and how often they are asked in each round.
const SIZES: [(&str, usize, usize); 3] = [("1_kb", 4, 300), ("1_mb", 4096, 40), ("10_mb", 40_960, 8)];
const ROUNDS: usize = 5;

#[test]
fn every_arrangement_answers_every_size() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("tls-arrangements");
    let sconce = Release::install(&cluster, &[]);
    cluster.apply("arrangements.yaml", &[]);
    for namespace in ["captured", "excluded"] {
        cluster.kubectl(&format!("rollout status -n {namespace} deployment/server --timeout=180s"));
        sconce.push(&format!("{namespace}/digits"), "1", &["--activate"]);
    }
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer --timeout=120s");
    let pod = cluster.kubectl("get pods -n captured -l app=server -o jsonpath={.items[0].metadata.name}");
    let buyer = Caller::new(&cluster, "buyers", "buyer");
    let ways = [
        ("same_pod", Caller::new(&cluster, "captured", &pod), "127.0.0.1:8443"),
        ("envoy_to_envoy", buyer, "digits.captured:80"),
        ("envoy_to_rustls", buyer, "digits.excluded:80"),
    ];
    for (way, caller, authority) in ways {
        eventually(&format!("{way} is answered"), || {
            caller.call(&format!("http {authority} 1 --callers 1")).failed() == 0
        });
    }
    for protocol in ["http", "grpc"] {
        for (size, rows, requests) in SIZES {
            for _ in 0..ROUNDS {
                for (way, caller, authority) in ways {
                    let words = format!("{protocol} {authority} {requests} --callers 1 --rows {rows}");
                    let seen = caller.call(&words).none_failed(&mut scenario, way);
                    scenario.measured(&format!("{protocol}_{size}_{way}_p50_ms"), seen.figure("p50_ms"));
                }
            }
        }
    }
    sconce.uninstall("captured excluded buyers");
}
