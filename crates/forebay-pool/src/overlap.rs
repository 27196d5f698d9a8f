//! Connections held while the same request waits for an outbound call.
//!
//! Both gateways tell this room what they see: a transaction of a request went idle, a call
//! of a request began. Where both are true at once, that is an overlap: a connection that
//! serves nobody because a model is thinking. Always true: an overlap ends with the first
//! of its two sides, is told once at either end, and a guard dropped anywhere ends its side.
//!
//! A transaction is followed from the moment it first idles: [`Idling`], then, if it overlapped
//! anything, [`AtWork`] until it idles again or is over. One that is parked says so by
//! [`Idling::becomes`], and has its connection again by [`AtWork::takes_connection`].

mod advice;
mod book;
mod counts;
mod hour;
mod told;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tokio::sync::broadcast;

pub use advice::{FeatureAdvice, HoldReport, Occupied, WorstPlace, connections_occupied};
pub use counts::{FeatureHolds, OverlapCount, OverlapSpread};
pub use told::{Call, Hold, HoldKind, IdleTransaction, OutboundCall, Overlap, Phase, Subject};

use book::{Book, CallKey, Tell, TransactionKey};

use crate::request::Request;

/// Events kept for a slow reader before it misses the oldest.
const EVENTS: usize = 1_024;

/// Finds overlaps. One per process, shared by the gateways.
pub struct Overlaps {
    book: Mutex<Book>,
    events: broadcast::Sender<Overlap>,
}

impl Default for Overlaps {
    fn default() -> Self {
        Self { book: Mutex::new(Book::new(time::now())), events: broadcast::channel(EVENTS).0 }
    }
}

/// A transaction, until it is over.
struct Followed {
    overlaps: Arc<Overlaps>,
    key: TransactionKey,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let now = time::now();
        let mut book = self.overlaps.book.lock();
        let (_, mut tell) = book.goes_on(self.key, now);
        tell.extend(book.is_over(self.key, now));
        drop(book);
        self.overlaps.tell(tell);
    }
}

/// A transaction idles, until this is dropped, which means that it is over, or
/// [goes on](Self::goes_on).
#[must_use = "dropped at once, the transaction never idled"]
pub struct Idling(Followed);

/// A transaction that overlapped a call is at work, until this is dropped, which means that it
/// is over, or [idles](Self::idles) again.
#[must_use = "dropped at once, the transaction is over"]
pub struct AtWork(Followed);

/// A call is in flight until this is dropped.
#[must_use = "dropped at once, the call never happened"]
pub struct Calling {
    overlaps: Arc<Overlaps>,
    key: CallKey,
}

impl Drop for Calling {
    fn drop(&mut self) {
        let tell = self.overlaps.book.lock().call_ends(self.key, time::now());
        self.overlaps.tell(tell);
    }
}

impl Idling {
    /// The transaction occupies something else from now on: parking gave its connection back,
    /// or took one for it. Overlaps go on, and are told to have changed.
    pub fn becomes(&self, kind: HoldKind) {
        let tell = self.0.overlaps.book.lock().becomes(self.0.key, kind, time::now());
        self.0.overlaps.tell(tell);
    }

    /// It holds its connection, and from now on it is proven that it could be parked: what
    /// parking would save is counted.
    pub fn could_be_parked(&self) {
        self.0.overlaps.book.lock().could_be_parked(self.0.key, time::now());
    }

    /// Ready once an outbound call of the same request has begun since the transaction idles.
    pub fn poll_call_begins(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.overlaps.book.lock().poll_call_begins(self.0.key, cx)
    }

    /// Is an outbound call of the same request in flight?
    pub fn is_beside_call(&self) -> bool {
        self.0.overlaps.book.lock().is_beside_call(self.0.key)
    }

    /// The client has sent something: its transaction idles no longer. Nothing comes of one
    /// that overlapped no call.
    pub fn goes_on(self) -> Option<AtWork> {
        let (has_more, tell) = self.0.overlaps.book.lock().goes_on(self.0.key, time::now());
        self.0.overlaps.tell(tell);
        has_more.then_some(AtWork(self.0))
    }
}

impl AtWork {
    /// The transaction idles again, as `what`, for `request`: where that is another one than
    /// before, what was followed so far is over.
    pub fn idles(self, request: &Request, what: IdleTransaction) -> Idling {
        let mut book = self.0.overlaps.book.lock();
        if !book.is_of(self.0.key, request) {
            drop(book);
            return Arc::clone(&self.0.overlaps).transaction_idles(request, what);
        }
        let tell = book.idles_again(self.0.key, what, time::now());
        drop(book);
        self.0.overlaps.tell(tell);
        Idling(self.0)
    }

    /// It was parked or deferred, and has a connection from now on.
    pub fn takes_connection(&self) {
        self.0.overlaps.book.lock().takes_connection(self.0.key, time::now());
    }
}

impl Overlaps {
    /// A transaction of `request` is open, and its client is owed nothing.
    pub fn transaction_idles(self: &Arc<Self>, request: &Request, what: IdleTransaction) -> Idling {
        let (key, tell) = self.book.lock().idles(request, what, time::now());
        self.tell(tell);
        Idling(Followed { overlaps: Arc::clone(self), key })
    }

    /// An outbound call begins, of `request` where it is known.
    pub fn call_begins(self: &Arc<Self>, request: Option<&Request>, what: OutboundCall) -> Calling {
        let mut book = self.book.lock();
        let (key, tell) = book.call_begins(request, what, time::now());
        let woken = book.take_woken();
        drop(book);
        self.tell(tell);
        woken.into_iter().for_each(Waker::wake);
        Calling { overlaps: Arc::clone(self), key }
    }

    /// Overlaps as they begin, change, end and are over. A reader that falls 1,024 behind
    /// misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Overlap> {
        self.events.subscribe()
    }

    /// What was counted so far, by feature, destination and kind.
    pub fn counts(&self) -> Vec<OverlapCount> {
        self.book.lock().counts.families()
    }

    /// How long overlaps that ended had lasted, by kind.
    pub fn spreads(&self) -> Vec<OverlapSpread> {
        self.book.lock().counts.spreads()
    }

    /// What holds took of connections so far, by feature; those that go on included.
    pub fn features(&self) -> Vec<FeatureHolds> {
        let mut book = self.book.lock();
        book.count_all(time::now());
        book.counts.features()
    }

    /// What holds of the last hour cost, feature by feature, the worst first.
    pub fn report(&self) -> HoldReport {
        let (mut book, now) = (self.book.lock(), time::now());
        book.count_all(now);
        advice::report(&book.counts, now)
    }

    /// Transactions of requests that idle now, the longest first.
    pub fn holds(&self) -> Vec<Hold> {
        let mut holds = self.book.lock().holds(time::now());
        holds.sort_by_key(|hold| hold.transaction.since);
        holds
    }

    /// Calls that are under way now, of all requests and of none; `most` at the most.
    pub fn calls(&self, most: usize) -> Vec<Call> {
        self.book.lock().calls(most)
    }

    fn tell(&self, tell: Tell) {
        for overlap in tell {
            // No reader is no error: the counters have it.
            drop(self.events.send(overlap));
        }
    }
}

#[cfg(test)]
mod tests;
