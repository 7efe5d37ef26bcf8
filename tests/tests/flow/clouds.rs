//! Versions from Azure and from Google, asked for by the REST forms of their clouds: the server below checks
//! signatures as these describe them, and answers with the headers and errors that they have.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{hmac, signature};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use sconce_identity::{ClientAuth, Doors, Material, PeerPolicy, identity, serve};
use sconce_proto::v1::{self, pull_version_response::State};
use sconce_tests::{
    Plane,
    files::Files,
    pulls::{self, example, pull, refused, sha256},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tonic::Code;

const ACCOUNT: &str = "modelstore";
const KEY: &[u8] = b"a key of an account";
const EMAIL: &str = "reader@models.iam.gserviceaccount.com";
const SAS: &str = "sv=2024-11-04&sr=c&sp=r&sig=c2lnbmVk";

/// Whose REST it is, and who may read.
enum Cloud {
    Azure,
    /// With the key of a service account.
    Google(Vec<u8>),
}

struct Shared {
    cloud: Cloud,
    /// Once, an answer breaks off after so many bytes when told to.
    breaks: Mutex<Option<(usize, Arc<Notify>)>>,
    ranges: Mutex<Vec<Option<String>>>,
}

struct Server {
    endpoint: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(files: &Files, cloud: Cloud) -> Self {
        let (chain, key) = files.certificate();
        let read = |path: std::path::PathBuf| std::fs::read(path).expect("readable");
        let (publisher, own) = identity();
        let material = Material::from_pem(&read(chain), &read(key), &read(files.ca()));
        publisher.publish(material.expect("valid"));
        let doors = Doors::tls(own.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let shared = Arc::new(Shared { cloud, breaks: Mutex::default(), ranges: Mutex::default() });
        let state = Arc::clone(&shared);
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let reply = answer(&state, &request);
            async move { Ok::<_, Infallible>(reply) }
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let _publisher = publisher;
            serve(listener, doors, answer, sconce_lifecycle::Stopping::new()).await;
        });
        Self { endpoint, shared, _serving: serving }
    }

    fn break_after(&self, bytes: usize) -> Arc<Notify> {
        let told = Arc::new(Notify::new());
        let breaks = Some((bytes, Arc::clone(&told)));
        *self.shared.breaks.lock().unwrap_or_else(PoisonError::into_inner) = breaks;
        told
    }

    /// The ranges that were asked for since the last time.
    fn ranges(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.shared.ranges.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn shown(request: &Request<Incoming>, name: impl header::AsHeaderName) -> &str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// "Authorize with Shared Key", version 2015-02-21 and later: what the authorization must be.
fn shared_key(request: &Request<Incoming>) -> String {
    let mut text = format!("{}\n", request.method());
    for name in [
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        let value = shown(request, name);
        // Nothing has no length.
        text.push_str(if name == "content-length" && value == "0" { "" } else { value });
        text.push('\n');
    }
    let own =
        request.headers().keys().map(header::HeaderName::as_str).filter(|name| name.starts_with("x-ms-"));
    let mut own: Vec<&str> = own.collect();
    own.sort_unstable();
    for name in own {
        text.push_str(&format!("{name}:{}\n", shown(request, name)));
    }
    text.push_str(&format!("/{ACCOUNT}{}", request.uri().path()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    format!("SharedKey {ACCOUNT}:{}", STANDARD.encode(hmac::sign(&key, text.as_bytes())))
}

/// A self-signed JWT of the service account (AIP-4111), for reading.
fn is_of_service_account(token: &str, public_key: &[u8]) -> bool {
    let Some((signed, sign)) = token.rsplit_once('.') else { return false };
    let Some((_, claims)) = signed.split_once('.') else { return false };
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&decoded(claims)).unwrap_or_default();
    let key = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public_key);
    claims["iss"] == EMAIL
        && claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && key.verify(signed.as_bytes(), &decoded(sign)).is_ok()
}

type Body = StreamBody<stream::BoxStream<'static, std::io::Result<Frame<Bytes>>>>;

fn said(status: StatusCode, code: &str) -> Response<Body> {
    let text = Bytes::from(format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"));
    let body = StreamBody::new(stream::iter([Ok(Frame::data(text))]).boxed());
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/xml")
        .body(body)
        .expect("valid")
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    shared.ranges.lock().unwrap_or_else(PoisonError::into_inner).push(range.clone());
    let authorization = shown(request, header::AUTHORIZATION);
    let allowed = match &shared.cloud {
        Cloud::Azure => {
            shown(request, "x-ms-version") >= "2019"
                && (authorization == shared_key(request) || request.uri().query() == Some(SAS))
        }
        Cloud::Google(key) => {
            authorization.strip_prefix("Bearer ").is_some_and(|token| is_of_service_account(token, key))
        }
    };
    if !allowed {
        return match shared.cloud {
            Cloud::Azure => said(StatusCode::FORBIDDEN, "AuthenticationFailed"),
            Cloud::Google(_) => said(StatusCode::FORBIDDEN, "AccessDenied"),
        };
    }
    // Google's XML API has the object's whole name in one part of the path.
    let path = request.uri().path().replace("%2F", "/").replace("%2E", ".");
    let bytes = match path.as_str() {
        "/models/digits/v1.pt" => example("v1"),
        "/models/digits/v2.pt" => example("v2"),
        _ => return said(StatusCode::NOT_FOUND, "BlobNotFound"),
    };
    let etag = r#""0x8DC""#;
    if !["", etag].contains(&shown(request, header::IF_MATCH)) {
        return said(StatusCode::PRECONDITION_FAILED, "ConditionNotMet");
    }
    let whole = bytes.len();
    let asked = range.as_deref().and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().unwrap_or(whole - 1).min(whole - 1)))
    });
    let rest = asked.map_or_else(|| bytes.clone(), |(from, to)| bytes.slice(from..=to));
    let mut reply = Response::builder()
        .header(header::ETAG, etag)
        .header(header::LAST_MODIFIED, "Sun, 29 Nov 2026 12:00:00 GMT")
        .header(header::CONTENT_LENGTH, rest.len());
    reply = match shared.cloud {
        Cloud::Azure => reply.header("x-ms-blob-type", "BlockBlob").header("x-ms-version", "2023-11-03"),
        Cloud::Google(_) => reply.header("x-goog-generation", "1764417600000000"),
    };
    if let Some((from, to)) = asked {
        let range = format!("bytes {from}-{to}/{whole}");
        reply = reply.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    let breaks = shared.breaks.lock().unwrap_or_else(PoisonError::into_inner).take();
    let parts = match breaks {
        None => stream::iter([Ok(Frame::data(rest))]).boxed(),
        Some((after, told)) => {
            let broken = async move {
                // What was sent a moment ago would be lost along with the connection.
                told.notified().await;
                Err(std::io::Error::other("broken off on purpose"))
            };
            stream::iter([Ok(Frame::data(rest.slice(..after)))]).chain(stream::once(broken)).boxed()
        }
    };
    reply.body(StreamBody::new(parts)).expect("valid")
}

fn wanted(version: &str, source: &str, credentials: &[(&str, &str)]) -> v1::PullVersionRequest {
    let credentials = credentials.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let digest = sha256(&example(if version == "2" { "v2" } else { "v1" }));
    v1::PullVersionRequest { credentials: credentials.collect(), ..pulls::wanted(version, source, &digest) }
}

async fn plane(files: &Files, server: &Server, bucket: &str) -> Plane {
    let sources = format!("{bucket},{}/", server.endpoint);
    let ca = files.ca().display().to_string();
    Plane::start_with(&[("SCONCE_SOURCES", &sources), ("SCONCE_SOURCES_CA", &ca)]).await
}

/// Both versions, the first of them in two parts; then what is not there.
async fn pulled(plane: &Plane, server: &Server, bucket: &str, credentials: &[(&str, &str)]) {
    let breaks = server.break_after(100_000);
    let first = wanted("1", &format!("{bucket}digits/v1.pt"), credentials);
    let mut messages = plane.registry().pull_version(first).await.expect("begun").into_inner();
    let stored = loop {
        match messages.message().await.expect("told").expect("more").state.expect("something") {
            State::Progress(progress) if progress.bytes == 100_000 => breaks.notify_one(),
            State::Progress(_) => {}
            State::Pulled(pulled) => break pulled.bytes_stored,
        }
    };
    assert_eq!(stored, example("v1").len() as u64);
    let rest = format!("bytes=100000-{}", stored - 1);
    assert_eq!(server.ranges(), [None, Some(rest)], "taken up where it broke");
    let second = wanted("2", &format!("{bucket}digits/v2.pt"), credentials);
    let (second, _) = pull(plane, second).await.expect("pulled");
    assert!(second.bytes_stored < stored / 4, "only what is new: {second:?}");
    let missing = wanted("3", &format!("{bucket}digits/v3.pt"), credentials);
    refused(plane, missing, Code::NotFound, "digits/v3.pt is not there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_pulled_from_azure_with_a_key_or_a_signature() {
    let files = Files::start().await;
    let server = Server::start(&files, Cloud::Azure).await;
    let bucket = format!("az://{ACCOUNT}/models/");
    let mut plane = plane(&files, &server, &bucket).await;
    let at = ("AZURE_ENDPOINT_URL", server.endpoint.as_str());
    let key = STANDARD.encode(KEY);
    pulled(&plane, &server, &bucket, &[at, ("AZURE_STORAGE_ACCOUNT_KEY", &key)]).await;

    let source = format!("{bucket}digits/v1.pt");
    let by_signature = wanted("4", &source, &[at, ("AZURE_STORAGE_SAS_TOKEN", SAS)]);
    pull(&plane, by_signature).await.expect("pulled");
    let (other, no) = (STANDARD.encode("another"), "does not let us read");
    for credentials in [
        &[at, ("AZURE_STORAGE_ACCOUNT_KEY", other.as_str())][..],
        &[at, ("AZURE_STORAGE_SAS_TOKEN", "sv=2024-11-04&sr=c&sp=r&sig=bm8")],
        &[at],
    ] {
        refused(&plane, wanted("5", &source, credentials), Code::FailedPrecondition, no).await;
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_pulled_from_google_by_a_service_account() {
    let files = Files::start().await;
    let account = || rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
    let (own, other) = (account(), account());
    let server = Server::start(&files, Cloud::Google(own.public_key_raw().to_vec())).await;
    let bucket = "gs://models/";
    let mut plane = plane(&files, &server, bucket).await;
    let at = ("GOOGLE_ENDPOINT_URL", server.endpoint.as_str());
    let json = |key: &rcgen::KeyPair| {
        let key = json!({
            "type": "service_account", "private_key": key.serialize_pem(), "private_key_id": "1",
            "client_email": EMAIL, "client_id": "1",
        });
        key.to_string()
    };
    let (own, other) = (json(&own), json(&other));
    pulled(&plane, &server, bucket, &[at, ("GOOGLE_SERVICE_ACCOUNT_KEY", &own)]).await;
    let source = format!("{bucket}digits/v1.pt");
    for credentials in [&[at, ("GOOGLE_SERVICE_ACCOUNT_KEY", other.as_str())][..], &[at]] {
        let wanted = wanted("4", &source, credentials);
        refused(&plane, wanted, Code::FailedPrecondition, "does not let us read").await;
    }
    plane.stop().await;
}
