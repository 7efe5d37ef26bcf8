//! Everything that a cluster does to pods, to the control plane and to itself, while somebody is
//! calling and a split is at half and half: nothing fails, and no wrong route is ever to be seen.

use std::{process::Command, time::Instant};

use sconce_cluster_tests::{
    Cluster, Scenario, eventually,
    routes::{self, Watcher},
    stage::{MODEL, Stage},
};
use serde_json::{Value, json};

#[test]
fn pods_come_and_go_and_nothing_fails() {
    let Some(cluster) = Cluster::from_env() else { return };
    let stage = Stage::set(&cluster);
    let watcher = Watcher::virtual_service("models", "sconce-digits");
    pods(&stage);
    control_plane(&stage);
    injector(&stage);
    mesh(&stage);
    api_server(&stage);
    without_room(&stage);
    let seen = watcher.stop();
    assert!(!seen.is_empty());
    let mut newest = 0;
    for route in &seen {
        let (generation, shares) = routes::read(route).unwrap_or_else(|wrong| panic!("{wrong}: {route}"));
        let known = shares.iter().all(|(version, _)| version == "1" || version == "2");
        assert!(known && generation >= newest, "after generation {newest}: {route}");
        newest = generation;
    }
    stage.sconce.uninstall("models buyers");
}

fn pods(stage: &Stage<'_>) {
    let mut scenario = Scenario::begin("pods-come-and-go");
    let callers = stage.keep_calling();
    let timed = |scenario: &mut Scenario, name: &str, step: &mut dyn FnMut()| {
        let began = Instant::now();
        step();
        scenario.figure(&format!("seconds_to_{name}"), began.elapsed().as_secs_f64());
    };
    timed(&mut scenario, "delete", &mut || {
        let pod = stage.servers().pop_first().expect("a pod");
        stage.cluster.kubectl(&format!("delete pod -n models {pod}"));
        stage.endpoints(2);
    });
    let before = stage.servers();
    timed(&mut scenario, "scale_up", &mut || {
        stage.cluster.kubectl("scale deployment/server -n models --replicas=3");
        stage.endpoints(3);
    });
    let new = &stage.servers() - &before;
    let new = new.first().expect("a new pod");
    // Whatever reached it found the version that it was meant for.
    eventually("the new pod has answered", || stage.counter(new, "sconce_requests_total") > 100.0);
    assert_eq!(stage.counter(new, "sconce_route_fallbacks_total"), 0.0);
    timed(&mut scenario, "roll", &mut || {
        stage.cluster.kubectl("rollout restart deployment/server -n models");
        stage.endpoints(3);
    });
    timed(&mut scenario, "scale_down", &mut || {
        stage.cluster.kubectl("scale deployment/server -n models --replicas=2");
        stage.endpoints(2);
    });
    stage.none_failed(callers, &mut scenario, "while pods came and went");
}

/// A pod that cannot load a version is no endpoint for it, says why, and goes on running its
/// application.
fn without_room(stage: &Stage<'_>) {
    let mut scenario = Scenario::begin("pod-that-cannot-load-a-version");
    let callers = stage.keep_calling();
    stage.sconce.split(MODEL, 0);
    stage.cluster.apply("small.yaml", &[]);
    stage.cluster.kubectl("rollout status -n models deployment/small --timeout=120s");
    stage.endpoints(3);
    // Two of three pods are less than the floor of 75 %.
    let asked = stage.sconce.sconce(&["split", MODEL, "1=50", "2=50", "--wait=0"]);
    let wanted = |said: &Value| {
        let said = said["progress"]["message"].as_str().unwrap_or_default().to_owned();
        said.contains("small-") && said.contains("No space left")
    };
    let mut said = asked;
    eventually("the split waits, and says for whom and why", || {
        let now = stage.sconce.sconce(&["split", MODEL]);
        if now != said {
            eprintln!("{}", now["progress"]["message"]);
        }
        said = now;
        wanted(&said)
    });
    scenario.figure("why_it_waits", said["progress"]["message"].clone());
    stage.sconce.set(&["controlPlane.floor=60"]);
    stage.endpoints(2);
    let proven = stage.sconce.split(MODEL, 50);
    scenario.figure("progress", proven["progress"]["message"].clone());
    let small = stage.cluster.kubectl("get pods -n models -l app=small -o json");
    let small: Value = serde_json::from_str(&small).expect("JSON");
    let labels = &small["items"][0]["metadata"]["labels"];
    assert!(labels.get("sconce.dev/model.digits").is_none(), "{labels}");
    lanes_are_http(stage.cluster, small["items"][0]["metadata"]["name"].as_str().expect("a name"));
    // Its application never noticed.
    stage.cluster.kubectl("wait -n models --for=condition=Ready pod -l app=small --timeout=5s");
    stage.cluster.kubectl("delete deployment/small -n models");
    stage.sconce.set(&[]);
    stage.none_failed(callers, &mut scenario, "while a pod could not load a version");
}

/// A pod that is no endpoint has lanes all the same, on which nobody can pass off bytes of its own
/// for the mesh's word.
fn lanes_are_http(cluster: &Cluster, pod: &str) {
    let said = cluster.istioctl(&[
        "proxy-config",
        "listeners",
        pod,
        "-n",
        "models",
        "--port",
        "15006",
        "-o",
        "json",
    ]);
    let listeners: Value = serde_json::from_str(&said).expect("JSON");
    let chains = listeners[0]["filterChains"].as_array().expect("an inbound listener");
    for lane in [8443, 8444, 8445] {
        let own: Vec<&Value> =
            chains.iter().filter(|chain| chain["filterChainMatch"]["destinationPort"] == lane).collect();
        assert!(!own.is_empty(), "the mesh does not know what {lane} speaks");
        let http = |chain: &&Value| chain["filters"].to_string().contains("http_connection_manager");
        assert!(own.iter().all(http), "{own:?}");
    }
}

/// Killed between the store and the mesh, again and again.
fn control_plane(stage: &Stage<'_>) {
    let mut scenario = Scenario::begin("control-plane-killed");
    let callers = stage.keep_calling();
    for percent in [60_u32, 40, 50] {
        let shares = [format!("1={}", 100 - percent), format!("2={percent}")];
        stage.sconce.sconce(&["split", MODEL, &shares[0], &shares[1], "--wait=0"]);
        stage.cluster.kubectl("delete pod -n sconce -l app=sconce --grace-period=0 --force");
        stage.cluster.kubectl("rollout status -n sconce deployment/sconce --timeout=120s");
        // What was acknowledged is there, and reaches the mesh.
        let route = || stage.cluster.kubectl("get virtualservice -n models sconce-digits -o json");
        eventually(&format!("{percent} % is published"), || {
            let route: Value = serde_json::from_str(&route()).expect("JSON");
            let (_, shares) = routes::read(&route).expect("a whole route");
            shares.contains(&("2".to_owned(), u64::from(percent) * 100))
        });
    }
    // Nobody who serves was taken away meanwhile.
    stage.endpoints(2);
    stage.sconce.split(MODEL, 50);
    stage.none_failed(callers, &mut scenario, "while the control plane was killed");
}

/// Pods can always be created, and all of them are injected.
fn injector(stage: &Stage<'_>) {
    let mut scenario = Scenario::begin("injector-disrupted");
    let callers = stage.keep_calling();
    let mut created = 0;
    let mut create = |times: usize| {
        for _ in 0..times {
            created += 1;
            let name = format!("job-{created}");
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name, "namespace": "models", "labels": { "sconce.dev/inject": "true" } },
                "spec": { "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                    "containers": [{ "name": "app", "image": "localhost/caller:1", "imagePullPolicy": "IfNotPresent" }] },
            });
            let file = std::env::temp_dir().join(format!("sconce-{}-{name}.json", std::process::id()));
            std::fs::write(&file, pod.to_string()).expect("written");
            let path = file.to_str().expect("text");
            // Nothing of it runs: admission is all that is asked for.
            let made = stage.cluster.try_kubectl(&["create", "--dry-run=server", "-f", path, "-o", "json"]);
            let _ = std::fs::remove_file(&file);
            assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
            let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
            let all = made["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
            assert!(all.iter().any(|container| container["name"] == "sconce"), "{name} was not injected");
        }
    };
    create(5);
    let pods = stage.cluster.kubectl("get pods -n sconce -l app=sconce-injector -o name");
    let one = pods.lines().next().expect("a replica");
    stage.cluster.kubectl(&format!("delete -n sconce {one} --grace-period=0 --force --wait=false"));
    create(20);
    stage.cluster.kubectl("rollout status -n sconce deployment/sconce-injector --timeout=120s");
    stage.cluster.kubectl("rollout restart -n sconce deployment/sconce-injector");
    create(20);
    stage.cluster.kubectl("rollout status -n sconce deployment/sconce-injector --timeout=120s");

    // A root that is old enough for a successor.
    let secret = || -> Value {
        serde_json::from_str(&stage.cluster.kubectl("get secret -n sconce sconce-webhook -o json"))
            .expect("JSON")
    };
    let bundle = || {
        stage.cluster.kubectl("get mutatingwebhookconfigurations a.sconce-injector -o jsonpath={.webhooks[0].clientConfig.caBundle}")
    };
    let before = bundle();
    age(stage.cluster, &secret());
    create(20);
    eventually("the API server knows the new root as well", || bundle() != before);
    create(5);
    scenario.figure("pods_created", created);
    stage.none_failed(callers, &mut scenario, "while the injector was disrupted");
}

/// Makes the webhook's CA look 300 days older than it is.
fn age(cluster: &Cluster, secret: &Value) {
    let base64 = |arguments: &[&str], input: &str| {
        let shell = format!("printf %s \"$0\" | base64 {}", arguments.join(" "));
        let output = Command::new("sh").args(["-c", &shell, input]).output().expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    };
    let keys = base64(&["-d"], secret["data"]["keys.json"].as_str().expect("keys"));
    let mut keys: Value = serde_json::from_str(&keys).expect("JSON");
    for key in ["since", "until"] {
        let moment = keys["roots"][0][key].as_u64().expect("seconds");
        keys["roots"][0][key] = json!(moment - 300 * 24 * 3600);
    }
    let patch = json!({ "data": { "keys.json": base64(&["-w0"], &keys.to_string()) } }).to_string();
    let patched = cluster.try_kubectl(&[
        "patch",
        "secret",
        "-n",
        "sconce",
        "sconce-webhook",
        "--type=merge",
        "-p",
        &patch,
    ]);
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
}

/// Without istiod every Envoy goes on with what it has.
fn mesh(stage: &Stage<'_>) {
    let mut scenario = Scenario::begin("istiod-restarted");
    let callers = stage.keep_calling();
    stage.cluster.kubectl("rollout restart -n istio-system deployment/istiod");
    stage.cluster.kubectl("rollout status -n istio-system deployment/istiod --timeout=120s");
    for percent in [30, 50] {
        stage.sconce.split(MODEL, percent);
    }
    stage.none_failed(callers, &mut scenario, "while istiod was restarted");
}

/// Only where the API server is ours to kill.
fn api_server(stage: &Stage<'_>) {
    let Some(restart) = std::env::var_os("SCONCE_CLUSTER_RESTART") else {
        eprintln!("the API server was NOT restarted: this cluster's is not ours to kill");
        return;
    };
    let mut scenario = Scenario::begin("api-server-killed");
    let callers = stage.keep_calling();
    let began = Instant::now();
    let killed = Command::new(restart).arg("apiserver").status().expect("the script runs");
    assert!(killed.success());
    scenario.figure("seconds_without_api_server", began.elapsed().as_secs_f64());
    for percent in [30, 50] {
        stage.sconce.split(MODEL, percent);
    }
    stage.endpoints(2);
    stage.none_failed(callers, &mut scenario, "while the API server was killed");
}
