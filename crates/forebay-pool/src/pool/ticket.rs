//! A checkout under way: it asks, waits in its place, and looks what became of it.
//!
//! Always true: it has a place in the queue while `waiter` is `Some`. The same decision that
//! gives it the place registers the task that polls; the pool's own clock watches the
//! deadline of its class. Dropped, the place is free.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use forebay_seam::time::{self, Sleep};

use crate::ask::Ask;
use crate::connect::Connector;
use crate::lease::Lease;
use crate::ledger::{Asked, Came, Wanted};
use crate::queue::Fate;
use crate::slot::{ConnId, WaiterId};

use super::{CheckoutError, Shared};

/// A checkout under way.
pub(super) struct Ticket<'p, K: Connector> {
    pool: &'p Arc<Shared<K>>,
    ask: &'p Ask<K::Identity>,
    came: Came,
    waiter: Option<WaiterId>,
}

/// What the ledger says.
enum Verdict<C> {
    /// A connection, lent at this moment; `None` if it had died at rest.
    Granted(ConnId, Instant, Option<C>),
    /// Not yet.
    Waiting(WaiterId),
    Rejected(Box<CheckoutError>),
}

impl<'p, K: Connector> Ticket<'p, K> {
    pub(super) fn new(pool: &'p Arc<Shared<K>>, ask: &'p Ask<K::Identity>) -> Self {
        Self { pool, ask, came: Came::Now, waiter: None }
    }

    /// Asks, or looks what became of its place. `timer` is for a deadline of its caller's own.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Option<Sleep>>,
    ) -> Poll<Result<Lease<K>, CheckoutError>> {
        loop {
            let verdict = match self.waiter {
                None => self.ask(cx.waker()),
                Some(waiter) => self.look(waiter, cx.waker()),
            };
            self.waiter = match &verdict {
                Verdict::Waiting(waiter) => Some(*waiter),
                Verdict::Granted(..) | Verdict::Rejected(_) => None,
            };
            match verdict {
                Verdict::Granted(id, since, Some(connection)) => {
                    let (pool, class) = (Arc::clone(self.pool), self.ask.class);
                    let request = self.ask.request.clone();
                    let lease = Lease::new(pool, id, class, request, since, connection);
                    return Poll::Ready(Ok(lease));
                }
                // Ask again, in the same place.
                Verdict::Granted(_, _, None) => {}
                Verdict::Rejected(error) => return Poll::Ready(Err(*error)),
                Verdict::Waiting(waiter) => {
                    let Some(deadline) = self.ask.deadline else { return Poll::Pending };
                    if timer.is_none() {
                        timer.set(Some(time::sleep_until(deadline)));
                    }
                    let timer = timer.as_mut().as_pin_mut();
                    if timer.is_some_and(|timer| timer.poll(cx).is_pending()) {
                        return Poll::Pending;
                    }
                    self.expire(waiter);
                }
            }
        }
    }

    fn ask(&mut self, waker: &Waker) -> Verdict<K::Connection> {
        let now = time::now();
        let (pool, ask, came) = (self.pool, self.ask, self.came);
        let since = self.since(now);
        self.came = Came::Before(since);
        pool.act(|state, actions| {
            let identity = state.identity(&ask.identity, &pool.connector);
            match state.ledger.ask(&Wanted::of(ask, identity, came), now, actions) {
                Asked::Granted(id) => {
                    Verdict::Granted(id, now, state.hand_out(id, &pool.connector, actions))
                }
                Asked::Waiting(id) => {
                    state.waits(id, ask.class, since, waker.clone(), actions);
                    Verdict::Waiting(id)
                }
                Asked::Rejected(why) => {
                    Verdict::Rejected(Box::new(state.explain(pool, ask.class, why, since, now)))
                }
            }
        })
    }

    fn look(&self, waiter: WaiterId, waker: &Waker) -> Verdict<K::Connection> {
        let (pool, class) = (self.pool, self.ask.class);
        // A waker that is replaced is dropped without the lock: it may own anything.
        let (verdict, _replaced) = pool.act(|state, actions| match state.ledger.fate(waiter) {
            Fate::Waiting { .. } => {
                (Verdict::Waiting(waiter), state.waiting.is_polled_by(waiter, waker))
            }
            Fate::Granted { conn } => {
                let conn = *conn;
                state.ledger.heard(waiter);
                let since = state.ledger.lent_since(conn).unwrap_or_else(time::now);
                let connection = state.hand_out(conn, &pool.connector, actions);
                (Verdict::Granted(conn, since, connection), None)
            }
            Fate::Rejected(why) => {
                let why = why.clone();
                state.ledger.heard(waiter);
                let now = time::now();
                let error = state.explain(pool, class, why, self.since(now), now);
                (Verdict::Rejected(Box::new(error)), None)
            }
        });
        verdict
    }

    /// When it came, if it comes `now` or did so before.
    fn since(&self, now: Instant) -> Instant {
        match self.came {
            Came::Now => now,
            Came::Before(since) => since,
        }
    }

    /// Its caller's own deadline has passed.
    fn expire(&self, waiter: WaiterId) {
        let now = time::now();
        let _waker = self.pool.act(|state, actions| {
            state.ledger.expire(waiter, now, actions);
            state.waiting.leave(waiter)
        });
    }
}

impl<K: Connector> Drop for Ticket<'_, K> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter else { return };
        let now = time::now();
        let _waker = self.pool.act(|state, actions| {
            state.ledger.abandon(waiter, now, actions);
            state.waiting.leave(waiter)
        });
    }
}
