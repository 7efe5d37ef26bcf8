//! The model configuration extension, in both protocols.

use sconce_catalog::Batching;
use sconce_proto::inference::{
    DataType, ModelConfigRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use serde_json::json;
use tonic::Code;

use super::*;

/// A server with one model, `m`, of this signature.
fn with(signature: Signature) -> Router {
    let module: Arc<dyn Module> = Arc::new(Made { signature, forward: echo });
    let mut set = ModelSet { serial: Serial(1), ..Default::default() };
    set.models.insert("m".parse().unwrap(), served(&[("1", 10_000)], &module));
    let live = Live::default();
    drop(live.publish(set));
    let config = Config {
        limits: crate::engine::Limits { runs: 3, queue: 7, batch_rows: 16, batch_target: None },
        ..Config::default()
    };
    stack(config, live, Inline, Arc::new(|| true)).layer(Extension(Principal::Loopback))
}

fn signature(batching: Option<Batching>) -> Signature {
    let (fp32, int64) = (Some(Datatype::Fp32), Some(Datatype::Int64));
    let number = Field { kind: Kind::Int, optional: true, ..field("n", int64, None) };
    Signature {
        inputs: vec![field("x", fp32, Some(&[-1, 3, -1])), field("any", None, None), number],
        outputs: vec![field("words", Some(Datatype::Bytes), Some(&[-1]))],
        batching,
    }
}

async fn config(signature: Signature) -> serde_json::Value {
    let request = Request::get("/v2/models/m/config").body(Body::empty()).unwrap();
    let reply = send(with(signature), request).await;
    assert_eq!(reply.status, 200);
    reply.json()
}

#[tokio::test]
async fn dimensions_are_without_the_rows_exactly_where_rows_are_batched() {
    let alone = config(signature(None)).await;
    assert_eq!((&alone["platform"], &alone["backend"]), (&json!("pytorch_libtorch"), &json!("pytorch")));
    assert_eq!((&alone["max_batch_size"], alone.get("dynamic_batching")), (&json!(0), None));
    let input = |config: &serde_json::Value, at: usize| {
        let input = &config["input"][at];
        (input["name"].clone(), input["data_type"].clone(), input["dims"].clone(), input["optional"].clone())
    };
    assert_eq!(input(&alone, 0), (json!("x"), json!("TYPE_FP32"), json!([-1, 3, -1]), json!(false)));
    assert_eq!(input(&alone, 2), (json!("n"), json!("TYPE_INT64"), json!([1]), json!(true)));
    assert_eq!(alone["output"][0], json!({ "name": "words", "data_type": "TYPE_STRING", "dims": [-1] }));

    let rows = config(signature(Some(Batching::Rows))).await;
    assert_eq!(rows["max_batch_size"], 16);
    assert_eq!(rows["dynamic_batching"]["default_queue_policy"]["max_queue_size"], 7);
    assert_eq!(input(&rows, 0).2, json!([3, -1]));
    assert_eq!(input(&rows, 1), (json!("any"), json!("TYPE_INVALID"), json!([-1]), json!(false)));
    assert_eq!(input(&rows, 2).2, json!([1]), "a number has no rows");
    assert_eq!(rows["output"][0]["dims"], json!([]));
    assert_eq!(rows["instance_group"][0]["count"], 3);
}

#[tokio::test]
async fn grpc_says_the_same() {
    let mut client = GrpcInferenceServiceClient::new(with(signature(Some(Batching::Rows))));
    let ask = |name: &str, version: &str| ModelConfigRequest { name: name.into(), version: version.into() };
    let config = client.model_config(ask("m", "1")).await.unwrap().into_inner().config.expect("one");
    assert_eq!((config.platform.as_str(), config.max_batch_size), ("pytorch_libtorch", 16));
    assert_eq!(
        (config.input[0].data_type(), &config.input[0].dims[..], config.input[2].optional),
        (DataType::TypeFp32, &[3, -1][..], true)
    );
    assert_eq!(config.output[0].data_type(), DataType::TypeString);
    assert!(config.dynamic_batching.is_some() && config.model_transaction_policy.is_some());
    assert_eq!(client.model_config(ask("m", "2")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.model_config(ask("none", "")).await.unwrap_err().code(), Code::NotFound);
}

#[test]
fn every_datatype_has_a_name_that_the_protocol_knows() {
    let names = Datatype::ALL.map(|datatype| super::super::model_config::type_name(Some(datatype)));
    for name in names {
        assert!(DataType::from_str_name(name).is_some(), "{name}");
    }
    assert_eq!(std::collections::BTreeSet::from(names).len(), Datatype::ALL.len());
}
