//! The load itself: threads that send requests when they are due and keep what came of them.
//!
//! Latency counts from when a request was due, whatever kept it from being sent: a server that
//! stands still for a second delays every request that was due in that second, and all of them
//! show it. A loop that waited to send them would show one ("coordinated omission").

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    arrivals::Schedule,
    call::Call,
    pool::Pool,
    record::{Failed, Look, Record, Sample},
    target::Target,
    timer::Timer,
};
use crate::args::Arrivals;

/// How long a caller waits after it could not connect, so that it does not do only that.
const RECONNECT: Duration = Duration::from_millis(10);

/// What is to be sent, when and for how long.
pub(super) struct Plan {
    pub(super) target: Target,
    /// Sent in turn.
    pub(super) calls: Vec<Call>,
    pub(super) load: Load,
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    /// At most this many that count.
    pub(super) requests: Option<u64>,
    pub(super) timeout: Duration,
    pub(super) outstanding: u16,
    /// Shared connections, where somebody says how many.
    pub(super) connections: Option<u16>,
    pub(super) threads: u16,
    pub(super) seed: u64,
    /// Width of the slices of the timeline.
    pub(super) slice: Duration,
}

/// What decides when the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Load {
    /// The clock: requests a second.
    Open { arrivals: Arrivals, rate: f64 },
    /// The answers to this many callers.
    Closed { concurrency: u16 },
}

/// A load under way.
pub(super) struct Running {
    threads: Vec<Arc<Thread>>,
    ends: mpsc::UnboundedReceiver<io::Result<()>>,
    /// Threads that have not ended.
    alive: usize,
    stop: watch::Sender<bool>,
    began: Instant,
}

/// One thread, as both sides see it.
struct Thread {
    plan: Arc<Plan>,
    index: u16,
    pool: Pool,
    record: Mutex<Record>,
    /// When the first request may be due, when they begin to count, and when they end.
    from: Instant,
    began: Instant,
    until: Instant,
    /// How many more may count, over all threads.
    left: Arc<AtomicU64>,
    outstanding: AtomicU64,
    stop: watch::Receiver<bool>,
}

impl Plan {
    /// Starts the threads.
    ///
    /// # Errors
    /// Where the system gives no thread or no timer.
    pub(super) fn start(mut self) -> io::Result<Running> {
        if let Load::Closed { concurrency } = self.load {
            self.threads = self.threads.min(concurrency);
        }
        let plan = Arc::new(self);
        let from = Instant::now();
        let began = from + plan.warmup;
        let until = began + plan.duration;
        let left = Arc::new(AtomicU64::new(plan.requests.unwrap_or(u64::MAX)));
        let (stop, stopped) = watch::channel(false);
        let (ended, ends) = mpsc::unbounded_channel();
        let mut threads = vec![];
        for index in 0..plan.threads {
            let thread = Arc::new(Thread {
                pool: Pool::new(plan.target.clone(), plan.shared_connections(index)),
                record: Mutex::new(Record::new(plan.slice)),
                outstanding: AtomicU64::new(0),
                left: left.clone(),
                stop: stopped.clone(),
                plan: plan.clone(),
                index,
                from,
                began,
                until,
            });
            threads.push(thread.clone());
            let ended = ended.clone();
            thread::Builder::new().name(format!("load-{index}")).spawn(move || {
                let _ = ended.send(thread.run());
            })?;
        }
        Ok(Running { alive: threads.len(), threads, ends, stop, began })
    }

    /// Callers of a closed loop on one of the threads.
    fn callers(&self, thread: u16) -> u16 {
        match self.load {
            Load::Closed { concurrency } => {
                concurrency / self.threads + u16::from(thread < concurrency % self.threads)
            }
            Load::Open { .. } => 0,
        }
    }

    fn shared_connections(&self, thread: u16) -> usize {
        match self.connections {
            Some(all) => usize::from(all.div_ceil(self.threads)),
            None => usize::from(self.callers(thread).max(1)),
        }
    }
}

impl Running {
    /// Waits until everything that was due has come to its end. It may be left and waited for
    /// again.
    ///
    /// # Errors
    /// Where a thread could not go on.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        while self.alive > 0 {
            self.ends.recv().await.unwrap_or_else(|| Err(io::Error::other("a load thread died")))?;
            self.alive -= 1;
        }
        Ok(())
    }

    /// Sends nothing more and waits for no answer.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Where it stands. The next look begins here.
    pub(super) fn look(&self) -> Look {
        let mut looks = self.threads.iter().map(|thread| thread.record().look());
        let mut all = looks.next().unwrap_or_else(|| Record::new(Duration::ZERO).look());
        looks.for_each(|look| all.merge(look));
        all
    }

    /// Requests that were answered, and that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        let of = |thread: &Arc<Thread>| {
            let record = thread.record();
            (record.latency.len(), record.failed())
        };
        self.threads.iter().map(of).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// When requests began, or begin, to count.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Requests that were sent and are not answered.
    pub(super) fn outstanding(&self) -> u64 {
        self.threads.iter().map(|thread| thread.outstanding.load(Ordering::Relaxed)).sum()
    }

    /// Connections opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.threads.iter().map(|thread| thread.pool.opened()).sum()
    }

    /// Everything that was seen so far.
    pub(super) fn record(&self) -> Record {
        let mut all = Record::new(self.threads.first().map_or(Duration::ZERO, |thread| thread.plan.slice));
        self.threads.iter().for_each(|thread| all.merge(&thread.record()));
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Thread {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its own runtime: a request that hopped between threads would measure that as well.
    fn run(self: Arc<Self>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut stop = self.stop.clone();
            let mut tasks = JoinSet::new();
            let sending = async {
                match self.plan.load {
                    Load::Open { arrivals, rate } => self.open_loop(arrivals, rate, &mut tasks).await?,
                    Load::Closed { .. } => self.closed_loop(&mut tasks),
                }
                while tasks.join_next().await.is_some() {}
                Ok(())
            };
            tokio::select! {
                done = sending => done,
                _ = stop.wait_for(|stop| *stop) => Ok(()),
            }
        })
    }

    async fn open_loop(
        self: &Arc<Self>,
        arrivals: Arrivals,
        rate: f64,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let timer = Timer::new()?;
        let slots = usize::from(self.plan.outstanding.div_ceil(self.plan.threads));
        let slots = Arc::new(Semaphore::new(slots));
        let schedule = Schedule::new(arrivals, rate, self.plan.seed, self.index, self.plan.threads);
        for (number, due) in schedule.enumerate() {
            let due = self.from + due;
            if due >= self.until || !self.may_count(due) {
                break;
            }
            timer.until(due).await?;
            // What the run ends without has been waiting for an answer all the same.
            let patience = (due + self.plan.timeout).min(self.until);
            let slot = match slots.clone().try_acquire_owned() {
                Ok(slot) => Some(slot),
                Err(_) => {
                    let freed = tokio::time::timeout_at(patience.into(), slots.clone().acquire_owned());
                    freed.await.ok().and_then(Result::ok)
                }
            };
            match slot {
                Some(slot) => {
                    let thread = self.clone();
                    tasks.spawn(async move {
                        thread.ask(due, number, 0).await;
                        drop(slot);
                    });
                }
                None => {
                    if let Some(due) = due.checked_duration_since(self.began) {
                        self.record().unsent(due);
                    }
                }
            }
            while tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    fn closed_loop(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        for lane in 0..usize::from(self.plan.callers(self.index)) {
            let thread = self.clone();
            tasks.spawn(async move {
                for number in lane.. {
                    let now = Instant::now();
                    if now >= thread.until || !thread.may_count(now) {
                        break;
                    }
                    if !thread.ask(now, number, lane).await {
                        tokio::time::sleep(RECONNECT).await;
                    }
                }
            });
        }
    }

    /// Whether one more request may be sent, if it is one that counts.
    fn may_count(&self, due: Instant) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        due < self.began || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Sends one and keeps what became of it. False where there was no connection.
    async fn ask(&self, due: Instant, number: usize, lane: usize) -> bool {
        let call = &self.plan.calls[number % self.plan.calls.len()];
        let lane = if matches!(self.plan.load, Load::Open { .. }) { number } else { lane };
        let sent = Instant::now();
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.plan.timeout, self.pool.send(call, lane)).await;
        let done = Instant::now();
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        let outcome = match answer {
            Ok(Ok(answer)) => call.accepted(&answer).map(|()| call.version(&answer)),
            Ok(Err(failed)) => Err(failed),
            Err(_) => {
                Err(Failed { kind: "timeout".into(), text: format!("no answer in {:?}", self.plan.timeout) })
            }
        };
        let connected = !matches!(&outcome, Err(failed) if failed.kind == "connect");
        if let Some(due) = due.checked_duration_since(self.began) {
            let (sent, done) = (sent - self.began, done - self.began);
            self.record().add(Sample { due, sent, done, outcome });
        }
        connected
    }
}
