//! Pods inside other objects: every kind, and the same pods as from the webhook.

use sconce_istio::{
    inject::{Asked, Namespace, Outcome, Request, Settings, container, inject},
    names,
    workload::{Done, Walk, documents},
};
use serde_json::{Value, json};

const TEMPLATE: &str = r#"
metadata: { labels: { app: fraud } }
spec:
  containers: [{ name: app, image: "registry.example.org/fraud:3" }]
"#;

fn template() -> Value {
    serde_saphyr::from_str(TEMPLATE).expect("YAML")
}

fn walk(settings: &Settings) -> Walk<'_> {
    Walk { settings, namespace: "ml".into(), mesh: true }
}

/// An object of this kind with the template, and where it is in it.
fn kinds() -> Vec<(Value, &'static str)> {
    let object = |version: &str, kind: &str, spec: Value| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "fraud" }, "spec": spec });
    let plain = || json!({ "template": template(), "replicas": 2 });
    let mut pod = template();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    vec![
        (pod, ""),
        (object("apps/v1", "Deployment", plain()), "/spec/template"),
        (object("apps/v1", "StatefulSet", plain()), "/spec/template"),
        (object("apps/v1", "DaemonSet", plain()), "/spec/template"),
        (object("apps/v1", "ReplicaSet", plain()), "/spec/template"),
        (object("v1", "ReplicationController", plain()), "/spec/template"),
        (object("batch/v1", "Job", plain()), "/spec/template"),
        (
            object("batch/v1", "CronJob", json!({ "jobTemplate": { "spec": plain() } })),
            "/spec/jobTemplate/spec/template",
        ),
    ]
}

#[test]
fn every_kind_of_workload_is_injected_and_comes_back_as_it_was() {
    let settings = Settings::default();
    for (object, path) in kinds() {
        let mut changed = object.clone();
        let reports = walk(&settings).inject(&mut changed).expect("injected");
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].done, Done::Changed, "{}", object["kind"]);
        let template = changed.pointer(path).expect("still there");
        assert!(container(template).is_some(), "{}", object["kind"]);
        assert_eq!(template["metadata"]["labels"][names::INJECT_LABEL], "true");
        let mut again = changed.clone();
        assert_eq!(walk(&settings).inject(&mut again).expect("a workload")[0].done, Done::AsItWas);
        assert_eq!(again, changed);

        assert_eq!(walk(&settings).uninject(&mut changed).expect("a workload")[0].done, Done::Changed);
        assert_eq!(changed, object, "{}", object["kind"]);
        assert_eq!(walk(&settings).uninject(&mut changed).expect("a workload")[0].done, Done::AsItWas);
    }
}

#[test]
fn a_list_is_walked_and_kinds_without_pods_are_left_alone() {
    let settings = Settings::default();
    let others = [
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s", "namespace": "shop" } }),
        json!({ "apiVersion": "serving.example.org/v1", "kind": "Deployment", "spec": { "template": template() } }),
        json!({ "kind": "Deployment", "spec": { "template": template() } }),
    ];
    let items: Vec<Value> = kinds().into_iter().map(|(object, _)| object).chain(others.clone()).collect();
    let mut list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let reports = walk(&settings).inject(&mut list).expect("injected");
    let changed = reports.iter().filter(|report| report.done == Done::Changed).count();
    assert_eq!((changed, reports.len()), (kinds().len(), kinds().len() + others.len()));
    assert_eq!(list["items"].as_array().expect("items")[kinds().len()..], others);
    assert!(reports.iter().any(|report| report.object == "Service shop/s" && report.done == Done::NoPods));
    assert!(reports.iter().any(|report| report.object == "Deployment ml/fraud"));
}

#[test]
fn a_refusal_names_the_object() {
    let mut object = kinds().remove(1).0;
    object["spec"]["template"]["metadata"]["annotations"] = json!({ "sconce.dev/cpu": "much" });
    let error = walk(&Settings::default()).inject(&mut object).expect_err("refused").to_string();
    assert!(error.starts_with("Deployment ml/fraud: ") && error.contains("sconce.dev/cpu"), "{error}");
}

#[test]
fn command_and_webhook_give_the_same_pod_specs() {
    let labels = [(names::NAMESPACE_LABEL, "enabled"), ("istio-injection", "enabled")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let namespace = Namespace { name: "ml".into(), labels: labels.into(), ..Namespace::default() };
    let settings = Settings::default();
    for (object, path) in kinds() {
        let mut by_command = object.clone();
        walk(&settings).inject(&mut by_command).expect("injected");
        let by_command = by_command.pointer(path).expect("the template");

        // What a controller makes of the template, with the label that asks, reaches the webhook.
        let mut pod = object.pointer(path).expect("the template").clone();
        pod["metadata"]["labels"][names::INJECT_LABEL] = json!("true");
        let generated = ["pod-template-hash", "controller-revision-hash", "batch.kubernetes.io/job-name"];
        for label in generated {
            pod["metadata"]["labels"][label] = json!("5d9f8");
        }
        let request = Request { namespace: &namespace, settings: &settings, asked: Asked::ByLabels };
        let Ok(Outcome::Injected(by_webhook)) = inject(&pod, &request) else { panic!("{path}") };
        assert_eq!(by_webhook.pod["spec"], by_command["spec"], "{}", object["kind"]);

        // And a pod from a template that the command has injected is not touched again.
        let mut twice = by_command.clone();
        for label in generated {
            twice["metadata"]["labels"][label] = json!("5d9f8");
        }
        let Ok(Outcome::Injected(again)) = inject(&twice, &request) else { panic!("{path}") };
        assert!(again.patch.0.is_empty(), "{}: {}", object["kind"], again.patch);
    }
}

#[test]
fn a_document_that_changes_is_written_so_that_it_reads_the_same() {
    let settings = Settings::default();
    let text = format!("# ours\n---\n{}", serde_saphyr::to_string(&kinds()[1].0).expect("YAML"));
    let documents_ = documents(&text).expect("YAML");
    let mut value = documents_[1].value.clone().expect("a value");
    walk(&settings).inject(&mut value).expect("injected");
    let written = documents_[1].with(&value).expect("YAML");
    assert!(written.starts_with("---\n"));
    assert_eq!(documents(&written).expect("YAML")[0].value, Some(value));
}
