//! Questions in, answers out, as they are on the wire.

use std::collections::BTreeMap;

use sconce_istio::selectors::Selectors;

use super::*;

fn review(pod: &Value, more: &Value) -> Vec<u8> {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "ml",
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        review["request"][key] = value.clone();
    }
    serde_json::to_vec(&review).expect("JSON")
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "fraud-5d9f8-",
            "creationTimestamp": null,
            "labels": { "app": "fraud", "sconce.dev/inject": "true" },
            "fromTheFuture": { "kept": true },
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "fraud-5d9f8", "uid": "7a", "controller": true },
            ],
        },
        "spec": { "containers": [{ "name": "app", "image": "registry.example.org/fraud:3" }] },
    })
}

fn namespace() -> Namespace {
    let labels = BTreeMap::from([(names::NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]);
    Namespace { name: "ml".into(), labels, ..Namespace::default() }
}

fn ask(pod: &Value, more: &Value, limits: &[Value]) -> Answer {
    ask_in(&namespace(), pod, more, limits)
}

fn ask_in(namespace: &Namespace, pod: &Value, more: &Value, limits: &[Value]) -> Answer {
    let question = Question::read(&review(pod, more)).expect("a review");
    let settings = Settings::default();
    question.answer(&Surroundings { namespace, settings: &settings, limits })
}

/// The pod after the answer, as an API server would have it.
fn after(pod: &Value, answer: &Answer) -> Value {
    let patch = answer.response.patch.as_ref().expect("a patch");
    let patch: json_patch::Patch = serde_json::from_slice(patch).expect("a JSON patch");
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("it applies");
    pod
}

#[test]
fn a_pod_that_asks_is_allowed_with_a_patch_and_keeps_what_nobody_knows() {
    let answer = ask(&pod(), &json!({}), &[]);
    let injected = after(&pod(), &answer);
    assert!(inject::container(&injected).is_some());
    assert_eq!(injected["metadata"]["fromTheFuture"], json!({ "kept": true }));
    let wire = serde_json::to_value(answer.response.into_review()).expect("JSON");
    assert_eq!(wire["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(wire["response"]["uid"], "0c9a8d74");
    assert_eq!(wire["response"]["allowed"], true);
    assert_eq!(wire["response"]["patchType"], "JSONPatch");
    assert!(answer.note.is_none());

    let again = ask(&injected, &json!({}), &[]);
    assert_eq!((again.outcome, again.response.patch.is_none()), ("unchanged", true));
}

#[test]
fn a_rejection_reaches_whoever_creates_the_pod_and_those_who_look_at_its_owner() {
    let mut bad = pod();
    bad["metadata"]["annotations"] = json!({ "sconce.dev/cpu": "much" });
    let answer = ask(&bad, &json!({}), &[]);
    assert!(!answer.response.allowed);
    let said = &answer.response.result.message;
    assert!(said.contains("sconce.dev/cpu is \"much\"; expected a quantity"), "{said}");
    let note = answer.note.expect("an event");
    assert_eq!(
        (note.about.kind.as_deref(), note.about.name.as_deref()),
        (Some("ReplicaSet"), Some("fraud-5d9f8"))
    );
    assert!(note.warning && note.text.contains("pod fraud-5d9f8-: the pod's annotation"), "{}", note.text);

    let dry = ask(&bad, &json!({ "dryRun": true }), &[]);
    assert!(!dry.response.allowed && dry.note.is_none(), "a dry run has no side effects");
    bad["metadata"].as_object_mut().expect("an object").remove("ownerReferences");
    let orphan = ask(&bad, &json!({}), &[]).note.expect("an event");
    assert_eq!((orphan.about.kind.as_deref(), orphan.about.name.as_deref()), (Some("Namespace"), Some("ml")));
}

#[test]
fn a_limit_range_that_would_refuse_the_pod_is_named_first() {
    let limit = json!({ "type": "Container", "max": { "memory": "1Gi" } });
    let range = json!({ "metadata": { "name": "small" }, "spec": { "limits": [limit] } });
    let answer = ask(&pod(), &json!({}), std::slice::from_ref(&range));
    let said = &answer.response.result.message;
    assert!(!answer.response.allowed && said.contains("LimitRange small"), "{said}");
    let mut smaller = pod();
    smaller["metadata"]["annotations"] = json!({ "sconce.dev/memory-limit": "1Gi" });
    assert!(ask(&smaller, &json!({}), &[range]).response.allowed);
}

#[test]
fn a_skip_is_written_onto_the_pod_and_onto_its_owner_where_it_cannot_be() {
    let mut windows = pod();
    windows["spec"]["os"] = json!({ "name": "windows" });
    let answer = ask(&windows, &json!({}), &[]);
    assert!(answer.response.allowed && answer.note.is_none());
    let skipped = after(&windows, &answer);
    let status = skipped["metadata"]["annotations"][names::STATUS_ANNOTATION].as_str().expect("a status");
    assert!(status.starts_with("skipped: it runs on Windows"), "{status}");
    assert_eq!(skipped["spec"], windows["spec"]);
    let again = ask(&skipped, &json!({}), &[]);
    assert_eq!(again.response.patch.as_deref(), Some(b"[]".as_slice()), "the second pass adds nothing");

    let mut mirror = pod();
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "5f" });
    mirror["metadata"]["ownerReferences"][0] =
        json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "1", "controller": true });
    let answer = ask(&mirror, &json!({}), &[]);
    assert!(answer.response.allowed && answer.response.patch.is_none());
    let note = answer.note.expect("an event");
    assert_eq!((note.about.name.as_deref(), note.about.namespace, note.warning), (Some("n1"), None, false));
}

fn unlabelled() -> Value {
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({ "app": "fraud", "team": "pay" });
    pod
}

fn with_models(text: &str) -> Namespace {
    Namespace { selectors: Selectors::read(Some(text)), ..namespace() }
}

#[test]
fn a_pod_that_a_model_asks_for_gets_the_sidecar_and_its_owner_is_told_why() {
    let namespace = with_models(r#"{"fraud":{"team":"pay"}}"#);
    let answer = ask_in(&namespace, &unlabelled(), &json!({}), &[]);
    let injected = after(&unlabelled(), &answer);
    assert!(inject::container(&injected).is_some());
    assert_eq!(injected["metadata"]["labels"][names::INJECT_LABEL], "true");
    let status = injected["metadata"]["annotations"][names::STATUS_ANNOTATION].as_str().expect("a status");
    assert!(status.contains(r#""selectedBy":"fraud""#), "{status}");
    let note = answer.note.expect("an event");
    assert!(!note.warning && note.text.ends_with("the selector of the model fraud asks for a sidecar"));
    // The second pass comes by the label, and has nothing to say.
    let again = ask_in(&namespace, &injected, &json!({}), &[]);
    assert_eq!((again.outcome, again.note), ("unchanged", None));
    assert!(ask_in(&namespace, &unlabelled(), &json!({ "dryRun": true }), &[]).note.is_none());
}

#[test]
fn a_pod_that_nobody_asks_for_is_left_without_a_word() {
    for models in ["{}", r#"{"everywhere":{}}"#, r#"{"churn":{"team":"ads"}}"#] {
        let mut pod = unlabelled();
        for annotations in [json!({}), json!({ "kubernetes.io/config.mirror": "5f" })] {
            pod["metadata"]["annotations"] = annotations;
            let answer = ask_in(&with_models(models), &pod, &json!({}), &[]);
            assert!(answer.response.allowed && answer.response.patch.is_none(), "{models}");
            assert_eq!((answer.outcome, answer.note), ("unasked", None), "{models}");
        }
    }
    let mut out = unlabelled();
    out["metadata"]["labels"][names::INJECT_LABEL] = json!("false");
    let answer = ask_in(&with_models(r#"{"fraud":{"team":"pay"}}"#), &out, &json!({}), &[]);
    assert_eq!(answer.outcome, "skipped", "its own label wins");
}

#[test]
fn a_pod_that_only_a_model_asks_for_is_never_refused() {
    let namespace = with_models(r#"{"fraud":{"team":"pay"}}"#);
    let limit = json!({ "type": "Container", "max": { "memory": "1Gi" } });
    let range = json!({ "metadata": { "name": "small" }, "spec": { "limits": [limit] } });
    let mut port = unlabelled();
    port["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8443 }]);
    let first = after(&unlabelled(), &ask_in(&namespace, &unlabelled(), &json!({}), &[]));
    for (pod, limits, why) in [
        (&port, &[][..], "uses port 8443"),
        (&unlabelled(), std::slice::from_ref(&range), "LimitRange small"),
        // Also where only the second pass finds out.
        (&first, std::slice::from_ref(&range), "LimitRange small"),
    ] {
        let answer = ask_in(&namespace, pod, &json!({}), limits);
        assert!(answer.response.allowed, "{why}");
        let skipped = after(pod, &answer);
        assert!(inject::container(&skipped).is_none());
        let said = skipped["metadata"]["annotations"][names::STATUS_ANNOTATION].as_str().expect("a status");
        assert!(
            said.contains("the selector of the model fraud asks for it, but") && said.contains(why),
            "{said}"
        );
        assert_eq!(skipped["metadata"]["labels"], unlabelled()["metadata"]["labels"]);
        let note = answer.note.expect("an event");
        assert!(note.warning && note.reason == "SidecarSkipped" && note.text.contains(why), "{}", note.text);
    }
}

#[test]
fn what_is_no_new_pod_is_let_through_as_it_is() {
    for more in [
        json!({ "operation": "UPDATE" }),
        json!({ "kind": { "group": "apps", "version": "v1", "kind": "Deployment" } }),
    ] {
        let answer = ask(&pod(), &more, &[]);
        assert!(answer.response.allowed && answer.response.patch.is_none(), "{more}");
    }
}

#[test]
fn what_is_no_review_is_refused() {
    for body in ["", "{}", "[]", r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#] {
        assert!(Question::read(body.as_bytes()).is_err(), "{body:?}");
    }
    let answer = ask(&json!({ "spec": 1 }), &json!({}), &[]);
    assert!(!answer.response.allowed, "a pod that is none is refused, not a panic");
}
