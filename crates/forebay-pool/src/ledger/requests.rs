//! What is known of the requests that take or wait for connections here: it decides who is
//! a holder, who a continuation, and who is new.
//!
//! Bounded: [`REQUESTS`] are remembered, each with as many waiting operations as its class
//! allows; what comes beyond is served as if it had no trace id, since trace ids are written
//! by clients. Always true: a request is remembered while it holds or waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use smallvec::SmallVec;

use crate::class::ClassId;
use crate::deadlock::Activity;
use crate::queue::{Fate, Level};
use crate::request::Request;
use crate::slot::{ConnId, Lent, RequestId, Slot, WaiterId};

use super::{Actions, Ledger};

/// How long an admitted request goes before new ones.
const PRIORITY: Duration = Duration::from_secs(60);
/// A request that used nothing for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Requests remembered.
const REQUESTS: usize = 65_536;

#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) name: Request,
    pub(super) held: u32,
    /// Of those held, the ones that nothing runs on.
    pub(super) at_rest: u32,
    pub(super) waiting: SmallVec<[WaiterId; 2]>,
    /// When it first got a connection.
    pub(super) admitted: Option<Instant>,
    pub(super) last_used: Instant,
}

impl Known {
    fn has_priority(&self, now: Instant) -> bool {
        self.admitted.is_some_and(|at| at + PRIORITY > now)
    }

    /// All that it holds here is at rest: it can give it back only by going on.
    fn is_at_rest(&self) -> bool {
        self.held > 0 && self.at_rest == self.held
    }

    fn is_suspect(&self) -> bool {
        self.is_at_rest() && !self.waiting.is_empty()
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Requests {
    ids: HashMap<Request, RequestId>,
    pub(super) known: SlotMap<RequestId, Known>,
    /// Requests that wait while all they hold is at rest: without them there is no circle.
    pub(super) suspects: u32,
}

impl Requests {
    fn change(&mut self, id: RequestId, change: impl FnOnce(&mut Known)) -> &Known {
        let known = &mut self.known[id];
        let was = known.is_suspect();
        change(known);
        match (was, known.is_suspect()) {
            (false, true) => self.suspects += 1,
            (true, false) => self.suspects -= 1,
            (false, false) | (true, true) => {}
        }
        known
    }

    pub(super) fn find(&self, request: &Request) -> Option<RequestId> {
        self.ids.get(request).copied()
    }

    /// The place of `request`, made if there is room.
    pub(super) fn know(&mut self, request: &Request, now: Instant) -> Option<RequestId> {
        if let Some(id) = self.find(request) {
            return Some(id);
        }
        if self.known.len() >= REQUESTS {
            return None;
        }
        let id = self.known.insert(Known {
            name: request.clone(),
            held: 0,
            at_rest: 0,
            waiting: SmallVec::new(),
            admitted: None,
            last_used: now,
        });
        self.ids.insert(request.clone(), id);
        Some(id)
    }

    /// May one more operation wait under its name, where `most` may?
    pub(super) fn has_place(&self, id: RequestId, most: usize) -> bool {
        self.known[id].waiting.len() < most
    }

    /// The rank of an operation that comes now, and its age within that rank. `held`: what
    /// its request holds anywhere; `most`: how many may wait under its name.
    ///
    /// A request has priority for [`PRIORITY`] from its first connection: a client that puts
    /// one trace id on everything it does would otherwise hold up all others for ever.
    pub(super) fn rank(
        &self,
        request: Option<RequestId>,
        held: u32,
        most: usize,
        since: Instant,
        now: Instant,
    ) -> (Level, Instant) {
        let Some(known) = request.map(|id| &self.known[id]) else {
            // It never had a connection here; what it holds elsewhere waits for this one.
            return if held > 0 { (Level::Holder, since) } else { (Level::New, since) };
        };
        let age = known.admitted.unwrap_or(since);
        if known.admitted.is_some() && !known.has_priority(now) {
            return (Level::New, since);
        }
        // Beyond its named places nothing tells an operation when its request holds again.
        let crowded = known.admitted.is_some() && known.waiting.len() >= most;
        if known.held > 0 || held > 0 || crowded {
            return (Level::Holder, age);
        }
        match known.admitted {
            Some(admitted) => (Level::Continuation, admitted),
            None => (Level::New, since),
        }
    }

    pub(super) fn waiting(&self, id: RequestId) -> &[WaiterId] {
        &self.known[id].waiting
    }

    pub(super) fn waits(&mut self, id: RequestId, waiter: WaiterId) {
        self.change(id, |known| known.waiting.push(waiter));
    }

    pub(super) fn waits_no_more(&mut self, id: RequestId, waiter: WaiterId) {
        self.change(id, |known| known.waiting.retain(|other| *other != waiter));
    }

    /// Nothing is kept of a request that never had a connection and waits for none.
    pub(super) fn forget_unserved(&mut self, id: RequestId) {
        let known = &self.known[id];
        if known.admitted.is_none()
            && known.waiting.is_empty()
            && let Some(known) = self.known.remove(id)
        {
            self.ids.remove(&known.name);
        }
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        let ids = &mut self.ids;
        self.known.retain(|_, known| {
            let keep =
                known.held > 0 || !known.waiting.is_empty() || known.last_used + FORGOTTEN > now;
            if !keep {
                ids.remove(&known.name);
            }
            keep
        });
    }

    #[cfg(test)]
    pub(super) fn name(&self, id: RequestId) -> &Request {
        &self.known[id].name
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.ids.is_empty()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (RequestId, u32, &[WaiterId])> {
        self.known.iter().map(|(id, known)| (id, known.held, known.waiting.as_slice()))
    }

    #[cfg(test)]
    pub(super) fn admitted(&self, id: RequestId) -> Option<Instant> {
        self.known[id].admitted
    }

    #[cfg(test)]
    pub(super) fn has_priority(&self, id: RequestId, now: Instant) -> bool {
        self.known[id].has_priority(now)
    }
}

impl Ledger {
    /// A lease turned out to belong to `request`.
    pub(crate) fn attach(
        &mut self,
        id: ConnId,
        belongs_to: &Request,
        now: Instant,
        actions: &mut Actions,
    ) {
        let now_known = self.requests.know(belongs_to, now);
        let Slot::Leased(ref mut lent) = self.conns[id].slot else { return };
        if lent.request == now_known {
            return;
        }
        let before = *lent;
        lent.request = now_known;
        let after = *lent;
        self.let_go(before, now);
        self.hold_for(after, now);
        self.untangle(now, actions);
    }

    /// The owner of a lease says what it does with it.
    pub(crate) fn acts(
        &mut self,
        id: ConnId,
        activity: Activity,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Slot::Leased(ref mut lent) = self.conns[id].slot else { return };
        if lent.activity == activity {
            return;
        }
        lent.activity = activity;
        let Some(request) = lent.request else { return };
        self.requests.change(request, |known| match activity {
            Activity::Working => known.at_rest -= 1,
            Activity::AtRest => known.at_rest += 1,
        });
        self.untangle(now, actions);
    }

    /// One of a request's leases ended, or turned out to be another's.
    pub(super) fn let_go(&mut self, lent: Lent, now: Instant) {
        let Some(request) = lent.request else { return };
        self.requests.change(request, |known| {
            known.held -= 1;
            known.at_rest -= u32::from(lent.activity == Activity::AtRest);
            known.last_used = now;
        });
    }

    /// A request has one more lease.
    pub(super) fn hold_for(&mut self, lent: Lent, now: Instant) {
        let Some(request) = lent.request else { return };
        let known = self.requests.change(request, |known| {
            known.held += 1;
            known.at_rest += u32::from(lent.activity == Activity::AtRest);
            known.last_used = now;
            known.admitted.get_or_insert(now);
        });
        let admitted = known.admitted.unwrap_or(now);
        if known.held > 1 || known.waiting.is_empty() || !known.has_priority(now) {
            return;
        }
        // It can free what it holds only by going on: its other operations wait no longer
        // behind those of requests that hold nothing.
        for waiter in known.waiting.clone() {
            self.promote(waiter, admitted);
        }
    }

    fn promote(&mut self, id: WaiterId, admitted: Instant) {
        let waiter = &self.waiters[id];
        if waiter.level == Level::Holder || !matches!(waiter.fate, Fate::Waiting { .. }) {
            return;
        }
        self.dequeue(id);
        self.waiters[id].level = Level::Holder;
        self.waiters[id].age = admitted;
        self.enqueue(id);
    }

    /// How many operations of one request may wait under its name.
    pub(super) fn max_parallel(&self, class: ClassId) -> usize {
        let most = self.settings.classes[class.index()].1.max_parallel.max(1);
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}
