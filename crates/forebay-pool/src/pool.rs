//! The shell around the ledger.
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::class::{ClassId, ClassName};
use crate::connect::{ConnectFailure, Connector};
use crate::lease::Lease;
use crate::request::Request;
use crate::settings::PoolSettings;
use crate::stats::Snapshot;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct Ask<I> {
    /// On whose behalf.
    pub identity: I,
    /// As which class.
    pub class: ClassId,
    /// For which request, where that is known.
    pub request: Option<Request>,
    /// Until when at the latest; the class's checkout timeout counts besides.
    pub deadline: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError {
    /// Told at once, nobody waited: the destination is saturated. SQLSTATE 53300, HTTP 429.
    #[error("queue of class `{class}` for `{destination}` is full: {limit} requests wait")]
    QueueFull {
        /// destination
        destination: Arc<str>,
        /// class
        class: ClassName,
        /// bound
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// All seats of the class stayed taken until the deadline. SQLSTATE 53300, HTTP 503.
    #[error("waited {} ms for a connection of class `{class}` to `{destination}`", waited.as_millis())]
    TimedOut {
        /// destination
        destination: Arc<str>,
        /// class
        class: ClassName,
        /// how long
        waited: Duration,
        /// When to try again.
        retry_after: Duration,
    },
    /// Nobody answers at the destination. SQLSTATE 08001 at login, 57P03 later; HTTP 502.
    #[error("`{destination}` cannot be reached: {failure}")]
    Unreachable {
        /// destination
        destination: Arc<str>,
        /// last failure
        failure: ConnectFailure,
        /// When to try again.
        retry_after: Duration,
    },
    /// It answers, and refuses this identity.
    #[error("`{destination}` refuses: {failure}")]
    Denied {
        /// destination
        destination: Arc<str>,
        /// what it said
        failure: ConnectFailure,
    },
    /// The pool is draining. SQLSTATE 57P01, HTTP 503.
    #[error("the pool of `{destination}` is closing")]
    Closed {
        /// destination
        destination: Arc<str>,
    },
}

/// Connections to one destination. Cheap to clone.
pub struct Pool<K: Connector> {
    _k: Arc<K>,
}

impl<K: Connector> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self { _k: Arc::clone(&self._k) }
    }
}

impl<K: Connector> Pool<K> {
    /// A pool; opens nothing until asked or told to warm up. Inside a runtime.
    pub fn new(_connector: K, _settings: PoolSettings) -> Self {
        todo!()
    }
    /// The protocol's side.
    pub fn connector(&self) -> &K {
        todo!()
    }
    /// The class called `name`.
    pub fn class(&self, _name: &str) -> Option<ClassId> {
        todo!()
    }
    /// Its name.
    pub fn class_name(&self, _class: ClassId) -> &ClassName {
        todo!()
    }
    /// Opens 25 % of the budget for `identities` (in turn), paced, and keeps them warm.
    pub fn warm_up(&self, _identities: Vec<K::Identity>) {
        todo!()
    }
    /// The destination says what it can take in all (its `max_connections`).
    pub fn set_capacity(&self, _capacity: u32) {
        todo!()
    }
    /// Waits for a connection.
    pub async fn checkout(&self, _ask: Ask<K::Identity>) -> Result<Lease<K>, CheckoutError> {
        todo!()
    }
    /// One picture of the pool.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    /// No new leases; idle connections are closed, leased ones as they return.
    pub fn close(&self) {
        todo!()
    }
    /// `close`, then waits until the last connection is closed, at most until `deadline`.
    pub async fn drain(&self, _deadline: Instant) {
        todo!()
    }
}
