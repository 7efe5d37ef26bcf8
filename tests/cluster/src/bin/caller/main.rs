//! A caller in a pod: asks for predictions over kept HTTP/1.1 connections, one request after
//! the other on each, and prints what came of them as JSON.
//!
//!     caller URL BODY_FILE COUNT|UNTIL_FILE [CALLERS]
//!
//! Asks COUNT times, or until a file of that name is there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// When to stop.
enum Until {
    Asked(AtomicU64),
    Exists(PathBuf),
}

/// What came of the requests.
#[derive(Default)]
struct Tally {
    versions: BTreeMap<String, u64>,
    failed: u64,
    errors: Vec<String>,
    took: Vec<Duration>,
}

/// As many different errors as somebody reads.
const ERRORS: usize = 5;
/// Longer than any answer should take: a request that hangs is one that failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, file, until, callers) = match &arguments[..] {
        [url, file, until] => (url, file, until, 1),
        [url, file, until, callers] if callers.parse::<u64>().is_ok() => {
            (url, file, until, callers.parse().unwrap_or(1))
        }
        _ => {
            eprintln!("caller: expected URL BODY_FILE COUNT|UNTIL_FILE [CALLERS], not {arguments:?}");
            return ExitCode::from(2);
        }
    };
    let Ok(uri) = url.parse::<Uri>() else {
        eprintln!("caller: {url:?} is no address");
        return ExitCode::from(2);
    };
    let body = match std::fs::read(Path::new(file)) {
        Ok(body) => Bytes::from(body),
        Err(error) => {
            eprintln!("caller: {file}: {error}");
            return ExitCode::from(2);
        }
    };
    let until = Arc::new(match until.parse() {
        Ok(count) => Until::Asked(AtomicU64::new(count)),
        Err(_) => Until::Exists(until.into()),
    });
    let (tally, began) = (Arc::new(Mutex::new(Tally::default())), Instant::now());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..callers {
        asking.spawn(ask(uri.clone(), body.clone(), Arc::clone(&until), Arc::clone(&tally)));
    }
    while asking.join_next().await.is_some() {}
    println!("{}", report(&mut tally.lock().unwrap_or_else(PoisonError::into_inner), began.elapsed()));
    ExitCode::SUCCESS
}

impl Until {
    fn goes_on(&self) -> bool {
        match self {
            Until::Asked(left) => {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            Until::Exists(file) => !file.exists(),
        }
    }
}

async fn ask(uri: Uri, body: Bytes, until: Arc<Until>, tally: Arc<Mutex<Tally>>) {
    let mut connection = None;
    while until.goes_on() {
        let began = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, once(&uri, body.clone(), &mut connection)).await;
        let outcome = asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.took.push(began.elapsed());
        match outcome {
            Ok(version) => *tally.versions.entry(version).or_default() += 1,
            Err(error) => {
                connection = None;
                tally.failed += 1;
                if tally.errors.len() < ERRORS && !tally.errors.contains(&error) {
                    tally.errors.push(error);
                }
            }
        }
    }
}

type Kept = Option<http1::SendRequest<Full<Bytes>>>;

/// One request; the version that answered it.
async fn once(uri: &Uri, body: Bytes, kept: &mut Kept) -> Result<String, String> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // One that was closed between two requests is no failure: any client opens another.
    let mut open_still = None;
    if let Some(mut before) = kept.take()
        && before.ready().await.is_ok()
    {
        open_still = Some(before);
    }
    let mut connection = match open_still {
        Some(connection) => connection,
        None => open(uri).await.map_err(|error| format!("no connection: {error}"))?,
    };
    let request = Request::post(uri.path())
        .header("host", authority)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let version = read(response).await?;
    *kept = Some(connection);
    Ok(version)
}

async fn open(uri: &Uri) -> Result<http1::SendRequest<Full<Bytes>>, String> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(tcp)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: hyper::Response<Incoming>) -> Result<String, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    if !parts.status.is_success() {
        return Err(format!("{}: {}", parts.status, String::from_utf8_lossy(&body)));
    }
    let answer: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    answer["model_version"].as_str().map(str::to_owned).ok_or_else(|| "an answer of no version".to_owned())
}

fn report(tally: &mut Tally, took: Duration) -> serde_json::Value {
    tally.took.sort_unstable();
    let at = |share: f64| {
        let index = (tally.took.len() as f64 * share) as usize;
        tally.took.get(index.min(tally.took.len().saturating_sub(1))).map(|took| took.as_secs_f64() * 1e3)
    };
    serde_json::json!({
        "requests": tally.took.len(), "failed": tally.failed, "versions": tally.versions,
        "errors": tally.errors, "p50_ms": at(0.5), "p99_ms": at(0.99), "seconds": took.as_secs_f64(),
    })
}
