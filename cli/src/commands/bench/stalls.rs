//! Tests of the load against a real server that stands still for a while, as one does that
//! loads a model on the threads that should answer.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::RwLock, task::JoinSet};

use super::{
    call::Call,
    load::{Load, Plan},
    record::{Record, span},
    target::{Target, Trust},
};
use crate::args::Arrivals;

const STALL: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_millis(2_500);

/// A server that answers at once, but for the time in which somebody holds its gate.
struct Server {
    address: SocketAddr,
    gate: Arc<RwLock<()>>,
    /// Whether it refuses everything.
    refuses: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (gate, refuses) = (Arc::<RwLock<()>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        let (held, refusing) = (gate.clone(), refuses.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (gate, refuses) = (held.clone(), refusing.clone());
                let answer = move |request: Request<Incoming>| {
                    let (gate, refuses) = (gate.clone(), refuses.clone());
                    async move {
                        let _ = request.into_body().collect().await;
                        drop(gate.read().await);
                        let (status, body) = match refuses.load(Ordering::Relaxed) {
                            true => (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"the queue is full"}"#),
                            false => (StatusCode::OK, r#"{"model_name":"m","model_version":"3"}"#),
                        };
                        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                        *response.status_mut() = status;
                        Ok::<_, Infallible>(response)
                    }
                };
                connections.spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(tcp), service_fn(answer)).await);
                });
            }
        });
        Self { address, gate, refuses, _tasks: tasks }
    }

    /// Runs a load, in the middle of which the server stands still.
    async fn measured(&self, load: Load, change: impl FnOnce(&mut Plan)) -> Record {
        let mut plan = self.plan(load).await;
        change(&mut plan);
        let mut running = plan.start().expect("it starts");
        let stall = async {
            tokio::time::sleep_until((running.began() + DURATION / 5).into()).await;
            let held = self.gate.write().await;
            tokio::time::sleep(STALL).await;
            drop(held);
        };
        stall.await;
        running.ended().await.expect("it ends");
        running.record()
    }

    async fn plan(&self, load: Load) -> Plan {
        let trust = Trust { credentials: None, name: None };
        let target = Target::new(&format!("http://{}", self.address), trust, false).await.expect("valid");
        let call = Call::http(&target, "/v2/models/m/infer", Bytes::from_static(b"{}"), &[]);
        Plan {
            target,
            calls: vec![call.expect("a request")],
            load,
            warmup: Duration::ZERO,
            duration: DURATION,
            requests: None,
            timeout: Duration::from_secs(10),
            outstanding: 1_000,
            connections: None,
            threads: 1,
            seed: 1,
            slice: Duration::from_millis(100),
        }
    }
}

const OPEN: Load = Load::Open { arrivals: Arrivals::Poisson, rate: 200.0 };

fn p99(histogram: &hdrhistogram::Histogram<u64>) -> Duration {
    span(histogram.value_at_quantile(0.99))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_delays_everything_that_was_due_in_it() {
    let server = Server::start().await;
    let record = server.measured(OPEN, |_| {}).await;
    // 500 are due, two fifths of them in the second without answers.
    let (all, slow) = (record.latency.len(), record.latency.count_between(100_000_000, u64::MAX));
    assert!((400..600).contains(&all), "{all} were answered");
    assert!(slow > 120, "only {slow} of {all} took more than 100 ms");
    assert!(p99(&record.latency) > STALL * 9 / 10, "{:?}", p99(&record.latency));
    assert_eq!((record.failed(), record.unsent), (0, 0));
    assert_eq!(record.versions["3"].count, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_sees_the_same_stall_once() {
    let server = Server::start().await;
    let record = server.measured(Load::Closed { concurrency: 1 }, |_| {}).await;
    assert!(record.latency.len() > 200, "{} were answered", record.latency.len());
    assert!(span(record.latency.max()) > STALL * 9 / 10);
    assert!(p99(&record.latency) < STALL / 2, "{:?}", p99(&record.latency));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_others_is_sent_late_and_counts_from_when_it_was_due() {
    let server = Server::start().await;
    let record = server.measured(OPEN, |plan| plan.outstanding = 4).await;
    assert!(p99(&record.latency) > STALL * 8 / 10, "{:?}", p99(&record.latency));
    // Only four were sent into the stall.
    assert!(record.service.count_between(600_000_000, u64::MAX) <= 4);
    assert!(record.late > 100, "{} were sent late", record.late);
    assert_eq!(record.failed(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_in_time_is_counted_as_unsent() {
    let server = Server::start().await;
    let short = |plan: &mut Plan| {
        plan.outstanding = 4;
        plan.timeout = Duration::from_millis(300);
        plan.threads = 2;
    };
    let record = server.measured(OPEN, short).await;
    assert!(record.unsent > 50, "{} were unsent", record.unsent);
    assert_eq!(record.failures.keys().collect::<Vec<_>>(), ["timeout"]);
    let due = record.latency.len() + record.failed() + record.unsent;
    assert!((400..600).contains(&due), "{due} were due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_status_and_a_number_of_requests_is_kept() {
    let server = Server::start().await;
    server.refuses.store(true, Ordering::Relaxed);
    let mut plan = server.plan(Load::Closed { concurrency: 3 }).await;
    plan.requests = Some(50);
    plan.threads = 2;
    let mut running = plan.start().expect("it starts");
    running.ended().await.expect("it ends");
    let record = running.record();
    assert_eq!((record.latency.len(), record.failed()), (0, 50));
    assert_eq!(record.failures["HTTP 503"].example, "the queue is full");
    assert_eq!(running.counts(), (0, 50));
    // One for each caller that came to send anything.
    assert!((1..=3).contains(&running.opened()), "{} connections", running.opened());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_stopped_keeps_what_it_has() {
    let server = Server::start().await;
    let mut plan = server.plan(Load::Open { arrivals: Arrivals::Constant, rate: 500.0 }).await;
    plan.duration = Duration::from_secs(3_600);
    let mut running = plan.start().expect("it starts");
    while running.counts().0 < 20 {
        tokio::task::yield_now().await;
    }
    let held = server.gate.write().await;
    running.stop();
    running.ended().await.expect("it ends without the answers");
    drop(held);
    assert!(running.record().latency.len() >= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_a_failure_of_its_own_kind() {
    let server = Server::start().await;
    let mut plan = server.plan(OPEN).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let trust = Trust { credentials: None, name: None };
    plan.target = Target::new(&format!("http://{nobody}"), trust, false).await.expect("valid");
    plan.requests = Some(5);
    let mut running = plan.start().expect("it starts");
    running.ended().await.expect("it ends");
    let record = running.record();
    assert_eq!(record.failures.keys().collect::<Vec<_>>(), ["connect"]);
    assert!(record.failures["connect"].example.contains("refused"), "{:?}", record.failures);
}
