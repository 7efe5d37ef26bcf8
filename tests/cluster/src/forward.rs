//! A port of a pod or a Service, on this machine.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// Forwards for as long as it lives.
pub struct Forward {
    kubectl: Child,
    port: String,
}

impl Forward {
    /// Forwards some free port to this one of `pod/name` or `service/name`.
    ///
    /// # Panics
    /// Where `kubectl` cannot.
    pub fn to(namespace: &str, what: &str, port: u16) -> Self {
        let mut kubectl = Command::new("kubectl")
            .args(["port-forward", "-n", namespace, what, &format!(":{port}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl is in PATH");
        let mut lines = BufReader::new(kubectl.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("it says where").expect("text");
        let port = line.rsplit_once(" -> ").and_then(|(left, _)| left.rsplit(':').next());
        let port = port.unwrap_or_else(|| panic!("{line}")).to_owned();
        // It goes on telling about connections, and must not be kept from it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { kubectl, port }
    }

    /// The port on this machine.
    pub fn port(&self) -> &str {
        &self.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
