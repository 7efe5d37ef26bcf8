//! The protocol before this one: what has no datatypes and no shapes is read by the signature.

use serde_json::{Value, json};

use super::*;

async fn predict(model: &str, body: Value) -> Reply {
    ask(Request::post(format!("/v1/models/{model}:predict")), body.to_string()).await
}

async fn predictions(model: &str, body: Value) -> Value {
    let reply = predict(model, body).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert!(reply.headers.contains_key("x-sconce-version"));
    reply.json()["predictions"].clone()
}

#[tokio::test]
async fn rows_by_name_come_back_as_rows_by_name() {
    let body = json!({ "instances": [{ "a": [1, 2], "b": [10, 20] }, { "a": [3, 4], "b": [30, 40.5] }] });
    let expected = json!([
        { "sum": [11.0, 22.0], "difference": [-9.0, -18.0] },
        { "sum": [33.0, 44.5], "difference": [-27.0, -36.5] },
    ]);
    assert_eq!(predictions("add", body).await, expected);
    // Whole tensors by name are the same request.
    let body = json!({ "signature_name": "serving_default",
        "inputs": { "a": [[1, 2], [3, 4]], "b": [[10, 20], [30, 40.5]] } });
    assert_eq!(predictions("add", body).await, expected);
}

#[tokio::test]
async fn rows_without_a_name_are_of_the_only_input_that_is_needed() {
    let body = json!({ "instances": [[1, 2], [3, 4]] });
    assert_eq!(predictions("add", body).await[1]["sum"], json!([3.0, 4.0]));
    // Of an input without a datatype, the elements say.
    for (rows, back) in [
        (json!([[1, 2], [3, 4]]), json!([[1, 2], [3, 4]])),
        (json!([[[1.5]], [[2]]]), json!([[[1.5]], [[2.0]]])),
        (json!([true, false]), json!([true, false])),
        (json!(["a", "é"]), json!(["a", "é"])),
    ] {
        assert_eq!(predictions("echo", json!({ "instances": rows })).await, back);
    }
    let nan = ask(Request::post("/v1/models/echo:predict"), r#"{"instances":[[NaN,1.5]]}"#).await;
    assert_eq!(&nan.body[..], br#"{"predictions":[[NaN,1.5]]}"#);
    assert_eq!(predictions("echo", json!({ "inputs": 7 })).await, json!([7]));
}

#[tokio::test]
async fn what_cannot_be_read_so_is_refused_with_the_reason() {
    for (model, body, status, says) in [
        ("add", json!({}), 400, "neither `instances`"),
        ("add", json!({ "instances": [[1, 2]], "inputs": [[1, 2]] }), 400, "both `instances`"),
        ("add", json!({ "instances": 7 }), 400, "no list of rows"),
        ("add", json!({ "instances": [] }), 400, "nothing to predict"),
        (
            "add",
            json!({ "instances": [{ "a": [1, 2] }, { "a": [1, 2], "b": [1, 2] }] }),
            400,
            "`b` is in 1 of 2",
        ),
        ("add", json!({ "instances": [{ "a": [1, 2] }, [1, 2]] }), 400, "row 1"),
        ("add", json!({ "instances": [{ "c": [1, 2] }] }), 400, "no input `c`"),
        ("add", json!({ "instances": [[1, 2], [3]] }), 400, "does not fit shape"),
        ("add", json!({ "instances": [[1, 2, 3]] }), 400, "must have shape"),
        ("echo", json!({ "instances": [[]] }), 400, "of no datatype"),
        ("none", json!({ "instances": [[1, 2]] }), 404, "`none`"),
        ("absent", json!({ "instances": [[1, 2]] }), 503, "its digest is wrong"),
    ] {
        let reply = predict(model, body.clone()).await;
        assert!(reply.status == status && reply.error().contains(says), "{body}: {}", reply.error());
    }
    let body = r#"{"instances":[[1,2]]}"#;
    for (path, status) in
        [("/v1/models/add:explain", 501), ("/v1/models/add:other", 404), ("/v1/models/add", 405)]
    {
        assert_eq!(ask(Request::post(path), body).await.status, status, "{path}");
    }
    let deep = format!(r#"{{"instances":{}}}"#, "[".repeat(100_000));
    assert_eq!(ask(Request::post("/v1/models/echo:predict"), deep).await.status, 400);
}

#[tokio::test]
async fn models_are_listed_and_a_version_can_be_pinned() {
    let listed = get("/v1/models").await.json()["models"].as_array().expect("a list").clone();
    assert!(listed.contains(&json!("add")) && listed.contains(&json!("other/echo")));
    assert_eq!(get("/v1/models/add").await.json(), json!({ "name": "add", "ready": true }));
    assert_eq!(get("/v1/models/absent").await.status, 503);
    let request = Request::post("/v1/models/halves:predict").header("x-sconce-pin", "v10");
    let reply = ask(request, r#"{"instances":[[1,2]]}"#).await;
    assert_eq!(reply.headers["x-sconce-version"], "v10");
    assert_eq!(predictions("other%2Fecho", json!({ "instances": [1] })).await, json!([1]));
}
