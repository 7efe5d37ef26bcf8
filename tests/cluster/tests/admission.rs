//! What an API server and Istio's own checks say of our objects and of the pods we make.

use std::{fs, process::Command};

use sconce_cluster_tests::{Cluster, Release, Scenario};
use serde_json::{Value, json};

/// As strict as Pod Security gets, and outside of the mesh: `istio-init` needs a capability.
const NAMESPACE: &str = "strict";

#[test]
fn the_cluster_takes_what_we_make() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("admission");
    let sconce = Release::install(&cluster, &[]);
    restricted(&cluster);
    let values = [("defaults", None), ("gateway-api", Some("controlPlane.publish=gateway-api"))];
    for (name, value) in values {
        scenario.figure(&format!("objects_{name}"), chart(&cluster, &sconce, value));
    }
    analyze(&cluster, &sconce);
    sconce.uninstall(NAMESPACE);
}

/// Pod Security `restricted`, enforced, accepts an injected pod; and without ours it accepts the
/// same, so that it is ours that is judged.
fn restricted(cluster: &Cluster) {
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "restricted", "sconce.dev/injection": "enabled",
        "istio-injection": "disabled",
    });
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": labels } });
    cluster.apply_text(&namespace.to_string());
    let pod = |label: &str, privileged: bool| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "app", "namespace": NAMESPACE, "labels": { "sconce.dev/inject": label } },
            "spec": {
                "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "app", "image": "localhost/caller:1",
                    "securityContext": { "allowPrivilegeEscalation": privileged, "capabilities": { "drop": ["ALL"] } },
                }],
            },
        })
    };
    let containers = |label: &str| -> Vec<String> {
        let made = create(cluster, &pod(label, false)).unwrap_or_else(|error| panic!("{label}: {error}"));
        let of = |key: &str| made["spec"][key].as_array().cloned().unwrap_or_default();
        let all = [of("initContainers"), of("containers")].concat();
        all.iter().filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(containers("true"), ["sconce", "app"]);
    assert_eq!(containers("false"), ["app"]);
    let refused = create(cluster, &pod("true", true)).expect_err("it is enforced");
    assert!(refused.contains("violates PodSecurity") && !refused.contains("\"sconce\""), "{refused}");
}

/// What would be made of an object; nothing is kept.
fn create(cluster: &Cluster, object: &Value) -> Result<Value, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, object.to_string()).expect("written");
    let path = file.path().to_str().expect("text");
    let made = cluster.try_kubectl(&["create", "--dry-run=server", "-o", "json", "-f", path]);
    if made.status.success() {
        Ok(serde_json::from_slice(&made.stdout).expect("JSON"))
    } else {
        Err(String::from_utf8_lossy(&made.stderr).into_owned())
    }
}

/// Everything in the chart passes the API server's own schemas, with unknown fields refused: how
/// many objects that were.
fn chart(cluster: &Cluster, sconce: &Release<'_>, value: Option<&str>) -> usize {
    let mut helm = Command::new("helm");
    helm.args(["template", "sconce", concat!(env!("CARGO_MANIFEST_DIR"), "/../../istio/chart")]);
    helm.args(["--namespace", sconce.namespace()]);
    helm.args(value.into_iter().flat_map(|value| ["--set", value]));
    let made = helm.output().expect("helm is in PATH");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, &made.stdout).expect("written");
    let path = file.path().to_str().expect("text");
    let tried = cluster.try_kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        path,
    ]);
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    String::from_utf8_lossy(&tried.stdout).lines().count()
}

/// Istio's own checks have nothing to say of what we install.
fn analyze(cluster: &Cluster, sconce: &Release<'_>) {
    let said = cluster.istioctl(&["analyze", "-n", sconce.namespace(), "-o", "json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    // That there is no label for injection is meant: pods ask for it one by one.
    let ours = said.as_array().into_iter().flatten().filter(|message| message["code"] != "IST0102");
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&Value>::new());
}
