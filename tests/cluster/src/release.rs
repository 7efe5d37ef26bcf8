//! Sconce, installed by its chart and driven by its own command line.

use std::process::Command;

use serde_json::Value;

use crate::{Cluster, Operator, repository};

const SYSTEM: &str = "sconce";

/// A release of the chart. A cluster has one at a time: two would take each other's objects away.
pub struct Release<'c> {
    cluster: &'c Cluster,
    operator: Operator,
}

/// A scenario that failed leaves its release as it is, to be looked at; where nobody can look, what
/// is printed here must do.
impl Drop for Release<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for words in [
                "get pods -A -o wide",
                "logs -n sconce deployment/sconce --tail=60",
                "get jobs,pods -n sconce -o wide",
                "get events -A --field-selector type=Warning",
            ] {
                let said = self.cluster.try_kubectl(&words.split(' ').collect::<Vec<_>>());
                eprintln!("kubectl {words}:\n{}", String::from_utf8_lossy(&said.stdout));
            }
        }
    }
}

impl<'c> Release<'c> {
    /// Installs the chart with these values.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn install(cluster: &'c Cluster, values: &[&str]) -> Self {
        upgrade(cluster, values);
        Self { cluster, operator: Operator::new(cluster, SYSTEM) }
    }

    /// Upgrades the release to these values, and to the chart's own for all others.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn set(&self, values: &[&str]) {
        upgrade(self.cluster, values);
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
        let said = self.operator.sconce(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("sconce {words:?}: {error} in {said}"))
    }

    /// Everything that has happened, the oldest first.
    ///
    /// # Panics
    /// Where the control plane does not say.
    pub fn events(&self) -> Vec<Value> {
        let said = self.operator.sconce(&["events", "-o", "json"]);
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Pushes a version of the example, and waits until every pod has it.
    pub fn push(&self, model: &str, version: &str, more: &[&str]) -> Value {
        self.push_file(model, version, &format!("examples/digits/models/v{version}/digits.pt"), more)
    }

    /// Pushes this file of the repository as a version, and waits until every pod has it.
    ///
    /// # Panics
    /// Where one has not.
    pub fn push_file(&self, model: &str, version: &str, file: &str, more: &[&str]) -> Value {
        let file = repository().join(file);
        let own = ["push", file.to_str().expect("text"), "--model", model, "--version", version, "--wait=60"];
        self.sconce(&[&own[..], more].concat())
    }

    /// Pushes a version of the example that no pod is there to serve yet.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn push_nowhere(&self, model: &str, version: &str, more: &[&str]) -> Value {
        let file = repository().join(format!("examples/digits/models/v{version}/digits.pt"));
        let own = ["push", file.to_str().expect("text"), "--model", model, "--version", version];
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

fn upgrade(cluster: &Cluster, values: &[&str]) {
    let images = format!("image.prefix={},image.tag={}", cluster.image(), cluster.tag());
    let mut helm = Command::new("helm");
    helm.args(["upgrade", "--install", "sconce"]).arg(repository().join("istio/chart"));
    helm.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"]);
    for value in [&images].into_iter().map(String::as_str).chain(values.iter().copied()) {
        helm.args(["--set", value]);
    }
    let helm = helm.output().expect("helm is in PATH");
    assert!(helm.status.success(), "helm: {}", String::from_utf8_lossy(&helm.stderr));
}
