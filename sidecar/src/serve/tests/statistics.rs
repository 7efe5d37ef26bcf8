//! The statistics extension, in both protocols, of a real queue.

use std::path::Path;

use sconce_proto::inference::{
    ModelStatisticsRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::engine::{Engine, Limits, Pool};

struct NoEngine;

impl Engine for NoEngine {
    fn platform(&self) -> &'static str {
        "none"
    }
    fn prepare_thread(&self) {}
    fn load(&self, _: &Path, _: &Signature) -> Result<Arc<dyn Module>, EngineError> {
        Err(EngineError::Load("nothing is loaded here".into()))
    }
    fn release_memory(&self) {}
}

/// A server with inference threads.
fn threaded() -> (Router, Pool) {
    let engine: Arc<dyn Engine> = Arc::new(NoEngine);
    let pool = Pool::start(&engine, Limits { runs: 1, queue: 8, batch_rows: 8, batch_target: None });
    let pool = pool.expect("threads start");
    (server(Config::default(), pool.clone()), pool)
}

async fn call(server: &Router, model: &str) -> StatusCode {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    let request = Request::post(format!("/v2/models/{model}/infer"));
    send(server.clone(), request.body(body.into()).unwrap()).await.status
}

async fn statistics(server: &Router, path: &str) -> Vec<Value> {
    let reply = send(server.clone(), Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    reply.json()["model_stats"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn answers_and_failures_are_counted_by_version_and_time_is_by_phase() {
    let (server, pool) = threaded();
    for _ in 0..3 {
        assert_eq!(call(&server, "echo").await, 200);
    }
    assert_eq!(call(&server, "failing").await, 500);
    // What never got as far as the version's queue says nothing of the version.
    assert_eq!(call(&server, "add").await, 400);

    let [echo] = &statistics(&server, "/v2/models/echo/stats").await[..] else { panic!("one version") };
    assert_eq!((&echo["name"], &echo["version"]), (&json!("echo"), &json!("7")));
    assert_eq!((&echo["inference_count"], &echo["execution_count"]), (&json!(3), &json!(3)));
    let stats = &echo["inference_stats"];
    for part in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
        assert_eq!(stats[part]["count"], 3, "{part}");
    }
    for part in ["fail", "cache_hit", "cache_miss"] {
        assert_eq!(stats[part], json!({ "count": 0, "ns": 0 }), "{part}");
    }
    assert!(stats["success"]["ns"].as_u64() > stats["compute_infer"]["ns"].as_u64(), "{stats}");
    assert_eq!(echo["batch_stats"][0]["batch_size"], 1);
    assert_eq!(echo["batch_stats"][0]["compute_infer"]["count"], 3);
    assert!(echo["last_inference"].as_u64() > Some(1_700_000_000_000));

    let failing = statistics(&server, "/v2/models/failing/versions/1/stats").await;
    assert_eq!(failing[0]["inference_stats"]["fail"]["count"], 1);
    let all = statistics(&server, "/v2/models/stats").await;
    let of = |name: &str| all.iter().filter(|one| one["name"] == name).count();
    assert_eq!((of("halves"), of("echo"), of("other/echo"), of("absent")), (2, 1, 1, 0));
    let add = all.iter().find(|one| one["name"] == "add").expect("listed");
    assert_eq!(add["inference_stats"]["fail"]["count"], 0);

    let mut client = GrpcInferenceServiceClient::new(server);
    let asked = ModelStatisticsRequest { name: "echo".to_owned(), version: String::new() };
    let reply = client.model_statistics(asked).await.unwrap().into_inner();
    let [same] = &reply.model_stats[..] else { panic!("one version") };
    assert_eq!((same.version.as_str(), same.inference_count, same.execution_count), ("7", 3, 3));
    let infer = same.inference_stats.and_then(|stats| stats.compute_infer).expect("counted");
    assert_eq!((infer.count, Some(infer.ns)), (3, stats["compute_infer"]["ns"].as_u64()));
    assert_eq!(
        client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().get_ref().model_stats.len(),
        all.len()
    );
    tokio::task::spawn_blocking(move || pool.stop()).await.unwrap();
}

#[tokio::test]
async fn statistics_of_what_is_not_there_are_an_error_that_names_it() {
    for (path, status, says) in [
        ("/v2/models/none/stats", 404, "`none`"),
        ("/v2/models/echo/versions/9/stats", 404, "`9`"),
        ("/v2/models/loading/versions/2/stats", 503, "still loading"),
    ] {
        let reply = get(path).await;
        assert!(reply.status == status && reply.error().contains(says), "{path}: {}", reply.error());
    }
    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let asked = ModelStatisticsRequest { name: "none".to_owned(), version: String::new() };
    assert_eq!(client.model_statistics(asked).await.unwrap_err().code(), Code::NotFound);
}
