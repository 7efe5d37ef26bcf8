//! The yardstick: the same model in a loop that calls libtorch and nothing else.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tch::{CModule, IValue, Tensor};

use crate::{report::Figure, ways::Workload};

pub(crate) struct Direct {
    module: CModule,
    pixels: Vec<f32>,
    images: i64,
}

impl Direct {
    pub(crate) fn load(file: &Path, workload: &Workload) -> Self {
        let module = CModule::load(file).expect("libtorch loads it");
        Self { module, pixels: workload.pixels().to_vec(), images: workload.images() }
    }

    /// The scores, as they travel.
    pub(crate) fn answer(&self) -> Vec<u8> {
        tch::set_num_threads(1);
        self.once()
    }

    /// From a request's numbers to an answer's: what a server cannot do without.
    fn once(&self) -> Vec<u8> {
        let input = Tensor::from_slice(&self.pixels).reshape([self.images, 64]);
        let output = tch::no_grad(|| self.module.forward_is(&[IValue::Tensor(input)])).expect("it runs");
        let scores = match output {
            IValue::Tensor(scores) => scores,
            other => panic!("scores, not {other:?}"),
        };
        let scores: Vec<f32> = scores.reshape([-1]).try_into().expect("numbers");
        scores.iter().flat_map(|score| score.to_le_bytes()).collect()
    }

    /// The loop on this many threads, each as the sidecar's inference threads are set up.
    pub(crate) fn run(&self, threads: usize, slice: Duration) -> Figure {
        let began = Instant::now();
        let worker = || {
            tch::set_num_threads(1);
            let mut latencies = Vec::new();
            while began.elapsed() < slice {
                let asked = Instant::now();
                std::hint::black_box(self.once());
                latencies.push(asked.elapsed());
            }
            latencies
        };
        let latencies = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
        });
        Figure::new(latencies, began.elapsed())
    }
}
