//! Who runs next: the decisions of the pool, without its threads.
//!
//! Each version has a queue of its own, in the order of priority and arrival. Between versions the
//! time of the inference threads is shared alike: a free thread goes to the version that has had
//! the least of it, by a clock that does not let a version save up while nobody asks for it
//! (start-time fair queueing, Goyal et al., SIGCOMM 1996).
//!
//! A run cannot be interrupted, so a slow model could keep a fast one waiting on every thread. A
//! version may therefore have as many runs at once as there are CPUs, and there is one thread more
//! than that: it is for a version of which nothing runs. The operating system then shares the CPUs
//! between them as it would between two processes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Priority, RunError, State, batch,
    meters::Saved,
    queue::{Entry, Line, Place, Waiting},
};

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at once, of one version.
    pub runs: usize,
    /// Requests that may wait for one version.
    pub queue: usize,
    /// Rows that a batch may have; a request that has more runs alone.
    pub batch_rows: usize,
    /// How long a batch should run at most, where rows enough wait for more.
    pub batch_target: Option<Duration>,
}

/// The queues that have something in them or running, and the threads' clock.
pub(super) struct Schedule {
    limits: Limits,
    active: Vec<Arc<Line>>,
    /// Threads that run something.
    busy: usize,
    clock: f64,
}

/// What a thread is to do. Kept by the thread, so that it need not be allocated anew.
#[derive(Default)]
pub(super) struct Turn {
    /// The members of the batch, or the one request.
    pub(super) members: Vec<Entry>,
    /// Requests that are to be told why they did not run.
    pub(super) dropped: Vec<(Entry, RunError)>,
    charged: f64,
}

/// A request was not taken in. Boxed: most are, and what is large is copied at every step.
pub(super) struct Refused {
    pub(super) entry: Box<Entry>,
    pub(super) error: RunError,
}

/// Requests per run that are estimated to wait longer than their deadlines are refused when they
/// come. Runs vary: without some room, every second one that is let in at the edge would be late.
const ROOM: f64 = 1.25;
/// No wait is longer, so that sums with it stay in bounds.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Limits {
    /// Threads that these limits need.
    pub(super) fn threads(&self) -> usize {
        self.runs + 1
    }
}

impl Schedule {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, active: Vec::new(), busy: 0, clock: 0.0 }
    }

    /// Takes a request in. Gives back the one that had to go for it, if one had to.
    pub(super) fn submit(
        &mut self,
        line: &Arc<Line>,
        (priority, entry): (Priority, Entry),
        now: Instant,
    ) -> Result<(Place, Option<Refused>), Refused> {
        let mut waiting = line.waiting();
        let wait = self.wait(line, &waiting, priority);
        let left = entry.deadline.saturating_duration_since(now);
        let (run, full) = (waiting.estimate.of(entry.rows), waiting.len() >= self.limits.queue);
        let needed = wait.saturating_add(run).mul_f64(ROOM);
        // With nothing before it, it is tried: its turn is now.
        if left.is_zero() || !wait.is_zero() && run > left {
            line.meters.saved(Saved::Late, entry.rows);
            return Err(Refused { entry: Box::new(entry), error: RunError::Late });
        } else if !wait.is_zero() && needed > left {
            // By then what waits now has become so much less, if nobody else comes.
            return Err(Refused {
                entry: Box::new(entry),
                error: RunError::Overloaded { retry: needed - left },
            });
        } else if full && !waiting.yields_to(priority) {
            // Once half of it is gone there is room again, and not for one request alone.
            return Err(Refused { entry: Box::new(entry), error: RunError::Overloaded { retry: wait / 2 } });
        }
        let displaced = if full { waiting.take_last() } else { None };
        let displaced = displaced.map(|entry| {
            line.meters.saved(Saved::Displaced, entry.rows);
            Refused { entry: Box::new(entry), error: RunError::Overloaded { retry: wait / 2 } }
        });
        if waiting.is_empty() && waiting.running == 0 {
            waiting.used = waiting.used.max(self.clock);
            if !self.active.iter().any(|active| Arc::ptr_eq(active, line)) {
                self.active.push(Arc::clone(line));
            }
        }
        let place = waiting.push(priority, entry);
        line.meters.queued(waiting.len());
        Ok((place, displaced))
    }

    /// Takes a request out that has become useless, if it has not begun.
    pub(super) fn leave(&mut self, line: &Arc<Line>, place: Place, why: Saved) -> Option<Entry> {
        let mut waiting = line.waiting();
        let entry = waiting.leave(place)?;
        line.meters.saved(why, entry.rows);
        self.settle(line, &waiting);
        Some(entry)
    }

    /// Whether a thread that is free now would have something to run.
    pub(super) fn has_turn(&self) -> bool {
        self.active.iter().any(|line| self.may_run(line, &line.waiting()))
    }

    /// The next turn of a thread, into `turn`. Without a line there is nothing to run, but there may
    /// be requests to be told so.
    pub(super) fn next(&mut self, now: Instant, turn: &mut Turn) -> Option<Arc<Line>> {
        loop {
            let candidates = self.active.iter().filter_map(|line| {
                let waiting = line.waiting();
                self.may_run(line, &waiting).then_some((line, waiting.used))
            });
            let (line, used) = candidates.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
            let line = Arc::clone(line);
            let mut waiting = line.waiting();
            self.fill(&line, &mut waiting, now, turn);
            line.meters.queued(waiting.len());
            if turn.members.is_empty() {
                // All of it was of no use any more.
                self.settle(&line, &waiting);
                continue;
            }
            self.clock = self.clock.max(used);
            self.busy += 1;
            waiting.running += 1;
            let rows = turn.members.iter().map(|entry| entry.rows).sum();
            turn.charged = waiting.estimate.of(rows).as_secs_f64();
            waiting.used += turn.charged;
            drop(waiting);
            return Some(line);
        }
    }

    /// A turn is over. `observed`: runs of this many rows that took this long and succeeded.
    pub(super) fn finished(
        &mut self,
        line: &Arc<Line>,
        turn: &Turn,
        took: Duration,
        observed: Option<(usize, Duration)>,
    ) {
        let mut waiting = line.waiting();
        self.busy -= 1;
        waiting.running -= 1;
        waiting.used += took.as_secs_f64() - turn.charged;
        if let Some((rows, took)) = observed {
            waiting.estimate.observe(rows, took);
        }
        self.settle(line, &waiting);
    }

    /// Runs of this version that may be going on at once.
    fn at_once(&self, line: &Line) -> usize {
        if line.module.state() == State::Shared { 1 } else { self.limits.runs }
    }

    fn may_run(&self, line: &Line, waiting: &Waiting) -> bool {
        let spare = waiting.running == 0 && self.busy < self.limits.threads();
        let usual = waiting.running < self.at_once(line) && self.busy < self.limits.runs;
        !waiting.is_empty() && (spare || usual)
    }

    /// How long it will take, about, until a request of this priority could begin.
    fn wait(&self, line: &Line, waiting: &Waiting, priority: Priority) -> Duration {
        let at_once = self.at_once(line);
        let rows = waiting.before(priority);
        if rows == 0 && waiting.running < at_once && self.busy < self.limits.threads() {
            return Duration::ZERO;
        }
        let most = if line.batches() { self.batch_rows(waiting) } else { 1 };
        // What runs now is half done, on average.
        let running = waiting.estimate.mean().mul_f64(waiting.running as f64 / 2.0);
        let work = waiting.estimate.in_runs(rows, most) + running;
        let others = self.active.iter().filter(|active| !std::ptr::eq(Arc::as_ptr(active), line)).count();
        let share = (self.limits.runs as f64 / (others + 1) as f64).min(at_once as f64);
        // Something to wait for there is, whatever the estimate says.
        let wait = Duration::try_from_secs_f64(work.as_secs_f64() / share).unwrap_or(LONGEST);
        wait.clamp(Duration::from_nanos(1), LONGEST)
    }

    /// Rows that a batch of this version should have at most.
    fn batch_rows(&self, waiting: &Waiting) -> usize {
        let target = self.limits.batch_target.map_or(usize::MAX, |target| waiting.estimate.within(target));
        self.limits.batch_rows.min(target).max(1)
    }

    /// Takes the next request out, and those that can run with it as one batch.
    fn fill(&self, line: &Line, waiting: &mut Waiting, now: Instant, turn: &mut Turn) {
        let Some(head) = first(line, waiting, now, turn) else { return };
        let (mut rows, mut due) = (head.rows, head.deadline);
        let joins = head.joins && line.batches();
        turn.members.push(head);
        if !joins {
            return;
        }
        // What waits is shared by the threads that are about to take part of it.
        let free = self.limits.runs.saturating_sub(self.busy + 1);
        let most = self.batch_rows(waiting).min((rows + waiting.rows()).div_ceil(free + 1));
        let mut at = 0;
        while let Some(entry) = waiting.at(at) {
            let signature = line.module.signature();
            if !entry.joins || !batch::are_alike(signature, &turn.members[0].inputs, &entry.inputs) {
                at += 1;
                continue;
            }
            let together = rows + entry.rows;
            let ends = now + waiting.estimate.of(together);
            if together > most || ends > due.min(entry.deadline) && is_fine(entry, now, waiting) {
                break;
            }
            let Some(entry) = waiting.take(at) else { break };
            if let Some(entry) = judged(line, waiting, entry, now, turn) {
                (rows, due) = (together, due.min(entry.deadline));
                turn.members.push(entry);
            }
        }
    }

    /// Forgets a queue that has nothing to do.
    fn settle(&mut self, line: &Arc<Line>, waiting: &Waiting) {
        line.meters.queued(waiting.len());
        if waiting.is_empty() && waiting.running == 0 {
            self.active.retain(|active| !Arc::ptr_eq(active, line));
        }
    }
}

/// The next request that may run.
fn first(line: &Line, waiting: &mut Waiting, now: Instant, turn: &mut Turn) -> Option<Entry> {
    loop {
        let entry = waiting.take(0)?;
        if let Some(entry) = judged(line, waiting, entry, now, turn) {
            return Some(entry);
        }
    }
}

fn is_fine(entry: &Entry, now: Instant, waiting: &Waiting) -> bool {
    let in_time = now < entry.deadline && now + waiting.estimate.of(entry.rows) <= entry.deadline;
    in_time && !entry.is_abandoned() && !entry.is_withdrawn()
}

/// The request, or nothing where it is of no use to run it.
fn judged(line: &Line, waiting: &mut Waiting, entry: Entry, now: Instant, turn: &mut Turn) -> Option<Entry> {
    if is_fine(&entry, now, waiting) {
        return Some(entry);
    }
    let error = if entry.is_withdrawn() && !entry.is_abandoned() {
        RunError::Withdrawn(Vec::new())
    } else {
        let saved = if entry.is_abandoned() { Saved::Abandoned } else { Saved::Late };
        line.meters.saved(saved, entry.rows);
        line.failed(&entry);
        if entry.deadline > now && saved == Saved::Late {
            waiting.estimate.doubt();
        }
        RunError::Late
    };
    turn.dropped.push((entry, error));
    None
}

#[cfg(test)]
mod tests;
