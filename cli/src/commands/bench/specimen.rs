//! For tests: results of a small run in which everything happened once.

use std::time::{Duration, Instant};

use super::{
    events::Happened,
    load::Load,
    machine::Machine,
    record::{Failed, Record, Sample},
    results::{Point, Results, Run, Settings},
};
use crate::args::{Arrivals, Protocol};

/// Results with this many points, all the same.
pub(super) fn results(points: usize) -> Results {
    Results {
        sconce: env!("CARGO_PKG_VERSION"),
        began_at: "2026-11-29T15:00:00Z".into(),
        server: "https://localhost:8443".into(),
        security: "mTLS",
        model: "digits".into(),
        machine: Machine::this(),
        settings: Settings {
            inputs: "made up",
            version: None,
            duration_s: 1.0,
            requests: None,
            warmup_s: 0.0,
            timeout_s: 10.0,
            outstanding: 256,
            connections: None,
            threads: 1,
            seed: 1,
            http2: false,
        },
        interrupted: false,
        points: (0..points).map(|_| point()).collect(),
    }
}

/// Two answers by two versions, a failure, one that was not sent, and a split.
pub(super) fn point() -> Point {
    let mut record = Record::new(Duration::from_millis(100));
    let ms = Duration::from_millis;
    let sample = |at, took, outcome| Sample { due: ms(at), sent: ms(at + 2), done: ms(at + took), outcome };
    record.add(sample(10, 5, Ok("1".into())));
    record.add(sample(900, 8, Ok("2".into())));
    record.add(sample(500, 3, Err(Failed { kind: "HTTP 503".into(), text: "the queue is full".into() })));
    record.unsent(ms(510));
    let began = Instant::now();
    let split = Happened {
        at: began + ms(500),
        kind: "split.changed".into(),
        version: String::new(),
        message: "digits is split 1=0 2=100".into(),
    };
    Run {
        protocol: Protocol::Binary,
        load: Load::Open { arrivals: Arrivals::Poisson, rate: 100.0 },
        request_bytes: 423,
        record: &record,
        began,
        took: Duration::from_secs(1),
        connections: 2,
        happened: vec![split],
    }
    .point()
}
