//! The complete list of what a process does, and how it stops.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Fires when the process should finish what it does and take nothing new.
pub type Stopping = tokio_util::sync::CancellationToken;

/// Tracks every task by name; one that ends early ends the process.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    leaving: Stopping,
    stopping: Stopping,
    drained: Stopping,
    ended: mpsc::UnboundedSender<&'static str>,
}

/// Receives the name of a task that ended although nobody asked it to.
pub struct EndedEarly(mpsc::UnboundedReceiver<&'static str>);

impl Tasks {
    /// No tasks yet, and where to learn of one that ends early.
    pub fn new() -> (Self, EndedEarly) {
        // Bounded by the number of tasks, each of which ends once.
        let (ended, receiver) = mpsc::unbounded_channel();
        let leaving = Stopping::new();
        let (stopping, drained) = (Stopping::new(), Stopping::new());
        let tasks = Self { tracker: TaskTracker::new(), leaving, stopping, drained, ended };
        (tasks, EndedEarly(receiver))
    }

    /// Runs a task that should end only after [`stopping`](Self::stopping) has fired.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let early = Early { name, tasks: self.clone() };
        self.tracker.spawn(async move {
            // Dropped also when the task panics, so a panic is noticed as well.
            let _early = early;
            task.await;
        });
    }

    /// Runs a task that goes on while the others drain, such as the admin port: probes
    /// should read "stopping" rather than find a closed port. It is ended when
    /// [`stop`](Self::stop) returns.
    pub fn spawn_through_drain(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (early, drained) = (Early { name, tasks: self.clone() }, self.drained.clone());
        tokio::spawn(async move {
            let _early = early;
            drained.run_until_cancelled(task).await;
        });
    }

    /// Fires when the process stops; every long-running part watches it.
    pub fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }

    /// Fires when nothing new should be sent here, though what comes is still answered.
    pub fn leaving(&self) -> Stopping {
        self.leaving.clone()
    }

    /// Says that the process is about to stop, and gives those who send to it this long to
    /// learn of it.
    pub async fn leave(&self, linger: Duration) {
        self.leaving.cancel();
        tokio::time::sleep(linger).await;
    }

    /// Asks every task to finish and waits for them, at most for `grace`.
    ///
    /// Returns whether all of them finished in time.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.leaving.cancel();
        self.stopping.cancel();
        self.tracker.close();
        let finished = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        self.drained.cancel();
        finished
    }
}

impl EndedEarly {
    /// The next task that ends early; pending for ever if none does.
    pub async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

struct Early {
    name: &'static str,
    tasks: Tasks,
}

impl Drop for Early {
    fn drop(&mut self) {
        if !self.tasks.stopping.is_cancelled() {
            tracing::error!(task = self.name, "a task ended although the process is not stopping");
            // Nobody listening means that the process is ending already.
            let _ = self.tasks.ended.send(self.name);
        }
    }
}

/// Waits for SIGTERM or SIGINT and says which it was.
///
/// # Errors
/// Where the signal handlers cannot be installed.
pub async fn terminated() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_task_that_ends_or_panics_early_is_named() {
        let (tasks, mut ended) = Tasks::new();
        tasks.spawn("ends", async {});
        assert_eq!(ended.next().await, "ends");
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(ended.next().await, "panics");
    }

    #[tokio::test]
    async fn stopping_waits_for_tasks_and_says_when_one_does_not_finish() {
        let (tasks, _ended) = Tasks::new();
        let stopping = tasks.stopping();
        tasks.spawn("polite", async move { stopping.cancelled().await });
        assert!(tasks.stop(PATIENCE).await);

        let (tasks, _ended) = Tasks::new();
        tasks.spawn("stuck", std::future::pending());
        assert!(!tasks.stop(Duration::from_millis(20)).await);
    }
}
