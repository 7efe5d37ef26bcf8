//! A timer that is exact to microseconds. Tokio's counts in milliseconds, which is longer than
//! many models run: every request of an open loop would seem up to one slower than it is.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer of the kernel's, awaited through Tokio's reactor.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// # Errors
    /// Where the kernel gives none.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the timer owns its descriptor, and nothing replaces or closes it in there.
        Ok(Self(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? }))
    }

    /// Waits until then; not at all where it is past.
    pub(super) async fn until(&self, then: Instant) -> io::Result<()> {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let value = Itimerspec { it_interval: spec(Duration::ZERO), it_value: spec(left) };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value)?;
        loop {
            let mut ready = self.0.readable().await?;
            // The number of times it went off; a read that would block clears a readiness left
            // from before.
            let mut times = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut times)?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

fn spec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_ends_early_and_the_past_takes_no_time() {
        let timer = Timer::new().expect("a timer");
        timer.until(Instant::now()).await.expect("past");
        for micros in [50, 300, 2_000] {
            let then = Instant::now() + Duration::from_micros(micros);
            timer.until(then).await.expect("waited");
            assert!(Instant::now() >= then, "{micros} µs");
        }
    }

    #[tokio::test]
    async fn it_may_be_left_and_set_anew() {
        let timer = Timer::new().expect("a timer");
        let far = timer.until(Instant::now() + Duration::from_secs(3_600));
        assert!(tokio::time::timeout(Duration::from_millis(5), far).await.is_err());
        let then = Instant::now() + Duration::from_millis(5);
        timer.until(then).await.expect("waited");
        assert!(Instant::now() >= then);
    }
}
