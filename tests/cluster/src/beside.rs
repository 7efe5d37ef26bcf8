//! A control plane and its sidecars beside the cluster, as processes of this machine: what they do to an
//! API server is the same from there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::eventually;

/// Ends with the test, passed or not.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Ends in order, as a pod does.
    ///
    /// # Panics
    /// Where it does not.
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill is in PATH").success());
        self.0.wait().expect("it ends");
    }
}

/// A control plane, and what is needed to talk to it.
pub struct Plane {
    /// Everything of its.
    pub folder: PathBuf,
    /// `sconce up`.
    pub up: Process,
    /// Where it answers.
    pub address: String,
}

/// A program of ours that has been built.
///
/// # Panics
/// Where it has not.
pub fn binary(name: &str) -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folder = std::env::var_os("SCONCE_BINARIES").map_or_else(|| built.join("release"), PathBuf::from);
    let file = folder.join(name);
    assert!(file.is_file(), "{} is not built: `make build`", file.display());
    Command::new(file)
}

/// Versions of the digits example.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/models")
}

/// Everything that a process said.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

impl Plane {
    /// Starts one, or the one that was in this folder before.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let ready = folder.join("ready.json");
        let _ = fs::remove_file(&ready);
        let up = binary("sconce")
            .args(["up", "--sidecars", "0", "--listen", "127.0.0.1:0", "--dir"])
            .arg(folder)
            .arg("--ready-file")
            .arg(&ready)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let up = Process(up);
        eventually("the control plane is ready", || ready.exists());
        let context: Value = serde_json::from_slice(&fs::read(&ready).expect("a context")).expect("JSON");
        let address = context["control_plane"].as_str().expect("an address").to_owned();
        Self { folder: folder.to_owned(), up, address }
    }

    /// What `sconce` prints to these arguments.
    ///
    /// # Panics
    /// Where it fails.
    pub fn sconce(&self, arguments: &[&str]) -> String {
        let output =
            binary("sconce").arg("--home").arg(&self.folder).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "sconce {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A sidecar that stands for a pod.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn sidecar(&self, namespace: &str, pod: &str) -> Process {
        let path = format!("/ns/{namespace}/sa/server");
        let made =
            self.sconce(&["join-token", "create", "--path", &path, "--name", "localhost", "-o", "json"]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let token = self.folder.join(format!("tokens/{pod}"));
        fs::write(&token, made["token"].as_str().expect("a token")).expect("written");
        let log = fs::File::create(self.folder.join(format!("logs/{pod}.log"))).expect("a log");
        let sidecar = binary("sconce-sidecar")
            .env("SCONCE_NAME", format!("{namespace}/{pod}"))
            .env("SCONCE_NAMESPACE", namespace)
            .env("SCONCE_LISTEN", "127.0.0.1:0")
            .env("SCONCE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SCONCE_CONTROL_PLANE", &self.address)
            .env("SCONCE_TRUST_BUNDLE", self.folder.join("client/ca.pem"))
            .env("SCONCE_JOIN_TOKEN_FILE", token)
            .env("SCONCE_NAMES", "localhost")
            .env("SCONCE_DATA_DIR", self.folder.join(pod))
            .stdout(log)
            .stderr(Stdio::inherit())
            .spawn();
        Process(sidecar.expect("it starts"))
    }
}
