//! Registries of the OCI distribution specification: a model is one layer of an artifact, as
//! `oras push` makes it, or a blob alone.
//!
//! `oci-client` would do most of it, but makes its HTTP client itself: redirects and token services
//! of somebody's choice would be followed beyond the policy.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_auth::parser::ChallengeParser;
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use super::{Origin, PullError};
use crate::pull::{
    Source,
    address::{Address, Sha256, authority},
    credentials::Credentials,
    download::sha256,
    web::Web,
};

/// Manifests are lists; as large as the specification asks registries to take.
const LONGEST: usize = 4 << 20;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
/// What a layer is called.
const TITLE: &str = "org.opencontainers.image.title";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
    /// Of an index: manifests for several platforms.
    manifests: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Finds the blob, and the digest that it must have: the source's own, or that of the one layer of
/// the manifest which the source's digest is of.
pub(super) async fn find(
    web: &Web,
    source: &Source,
    credentials: &Credentials,
) -> Result<(Origin, Sha256), PullError> {
    let address = &source.address;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
    let manifest = url(address, "manifests", &source.digest)?;
    let mut answer = web.get(address, manifest.clone(), headers.clone()).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        let authorization = authorize(web, address, credentials, &answer).await?;
        headers.insert(header::AUTHORIZATION, authorization);
        answer = web.get(address, manifest, headers.clone()).await?;
    }
    let digest = match answer.status() {
        StatusCode::OK => layer(source, &read(address, answer).await?)?,
        // Registries know blobs and manifests apart, and some refuse to be asked for a manifest that is none.
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => source.digest,
        status => return Err(PullError::status(address, status)),
    };
    headers.remove(header::ACCEPT);
    Ok((Origin::File { url: url(address, "blobs", &digest)?, headers, tag: None }, digest))
}

fn url(address: &Address, kind: &str, digest: &Sha256) -> Result<Url, PullError> {
    let path = format!("v2/{}/{kind}/{digest}", address.repository());
    address.https(&path).map_err(|error| PullError::Invalid(error.to_string()))
}

async fn read(address: &Address, answer: Response) -> Result<Vec<u8>, PullError> {
    let (mut body, mut parts) = (Vec::new(), answer.bytes_stream());
    while let Some(part) = parts.next().await {
        body.extend_from_slice(&part.map_err(|error| PullError::request(address, &error.without_url()))?);
        if body.len() > LONGEST {
            return Err(PullError::unreachable(
                address,
                format!("its answer is longer than {LONGEST} bytes"),
            ));
        }
    }
    Ok(body)
}

/// The digest of the layer that is the model.
fn layer(source: &Source, manifest: &[u8]) -> Result<Sha256, PullError> {
    let address = source.address.to_string();
    let found = sha256(manifest);
    if found != source.digest {
        return Err(PullError::Digest { address, expected: source.digest, found });
    }
    let not = |said: &str| PullError::NotAModel { address: address.clone(), said: said.to_owned() };
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| not(&format!("its manifest is not understood: {error}")))?;
    if manifest.manifests.is_some() {
        return Err(not("the digest is of an index of several manifests; give that of one of them"));
    }
    let named = manifest.layers.iter().filter(|layer| {
        manifest.layers.len() == 1 || layer.annotations.get(TITLE).is_some_and(|title| title.ends_with(".pt"))
    });
    match named.collect::<Vec<_>>()[..] {
        [layer] => layer.digest.parse().map_err(|error| not(&format!("its layer's digest {error}"))),
        _ => Err(not(&format!(
            "its manifest has {} layers, and not exactly one of them is called `….pt`; give the digest of the layer",
            manifest.layers.len()
        ))),
    }
}

/// What the registry wants to be shown, from its own token service where it has one.
async fn authorize(
    web: &Web,
    address: &Address,
    credentials: &Credentials,
    answer: &Response,
) -> Result<HeaderValue, PullError> {
    let denied = |said: String| PullError::Denied { address: address.to_string(), said };
    // Whoever a registry redirects to has no business with its credentials.
    if authority(answer.url()) != address.authority {
        return Err(denied(format!(
            "it redirects to {}, which asks for credentials",
            authority(answer.url())
        )));
    }
    let basic = credentials.registry(&address.authority);
    let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
    let challenges: Vec<&str> = challenges.filter_map(|value| value.to_str().ok()).collect();
    for challenge in challenges.iter().flat_map(|text| ChallengeParser::new(text)).filter_map(Result::ok) {
        if challenge.scheme.eq_ignore_ascii_case("basic")
            && let Some(basic) = &basic
        {
            return Ok(basic.clone());
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            continue;
        }
        let value = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = value("realm").unwrap_or_default();
        let mut service =
            Url::parse(&realm).map_err(|_| denied(format!("its token service is {realm:?}")))?;
        service.query_pairs_mut().extend_pairs(value("service").map(|service| ("service", service)));
        let scope = format!("repository:{}:pull", address.repository());
        service.query_pairs_mut().append_pair("scope", &value("scope").unwrap_or(scope));
        let headers = basic.iter().map(|basic| (header::AUTHORIZATION, basic.clone())).collect();
        let answer = web.get(address, service, headers).await?;
        if !answer.status().is_success() {
            return Err(denied(format!("its token service answers {}", answer.status())));
        }
        let token: Token = serde_json::from_slice(&read(address, answer).await?)
            .map_err(|error| denied(format!("its token service's answer is not understood: {error}")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        let mut shown = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| denied("its token service's token is none".into()))?;
        shown.set_sensitive(true);
        return Ok(shown);
    }
    Err(denied("it wants credentials, `username` and `password`".into()))
}
