//! Who is who: certificates of the mesh's CA by both ways there are, renewed under load; and
//! everybody who is refused, each with a log line that says why.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use sconce_cluster_tests::{Caller, Cluster, Forward, Release, Scenario, eventually};
use serde_json::Value;

const MESHED: &str = "digits.models:80";
const BARE: &str = "digits.bare:80";

#[test]
fn the_mesh_says_who_is_who() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("identity-renewed-under-load");
    let sconce = Release::install(&cluster, &[]);
    cluster.apply("identity.yaml", &[]);
    for namespace in ["models", "bare"] {
        cluster.kubectl(&format!("rollout status -n {namespace} deployment/server --timeout=180s"));
    }
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer pod/stranger --timeout=120s");
    cluster.kubectl("wait -n bare --for=condition=Ready pod/outsider --timeout=120s");
    let log = |namespace: &str| cluster.kubectl(&format!("logs -n {namespace} deployment/server -c sconce"));
    assert!(log("models").contains("\"source\":\"sds\""), "{}", log("models"));
    assert!(log("bare").contains("\"source\":\"istiod\""), "{}", log("bare"));

    for model in ["models/digits", "bare/digits"] {
        sconce.push(model, "1", &["--activate"]);
    }
    let buyer = Caller::new(&cluster, "buyers", "buyer");
    for authority in [MESHED, BARE] {
        eventually(&format!("{authority} answers"), || {
            buyer.call(&format!("http {authority} 1 --callers 1")).failed() == 0
        });
    }
    let began = Instant::now();
    let certified = || log("models").matches("identity certified").count();
    let before = certified();
    let callers = [("http", MESHED), ("grpc", MESHED), ("http", BARE)];
    let callers = callers.map(|(protocol, authority)| {
        buyer.keep_calling(protocol, authority, &format!("{protocol}-{authority}"), "--callers 2")
    });
    eventually("the certificate was renewed twice", || certified() >= before + 2);
    scenario.figure("seconds_to_two_renewals", began.elapsed().as_secs_f64());
    for caller in callers {
        buyer.stop(caller).none_failed(&mut scenario, "while certificates were renewed");
    }
    drop(scenario);

    let mut scenario = Scenario::begin("callers-refused");
    wrong_account(&cluster, &mut scenario);
    plaintext(&cluster);
    foreign(&cluster);
    authorization_policy(&cluster);
    buyer.call(&format!("http {MESHED} 100")).none_failed(&mut scenario, "after all of them");
    sconce.uninstall("models bare buyers");
}

/// Lines of the sidecar's log, as JSON.
fn lines(cluster: &Cluster, namespace: &str) -> Vec<Value> {
    let log = cluster.kubectl(&format!("logs -n {namespace} deployment/server -c sconce"));
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a log line that says why somebody was refused.
fn told(cluster: &Cluster, namespace: &str, reason: &str, id: &str) {
    eventually(&format!("{namespace} tells of {reason:?} and {id:?}"), || {
        let about = |line: &Value| line.to_string().contains(id) && line.to_string().contains(reason);
        lines(cluster, namespace).iter().any(about)
    });
}

/// A workload of the mesh that the pod's annotation does not name.
fn wrong_account(cluster: &Cluster, scenario: &mut Scenario) {
    let seen = Caller::new(cluster, "buyers", "stranger").call(&format!("http {MESHED} 3 --callers 1"));
    assert_eq!((seen.requests(), seen.failed()), (3, 3), "{seen:?}");
    // It never gets as far as a request: its certificate is refused.
    assert!(seen.figure("errors").to_string().contains("503"), "{seen:?}");
    scenario.figure("answer_to_a_wrong_account", seen.figure("errors"));
    told(cluster, "models", "wrong SPIFFE id", "spiffe://cluster.local/ns/buyers/sa/stranger");
}

fn plaintext(cluster: &Cluster) {
    let ip = cluster.kubectl("get pods -n models -l app=server -o jsonpath={.items[0].status.podIP}");
    let outsider = Caller::new(cluster, "bare", "outsider");
    let seen = outsider.call(&format!("http {ip}:8443 1 --callers 1"));
    assert_eq!(seen.failed(), 1, "{seen:?}");
    told(cluster, "models", "plaintext to the TLS port", "refused a connection");
}

/// Shows the certificate of another mesh, through a forwarded port.
fn foreign(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("a folder");
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output();
        let made = made.expect("openssl is in PATH");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 1 -keyout ca.key -out ca.pem -subj /O=elsewhere");
    openssl("req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /O=elsewhere");
    let extensions = "subjectAltName=URI:spiffe://elsewhere.example/ns/buyers/sa/buyer\n\
                      keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n\
                      basicConstraints=critical,CA:false\n";
    std::fs::write(folder.path().join("extensions"), extensions).expect("written");
    openssl(
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile extensions -out leaf.pem",
    );
    let pod = cluster.kubectl("get pods -n models -l app=server -o jsonpath={.items[0].metadata.name}");
    let forward = Forward::to("models", &format!("pod/{pod}"), 8443);
    let address = format!("127.0.0.1:{}", forward.port());
    let shown = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-cert", "leaf.pem", "-key", "leaf.key"])
        .args(["-alpn", "h2"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output();
    shown.expect("openssl is in PATH");
    told(cluster, "models", "wrong CA", "spiffe://elsewhere.example/ns/buyers/sa/buyer");
}

/// A policy of the mesh that allows one account is honoured where the mesh captures the lanes:
/// the same pods, captured again.
fn authorization_policy(cluster: &Cluster) {
    let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"traffic.sidecar.istio.io/excludeInboundPorts":null,"sconce.dev/callers":null}}}}}"#;
    let patched = cluster.try_kubectl(&["patch", "deployment", "server", "-n", "models", "-p", patch]);
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    cluster.kubectl("rollout status -n models deployment/server --timeout=180s");
    let call = |pod| Caller::new(cluster, "buyers", pod).call(&format!("http {MESHED} 1 --callers 1"));
    for pod in ["buyer", "stranger"] {
        eventually(&format!("{pod} is answered"), || call(pod).failed() == 0);
    }
    cluster.apply_text(
        r#"{ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
             "metadata": { "name": "buyers", "namespace": "models" },
             "spec": { "selector": { "matchLabels": { "app": "server" } }, "action": "ALLOW",
                       "rules": [{ "from": [{ "source": { "principals": ["cluster.local/ns/buyers/sa/buyer"] } }] }] } }"#,
    );
    eventually("the stranger is refused by the mesh", || {
        let seen = call("stranger");
        seen.failed() == 1 && seen.figure("errors").to_string().contains("RBAC")
    });
    assert_eq!(call("buyer").failed(), 0, "the one it allows is answered");
}
