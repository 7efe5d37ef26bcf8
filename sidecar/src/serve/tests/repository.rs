//! The model repository extension, in both protocols and both dialects of one of them.

use sconce_proto::inference::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use serde_json::{Value, json};
use tonic::Code;

use super::*;

async fn post(path: &str, body: &str) -> Reply {
    ask(Request::post(path), body.to_owned()).await
}

#[tokio::test]
async fn the_index_has_every_version_with_its_state_or_those_that_are_ready() {
    let all = post("/v2/repository/index", "").await.json();
    let of = |name: &str, version: &str| {
        let mut all = all.as_array().expect("a list").iter();
        all.find(|one| one["name"] == name && one["version"] == version).cloned().unwrap_or(Value::Null)
    };
    assert_eq!(of("echo", "7"), json!({ "name": "echo", "version": "7", "state": "READY", "reason": "" }));
    assert_eq!(of("other/echo", "8")["state"], "READY");
    assert_eq!(of("loading", "2")["state"], "LOADING");
    let absent = of("absent", "1");
    assert_eq!((&absent["state"], &absent["reason"]), (&json!("UNAVAILABLE"), &json!("its digest is wrong")));

    let ready = post("/v2/repository/index", r#"{"ready":true}"#).await.json();
    assert!(ready.as_array().expect("a list").iter().all(|one| one["state"] == "READY"));
    let unready = all.as_array().map_or(0, Vec::len) - ready.as_array().map_or(0, Vec::len);
    assert_eq!(unready, 2);

    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let asked = RepositoryIndexRequest { ready: true, ..Default::default() };
    let same = client.repository_index(asked).await.unwrap().into_inner().models;
    let pairs = |name: String, version: String| (name, version);
    let theirs: Vec<_> = same.into_iter().map(|one| pairs(one.name, one.version)).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours =
        ready.as_array().expect("a list").iter().map(|one| pairs(text(&one["name"]), text(&one["version"])));
    assert_eq!(theirs, ours.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_load_of_what_is_served_is_done_and_any_other_says_how_models_get_here() {
    for body in ["", "{}", r#"{"parameters":{}}"#] {
        let loaded = post("/v2/repository/models/echo/load", body).await;
        assert_eq!((loaded.status.as_u16(), loaded.json()), (200, json!({ "name": "echo", "load": true })));
    }
    for (path, body, status, says) in [
        ("/v2/repository/models/none/load", "", 404, "sconce push"),
        ("/v2/repository/models/absent/load", "", 503, "its digest is wrong"),
        ("/v2/repository/models/echo/load", r#"{"parameters":{"config":"{}"}}"#, 501, "`config`"),
        ("/v2/repository/models/echo/load", "{", 400, "JSON"),
        ("/v2/repository/models/echo/unload", "", 501, "sconce delete echo:VERSION"),
        ("/v2/repository/models/none/unload", "", 404, "`none`"),
        ("/v2/repository/elsewhere/index", "", 501, "`elsewhere`"),
    ] {
        let refused = post(path, body).await;
        assert!(refused.status == status && refused.error().contains(says), "{path}: {}", refused.error());
    }
    let unknown = post("/v2/repository/models/none/load", "").await.error();
    assert!(unknown.starts_with("failed to load"), "what clients look for: {unknown}");
    assert_eq!(get("/v2/models/echo/ready").await.status, 200, "who asked for an unload changed nothing");
}

#[tokio::test]
async fn grpc_takes_the_model_from_the_field_where_either_dialect_has_it() {
    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let load = |first: &str, second: &str| RepositoryModelLoadRequest {
        repository_name: first.to_owned(),
        model_name: second.to_owned(),
        ..Default::default()
    };
    for asked in [load("", "echo"), load("echo", "")] {
        let loaded = client.repository_model_load(asked).await.unwrap().into_inner();
        assert_eq!((loaded.model_name.as_str(), loaded.is_loaded), ("echo", true));
    }
    let with = RepositoryModelLoadRequest {
        parameters: [("file:1/model.pt".to_owned(), ModelRepositoryParameter::default())].into(),
        ..load("", "echo")
    };
    for (asked, code) in [
        (load("", "none"), Code::NotFound),
        (load("none", ""), Code::NotFound),
        (load("", "absent"), Code::Unavailable),
        (with, Code::Unimplemented),
    ] {
        assert_eq!(client.repository_model_load(asked).await.unwrap_err().code(), code);
    }
    for (first, second) in [("", "echo"), ("echo", "")] {
        let asked = RepositoryModelUnloadRequest {
            repository_name: first.to_owned(),
            model_name: second.to_owned(),
            ..Default::default()
        };
        let refused = client.repository_model_unload(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("sconce delete echo"), "{}", refused.message());
    }
}
