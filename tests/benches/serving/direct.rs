//! The yardstick: the same model in a loop that calls libtorch and nothing else.

use std::{
    thread,
    time::{Duration, Instant},
};

use tch::{CModule, IValue, Tensor};

use crate::{models::Model, report::Figure};

pub(crate) struct Direct {
    module: CModule,
}

impl Direct {
    pub(crate) fn load(model: &Model) -> Self {
        Self { module: CModule::load(model.file()).expect("libtorch loads it") }
    }

    /// From a request's bytes to an answer's: what a server cannot do without.
    pub(crate) fn once(&self, input: Tensor) -> Vec<u8> {
        let output = tch::no_grad(|| self.module.forward_is(&[IValue::Tensor(input)])).expect("it runs");
        let scores = match output {
            IValue::Tensor(scores) => scores,
            other => panic!("scores, not {other:?}"),
        };
        let scores: Vec<f32> = scores.reshape([-1]).try_into().expect("numbers");
        scores.iter().flat_map(|score| score.to_le_bytes()).collect()
    }

    /// The loop on this many threads, each as the sidecar's inference threads are set up. The figure
    /// counts rows.
    pub(crate) fn run(&self, model: &Model, threads: usize, rows: i64, slice: Duration) -> Figure {
        let began = Instant::now();
        let worker = || {
            tch::set_num_threads(1);
            let mut latencies = Vec::new();
            while began.elapsed() < slice {
                let asked = Instant::now();
                std::hint::black_box(self.once(model.tensor(rows)));
                latencies.push(asked.elapsed());
            }
            latencies
        };
        let latencies = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
        });
        Figure::new(latencies, began.elapsed()).times(rows as f64)
    }
}
