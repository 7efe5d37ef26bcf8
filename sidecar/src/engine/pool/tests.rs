//! The threads, with models that the tests hold by the hand.

mod statistics;

use std::{
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use sconce_catalog::{Batching, Datatype, Field, Kind, Signature};

use super::*;
use crate::engine::{Data, EngineError, Module, Permit, Priority, Tensor};

struct NoEngine;

impl Engine for NoEngine {
    fn platform(&self) -> &'static str {
        "none"
    }
    fn prepare_thread(&self) {}
    fn load(&self, _: &Path, _: &Signature) -> Result<Arc<dyn Module>, EngineError> {
        Err(EngineError::Load("nothing is loaded here".into()))
    }
    fn release_memory(&self) {}
}

type Forward = Box<dyn Fn(Vec<u8>) -> Result<Vec<u8>, EngineError> + Send + Sync>;

/// Gives bytes for bytes, a row for each byte, and counts its runs.
struct Rows {
    signature: Signature,
    runs: AtomicUsize,
    forward: Forward,
}

impl Module for Rows {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let Some(Some(Tensor { data: Data::Fixed(bytes), .. })) = inputs.into_iter().next() else {
            return Err(EngineError::Input("no bytes".into()));
        };
        Ok(vec![Output { name: "y".into(), tensor: tensor((self.forward)(bytes.to_vec())?) }])
    }
}

fn tensor(bytes: Vec<u8>) -> Tensor {
    let shape = vec![bytes.len() as u64];
    Tensor { datatype: Datatype::Uint8, shape, data: Data::Fixed(Bytes::from(bytes)) }
}

fn rows(forward: impl Fn(Vec<u8>) -> Result<Vec<u8>, EngineError> + Send + Sync + 'static) -> Arc<Rows> {
    let x = Field { name: "x".into(), kind: Kind::Tensor, datatype: None, shape: None, optional: false };
    let signature = Signature { inputs: vec![x], outputs: Vec::new(), batching: Some(Batching::Rows) };
    Arc::new(Rows { signature, runs: AtomicUsize::new(0), forward: Box::new(forward) })
}

fn pool(runs: usize, queue: usize) -> Pool {
    let engine: Arc<dyn Engine> = Arc::new(NoEngine);
    let limits = Limits { runs, queue, batch_rows: 8, batch_target: None };
    Pool::start(&engine, limits).expect("threads start")
}

fn work(bytes: &[u8]) -> Work {
    Work {
        inputs: vec![Some(tensor(bytes.to_vec()))],
        permit: None,
        deadline: Instant::now() + Duration::from_secs(60),
        priority: Priority::default(),
        turn: None,
    }
}

fn given(outcome: Result<Vec<Output>, RunError>) -> Vec<u8> {
    match outcome.expect("answered").remove(0).tensor.data {
        Data::Fixed(bytes) => bytes.to_vec(),
        Data::Strings(_) => panic!("bytes were asked for"),
    }
}

/// A model that stays in its first run until it is let go.
struct Gate {
    entered: Arc<Barrier>,
    leave: mpsc::Sender<()>,
}

/// Such a gate, and what the model does there.
fn gate() -> (Gate, impl Fn() + Send + Sync + 'static) {
    let (leave, left) = mpsc::channel();
    let (entered, left) = (Arc::new(Barrier::new(2)), Mutex::new(Some(left)));
    let inside = Arc::clone(&entered);
    let pass = move || {
        if let Some(left) = left.lock().expect("not poisoned").take() {
            inside.wait();
            let _ = left.recv();
        }
    };
    (Gate { entered, leave }, pass)
}

impl Gate {
    async fn entered(&self) {
        let entered = Arc::clone(&self.entered);
        tokio::task::spawn_blocking(move || entered.wait()).await.expect("the model was entered");
    }
}

async fn stop(pool: Pool) {
    tokio::task::spawn_blocking(move || pool.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_a_dropped_request_never_runs() {
    let (pool, (gate, pass)) = (pool(1, 1), gate());
    let module = rows(move |bytes| {
        pass();
        Ok(bytes)
    });
    let queue = Queue::new(Arc::clone(&module) as Arc<dyn Module>, "m", "1");
    let running = tokio::spawn({
        let (pool, queue) = (pool.clone(), queue.clone());
        async move { pool.run(&queue, work(&[1])).await }
    });
    // The thread is inside the model now, so the next request waits and the one after is refused.
    gate.entered().await;
    let mut waiting = Box::pin(pool.run(&queue, work(&[2])));
    assert!(futures::poll!(&mut waiting).is_pending());
    let refused = pool.run(&queue, work(&[3])).await;
    assert!(matches!(refused, Err(RunError::Overloaded { .. })), "{refused:?}");
    drop(waiting);
    let mut waiting = Box::pin(pool.run(&queue, work(&[4])));
    assert!(futures::poll!(&mut waiting).is_pending(), "it gave its place back");
    gate.leave.send(()).expect("inside");
    assert_eq!(given(running.await.expect("no panic")), [1]);
    assert_eq!(given(waiting.await), [4]);
    assert_eq!(module.runs.load(Ordering::SeqCst), 2);
    stop(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_at_its_deadline_and_not_when_its_turn_comes() {
    let (pool, (gate, pass)) = (pool(1, 2), gate());
    let module = rows(move |bytes| {
        pass();
        Ok(bytes)
    });
    let queue = Queue::new(Arc::clone(&module) as Arc<dyn Module>, "m", "1");
    let mut running = Box::pin(pool.run(&queue, work(&[1])));
    assert!(futures::poll!(&mut running).is_pending());
    gate.entered().await;
    let soon = Work { deadline: Instant::now() + Duration::from_millis(20), ..work(&[2]) };
    assert!(matches!(pool.run(&queue, soon).await, Err(RunError::Late)));
    gate.leave.send(()).expect("it is still inside");
    assert_eq!(given(running.await), [1]);
    assert_eq!(given(pool.run(&queue, work(&[3])).await), [3]);
    assert_eq!(module.runs.load(Ordering::SeqCst), 2, "2 never ran");
    stop(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_when_its_permit_goes_never_begins_and_gets_its_inputs_back() {
    let (pool, (gate, pass)) = (pool(1, 2), gate());
    let queue = Queue::new(
        rows(move |bytes| {
            pass();
            Ok(bytes)
        }),
        "m",
        "1",
    );
    let permit = Permit::default();
    let with = |bytes| Work { permit: Some(permit.clone()), ..work(bytes) };
    let (mut running, mut waiting) =
        (Box::pin(pool.run(&queue, with(&[1]))), Box::pin(pool.run(&queue, with(&[2, 3]))));
    assert!(futures::poll!(&mut running).is_pending());
    gate.entered().await;
    assert!(futures::poll!(&mut waiting).is_pending());
    permit.set(false);
    gate.leave.send(()).expect("inside");
    assert_eq!(given(running.await), [1], "what had begun ends in order");
    let withdrawn = waiting.await;
    let back = [Some(tensor(vec![2, 3]))];
    assert!(matches!(&withdrawn, Err(RunError::Withdrawn(inputs)) if *inputs == back), "{withdrawn:?}");
    stop(pool).await;
}

/// Answers to these requests, which all waited while the thread was busy, and how often the model ran
/// for them.
async fn batch(
    members: &[&[u8]],
    forward: impl Fn(Vec<u8>) -> Result<Vec<u8>, EngineError> + Send + Sync + 'static,
) -> (Vec<Result<Vec<Output>, RunError>>, usize) {
    let (pool, (gate, pass)) = (pool(1, 16), gate());
    let module = rows(move |bytes| {
        pass();
        forward(bytes)
    });
    let queue = Queue::new(Arc::clone(&module) as Arc<dyn Module>, "m", "1");
    let mut first = Box::pin(pool.run(&queue, work(&[0])));
    assert!(futures::poll!(&mut first).is_pending());
    gate.entered().await;
    let mut waiting: Vec<_> = members.iter().map(|bytes| Box::pin(pool.run(&queue, work(bytes)))).collect();
    for member in &mut waiting {
        assert!(futures::poll!(member).is_pending());
    }
    gate.leave.send(()).expect("inside");
    let _ = first.await;
    let answers = futures::future::join_all(waiting).await;
    stop(pool).await;
    (answers, module.runs.load(Ordering::SeqCst) - 1)
}

fn doubled(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().map(|byte| byte * 2).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_run_as_one_and_each_gets_its_own_rows() {
    let (answers, runs) = batch(&[&[1], &[2, 3], &[4]], |bytes| Ok(doubled(bytes))).await;
    let answers: Vec<_> = answers.into_iter().map(given).collect();
    assert_eq!(answers, [&[2][..], &[4, 6], &[8]]);
    assert_eq!(runs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_row_fails_alone() {
    for panics in [false, true] {
        let (mut answers, runs) = batch(&[&[1], &[99], &[4]], move |bytes| {
            let bad = bytes.contains(&99);
            assert!(!(bad && panics), "on purpose");
            if bad { Err(EngineError::Model("99".into())) } else { Ok(doubled(bytes)) }
        })
        .await;
        let bad = answers.remove(1);
        assert!(matches!(bad, Err(RunError::Engine(EngineError::Model(_)))), "{bad:?}");
        let answers: Vec<_> = answers.into_iter().map(given).collect();
        assert_eq!(answers, [&[2][..], &[8]]);
        assert_eq!(runs, 4, "the batch, and each of its three members");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_that_have_no_row_for_each_row_are_answered_one_by_one() {
    // The sum of all rows: one number, however many there are.
    let sum = |bytes: Vec<u8>| Ok(vec![bytes.iter().sum::<u8>()]);
    let (answers, runs) = batch(&[&[1], &[2, 3], &[4]], sum).await;
    let answers: Vec<_> = answers.into_iter().map(given).collect();
    assert_eq!(answers, [&[1][..], &[5], &[4]]);
    assert_eq!(runs, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_batch_while_a_thread_is_free() {
    let pool = pool(1, 16);
    let module = rows(|bytes| Ok(doubled(bytes)));
    let queue = Queue::new(Arc::clone(&module) as Arc<dyn Module>, "m", "1");
    for byte in 0..100 {
        assert_eq!(given(pool.run(&queue, work(&[byte])).await), [byte * 2]);
    }
    assert_eq!(module.runs.load(Ordering::SeqCst), 100);
    stop(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_everybody_is_answered_exactly_what_they_asked() {
    let pool = pool(2, 4096);
    let module = rows(|bytes| Ok(doubled(bytes)));
    let queues =
        [1, 2, 3].map(|number| Queue::new(Arc::clone(&module) as Arc<dyn Module>, "m", &number.to_string()));
    let calls = (0..3_000).map(|number: usize| {
        let (pool, queue) = (pool.clone(), queues[number % 3].clone());
        tokio::spawn(async move {
            let byte = u8::try_from(number % 100).expect("small");
            let mut call = Box::pin(pool.run(&queue, work(&[byte, byte])));
            if number.is_multiple_of(7) {
                // These go away, at whatever moment it is for them.
                let _ = futures::poll!(&mut call);
                return;
            }
            assert_eq!(given(call.await), [byte * 2; 2]);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("answered in order");
    }
    assert!(!pool.0.state().schedule.has_turn(), "nothing is left");
    stop(pool).await;
}

#[tokio::test]
async fn a_panic_is_the_models_failure_and_the_thread_lives_on() {
    let pool = pool(1, 4);
    let queue = Queue::new(rows(|_| panic!("on purpose")), "m", "1");
    for _ in 0..3 {
        let failed = pool.run(&queue, work(&[1])).await;
        assert!(matches!(failed, Err(RunError::Engine(EngineError::Model(_)))), "{failed:?}");
    }
    pool.stop();
    assert!(matches!(pool.run(&queue, work(&[1])).await, Err(RunError::Stopping)));
}
