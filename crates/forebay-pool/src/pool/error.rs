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
    /// A policy of the class refuses new work now, at once. SQLSTATE 53300, HTTP 429.
    #[error("class `{class}` of `{destination}` takes no more of this work now: {why}")]
    Refused {
        /// The destination.
        destination: Arc<str>,
        /// The class.
        class: ClassName,
        /// Which policy, and why.
        why: Refusal,
        /// When to try again; `None`: not at all.
        retry_after: Option<Duration>,
    },
    /// Every connection that could serve this wait is held by requests that wait themselves:
    /// none of them could ever go on, so the youngest fails. SQLSTATE 53300, HTTP 503.
    #[error(
        "deadlock: every connection to `{destination}` that class `{class}` could get is held by \
         a request that waits for another; feature `{feature}` takes {held} and asks for more"
    )]
    Deadlock {
        /// The destination.
        destination: Arc<str>,
        /// The class.
        class: ClassName,
        /// The feature whose request waited.
        feature: Arc<str>,
        /// Connections that the request holds already, here and elsewhere.
        held: u32,
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

/// Which policy refuses, and why.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Expensive work is shed while the class is busy (B3).
    #[error("it is {utilisation:.0} % busy and sheds expensive operations", utilisation = utilisation * 100.0)]
    Shed {
        /// How busy the class is, 0 to 1.
        utilisation: f64,
    },
    /// The requests under way need all the connections the class can get (B1).
    #[error("the requests under way need {demand:.1} of its {reach} connections")]
    Demand {
        /// Connections that admitted requests keep busy on average.
        demand: f64,
        /// Connections the class can get.
        reach: u32,
    },
    /// As many requests are under way as are allowed (B1).
    #[error("{limit} requests are under way, no more are allowed")]
    Requests {
        /// The class's `max_requests`.
        limit: u32,
    },
    /// It would have to wait beyond its deadline (A4).
    #[error("it would wait {} ms, beyond its deadline", wait.as_millis())]
    Late {
        /// How long it would wait.
        wait: Duration,
    },
    /// Newer work is served first, and this waited too long in a queue that never emptied.
    #[error("its queue has not been empty for long, and newer work goes first")]
    Stale,
    /// Retries have used up their share (B4).
    #[error("retries have used up their budget")]
    Retries,
    /// The work of this class fails: its breaker is open (A10).
    #[error("its work keeps failing")]
    Broken,
}
