//! One module, many threads.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use sconce_sidecar::engine::{Limits, Module, Output, Pool, Queue, Tensor, Work};

use super::{THREADS, as_floats, as_integers, bytes, engine, floats, integers, load, together, uneven};

fn run(module: &dyn Module, input: Tensor) -> Vec<Output> {
    module.forward(vec![Some(input)]).expect("runs")
}

#[test]
fn threads_that_share_a_model_get_bitwise_the_answers_of_one() {
    // Fresh for the threads, so that they also meet in the first, compiling runs.
    for name in ["mlp", "convolution", "branchy"] {
        let shape: &[u64] = match name {
            "convolution" => &[1, 3, 8, 8],
            "branchy" => &[1, 8],
            _ => &[1, 16],
        };
        let alone = load(name);
        let expected: Vec<Vec<u8>> =
            (0..16).map(|seed| bytes(&run(alone.as_ref(), uneven(shape, seed))[0]).to_vec()).collect();
        let shared = load(name);
        together(|number| {
            for round in 0..500 {
                let seed = (round + number * 5) % 16;
                let outputs = run(shared.as_ref(), uneven(shape, seed));
                assert_eq!(bytes(&outputs[0]), expected[seed], "{name}");
            }
        });
    }
}

#[test]
fn requests_of_an_instance_take_turns() {
    let counter = load("counter").instance().expect("a copy");
    let rounds = 1_000;
    let seen = together(|_| {
        (0..rounds)
            .map(|_| as_integers(&run(counter.as_ref(), integers(&[1], &[1]))[0])[0])
            .collect::<Vec<_>>()
    });
    let seen: BTreeSet<i64> = seen.into_iter().flatten().collect();
    // Every count was given exactly once.
    let all = i64::try_from(THREADS * rounds).expect("small");
    assert_eq!(seen, (1..=all).collect());
}

#[test]
fn an_answer_is_not_changed_by_the_next_request() {
    // It gives its own state away, which every request writes to.
    let accumulate = load("accumulate").instance().expect("a copy");
    let first = run(accumulate.as_ref(), floats(&[1], &[1.0]));
    let answers =
        together(|_| (0..200).map(|_| run(accumulate.as_ref(), floats(&[1], &[1.0]))).collect::<Vec<_>>());
    assert!(as_floats(&first[0]).iter().all(|value| *value == 1.0));
    for outputs in answers.iter().flatten() {
        let values = as_floats(&outputs[0]);
        assert!(values.iter().all(|value| *value == values[0]), "torn: {values:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_runs_a_model_for_many_callers_at_once() {
    let engine = engine();
    let limits = Limits { runs: 2, queue: 64, batch_rows: 8, batch_target: None };
    let pool = Pool::start(&engine, limits).expect("threads start");
    let module = load("mlp");
    let expected: Vec<Vec<u8>> =
        (0..8).map(|seed| bytes(&run(module.as_ref(), uneven(&[1, 16], seed))[0]).to_vec()).collect();
    let queue = Queue::new(module, "mlp", "1");
    let calls = (0..64).map(|call| {
        let (pool, queue) = (pool.clone(), queue.clone());
        let work = Work {
            inputs: vec![Some(uneven(&[1, 16], call % 8))],
            permit: None,
            deadline: Instant::now() + Duration::from_secs(60),
            priority: Default::default(),
            turn: None,
        };
        async move { (call % 8, pool.run(&queue, work).await) }
    });
    for (seed, outputs) in futures::future::join_all(calls).await {
        assert_eq!(bytes(&outputs.expect("runs")[0]), expected[seed]);
    }
    pool.stop();
}
