//! The ways to ask: each protocol, with and without TLS, of a sidecar and of a server that does nothing.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use sconce_proto::inference::{
    ModelInferRequest, ModelInferResponse, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use sconce_tests::{Client, Plane, Sidecar};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::models::Model;

const CALLER: &str = "/ns/default/sa/bench";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Json,
    Binary,
    Grpc,
}

/// A protocol, and whether there is TLS under it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) protocol: Protocol,
    pub(crate) tls: bool,
}

/// Somebody who asks one server in one way.
pub(crate) enum Caller {
    Plain(Box<Hyper<HttpConnector, Full<Bytes>>>, Request<Bytes>),
    Tls(Box<Client>, Request<Bytes>),
    Grpc(GrpcInferenceServiceClient<Channel>, ModelInferRequest),
}

/// What came back, whole.
pub(crate) enum Reply {
    Http(Response<Bytes>),
    Grpc(ModelInferResponse),
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self { protocol: Protocol::Json, tls: false },
        Self { protocol: Protocol::Json, tls: true },
        Self { protocol: Protocol::Binary, tls: false },
        Self { protocol: Protocol::Binary, tls: true },
        Self { protocol: Protocol::Grpc, tls: false },
        Self { protocol: Protocol::Grpc, tls: true },
    ];

    pub(crate) fn name(self) -> &'static str {
        match (self.protocol, self.tls) {
            (Protocol::Json, false) => "HTTP JSON",
            (Protocol::Json, true) => "HTTP JSON, mTLS",
            (Protocol::Binary, false) => "HTTP binary",
            (Protocol::Binary, true) => "HTTP binary, mTLS",
            (Protocol::Grpc, false) => "gRPC",
            (Protocol::Grpc, true) => "gRPC, mTLS",
        }
    }

    /// Somebody who asks this sidecar.
    pub(crate) fn to_sidecar(self, plane: &Plane, sidecar: &Sidecar, model: &Model) -> Caller {
        let port = sidecar.address.rsplit_once(':').expect("a port").1;
        self.to(plane, port.parse().expect("a number"), model)
    }

    /// Somebody who asks whoever listens there.
    pub(crate) fn to_floor(self, plane: &Plane, at: SocketAddr, model: &Model) -> Caller {
        self.to(plane, at.port(), model)
    }

    fn to(self, plane: &Plane, port: u16, model: &Model) -> Caller {
        let plain = format!("http://127.0.0.1:{port}");
        let secret = format!("https://localhost:{port}");
        let request = |address: &str| {
            let post = Request::post(format!("{address}/v2/models/{}/infer", model.name));
            let (length, body) = body(model, self.protocol);
            let post = post.header("content-type", "application/octet-stream");
            let post = match length {
                Some(length) => post.header("inference-header-content-length", length),
                None => post,
            };
            post.body(body).expect("a request")
        };
        match (self.protocol, self.tls) {
            (Protocol::Grpc, true) => {
                let channel = plane.channel_to(&secret, Some(CALLER));
                Caller::Grpc(GrpcInferenceServiceClient::new(channel), message(model))
            }
            (Protocol::Grpc, false) => {
                let channel = Endpoint::from_shared(plain).expect("an address").connect_lazy();
                Caller::Grpc(GrpcInferenceServiceClient::new(channel), message(model))
            }
            (_, true) => Caller::Tls(Box::new(plane.caller(CALLER)), request(&secret)),
            (_, false) => {
                Caller::Plain(Box::new(Hyper::builder(TokioExecutor::new()).build_http()), request(&plain))
            }
        }
    }
}

impl Caller {
    /// One request.
    pub(crate) async fn ask(&self) -> Result<Reply, String> {
        match self {
            Self::Plain(client, request) => {
                let reply = client
                    .request(request.clone().map(Full::new))
                    .await
                    .map_err(|error| error.to_string())?;
                let (parts, body) = reply.into_parts();
                let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                Ok(Reply::Http(Response::from_parts(parts, body)))
            }
            Self::Tls(client, request) => Ok(Reply::Http(client.raw(request.clone()).await?)),
            Self::Grpc(client, message) => {
                let reply = client.clone().model_infer(message.clone()).await;
                Ok(Reply::Grpc(reply.map_err(|error| error.to_string())?.into_inner()))
            }
        }
    }
}

impl Reply {
    /// Refuses what is no success.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Http(reply) if reply.status() != 200 => {
                Err(format!("{} {}", reply.status(), String::from_utf8_lossy(reply.body())))
            }
            Self::Http(_) | Self::Grpc(_) => Ok(()),
        }
    }

    /// The scores, as they are in memory.
    pub(crate) fn scores(&self) -> Vec<u8> {
        match self {
            Self::Grpc(reply) => reply.raw_output_contents.concat(),
            Self::Http(reply) => match reply.headers().get("inference-header-content-length") {
                Some(length) => {
                    let length: usize = length.to_str().expect("text").parse().expect("a length");
                    reply.body()[length..].to_vec()
                }
                None => {
                    let json: Value = serde_json::from_slice(reply.body()).expect("JSON");
                    let data = json["outputs"][0]["data"].as_array().expect("data");
                    let score = |score: &Value| (score.as_f64().expect("a number") as f32).to_le_bytes();
                    data.iter().flat_map(score).collect()
                }
            },
        }
    }
}

/// The JSON's length where something follows it, and the whole body.
fn body(model: &Model, protocol: Protocol) -> (Option<usize>, Bytes) {
    let mut input = json!({ "name": model.input, "datatype": model.datatype, "shape": model.shape });
    if protocol == Protocol::Json {
        input["data"] = json!(model.numbers());
        return (None, json!({ "inputs": [input] }).to_string().into());
    }
    input["parameters"] = json!({ "binary_data_size": model.bytes.len() });
    let json = json!({ "inputs": [input], "parameters": { "binary_data_output": true } }).to_string();
    (Some(json.len()), [json.as_bytes(), &model.bytes].concat().into())
}

fn message(model: &Model) -> ModelInferRequest {
    let input = InferInputTensor {
        name: model.input.into(),
        datatype: model.datatype.into(),
        shape: model.shape.clone(),
        ..Default::default()
    };
    ModelInferRequest {
        model_name: model.name.into(),
        inputs: vec![input],
        raw_input_contents: vec![model.bytes.clone().into()],
        ..Default::default()
    }
}
