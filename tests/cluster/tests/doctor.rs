//! The doctor on a real cluster: faults are planted one after the other, each is found, and each
//! can be mended so that nothing is found any more.

use sconce_cluster_tests::{Cluster, Installation, Scenario, eventually, install, repository, uninstall};
use serde_json::{Value, json};

const SYSTEM: &str = "sconce-system";
const WARD: &str = "ward";
const REGISTRATION: &str = "mutatingwebhookconfiguration a.sconce-injector";

struct Clinic<'a> {
    cluster: &'a Cluster,
    sconce: Installation,
    found: usize,
}

impl Clinic<'_> {
    /// Plants a fault, waits until the doctor names it, mends it, and waits until the doctor is
    /// content.
    fn fault(
        &mut self,
        check: &str,
        object: &str,
        plant: impl FnOnce(&Cluster),
        mend: impl FnOnce(&Cluster),
    ) {
        plant(self.cluster);
        let mut last = Value::Null;
        eventually(&format!("the doctor finds {check} at {object}"), || {
            let (report, healthy) = self.sconce.doctor();
            let named = |finding: &Value| {
                finding["check"] == check
                    && finding["object"].as_str().is_some_and(|named| named.contains(object))
                    && finding["next"].as_str().is_some_and(|next| !next.is_empty())
            };
            let found = report["findings"].as_array().is_some_and(|all| all.iter().any(named));
            assert!(!found || !healthy, "{report}");
            last = report;
            found
        });
        println!("{check}: {}", last["findings"]);
        self.found += 1;
        mend(self.cluster);
        self.content(&format!("after {check}"));
    }

    fn content(&self, when: &str) {
        let mut last = Value::Null;
        eventually(&format!("the doctor is content {when}; see the last report above"), || {
            let (report, healthy) = self.sconce.doctor();
            if report != last {
                println!("{when}: {report}");
            }
            last = report;
            healthy && last["unread"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

fn workload(cluster: &Cluster) {
    let metadata = json!({ "name": WARD, "labels": { "istio-injection": "enabled", "sconce.dev/injection": "enabled" } });
    cluster.apply_text(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }).to_string());
    let container = json!({
        "name": "app", "image": "localhost/tools:1", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
    });
    let labels = json!({ "app": "patient", "sconce.dev/inject": "true" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "patient", "namespace": WARD },
        "spec": {
            "selector": { "matchLabels": { "app": "patient" } },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    cluster.apply_text(&deployment.to_string());
    cluster.kubectl(&format!("rollout status -n {WARD} deployment/patient --timeout=180s"));
}

fn merge(cluster: &Cluster, object: &str, patch: &Value) {
    let mut words: Vec<&str> = vec!["patch"];
    words.extend(object.split(' '));
    let patch = patch.to_string();
    words.extend(["--type=merge", "-p", &patch]);
    let done = cluster.try_kubectl(&words);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn get(cluster: &Cluster, object: &str) -> Value {
    serde_json::from_str(&cluster.kubectl(&format!("get {object} -o json"))).expect("JSON")
}

fn again(cluster: &Cluster) {
    install(cluster, SYSTEM, &["--force-conflicts"]);
}

/// As it would be written anew.
fn bare(mut object: Value) -> Value {
    let metadata = json!({ "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"], "labels": object["metadata"]["labels"] });
    object["metadata"] = metadata;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

#[test]
fn planted_faults_are_found_and_mended() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("doctor");
    cluster.kubectl(&format!("delete namespace {WARD} --ignore-not-found"));
    let sconce = Installation::new(&cluster, SYSTEM);
    workload(&cluster);
    let archive = repository().join("examples/digits/models/v1/digits.pt");
    let model = format!("{WARD}/digits");
    let archive = archive.to_str().expect("text");
    let push = ["push", archive, "--model", &model, "--version", "1", "--activate", "--wait=60"];
    sconce.operator().sconce(&push);
    let mut clinic = Clinic { cluster: &cluster, sconce, found: 0 };
    clinic.content("before anything is wrong");
    registration(&mut clinic);
    injector(&mut clinic);
    pods(&mut clinic);
    routes(&mut clinic);
    scenario.figure("faults_found", clinic.found);
    assert!(clinic.found >= 10, "{}", clinic.found);
    drop(clinic);
    uninstall(&cluster, SYSTEM);
    cluster.kubectl(&format!("delete namespace {WARD} --wait=false"));
}

fn registration(clinic: &mut Clinic<'_>) {
    let copy = |cluster: &Cluster| {
        let mut copy = bare(get(cluster, REGISTRATION));
        copy["metadata"]["name"] = "z.sconce".into();
        cluster.apply_text(&copy.to_string());
    };
    clinic.fault("webhook-duplicate", "z.sconce", copy, |cluster| {
        cluster.kubectl("delete mutatingwebhookconfiguration z.sconce");
    });
    clinic.fault(
        "webhook-missing",
        "a.sconce-injector",
        |cluster| drop(cluster.kubectl(&format!("delete {REGISTRATION}"))),
        again,
    );
    let late = |cluster: &Cluster| {
        let mut late = bare(get(cluster, REGISTRATION));
        late["metadata"]["name"] = "z.sconce".into();
        cluster.apply_text(&late.to_string());
        cluster.kubectl(&format!("delete {REGISTRATION}"));
    };
    clinic.fault("webhook-order", "z.sconce", late, |cluster| {
        again(cluster);
        cluster.kubectl("delete mutatingwebhookconfiguration z.sconce");
    });
    let ignore = |cluster: &Cluster| {
        let patch = r#"[{"op":"replace","path":"/webhooks/1/failurePolicy","value":"Ignore"}]"#;
        let words =
            ["patch", "mutatingwebhookconfiguration", "a.sconce-injector", "--type=json", "-p", patch];
        assert!(cluster.try_kubectl(&words).status.success());
    };
    clinic.fault("webhook-altered", "a.sconce-injector", ignore, again);
}

fn injector(clinic: &mut Clinic<'_>) {
    let deployment = format!("-n {SYSTEM} deployment/sconce-injector");
    let scale = |cluster: &Cluster, replicas: u8| {
        cluster.kubectl(&format!("scale {deployment} --replicas={replicas}"));
        cluster.kubectl(&format!("rollout status {deployment} --timeout=120s"));
        if replicas == 0 {
            // Those that are on their way out still put things right.
            eventually("no injector is left", || {
                cluster.kubectl(&format!("get pods -n {SYSTEM} -l app=sconce-injector -o name")).is_empty()
            });
        }
    };
    clinic.fault(
        "webhook-endpoints",
        "sconce-webhook",
        |cluster| scale(cluster, 0),
        |cluster| scale(cluster, 2),
    );
    // With nobody there to put it right.
    let foreign = |cluster: &Cluster| {
        scale(cluster, 0);
        // The API server takes only certificates: those of the cluster's own roots are some.
        let roots = cluster.kubectl(&format!(
            "get configmap istio-ca-root-cert -n {SYSTEM} -o jsonpath={{.data.root-cert\\.pem}}"
        ));
        let mut registration = get(cluster, REGISTRATION);
        registration["webhooks"][0]["clientConfig"]["caBundle"] = base64(cluster, &roots).into();
        let patch = json!({ "webhooks": registration["webhooks"] });
        merge(cluster, REGISTRATION, &patch);
    };
    clinic.fault("webhook-ca", "a.sconce-injector", foreign, |cluster| scale(cluster, 2));
    let secret = format!("secret sconce-webhook -n {SYSTEM}");
    let kept = get(clinic.cluster, &secret)["data"].clone();
    let unreadable = json!({ "data": { "ca.crt": base64(clinic.cluster, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") } });
    clinic.fault(
        "certificate",
        "sconce-webhook",
        |cluster| merge(cluster, &secret, &unreadable),
        |cluster| merge(cluster, &secret, &json!({ "data": kept })),
    );
    let version = |cluster: &Cluster| {
        drop(cluster.kubectl(&format!("label {deployment} app.kubernetes.io/version=0.0.1 --overwrite")))
    };
    clinic.fault("version-skew", "sconce-injector", version, again);
    let settings = |cluster: &Cluster| {
        let map = format!("configmap sconce-injector -n {SYSTEM}");
        let text = get(cluster, &map)["data"]["settings.yaml"].as_str().expect("text").to_owned();
        let text = text.replace(&format!("-sidecar:{}", cluster.tag()), "-sidecar:another");
        merge(cluster, &map, &json!({ "data": { "settings.yaml": text } }));
    };
    clinic.fault("sidecar-skew", "patient", settings, again);
}

fn pods(clinic: &mut Clinic<'_>) {
    let bare = |name: &str, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": WARD, "labels": { "sconce.dev/inject": "true" }, "annotations": annotations },
            "spec": {
                "containers": [{ "name": "app", "image": "localhost/tools:1", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"] }],
                "terminationGracePeriodSeconds": 0,
            },
        })
        .to_string()
    };
    let gone = |cluster: &Cluster, name: &str| drop(cluster.kubectl(&format!("delete pod {name} -n {WARD}")));
    let early = |cluster: &Cluster| {
        cluster.kubectl(&format!("label namespace {WARD} sconce.dev/injection-"));
        // What the API server knows of a namespace may be a moment old.
        eventually("a pod is made without a sidecar", || {
            cluster.apply_text(&bare("early", json!({})));
            let names = "{.spec.initContainers[*].name} {.spec.containers[*].name}";
            let path = format!("jsonpath={names}");
            let all = cluster.try_kubectl(&["get", "pod", "early", "-n", WARD, "-o", &path]);
            let injected =
                String::from_utf8_lossy(&all.stdout).split_whitespace().any(|name| name == "sconce");
            if injected {
                cluster.kubectl(&format!("delete pod early -n {WARD}"));
            }
            !injected
        });
        cluster.kubectl(&format!("label namespace {WARD} sconce.dev/injection=enabled"));
    };
    clinic.fault("uninjected", "early", early, |cluster| gone(cluster, "early"));
    let imageless = bare(
        "imageless",
        json!({ "sconce.dev/image": "localhost/nothing:1", "sconce.dev/image-pull-policy": "Never" }),
    );
    clinic.fault(
        "sidecar-not-ready",
        "imageless",
        |cluster| cluster.apply_text(&imageless),
        |cluster| gone(cluster, "imageless"),
    );
    let outside =
        |cluster: &Cluster| drop(cluster.kubectl(&format!("label namespace {WARD} istio-injection-")));
    clinic.fault("namespace-not-meshed", WARD, outside, |cluster| {
        cluster.kubectl(&format!("label namespace {WARD} istio-injection=enabled"));
    });
}

fn routes(clinic: &mut Clinic<'_>) {
    let route = format!("virtualservice sconce-digits -n {WARD}");
    // Another owner: the control plane leaves it alone until it is taken away.
    let owner = |cluster: &Cluster| {
        let mut second = bare(get(cluster, &route));
        second["spec"]["http"][2]["retries"]["attempts"] = 7.into();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("route.json");
        std::fs::write(&file, second.to_string()).expect("written");
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=flagger",
            "-f",
            file.to_str().expect("text"),
        ];
        let applied = cluster.try_kubectl(&words);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    };
    clinic.fault("second-owner", "sconce-digits", owner, |cluster| {
        drop(cluster.kubectl(&format!("delete {route}")))
    });
    // A root of somebody's that hands requests to nobody.
    let root = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "front", "namespace": WARD },
        "spec": { "hosts": ["front.example.com"], "gateways": ["mesh"], "http": [{ "delegate": { "name": "sconce-nothing", "namespace": WARD } }] },
    })
    .to_string();
    clinic.fault(
        "dangling-delegate",
        "front",
        |cluster| cluster.apply_text(&root),
        |cluster| {
            cluster.kubectl(&format!("delete virtualservice front -n {WARD}"));
        },
    );
    // From here on nobody puts anything right: the control plane may not.
    let role = format!("clusterrolebinding sconce-{SYSTEM}-publisher");
    let binding = bare(get(clinic.cluster, &role));
    let forbid = |cluster: &Cluster| drop(cluster.kubectl(&format!("delete {role}")));
    let allow = |cluster: &Cluster| cluster.apply_text(&binding.to_string());
    let service = format!("service digits -n {WARD}");
    let protocol = |cluster: &Cluster| {
        forbid(cluster);
        let patch = r#"[{"op":"replace","path":"/spec/ports/1/appProtocol","value":"http"}]"#;
        let words = ["patch", "service", "digits", "-n", WARD, "--type=json", "-p", patch];
        assert!(cluster.try_kubectl(&words).status.success());
    };
    clinic.fault("lane-altered", "Service ward/digits", protocol, |cluster| {
        cluster.kubectl(&format!("delete {service}"));
        allow(cluster);
    });
    let label = "sconce.dev/model.digits";
    let unlabel = |cluster: &Cluster| {
        forbid(cluster);
        cluster.kubectl(&format!("label pods -n {WARD} -l {label}=ready {label}-"));
    };
    clinic.fault("no-endpoints", "Service ward/digits", unlabel, |cluster| allow(cluster));
    let stale = |cluster: &Cluster| {
        forbid(cluster);
        let mut stale = bare(get(cluster, &route));
        stale["metadata"]["name"] = "sconce-gone".into();
        stale["metadata"]["labels"]["sconce.dev/model"] = "gone".into();
        stale["spec"]["hosts"] = json!(["gone"]);
        cluster.apply_text(&stale.to_string());
    };
    // The control plane takes it away as soon as it may.
    clinic.fault("stale-route", "sconce-gone", stale, |cluster| allow(cluster));
}

/// As Secrets and bundles hold text.
fn base64(cluster: &Cluster, text: &str) -> String {
    let literal = format!("--from-literal=text={text}");
    let words =
        ["create", "secret", "generic", "any", &literal, "--dry-run=client", "-o", "jsonpath={.data.text}"];
    String::from_utf8(cluster.try_kubectl(&words).stdout).expect("base64 is text")
}
