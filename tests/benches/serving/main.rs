//! What serving costs: three models over every protocol, against libtorch called in a loop and against servers
//! that do nothing, in turns within one run.
//!
//! Every way is measured in every round beside what it is compared with, so that a machine that slows
//! down slows both. The callers run on the same cores as the servers, and their work is part of what is
//! measured. All are in one process, on one Tokio runtime.
//!
//! `BENCH_ROUNDS` sets the rounds; `BENCH_MODELS=mlp,encoder` leaves models out; `BENCH_OUT=file` also writes
//! JSON. A run of everything rewrites the table in `docs/benchmarks.md`.

mod direct;
mod floor;
mod machine;
mod models;
mod report;
mod ways;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use sconce_identity::{ClientAuth, Material, PeerPolicy, Publisher, SpiffeId, authority::Validity, identity};
use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, Sidecar, repository};
use tokio_rustls::TlsAcceptor;

use self::{
    direct::Direct,
    floor::Answer,
    models::Model,
    report::{Figure, Report, Target},
    ways::{Caller, Protocol, Reply, Way},
};

/// Callers at a time: one shows the latency, many the throughput.
const CALLERS: [usize; 3] = [1, 8, 32];
/// Rows that the direct loop runs at once, the best of which counts.
const BATCHES: [i64; 3] = [1, 8, 32];
const ROUNDS: usize = 5;

/// Where everybody is.
struct Stage {
    plane: Plane,
    sidecar: Sidecar,
    /// TLS as the sidecar's, for the servers that do nothing.
    tls: TlsAcceptor,
    _identity: Publisher,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test` builds and runs benches too, with this argument and without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let rounds =
        variable("BENCH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("BENCH_ROUNDS is a number"));
    let wanted = variable("BENCH_MODELS");
    let is_wanted =
        |name: &str| wanted.as_deref().is_none_or(|wanted| wanted.split(',').any(|wanted| wanted == name));
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::set().await;
    let mut report = Report::default();
    if is_wanted("mlp") {
        small(&stage, Model::tiny(), rounds, &mut report).await;
    }
    if is_wanted("resnet18") {
        large(&stage, Model::resnet(folder.path()), rounds, Duration::from_secs(4), &mut report).await;
    }
    if is_wanted("encoder") {
        large(&stage, Model::encoder(folder.path()), rounds, Duration::from_secs(2), &mut report).await;
    }
    stage.leave().await;
    let (machine, table) = (machine::describe(), report.table());
    println!("{machine}\n\n{table}");
    if let Some(file) = variable("BENCH_OUT") {
        std::fs::write(&file, report.json(&machine)).expect("BENCH_OUT can be written");
    }
    if wanted.is_none() {
        machine::document(&repository().join("docs/benchmarks.md"), &machine, rounds, &table);
    }
}

impl Stage {
    async fn set() -> Self {
        let plane = Plane::start().await;
        let sidecar = plane.sidecar("bench", &[("SCONCE_PLAINTEXT_LOOPBACK", "true")]).await;
        let (authority, id) = (plane.authority(), SpiffeId::new("sconce.local", "/ns/default/sa/floor"));
        let validity = Validity::of(Duration::from_secs(24 * 3600));
        let own = authority.issue_credentials(&id.expect("an id"), &["localhost".to_owned()], validity);
        let own = own.expect("a certificate");
        let material = Material::from_pem(
            own.chain_pem.as_bytes(),
            own.key_pem.as_bytes(),
            authority.roots_pem().as_bytes(),
        );
        let (publisher, identity) = identity();
        publisher.publish(material.expect("valid credentials"));
        let tls = identity.server_config(ClientAuth::Required, PeerPolicy::own_trust_domain());
        Self { plane, sidecar, tls: tls.into(), _identity: publisher }
    }

    async fn push(&self, model: &Model) {
        self.plane.push_as(model.file(), model.push()).await.expect("pushed");
        self.plane.stands(&self.sidecar, model.name, "1", VersionState::Ready).await;
    }

    /// Somebody who asks the sidecar, and somebody who asks a server that gives the same answer for nothing.
    async fn callers(&self, model: &Model, way: Way, expected: &[u8]) -> (Caller, Caller, Reply) {
        let own = way.to_sidecar(&self.plane, &self.sidecar, model);
        let reply = own.ask().await.expect("answered");
        reply.check().expect("a success");
        // What is fast and wrong is not fast.
        assert_eq!(reply.scores(), expected, "{} over {}", model.name, way.name());
        let answer = match &reply {
            Reply::Http(reply) => Answer::Http(reply.clone()),
            Reply::Grpc(reply) => Answer::Grpc(Arc::new(reply.clone())),
        };
        let at = floor::serve(answer, way.tls.then(|| self.tls.clone())).await;
        let floor = way.to_floor(&self.plane, at, model);
        floor.ask().await.expect("answered").check().expect("a success");
        (own, floor, reply)
    }

    async fn leave(mut self) {
        self.plane.stop().await;
        self.sidecar.stop().await;
    }
}

/// A model that runs for less time than a request takes: it is the serving that is measured.
async fn small(stage: &Stage, model: Model, rounds: usize, report: &mut Report) {
    const SLICE: Duration = Duration::from_millis(500);
    stage.push(&model).await;
    let direct = Direct::load(&model);
    tch::set_num_threads(1);
    let expected = direct.once(model.tensor(1));
    let mut ways = Vec::new();
    let mut bare = None;
    for way in Way::ALL {
        let (own, floor, reply) = stage.callers(&model, way, &expected).await;
        if let (Reply::Http(reply), Protocol::Binary, false) = (reply, way.protocol, way.tls) {
            let served = Arc::new((Direct::load(&model), Model::tiny()));
            let at = floor::serve(Answer::Run(reply, served), None).await;
            bare = Some(way.to_floor(&stage.plane, at, &model));
        }
        ways.push((way, own, floor));
    }
    let bare = bare.expect("binary is among them");
    for callers in CALLERS {
        eprintln!("{}, {callers} callers: {rounds} rounds", model.name);
        for _ in 0..rounds {
            let raw = direct.run(&model, callers.min(machine::cores()), 1, SLICE);
            for (way, own, floor) in &ways {
                let (floor, own) = (run(floor, callers, SLICE).await, run(own, callers, SLICE).await);
                let name = format!("{}, c={callers}, {}", model.name, way.name());
                if callers == 1 {
                    let most = if way.protocol == Protocol::Binary { 1.4 } else { 1.6 };
                    report.latency(name, Some(Target::AtMost(most)), &own, floor.p50 + raw.p50);
                } else {
                    let asked = way.tls && way.protocol != Protocol::Json;
                    report.rate(name, asked.then_some(Target::AtLeast(0.7)), &own, floor.per_second);
                }
            }
            let bare = run(&bare, callers, SLICE).await;
            let name = format!("{}, c={callers}, libtorch in a bare hyper server, HTTP binary", model.name);
            report.rate(name, None, &bare, raw.per_second);
        }
    }
}

/// A model that runs for longer than a request takes: the threads should do nothing else.
async fn large(stage: &Stage, model: Model, rounds: usize, slice: Duration, report: &mut Report) {
    stage.push(&model).await;
    let direct = Direct::load(&model);
    tch::set_num_threads(1);
    let expected = direct.once(model.tensor(1));
    let mut ways = Vec::new();
    for way in Way::ALL.into_iter().filter(|way| way.tls && way.protocol != Protocol::Json) {
        ways.push((way, stage.callers(&model, way, &expected).await.0));
    }
    eprintln!("{}: {rounds} rounds", model.name);
    for _ in 0..rounds {
        let loops = BATCHES.map(|rows| direct.run(&model, machine::cores(), rows, slice).per_second);
        let best = loops.into_iter().fold(0.0, f64::max);
        for callers in CALLERS {
            for (way, own) in &ways {
                let own = run(own, callers, slice).await;
                let name = format!("{}, c={callers}, {}", model.name, way.name());
                // One caller at a time keeps one core busy.
                let target = (callers == CALLERS[2]).then_some(Target::AtLeast(0.95));
                report.rate(name, target, &own, best);
            }
        }
    }
}

/// Keeps this many requests under way until the slice is over.
async fn run(asked: &Caller, callers: usize, slice: Duration) -> Figure {
    let began = Instant::now();
    let caller = async || {
        let mut latencies = Vec::new();
        while began.elapsed() < slice {
            let sent = Instant::now();
            let reply = asked.ask().await.and_then(|reply| reply.check());
            reply.unwrap_or_else(|error| panic!("a request failed: {error}"));
            latencies.push(sent.elapsed());
        }
        latencies
    };
    let latencies = join_all((0..callers).map(|_| caller())).await.concat();
    Figure::new(latencies, began.elapsed())
}
