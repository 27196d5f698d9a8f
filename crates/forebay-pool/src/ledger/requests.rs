//! What is known of the requests that take or wait for connections here: it decides who is
//! a holder, who a continuation, and who is new.
//!
//! Bounded: [`REQUESTS`] are remembered, each with at most [`PARALLEL`] waiting queries;
//! what comes beyond is served as if it had no trace id, since trace ids are written by
//! clients. Always true: a request is remembered while it holds or waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use smallvec::SmallVec;

use crate::queue::{Fate, Level};
use crate::request::Request;
use crate::slot::{ConnId, RequestId, Slot, WaiterId};

use super::Ledger;

/// How long an admitted request goes before new ones.
const PRIORITY: Duration = Duration::from_secs(60);
/// A request that used nothing for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Requests remembered.
const REQUESTS: usize = 65_536;
/// Queries of one request that wait under its name.
const PARALLEL: usize = 32;

#[derive(Debug, Clone)]
struct Known {
    name: Request,
    held: u32,
    waiting: SmallVec<[WaiterId; 2]>,
    /// When it first got a connection.
    admitted: Option<Instant>,
    last_used: Instant,
}

impl Known {
    fn has_priority(&self, now: Instant) -> bool {
        self.admitted.is_some_and(|at| at + PRIORITY > now)
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Requests {
    ids: HashMap<Request, RequestId>,
    known: SlotMap<RequestId, Known>,
}

impl Requests {
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
            waiting: SmallVec::new(),
            admitted: None,
            last_used: now,
        });
        self.ids.insert(request.clone(), id);
        Some(id)
    }

    /// May one more query wait under its name?
    pub(super) fn has_place(&self, id: RequestId) -> bool {
        self.known[id].waiting.len() < PARALLEL
    }

    /// The rank of a query that comes now, and its age within that rank.
    ///
    /// A request has priority for [`PRIORITY`] from its first connection: a client that puts
    /// one trace id on everything it does would otherwise hold up all others for ever.
    pub(super) fn rank(
        &self,
        request: Option<RequestId>,
        since: Instant,
        now: Instant,
    ) -> (Level, Instant) {
        let known = request.map(|id| &self.known[id]).filter(|known| known.has_priority(now));
        match known {
            // Beyond its named places nothing tells a query when its request holds again.
            Some(known) if known.held > 0 || known.waiting.len() >= PARALLEL => {
                (Level::Holder, known.admitted.unwrap_or(since))
            }
            Some(known) => (Level::Continuation, known.admitted.unwrap_or(since)),
            None => (Level::New, since),
        }
    }

    pub(super) fn waiting(&self, id: RequestId) -> &[WaiterId] {
        &self.known[id].waiting
    }

    pub(super) fn waits(&mut self, id: RequestId, waiter: WaiterId) {
        self.known[id].waiting.push(waiter);
    }

    pub(super) fn waits_no_more(&mut self, id: RequestId, waiter: WaiterId) {
        self.known[id].waiting.retain(|other| *other != waiter);
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

    /// One of its leases ended.
    fn release(&mut self, id: RequestId, now: Instant) {
        let known = &mut self.known[id];
        known.held -= 1;
        known.last_used = now;
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
    pub(crate) fn attach(&mut self, id: ConnId, belongs_to: &Request, now: Instant) {
        let now_known = self.requests.know(belongs_to, now);
        let Slot::Leased { ref mut request, .. } = self.conns[id].slot else { return };
        if *request == now_known {
            return;
        }
        let before = std::mem::replace(request, now_known);
        self.let_go(before, now);
        if let Some(request) = now_known {
            self.hold_for(request, now);
        }
    }

    pub(super) fn let_go(&mut self, request: Option<RequestId>, now: Instant) {
        if let Some(request) = request {
            self.requests.release(request, now);
        }
    }

    pub(super) fn hold_for(&mut self, request: RequestId, now: Instant) {
        let known = &mut self.requests.known[request];
        known.held += 1;
        known.last_used = now;
        let admitted = *known.admitted.get_or_insert(now);
        if known.held > 1 || known.waiting.is_empty() || !known.has_priority(now) {
            return;
        }
        // It can free what it holds only by going on: its other queries wait no longer
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
}
