//! The threads that run models.
//!
//! Threads of our own, because a forward pass would stall every other request of a Tokio
//! worker. What they do next, [`Schedule`] decides, under the one lock of the pool: it is held
//! for as long as it takes to put a request into a queue or to take a batch out.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    Engine, Limits, Output, Queue, RunError, Work,
    meters::Saved,
    queue::{Line, Place, Reply},
    run::{Ran, run},
    schedule::{Refused, Schedule, Turn},
};

/// Handle to the inference threads.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something can run, or everything ends.
    work: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    schedule: Schedule,
    /// Threads that wait for work.
    idle: usize,
    /// Those of them that have been woken and are not here yet.
    woken: usize,
    stopping: bool,
}

/// A place in a queue, given up when this is dropped.
struct Holding<'a> {
    shared: &'a Shared,
    line: &'a Arc<Line>,
    place: Option<Place>,
    /// Why it would be given up now.
    why: Saved,
}

impl Pool {
    /// Starts the threads that these limits need.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(engine: &Arc<dyn Engine>, limits: Limits) -> io::Result<Self> {
        let state = State { schedule: Schedule::new(limits), idle: 0, woken: 0, stopping: false };
        let shared = Shared { state: Mutex::new(state), work: Condvar::new(), threads: Mutex::default() };
        let pool = Self(Arc::new(shared));
        for number in 0..limits.threads() {
            let (shared, engine) = (Arc::clone(&pool.0), Arc::clone(engine));
            let thread = thread::Builder::new().name(format!("inference-{number}")).spawn(move || {
                engine.prepare_thread();
                work(&shared);
            });
            match thread {
                Ok(thread) => pool.threads().push(thread),
                Err(error) => {
                    pool.stop();
                    return Err(error);
                }
            }
        }
        tracing::info!(?limits, threads = limits.threads(), "inference threads started");
        Ok(pool)
    }

    /// Runs a version. Dropping the future takes the request out of the queue, if it has not begun.
    ///
    /// # Errors
    /// Where the queue is full or too long for the deadline, the deadline passes, the permit goes
    /// or the process ends before it has begun, or where the model fails. A run that has begun goes on
    /// when its deadline passes: it cannot be stopped.
    pub async fn run(&self, queue: &Queue, work: Work) -> Result<Vec<Output>, RunError> {
        let (reply, answer) = oneshot::channel();
        let (line, deadline) = (queue.line(), work.deadline);
        let place = self.0.submit(line, work, reply)?;
        let mut holding = Holding { shared: &self.0, line, place: Some(place), why: Saved::Abandoned };
        // Told on time, whatever keeps the threads busy: they look at it only when its turn comes.
        let Ok(answer) = tokio::time::timeout_at(deadline.into(), answer).await else {
            holding.why = Saved::Late;
            return Err(RunError::Late);
        };
        holding.place = None;
        answer.map_err(|_| RunError::Stopping)?
    }

    /// Finishes what is queued and ends the threads. libtorch must not run while the
    /// process exits.
    pub fn stop(&self) {
        self.0.state().stopping = true;
        self.0.work.notify_all();
        let threads: Vec<_> = self.threads().drain(..).collect();
        for thread in threads {
            // A thread catches the panics of models, so it ends only in order.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let left = self.shared.state().schedule.leave(self.line, place, self.why);
        // Its tensors are freed here, without the lock.
        if let Some(entry) = left {
            self.line.failed(&entry);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in, and sees to it that a thread comes for it.
    fn submit(&self, line: &Arc<Line>, work: Work, reply: Reply) -> Result<Place, RunError> {
        let now = Instant::now();
        // Whatever costs time or frees memory is done without the lock.
        let entry = line.entry(work, now, reply);
        let mut state = self.state();
        if state.stopping {
            line.failed(&entry.1);
            return Err(RunError::Stopping);
        }
        let submitted = state.schedule.submit(line, entry, now);
        let wakes = submitted.is_ok() && state.wakes();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
        let (place, displaced) = submitted.map_err(|Refused { entry, error }| {
            line.failed(&entry);
            error
        })?;
        if let Some(Refused { entry, error }) = displaced {
            line.failed(&entry);
            let _ = entry.reply.send(Err(error));
        }
        Ok(place)
    }

    /// The next turn of the calling thread; `None` when there will be no more. A turn without a
    /// line only has requests that are to be told something.
    fn next(&self, before: Option<(Arc<Line>, Ran)>, turn: &mut Turn) -> Option<Option<Arc<Line>>> {
        let mut state = self.state();
        if let Some((line, ran)) = before {
            state.schedule.finished(&line, turn, ran.took, ran.observed);
        }
        loop {
            let line = state.schedule.next(Instant::now(), turn);
            if line.is_some() || !turn.dropped.is_empty() {
                let wakes = state.wakes();
                drop(state);
                if wakes {
                    self.work.notify_one();
                }
                return Some(line);
            }
            if state.stopping {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
    }
}

impl State {
    /// Whether a sleeping thread has to be woken: a system call that is made only where it is of use.
    fn wakes(&mut self) -> bool {
        let wakes = self.idle > self.woken && self.schedule.has_turn();
        self.woken += usize::from(wakes);
        wakes
    }
}

fn work(shared: &Shared) {
    let (mut turn, mut before) = (Turn::default(), None);
    while let Some(line) = shared.next(before.take(), &mut turn) {
        for (entry, error) in turn.dropped.drain(..) {
            let error = match error {
                RunError::Withdrawn(_) => RunError::Withdrawn(entry.inputs),
                error => error,
            };
            let _ = entry.reply.send(Err(error));
        }
        before = line.map(|line| {
            let ran = run(&line, &mut turn.members);
            (line, ran)
        });
    }
}

#[cfg(test)]
mod tests;
