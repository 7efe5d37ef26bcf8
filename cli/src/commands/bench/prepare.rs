//! From the command line and the server's metadata to requests that are ready to be sent, each
//! once tried.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use rand::{SeedableRng as _, rngs::StdRng};
use sconce_proto::inference::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};

use super::{
    call::{Answer, Call},
    generated::Fill,
    pool::Pool,
    record::Failed,
    target::{self, Target},
};
use crate::{
    args::{Bench, Protocol},
    commands::question::{self, Body, Input, JSON_LENGTH, Metadata},
    failure::{Exit, Failure},
    tensor::Tensor,
};

/// Made-up requests differ, so that no server answers them all from a cache.
const VARIANTS: usize = 16;
/// As far as they take no more memory than this.
const MOST_BYTES: usize = 64 << 20;

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Makes the requests of one protocol, and has one answered.
///
/// # Errors
/// Where the server cannot be reached, does not know the model or does not take the request.
pub(super) async fn calls(args: &Bench, target: &Target, protocol: Protocol) -> Result<Vec<Call>, Failure> {
    let asking = Asking {
        args,
        target,
        protocol,
        headers: headers(&args.header)?,
        pool: Pool::new(target.clone(), 1),
    };
    let calls = asking.made().await?;
    let first = calls.first().ok_or_else(|| Failure::failed("there is no request to send"))?;
    asking.tried(first).await?;
    Ok(calls)
}

struct Asking<'a> {
    args: &'a Bench,
    target: &'a Target,
    protocol: Protocol,
    headers: Headers,
    pool: Pool,
}

impl Asking<'_> {
    async fn made(&self) -> Result<Vec<Call>, Failure> {
        if let Some(file) = &self.args.json {
            if self.protocol != Protocol::Json {
                return Err(Failure::usage("--json is a request as JSON").hint("add --protocol json"));
            }
            let file = (file.as_path() != Path::new("-")).then(|| file.clone());
            let bytes = question::read(file).await?.into();
            return Ok(vec![self.http(Body { bytes, json_length: None })?]);
        }
        let metadata = self.metadata().await?;
        if !self.args.input.is_empty() {
            let mut inputs = Vec::new();
            for given in &self.args.input {
                inputs.push(metadata.tensor_of(given, self.args.scale).await?);
            }
            return Ok(vec![self.call(&inputs)?]);
        }
        let fill = Fill { shapes: &self.args.shape, variable: self.args.variable, below: self.args.below };
        let known = fill.complete(&metadata)?;
        let mut dice = StdRng::seed_from_u64(self.args.seed);
        let mut calls: Vec<Call> = vec![];
        while calls.len() < VARIANTS && calls.iter().map(Call::size).sum::<usize>() < MOST_BYTES {
            let inputs: Vec<(&Input, Tensor)> =
                known.iter().map(|known| (&known.input, known.tensor(&mut dice, fill.below))).collect();
            calls.push(self.call(&inputs)?);
        }
        Ok(calls)
    }

    fn call(&self, inputs: &[(&Input, Tensor)]) -> Result<Call, Failure> {
        match self.protocol {
            Protocol::Json => self.http(Body::json(inputs).map_err(Failure::usage)?),
            Protocol::Binary => self.http(Body::binary(inputs).map_err(Failure::usage)?),
            Protocol::Grpc => {
                let message = ModelInferRequest {
                    model_name: self.args.model.clone(),
                    model_version: self.version().into(),
                    ..question::message(inputs).map_err(Failure::usage)?
                };
                Call::grpc(self.target, "ModelInfer", &message, &self.headers)
            }
        }
    }

    fn http(&self, body: Body) -> Result<Call, Failure> {
        let mut headers = self.headers.clone();
        let kind = match body.json_length {
            Some(length) => {
                headers.push((HeaderName::from_static(JSON_LENGTH), HeaderValue::from(length)));
                "application/octet-stream"
            }
            None => "application/json",
        };
        headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        if body.bytes.is_empty() {
            return Err(Failure::usage("the request is empty"));
        }
        Call::http(self.target, &format!("{}/infer", self.path()), body.bytes, &headers)
    }

    fn version(&self) -> &str {
        self.args.version.as_ref().map_or("", |version| version.as_str())
    }

    /// Of the model over HTTP. The namespace of a name of ours is part of its segment.
    fn path(&self) -> String {
        let model = self.args.model.replace('/', "%2F");
        match self.version() {
            "" => format!("/v2/models/{model}"),
            version => format!("/v2/models/{model}/versions/{version}"),
        }
    }

    async fn metadata(&self) -> Result<Metadata, Failure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "what {} says of {} cannot be read: {why}",
                self.target.address, self.args.model
            ))
        };
        if self.protocol != Protocol::Grpc {
            let call = Call::http(self.target, &self.path(), Bytes::new(), &self.headers)?;
            let answer = self.tried(&call).await?;
            return serde_json::from_slice(&answer.body).map_err(|error| unreadable(&error));
        }
        let request = ModelMetadataRequest { name: self.args.model.clone(), version: self.version().into() };
        let call = Call::grpc(self.target, "ModelMetadata", &request, &self.headers)?;
        let answer: ModelMetadataResponse =
            self.tried(&call).await?.message().map_err(|why| unreadable(&why))?;
        let inputs = answer.inputs.into_iter();
        let inputs = inputs.map(|i| Input { name: i.name, datatype: i.datatype, shape: i.shape }).collect();
        Ok(Metadata { name: answer.name, inputs })
    }

    /// An answer, or why a run would have none.
    async fn tried(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(self.args.timeout, self.pool.send(call, 0)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(failed)) => return Err(target::unreachable(self.target, &failed)),
            Err(_) => {
                let why = format!("no answer in {:?}", self.args.timeout);
                return Err(Failure::unreachable("server", &self.target.address, why)
                    .hint("give it longer with --timeout, if it only is slow"));
            }
        };
        match call.accepted(&answer) {
            Ok(()) => Ok(answer),
            Err(failed) => Err(self.refused(&failed)),
        }
    }

    fn refused(&self, failed: &Failed) -> Failure {
        let (model, address) = (&self.args.model, &self.target.address);
        let said = format!("{address} refuses to answer for {model}: {}: {}", failed.kind, failed.text);
        match failed.kind.as_str() {
            "HTTP 404" | "gRPC NOT_FOUND" => Failure::new(Exit::NotFound, said)
                .hint("is that its name there, and is a version of it ready? See GET /v2/models, or `sconce versions`"),
            "HTTP 401" | "HTTP 403" | "gRPC UNAUTHENTICATED" | "gRPC PERMISSION_DENIED" => {
                Failure::new(Exit::Denied, said)
            }
            "HTTP 400" | "HTTP 422" | "gRPC INVALID_ARGUMENT" => Failure::failed(said)
                .hint("give the tensors with --input, or what the model takes with --shape and --variable"),
            _ => Failure::failed(said),
        }
    }
}

fn headers(given: &[(String, String)]) -> Result<Headers, Failure> {
    let invalid = |name: &str, why: &dyn std::fmt::Display| {
        Failure::usage(format!("--header {name} cannot be sent: {why}"))
    };
    let header = |(name, value): &(String, String)| {
        let key = name.parse::<HeaderName>().map_err(|error| invalid(name, &error))?;
        Ok((key, value.parse::<HeaderValue>().map_err(|error| invalid(name, &error))?))
    };
    given.iter().map(header).collect()
}
