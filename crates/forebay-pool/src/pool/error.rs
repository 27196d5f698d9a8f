//! Why there is no connection: what callers match on, operators read and clients are told.

use std::sync::Arc;
use std::time::Duration;

use crate::class::ClassName;
use crate::connect::ConnectFailure;

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError {
    /// Told at once, nobody waited: the destination is saturated. SQLSTATE 53300, HTTP 429.
    #[error("the queue of class `{class}` for `{destination}` is full: {limit} requests wait")]
    QueueFull {
        /// The destination.
        destination: Arc<str>,
        /// The class.
        class: ClassName,
        /// Requests that may wait.
        limit: u32,
        /// When a place is likely.
        retry_after: Duration,
    },
    /// All seats of the class stayed taken until the deadline. SQLSTATE 53300, HTTP 503.
    #[error(
        "waited {} ms for a connection of class `{class}` to `{destination}`: all were in use",
        waited.as_millis()
    )]
    TimedOut {
        /// The destination.
        destination: Arc<str>,
        /// The class.
        class: ClassName,
        /// How long the caller waited.
        waited: Duration,
        /// When a place is likely.
        retry_after: Duration,
    },
    /// Nobody answers at the destination. SQLSTATE 08001 at login, 57P03 later; HTTP 502.
    #[error("`{destination}` cannot be reached: {failure}")]
    Unreachable {
        /// The destination.
        destination: Arc<str>,
        /// What the last attempt said.
        #[source]
        failure: ConnectFailure,
        /// When the next attempt is due.
        retry_after: Duration,
    },
    /// The destination answers, and refuses this identity.
    #[error("`{destination}` refuses the login: {failure}")]
    Denied {
        /// The destination.
        destination: Arc<str>,
        /// What it said.
        #[source]
        failure: ConnectFailure,
    },
    /// The pool is draining. SQLSTATE 57P01, HTTP 503.
    #[error("the pool of `{destination}` is closing")]
    Closed {
        /// The destination.
        destination: Arc<str>,
    },
}
