//! What a real API server makes of publishing: objects, labels, conflicts, drift, withdrawal. The
//! control plane and its sidecars run beside the cluster, and stand for two pods in it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use sconce_cluster_tests::{
    Cluster, Scenario,
    beside::{Plane, Process, binary, models, said},
    eventually,
};
use serde_json::{Value, json};

const NAMESPACE: &str = "publishing";
const PODS: [&str; 2] = ["a", "b"];

/// The control plane's commands that this scenario needs.
trait Commands {
    fn push(&self, version: &str, more: &[&str]);
    fn split(&self, shares: &[&str]);
    /// Events of this type so far.
    fn events(&self, kind: &str) -> Vec<String>;
}

impl Commands for Plane {
    fn push(&self, version: &str, more: &[&str]) {
        let file = models().join(format!("v{version}/digits.pt"));
        let model = format!("{NAMESPACE}/digits");
        let file = file.to_str().expect("text");
        let own = ["push", file, "--model", &model, "--version", version];
        self.sconce(&[&own[..], more].concat());
    }

    fn split(&self, shares: &[&str]) {
        self.sconce(&[&["split", "publishing/digits"], shares].concat());
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let all = self.sconce(&["events", "-o", "json"]);
        let all = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|event| event["type"] == kind)
            .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// A namespace with two pods that only wait. It is emptied first: an earlier run may have failed.
fn prepare(cluster: &Cluster) {
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --ignore-not-found"));
    cluster.apply_text(
        &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }).to_string(),
    );
    for pod in PODS {
        let container = json!({
            "name": "app", "image": "localhost/tools:1", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", "sleep 3600"],
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": NAMESPACE },
            "spec": { "containers": [container], "terminationGracePeriodSeconds": 0 },
        });
        // The namespace's service account is made a moment after the namespace.
        eventually("the namespace takes pods", || cluster.try_apply(&pod.to_string()));
    }
}

fn get(cluster: &Cluster, what: &str) -> Option<Value> {
    let output = cluster.try_kubectl(&["get", "-n", NAMESPACE, what, "-o", "json"]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

const ROUTE: &str = "virtualservice/sconce-digits";

/// Weights by version, as the route has them.
fn weights(cluster: &Cluster) -> Vec<(String, u64)> {
    let route = get(cluster, ROUTE).unwrap_or_default();
    let weighted = route["spec"]["http"][2]["route"].as_array().cloned().unwrap_or_default();
    let one = |destination: &Value| {
        let header = destination["headers"]["request"]["set"]["x-sconce-route"].as_str()?;
        let version = header.split('@').next()?.rsplit('/').next()?.to_owned();
        Some((version, destination["weight"].as_u64()?))
    };
    weighted.iter().filter_map(one).collect()
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.kubectl(&format!("get pods -n {NAMESPACE} -l sconce.dev/model.digits=ready -o name"));
    pods.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
}

fn of(shares: &[(&str, u64)]) -> Vec<(String, u64)> {
    shares.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect()
}

#[test]
fn splits_reach_the_cluster_and_leave_nothing_behind() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("publishing");
    prepare(&cluster);
    let folder = tempfile::tempdir().expect("a folder");
    let plane = Plane::start(folder.path(), &[("SCONCE_PUBLISH", "istio")]);
    let sidecars = PODS.map(|pod| plane.sidecar(NAMESPACE, pod));

    // The first version: objects, then endpoints.
    plane.push("1", &["--activate"]);
    let began = Instant::now();
    eventually("both pods are endpoints", || endpoints(&cluster) == PODS);
    scenario.figure("seconds_to_endpoints", began.elapsed().as_secs_f64());
    assert_eq!(weights(&cluster), of(&[("1", 10_000)]));
    let service = get(&cluster, "service/digits").expect("the Service");
    assert_eq!(service["spec"]["ports"][0]["appProtocol"], "kubernetes.io/h2c");

    // A canary, its next step, an abort.
    plane.push("2", &["--wait=60"]);
    for (shares, weighted) in [
        (vec!["1=95", "2=5"], of(&[("1", 9_500), ("2", 500)])),
        (vec!["1=25", "2=75"], of(&[("2", 7_500), ("1", 2_500)])),
        (vec!["1=100"], of(&[("1", 10_000)])),
    ] {
        plane.split(&shares);
        let set = Instant::now();
        eventually(&format!("{shares:?} is published"), || weights(&cluster) == weighted);
        scenario.figure(&format!("seconds_to_{}", shares.join("_")), set.elapsed().as_secs_f64());
    }
    analyze(&cluster);
    drift(&cluster, &plane);
    scenario.figure("repairs_while_fought", second_controller(&cluster, &plane));
    dry_run(&cluster, &plane);

    // A restart takes nothing away, whoever has not reconnected yet; another form of the route
    // replaces the one before.
    let Plane { up, .. } = plane;
    sidecars.into_iter().for_each(Process::stop);
    up.stop();
    let plane = Plane::start(folder.path(), &[("SCONCE_PUBLISH", "gateway-api")]);
    let began = Instant::now();
    eventually("the VirtualService is gone", || get(&cluster, ROUTE).is_none());
    scenario.figure("seconds_to_other_form", began.elapsed().as_secs_f64());
    let route = get(&cluster, "httproute/sconce-digits").expect("the HTTPRoute");
    assert_eq!(route["spec"]["rules"][2]["backendRefs"][0]["weight"], 10_000);
    assert_eq!(endpoints(&cluster), PODS);
    // What the API server made of it is not taken for drift.
    cluster.kubectl(&format!("label -n {NAMESPACE} httproute/sconce-digits looked=twice"));
    cluster.kubectl(&format!("label -n {NAMESPACE} pod/a sconce.dev/model.gone=ready"));
    eventually("another pass was made", || {
        get(&cluster, "pod/a")
            .is_some_and(|pod| pod["metadata"]["labels"].get("sconce.dev/model.gone").is_none())
    });
    let repairs = plane.events("route.repaired").into_iter().filter(|told| told.contains("HTTPRoute"));
    assert_eq!(repairs.count(), 0);

    // Whoever leaves takes everything along.
    let Plane { up, .. } = plane;
    up.stop();
    let withdrawn = binary("sconce-control-plane")
        .arg("withdraw")
        .env("SCONCE_PUBLISH", "gateway-api")
        .env("SCONCE_DATA_DIR", folder.path())
        .output()
        .expect("it runs");
    assert!(withdrawn.status.success(), "{}", said(&withdrawn));
    assert_eq!(
        (get(&cluster, ROUTE), get(&cluster, "service/digits"), endpoints(&cluster).len()),
        (None, None, 0)
    );
    cluster.kubectl(&format!("delete namespace {NAMESPACE} --wait=false"));
}

/// Istio's own checks say nothing of ours, where there is an `istioctl`.
fn analyze(cluster: &Cluster) {
    let said = cluster.istioctl(&["analyze", "-n", NAMESPACE, "-o", "json"]);
    let ours = |message: &&Value| {
        let origin = message["origin"].as_str().unwrap_or_default();
        origin.contains("sconce-digits") || origin.contains("Service digits")
    };
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let about: Vec<&Value> = said.as_array().into_iter().flatten().filter(ours).collect();
    assert!(about.is_empty(), "{about:#?}");
}

/// Edits are put back, deletions too, and somebody else's Service is left alone.
fn drift(cluster: &Cluster, plane: &Plane) {
    let patch = r#"[{"op":"replace","path":"/spec/http/2/route/0/weight","value":1},{"op":"add","path":"/spec/gateways","value":["mesh","edge"]}]"#;
    let edit = ["patch", "-n", NAMESPACE, ROUTE, "--type=json", "-p", patch, "--field-manager=meddler"];
    assert!(cluster.try_kubectl(&edit).status.success());
    let route = || get(cluster, ROUTE).unwrap_or_default();
    eventually("the route is put back", || {
        weights(cluster) == of(&[("1", 10_000)]) && route()["spec"].get("gateways").is_none()
    });
    eventually("that is told", || plane.events("route.repaired").iter().any(|told| told.contains("meddler")));
    cluster.kubectl(&format!("delete -n {NAMESPACE} {ROUTE}"));
    eventually("the route is there again", || weights(cluster) == of(&[("1", 10_000)]));

    // Who takes the label takes the object.
    cluster.kubectl(&format!("label -n {NAMESPACE} service/digits app.kubernetes.io/managed-by-"));
    let conflict = "Service publishing/digits exists and is not managed by Sconce";
    eventually("the conflict is told", || {
        plane.events("route.conflict").iter().any(|told| told.contains(conflict))
    });
    let settled = plane.events("route.published").len();
    cluster.kubectl(&format!("label -n {NAMESPACE} service/digits app.kubernetes.io/managed-by=sconce"));
    eventually("it is published again", || plane.events("route.published").len() > settled);
}

/// Another controller wants the route otherwise, and never gives up: it is told, and answered ever
/// less often. How often it was while it tried.
fn second_controller(cluster: &Cluster, plane: &Plane) -> u64 {
    let ours = || weights(cluster) == of(&[("1", 10_000)]);
    let repairs = || plane.events("route.repaired").len();
    // One that declares it as well is not fought at all.
    let route = get(cluster, ROUTE).expect("the route");
    let mut spec = route["spec"].clone();
    spec["http"][2]["route"][0]["weight"] = json!(1);
    let theirs = json!({
        "apiVersion": route["apiVersion"], "kind": route["kind"],
        "metadata": { "name": "sconce-digits", "namespace": NAMESPACE }, "spec": spec,
    });
    let file = plane.folder.join("theirs.json");
    fs::write(&file, theirs.to_string()).expect("written");
    let file = file.to_str().expect("text");
    let manager = "--field-manager=other-controller";
    let apply = ["apply", "--server-side", "--force-conflicts", manager, "-f", file];
    let before = repairs();
    assert!(cluster.try_kubectl(&apply).status.success());
    let conflict = "is also applied by `other-controller`; let only one of the two manage it";
    eventually("the other controller is told of", || {
        plane.events("route.conflict").iter().any(|told| told.contains(conflict))
    });
    assert!(!ours() && repairs() == before);
    // Its deletion ends that; the next one edits whenever it sees what it does not want.
    cluster.kubectl(&format!("delete -n {NAMESPACE} {ROUTE}"));
    eventually("the route is there again", ours);
    let before = repairs();
    let patch = r#"[{"op":"replace","path":"/spec/http/2/route/0/weight","value":1}]"#;
    let edit = ["patch", "-n", NAMESPACE, ROUTE, "--type=json", "-p", patch, "--field-manager=meddler"];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        if ours() {
            assert!(cluster.try_kubectl(&edit).status.success());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let fought = repairs() - before;
    // After 1, 2, 4 and 8 seconds; an equal would have been put back a hundred times.
    assert!(fought <= 5, "{fought} repairs in 12 s");
    eventually("that it goes on is told", || {
        plane.events("route.conflict").iter().any(|told| told.contains("was changed by meddler again after"))
    });
    eventually("whoever persists longer wins", ours);
    u64::try_from(fought).unwrap_or_default()
}

/// What `sconce render` prints is taken by the API server as it is.
fn dry_run(cluster: &Cluster, plane: &Plane) {
    let policies = "authorization-policy,peer-authentication,telemetry,destination-rule";
    for form in ["virtual-service", "http-route"] {
        let yaml = plane.sconce(&["render", "publishing/digits", "--as", form, "--with", policies]);
        let file = plane.folder.join(format!("{form}.yaml"));
        fs::write(&file, yaml).expect("written");
        let file = file.to_str().expect("text");
        let tried = cluster.try_kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "-f",
            file,
        ]);
        assert!(tried.status.success(), "{form}: {}", said(&tried));
    }
}
