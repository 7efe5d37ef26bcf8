//! `sconce install` and `sconce uninstall` on a real API server: what is refused, what is said, and
//! that nothing is left.

use std::{
    path::Path,
    process::{Command, Output},
    time::Instant,
};

use sconce_cluster_tests::{Cluster, Scenario, binary, eventually, install, repository, uninstall};

const SYSTEM: &str = "sconce-system";

fn sconce(arguments: &[&str]) -> Output {
    Command::new(binary("sconce")).args(arguments).output().expect("it runs")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Refused with this exit code and these words.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} in {said}");
    }
}

fn helm(arguments: &[&str]) {
    let output =
        Command::new("helm").args(arguments).current_dir(repository()).output().expect("helm is in PATH");
    assert!(output.status.success(), "helm {arguments:?}: {}", said(&output));
}

/// The kubeconfig of a service account that may do nothing but what is bound to it.
fn kubeconfig_of(cluster: &Cluster, account: &str, folder: &Path) -> String {
    let token = cluster.kubectl(&format!("create token {account} -n default"));
    let mut config: serde_json::Value =
        serde_json::from_str(&cluster.kubectl("config view --raw --minify -o json")).expect("JSON");
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    let file = folder.join(format!("{account}.json"));
    std::fs::write(&file, config.to_string()).expect("written");
    file.to_str().expect("text").to_owned()
}

#[test]
fn what_is_installed_is_the_charts_and_leaves_without_a_trace() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("install");

    // The manifests are the chart's.
    let check =
        Command::new(repository().join("scripts/manifests.sh")).arg("--check").output().expect("it runs");
    assert!(check.status.success(), "{}", said(&check));

    // An image that is not there: named, and nothing waits for a webhook that nobody answers.
    let wrong = sconce(&["install", "--image", "localhost/nothing:1", "--ephemeral", "--timeout", "20s"]);
    refused(
        &wrong,
        1,
        &["Deployment sconce-system/", "localhost/nothing-control-plane:1", "the webhook was not registered"],
    );
    assert!(
        !cluster.try_kubectl(&["get", "mutatingwebhookconfiguration", "a.sconce-injector"]).status.success()
    );

    // From there on with the right one, and once more: then nothing changes.
    let began = Instant::now();
    let first = install(&cluster, SYSTEM, &[]);
    scenario.figure("seconds_to_install", began.elapsed().as_secs_f64());
    assert!(first.contains("configured Deployment sconce-system/sconce"), "{first}");
    let second = install(&cluster, SYSTEM, &[]);
    assert!(!second.contains("created") && !second.contains("configured"), "{second}");
    let again = sconce(&["install", "--namespace", "elsewhere"]);
    refused(&again, 6, &["installed in sconce-system already"]);
    let edited = [
        "patch",
        "deployment",
        "sconce-injector",
        "-n",
        SYSTEM,
        "-p",
        r#"{"spec":{"replicas":3}}"#,
        "--field-manager=scaler",
    ];
    assert!(cluster.try_kubectl(&edited).status.success());
    let image = format!("{}:{}", cluster.image(), cluster.tag());
    let conflict = sconce(&["install", "--image", &image, "--ephemeral"]);
    refused(&conflict, 6, &["scaler", "--force-conflicts"]);
    install(&cluster, SYSTEM, &["--force-conflicts"]);

    rights(&cluster);
    declare(&cluster);

    let dry = sconce(&["uninstall", "--dry-run"]);
    assert!(said(&dry).contains("would be deleted    Deployment sconce-system/sconce"), "{}", said(&dry));
    let began = Instant::now();
    let kept = sconce(&["uninstall"]);
    assert!(
        kept.status.success() && said(&kept).contains("Namespace sconce-system is kept"),
        "{}",
        said(&kept)
    );
    uninstall(&cluster, SYSTEM);
    scenario.figure("seconds_to_uninstall", began.elapsed().as_secs_f64());
    let nothing = sconce(&["uninstall"]);
    assert!(
        nothing.status.success() && said(&nothing).contains("nothing of Sconce is in this cluster"),
        "{}",
        said(&nothing)
    );
    no_definitions(&cluster);
    let kinds = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,namespaces";
    assert_eq!(cluster.kubectl(&format!("get {kinds} -o name -l app.kubernetes.io/name=sconce")), "");

    // What helm installs is helm's.
    let images = format!("image.prefix={},image.tag={}", cluster.image(), cluster.tag());
    let own = ["install", "prod", "istio/chart", "--namespace", "serving", "--create-namespace"];
    helm(
        &[
            &own[..],
            &[
                "--set",
                &images,
                "--set",
                "controlPlane.persistence.enabled=false",
                "--wait",
                "--timeout",
                "120s",
            ],
        ]
        .concat(),
    );
    refused(&sconce(&["install", "--namespace", "serving"]), 6, &["helm release prod", "helm upgrade prod"]);
    refused(
        &sconce(&["uninstall", "--namespace", "serving"]),
        6,
        &["--published-only", "helm uninstall prod"],
    );
    let published = sconce(&["uninstall", "--namespace", "serving", "--published-only"]);
    assert!(published.status.success(), "{}", said(&published));
    helm(&["uninstall", "prod", "--namespace", "serving", "--wait"]);
    // Helm leaves the definitions of kinds, which are then nobody's.
    let rest = sconce(&["uninstall", "--namespace", "serving", "--purge"]);
    assert!(rest.status.success(), "{}", said(&rest));
    no_definitions(&cluster);
    cluster.kubectl("delete namespace serving --wait=false");
}

/// An API server deletes a definition once it has looked for objects of it.
fn no_definitions(cluster: &Cluster) {
    eventually("the definitions of kinds are gone", || {
        !cluster.kubectl("get crd -o name").contains("sconce.dev")
    });
}

/// A version that cannot be pulled, held by the control plane's finalizer: with nobody left to take
/// that off, its definition could never be deleted.
fn declare(cluster: &Cluster) {
    let address = "https://nowhere.invalid/digits.pt";
    let source = serde_json::json!({ "address": address, "digest": format!("sha256:{}", "0".repeat(64)) });
    let version = serde_json::json!({
        "apiVersion": "sconce.dev/v1alpha1", "kind": "ModelVersion", "metadata": { "name": "digits-1", "namespace": "default" },
        "spec": { "model": "digits", "version": "1", "source": source },
    });
    cluster.apply_text(&version.to_string());
    eventually("the control plane holds it", || {
        let path = "jsonpath={.metadata.finalizers}";
        let held = cluster.try_kubectl(&["get", "modelversion", "digits-1", "-n", "default", "-o", path]);
        String::from_utf8_lossy(&held.stdout).contains("sconce.dev/")
    });
}

/// Whoever may do little is told so before anything happens, and the doctor tells such people what
/// it could not see.
fn rights(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("a folder");
    cluster.kubectl("delete serviceaccount newcomer -n default --ignore-not-found");
    cluster.kubectl("create serviceaccount newcomer -n default");
    let config = kubeconfig_of(cluster, "newcomer", folder.path());
    let denied = sconce(&["install", "--kubeconfig", &config]);
    refused(&denied, 4, &[]);
    let blind = sconce(&["doctor", "--kubeconfig", &config]);
    assert!(blind.status.success() && said(&blind).contains("not read: every Pod"), "{}", said(&blind));
    let bind = |role: &str| {
        cluster.kubectl(&format!(
            "create clusterrolebinding newcomer-{role} --clusterrole={role} --serviceaccount=default:newcomer"
        ));
    };
    bind("sconce-reader");
    bind("sconce-doctor");
    cluster.kubectl(&format!(
        "create rolebinding newcomer -n {SYSTEM} --role=sconce-access --serviceaccount=default:newcomer"
    ));
    eventually("the roles of the chart let the doctor see everything but keys and the catalog", || {
        let seeing = sconce(&["doctor", "--kubeconfig", &config, "-o", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&seeing.stdout).unwrap_or_default();
        let unread: Vec<&str> = report["unread"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["what"].as_str())
            .collect();
        println!("{report}");
        let keys = format!("Secret {SYSTEM}/sconce-webhook");
        seeing.status.success() && unread.len() == 2 && unread.iter().any(|what| *what == keys)
    });
    cluster.kubectl("delete clusterrolebinding newcomer-sconce-reader newcomer-sconce-doctor");
    cluster.kubectl("delete serviceaccount newcomer -n default");
}
