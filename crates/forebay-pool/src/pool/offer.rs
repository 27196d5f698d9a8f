//! A lease that its owner could do without, and how the owner hears that somebody waits for it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use slotmap::SecondaryMap;

use crate::connect::Connector;
use crate::slot::ConnId;

use super::Shared;

/// Whether somebody waits, and who is to hear it.
#[derive(Debug, Default)]
enum Call {
    #[default]
    NotYet,
    Listened(Waker),
    Called,
}

/// What an owner and the pool share of one offer.
type Line = Arc<Mutex<Call>>;

/// The lines of all offers.
#[derive(Debug, Default)]
pub(super) struct Calls(SecondaryMap<ConnId, Line>);

impl Calls {
    /// Somebody waits for `id`: the task to be woken for it, if one listens.
    pub(super) fn call(&self, id: ConnId) -> Option<Waker> {
        let line = self.0.get(id)?;
        match std::mem::replace(&mut *line.lock(), Call::Called) {
            Call::Listened(waker) => Some(waker),
            Call::NotYet | Call::Called => None,
        }
    }

    /// The lease of `id` has ended.
    #[inline]
    pub(super) fn forget(&mut self, id: ConnId) {
        if !self.0.is_empty() {
            self.0.remove(id);
        }
    }
}

/// A lease on offer ([`Lease::offer`](crate::Lease::offer)), until this is dropped or the lease
/// ends. Dropped, the offer is withdrawn, and another lease is called if somebody still waits.
#[must_use = "dropped at once, nothing was offered"]
pub struct Offer<K: Connector> {
    pool: Arc<Shared<K>>,
    id: ConnId,
    line: Line,
}

impl<K: Connector> Offer<K> {
    /// Ready once somebody waits whom the lease would let go. Then it is to be given back, or the
    /// offer to be dropped.
    pub fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut call = self.line.lock();
        match &*call {
            Call::Called => return Poll::Ready(()),
            Call::Listened(waker) if waker.will_wake(cx.waker()) => {}
            Call::NotYet | Call::Listened(_) => *call = Call::Listened(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<K: Connector> Drop for Offer<K> {
    fn drop(&mut self) {
        let now = time::now();
        self.pool.act(|state, actions| {
            // A later lease of the same connection has a line of its own.
            let is_it = state.calls.0.get(self.id).is_some_and(|l| Arc::ptr_eq(l, &self.line));
            if is_it {
                state.calls.0.remove(self.id);
                state.ledger.withdraw(self.id, now, actions);
            }
        });
    }
}

impl<K: Connector> Shared<K> {
    pub(crate) fn offer(self: &Arc<Self>, id: ConnId, since: Instant) -> Offer<K> {
        let (line, now) = (Line::default(), time::now());
        self.act(|state, actions| {
            state.calls.0.insert(id, Arc::clone(&line));
            state.ledger.offer(id, since, now, actions);
        });
        Offer { pool: Arc::clone(self), id, line }
    }
}
