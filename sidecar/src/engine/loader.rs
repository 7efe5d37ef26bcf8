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
}

/// Address space, of which only what is used costs memory.
const STACK: usize = 256 << 20;

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system refuses it.
    pub fn start(engine: Arc<dyn Engine>) -> io::Result<Self> {
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

    /// Drops something large here instead of where it is.
    pub fn free(&self, garbage: Box<dyn Any + Send>) {
        self.send(Job::Free(garbage));
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
            Job::Load { file, declared, reply } => {
                let loaded =
                    catch_unwind(AssertUnwindSafe(|| engine.load(&file, &declared).and_then(warm::warm)));
                let loaded =
                    loaded.unwrap_or_else(|_| Err(EngineError::Load("it made the loader panic".into())));
                if loaded.is_err() {
                    engine.release_memory();
                }
                let _ = reply.send(loaded);
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
