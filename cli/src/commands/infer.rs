//! `sconce infer`: one prediction from a sidecar, over mTLS, by the Open Inference
//! Protocol with its binary extension, so that every datatype goes both ways unchanged.

use std::{path::Path, time::Instant};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;

use super::{
    locate,
    question::{Body, JSON_LENGTH, Metadata, read},
};
use crate::{
    args,
    context::Access,
    failure::{Exit, Failure},
    http::{Answer, Peer},
    output::Output,
};

mod prediction;

use self::prediction::Prediction;

/// Asks a sidecar.
pub(super) async fn run(args: args::Infer, access: &Access, out: Output) -> Result<(), Failure> {
    if args.input.is_empty() && args.json.is_none() {
        return Err(Failure::usage("there is nothing to ask")
            .hint("give --input NAME=FILE.npy (or .json, .png, .jpg), or a whole request with --json FILE"));
    }
    let address = locate::sidecar(&args.model, args.sidecar.as_deref(), access).await?;
    let mut peer = Peer::connect(access, &address).await?;
    let path = match &args.version {
        // A route names the namespace only where it is not the default one.
        Some(version) => format!("/v2/models/{}/versions/{version}", segment(&args)),
        None => format!("/v2/models/{}", segment(&args)),
    };
    let body = body(&args, &mut peer, &path).await?;

    let mut request = Request::post(format!("{path}/infer"));
    request = match body.json_length {
        Some(length) => {
            request.header(CONTENT_TYPE, "application/octet-stream").header(JSON_LENGTH, length.to_string())
        }
        None => request.header(CONTENT_TYPE, "application/json"),
    };
    let asked = Instant::now();
    let answer = peer.send(complete(request, body.bytes)?).await?;
    let latency = asked.elapsed();
    let answer = accepted(answer, &args, &address)?;
    let json_length = answer.headers.get(JSON_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let prediction = Prediction::read(&answer.body, json_length, address, latency)
        .map_err(|why| Failure::failed(format!("the answer of {} cannot be read: {why}", args.model)))?;
    out.show(&prediction, |prediction| prediction.people(args.top))
}

/// The model's name in a path.
fn segment(args: &args::Infer) -> String {
    args.model.to_string().replace('/', "%2F")
}

async fn body(args: &args::Infer, peer: &mut Peer, path: &str) -> Result<Body, Failure> {
    if let Some(file) = &args.json {
        let file = (file != Path::new("-")).then(|| file.clone());
        return Ok(Body { bytes: read(file).await?.into(), json_length: None });
    }
    let request = complete(Request::get(path), Bytes::new())?;
    let answer = accepted(peer.send(request).await?, args, path)?;
    let metadata: Metadata = serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::failed(format!("the metadata of {} cannot be read: {error}", args.model))
    })?;
    let mut inputs = Vec::new();
    for input in &args.input {
        inputs.push(metadata.tensor_of(input, args.scale).await?);
    }
    Body::binary(&inputs).map_err(Failure::failed)
}

fn complete(request: http::request::Builder, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    request.body(Full::new(body)).map_err(|error| Failure::usage(format!("no request can be made: {error}")))
}

fn accepted(answer: Answer, args: &args::Infer, address: &str) -> Result<Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let error = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    let text = error.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
    let text = text.unwrap_or_else(|| format!("{} answered {}", address, answer.status));
    Err(match answer.status {
        StatusCode::NOT_FOUND => Failure::new(Exit::NotFound, text)
            .hint(format!("see `sconce versions {}` for where it is ready", args.model)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::new(Exit::Denied, text),
        _ => Failure::failed(text),
    })
}
