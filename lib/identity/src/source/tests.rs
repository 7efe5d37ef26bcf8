//! Which source is chosen where, and the log line that says why.

use std::fs;

use super::*;
use crate::testing::{Log, patiently};

/// A pod: what is set, and what is there.
struct Pod {
    folder: tempfile::TempDir,
    set: Vec<(&'static str, String)>,
    own: Own,
}

const JOIN: Own = Own { name: "join", missing: None };
const NO_TOKEN: Own = Own { name: "join", missing: Some("SCONCE_JOIN_TOKEN_FILE is not set") };

impl Pod {
    fn new(own: Own) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token").display().to_string();
        Self { folder, set: vec![("SCONCE_ISTIOD_TOKEN", token)], own }
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.set.push((name, value.to_owned()));
        self
    }

    fn with(self, file: &str) -> Self {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), "").unwrap();
        self
    }

    fn at(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn sources(&self) -> Sources {
        let lookup = |name: &str| self.set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        let mut problems = Vec::new();
        let sources = Sources::read(lookup, self.own, &mut problems);
        assert_eq!(problems, [""; 0]);
        let istio_patience = Duration::from_millis(50);
        Sources { istio_socket: self.at("uds/socket"), istio_patience, ..sources }
    }

    async fn chosen(&self) -> String {
        match self.sources().choose().unwrap().settle().await {
            None => "own".to_owned(),
            Some(Source::WorkloadApi(endpoint)) => format!("workload-api {endpoint}"),
            Some(Source::Sds(socket)) => format!("sds {}", self.shortened(&socket)),
            Some(Source::Files(folder)) => format!("files {}", folder.display()),
            Some(Source::Istiod(istiod)) => format!("istiod {}", istiod.address),
        }
    }

    fn shortened(&self, path: &Path) -> String {
        path.strip_prefix(self.folder.path()).unwrap_or(path).display().to_string()
    }
}

#[tokio::test]
async fn the_first_source_that_is_there_is_taken() {
    let agent = "unix:///run/spire/agent.sock";
    let everything = || Pod::new(JOIN).with("uds/socket").with("token").set("SCONCE_IDENTITY_DIR", "/certs");
    for (pod, chosen) in [
        (everything().set("SPIFFE_ENDPOINT_SOCKET", agent), "workload-api unix:///run/spire/agent.sock"),
        (everything().set("SCONCE_SDS_SOCKET", "/other/socket"), "sds /other/socket"),
        (everything(), "sds uds/socket"),
        (Pod::new(JOIN).with("token").set("SCONCE_IDENTITY_DIR", "/certs"), "files /certs"),
        (Pod::new(JOIN).with("token"), "istiod https://istiod.istio-system.svc:15012/"),
        (Pod::new(JOIN), "own"),
    ] {
        assert_eq!(pod.chosen().await, chosen);
    }
}

#[tokio::test]
async fn a_source_that_is_asked_for_is_taken_whatever_else_is_there() {
    let everything = || Pod::new(JOIN).with("uds/socket").with("token").set("SCONCE_IDENTITY_DIR", "/certs");
    for (wanted, chosen) in [
        ("auto", "sds uds/socket"),
        ("sds", "sds uds/socket"),
        ("files", "files /certs"),
        ("istiod", "istiod https://istiod.istio-system.svc:15012/"),
        ("join", "own"),
    ] {
        assert_eq!(everything().set("SCONCE_IDENTITY", wanted).chosen().await, chosen, "{wanted}");
    }
    // Not there yet, and still the one that is waited for.
    assert_eq!(Pod::new(JOIN).set("SCONCE_IDENTITY", "sds").chosen().await, "sds uds/socket");
}

#[tokio::test]
async fn the_log_says_which_and_why_none_of_those_before() {
    let log = Log::capture();
    let pod = Pod::new(Own { name: "the-fifth", ..JOIN });
    assert_eq!(pod.chosen().await, "own");
    let (socket, token) = (pod.at("uds/socket"), pod.at("token"));
    let why = [
        "source=\"the-fifth\"",
        "workload-api: SPIFFE_ENDPOINT_SOCKET is not set",
        &format!("sds: {} is not there", socket.display()),
        "files: SCONCE_IDENTITY_DIR is not set",
        &format!("istiod: {} is not there", token.display()),
    ];
    log.line(&why).await;

    let nothing = Pod::new(NO_TOKEN).sources().choose().expect_err("nothing is there").to_string();
    assert!(nothing.contains("join: SCONCE_JOIN_TOKEN_FILE is not set"), "{nothing}");
}

#[tokio::test]
async fn a_socket_whose_folder_is_there_is_waited_for() {
    let late = Pod::new(JOIN).with("token").with("uds/other");
    let log = Log::capture();
    assert_eq!(late.chosen().await, "istiod https://istiod.istio-system.svc:15012/");
    log.line(&["source=\"istiod\"", &format!("{} did not appear in", late.at("uds/socket").display())]).await;

    let patient = Sources { istio_patience: Duration::from_secs(3600), ..late.sources() };
    let settling = tokio::spawn(patient.choose().unwrap().settle());
    let late = late.with("uds/socket");
    let source = patiently(settling).await.unwrap();
    assert!(matches!(source, Some(Source::Sds(socket)) if socket == late.at("uds/socket")));

    // With nothing else to fall back on there is no limit.
    let alone = Pod::new(NO_TOKEN).with("uds/other");
    assert_eq!(alone.chosen().await, "sds uds/socket");
}

#[test]
fn every_wrong_variable_is_named_at_once() {
    let read = |set: &[(&str, &str)], own| {
        let lookup = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let mut problems = Vec::new();
        Sources::read(lookup, own, &mut problems);
        problems.join("\n")
    };
    let wrong = [
        ("SCONCE_IDENTITY", "spire"),
        ("SPIFFE_ENDPOINT_SOCKET", "/run/agent.sock"),
        ("SCONCE_ISTIOD", "istiod:15012"),
    ];
    let problems = read(&wrong, JOIN);
    for (name, value) in wrong {
        assert!(problems.contains(name) && problems.contains(value), "{name} in {problems}");
    }
    assert!(problems.contains("auto, workload-api, sds, files, istiod, join"), "{problems}");
    for (wanted, missing) in [
        ("workload-api", "SPIFFE_ENDPOINT_SOCKET"),
        ("files", "SCONCE_IDENTITY_DIR"),
        ("join", "SCONCE_JOIN_TOKEN_FILE"),
    ] {
        let problems = read(&[("SCONCE_IDENTITY", wanted)], NO_TOKEN);
        assert!(problems.contains(&format!("{missing} is not set")), "{problems}");
    }
}
