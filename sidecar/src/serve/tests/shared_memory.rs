//! The shared memory extension, in both protocols, and for whom it is not.

use std::os::unix::fs::FileExt as _;

use sconce_proto::inference::{
    InferParameter, ModelInferRequest, ServerMetadataRequest, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use serde_json::{Value, json};
use tonic::Code;

use super::{super::shared_memory::tests::memory, *};

async fn post(server: &Router, path: &str, body: Value) -> Reply {
    send(server.clone(), Request::post(path).body(body.to_string().into()).unwrap()).await
}

/// A request to run `echo` on bytes of the region `r`, and to leave the answer there.
fn body(input: Value, output: Value) -> Value {
    json!({
        "inputs": [{ "name": "x", "shape": [4], "datatype": "UINT8", "parameters": input }],
        "outputs": [{ "name": "y", "parameters": output }],
    })
}

fn part(offset: u64, bytes: u64) -> Value {
    json!({ "shared_memory_region": "r", "shared_memory_offset": offset, "shared_memory_byte_size": bytes })
}

#[tokio::test]
async fn tensors_are_found_and_left_in_memory_that_the_pod_shares() {
    let (server, (file, key)) =
        (server(Config::default(), Inline), memory(&[0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0]));
    let region = "/v2/systemsharedmemory/region/r";
    let place = json!({ "key": key, "offset": 2, "byte_size": 9 });
    assert_eq!(post(&server, &format!("{region}/register"), place).await.status, 200);
    for path in ["/v2/systemsharedmemory/status".to_owned(), format!("{region}/status")] {
        let status = send(server.clone(), Request::get(path).body(Body::empty()).unwrap()).await.json();
        assert_eq!(status, json!([{ "name": "r", "key": key, "offset": 2, "byte_size": 9 }]));
    }

    let reply = post(&server, "/v2/models/echo/infer", body(part(0, 4), part(4, 5))).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let told =
        json!({ "shared_memory_region": "r", "shared_memory_offset": 4, "shared_memory_byte_size": 4 });
    assert_eq!(
        reply.json()["outputs"][0],
        json!({ "name": "y", "shape": [4], "datatype": "UINT8", "parameters": told })
    );
    assert!(!reply.headers.contains_key("inference-header-content-length"));
    assert_eq!(std::fs::read(file.path()).unwrap(), [0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0]);

    for (input, output, status, says) in [
        (part(6, 4), part(4, 5), 400, "not within the 9 bytes"),
        (part(0, 4), part(8, 2), 400, "not within the 9 bytes"),
        (part(0, 3), part(4, 5), 400, "takes 4 bytes, and 3 came"),
        (part(0, 4), part(4, 3), 400, "room for 3"),
        (json!({ "shared_memory_region": "r" }), part(4, 5), 400, "shared_memory_byte_size"),
        (json!({ "shared_memory_region": 1 }), part(4, 5), 400, "no text"),
        (json!({ "shared_memory_region": "s", "shared_memory_byte_size": 4 }), part(4, 5), 404, "`s`"),
    ] {
        let refused = post(&server, "/v2/models/echo/infer", body(input, output)).await;
        assert!(refused.status == status && refused.error().contains(says), "{}", refused.error());
    }
    file.as_file().set_len(3).unwrap();
    let refused = post(&server, "/v2/models/echo/infer", body(part(0, 4), json!({}))).await;
    assert!(
        refused.status == 400 && refused.error().contains("`r` is not what it was"),
        "{}",
        refused.error()
    );

    assert_eq!(post(&server, &format!("{region}/unregister"), json!({})).await.status, 200);
    let gone = post(&server, "/v2/models/echo/infer", body(part(0, 4), json!({}))).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn grpc_leaves_the_place_of_such_an_output_empty() {
    let (file, key) = memory(&[1, 2, 3, 4, 0, 0, 0, 0]);
    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let register =
        SystemSharedMemoryRegisterRequest { name: "r".into(), key: key.clone(), offset: 0, byte_size: 8 };
    client.system_shared_memory_register(register.clone()).await.unwrap();
    assert_eq!(
        client.system_shared_memory_register(register).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let status =
        client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap();
    assert_eq!(status.into_inner().regions["r"].key, key);

    let part = |offset: i64| {
        [
            ("shared_memory_region", ParameterChoice::StringParam("r".to_owned())),
            ("shared_memory_offset", ParameterChoice::Int64Param(offset)),
            ("shared_memory_byte_size", ParameterChoice::Int64Param(4)),
        ]
        .map(|(name, choice)| (name.to_owned(), InferParameter { parameter_choice: Some(choice) }))
    };
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "UINT8".into(),
        shape: vec![4],
        parameters: part(0).into(),
        ..Default::default()
    };
    let output = InferRequestedOutputTensor { name: "y".into(), parameters: part(4).into() };
    let request = ModelInferRequest {
        model_name: "echo".into(),
        inputs: vec![input],
        outputs: vec![output],
        ..Default::default()
    };
    let reply = client.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!((reply.outputs.len(), &reply.raw_output_contents[..]), (1, &[Bytes::new()][..]));
    let told = reply.outputs[0].parameters["shared_memory_byte_size"].parameter_choice.clone();
    assert_eq!(told, Some(ParameterChoice::Int64Param(4)));
    let mut written = [0; 4];
    file.as_file().read_exact_at(&mut written, 4).unwrap();
    assert_eq!(written, [1, 2, 3, 4]);
    // What lies in memory has no place among what was sent.
    let both = ModelInferRequest { raw_input_contents: vec![Bytes::from_static(b"abcd")], ..request };
    assert_eq!(client.model_infer(both).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_the_pod_itself_may_name_regions() {
    let (_file, key) = memory(&[0; 8]);
    let principal = Principal::Spiffe("spiffe://sconce.local/ns/default/sa/app".parse().unwrap());
    let server = stack(Config::default(), live(), Inline, Arc::new(|| true)).layer(Extension(principal));
    let register = json!({ "key": key, "byte_size": 8 });
    for (path, body) in [
        ("/v2/systemsharedmemory/region/r/register", register),
        ("/v2/systemsharedmemory/unregister", json!({})),
        ("/v2/models/echo/infer", body(part(0, 4), json!({}))),
        ("/v2/models/echo/infer", body(json!({}), part(0, 4))),
    ] {
        let mut body = body;
        if body["inputs"][0]["parameters"] == json!({}) {
            body["inputs"][0]["data"] = json!([1, 2, 3, 4]);
        }
        let refused = post(&server, path, body).await;
        assert!(refused.status == 403 && refused.error().contains("own pod"), "{path}: {}", refused.error());
    }
    let metadata = send(server.clone(), Request::get("/v2").body(Body::empty()).unwrap()).await.json();
    let listed = |extensions: &[Value]| extensions.iter().any(|one| one == "system_shared_memory");
    assert!(!listed(metadata["extensions"].as_array().unwrap()), "{metadata}");
    let mut client = GrpcInferenceServiceClient::new(server);
    let denied = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let extensions = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner().extensions;
    assert!(!extensions.contains(&"system_shared_memory".to_owned()) && extensions.len() > 5);
    assert!(listed(get("/v2").await.json()["extensions"].as_array().unwrap()), "the pod is told of it");
}
