//! Who drives a control plane in the cluster from outside of it: with a token, and by the API
//! server's way in. So it works also while the mesh does not.

use std::process::{Command, Output};

use crate::{Cluster, Forward, binary, installation::said, repository};

/// An operator.
pub struct Operator {
    namespace: String,
    folder: tempfile::TempDir,
    token: String,
}

impl Operator {
    /// Has the operator in the mesh, a pod of `examples/canary`, make a token.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        let pod =
            std::fs::read_to_string(repository().join("examples/canary/operator.yaml")).expect("the example");
        let pod = pod.replace("IMAGE", cluster.image()).replace("TAG", cluster.tag());
        cluster.apply_text(&pod.replace("sconce-system", namespace));
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
        Self { namespace: namespace.into(), folder, token }
    }

    /// Runs a `sconce` command, whatever comes of it.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn try_sconce(&self, arguments: &[&str]) -> Output {
        // Anew each time: it ends with the pod that it leads to, which scenarios kill.
        let forward = Forward::to(&self.namespace, "service/sconce", 8440);
        Command::new(binary("sconce"))
            .args(arguments)
            .env("SCONCE_CONTROL_PLANE", format!("https://localhost:{}", forward.port()))
            .env("SCONCE_CONTROL_PLANE_ID", format!("/ns/{}/sa/sconce", self.namespace))
            .env("SCONCE_CA", self.folder.path().join("ca.pem"))
            .env("SCONCE_TOKEN", &self.token)
            .output()
            .expect("it runs")
    }

    /// Runs a `sconce` command, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn sconce(&self, arguments: &[&str]) -> String {
        let output = self.try_sconce(arguments);
        assert!(output.status.success(), "sconce {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
