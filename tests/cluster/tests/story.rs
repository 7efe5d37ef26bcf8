//! The story that Sconce is for: installed by its chart, put into pods that exist, a version
//! pushed and carried to everybody step by step through the mesh, while somebody is calling.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::Instant,
};

use sconce_cluster_tests::{Cluster, Scenario, binomial, eventually};
use serde_json::{Value, json};

const SYSTEM: &str = "sconce";
const REQUESTS: u64 = 10_000;
/// How improbable a share must be that is taken for a wrong one.
const ALPHA: f64 = 1e-6;
/// As a caller in the mesh spells it: the model's Service, in the namespace of its pods.
const URL: &str = "http://digits.models/v2/models/digits/infer";
/// The same from the application's own container.
const LOCAL: &str = "http://127.0.0.1:8443/v2/models/digits/infer";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn install(cluster: &Cluster) {
    let chart = repository().join("istio/chart");
    let images = format!("image.prefix={},image.tag={}", cluster.image(), cluster.tag());
    let helm = Command::new("helm")
        .args(["upgrade", "--install", "sconce"])
        .arg(chart)
        .args(["--namespace", SYSTEM, "--create-namespace", "--set", &images])
        .args(["--set", "controlPlane.persistence.enabled=false", "--wait", "--timeout", "120s"])
        .output()
        .expect("helm is in PATH");
    assert!(helm.status.success(), "helm: {}", String::from_utf8_lossy(&helm.stderr));
}

/// The versions and a request, where the pods find them.
fn put_files(cluster: &Cluster) {
    let models = repository().join("examples/digits/models");
    let from = |version: &str| format!("--from-file={version}.pt={}/{version}/digits.pt", models.display());
    let make =
        format!("create configmap models -n {SYSTEM} --dry-run=client -o json {} {}", from("v1"), from("v2"));
    cluster.apply_text(&cluster.kubectl(&make));
    let input = json!({ "name": "image", "datatype": "FP32", "shape": [1, 64], "data": vec![0.5; 64] });
    for namespace in ["models", "buyers"] {
        let request = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "request", "namespace": namespace },
            "data": { "body.json": json!({ "inputs": [&input] }).to_string() },
        });
        cluster.apply_text(&request.to_string());
    }
}

/// What a caller in this container saw.
fn call(cluster: &Cluster, namespace: &str, pod: &str, url: &str, until: &str) -> Value {
    let said = cluster.shell(namespace, pod, &format!("caller {url} /request/body.json {until} 4"));
    serde_json::from_str(&said.expect("the caller runs")).expect("its report")
}

fn answers(seen: &Value, version: &str) -> u64 {
    seen["versions"][version].as_u64().unwrap_or_default()
}

/// Somebody who never stops calling, until told to.
fn keep_calling() -> JoinHandle<Value> {
    thread::spawn(|| {
        let cluster = Cluster::from_env().expect("there is one");
        call(&cluster, "buyers", "buyer", URL, "/tmp/enough")
    })
}

fn server_pod(cluster: &Cluster) -> String {
    cluster.kubectl("get pods -n models -l app=server,sconce.dev/inject=true --field-selector=status.phase=Running -o jsonpath={.items[0].metadata.name}")
}

#[test]
fn a_version_is_carried_to_everybody_while_somebody_is_calling() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("used-by-story");
    let began = Instant::now();
    let run = std::process::id().to_string();
    let sconce = |step: &str, words: &[&str]| cluster.sconce(SYSTEM, &format!("{step}-{run}"), words);

    install(&cluster);
    scenario.figure("seconds_to_install", began.elapsed().as_secs_f64());
    cluster.apply("story.yaml", &[]);
    put_files(&cluster);
    cluster.kubectl("rollout status -n models deployment/server --timeout=120s");
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer --timeout=120s");
    cluster.shell("buyers", "buyer", "rm -f /tmp/enough 2> /dev/null || true").expect("it runs");

    // What its users do: permit the namespace, ask for the sidecar.
    let asked = Instant::now();
    cluster.kubectl("label namespace models sconce.dev/injection=enabled --overwrite");
    let ask = r#"{"spec":{"template":{"metadata":{"labels":{"sconce.dev/inject":"true"}}}}}"#;
    let patched = cluster.try_kubectl(&["patch", "deployment", "server", "-n", "models", "-p", ask]);
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    cluster.kubectl("rollout status -n models deployment/server --timeout=180s");
    scenario.figure("seconds_to_injected_pods", asked.elapsed().as_secs_f64());
    let pod = server_pod(&cluster);
    let native = cluster.kubectl(&format!(
        "get pod -n models {pod} -o jsonpath={{.spec.initContainers[?(@.name=='sconce')].restartPolicy}}"
    ));
    assert_eq!(native, "Always", "a native sidecar, since the cluster has them");

    let pushed = Instant::now();
    let push = |version: &'static str, more: &[&'static str]| {
        let file = format!("/models/v{version}.pt");
        let own =
            ["push", &file, "--model", "models/digits", "--version", version, "--wait=60", "-o", "json"];
        sconce(&format!("push-{version}"), &[&own[..], more].concat())
    };
    let first = push("1", &["--activate"]);
    assert_eq!(first["sidecars"]["ready"].as_array().map(Vec::len), Some(2), "{first}");
    eventually("a caller in the mesh is answered", || {
        call(&cluster, "buyers", "buyer", URL, "1")["failed"] == 0
    });
    scenario.figure("seconds_from_push_to_prediction", pushed.elapsed().as_secs_f64());

    let background = keep_calling();
    let second = push("2", &[]);
    scenario.figure("second_push_bytes", second["bytes_sent"].clone());
    let mut slowest = 0.0_f64;
    for percent in [1, 5, 25, 100, 0] {
        let shares = [format!("1={}", 100 - percent), format!("2={percent}")];
        let set = sconce(
            &format!("split-{percent}"),
            &["split", "models/digits", &shares[0], &shares[1], "-o", "json"],
        );
        assert_eq!(set["progress"]["state"], "applied", "{set}");
        assert!(set["progress"]["message"].as_str().is_some_and(|m| m.contains("proven by")), "{set}");
        slowest = slowest.max(set["seconds"].as_f64().unwrap_or_default());
        let share = f64::from(percent) / 100.0;
        let seen = call(&cluster, "buyers", "buyer", URL, &REQUESTS.to_string());
        scenario.count(REQUESTS, seen["failed"].as_u64().unwrap_or(REQUESTS));
        let expected = binomial::interval(REQUESTS, share, ALPHA);
        assert!(expected.contains(&answers(&seen, "2")), "{percent} %: {seen}, expected {expected:?}");
        assert_eq!(seen["failed"], 0, "{seen}");
        scenario.figure(&format!("p50_ms_at_{percent}"), seen["p50_ms"].clone());
        scenario.figure(&format!("p99_ms_at_{percent}"), seen["p99_ms"].clone());
        // The application asks its own pod, and no VirtualService is in between: there the shares
        // are met without dice.
        let own = call(&cluster, "models", &pod, LOCAL, "1000");
        assert_eq!(own["failed"], 0, "{own}");
        let off = answers(&own, "2").abs_diff(10 * percent as u64);
        assert!(off <= 5, "{percent} % in the pod itself: {own}");
    }
    scenario.figure("slowest_split_to_proof_seconds", slowest);

    cluster.shell("buyers", "buyer", "touch /tmp/enough").expect("it runs");
    let all = background.join().expect("the caller runs");
    scenario.count(all["requests"].as_u64().unwrap_or_default(), all["failed"].as_u64().unwrap_or(1));
    assert_eq!(all["failed"], 0, "{all}");
    assert!(answers(&all, "1") > 0 && answers(&all, "2") > 0, "{all}");

    // Two installations in one cluster would take each other's objects away.
    let gone = Command::new("helm").args(["uninstall", "sconce", "--namespace", SYSTEM, "--wait"]).output();
    assert!(gone.expect("helm is in PATH").status.success());
    cluster.kubectl(&format!("delete namespace models buyers {SYSTEM} --wait=false"));
}
