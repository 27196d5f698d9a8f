//! A connection on lease.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use crate::class::ClassId;
use crate::connect::Connector;
use crate::deadlock::Activity;
use crate::operation::Operation;
use crate::pool::{Offer, Pool, Shared};
use crate::request::Request;
use crate::slot::ConnId;

/// What its user knows of a connection when it comes home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is known: the engine resets it before anyone else gets it.
    Unknown,
    /// As good as fresh: it serves the next caller at once.
    Clean,
    /// Beyond repair: it is closed.
    Broken,
}

/// A connection on lease; dereferences to the connection.
///
/// # Cancel safety
/// Dropped at any await point, it sends its connection home in [`Condition::Unknown`]: the
/// engine resets or closes it in a task of its own. `drop` neither waits nor fails.
#[must_use = "a lease dropped at once was a checkout for nothing"]
pub struct Lease<K: Connector> {
    pool: Arc<Shared<K>>,
    id: ConnId,
    class: ClassId,
    request: Option<Request>,
    since: Instant,
    /// `None` only while `drop` or `give_back` sends it home.
    connection: Option<K::Connection>,
}

impl<K: Connector> Lease<K> {
    pub(crate) fn new(
        pool: Arc<Shared<K>>,
        id: ConnId,
        class: ClassId,
        request: Option<Request>,
        since: Instant,
        connection: K::Connection,
    ) -> Self {
        if let Some(request) = &request {
            request.takes();
        }
        Self { pool, id, class, request, since, connection: Some(connection) }
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut K::Connection {
        self.connection.as_mut().expect("a lease has its connection until it is dropped")
    }

    /// As which class it was taken.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// Is it of `pool`?
    pub fn is_of(&self, pool: &Pool<K>) -> bool {
        pool.is_of(&self.pool)
    }

    /// Since when it is on lease.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Binds the lease to `request`, which was learnt after the checkout.
    pub fn attach(&mut self, request: Request) {
        if self.request.as_ref() == Some(&request) {
            return;
        }
        self.pool.attach(self.id, &request);
        request.takes();
        if let Some(before) = self.request.replace(request) {
            before.gives_back();
        }
    }

    /// Says what is done with it. A request that waits for a connection while all it holds is
    /// [`Activity::AtRest`] may be part of a circle of requests that wait for each other: the
    /// engine finds such circles, and fails the youngest wait.
    pub fn now(&mut self, activity: Activity) {
        if self.request.is_some() {
            self.pool.acts(self.id, activity);
        }
    }

    /// Says that nothing runs on it since `since`, and that it could be given back if somebody
    /// waits for it: [`Offer::poll_called`] tells. Where it does come home, those who wait are
    /// served in their order, classes below their nominal share first.
    pub fn offer(&self, since: Instant) -> Offer<K> {
        self.pool.offer(self.id, since)
    }

    /// Says that what is done with it failed though the connection is sound: a timeout, an
    /// error of the server's. The class's breaker and the retry budget go by it.
    pub fn failed(&mut self) {
        self.pool.went_wrong(self.id);
    }

    /// Says that what was done with it is done, though the connection is not
    /// [`Condition::Clean`]: a statement that may leave something behind, a service that closes
    /// after its answer. Nothing is learnt of a lease that comes home in unknown state without
    /// a word. Does not take back [`Lease::failed`].
    pub fn succeeded(&mut self) {
        self.pool.went_well(self.id);
    }

    /// Says what it is used for now, where that is another operation than it was taken for:
    /// a lease that lasts too long is told with it.
    pub fn does(&mut self, operation: &Operation) {
        self.pool.does(self.id, operation);
    }

    /// Gives it back in `condition`. Neither waits nor fails.
    pub fn give_back(mut self, condition: Condition) {
        self.send_home(condition);
    }

    fn send_home(&mut self, condition: Condition) {
        if let Some(connection) = self.connection.take() {
            if let Some(request) = self.request.take() {
                request.gives_back();
            }
            self.pool.give_back(self.id, connection, condition);
        }
    }
}

impl<K: Connector> Deref for Lease<K> {
    type Target = K::Connection;

    fn deref(&self) -> &K::Connection {
        self.connection.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl<K: Connector> DerefMut for Lease<K> {
    fn deref_mut(&mut self) -> &mut K::Connection {
        self.connection()
    }
}

impl<K: Connector> Drop for Lease<K> {
    fn drop(&mut self) {
        self.send_home(Condition::Unknown);
    }
}
