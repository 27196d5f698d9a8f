//! Monotonic time and timers. Never the wall clock: it jumps.
#![allow(clippy::disallowed_methods, reason = "this module is the door")]

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use std::time::Instant;
pub use tokio::time::{Sleep, error::Elapsed};

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

/// Polls `future` for at most `duration`.
///
/// # Errors
/// [`Elapsed`] when the time is over; the future was dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(duration, future).await
}

/// Seconds since 1970-01-01 UTC by the wall clock. For what people read, and for the
/// expiry that a token issuer states; never for deciding how long to wait.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
