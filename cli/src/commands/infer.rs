//! `sconce infer`: one prediction from a sidecar, over mTLS, by the Open Inference
//! Protocol with its binary extension, so that every datatype goes both ways unchanged.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use sconce_catalog::ModelName;

use crate::{
    args,
    client::{Control, State},
    context::Access,
    failure::{Exit, Failure},
    http::{Answer, Peer},
    output::Output,
};

mod prediction;
mod question;

use self::{
    prediction::Prediction,
    question::{Body, Metadata},
};

/// Where the JSON part of a body with binary tensors ends.
const JSON_LENGTH: &str = "inference-header-content-length";

/// Asks a sidecar.
pub(super) async fn run(args: args::Infer, access: &Access, out: Output) -> Result<(), Failure> {
    if args.input.is_empty() && args.json.is_none() {
        return Err(Failure::usage("there is nothing to ask")
            .hint("give --input NAME=FILE.npy (or .json, .png, .jpg), or a whole request with --json FILE"));
    }
    let address = sidecar(&args, access).await?;
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
        let shown = input.file.as_ref().map_or_else(|| "standard input".into(), |f| f.display().to_string());
        let field = metadata.input(input.name.as_deref()).map_err(Failure::usage)?;
        let bytes = read(input.file.clone()).await?;
        let tensor =
            field.tensor(&bytes, args.scale).map_err(|why| Failure::failed(format!("{shown}: {why}")))?;
        inputs.push((field, tensor));
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

/// The sidecar named, else the first of `sconce up`, else one that has the model ready.
async fn sidecar(args: &args::Infer, access: &Access) -> Result<String, Failure> {
    if let Some(named) = &args.sidecar {
        // No name of a sidecar in the context file holds a colon.
        match named.split_once("://") {
            Some(_) => return Ok(named.clone()),
            None if named.contains(':') => return Ok(format!("https://{named}")),
            None => {}
        }
        if let Some(found) = access.sidecars.iter().find(|sidecar| sidecar.name == *named) {
            return Ok(found.address.clone());
        }
    } else if let Some(first) = access.sidecars.first() {
        return Ok(first.address.clone());
    }
    let sidecars = Control::connect(access).await?.model(&args.model).await?.sidecars;
    let of = |model: &str| model.parse().is_ok_and(|name: ModelName| name == args.model);
    let chosen = sidecars.into_iter().find(|sidecar| match &args.sidecar {
        Some(named) => sidecar.name == *named,
        None => sidecar.connected && sidecar.versions.iter().any(|v| v.state == State::Ready && of(&v.model)),
    });
    match (chosen, &args.sidecar) {
        (Some(sidecar), _) => Ok(sidecar.address),
        (None, Some(named)) => {
            Err(Failure::new(Exit::NotFound, format!("no sidecar {named:?} serves {}", args.model))
                .hint("see `sconce sidecars`, or give its address as https://host:port"))
        }
        (None, None) => {
            Err(Failure::new(Exit::NotFound, format!("no connected sidecar has {} ready", args.model))
                .hint(format!("see `sconce versions {}`", args.model)))
        }
    }
}

/// A whole file, or standard input.
async fn read(file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let reading = tokio::task::spawn_blocking(move || match file {
        Some(file) => std::fs::read(&file)
            .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", file.display()))),
        None => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
            Ok(bytes)
        }
    });
    reading.await.unwrap_or_else(|error| Err(Failure::failed(format!("reading stopped: {error}"))))
}
