//! A server of files over HTTPS, which does whatever servers of files do: ask who is calling, redirect,
//! take up a file in the middle, break off, stall. It is also a registry, as far as one is read.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use sconce_identity::{
    ClientAuth, Doors, Material, PeerPolicy, Publisher, SpiffeId,
    authority::{Authority, Credentials, Validity},
    identity, serve,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running server, which ends when it is dropped.
pub struct Files {
    /// `localhost:port`.
    pub authority: String,
    held: Arc<Mutex<Held>>,
    folder: tempfile::TempDir,
    credentials: Credentials,
    _publisher: Publisher,
    _stops: DropGuard,
}

#[derive(Default)]
struct Held {
    entries: BTreeMap<String, Entry>,
    /// Path and query, range, and what was shown, of every request.
    requests: Vec<Asked>,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// With its query.
    pub path: String,
    /// Of the bytes that were asked for.
    pub range: Option<String>,
    /// What the caller showed.
    pub authorization: Option<String>,
}

/// What is at a path.
#[derive(Clone, Default)]
pub struct Entry {
    /// The file.
    pub bytes: Bytes,
    /// What a caller must show.
    pub authorization: Option<String>,
    /// What is said to one who does not.
    pub challenge: Option<String>,
    /// Where it is instead.
    pub redirect: Option<String>,
    /// Break off after this many bytes of each answer, so often, when told to.
    pub breaks: Option<(usize, usize, Arc<Notify>)>,
    /// Say no more after this many bytes of an answer.
    pub stalls: Option<usize>,
    /// Answer with this in place of the file.
    pub status: Option<u16>,
}

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

impl Files {
    /// Starts one with a CA of its own.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Authority::new("files.test").expect("a CA");
        let id = SpiffeId::new("files.test", "/files").expect("a valid id");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = ca.issue_credentials(&id, &names, Validity::of(Duration::from_secs(3600)));
        let own = own.expect("a certificate");
        let (publisher, identity) = identity();
        let roots = ca.roots_pem();
        let material = Material::from_pem(own.chain_pem.as_bytes(), own.key_pem.as_bytes(), roots.as_bytes());
        publisher.publish(material.expect("valid credentials"));
        std::fs::write(folder.path().join("ca.pem"), roots).expect("written");
        let doors = Doors::tls(identity.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain()));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = format!("localhost:{}", listener.local_addr().expect("bound").port());
        let held: Arc<Mutex<Held>> = Arc::default();
        let shared = Arc::clone(&held);
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let reply = reply(&shared, &request);
            async move { Ok::<_, Infallible>(reply) }
        });
        let stopping = CancellationToken::new();
        tokio::spawn(serve(listener, doors, answer, stopping.clone()));
        Self {
            authority,
            held,
            folder,
            credentials: own,
            _publisher: publisher,
            _stops: stopping.drop_guard(),
        }
    }

    /// The root to trust it by.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key of this server's CA, for another server on this machine.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        (file("cert.pem", &self.credentials.chain_pem), file("key.pem", &self.credentials.key_pem))
    }

    /// Puts something at a path, and gives back its URL.
    pub fn put(&self, path: &str, entry: Entry) -> String {
        self.lock().entries.insert(path.to_owned(), entry);
        format!("https://{}{path}", self.authority)
    }

    /// Puts a file at a path.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn put_file(&self, path: &str, file: &Path) -> String {
        let bytes = std::fs::read(file).expect("a file").into();
        self.put(path, Entry { bytes, ..Entry::default() })
    }

    /// Everything that was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reply(held: &Mutex<Held>, request: &Request<Incoming>) -> Reply {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = |name| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let asked = Asked {
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        range: shown(header::RANGE),
        authorization: shown(header::AUTHORIZATION),
    };
    held.requests.push(asked.clone());
    let Some(entry) = held.entries.get_mut(request.uri().path()) else {
        return said(Response::builder().status(StatusCode::NOT_FOUND));
    };
    if entry.authorization.is_some() && entry.authorization != asked.authorization {
        let mut answer = Response::builder().status(StatusCode::UNAUTHORIZED);
        if let Some(challenge) = &entry.challenge {
            answer = answer.header(header::WWW_AUTHENTICATE, challenge);
        }
        return said(answer);
    }
    if let Some(status) = entry.status {
        return said(Response::builder().status(status));
    }
    if let Some(target) = &entry.redirect {
        return said(Response::builder().status(StatusCode::FOUND).header(header::LOCATION, target));
    }
    let whole = entry.bytes.len();
    let from = asked.range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let rest = entry.bytes.slice(from.unwrap_or(0).min(whole)..);
    let mut answer =
        Response::builder().header(header::ETAG, r#""one""#).header(header::CONTENT_LENGTH, rest.len());
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{whole}", whole.saturating_sub(1));
        answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    let broken = match &mut entry.breaks {
        Some((after, times, told)) if *times > 0 => {
            *times -= 1;
            Some((rest.slice(..(*after).min(rest.len())), Arc::clone(told)))
        }
        _ => None,
    };
    let parts: stream::BoxStream<'static, std::io::Result<Bytes>> = match (broken, entry.stalls) {
        (Some((part, told)), _) => {
            let broken = async move {
                // What was sent a moment ago would be lost along with the connection.
                told.notified().await;
                Err(std::io::Error::other("broken off on purpose"))
            };
            stream::iter([Ok(part)]).chain(stream::once(broken)).boxed()
        }
        (None, Some(after)) => {
            stream::iter([Ok(rest.slice(..after.min(rest.len())))]).chain(stream::pending()).boxed()
        }
        (None, None) => {
            // In parts, as a network has them.
            let parts: Vec<_> = rest.chunks(16 << 10).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            stream::iter(parts).boxed()
        }
    };
    let body = StreamBody::new(parts.map(|part| part.map(Frame::data)));
    answer.body(body.boxed_unsync()).expect("an answer")
}

fn said(answer: http::response::Builder) -> Reply {
    let empty = Empty::new().map_err(|never: Infallible| match never {});
    answer.body(empty.boxed_unsync()).expect("an answer")
}
