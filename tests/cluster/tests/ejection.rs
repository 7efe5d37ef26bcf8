//! A canary whose every answer is an error, and a mesh that ejects whoever answers with errors:
//! what becomes of the callers of the stable version. The figures of `docs/adr/0003`.

use sconce_cluster_tests::{Caller, Cluster, Release, Scenario, application, binomial, eventually};
use serde_json::Value;

const MODEL: &str = "models/digits";
const REQUESTS: u64 = 2_000;

#[test]
fn a_failing_canary_takes_nothing_from_the_stable_version() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("a-failing-canary-is-ejected-alone");
    let sconce = Release::install(&cluster, &[]);
    application::injected(&cluster);
    let buyer = Caller::new(&cluster, "buyers", "buyer");
    sconce.push(MODEL, "1", &["--activate"]);
    sconce.push_file(MODEL, "4", "tests/models/fails_on_images.pt", &[]);
    let split = sconce.sconce(&["split", MODEL, "1=50", "4=50"]);
    // Both versions by one port, as they would be without lanes: the control of the comparison.
    let generation = split["serial"].as_u64().expect("a serial, which is the generation").to_string();
    cluster.apply("ejection.yaml", &[("GENERATION", &generation)]);

    for (way, authority) in [("lanes", "digits.models:80"), ("one_port", "shared.models:80")] {
        // Half of them fail, and then the mesh ejects both pods from where they failed.
        let ask = |requests: u64| buyer.call(&format!("http {authority} {requests} --callers 4"));
        eventually(&format!("{way}: pods are ejected"), || {
            ask(100);
            ejected(&cluster, authority) > 0
        });
        let seen = ask(REQUESTS);
        scenario.figure(&format!("{way}_ejected"), ejected(&cluster, authority));
        scenario.figure(&format!("{way}_stable_answers_of_{REQUESTS}"), seen.answers("1"));
        scenario.figure(&format!("{way}_failed"), seen.failed());
        assert_eq!(seen.answers("4"), 0, "{seen:?}");
        let half = binomial::interval(seen.requests(), 0.5, 1e-6);
        match way {
            "lanes" => assert!(half.contains(&seen.answers("1")), "expected {half:?}: {seen:?}"),
            // Whoever shares a cluster with the canary is ejected with it.
            _ => assert!(seen.answers("1") < *half.start(), "{seen:?}"),
        }
        // Only those that were sent to the canary failed, as they should, so none is counted as failed.
        scenario.count(seen.answers("1"), 0);
    }
    sconce.uninstall("models buyers");
}

/// Hosts that the caller's Envoy has ejected from this Service, over all its ports.
fn ejected(cluster: &Cluster, authority: &str) -> usize {
    let service = authority.split(':').next().unwrap_or(authority);
    let said = cluster.istioctl(&["proxy-config", "endpoints", "buyer", "-n", "buyers", "-o", "json"]);
    let clusters: Value = serde_json::from_str(&said).expect("JSON");
    let own = clusters.as_array().into_iter().flatten().filter(|cluster| {
        cluster["name"].as_str().is_some_and(|name| name.contains(&format!("||{service}.svc")))
    });
    let hosts = own.flat_map(|cluster| cluster["hostStatuses"].as_array().into_iter().flatten());
    hosts.filter(|host| host["healthStatus"]["failedOutlierCheck"] == true).count()
}
