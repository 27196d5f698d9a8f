//! Both sides of all requests, and which of them are beside each other.
//!
//! Arithmetic: asks no clock, takes no lock; `now` is an argument. Always true: a transaction
//! and a call that are beside each other are one overlap, which is told once at its beginning
//! and once at its end, whatever begins or ends first; nothing is kept of what is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use super::counts::{Counts, Taken};
use super::told::{Call, Hold, HoldKind, IdleTransaction, OutboundCall, Overlap, Phase};
use crate::request::Request;

new_key_type! {
    pub(super) struct TransactionKey;
    pub(super) struct CallKey;
}

/// Calls and transactions of one request that are compared with each new one, so that a
/// client that uses one trace id for everything costs no more than others.
pub(super) const COMPARED: usize = 32;

/// What is to be told, in order.
pub(super) type Tell = SmallVec<[Overlap; 1]>;

/// How long a transaction has had connections.
#[derive(Debug, Clone, Copy)]
struct Clock {
    spent: Duration,
    since: Option<Instant>,
}

impl Clock {
    fn at(&self, now: Instant) -> Duration {
        let running =
            self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.spent + running
    }

    fn stops(&mut self, now: Instant) {
        self.spent = self.at(now);
        self.since = None;
    }
}

/// An overlap that goes on.
struct Running {
    call: CallKey,
    /// As it was told last, but for what time adds.
    overlap: Overlap,
    since: Instant,
    /// Since when it is of its kind.
    kind_since: Instant,
}

/// An overlap that has ended, of a transaction that is not over.
struct Ended {
    overlap: Overlap,
    after: After,
}

/// What is held after a call counts from its end.
enum After {
    /// It goes on beside a transaction that is at work.
    Calls(CallKey),
    /// What the transaction's clock showed when it ended.
    From(Duration),
}

struct Transaction {
    request: Request,
    what: IdleTransaction,
    idle_since: Instant,
    clock: Clock,
    running: SmallVec<[Running; 1]>,
    ended: Vec<Ended>,
    /// Up to when its time beside calls is counted.
    counted: Instant,
    /// The proof that it could be parked was made.
    parkable: bool,
    /// It is one of those that idled beside a call.
    known: bool,
    /// The task to be woken when a call begins beside it.
    waker: Option<Waker>,
}

struct Out {
    request: Option<Request>,
    call: OutboundCall,
    since: Instant,
    /// Transactions that it was beside of.
    beside: SmallVec<[TransactionKey; 1]>,
}

#[derive(Default)]
struct Sides {
    idle: Vec<TransactionKey>,
    calls: Vec<CallKey>,
}

pub(super) struct Book {
    requests: HashMap<Request, Sides>,
    transactions: SlotMap<TransactionKey, Transaction>,
    calls: SlotMap<CallKey, Out>,
    /// Overlaps so far.
    last: u64,
    /// Tasks of transactions that calls have begun beside of.
    woken: SmallVec<[Waker; 1]>,
    pub(super) counts: Counts,
}

impl Book {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            requests: HashMap::new(),
            transactions: SlotMap::default(),
            calls: SlotMap::default(),
            last: 0,
            woken: SmallVec::new(),
            counts: Counts::since(start),
        }
    }

    /// A transaction of `request` idles for the first time.
    pub(super) fn idles(
        &mut self,
        request: &Request,
        what: IdleTransaction,
        now: Instant,
    ) -> (TransactionKey, Tell) {
        let since = (what.kind == HoldKind::Held).then_some(what.since);
        let key = self.transactions.insert(Transaction {
            request: request.clone(),
            what,
            idle_since: now,
            clock: Clock { spent: Duration::ZERO, since },
            running: SmallVec::new(),
            ended: Vec::new(),
            counted: now,
            parkable: false,
            known: false,
            waker: None,
        });
        (key, self.rests(key, now))
    }

    /// Does a transaction belong to `request`?
    pub(super) fn is_of(&self, key: TransactionKey, request: &Request) -> bool {
        self.transactions.get(key).is_some_and(|transaction| transaction.request == *request)
    }

    /// A transaction that was at work idles again.
    pub(super) fn idles_again(
        &mut self,
        key: TransactionKey,
        what: IdleTransaction,
        now: Instant,
    ) -> Tell {
        let Some(transaction) = self.transactions.get_mut(key) else { return Tell::new() };
        match (what.kind, transaction.clock.since) {
            (HoldKind::Held, None) => transaction.clock.since = Some(what.since.min(now)),
            (HoldKind::Held, Some(_)) => {}
            (HoldKind::Parked | HoldKind::Deferred, _) => transaction.clock.stops(now),
        }
        (transaction.what, transaction.idle_since) = (what, now);
        transaction.parkable = false;
        self.rests(key, now)
    }

    /// A transaction that goes on has got its connection.
    pub(super) fn takes_connection(&mut self, key: TransactionKey, now: Instant) {
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.clock.since.get_or_insert(now);
        }
    }

    /// A transaction is beside all calls of its request from now on.
    fn rests(&mut self, key: TransactionKey, now: Instant) -> Tell {
        let Some(transaction) = self.transactions.get_mut(key) else { return Tell::new() };
        transaction.counted = now;
        let sides = self.requests.entry(transaction.request.clone()).or_default();
        sides.idle.push(key);
        let calls: SmallVec<[_; 2]> = sides.calls.iter().copied().take(COMPARED).collect();
        calls.into_iter().filter_map(|call| self.begins(key, call, now)).collect()
    }

    /// A call begins, of `request` where one is known.
    pub(super) fn call_begins(
        &mut self,
        request: Option<&Request>,
        call: OutboundCall,
        now: Instant,
    ) -> (CallKey, Tell) {
        let beside = SmallVec::new();
        let key = self.calls.insert(Out { request: request.cloned(), call, since: now, beside });
        let Some(request) = request else { return (key, Tell::new()) };
        let sides = self.requests.entry(request.clone()).or_default();
        sides.calls.push(key);
        let idle: SmallVec<[_; 2]> = sides.idle.iter().copied().take(COMPARED).collect();
        (key, idle.into_iter().filter_map(|idle| self.begins(idle, key, now)).collect())
    }

    fn begins(&mut self, key: TransactionKey, call: CallKey, now: Instant) -> Option<Overlap> {
        self.count(key, now);
        // A long call sees many transactions come and go.
        if let Some(out) = self.calls.get_mut(call).filter(|out| out.beside.len() >= COMPARED) {
            out.beside.retain(|one| self.transactions.contains_key(*one));
        }
        let (transaction, out) = (self.transactions.get_mut(key)?, self.calls.get_mut(call)?);
        let what = &transaction.what;
        self.last += 1;
        let overlap = Overlap {
            id: self.last,
            phase: Phase::Begins,
            tenant: transaction.request.tenant_name(),
            trace: transaction.request.trace(),
            kind: what.kind,
            class: what.class.clone(),
            feature: Arc::clone(&what.feature),
            statement: Arc::clone(&what.statement),
            database: Arc::clone(&what.database),
            user: Arc::clone(&what.user),
            application: Arc::clone(&what.application),
            client: what.client,
            destination: Arc::clone(&out.call.destination),
            operation: Arc::clone(&out.call.operation),
            subject: out.call.subject.clone(),
            held_before: transaction.clock.at(now),
            duration: Duration::ZERO,
            held_during: Duration::ZERO,
            held_after: None,
        };
        if !out.beside.contains(&key) {
            out.beside.push(key);
        }
        self.counts.begins(&overlap);
        if !std::mem::replace(&mut transaction.known, true) {
            let one = Taken { transactions: 1, ..Taken::default() };
            self.counts.takes(&overlap.feature, now, one);
        }
        let running = Running { call, overlap: overlap.clone(), since: now, kind_since: now };
        transaction.running.push(running);
        self.woken.extend(transaction.waker.take());
        Some(overlap)
    }

    /// A transaction that idles occupies something else from now on.
    pub(super) fn becomes(&mut self, key: TransactionKey, kind: HoldKind, now: Instant) -> Tell {
        self.count(key, now);
        let Some(transaction) = self.transactions.get_mut(key) else { return Tell::new() };
        if transaction.what.kind == kind {
            return Tell::new();
        }
        let before = transaction.clock;
        match kind {
            HoldKind::Held => transaction.clock.since = Some(now),
            HoldKind::Parked | HoldKind::Deferred => transaction.clock.stops(now),
        }
        transaction.what.kind = kind;
        transaction.parkable = false;
        let mut tell = Tell::new();
        for running in &mut transaction.running {
            running.goes_on_until(&before, now, &mut self.counts);
            running.overlap.kind = kind;
            self.counts.begins(&running.overlap);
            tell.push(Overlap { phase: Phase::Changes, ..running.overlap.clone() });
        }
        tell
    }

    /// The proof was made that a transaction, which idles and holds, could be parked.
    pub(super) fn could_be_parked(&mut self, key: TransactionKey, now: Instant) {
        self.count(key, now);
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.parkable = transaction.what.kind == HoldKind::Held;
        }
    }

    /// Is a transaction beside a call?
    pub(super) fn is_beside_call(&self, key: TransactionKey) -> bool {
        self.transactions.get(key).is_some_and(|transaction| !transaction.running.is_empty())
    }

    /// Has a call begun since a transaction idles? If not, the task of `cx` is woken by the next.
    pub(super) fn poll_call_begins(&mut self, key: TransactionKey, cx: &Context<'_>) -> Poll<()> {
        let Some(transaction) = self.transactions.get_mut(key) else { return Poll::Pending };
        if transaction.running.iter().any(|running| running.since > transaction.idle_since) {
            return Poll::Ready(());
        }
        match &mut transaction.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker @ None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Tasks that are to be woken.
    pub(super) fn take_woken(&mut self) -> SmallVec<[Waker; 1]> {
        std::mem::take(&mut self.woken)
    }

    /// A transaction idles no longer. Is there anything to tell once it is over?
    pub(super) fn goes_on(&mut self, key: TransactionKey, now: Instant) -> (bool, Tell) {
        self.count(key, now);
        let Some(transaction) = self.transactions.get_mut(key) else { return (false, Tell::new()) };
        let clock = transaction.clock;
        let running = std::mem::take(&mut transaction.running);
        let mut tell = Tell::new();
        for mut running in running {
            running.ends(&clock, now, &mut self.counts);
            tell.push(running.overlap.clone());
            let after = After::Calls(running.call);
            if transaction.ended.len() < COMPARED {
                transaction.ended.push(Ended { overlap: running.overlap, after });
            } else {
                tell.push(Overlap { phase: Phase::Released, ..running.overlap });
            }
        }
        let has_more = !transaction.ended.is_empty();
        let request = transaction.request.clone();
        self.leaves(&request, |sides| sides.idle.retain(|idle| *idle != key));
        if !has_more {
            self.transactions.remove(key);
        }
        (has_more, tell)
    }

    /// A transaction that is at work, or idled until now, is over.
    pub(super) fn is_over(&mut self, key: TransactionKey, now: Instant) -> Tell {
        let Some(transaction) = self.transactions.remove(key) else { return Tell::new() };
        let mut tell = Tell::new();
        for Ended { mut overlap, after } in transaction.ended {
            let after = match after {
                After::Calls(_) => Duration::ZERO,
                After::From(from) => transaction.clock.at(now).saturating_sub(from),
            };
            overlap.held_after = Some(after);
            overlap.phase = Phase::Released;
            let (before, over) = (overlap.held_before, 1);
            let taken = Taken { over, before, after, ..Taken::default() };
            self.counts.takes(&overlap.feature, now, taken);
            tell.push(overlap);
        }
        tell
    }

    /// A call has ended.
    pub(super) fn call_ends(&mut self, key: CallKey, now: Instant) -> Tell {
        let Some(out) = self.calls.get_mut(key) else { return Tell::new() };
        let beside = std::mem::take(&mut out.beside);
        for one in &beside {
            self.count(*one, now);
        }
        let mut tell = Tell::new();
        for one in beside {
            let Some(transaction) = self.transactions.get_mut(one) else { continue };
            let clock = transaction.clock;
            for ended in &mut transaction.ended {
                if matches!(ended.after, After::Calls(call) if call == key) {
                    ended.after = After::From(clock.at(now));
                }
            }
            let Some(at) = transaction.running.iter().position(|running| running.call == key)
            else {
                continue;
            };
            let mut running = transaction.running.remove(at);
            running.ends(&clock, now, &mut self.counts);
            tell.push(running.overlap.clone());
            if transaction.ended.len() < COMPARED {
                let after = After::From(clock.at(now));
                transaction.ended.push(Ended { overlap: running.overlap, after });
            } else {
                tell.push(Overlap { phase: Phase::Released, ..running.overlap });
            }
        }
        if let Some(request) = self.calls.remove(key).and_then(|out| out.request) {
            self.leaves(&request, |sides| sides.calls.retain(|call| *call != key));
        }
        tell
    }

    fn leaves(&mut self, request: &Request, leave: impl FnOnce(&mut Sides)) {
        let Some(sides) = self.requests.get_mut(request) else { return };
        leave(sides);
        if sides.idle.is_empty() && sides.calls.is_empty() {
            self.requests.remove(request);
        }
    }

    /// Counts the time that a transaction has been beside calls, up to now.
    fn count(&mut self, key: TransactionKey, now: Instant) {
        let Some(transaction) = self.transactions.get_mut(key) else { return };
        let passed = now.saturating_duration_since(transaction.counted);
        transaction.counted = now;
        if transaction.running.is_empty() || passed.is_zero() {
            return;
        }
        let mut taken = Taken::default();
        match transaction.what.kind {
            HoldKind::Held => taken.held = passed,
            HoldKind::Parked => taken.parked = passed,
            HoldKind::Deferred => {}
        }
        if transaction.parkable {
            taken.parkable = taken.held;
        }
        self.counts.takes(&transaction.what.feature, now, taken);
    }

    /// Counts what goes on, up to now.
    pub(super) fn count_all(&mut self, now: Instant) {
        let keys: Vec<_> = self
            .transactions
            .iter()
            .filter(|(_, transaction)| !transaction.running.is_empty())
            .map(|(key, _)| key)
            .collect();
        keys.into_iter().for_each(|key| self.count(key, now));
    }

    /// Transactions of requests that idle now.
    pub(super) fn holds(&self, now: Instant) -> Vec<Hold> {
        let idle = self.requests.values().flat_map(|sides| &sides.idle);
        let known = idle.filter_map(|key| self.transactions.get(*key));
        known
            .map(|one| Hold {
                request: one.request.clone(),
                transaction: one.what.clone(),
                idle_since: one.idle_since,
                held: one.clock.at(now),
                calls: one
                    .running
                    .iter()
                    .filter_map(|running| Some(self.calls.get(running.call)?.call.clone()))
                    .collect(),
            })
            .collect()
    }

    /// The first `most` calls that are under way now.
    pub(super) fn calls(&self, most: usize) -> Vec<Call> {
        let calls = self.calls.values().take(most);
        calls
            .map(|out| Call {
                request: out.request.clone(),
                call: out.call.clone(),
                since: out.since,
            })
            .collect()
    }

    /// Is nothing kept?
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.transactions.is_empty() && self.calls.is_empty()
    }

    /// Overlaps that go on.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.transactions.values().map(|transaction| transaction.running.len()).sum()
    }
}

impl Running {
    /// It has lasted until now; `clock` is that of its transaction.
    fn goes_on_until(&mut self, clock: &Clock, now: Instant, counts: &mut Counts) {
        self.overlap.duration = now.saturating_duration_since(self.since);
        self.overlap.held_during = clock.at(now).saturating_sub(self.overlap.held_before);
        counts.lasts(&self.overlap, now.saturating_duration_since(self.kind_since));
        self.kind_since = now;
    }

    fn ends(&mut self, clock: &Clock, now: Instant, counts: &mut Counts) {
        self.goes_on_until(clock, now, counts);
        self.overlap.phase = Phase::Ends;
        counts.ends(&self.overlap, now);
    }
}
