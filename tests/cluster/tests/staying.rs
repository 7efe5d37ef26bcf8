//! Pods that nobody labelled and a model's selector asks for, and in them a model whose callers stay
//! with a version.

use std::time::Instant;

use sconce_cluster_tests::{Caller, Cluster, Release, Scenario, binomial, eventually};
use serde_json::Value;

const MODEL: &str = "models/digits";
const SERVICE: &str = "digits.models:80";
const LOCAL: &str = "127.0.0.1:8443";
const PEOPLE: u64 = 2_000;

#[test]
fn callers_stay_with_a_version_in_pods_that_a_selector_chose() {
    let Some(cluster) = Cluster::from_env() else { return };
    let sconce = Release::install(&cluster, &[]);
    cluster.apply("story.yaml", &[]);
    cluster.kubectl("label namespace models sconce.dev/injection=enabled --overwrite");
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer --timeout=120s");
    selected(&cluster, &sconce);
    sticky(&cluster, &sconce);
    sconce.uninstall("models buyers");
}

/// Nobody labels the pods: the model says for which it is.
fn selected(cluster: &Cluster, sconce: &Release<'_>) {
    let mut scenario = Scenario::begin("injected-by-selector");
    sconce.push_nowhere(MODEL, "1", &["--activate", "--selector", "app=server"]);
    eventually("the injector can read whom the model asks for", || {
        let lanes = cluster.try_kubectl(&["get", "service", "-n", "models", "sconce-lanes", "-o", "json"]);
        String::from_utf8_lossy(&lanes.stdout).contains("sconce.dev/selectors")
    });
    let began = Instant::now();
    cluster.kubectl("rollout restart -n models deployment/server");
    cluster.kubectl("rollout status -n models deployment/server --timeout=180s");
    scenario.figure("seconds_to_injected_pods", began.elapsed().as_secs_f64());
    let pods = cluster.kubectl("get pods -n models -l app=server,sconce.dev/inject=true -o json");
    let pods: Value = serde_json::from_str(&pods).expect("JSON");
    let injected = pods["items"].as_array().map_or(0, Vec::len);
    assert!(injected >= 2, "{injected} pods of the new generation have the label and the sidecar");
    let status =
        pods["items"][0]["metadata"]["annotations"]["sconce.dev/status"].as_str().unwrap_or_default();
    assert!(status.contains("digits"), "it says which model asked: {status}");
    // A pod whose own label says no is left alone, whatever models ask for.
    let out = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"out","namespace":"models","labels":{"app":"server","sconce.dev/inject":"false","sidecar.istio.io/inject":"false"}},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"app","image":"localhost/tools:1","imagePullPolicy":"IfNotPresent","command":["/bin/sh","-c","sleep 600"]}]}}"#;
    cluster.apply_text(out);
    let containers = cluster.kubectl("get pod -n models out -o jsonpath={.spec..name}");
    assert!(!containers.contains("sconce"), "{containers}");
    cluster.kubectl("delete pod -n models out --wait=true");
}

/// Whoever is known by a header is answered by one version, over each protocol and in each pod.
fn sticky(cluster: &Cluster, sconce: &Release<'_>) {
    let mut scenario = Scenario::begin("sticky-callers");
    sconce.push(MODEL, "2", &[]);
    let buyer = Caller::new(cluster, "buyers", "buyer");
    let pod = cluster.kubectl("get pods -n models -l app=server,sconce.dev/inject=true --field-selector=status.phase=Running -o jsonpath={.items[0].metadata.name}");
    let own = Caller::new(cluster, "models", &pod);
    eventually("a caller in the mesh is answered", || {
        buyer.call(&format!("http {SERVICE} 1 --callers 1")).failed() == 0
    });
    let background = buyer.keep_calling("http", SERVICE, "all", "--known-by x-person --people 50");
    let mut before = 0;
    for percent in [10, 60] {
        let shares = [format!("1={}", 100 - percent), format!("2={percent}")];
        let set = sconce.sconce(&["split", MODEL, &shares[0], &shares[1], "--sticky", "x-person"]);
        assert_eq!(set["progress"]["state"], "applied", "{set}");
        let expected = binomial::interval(PEOPLE, f64::from(percent) / 100.0, 1e-6);
        let mut seen = Vec::new();
        for (caller, protocol, authority) in
            [(buyer, "http", SERVICE), (buyer, "grpc", SERVICE), (own, "http", LOCAL), (own, "grpc", LOCAL)]
        {
            let words =
                format!("{protocol} {authority} {} --known-by x-person --people {PEOPLE}", 3 * PEOPLE);
            let said =
                caller.call(&words).none_failed(&mut scenario, &format!("{percent} % over {protocol}"));
            assert_eq!(said.people("several"), 0, "nobody is answered by two versions: {said:?}");
            assert_eq!(said.people("1") + said.people("2"), PEOPLE, "{said:?}");
            seen.push(said.people("2"));
        }
        // The same people, whichever way they come.
        assert!(seen.iter().all(|people| people == &seen[0]), "{seen:?}");
        assert!(
            expected.contains(&seen[0]) && seen[0] > before,
            "{percent} %: {seen:?}, expected {expected:?}"
        );
        before = seen[0];
        scenario.figure(&format!("people_of_{PEOPLE}_at_{percent}_percent"), seen[0]);
        // Who says nothing of itself is dealt with request by request.
        let nobody =
            buyer.call(&format!("http {SERVICE} 2000")).none_failed(&mut scenario, "unknown callers");
        nobody.has_share(percent);
    }
    buyer.stop(background).none_failed(&mut scenario, "while shares changed");
}
