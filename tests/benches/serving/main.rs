//! What serving costs: the digits model over every protocol, against a loop that calls
//! libtorch directly, in turns within one run.
//!
//! Every way is measured in every round, and a round's figure is its ratio to the direct
//! loop of the same round, so that a machine that slows down slows both. The median over
//! the rounds is printed. The callers run on the same cores as the sidecar, and their
//! work is part of what is measured.
//!
//! `BENCH_OUT=file` also writes the table as JSON; `BENCH_ROUNDS` sets the rounds.

mod direct;
mod report;
mod ways;

use std::time::{Duration, Instant};

use futures::future::join_all;
use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, digits};

use self::{
    direct::Direct,
    report::{Figure, Report},
    ways::{Way, Workload},
};

/// How long each way runs in each round.
const SLICE: Duration = Duration::from_millis(600);
const ROUNDS: usize = 7;
/// Callers at a time: one shows the latency, many the throughput.
const CALLERS: [usize; 2] = [1, 16];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test` builds and runs benches too, with this argument and without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("bench", &[("SCONCE_PLAINTEXT_LOOPBACK", "true")]).await;
    plane.push(&digits("v2"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;

    let mut report = Report::default();
    for workload in [Workload::new(1), Workload::new(256)] {
        let direct = Direct::load(&digits("v2"), &workload);
        let ways = Way::all(&plane, &sidecar, &workload);
        for way in &ways {
            // What is fast and wrong is not fast.
            assert_eq!(way.once().await.expect("answered"), direct.answer(), "{}", way.name());
        }
        for callers in CALLERS {
            eprintln!("{} images a request, {callers} callers: {rounds} rounds", workload.images());
            for _ in 0..rounds {
                let base = direct.run(callers.min(cores()), SLICE);
                report.add(&workload, callers, "libtorch directly", &base, &base);
                for way in &ways {
                    let figure = run(way, callers).await;
                    report.add(&workload, callers, way.name(), &figure, &base);
                }
            }
        }
    }
    report.print();
    if let Some(file) = std::env::var_os("BENCH_OUT") {
        std::fs::write(&file, report.json()).expect("BENCH_OUT can be written");
    }
    plane.stop().await;
    sidecar.stop().await;
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps this many requests under way until the slice is over.
async fn run(way: &Way, callers: usize) -> Figure {
    let began = Instant::now();
    let caller = async || {
        let mut latencies = Vec::new();
        while began.elapsed() < SLICE {
            let asked = Instant::now();
            way.once().await.unwrap_or_else(|error| panic!("{}: {error}", way.name()));
            latencies.push(asked.elapsed());
        }
        latencies
    };
    let latencies = join_all((0..callers).map(|_| caller())).await.concat();
    Figure::new(latencies, began.elapsed())
}
