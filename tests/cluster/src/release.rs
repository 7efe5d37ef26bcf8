//! Sconce, installed by its chart and driven by its own command line.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::Cluster;

const SYSTEM: &str = "sconce";

/// A release of the chart. A cluster has one at a time: two would take each other's objects away.
pub struct Release<'c> {
    cluster: &'c Cluster,
    /// Names of jobs: no other run's, and none twice.
    run: u64,
    jobs: Cell<u32>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl<'c> Release<'c> {
    /// Installs the chart with these values, and puts both versions of the example where jobs
    /// find them.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn install(cluster: &'c Cluster, values: &[&str]) -> Self {
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let own = Self { cluster, run, jobs: Cell::new(0) };
        own.set(values);
        let models = repository().join("examples/digits/models");
        let from =
            |version: &str| format!("--from-file={version}.pt={}/{version}/digits.pt", models.display());
        let make = format!(
            "create configmap models -n {SYSTEM} --dry-run=client -o json {} {}",
            from("v1"),
            from("v2")
        );
        cluster.apply_text(&cluster.kubectl(&make));
        own
    }

    /// Upgrades the release to these values, and to the chart's own for all others.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn set(&self, values: &[&str]) {
        let images = format!("image.prefix={},image.tag={}", self.cluster.image(), self.cluster.tag());
        let mut helm = Command::new("helm");
        helm.args(["upgrade", "--install", "sconce"]).arg(repository().join("istio/chart"));
        helm.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"]);
        for value in [&images].into_iter().map(String::as_str).chain(values.iter().copied()) {
            helm.args(["--set", value]);
        }
        let helm = helm.output().expect("helm is in PATH");
        assert!(helm.status.success(), "helm: {}", String::from_utf8_lossy(&helm.stderr));
    }

    /// The namespace of the control plane.
    pub fn namespace(&self) -> &'static str {
        SYSTEM
    }

    /// What one `sconce` command of the operator's prints, with `-o json`.
    ///
    /// # Panics
    /// Where it fails.
    pub fn sconce(&self, words: &[&str]) -> Value {
        self.cluster.sconce(SYSTEM, &self.job(words[0]), &[words, &["-o", "json"]].concat())
    }

    /// Everything that has happened, the oldest first.
    ///
    /// # Panics
    /// Where the control plane does not say.
    pub fn events(&self) -> Vec<Value> {
        let said = self.cluster.sconce_says(SYSTEM, &self.job("events"), &["events", "-o", "json"]);
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn job(&self, command: &str) -> String {
        self.jobs.set(self.jobs.get() + 1);
        format!("{command}-{}-{}", self.run, self.jobs.get())
    }

    /// Pushes a version of the example, and waits until every pod has it.
    pub fn push(&self, model: &str, version: &str, more: &[&str]) -> Value {
        let file = format!("/models/v{version}.pt");
        let own = ["push", &file, "--model", model, "--version", version, "--wait=60"];
        self.sconce(&[&own[..], more].concat())
    }

    /// Gives version 2 this much and version 1 the rest, and waits until that is proven.
    ///
    /// # Panics
    /// Where it is not.
    pub fn split(&self, model: &str, percent: u32) -> Value {
        let shares = [format!("1={}", 100 - percent), format!("2={percent}")];
        let set = self.sconce(&["split", model, &shares[0], &shares[1]]);
        assert_eq!(set["progress"]["state"], "applied", "{set}");
        let proven = set["progress"]["message"].as_str().is_some_and(|message| message.contains("proven by"));
        assert!(proven, "{set}");
        set
    }

    /// Removes the release, its namespace, and these.
    ///
    /// # Panics
    /// Where helm fails.
    pub fn uninstall(self, namespaces: &str) {
        let gone =
            Command::new("helm").args(["uninstall", "sconce", "--namespace", SYSTEM, "--wait"]).output();
        assert!(gone.expect("helm is in PATH").status.success());
        // Waited for: the next scenario makes namespaces of the same names.
        self.cluster.kubectl(&format!("delete namespace {namespaces} {SYSTEM} --timeout=120s"));
    }
}
