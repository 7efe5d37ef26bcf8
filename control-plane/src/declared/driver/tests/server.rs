//! A server of two archives, which shows the second only to whoever shows a password, and which can
//! stop in the middle.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use sconce_identity::{
    ClientAuth, Doors, Material, PeerPolicy, SpiffeId,
    authority::{Authority, Validity},
    identity, serve,
};
use sconce_lifecycle::Stopping;
use tokio::{net::TcpListener, task::JoinSet};

/// The running server, which ends when it is dropped.
pub(super) struct Server {
    /// `https://localhost:port`.
    pub(super) address: String,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct State {
    stalling: AtomicBool,
    asked: AtomicUsize,
}

pub(super) fn archive(version: &str) -> Bytes {
    let file = format!("{}/../examples/digits/models/v{version}/digits.pt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}")).into()
}

pub(super) fn digest(version: &str) -> String {
    let found = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &archive(version));
    format!("sha256:{}", found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

impl Server {
    /// Starts one whose root is in `ca.pem` of the folder.
    pub(super) async fn start(folder: &Path) -> Self {
        let ca = Authority::new("files.test").expect("a CA");
        let id = SpiffeId::new("files.test", "/files").expect("valid");
        let own = ca.issue_credentials(&id, &["localhost".into()], Validity::of(Duration::from_secs(600)));
        let (own, (publisher, own_identity)) = (own.expect("issued"), identity());
        let roots = ca.roots_pem().as_bytes();
        let material = Material::from_pem(own.chain_pem.as_bytes(), own.key_pem.as_bytes(), roots);
        publisher.publish(material.expect("valid"));
        std::fs::write(folder.join("ca.pem"), roots).expect("written");
        let tls = own_identity.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain());
        let state: Arc<State> = Arc::default();
        let shared = Arc::clone(&state);
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let (status, body) = shared.answer(&request);
            let stalls = shared.stalling.load(Ordering::Relaxed);
            let length = body.len();
            let said = if stalls { body.slice(..length.div_ceil(2)) } else { body };
            let rest = if stalls { stream::pending().boxed() } else { stream::empty().boxed() };
            let parts = stream::iter([Ok::<_, Infallible>(Frame::data(said))]).chain(rest);
            let answer = Response::builder().status(status).header("content-length", length);
            async move { Ok::<_, Infallible>(answer.body(StreamBody::new(parts)).expect("a response")) }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let _publisher = publisher;
            serve(listener, Doors::tls(tls), answer, Stopping::new()).await;
        });
        Self { address, state, _serving: serving }
    }

    /// Says no more in the middle of each file, or goes on as ever.
    pub(super) fn set_stalling(&self, stalling: bool) {
        self.state.stalling.store(stalling, Ordering::Relaxed);
    }

    /// How many requests there were.
    pub(super) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> (StatusCode, Bytes) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let shown = request.headers().get("authorization").is_some_and(|shown| shown == "Basic Y2k6c2VjcmV0");
        match request.uri().path() {
            "/1.pt" => (StatusCode::OK, archive("1")),
            "/2.pt" if shown => (StatusCode::OK, archive("2")),
            "/2.pt" => (StatusCode::UNAUTHORIZED, Bytes::new()),
            _ => (StatusCode::NOT_FOUND, Bytes::new()),
        }
    }
}
