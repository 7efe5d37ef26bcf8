//! Pods in, pods out: reviewed files in `testdata/inject`, and what must hold for all of them.
//!
//! `UPDATE=1 cargo test -p sconce-istio` rewrites the files that are written.

mod istio;

use std::{collections::BTreeMap, fs, path::PathBuf};

use sconce_istio::{
    inject::{
        Asked, Injection, KEYS, Namespace, Outcome, Rejection, Request, Settings, container, inject, uninject,
    },
    names,
    selectors::Selectors,
};
use serde_json::{Value, json};

/// One file of `testdata/inject`.
struct Case {
    name: String,
    pod: Value,
    namespace: Namespace,
    settings: Settings,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/inject")
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| !path.to_string_lossy().ends_with(".out.yaml"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Case::read(name, &fs::read_to_string(&path).expect("text"))
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(cases.len() > 20, "the folder was read");
    cases
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

impl Case {
    fn read(name: String, text: &str) -> Self {
        let permits = BTreeMap::from([(names::NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]);
        let namespace = Namespace { name: "ml".into(), labels: permits, ..Namespace::default() };
        let mut case = Self { name, pod: Value::Null, namespace, settings: Settings::default() };
        for mut document in serde_saphyr::from_multiple::<Value>(text).expect(&case.name) {
            match document["kind"].as_str() {
                Some("Pod") => case.pod = document,
                Some("Namespace") => {
                    let metadata = &document["metadata"];
                    case.namespace = Namespace {
                        name: metadata["name"].as_str().expect("a name").into(),
                        labels: texts(&metadata["labels"]),
                        annotations: texts(&metadata["annotations"]),
                        ..Namespace::default()
                    };
                }
                Some("Service") => case.namespace.selectors = Selectors::of(&document),
                Some("Settings") => {
                    document.as_object_mut().expect("an object").remove("kind");
                    case.settings = serde_json::from_value(document).expect(&case.name);
                }
                other => panic!("{}: {other:?}", case.name),
            }
        }
        case
    }

    fn try_inject(&self, pod: &Value) -> Result<Outcome, Rejection> {
        let asked = Asked::ByLabels;
        inject(pod, &Request { namespace: &self.namespace, settings: &self.settings, asked })
    }

    fn inject(&self, pod: &Value) -> Injection {
        match self.try_inject(pod) {
            Ok(Outcome::Injected(injection)) => injection,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn is_injected(&self) -> bool {
        matches!(self.try_inject(&self.pod), Ok(Outcome::Injected(_)))
    }
}

fn injected() -> Vec<Case> {
    let cases: Vec<Case> = cases().into_iter().filter(Case::is_injected).collect();
    assert!(cases.len() > 10, "most are injected");
    cases
}

#[test]
fn pods_come_out_as_reviewed() {
    let update = std::env::var_os("UPDATE").is_some();
    for case in cases() {
        let outcome = match case.try_inject(&case.pod) {
            Ok(Outcome::Injected(injection)) => injection.pod,
            Ok(Outcome::Skipped(skip)) => json!({ "skipped": skip.to_string() }),
            Err(rejection) => json!({ "rejected": rejection.to_string() }),
        };
        let path = folder().join(format!("{}.out.yaml", case.name));
        if update {
            let text = serde_saphyr::to_string(&outcome).expect("YAML");
            fs::write(&path, text).expect("written");
        }
        let reviewed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let reviewed: Value = serde_saphyr::from_str(&reviewed).expect(&case.name);
        assert_eq!(outcome, reviewed, "{}: run with UPDATE=1 and review", case.name);
    }
}

#[test]
fn a_patch_says_the_same_as_the_pod() {
    for case in injected() {
        let Injection { pod, patch, .. } = case.inject(&case.pod);
        let mut patched = case.pod.clone();
        json_patch::patch(&mut patched, &patch).expect("it applies");
        assert_eq!(patched, pod, "{}", case.name);
    }
}

#[test]
fn a_second_run_changes_nothing() {
    for case in injected() {
        let once = case.inject(&case.pod).pod;
        let twice = case.inject(&once);
        assert_eq!(twice.pod.to_string(), once.to_string(), "{}", case.name);
        assert!(twice.patch.0.is_empty(), "{}: {}", case.name, twice.patch);
    }
}

#[test]
fn what_was_put_in_comes_out_and_the_rest_stays() {
    for case in injected() {
        let out = uninject(&case.inject(&case.pod).pod).expect("a pod");
        assert_eq!(out, case.pod, "{}", case.name);
    }
    for case in cases() {
        assert_eq!(uninject(&case.pod).expect("a pod"), case.pod, "{}", case.name);
    }
}

#[test]
fn a_model_that_asks_by_its_selector_is_named_and_refuses_no_pod() {
    let named = |name: &str| cases().into_iter().find(|case| case.name == name).expect("a file");
    let mut case = named("selected");
    let once = case.inject(&case.pod);
    assert_eq!(once.selected_by.as_deref(), Some("fraud"));
    // The label is what the Service of lanes finds the pod by, and on the second pass it asks.
    assert_eq!(once.pod["metadata"]["labels"][names::INJECT_LABEL], "true");
    let again = case.inject(&once.pod);
    assert_eq!(again.selected_by.as_deref(), Some("fraud"));
    assert!(again.patch.0.is_empty(), "{}", again.patch);
    // A pod that asks itself is its own, whatever selectors say.
    let mut own = case.pod.clone();
    own["metadata"]["labels"][names::INJECT_LABEL] = json!("true");
    assert_eq!(case.inject(&own).selected_by, None);
    // What would refuse a pod that asks keeps one that does not from having a sidecar, no more.
    for pod in [&case.pod, &once.pod] {
        let mut unfit = pod.clone();
        unfit["metadata"]["annotations"]["sconce.dev/cpu"] = json!("much");
        match case.try_inject(&unfit) {
            Ok(Outcome::Skipped(skip)) => assert!(
                skip.to_string()
                    .starts_with("the selector of the model fraud asks for it, but the pod's annotation"),
                "{skip}"
            ),
            other => panic!("{other:?}"),
        }
    }
    own["metadata"]["annotations"] = json!({ "sconce.dev/cpu": "much" });
    assert!(case.try_inject(&own).is_err(), "whoever asks is told");
    case.namespace.labels.clear();
    assert!(matches!(case.try_inject(&case.pod), Ok(Outcome::Skipped(_))), "the namespace must permit it");
}

#[test]
fn fields_that_nobody_here_knows_survive() {
    let unknown = json!({ "deep": [{ "is": "kept" }, 1.5, null, 18_446_744_073_709_551_615_u64] });
    let paths = ["", "/metadata", "/spec", "/spec/containers/0", "/spec/volumes/0", "/spec/initContainers/0"];
    for case in injected() {
        let mut pod = case.pod.clone();
        let there: Vec<&str> = paths.into_iter().filter(|path| pod.pointer(path).is_some()).collect();
        for path in &there {
            pod.pointer_mut(path).expect("there")["fromTheFuture"] = unknown.clone();
        }
        let count = |pod: &Value| pod.to_string().matches(&unknown.to_string()).count();
        let once = case.inject(&pod).pod;
        // A partial container's is in the annotation that keeps it, too.
        let quoted = unknown.to_string().replace('"', "\\\"");
        let kept = once["metadata"]["annotations"].to_string().matches(&quoted).count();
        assert_eq!(count(&once), there.len(), "{} (and {kept} kept)", case.name);
        assert_eq!(uninject(&once).expect("a pod"), pod, "{}", case.name);
    }
}

#[test]
fn new_settings_reach_a_pod_that_has_the_old_ones_and_the_users_own_stays() {
    for mut case in injected() {
        let before = case.inject(&case.pod).pod;
        case.settings.defaults.insert("image".into(), "registry.example.org/sconce-sidecar:next".into());
        case.settings.defaults.insert("cache-size".into(), "1Gi".into());
        case.settings.image_pull_secrets = vec!["another".into()];
        let after = case.inject(&before).pod;
        assert_eq!(after, case.inject(&case.pod).pod, "{}", case.name);
        let image = &container(&after).expect("the sidecar")["image"];
        let own = case.pod["metadata"]["annotations"].get("sconce.dev/image");
        assert_eq!(image, own.unwrap_or(&json!("registry.example.org/sconce-sidecar:next")), "{}", case.name);
    }
}

#[test]
fn what_another_webhook_dropped_is_put_back_and_nothing_else_is_touched() {
    for case in injected() {
        let once = case.inject(&case.pod).pod;
        for (list, dropped) in [
            ("initContainers", names::CONTAINER),
            ("containers", names::CONTAINER),
            ("volumes", "sconce-socket"),
            ("volumes", "sconce-identity"),
        ] {
            let mut less = once.clone();
            let Some(items) = less["spec"][list].as_array_mut() else { continue };
            items.retain(|item| item["name"] != dropped);
            if less == once {
                continue;
            }
            assert_eq!(sorted(&case.inject(&less).pod), sorted(&once), "{} without {dropped}", case.name);
        }
    }
}

/// Volumes come in the order in which they were added, which nobody minds.
fn sorted(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.sort_by_key(|volume| volume["name"].to_string());
    }
    // What was added is another list where something was there already.
    pod["metadata"]["annotations"][names::STATUS_ANNOTATION] = Value::Null;
    pod
}

#[test]
fn the_order_of_the_injectors_does_not_matter() {
    for mut case in injected().into_iter().filter(|case| case.pod["spec"]["hostNetwork"] != true) {
        if case.pod["metadata"]["annotations"].get("sidecar.istio.io/status").is_some() {
            continue;
        }
        case.namespace.labels.insert("istio-injection".into(), "enabled".into());
        for native in [true, false] {
            case.settings.native_proxy = Some(native);
            // As an API server runs them: each sees what the one before made of the pod.
            let first = istio::inject(&istio::defaulted(&case.inject(&case.pod).pod), native);
            let first = istio::defaulted(&first);
            let again = case.inject(&first);
            assert!(again.patch.0.is_empty(), "{}: the second pass only looks: {}", case.name, again.patch);
            let second = istio::defaulted(&case.inject(&istio::inject(&case.pod, native)).pod);
            assert_eq!(istio::comparable(&first), istio::comparable(&second), "{}", case.name);
            assert_one_sidecar(&first, &case.name);
            assert_one_sidecar(&second, &case.name);
        }
    }
}

#[test]
fn a_proxy_that_was_not_expected_is_noticed_on_the_second_pass() {
    for case in injected().into_iter().filter(|case| case.pod["spec"]["hostNetwork"] != true) {
        for native in [true, false] {
            let surprised = istio::inject(&case.inject(&case.pod).pod, native);
            let once = case.inject(&surprised).pod;
            assert_one_sidecar(&once, &case.name);
            let outbound = &once["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeOutboundPorts"];
            assert!(outbound.is_string(), "{}", case.name);
            let again = case.inject(&once);
            assert!(again.patch.0.is_empty(), "{}: {}", case.name, again.patch);
        }
    }
}

fn assert_one_sidecar(pod: &Value, name: &str) {
    let names = |list: &str| -> Vec<String> {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items.map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = [names("initContainers"), names("containers")];
    assert_eq!(all.iter().flatten().filter(|c| *c == names::CONTAINER).count(), 1, "{name}: {all:?}");
    let at = |wanted: &str| all[0].iter().position(|name| name == wanted);
    if let (Some(proxy), Some(ours)) = (at("istio-proxy"), at(names::CONTAINER)) {
        assert!(proxy < ours, "{name}: {all:?}");
    }
    let mut volumes = names("volumes");
    let count = volumes.len();
    volumes.sort();
    volumes.dedup();
    assert_eq!(volumes.len(), count, "{name}: a volume twice");
    for mount in all_mounts(pod) {
        assert!(volumes.contains(&mount), "{name}: {mount} is mounted and is no volume");
    }
}

fn all_mounts(pod: &Value) -> Vec<String> {
    let containers =
        ["initContainers", "containers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    let mounts = containers.flatten().filter_map(|container| container["volumeMounts"].as_array()).flatten();
    mounts.map(|mount| mount["name"].as_str().expect("a name").to_owned()).collect()
}

/// Pod Security Standards, `restricted`: every field that it asks of a container.
#[test]
fn the_sidecar_satisfies_pod_security_restricted() {
    for case in injected() {
        let pod = case.inject(&case.pod).pod;
        let sidecar = container(&pod).expect("the sidecar");
        let context = &sidecar["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{}", case.name);
        assert_eq!(context["runAsNonRoot"], true, "{}", case.name);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{}", case.name);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{}", case.name);
        assert_ne!(context["runAsUser"], 0, "{}", case.name);
        assert_eq!(context["readOnlyRootFilesystem"], true, "{}", case.name);
        assert!(context["privileged"] == false && context["capabilities"].get("add").is_none());
        assert!(
            sidecar["ports"].as_array().expect("ports").iter().all(|port| port.get("hostPort").is_none())
        );
        let kinds = [
            "configMap",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
            "csi",
        ];
        for volume in pod["spec"]["volumes"].as_array().expect("volumes") {
            assert!(kinds.iter().any(|kind| volume.get(*kind).is_some()), "{}: {volume}", case.name);
        }
    }
}

#[test]
fn a_pod_that_is_none_is_refused_without_a_panic() {
    let case = &cases()[0];
    for bad in [
        json!(null),
        json!("pod"),
        json!({ "spec": null }),
        json!({ "spec": { "containers": {} } }),
        json!({ "spec": { "containers": ["app"] } }),
        json!({ "spec": { "containers": [{ "name": "a", "volumeMounts": 1 }] } }),
        json!({ "spec": {}, "metadata": [] }),
        json!({ "spec": {}, "metadata": { "labels": { "a": 1 } } }),
        json!({ "spec": {}, "metadata": { "annotations": [] } }),
    ] {
        assert!(matches!(case.try_inject(&bad), Err(Rejection::Malformed(_))), "{bad}");
        assert!(uninject(&bad).is_err(), "{bad}");
    }
}

#[test]
fn every_option_is_documented() {
    let docs = folder().join("../../../docs/injection.md");
    let docs = fs::read_to_string(docs).expect("the page");
    let missing: Vec<&str> = KEYS
        .iter()
        .map(|key| key.name)
        .filter(|name| !docs.contains(&format!("`{}{name}`", names::ANNOTATION_PREFIX)))
        .collect();
    assert!(missing.is_empty(), "docs/injection.md does not have {missing:?}");
}
