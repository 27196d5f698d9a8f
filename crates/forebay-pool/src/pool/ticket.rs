//! A place in the queue, held by the future that waits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use forebay_seam::time;

use crate::class::ClassId;
use crate::connect::Connector;
use crate::lease::Lease;
use crate::queue::Fate;
use crate::request::Request;
use crate::slot::WaiterId;

use super::{CheckoutError, Shared};

/// A place in the queue; dropped, it is free.
pub(super) struct Ticket<'p, K: Connector> {
    pool: &'p Arc<Shared<K>>,
    /// `None` once its fate was heard.
    waiter: Option<WaiterId>,
    class: ClassId,
    request: Option<&'p Request>,
    since: Instant,
    /// Its caller's own deadline; that of its class is the pool's clock to watch.
    deadline: Option<Instant>,
}

/// What the end of a wait brought.
pub(super) enum Outcome<K: Connector> {
    Lease(Lease<K>),
    /// The connection that was set aside had died: ask again, in the same place.
    WasDead,
}

impl<'p, K: Connector> Ticket<'p, K> {
    pub(super) fn new(
        pool: &'p Arc<Shared<K>>,
        waiter: WaiterId,
        class: ClassId,
        request: Option<&'p Request>,
        since: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        Self { pool, waiter: Some(waiter), class, request, since, deadline }
    }

    /// Waits until its fate is decided, at most until its deadline. The task that polls was
    /// registered when the ticket was drawn, so the first poll only arms the timer, if its
    /// caller needs one.
    pub(super) async fn wait(mut self) -> Result<Outcome<K>, CheckoutError> {
        let mut timer = pin!(self.deadline.map(time::sleep_until));
        let mut look = Look::AtTheClock;
        poll_fn(|cx| {
            if let Look::AtTheQueue = look
                && let Poll::Ready(result) = self.poll(cx)
            {
                return Poll::Ready(result);
            }
            look = Look::AtTheQueue;
            let Some(timer) = timer.as_mut().as_pin_mut() else { return Poll::Pending };
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(waiter) = self.waiter {
                let now = time::now();
                let _waker = self.pool.act(|state, actions| {
                    state.ledger.expire(waiter, now, actions);
                    state.waiting.leave(waiter)
                });
            }
            self.poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outcome<K>, CheckoutError>> {
        let Some(waiter) = self.waiter else { return Poll::Pending };
        let (class, since, pool) = (self.class, self.since, self.pool);
        let decided = pool.act(|state, actions| match state.ledger.fate(waiter) {
            Fate::Waiting { .. } => Err(state.waiting.is_polled_by(waiter, cx.waker())),
            Fate::Granted { conn } => {
                let conn = *conn;
                state.ledger.heard(waiter);
                let lent = state.ledger.lent_since(conn).unwrap_or(since);
                let connection = state.hand_out(conn, &pool.connector, actions);
                Ok(Ok((conn, lent, connection)))
            }
            Fate::Rejected(why) => {
                let why = why.clone();
                state.ledger.heard(waiter);
                Ok(Err(state.explain(pool, class, why, since, time::now())))
            }
        });
        let decided = match decided {
            Ok(decided) => decided,
            // A waker that was replaced is dropped out here: it may own anything.
            Err(_replaced) => return Poll::Pending,
        };
        self.waiter = None;
        Poll::Ready(decided.map(|(conn, lent, connection)| match connection {
            Some(connection) => {
                let (pool, request) = (Arc::clone(pool), self.request.cloned());
                Outcome::Lease(Lease::new(pool, conn, class, request, lent, connection))
            }
            None => Outcome::WasDead,
        }))
    }
}

/// What a poll has to look at.
#[derive(Clone, Copy)]
enum Look {
    AtTheClock,
    AtTheQueue,
}

impl<K: Connector> Drop for Ticket<'_, K> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter else { return };
        let now = time::now();
        let _waker: Option<Waker> = self.pool.act(|state, actions| {
            state.ledger.abandon(waiter, now, actions);
            state.waiting.leave(waiter)
        });
    }
}
