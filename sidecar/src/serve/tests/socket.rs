//! The stack behind a real socket: both versions of HTTP and gRPC on one port.

use sconce_identity::{ClientAuth, Doors, PeerPolicy, identity, serve};
use sconce_proto::inference::{ServerLiveRequest, grpc_inference_service_client::GrpcInferenceServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test]
async fn http1_and_grpc_are_answered_on_one_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_publisher, identity) = identity();
    let tls = identity.server_config(ClientAuth::Required, PeerPolicy::own_trust_domain());
    let doors = Doors { plaintext_loopback: true, ..Doors::tls(tls) };
    let stopping = CancellationToken::new();
    // Who is calling comes from the connection here, not from the test.
    let stack = stack(Config::default(), live(), Inline, Arc::new(|| true));
    let server = tokio::spawn(serve(listener, doors, stack, stopping.clone()));

    let json = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":2}}],"parameters":{"binary_data_output":true}}"#;
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\nInference-Header-Content-Length: {}\r\n\r\n",
        json.len() + 2,
        json.len()
    );
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(&[head.as_bytes(), json.as_bytes(), b"\x05\x06"].concat()).await.unwrap();
    let mut reply = Vec::new();
    tcp.read_to_end(&mut reply).await.unwrap();
    let text = String::from_utf8_lossy(&reply);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("content-length: ") && !text.contains("chunked"), "{text}");
    assert!(reply.ends_with(b"\x05\x06"), "{text}");

    let mut client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await.unwrap();
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    drop(client);
    stopping.cancel();
    server.await.unwrap();
}
