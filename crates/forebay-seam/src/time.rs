//! Monotonic time and timers. Never the wall clock: it jumps.
#![allow(clippy::disallowed_methods, reason = "this module is the door")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use std::time::Instant;

#[cfg(not(forebay_model))]
pub use runtime::{Elapsed, Sleep, now, reset, sleep, sleep_until, timeout};

#[cfg(not(forebay_model))]
mod runtime {
    use std::future::Future;
    use std::pin::Pin;

    pub use tokio::time::{Sleep, error::Elapsed};

    use super::{Duration, Instant};

    /// The present moment of the runtime's clock; follows `tokio::time::pause` in tests.
    pub fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Ends after `duration`.
    pub fn sleep(duration: Duration) -> Sleep {
        tokio::time::sleep(duration)
    }

    /// Ends at `deadline`.
    pub fn sleep_until(deadline: Instant) -> Sleep {
        tokio::time::sleep_until(deadline.into())
    }

    /// `timer` ends at `deadline` instead, whether it has ended before or not.
    pub fn reset(timer: Pin<&mut Sleep>, deadline: Instant) {
        timer.reset(deadline.into());
    }

    /// Polls `future` for at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is over; the future was dropped.
    pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(duration, future).await
    }
}

#[cfg(forebay_model)]
pub use model::{Elapsed, Sleep, Timers, now, reset, set_timers, sleep, sleep_until, timeout};

/// Time under the model checker: a clock that moves only when a timer ends. In which order
/// timers end, and whether before or after anything else, is the scheduler's to choose.
#[cfg(forebay_model)]
mod model {
    use std::cell::Cell;
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::sync::LazyLock;
    use std::task::{Context, Poll};

    use super::{Duration, Instant};

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    thread_local! {
        // All tasks of a model run on one thread.
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static TIMERS: Cell<Timers> = const { Cell::new(Timers::Never) };
    }

    /// What timers do in this run.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Timers {
        /// They never end and time stands still: whoever waits has to be woken.
        Never,
        /// Each ends sooner or later, in any order.
        Eventually,
    }

    /// Says what timers do from now on.
    pub fn set_timers(timers: Timers) {
        TIMERS.set(timers);
    }

    /// The present moment of the model's clock.
    pub fn now() -> Instant {
        *START + PASSED.get()
    }

    /// A timer of the model.
    pub struct Sleep {
        deadline: Instant,
        pause: Pin<Box<dyn Future<Output = ()> + Send>>,
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.deadline <= now() {
                return Poll::Ready(());
            }
            if TIMERS.get() == Timers::Never || self.pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            PASSED.set(PASSED.get() + self.deadline.saturating_duration_since(now()));
            Poll::Ready(())
        }
    }

    /// Ends after `duration`.
    pub fn sleep(duration: Duration) -> Sleep {
        sleep_until(now() + duration)
    }

    /// Ends at `deadline`.
    pub fn sleep_until(deadline: Instant) -> Sleep {
        Sleep { deadline, pause: Box::pin(pause()) }
    }

    /// `timer` ends at `deadline` instead, whether it has ended before or not.
    pub fn reset(mut timer: Pin<&mut Sleep>, deadline: Instant) {
        timer.set(sleep_until(deadline));
    }

    async fn pause() {
        use shuttle::rand::Rng;
        shuttle::future::yield_now().await;
        while shuttle::rand::thread_rng().gen_bool(0.5) {
            shuttle::future::yield_now().await;
        }
    }

    /// The time was over.
    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error("deadline has elapsed")]
    pub struct Elapsed;

    /// Polls `future` for at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is over; the future was dropped.
    pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut timer = sleep(duration);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut timer).poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }
}

/// Seconds since 1970-01-01 UTC by the wall clock. For what people read, and for the
/// expiry that a token issuer states; never for deciding how long to wait.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// The present moment of the wall clock, which people set and which jumps: for what happens
/// by the calendar, never for deciding how long to wait.
pub fn wall_now() -> SystemTime {
    SystemTime::now()
}
