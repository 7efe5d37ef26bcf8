//! Sconce as its users install it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{Cluster, Operator, eventually};

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

/// An installation by `sconce install`, and its operator.
pub struct Installation {
    operator: Operator,
}

impl Installation {
    /// Installs Sconce, and gets a token for it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        install(cluster, namespace, &[]);
        Self { operator: Operator::new(cluster, namespace) }
    }

    /// Who drives it.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// What the doctor says, and whether that was taken for healthy.
    ///
    /// # Panics
    /// Where it says nothing that is JSON.
    pub fn doctor(&self) -> (Value, bool) {
        let output = self.operator.try_sconce(&["doctor", "-o", "json"]);
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

pub(crate) fn said(output: &Output) -> String {
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
