//! The classification extension, in both protocols.

use sconce_proto::inference::{
    InferParameter, ModelInferRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use serde_json::json;

use super::*;

fn body(outputs: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"a","shape":[2,2],"datatype":"FP32","data":[1,2,4,3]}}],"outputs":[{outputs}]}}"#
    )
}

#[tokio::test]
async fn an_output_can_be_asked_for_its_largest_values_with_index_and_label() {
    let outputs = r#"{"name":"sum","parameters":{"classification":1}},{"name":"difference","parameters":{"classification":2}}"#;
    let reply = infer("add", body(outputs)).await.json();
    let sum = json!({ "name": "sum", "shape": [2, 1], "datatype": "BYTES",
        "data": ["2.000000:1:second", "4.000000:0:first"] });
    assert_eq!(reply["outputs"][0], sum);
    let unlabelled = json!(["2.000000:1", "1.000000:0", "4.000000:0", "3.000000:1"]);
    assert_eq!((&reply["outputs"][1]["shape"], &reply["outputs"][1]["data"]), (&json!([2, 2]), &unlabelled));

    // 0 is how a client writes that it wants none.
    let none = infer("add", body(r#"{"name":"sum","parameters":{"classification":0}}"#)).await.json();
    assert_eq!(none["outputs"][0]["datatype"], "FP32");
    let binary = body(r#"{"name":"sum","parameters":{"classification":1,"binary_data":true}}"#);
    let reply = infer("add", binary).await;
    assert!(
        reply.body.ends_with(b"\x11\0\0\x002.000000:1:second\x10\0\0\x004.000000:0:first"),
        "{:?}",
        reply.body
    );
}

#[tokio::test]
async fn what_cannot_be_classified_is_refused_by_name() {
    for (parameter, says) in [("-1", "`sum`"), ("\"two\"", "`sum`"), ("1.5", "`sum`")] {
        let outputs = format!(r#"{{"name":"sum","parameters":{{"classification":{parameter}}}}}"#);
        let refused = infer("add", body(&outputs)).await;
        assert!(refused.status == 400 && refused.error().contains(says), "{}", refused.error());
    }
    let words = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["a"]}],
        "outputs":[{"name":"y","parameters":{"classification":1}}]}"#;
    let refused = infer("echo", words).await;
    assert!(refused.status == 400 && refused.error().contains("`y` has no classes"), "{}", refused.error());
}

#[tokio::test]
async fn grpc_classifies_alike() {
    let a = InferInputTensor {
        name: "a".into(),
        datatype: "FP32".into(),
        shape: vec![1, 2],
        ..Default::default()
    };
    let count = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1)) };
    let sum = InferRequestedOutputTensor {
        name: "sum".into(),
        parameters: [("classification".to_owned(), count)].into(),
    };
    let request = ModelInferRequest {
        model_name: "add".into(),
        inputs: vec![a],
        outputs: vec![sum],
        raw_input_contents: vec![[1f32, 2.0].map(f32::to_le_bytes).concat().into()],
        ..Default::default()
    };
    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let reply = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!((reply.outputs[0].datatype.as_str(), &reply.outputs[0].shape[..]), ("BYTES", &[1, 1][..]));
    assert_eq!(&reply.raw_output_contents[0][..], b"\x11\0\0\x002.000000:1:second");
}
