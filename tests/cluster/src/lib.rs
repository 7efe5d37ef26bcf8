//! A real cluster, asked through `kubectl` as its users do; scenarios know no more of it
//! than a `KUBECONFIG`.
//!
//! `make test-cluster` runs them. Plain `cargo test` must never touch whatever cluster
//! somebody's `KUBECONFIG` leads to, so they run only where `SCONCE_CLUSTER` is set.

pub mod application;
pub mod beside;
pub mod binomial;

mod forward;
mod installation;
mod operator;
mod release;
mod report;
pub mod routes;
pub mod stage;
mod traffic;
mod walk;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use forward::Forward;
pub use installation::{Installation, binary, install, repository, uninstall};
pub use operator::Operator;
pub use release::Release;
pub use report::Scenario;
pub use traffic::{Background, Caller, Seen};
pub use walk::{Walk, blocks};

/// How long a condition may take to come true: much longer than it ever should.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster, and what Sconce's images are called in it.
pub struct Cluster {
    image: String,
    tag: String,
}

impl Cluster {
    /// The cluster to use, if one was asked for.
    pub fn from_env() -> Option<Self> {
        if std::env::var_os("SCONCE_CLUSTER").is_none() {
            eprintln!("the cluster scenarios were NOT run: use `make test-cluster`");
            return None;
        }
        let or = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Some(Self { image: or("SCONCE_IMAGE", "localhost/sconce"), tag: or("SCONCE_TAG", "dev") })
    }

    /// What its images are called, before `-sidecar` and the rest.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Their tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Applies a file of `manifests/`, with each of `replace`'s words replaced.
    ///
    /// # Panics
    /// Where the API server refuses it.
    pub fn apply(&self, manifest: &str, replace: &[(&str, &str)]) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests").join(manifest);
        let mut text = std::fs::read_to_string(&file).expect("the manifest");
        let own = [("IMAGE", self.image.as_str()), (":TAG", &format!(":{}", self.tag))];
        for (word, value) in own.iter().chain(replace) {
            text = text.replace(word, value);
        }
        self.apply_text(&text);
    }

    /// Applies YAML or JSON.
    ///
    /// # Panics
    /// Where the API server refuses it.
    pub fn apply_text(&self, text: &str) {
        assert!(self.try_apply(text), "refused:\n{text}");
    }

    /// Applies YAML or JSON, and says whether the API server took it.
    ///
    /// # Panics
    /// Where there is no `kubectl`.
    pub fn try_apply(&self, text: &str) -> bool {
        let mut kubectl = Command::new("kubectl")
            .args(["apply", "--server-side", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("kubectl is in PATH");
        kubectl.stdin.take().expect("piped").write_all(text.as_bytes()).expect("kubectl reads");
        kubectl.wait().expect("kubectl ends").success()
    }

    /// What `kubectl` says to these words; separated by spaces.
    ///
    /// # Panics
    /// Where it fails.
    pub fn kubectl(&self, words: &str) -> String {
        let output = self.try_kubectl(&words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "kubectl {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What comes of these arguments, whatever it is.
    ///
    /// # Panics
    /// Where there is no `kubectl`.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Command::new("kubectl").args(arguments).output().expect("kubectl is in PATH")
    }

    /// What Istio's own command says to these arguments.
    ///
    /// # Panics
    /// Where there is no `istioctl`.
    pub fn istioctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("istioctl").args(arguments).output().expect("istioctl is in PATH");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell line in a pod's container `app`: what it printed, where it succeeded.
    ///
    /// # Errors
    /// With what it said instead.
    pub fn shell(&self, namespace: &str, pod: &str, line: &str) -> Result<String, String> {
        let output =
            self.try_kubectl(&["exec", "-n", namespace, pod, "-c", "app", "--", "/bin/sh", "-c", line]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs one `sconce` command as the operator of the control plane in the namespace `system`,
    /// in the mesh, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn sconce(&self, system: &str, name: &str, arguments: &[&str]) -> serde_json::Value {
        let said = self.sconce_says(system, name, arguments);
        // Progress goes to the same log; the answer is the JSON at its end.
        let json =
            if said.starts_with('{') { said.as_str() } else { said.find("\n{").map_or("", |at| &said[at..]) };
        serde_json::from_str(json).unwrap_or_else(|error| panic!("sconce {arguments:?}: {error} in {said}"))
    }

    /// All that such a command prints.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn sconce_says(&self, system: &str, name: &str, arguments: &[&str]) -> String {
        let list = serde_json::to_string(arguments).expect("text");
        self.apply("operator.yaml", &[("SYSTEM", system), ("NAME", name), ("ARGUMENTS", &list)]);
        let job = format!("job/{name}");
        eventually(&format!("{job} has ended"), || {
            let status = self.kubectl(&format!("get -n {system} {job} -o jsonpath={{.status}}"));
            status.contains("\"succeeded\"") || status.contains("\"failed\"")
        });
        self.kubectl(&format!("logs -n {system} {job} -c sconce"))
    }
}

/// Waits until a condition holds, and says which one did not.
///
/// # Panics
/// When patience runs out.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
