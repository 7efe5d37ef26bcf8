//! The manifests in git are what the chart says, and choosing is what helm's `--set` does.
//!
//! Helm itself has to be asked, and is not on every machine; the scenarios on a cluster ask it
//! always (`tests/cluster/tests/install.rs`).

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sconce_istio::install::{self, Settings};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm() -> bool {
    let there = Command::new("helm").arg("version").output().is_ok();
    if !there {
        eprintln!("helm is not here: whether istio/manifests is what the chart says was NOT checked");
    }
    there
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn the_manifests_are_what_the_chart_says() {
    if !helm() {
        return;
    }
    let check =
        Command::new(repository().join("scripts/manifests.sh")).arg("--check").output().expect("it runs");
    assert!(check.status.success(), "{}", said(&check));
}

#[test]
fn what_is_chosen_is_what_helm_would_set() {
    if !helm() {
        return;
    }
    let set =
        "image.prefix=registry.example.org/ml/sconce,image.tag=v7,controlPlane.persistence.enabled=false";
    let rendered = Command::new("helm")
        .args(["template", "sconce", "istio/chart", "--namespace", "serving", "--include-crds", "--set", set])
        .current_dir(repository())
        .output()
        .expect("it runs");
    assert!(rendered.status.success(), "{}", said(&rendered));
    let text = String::from_utf8(rendered.stdout).expect("text");
    // Helm says that it manages what it renders.
    let text = text.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: sconce");
    let documents = sconce_istio::workload::documents(&text).expect("YAML");
    let mut wanted: Vec<Value> = documents.into_iter().filter_map(|document| document.value).collect();
    let image = "registry.example.org/ml/sconce:v7".parse().expect("valid");
    let chosen = install::objects(&Settings { namespace: "serving".into(), image, ephemeral: true });
    let mut chosen: Vec<Value> = chosen.into_iter().filter(|object| object["kind"] != "Namespace").collect();
    let key = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    wanted.sort_by_key(key);
    chosen.sort_by_key(key);
    assert_eq!(chosen.len(), wanted.len());
    for (chosen, wanted) in chosen.iter().zip(&wanted) {
        assert_eq!(chosen, wanted);
    }
}
