//! The ways to ask a sidecar: each protocol, with and without TLS.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use sconce_proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use sconce_tests::{Client, Plane, Sidecar};
use tonic::transport::{Channel, Endpoint};

/// The pixels of one request.
pub(crate) struct Workload {
    pixels: Vec<f32>,
}

pub(crate) struct Way {
    name: &'static str,
    caller: Caller,
}

enum Caller {
    Plain(Box<Hyper<HttpConnector, Full<Bytes>>>, Request<Bytes>),
    Tls(Box<Client>, Request<Bytes>),
    Grpc(GrpcInferenceServiceClient<Channel>, ModelInferRequest),
}

impl Workload {
    pub(crate) fn new(images: usize) -> Self {
        Self { pixels: (0..images * 64).map(|at| (at * 7 % 17) as f32 / 16.0).collect() }
    }

    pub(crate) fn images(&self) -> i64 {
        i64::try_from(self.pixels.len() / 64).expect("few")
    }

    pub(crate) fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    fn bytes(&self) -> Vec<u8> {
        self.pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect()
    }

    fn json(&self) -> Bytes {
        let shape = [self.images(), 64];
        let input =
            serde_json::json!({ "name": "image", "datatype": "FP32", "shape": shape, "data": self.pixels });
        serde_json::json!({ "inputs": [input] }).to_string().into()
    }

    /// The JSON's length, and the whole body.
    fn binary(&self) -> (usize, Bytes) {
        let (shape, bytes) = ([self.images(), 64], self.bytes());
        let parameters = serde_json::json!({ "binary_data_size": bytes.len() });
        let input = serde_json::json!({ "name": "image", "datatype": "FP32", "shape": shape, "parameters": parameters });
        let json = serde_json::json!({ "inputs": [input], "parameters": { "binary_data_output": true } })
            .to_string();
        (json.len(), [json.as_bytes(), &bytes].concat().into())
    }

    fn message(&self) -> ModelInferRequest {
        let input = InferInputTensor {
            name: "image".into(),
            datatype: "FP32".into(),
            shape: vec![self.images(), 64],
            ..Default::default()
        };
        ModelInferRequest {
            model_name: "digits".into(),
            inputs: vec![input],
            raw_input_contents: vec![self.bytes().into()],
            ..Default::default()
        }
    }
}

impl Way {
    pub(crate) fn all(plane: &Plane, sidecar: &Sidecar, workload: &Workload) -> Vec<Self> {
        let caller = "/ns/default/sa/bench";
        let https = sidecar.infer("digits");
        let http = https.replace("https://localhost", "http://127.0.0.1");
        let json = |uri: &str| Request::post(uri).body(workload.json()).expect("a request");
        let binary = |uri: &str| {
            let (length, body) = workload.binary();
            let request = Request::post(uri).header("inference-header-content-length", length);
            request.body(body).expect("a request")
        };
        let plain = || Box::new(Hyper::builder(TokioExecutor::new()).build_http());
        let tls = || Box::new(plane.caller(caller));
        let address = sidecar.address.replace("https://localhost", "http://127.0.0.1");
        let endpoint = Endpoint::from_shared(address).expect("an address");
        let grpc = |channel| Caller::Grpc(GrpcInferenceServiceClient::new(channel), workload.message());
        [
            ("HTTP/1.1 JSON", Caller::Plain(plain(), json(&http))),
            ("HTTP/1.1 JSON, mTLS", Caller::Tls(tls(), json(&https))),
            ("HTTP/1.1 binary", Caller::Plain(plain(), binary(&http))),
            ("HTTP/1.1 binary, mTLS", Caller::Tls(tls(), binary(&https))),
            ("gRPC", grpc(endpoint.connect_lazy())),
            ("gRPC, mTLS", grpc(plane.channel_to(&sidecar.address, Some(caller)))),
        ]
        .map(|(name, caller)| Self { name, caller })
        .into()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// One request; the scores as bytes.
    pub(crate) async fn once(&self) -> Result<Vec<u8>, String> {
        match &self.caller {
            Caller::Plain(client, request) => {
                let reply =
                    client.request(request.clone().map(Full::new)).await.map_err(|e| e.to_string())?;
                let (parts, body) = reply.into_parts();
                let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
                scores(&http::Response::from_parts(parts, body))
            }
            Caller::Tls(client, request) => scores(&client.raw(request.clone()).await?),
            Caller::Grpc(client, message) => {
                let reply = client.clone().model_infer(message.clone()).await.map_err(|e| e.to_string())?;
                Ok(reply.into_inner().raw_output_contents.concat())
            }
        }
    }
}

fn scores(reply: &http::Response<Bytes>) -> Result<Vec<u8>, String> {
    let body = reply.body();
    if reply.status() != 200 {
        return Err(format!("{} {}", reply.status(), String::from_utf8_lossy(body)));
    }
    if let Some(length) = reply.headers().get("inference-header-content-length") {
        let length: usize = length.to_str().ok().and_then(|text| text.parse().ok()).ok_or("no length")?;
        return Ok(body[length..].to_vec());
    }
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let data = json["outputs"][0]["data"].as_array().ok_or("no data")?;
    Ok(data.iter().flat_map(|score| (score.as_f64().unwrap_or(f64::NAN) as f32).to_le_bytes()).collect())
}
