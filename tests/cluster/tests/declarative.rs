//! Models declared in a real cluster: its own API server checks the objects, the control plane may do there
//! what the chart grants it and nothing else, and versions come from a server of files and a registry.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use sconce_cluster_tests::{
    Cluster, Scenario,
    beside::{Plane, Process, models, said},
    eventually,
};
use serde_json::{Value, json};

const NAMESPACE: &str = "declarative";
const SYSTEM: &str = "declarative-system";
const PODS: [&str; 2] = ["a", "b"];

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is in PATH: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What versions are pulled from.
struct Sources {
    folder: PathBuf,
    files: String,
    registry: Option<String>,
    _processes: Vec<Process>,
}

impl Sources {
    fn start(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        fs::create_dir_all(folder.join("files")).expect("a folder");
        // Its own root, and no CA: nothing else is signed by it.
        let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
        let own = ["-addext", "basicConstraints=critical,CA:FALSE", "-days", "2"];
        let files = ["-keyout", &path("key.pem"), "-out", &path("cert.pem")];
        let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes"];
        run("openssl", &[&made[..], &files, &name, &own].concat());
        for version in ["v1", "v2"] {
            let to = folder.join("files").join(format!("{version}.pt"));
            fs::copy(models().join(version).join("digits.pt"), to).expect("copied");
        }
        let mut server = Command::new("python3")
            .arg(here().join("sources.py"))
            .args(["serve", &path("cert.pem"), &path("key.pem"), &path("files")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is in PATH");
        let mut port = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut port).expect("its port");
        let files = format!("https://localhost:{}", port.trim());
        let mut processes = vec![Process(server)];
        let registry = Self::registry(folder, &files, &mut processes);
        Self { folder: folder.to_owned(), files, registry, _processes: processes }
    }

    /// A registry of the CNCF's, where there is one.
    fn registry(folder: &Path, files: &str, processes: &mut Vec<Process>) -> Option<String> {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let path = |name: &str| folder.join(name).display().to_string();
        let configuration = json!({
            "version": "0.1",
            "storage": { "filesystem": { "rootdirectory": path("registry") } },
            "http": {
                "addr": format!("127.0.0.1:{port}"), "secret": "none",
                "tls": { "certificate": path("cert.pem"), "key": path("key.pem") },
            },
            // It lets in whoever shows a token, and sends everybody else for one.
            "auth": { "silly": { "realm": format!("{files}/token"), "service": "registry" } },
        });
        fs::write(folder.join("registry.yml"), configuration.to_string()).expect("written");
        let log = fs::File::create(folder.join("registry.log")).expect("a log");
        let started = Command::new("registry")
            .args(["serve", &path("registry.yml")])
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        let Ok(started) = started else {
            eprintln!("the pull from a registry was NOT run: `registry` is not in PATH");
            return None;
        };
        processes.push(Process(started));
        eventually("the registry answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(format!("localhost:{port}"))
    }

    fn digest(&self, version: &str) -> String {
        let file = self.folder.join("files").join(format!("{version}.pt")).display().to_string();
        format!("sha256:{}", &run("sha256sum", &[&file])[..64])
    }

    /// The second version: in the registry, where there is one. Address, digest, and the Secret for it.
    fn second(&self) -> Value {
        let Some(registry) = &self.registry else {
            return json!({ "address": format!("{}/v2.pt", self.files), "digest": self.digest("v2") });
        };
        let path = |name: &str| self.folder.join(name).display().to_string();
        let script = here().join("sources.py").display().to_string();
        let url = format!("https://{registry}");
        let digest = run("python3", &[&script, "push", &url, &path("cert.pem"), &path("files/v2.pt")]);
        let address = format!("oci://{registry}/ml/digits");
        json!({ "address": address, "digest": digest.trim(), "secretRef": { "name": "registry" } })
    }
}

/// The kinds, and rights as the chart gives them.
fn install(cluster: &Cluster) {
    let chart = here().join("../../istio/chart").display().to_string();
    let secrets = format!("controlPlane.sourceSecrets.{NAMESPACE}={{registry}}");
    let rendered = run(
        "helm",
        &[
            "template",
            "sconce",
            &chart,
            "-n",
            SYSTEM,
            "--show-only",
            "templates/resources.yaml",
            "--set",
            &secrets,
        ],
    );
    // What a run that failed has left waits for a control plane that is gone.
    let left = cluster.try_kubectl(&["get", "-n", NAMESPACE, "modelversions", "-o", "name"]);
    for object in String::from_utf8_lossy(&left.stdout).lines() {
        let none = r#"{"metadata":{"finalizers":null}}"#;
        let freed = cluster.try_kubectl(&["patch", "-n", NAMESPACE, object, "--type=merge", "-p", none]);
        assert!(freed.status.success(), "{}", said(&freed));
    }
    for namespace in [NAMESPACE, SYSTEM] {
        cluster.kubectl(&format!("delete namespace {namespace} --ignore-not-found"));
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        cluster.apply_text(&object.to_string());
    }
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "sconce", "namespace": SYSTEM },
    });
    cluster.apply_text(&account.to_string());
    cluster.apply_text(&rendered);
    cluster.kubectl(
        "wait --for=condition=Established crd/models.sconce.dev crd/modelversions.sconce.dev --timeout=60s",
    );
}

/// How the control plane reaches the cluster: as its ServiceAccount, with no more rights than that has.
fn kubeconfig(cluster: &Cluster, folder: &Path) -> String {
    let admin: Value =
        serde_json::from_str(&cluster.kubectl("config view --raw --minify -o json")).expect("JSON");
    let token = cluster.kubectl(&format!("create token sconce -n {SYSTEM} --duration=1h"));
    let own = json!({
        "apiVersion": "v1", "kind": "Config", "clusters": admin["clusters"],
        "users": [{ "name": "sconce", "user": { "token": token.trim() } }],
        "contexts": [{ "name": "own", "context": {
            "cluster": admin["clusters"][0]["name"], "user": "sconce", "namespace": SYSTEM,
        } }],
        "current-context": "own",
    });
    let file = folder.join("kubeconfig");
    fs::write(&file, own.to_string()).expect("written");
    file.display().to_string()
}

fn version(name: &str, number: &str, source: &Value) -> Value {
    json!({
        "apiVersion": "sconce.dev/v1alpha1", "kind": "ModelVersion",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "model": "digits", "version": number, "source": source },
    })
}

fn model(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "sconce.dev/v1alpha1", "kind": "Model",
        "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
    })
}

fn split(shares: &[(&str, u32)]) -> Value {
    let shares = shares.iter().map(|(version, share)| json!({ "version": version, "share": share }));
    model("digits", &json!({ "split": shares.collect::<Vec<_>>() }))
}

/// What the API server says to an object that it does not take.
fn refused(cluster: &Cluster, folder: &Path, object: &Value, says: &str) {
    let file = folder.join("refused.json");
    fs::write(&file, object.to_string()).expect("written");
    let file = file.display().to_string();
    let tried = cluster.try_kubectl(&["apply", "--server-side", "-f", &file]);
    assert!(!tried.status.success() && said(&tried).contains(says), "{says}: {}", said(&tried));
}

/// What the schema and its rules do not let in.
fn rules(cluster: &Cluster, folder: &Path, good: &Value) {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = version("refused", "9", good);
        change(&mut object["spec"]);
        object
    };
    let cases: [(Value, &str); 11] = [
        (with(&|spec| spec["source"]["digest"] = "sha256:00".into()), "64 hexadecimal digits"),
        (with(&|spec| spec["source"]["address"] = "http://a.example.com/1.pt".into()), "an address is s3://"),
        (
            with(&|spec| spec["source"]["address"] = "https://ci:pw@a.example.com/1.pt".into()),
            "without a user",
        ),
        (with(&|spec| spec["version"] = "auto".into()), "auto counts up only in pushes"),
        (with(&|spec| spec["model"] = "Fraud!".into()), "spec.model"),
        (with(&|spec| spec["source"] = json!({})), "spec.source.address"),
        (
            with(&|spec| spec["metadata"] = json!({ "sconce.dev/source": "x" })),
            "for the control plane to write",
        ),
        (split(&[("1", 9_000), ("2", 500)]), "must sum to 10000"),
        (split(&[("1", 5_000), ("1", 5_000)]), "duplicate entries"),
        (model("0digits", &json!({})), "begins with a letter"),
        (
            model("labels", &json!({ "selector": { "matchLabels": { "team": "a,b" } } })),
            "values are those of labels",
        ),
    ];
    for (object, says) in &cases {
        refused(cluster, folder, object, says);
    }
}

/// Waits until a condition of a version has this reason, as `kubectl wait` does, and returns its message.
fn reason(cluster: &Cluster, name: &str, condition: &str, reason: &str) -> String {
    let path = |field: &str| format!("{{.status.conditions[?(@.type==\"{condition}\")].{field}}}");
    let wanted = format!("--for=jsonpath={}={reason}", path("reason"));
    let object = format!("modelversion/{name}");
    let waited = cluster.try_kubectl(&["wait", "-n", NAMESPACE, &object, &wanted, "--timeout=60s"]);
    let message = cluster.try_kubectl(&[
        "get",
        "-n",
        NAMESPACE,
        &object,
        "-o",
        &format!("jsonpath={}", path("message")),
    ]);
    assert!(waited.status.success(), "{name} {condition} {reason}: {} {}", said(&waited), said(&message));
    said(&message)
}

/// Versions that answer predictions of a sidecar, of so many.
fn answers(plane: &Plane, count: usize) -> Vec<String> {
    let sidecars: Value = serde_json::from_str(&plane.sconce(&["sidecars", "-o", "json"])).expect("JSON");
    let address = sidecars[0]["address"].as_str().expect("an address").to_owned();
    let input = format!("image={}", models().join("../seven.npy").display());
    let ask = |_| {
        let words = ["infer", "declarative/digits", "--input", &input, "--sidecar", &address, "-o", "json"];
        let answer: Value = serde_json::from_str(&plane.sconce(&words)).expect("JSON");
        let version = answer["version"].as_str().or(answer["model_version"].as_str());
        version.unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    (0..count).map(ask).collect()
}

#[test]
fn models_are_declared_pulled_served_and_taken_back() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("declarative");
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::start(folder.path());
    install(&cluster);
    let first = json!({ "address": format!("{}/v1.pt", sources.files), "digest": sources.digest("v1") });
    rules(&cluster, folder.path(), &first);

    let home = folder.path().join("home");
    let allowed = match &sources.registry {
        Some(registry) => format!("{}/,oci://{registry}/ml/", sources.files),
        None => format!("{}/", sources.files),
    };
    let (config, ca) =
        (kubeconfig(&cluster, folder.path()), folder.path().join("cert.pem").display().to_string());
    let variables = [
        ("SCONCE_CUSTOM_RESOURCES", "on"),
        ("SCONCE_SOURCES", &allowed),
        ("SCONCE_SOURCES_CA", &ca),
        ("KUBECONFIG", &config),
    ];
    let plane = Plane::start(&home, &variables);
    let sidecars = PODS.map(|pod| plane.sidecar(NAMESPACE, pod));

    // Applied, waited for, answering.
    let began = Instant::now();
    cluster.apply_text(&model("digits", &json!({})).to_string());
    cluster.apply_text(&version("digits-1", "1", &first).to_string());
    let wait = |words: &str| cluster.kubectl(&format!("wait -n {NAMESPACE} --timeout=60s {words}"));
    wait("--for=condition=Pulled modelversion/digits-1");
    scenario.figure("seconds_to_pulled", began.elapsed().as_secs_f64());
    wait("--for=condition=Ready modelversion/digits-1 model/digits");
    scenario.figure("seconds_to_ready", began.elapsed().as_secs_f64());
    assert_eq!(answers(&plane, 3), ["1", "1", "1"]);

    // What is wrong is said where people look.
    let mut wrong = first.clone();
    wrong["digest"] = sources.digest("v2").into();
    cluster.apply_text(&version("wrong", "7", &wrong).to_string());
    assert!(reason(&cluster, "wrong", "Pulled", "DigestMismatch").contains("has other bytes"));
    let elsewhere = json!({ "address": "https://10.0.0.1/v1.pt", "digest": sources.digest("v1") });
    cluster.apply_text(&version("elsewhere", "8", &elsewhere).to_string());
    assert!(reason(&cluster, "elsewhere", "Pulled", "SourceNotAllowed").contains("SCONCE_SOURCES"));
    let mut hidden = first.clone();
    hidden["secretRef"] = json!({ "name": "others" });
    cluster.apply_text(&version("hidden", "6", &hidden).to_string());
    assert!(reason(&cluster, "hidden", "Pulled", "SecretNotReadable").contains("forbidden"));
    eventually("there is an Event of it", || {
        let events = format!(
            "get events -n {NAMESPACE} -o jsonpath={{.items[?(@.involvedObject.name=='wrong')].reason}}"
        );
        cluster.kubectl(&events).contains("DigestMismatch")
    });
    wrong["digest"] = sources.digest("v1").into();
    refused(&cluster, folder.path(), &version("wrong", "7", &wrong), "a version's bytes never change");
    cluster.kubectl(&format!("delete -n {NAMESPACE} modelversion wrong elsewhere hidden --timeout=60s"));

    // The second version comes from a registry that wants a token, by a Secret that is granted by name.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "registry", "namespace": NAMESPACE },
        "stringData": { "username": "ci", "password": "secret" },
    });
    cluster.apply_text(&secret.to_string());
    let second = sources.second();
    cluster.apply_text(&version("digits-2", "2", &second).to_string());
    if sources.registry.is_some() {
        assert!(reason(&cluster, "digits-2", "Pulled", "SecretNotAllowed").contains("sconce.dev/sources"));
        let annotation = format!("sconce.dev/sources={}", second["address"].as_str().expect("text"));
        cluster.kubectl(&format!("annotate secret -n {NAMESPACE} registry {annotation}"));
    }
    wait("--for=condition=Ready modelversion/digits-2");
    let listed = cluster.kubectl(&format!("get -n {NAMESPACE} mv"));
    let row = listed.lines().find(|line| line.starts_with("digits-2")).expect("listed");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[1..9], ["digits", "2", "0", "%", "2/2", "Pulled", "True", "Ready"], "{listed}");

    // The declared split wins, and is taken back by hand in vain.
    cluster.apply_text(&split(&[("1", 5_000), ("2", 5_000)]).to_string());
    let halves = "1=50 %, 2=50 %";
    let shown = || cluster.kubectl(&format!("get -n {NAMESPACE} model digits -o jsonpath={{.status.split}}"));
    eventually("the split is as declared", || shown() == halves);
    wait("--for=condition=Ready model/digits");
    let answered = answers(&plane, 12);
    assert!(answered.contains(&"1".into()) && answered.contains(&"2".into()), "{answered:?}");
    let _ = plane.sconce(&["split", "declarative/digits", "1=100", "--wait", "0"]);
    eventually("the split is put back", || {
        plane.sconce(&["split", "declarative/digits", "--show", "-o", "json"]).contains("50")
    });

    // A restart changes nothing.
    let Plane { up, .. } = plane;
    up.stop();
    let plane = Plane::start(&home, &variables);
    let pushes = || plane.sconce(&["events", "-o", "json"]).matches("version.pushed").count();
    assert_eq!(pushes(), 2);

    // A share keeps a version; without one it goes with its object.
    cluster.kubectl(&format!("delete -n {NAMESPACE} modelversion digits-2 --wait=false"));
    assert!(reason(&cluster, "digits-2", "Deleted", "HasShare").contains("still answers 50 %"));
    cluster.apply_text(&split(&[("1", 10_000)]).to_string());
    wait("--for=delete modelversion/digits-2");
    assert_eq!(pushes(), 2);

    // Everything goes, whatever has a share.
    cluster.kubectl(&format!("delete -n {NAMESPACE} models,modelversions --all --timeout=60s"));
    assert!(!plane.sconce(&["models", "-o", "json"]).contains("digits"));
    sidecars.into_iter().for_each(Process::stop);
    plane.up.stop();
    let helms = cluster.kubectl("get crd -l app.kubernetes.io/managed-by=Helm -o name");
    if !helms.contains("models.sconce.dev") {
        cluster.kubectl("delete crd models.sconce.dev modelversions.sconce.dev");
    }
    for namespace in [NAMESPACE, SYSTEM] {
        cluster.kubectl(&format!("delete namespace {namespace} --wait=false"));
    }
    let rights = format!("sconce-{SYSTEM}-reconciler");
    cluster.kubectl(&format!("delete clusterrole/{rights} clusterrolebinding/{rights}"));
}
