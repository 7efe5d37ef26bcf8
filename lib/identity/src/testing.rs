//! What the tests of this crate share: a CA, identities, a server on port 0, the log.

use std::{
    convert::Infallible,
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::{
    ClientConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Doors, Identity, Material, PeerPolicy, Principal, Publisher, Refusal, SpiffeId,
    authority::{Authority, Credentials, Validity},
    identity,
    roots::provider,
    serve, trust_only_client_config,
};

pub(crate) const TRUST_DOMAIN: &str = "test.local";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn authority() -> Authority {
    Authority::new(TRUST_DOMAIN).unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::new(TRUST_DOMAIN, path).unwrap()
}

pub(crate) fn hour() -> Validity {
    Validity::of(Duration::from_secs(3600))
}

/// A validity that ended an hour ago.
pub(crate) fn expired() -> Validity {
    let hours_ago = |n: u64| SystemTime::now() - Duration::from_secs(n * 3600);
    Validity { not_before: hours_ago(2), not_after: hours_ago(1) }
}

pub(crate) fn credentials(ca: &Authority, id: &SpiffeId) -> Credentials {
    ca.issue_credentials(id, &[], hour()).unwrap()
}

/// Chain, key and roots.
pub(crate) fn pem_set(ca: &Authority, id: &SpiffeId) -> [String; 3] {
    let it = credentials(ca, id);
    [it.chain_pem, it.key_pem, ca.roots_pem().to_owned()]
}

/// Certified by `ca`, trusting `roots`.
pub(crate) fn material_trusting(ca: &Authority, id: &SpiffeId, roots: &str) -> Material {
    let it = credentials(ca, id);
    Material::from_pem(it.chain_pem.as_bytes(), it.key_pem.as_bytes(), roots.as_bytes()).unwrap()
}

pub(crate) fn material(ca: &Authority, id: &SpiffeId) -> Material {
    material_trusting(ca, id, ca.roots_pem())
}

pub(crate) fn certified(ca: &Authority, path: &str) -> (Publisher, Identity) {
    let (publisher, identity) = identity();
    publisher.publish(material(ca, &id(path)));
    (publisher, identity)
}

/// A request for a certificate with whatever extras the test wants.
pub(crate) fn request(key: &KeyPair, extras: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    extras(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Waits for what must happen, but not for ever.
pub(crate) async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// TLS with this certificate, whatever it is worth, towards a server of `roots`.
pub(crate) fn client_with(it: &Credentials, roots: &str) -> ClientConfig {
    let mut config = client_without(roots);
    let chain = CertificateDer::pem_slice_iter(it.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(it.key_pem.as_bytes()).unwrap();
    let certified = CertifiedKey::from_der(chain, key, &provider()).unwrap();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    config
}

pub(crate) fn client_without(roots: &str) -> ClientConfig {
    let config = trust_only_client_config(roots.as_bytes(), PeerPolicy::own_trust_domain()).unwrap();
    ClientConfig::clone(&config)
}

/// One HTTP/1.1 exchange over TLS; also returns the address it came from.
pub(crate) async fn exchange(server: SocketAddr, tls: ClientConfig) -> (SocketAddr, io::Result<String>) {
    let tcp = TcpStream::connect(server).await.unwrap();
    let local = tcp.local_addr().unwrap();
    let name = ServerName::try_from("sconce.invalid").unwrap();
    let answer = async {
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        get(stream).await
    };
    (local, patiently(answer).await)
}

pub(crate) async fn get(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    get_with(stream, "").await
}

/// As [`get`], with further header lines, each with its end.
pub(crate) async fn get_with(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    headers: &str,
) -> io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A server that answers with who called and by which version of HTTP.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _stops_when_dropped: DropGuard,
}

impl Server {
    pub(crate) async fn start(doors: Doors) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        tokio::spawn(serve(listener, doors, tower::service_fn(who), stopping.clone()));
        Self { address, _stops_when_dropped: stopping.drop_guard() }
    }

    /// One that demands a certificate of our own trust domain.
    pub(crate) async fn strict(identity: &Identity) -> Self {
        let tls = identity.server_config(crate::ClientAuth::Required, PeerPolicy::own_trust_domain());
        Self::start(Doors::tls(tls)).await
    }
}

/// Says who is calling and by which version of HTTP, or why that is not accepted.
pub(crate) async fn who(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let extensions = request.extensions();
    let caller = match (extensions.get::<Principal>(), extensions.get::<Refusal>()) {
        (Some(principal), None) => principal.to_string(),
        (None, Some(refusal)) => format!("refused, {refusal},"),
        both => format!("{both:?}"),
    };
    let text = format!("{caller} by {:?}", request.version());
    Ok(Response::new(Full::new(Bytes::from(text))))
}

/// The lines that were logged: by every test, so look for something that only yours logs.
pub(crate) struct Log(watch::Receiver<Vec<String>>);

impl Log {
    pub(crate) fn capture() -> Self {
        static LINES: OnceLock<watch::Sender<Vec<String>>> = OnceLock::new();
        let lines = LINES.get_or_init(|| {
            // For the whole process: a subscriber per test would race with the others for
            // the cached decision whether a line is wanted.
            tracing_subscriber::fmt().with_ansi(false).with_writer(|| Lines).init();
            watch::channel(Vec::new()).0
        });
        struct Lines;
        impl Write for Lines {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                if let Some(lines) = LINES.get() {
                    lines.send_modify(|all| all.push(String::from_utf8_lossy(line).into_owned()));
                }
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        Self(lines.subscribe())
    }

    /// Waits for a line with all of these in it.
    pub(crate) async fn line(&self, parts: &[&str]) -> String {
        let mut lines = self.0.clone();
        let wanted = |line: &&String| parts.iter().all(|part| line.contains(part));
        let found = async {
            let all = lines.wait_for(|all| all.iter().any(|line| wanted(&line))).await.unwrap();
            all.iter().find(wanted).unwrap().clone()
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(line) => line,
            Err(_) => panic!("no line with {parts:?} in {:#?}", *self.0.borrow()),
        }
    }
}
