//! The document that the control plane serves of its own REST API is true.

use std::collections::BTreeSet;

use http::Request;
use sconce_tests::{Plane, digits};
use serde_json::{Value, json};

/// What stands for a path's parameter; of the right form, and there where it can be.
fn filled(path: &str) -> String {
    let digest = format!("blake3:{}", "0".repeat(64));
    let known = [
        ("{namespace}", "default"),
        ("{model}", "digits"),
        ("{version}", "1"),
        ("{push}", "none"),
        ("{name}", "none"),
        ("{digest}", &digest),
    ];
    let path = known.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path}: a parameter that this test does not know");
    path
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let operations = item.as_object().expect("operations").clone().into_iter();
        operations.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

/// Names that an object of this schema must have, and those that it may.
fn named<'a>(document: &'a Value, schema: &'a Value) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut required, mut known) = (BTreeSet::new(), BTreeSet::new());
    let mut parts = vec![schema];
    while let Some(part) = parts.pop() {
        if let Some(name) = part["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/schemas/"))
        {
            parts.push(&document["components"]["schemas"][name]);
        }
        parts.extend(part["allOf"].as_array().into_iter().flatten());
        required.extend(part["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
        known.extend(part["properties"].as_object().into_iter().flat_map(|of| of.keys().map(String::as_str)));
    }
    (required, known)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_document_answers_as_it_says() {
    let mut plane = Plane::start().await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    let operator = plane.caller("/sconce/operator");
    let document = operator.send("GET", &format!("{}/api/v1/openapi.json", plane.address()), None).await;
    let document = document.expect("served").json;
    assert!(document["openapi"].as_str().expect("a version").starts_with("3.1"), "{document}");

    let operations = operations(&document);
    assert!(operations.len() >= 15, "{}", operations.len());
    let ids: BTreeSet<_> =
        operations.iter().map(|(.., operation)| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len(), "ids are unique");
    for (method, path, operation) in &operations {
        // Its answer never ends, and has a test of its own.
        if path.ends_with("/watch") {
            continue;
        }
        let uri = format!("{}{}", plane.address(), filled(path));
        let request =
            Request::builder().method(&**method).uri(uri).header("content-type", "application/json");
        let reply = operator.raw(request.body("{}".into()).expect("a request")).await.expect("answered");
        let (status, responses) = (reply.status().as_u16().to_string(), &operation["responses"]);
        let body: Value = serde_json::from_slice(reply.body()).unwrap_or_default();
        assert!(status != "405" && body["error"] != "Not Found", "{method} {path}: {status} {body}");
        let said = responses.get(&status).unwrap_or(&responses["default"]);
        assert!(status.starts_with('4') || said != &responses["default"], "{method} {path}: {status} {body}");
        let schema = &said["content"]["application/json"]["schema"];
        let (schema, value) = match body.as_array() {
            Some(list) => (&schema["items"], list.first()),
            None => (schema, Some(&body)),
        };
        let Some(value) = value.and_then(Value::as_object) else { continue };
        let (required, known) = named(&document, schema);
        let given: BTreeSet<&str> = value.keys().map(String::as_str).collect();
        assert!(
            required.is_subset(&given) && given.is_subset(&known),
            "{method} {path}: {given:?}, not {known:?}"
        );
    }
    let stranger = plane.caller("/ns/default/sa/nobody");
    for (method, path, _) in &operations {
        let uri = format!("{}{}", plane.address(), filled(path));
        let body = (method == "POST" || method == "PUT").then(|| json!({}));
        let refused = stranger.send(method, &uri, body.as_ref()).await.expect("answered");
        assert!(matches!(refused.status, 400 | 403), "{method} {path} lets anybody in: {refused:?}");
    }
    plane.stop().await;
}
