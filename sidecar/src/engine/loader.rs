//! The thread that loads, warms and frees models.
//!
//! One thread, niced to the end of the queue: loading costs as much CPU as serving, and
//! without that it doubles everybody's latency. Its stack is large because libtorch's
//! parser recurses with the nesting of a model's code.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use sconce_catalog::Signature;
use tokio::sync::oneshot;

use super::{Engine, EngineError, Module, warm};

/// Handle to the loader's thread.
#[derive(Clone)]
pub struct Loader {
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Job {
    Load { file: PathBuf, declared: Signature, reply: oneshot::Sender<Result<Arc<dyn Module>, EngineError>> },
    Free(Box<dyn Any + Send>),
    Drop(Box<dyn Any + Send>),
}

/// Address space, of which only what is used costs memory.
const STACK: usize = 256 << 20;

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system refuses it.
    pub fn start(engine: Arc<dyn Engine>) -> io::Result<Self> {
        // Bounded by its callers: who loads waits for each answer, and nothing is freed that
        // was not loaded. A limit here would make a drop wait, which may be a request's.
        let (sender, receiver) = unbounded();
        let thread = thread::Builder::new().name("loader".into()).stack_size(STACK).spawn(move || {
            step_back();
            engine.prepare_thread();
            work(engine.as_ref(), &receiver);
        })?;
        Ok(Self { jobs: Arc::new(Mutex::new(Some(sender))), thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Loads the model in this file and runs it until it is warm.
    ///
    /// # Errors
    /// Where it cannot be loaded, or fails on inputs of the shapes it declares.
    pub async fn load(&self, file: PathBuf, declared: Signature) -> Result<Arc<dyn Module>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Load { file, declared, reply });
        answer.await.unwrap_or_else(|_| Err(EngineError::Load("the server is stopping".into())))
    }

    /// Drops something large here instead of where it is, and hands its memory back.
    pub fn free(&self, garbage: Box<dyn Any + Send>) {
        self.send(Job::Free(garbage));
    }

    /// Drops something here instead of where it is. Its memory stays with the process.
    pub fn drop_here(&self, garbage: Box<dyn Any + Send>) {
        self.send(Job::Drop(garbage));
    }

    /// Finishes what is queued and ends the thread.
    pub fn stop(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The thread catches the panics of its jobs, so it ends only in order.
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // After the thread has ended the job is dropped here, which is as good then.
            let _ = jobs.send(job);
        }
    }
}

fn work(engine: &dyn Engine, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Free(garbage) => {
                drop(garbage);
                engine.release_memory();
            }
            Job::Drop(garbage) => drop(garbage),
            // The caller has gone: nobody would own the model.
            Job::Load { reply, .. } if reply.is_closed() => {}
            Job::Load { file, declared, reply } => {
                let loaded =
                    catch_unwind(AssertUnwindSafe(|| engine.load(&file, &declared).and_then(warm::warm)));
                let loaded =
                    loaded.unwrap_or_else(|_| Err(EngineError::Load("it made the loader panic".into())));
                if loaded.is_err() {
                    engine.release_memory();
                }
                if let Err(unwanted) = reply.send(loaded) {
                    drop(unwanted);
                    engine.release_memory();
                }
            }
        }
    }
}

/// Gives way to every thread that answers requests.
fn step_back() {
    // SAFETY: a plain system call about the calling thread; on Linux "process 0" is the thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } != 0;
    if refused {
        tracing::warn!(error = %io::Error::last_os_error(), "the loader cannot lower its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use super::*;

    /// Loads nothing, and counts how often it was asked.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Engine for Counting {
        fn platform(&self) -> &'static str {
            "none"
        }
        fn prepare_thread(&self) {}
        fn load(&self, file: &Path, _: &Signature) -> Result<Arc<dyn Module>, EngineError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(!file.ends_with("panics"), "on purpose");
            Err(EngineError::Load("nothing is loaded here".into()))
        }
        fn release_memory(&self) {}
    }

    /// Keeps whoever drops it until the other end is gone.
    struct Hold(mpsc::Receiver<()>);

    impl Drop for Hold {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    fn loader() -> (Arc<Counting>, Loader) {
        let engine = Arc::new(Counting::default());
        let loader = Loader::start(Arc::clone(&engine) as Arc<dyn Engine>).expect("a thread");
        (engine, loader)
    }

    #[tokio::test]
    async fn an_abandoned_load_is_not_carried_out() {
        let (engine, loader) = loader();
        let (busy, held) = mpsc::channel();
        loader.free(Box::new(Hold(held)));
        let mut abandoned = Box::pin(loader.load("a".into(), Signature::default()));
        assert!(futures::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        drop(busy);
        assert!(loader.load("b".into(), Signature::default()).await.is_err());
        assert_eq!(engine.0.load(Ordering::Relaxed), 1);
        loader.stop();
    }

    #[tokio::test]
    async fn a_panic_while_loading_is_that_models_failure_alone() {
        let (engine, loader) = loader();
        for file in ["panics", "b"] {
            let result = loader.load(file.into(), Signature::default()).await;
            assert!(matches!(result, Err(EngineError::Load(_))));
        }
        assert_eq!(engine.0.load(Ordering::Relaxed), 2);
        loader.stop();
    }

    #[tokio::test]
    async fn the_thread_gives_way_to_all_others() {
        struct Nice(mpsc::Sender<i32>);
        impl Drop for Nice {
            fn drop(&mut self) {
                // SAFETY: a plain system call about the calling thread.
                let _ = self.0.send(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) });
            }
        }
        let (_, loader) = loader();
        let (sender, receiver) = mpsc::channel();
        loader.free(Box::new(Nice(sender)));
        loader.stop();
        assert_eq!(receiver.recv(), Ok(19));
    }
}
