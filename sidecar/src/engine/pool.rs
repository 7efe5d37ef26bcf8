//! The threads that run models.
//!
//! Threads of our own, because a forward pass would stall every other request of a Tokio
//! worker. One bounded queue feeds them: when it is full, a request is refused at once
//! rather than made to wait for an answer that comes too late.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sconce_telemetry::names;
use tokio::sync::oneshot;

use super::{Engine, EngineError, Module, Output, Tensor};

/// Handle to the inference threads.
#[derive(Clone)]
pub struct Pool {
    /// `None` once stopped: the threads end when every sender is gone.
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Why a model did not run, or what it ran into.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The queue is full.
    #[error("the server is overloaded; try again shortly")]
    Overloaded,
    /// The process is ending.
    #[error("the server is stopping")]
    Stopping,
    /// It was not to begin any more when its turn came. Its inputs come back.
    #[error("the version was withdrawn")]
    Withdrawn(Vec<Option<Tensor>>),
    /// The model or its inputs are at fault.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Whether requests that wait for a model may still begin. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Permit(Arc<AtomicBool>);

struct Job {
    module: Arc<dyn Module>,
    inputs: Vec<Option<Tensor>>,
    /// None where the caller asked for this very model.
    permit: Option<Permit>,
    queued: Instant,
    reply: oneshot::Sender<Result<Vec<Output>, RunError>>,
}

impl Permit {
    /// Lets waiting requests begin, or not any more.
    pub fn set(&self, may_begin: bool) {
        self.0.store(may_begin, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Permit {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Pool {
    /// Starts this many threads with room for `queue` waiting requests.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(engine: &Arc<dyn Engine>, threads: usize, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = bounded::<Job>(queue);
        let handles = (0..threads).map(|number| {
            let (receiver, engine) = (receiver.clone(), Arc::clone(engine));
            thread::Builder::new().name(format!("inference-{number}")).spawn(move || {
                engine.prepare_thread();
                work(&receiver);
            })
        });
        let handles = handles.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { jobs: Arc::new(Mutex::new(Some(sender))), threads: Arc::new(Mutex::new(handles)) })
    }

    /// Runs the model on these inputs. Dropping the future takes the request out of the
    /// queue, if it has not begun.
    ///
    /// # Errors
    /// Where the queue is full, the process is ending, the permit has gone, or the model fails.
    pub async fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
        permit: Option<Permit>,
    ) -> Result<Vec<Output>, RunError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { module, inputs, permit, queued: Instant::now(), reply };
        match &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return Err(RunError::Stopping),
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => RunError::Overloaded,
                TrySendError::Disconnected(_) => RunError::Stopping,
            })?,
        }
        answer.await.map_err(|_| RunError::Stopping)?
    }

    /// Finishes what is queued and ends the threads. libtorch must not run while the
    /// process exits.
    pub fn stop(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A thread catches the panics of its jobs, so it ends only in order.
            let _ = thread.join();
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(Job { module, inputs, permit, queued, reply }) = jobs.recv() {
        // The caller has gone: nobody would read the answer.
        if reply.is_closed() {
            continue;
        }
        if permit.is_some_and(|permit| !permit.is_given()) {
            drop(module);
            let _ = reply.send(Err(RunError::Withdrawn(inputs)));
            continue;
        }
        metrics::histogram!(names::QUEUE_SECONDS).record(queued.elapsed());
        let outcome = catch_unwind(AssertUnwindSafe(|| module.forward(inputs)));
        // Before the reply: afterwards this could be the last reference, and freeing a
        // model is no work for an inference thread.
        drop(module);
        let outcome = outcome.unwrap_or_else(|_| Err(EngineError::Model("it made the server panic".into())));
        let _ = reply.send(outcome.map_err(RunError::Engine));
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Barrier};

    use sconce_catalog::Signature;

    use super::*;

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

    struct Gate {
        entered: Barrier,
        leave: Barrier,
        signature: Signature,
    }

    impl Module for Gate {
        fn signature(&self) -> &Signature {
            &self.signature
        }
        fn forward(&self, _: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
            self.entered.wait();
            self.leave.wait();
            Ok(Vec::new())
        }
    }

    struct Panics(Signature);

    impl Module for Panics {
        fn signature(&self) -> &Signature {
            &self.0
        }
        fn forward(&self, _: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
            panic!("on purpose")
        }
    }

    fn pool(threads: usize, queue: usize) -> Pool {
        let engine: Arc<dyn Engine> = Arc::new(NoEngine);
        Pool::start(&engine, threads, queue).expect("threads start")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_refuses_and_a_dropped_request_never_runs() {
        let pool = pool(1, 1);
        let gate = Arc::new(Gate {
            entered: Barrier::new(2),
            leave: Barrier::new(2),
            signature: Signature::default(),
        });
        let running = tokio::spawn({
            let (pool, gate) = (pool.clone(), Arc::clone(&gate));
            async move { pool.run(gate, vec![], None).await }
        });
        // The thread is inside the model now, so the next request waits and the one after is refused.
        tokio::task::spawn_blocking({
            let gate = Arc::clone(&gate);
            move || gate.entered.wait()
        })
        .await
        .expect("the model was entered");
        let mut waiting = Box::pin(pool.run(Arc::new(Panics(Signature::default())), vec![], None));
        assert!(futures::poll!(&mut waiting).is_pending());
        let refused = pool.run(Arc::clone(&gate) as Arc<dyn Module>, vec![], None).await;
        assert!(matches!(refused, Err(RunError::Overloaded)), "{refused:?}");
        drop(waiting);
        tokio::task::spawn_blocking(move || gate.leave.wait()).await.expect("the model was left");
        assert!(running.await.expect("no panic").is_ok());
        tokio::task::spawn_blocking(move || pool.stop()).await.expect("the dropped request did not run");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_when_its_permit_goes_never_begins_and_gets_its_inputs_back() {
        let pool = pool(1, 2);
        let gate = Arc::new(Gate {
            entered: Barrier::new(2),
            leave: Barrier::new(2),
            signature: Signature::default(),
        });
        let permit = Permit::default();
        let running = tokio::spawn({
            let (pool, gate, permit) = (pool.clone(), Arc::clone(&gate), permit.clone());
            async move { pool.run(gate, vec![], Some(permit)).await }
        });
        let entered = Arc::clone(&gate);
        tokio::task::spawn_blocking(move || entered.entered.wait()).await.expect("the model was entered");
        let panics = Arc::new(Panics(Signature::default()));
        let mut waiting = Box::pin(pool.run(panics, vec![None, None], Some(permit.clone())));
        assert!(futures::poll!(&mut waiting).is_pending());
        permit.set(false);
        tokio::task::spawn_blocking(move || gate.leave.wait()).await.expect("the model was left");
        assert!(running.await.expect("no panic").is_ok(), "what had begun ends in order");
        let withdrawn = waiting.await;
        assert!(matches!(&withdrawn, Err(RunError::Withdrawn(inputs)) if inputs.len() == 2), "{withdrawn:?}");
        tokio::task::spawn_blocking(move || pool.stop()).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_panic_is_the_models_failure_and_the_thread_lives_on() {
        let pool = pool(1, 4);
        for _ in 0..2 {
            let failed = pool.run(Arc::new(Panics(Signature::default())), vec![], None).await;
            assert!(matches!(failed, Err(RunError::Engine(EngineError::Model(_)))), "{failed:?}");
        }
        pool.stop();
        let late = pool.run(Arc::new(Panics(Signature::default())), vec![], None).await;
        assert!(matches!(late, Err(RunError::Stopping)));
    }
}
