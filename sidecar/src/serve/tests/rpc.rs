//! The protocol over gRPC, asked by a generated client.

use sconce_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest,
    ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use tonic::{Code, Request as Call, Response, Status, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;

pub(super) fn input(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Option<InferTensorContents>,
) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents,
        ..Default::default()
    }
}

pub(super) fn request(
    model: &str,
    inputs: Vec<InferInputTensor>,
    raw: &[&'static [u8]],
) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "42".to_owned(),
        inputs,
        raw_input_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..Default::default()
    }
}

async fn call(
    request: impl tonic::IntoRequest<ModelInferRequest>,
) -> Result<Response<ModelInferResponse>, Status> {
    GrpcInferenceServiceClient::new(server(Config::default(), Inline)).model_infer(request).await
}

#[tokio::test]
async fn raw_tensors_of_every_datatype_come_back_raw() {
    for datatype in Datatype::ALL {
        let bytes: &'static [u8] = match datatype.width() {
            Some(width) => &[1; 16][..2 * width],
            None => b"\x01\0\0\0a\0\0\0\0",
        };
        let reply =
            call(request("echo", vec![input("x", datatype.name(), &[2], None)], &[bytes])).await.unwrap();
        assert_eq!(reply.metadata().get("x-sconce-version").unwrap(), "7");
        let reply = reply.into_inner();
        assert_eq!((reply.id.as_str(), reply.model_version.as_str()), ("42", "7"));
        assert_eq!(
            (reply.outputs[0].datatype.as_str(), &reply.outputs[0].shape[..]),
            (datatype.name(), &[2][..])
        );
        assert_eq!(reply.raw_output_contents[0], bytes, "{datatype:?}");
    }
}

#[tokio::test]
async fn typed_contents_become_the_same_bytes() {
    let none = InferTensorContents::default;
    for (datatype, contents, raw) in [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        ("UINT8", InferTensorContents { uint_contents: vec![0, 255], ..none() }, vec![0, 255]),
        ("UINT16", InferTensorContents { uint_contents: vec![1, 65535], ..none() }, vec![1, 0, 255, 255]),
        ("UINT32", InferTensorContents { uint_contents: vec![1, 2], ..none() }, vec![1, 0, 0, 0, 2, 0, 0, 0]),
        (
            "UINT64",
            InferTensorContents { uint64_contents: vec![1, 2], ..none() },
            [1u64, 2].map(u64::to_le_bytes).concat(),
        ),
        ("INT8", InferTensorContents { int_contents: vec![-1, 1], ..none() }, vec![255, 1]),
        ("INT16", InferTensorContents { int_contents: vec![-1, 1], ..none() }, vec![255, 255, 1, 0]),
        (
            "INT32",
            InferTensorContents { int_contents: vec![-1, 1], ..none() },
            [-1i32, 1].map(i32::to_le_bytes).concat(),
        ),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![-1, 1], ..none() },
            [-1i64, 1].map(i64::to_le_bytes).concat(),
        ),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![0.5, 1.0], ..none() },
            [0.5f32, 1.0].map(f32::to_le_bytes).concat(),
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![0.5, 1.0], ..none() },
            [0.5f64, 1.0].map(f64::to_le_bytes).concat(),
        ),
        (
            "BYTES",
            InferTensorContents { bytes_contents: vec![b"a".to_vec(), vec![]], ..none() },
            b"\x01\0\0\0a\0\0\0\0".to_vec(),
        ),
    ] {
        let reply =
            call(request("echo", vec![input("x", datatype, &[2], Some(contents))], &[])).await.unwrap();
        assert_eq!(reply.into_inner().raw_output_contents[0], raw, "{datatype}");
    }
}

#[tokio::test]
async fn refusals_have_the_code_of_their_kind() {
    let ints =
        |values: &[i32]| Some(InferTensorContents { int_contents: values.to_vec(), ..Default::default() });
    let x = |contents| vec![input("x", "INT8", &[1], contents)];
    for (request, code, says) in [
        (request("none", x(ints(&[1])), &[]), Code::NotFound, "`none`"),
        (request("absent", x(ints(&[1])), &[]), Code::Unavailable, "its digest is wrong"),
        (request("failing", x(ints(&[1])), &[]), Code::Internal, "division by zero"),
        (
            request("echo", x(ints(&[1])), &[b"a"]),
            Code::InvalidArgument,
            "both `contents` and raw_input_contents",
        ),
        (request("echo", x(None), &[b"a", b"b"]), Code::InvalidArgument, "1 inputs and 2 raw_input_contents"),
        (request("echo", x(None), &[b"ab"]), Code::InvalidArgument, "takes 1 bytes, and 2 came"),
        (request("echo", x(None), &[]), Code::InvalidArgument, "has 1 elements, and 0 came"),
        (request("echo", x(ints(&[128])), &[]), Code::InvalidArgument, "128 is no INT8"),
        (
            request("echo", vec![input("x", "FP32", &[1], ints(&[1]))], &[]),
            Code::InvalidArgument,
            "fp32_contents",
        ),
        (
            request("echo", vec![input("x", "FP16", &[1], ints(&[1]))], &[]),
            Code::InvalidArgument,
            "raw_input_contents",
        ),
        (
            request("echo", vec![input("x", "INT8", &[-1], ints(&[1]))], &[]),
            Code::InvalidArgument,
            "negative",
        ),
        (
            request("echo", vec![input("x", "INT8", &[i64::MAX, i64::MAX], None)], &[b""]),
            Code::InvalidArgument,
            "larger than any memory",
        ),
    ] {
        let status = call(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{}", status.message());
        assert!(status.message().contains(says), "{}", status.message());
    }
}

#[tokio::test]
async fn a_version_is_pinned_by_field_or_by_metadata() {
    let add = || request("halves", vec![input("a", "FP32", &[1, 2], None)], &[&[0; 8]]);
    let named = ModelInferRequest { model_version: "v10".to_owned(), ..add() };
    assert_eq!(call(named.clone()).await.unwrap().into_inner().model_version, "v10");
    let mut pinned = Call::new(add());
    pinned.metadata_mut().insert("x-sconce-pin", "v10".parse().unwrap());
    assert_eq!(call(pinned).await.unwrap().into_inner().model_version, "v10");
    let mut contradicted = Call::new(named);
    contradicted.metadata_mut().insert("x-sconce-pin", "1".parse().unwrap());
    assert_eq!(call(contradicted).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn probes_and_metadata_agree_with_http() {
    let starting =
        stack(Config::default(), live(), Inline, Arc::new(|| false)).layer(Extension(Principal::Loopback));
    let mut client = GrpcInferenceServiceClient::new(starting.clone());
    let mut health = HealthClient::new(starting);
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 2);

    let server = server(Config::default(), Inline);
    let mut client = GrpcInferenceServiceClient::new(server.clone());
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let ready = |name: &str| ModelReadyRequest { name: name.to_owned(), version: String::new() };
    assert!(client.model_ready(ready("add")).await.unwrap().into_inner().ready);
    assert!(!client.model_ready(ready("absent")).await.unwrap().into_inner().ready);
    assert_eq!(client.model_ready(ready("none")).await.unwrap_err().code(), Code::NotFound);
    let described =
        client.model_metadata(ModelMetadataRequest { name: "add".to_owned(), version: "1".to_owned() });
    let described = described.await.unwrap().into_inner();
    assert_eq!((described.inputs[1].name.as_str(), &described.inputs[1].shape[..]), ("b", &[-1, 2][..]));

    let mut health = HealthClient::new(server);
    assert_eq!(health.check(check("")).await.unwrap().into_inner().status, 1);
    assert_eq!(health.check(check("other")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_words() {
    let post = |path: &str, version| {
        Request::post(path)
            .version(version)
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .unwrap()
    };
    let path = "/inference.GRPCInferenceService/ServerLive";
    let server = || server(Config::default(), Inline);
    let old = send(server(), post(path, http::Version::HTTP_11)).await;
    assert_eq!(old.headers["grpc-status"], "12");
    let unknown = send(server(), post("/none.Service/Method", http::Version::HTTP_2)).await;
    assert_eq!((unknown.status.as_u16(), unknown.headers["grpc-status"].to_str().unwrap()), (200, "12"));
    let mut broken = GrpcInferenceServiceClient::new(server());
    let broken = broken.model_infer(request("panicking", vec![input("x", "INT8", &[1], None)], &[b"a"]));
    assert_eq!(broken.await.unwrap_err().code(), Code::Internal);
    let stranger = stack(Config::default(), live(), Inline, Arc::new(|| true));
    let refused = send(stranger, post(path, http::Version::HTTP_2)).await;
    assert_eq!(refused.headers["grpc-status"], "16");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_also_where_it_was_small_on_the_way() {
    let server = server(Config { max_body_bytes: 64, ..Config::default() }, Inline);
    let large = || request("echo", vec![input("x", "INT8", &[100], None)], &[&[0; 100]]);
    let mut client = GrpcInferenceServiceClient::new(server.clone());
    let status = client.model_infer(large()).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{}", status.message());
    let mut client = GrpcInferenceServiceClient::new(server).send_compressed(CompressionEncoding::Gzip);
    assert!(client.model_infer(large()).await.is_err());
}

#[tokio::test]
async fn compressed_messages_are_read() {
    for coding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client =
            GrpcInferenceServiceClient::new(server(Config::default(), Inline)).send_compressed(coding);
        let asked = request("echo", vec![input("x", "INT8", &[100], None)], &[&[5; 100]]);
        let reply = client.model_infer(asked).await.unwrap().into_inner();
        assert_eq!(&reply.raw_output_contents[0][..], [5; 100]);
    }
}
