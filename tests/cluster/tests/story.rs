//! The story that Sconce is for: installed by its chart, put into pods that exist, a version
//! pushed and carried to everybody step by step through the mesh, while somebody is calling. Told
//! three times: over HTTP/1.1, over gRPC without the mesh's retries, and by an HTTPRoute.

use std::time::Instant;

use sconce_cluster_tests::{Caller, Cluster, Release, Scenario, eventually};

const MODEL: &str = "models/digits";
/// As a caller in the mesh spells it: the model's Service, in the namespace of its pods.
const SERVICE: &str = "digits.models:80";
/// The same from the application's own container.
const LOCAL: &str = "127.0.0.1:8443";
/// A plain server in the same pods.
const ECHO: &str = "echo.models:80";
const REQUESTS: u64 = 10_000;
/// Requests of 5 MB: 20,480 rows of 256 bytes.
const LARGE: &str = "200 --rows 20480";

/// One way to tell it.
struct Telling {
    name: &'static str,
    protocol: &'static str,
    values: &'static [&'static str],
}

const TELLINGS: [Telling; 3] = [
    Telling { name: "used-by-story", protocol: "http", values: &[] },
    Telling {
        name: "used-by-story-grpc-without-retries",
        protocol: "grpc",
        values: &["controlPlane.retries=0"],
    },
    Telling {
        name: "used-by-story-http-route",
        protocol: "http",
        values: &["controlPlane.publish=gateway-api"],
    },
];

#[test]
fn a_version_is_carried_to_everybody_while_somebody_is_calling() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("install-inject-push");
    let began = Instant::now();
    let sconce = Release::install(&cluster, &[]);
    scenario.figure("seconds_to_install", began.elapsed().as_secs_f64());
    cluster.apply("story.yaml", &[]);
    cluster.kubectl("rollout status -n models deployment/server --timeout=120s");
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer --timeout=120s");
    let buyer = Caller::new(&cluster, "buyers", "buyer");

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
    let first = sconce.push(MODEL, "1", &["--activate"]);
    assert_eq!(first["sidecars"]["ready"].as_array().map(Vec::len), Some(2), "{first}");
    eventually("a caller in the mesh is answered", || {
        buyer.call(&format!("http {SERVICE} 1 --callers 1")).failed() == 0
    });
    scenario.figure("seconds_from_push_to_prediction", pushed.elapsed().as_secs_f64());
    let background = buyer.keep_calling("http", SERVICE, "push", "");
    let second = sconce.push(MODEL, "2", &[]);
    scenario.figure("second_push_bytes", second["bytes_sent"].clone());
    buyer.stop(background).none_failed(&mut scenario, "while version 2 was pushed");
    drop(scenario);

    for telling in &TELLINGS {
        let mut scenario = Scenario::begin(telling.name);
        sconce.set(telling.values);
        tell(&cluster, &sconce, telling, &mut scenario);
    }
    sconce.uninstall("models buyers");
}

fn tell(cluster: &Cluster, sconce: &Release<'_>, telling: &Telling, scenario: &mut Scenario) {
    let protocol = telling.protocol;
    let pod = server_pod(cluster);
    let (buyer, own) = (Caller::new(cluster, "buyers", "buyer"), Caller::new(cluster, "models", &pod));
    // The first is not timed: it waits for the sidecars to find the control plane again.
    sconce.split(MODEL, 0);
    let background = buyer.keep_calling(protocol, SERVICE, "all", "");
    let mut slowest = 0.0_f64;
    for percent in [1, 5, 25, 100, 0] {
        let set = sconce.split(MODEL, percent);
        slowest = slowest.max(set["seconds"].as_f64().unwrap_or_default());
        let at = format!("at {percent} %");
        let seen = buyer.call(&format!("{protocol} {SERVICE} {REQUESTS}")).none_failed(scenario, &at);
        seen.has_share(percent);
        let large = buyer.call(&format!("{protocol} {SERVICE} {LARGE}")).none_failed(scenario, &at);
        large.has_share(percent);
        // The application asks its own pod, and no VirtualService is in between: there the shares
        // are met without dice.
        let local = own.call(&format!("{protocol} {LOCAL} 1000")).none_failed(scenario, &at);
        let off = local.answers("2").abs_diff(10 * u64::from(percent));
        assert!(off <= 5, "{percent} % in the pod itself: {local:?}");
    }
    scenario.figure("slowest_split_to_proof_seconds", slowest);
    let all = buyer.stop(background).none_failed(scenario, "from the first step to the last");
    assert!(all.answers("1") > 0 && all.answers("2") > 0, "{all:?}");
    compare(buyer, protocol, scenario);
}

/// One row, and nothing else going on, against a server in the same pods that only answers.
fn compare(buyer: Caller<'_>, protocol: &str, scenario: &mut Scenario) {
    if protocol != "http" {
        return;
    }
    // Alternating, so that whatever else happens on the machine happens to both.
    for _ in 0..3 {
        for (who, authority) in [("model", SERVICE), ("echo", ECHO)] {
            let seen = buyer.call(&format!("http {authority} 1000 --callers 1")).none_failed(scenario, who);
            for figure in ["p50_ms", "p99_ms"] {
                scenario.measured(&format!("{who}_{figure}"), seen.figure(figure));
            }
        }
    }
}

fn server_pod(cluster: &Cluster) -> String {
    cluster.kubectl("get pods -n models -l app=server,sconce.dev/inject=true --field-selector=status.phase=Running -o jsonpath={.items[0].metadata.name}")
}
