//! Sconce as its users install it, and a way to its control plane from outside the mesh.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{Cluster, Forward, eventually};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A binary of ours: from `SCONCE_BINARIES`, else as `make build` makes it.
///
/// # Panics
/// Where it is not built.
pub fn binary(name: &str) -> PathBuf {
    let built = repository().join("target/release");
    let file = std::env::var_os("SCONCE_BINARIES").map_or(built, PathBuf::from).join(name);
    assert!(file.is_file(), "{} is not built: `make build`", file.display());
    file.canonicalize().expect("it is a file")
}

/// An installation by `sconce install`, and an operator's token to it.
pub struct Installation {
    namespace: String,
    _forward: Forward,
    folder: tempfile::TempDir,
    address: String,
    token: String,
}

impl Installation {
    /// Installs Sconce, and gets a token for it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        install(cluster, namespace, &[]);
        let operator =
            std::fs::read_to_string(repository().join("examples/canary/operator.yaml")).expect("the example");
        let operator = operator.replace("IMAGE", cluster.image()).replace("TAG", cluster.tag());
        cluster.apply_text(&operator.replace("sconce-system", namespace));
        cluster.kubectl(&format!("wait -n {namespace} --for=condition=Ready pod/operator --timeout=120s"));
        let exec = [
            "exec", "-n", namespace, "operator", "-c", "sconce", "--", "sconce", "token", "create",
            "scenario", "--role", "operator",
        ];
        let made = cluster.try_kubectl(&exec);
        assert!(made.status.success(), "{}", said(&made));
        let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let folder = tempfile::tempdir().expect("a folder");
        let roots = cluster.kubectl(&format!(
            "get configmap istio-ca-root-cert -n {namespace} -o jsonpath={{.data.root-cert\\.pem}}"
        ));
        std::fs::write(folder.path().join("ca.pem"), roots).expect("written");
        let forward = Forward::to(namespace, "service/sconce", 8440);
        let address = format!("https://localhost:{}", forward.port());
        Self { namespace: namespace.into(), _forward: forward, folder, address, token }
    }

    /// Runs a `sconce` command as the operator, whatever comes of it.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn try_sconce(&self, arguments: &[&str]) -> Output {
        Command::new(binary("sconce"))
            .args(arguments)
            .env("SCONCE_CONTROL_PLANE", &self.address)
            .env("SCONCE_CONTROL_PLANE_ID", format!("/ns/{}/sa/sconce", self.namespace))
            .env("SCONCE_CA", self.folder.path().join("ca.pem"))
            .env("SCONCE_TOKEN", &self.token)
            .output()
            .expect("it runs")
    }

    /// Runs a `sconce` command as the operator, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn sconce(&self, arguments: &[&str]) -> String {
        let output = self.try_sconce(arguments);
        assert!(output.status.success(), "sconce {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the doctor says, and whether that was taken for healthy.
    ///
    /// # Panics
    /// Where it says nothing that is JSON.
    pub fn doctor(&self) -> (Value, bool) {
        let output = self.try_sconce(&["doctor", "-o", "json"]);
        let report = serde_json::from_slice(&output.stdout);
        (report.unwrap_or_else(|error| panic!("{error}: {}", said(&output))), output.status.success())
    }
}

/// Installs Sconce, or puts an installation right, and returns what was said.
///
/// # Panics
/// Where that fails.
pub fn install(cluster: &Cluster, namespace: &str, more: &[&str]) -> String {
    let image = format!("{}:{}", cluster.image(), cluster.tag());
    let own = ["install", "--namespace", namespace, "--image", &image, "--ephemeral"];
    let output = Command::new(binary("sconce")).args(own).args(more).output().expect("it runs");
    assert!(output.status.success(), "sconce install: {}", said(&output));
    said(&output)
}

/// A local port that leads to the control plane, by the API server.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Takes Sconce out of the cluster again.
///
/// # Panics
/// Where that fails.
pub fn uninstall(cluster: &Cluster, namespace: &str) -> String {
    let output = Command::new(binary("sconce"))
        .args(["uninstall", "--namespace", namespace, "--purge"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "sconce uninstall: {}", said(&output));
    eventually("nothing of it is left", || {
        !cluster.try_kubectl(&["get", "namespace", namespace]).status.success()
    });
    said(&output)
}
