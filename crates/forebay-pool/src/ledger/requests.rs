//! What is known of the requests that take or wait for connections here: it decides who is
//! a holder, who a continuation, and who is new.
//!
//! Bounded: [`REQUESTS`] are remembered, each with as many waiting operations as its class
//! allows; what comes beyond is served as if it had no trace id, since trace ids are written
//! by clients. Always true: a request is remembered while it holds or waits.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use smallvec::SmallVec;

use crate::admission::Need;
use crate::class::ClassId;
use crate::deadlock::Activity;
use crate::event::Event;
use crate::feature::{FanOutJump, FeatureId, RequestFigures};
use crate::queue::{Fate, Level};
use crate::request::Request;
use crate::slot::{ConnId, Lent, RequestId, Slot, WaiterId};

use super::gate::BELIEVED;
use super::{Actions, Ledger};

/// How long an admitted request goes before new ones.
const PRIORITY: Duration = Duration::from_secs(60);
/// A request that used nothing for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Of which nothing is learnt is over when it idles for so long.
const UNLEARNT: Duration = Duration::from_secs(5);
/// A request that idles for less is not over, whatever such requests take.
const SHORT: Duration = Duration::from_secs(1);
/// Work that comes within this is taken as one request's, before anything is learnt.
const TOGETHER: Duration = Duration::from_millis(100);
/// A request that takes so many times what nearly all such requests take has had its turn.
const LAVISH: u32 = 3;
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
    /// Connections that it needs at the same time, declared or learnt.
    pub(super) needs: u32,
    /// What it is counted as while it is under way.
    pub(super) counted: Option<(ClassId, Need)>,
    /// Whether it is among those that will leave when they stay idle.
    leaving: Leaving,
    /// What it took since it began, or since it was last over.
    figures: Figures,
    /// The connection time after which it goes before nobody any more; learnt.
    limit: Option<Duration>,
}

/// Whether a request is in the list of those that may be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Listed,
    No,
}

/// What a request took so far.
#[derive(Debug, Clone, Copy)]
struct Figures {
    feature: FeatureId,
    leases: u32,
    used: Duration,
    since: Instant,
    peak: u32,
    nested: u32,
}

impl Figures {
    fn new(now: Instant) -> Self {
        let feature = FeatureId::UNTAGGED;
        Self { feature, leases: 0, used: Duration::ZERO, since: now, peak: 0, nested: 1 }
    }
}

impl Known {
    /// Whether it goes before new requests: for [`PRIORITY`], or where it is learnt what such
    /// requests take, until it has taken three times as much as nearly all of them.
    fn has_priority(&self, now: Instant) -> bool {
        match (self.admitted, self.limit) {
            (None, _) => false,
            (Some(at), None) => at + PRIORITY > now,
            (Some(_), Some(limit)) => self.figures.used <= limit,
        }
    }

    /// Nothing is under way for it here.
    fn is_idle(&self) -> bool {
        self.held == 0 && self.waiting.is_empty()
    }

    /// It needs one connection and rests on none: neither suspect nor nesting.
    #[inline]
    fn is_plain(&self) -> bool {
        self.at_rest == 0 && self.needs < 2
    }

    fn is_nesting(&self) -> bool {
        self.needs >= 2 && self.held > 0
    }

    /// All that it holds here is at rest: it can give it back only by going on.
    fn is_at_rest(&self) -> bool {
        self.at_rest > 0 && self.at_rest == self.held
    }

    fn is_suspect(&self) -> bool {
        self.is_at_rest() && !self.waiting.is_empty()
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Requests {
    /// Names come from clients: the hasher has a seed of this process.
    ids: HashMap<Request, RequestId, foldhash::quality::RandomState>,
    pub(super) known: SlotMap<RequestId, Known>,
    /// Requests that wait while all they hold is at rest: without them there is no circle.
    pub(super) suspects: u32,
    /// Requests that hold a connection and need several at the same time.
    pub(super) nesting: Vec<RequestId>,
    /// When requests that are counted and idle may be counted no more, the earliest first.
    leaving: BinaryHeap<Reverse<(Instant, RequestId)>>,
}

impl Requests {
    #[inline]
    fn change(&mut self, id: RequestId, change: impl FnOnce(&mut Known)) -> &Known {
        let Self { known, suspects, nesting, .. } = self;
        let known = &mut known[id];
        // Almost always it is neither of both, and stays so.
        if known.is_plain() {
            change(known);
            if known.is_plain() {
                return known;
            }
            *suspects += u32::from(known.is_suspect());
            if known.is_nesting() {
                nesting.push(id);
            }
            return known;
        }
        let was = (known.is_suspect(), known.is_nesting());
        change(known);
        let is = (known.is_suspect(), known.is_nesting());
        match (was.0, is.0) {
            (false, true) => *suspects += 1,
            (true, false) => *suspects -= 1,
            (false, false) | (true, true) => {}
        }
        match (was.1, is.1) {
            (false, true) => nesting.push(id),
            (true, false) => nesting.retain(|other| *other != id),
            (false, false) | (true, true) => {}
        }
        known
    }

    #[inline]
    pub(super) fn find(&self, request: &Request) -> Option<RequestId> {
        let number = request.number();
        if self.known.get(number).is_some_and(|known| known.name.is_clone_of(request)) {
            return Some(number);
        }
        let number = *self.ids.get(request)?;
        request.has_number(number);
        Some(number)
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
            needs: 1,
            counted: None,
            leaving: Leaving::No,
            figures: Figures::new(now),
            limit: None,
        });
        self.ids.insert(request.clone(), id);
        request.has_number(id);
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
    #[inline]
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

    fn forget_old(&mut self, now: Instant) {
        let ids = &mut self.ids;
        self.known.retain(|_, known| {
            let keep =
                !known.is_idle() || known.counted.is_some() || known.last_used + FORGOTTEN > now;
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
        self.let_go(&before, now.saturating_duration_since(before.since), now);
        self.hold_for(&after, 0, now);
        self.conclude(now, actions);
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
        self.conclude(now, actions);
    }

    /// One of a request's leases ended, or turned out to be another's.
    #[inline]
    pub(super) fn let_go(&mut self, lent: &Lent, held: Duration, now: Instant) {
        let Some(request) = lent.request else {
            if self.counts_requests(lent.class) {
                self.admission.leave(lent.class, Need::ONE);
            }
            return;
        };
        self.requests.change(request, |known| {
            known.held -= 1;
            known.at_rest -= u32::from(lent.activity == Activity::AtRest);
            known.last_used = now;
            known.figures.used += held;
        });
        self.note_idle(request, now);
    }

    /// A request has one more lease.
    #[inline]
    pub(super) fn hold_for(&mut self, lent: &Lent, declared: u32, now: Instant) {
        let Some(request) = lent.request else {
            if self.counts_requests(lent.class) {
                self.admission.enter(lent.class, Need::ONE);
            }
            return;
        };
        let known = &self.requests.known[request];
        let begins = known.figures.leases == 0;
        if known.counted.is_none() && self.counts_requests(lent.class) {
            let need = self.need(lent.cost);
            self.admission.enter(lent.class, need);
            self.requests.known[request].counted = Some((lent.class, need));
        }
        let needs = if begins { self.begin(request, lent, declared, now) } else { declared };
        let known = self.requests.change(request, |known| {
            if known.is_at_rest() {
                known.figures.nested = known.figures.nested.max(known.held + 1);
            }
            known.held += 1;
            known.at_rest += u32::from(lent.activity == Activity::AtRest);
            known.last_used = now;
            known.admitted.get_or_insert(now);
            known.needs = known.needs.max(needs);
            known.figures.leases += 1;
            known.figures.peak = known.figures.peak.max(known.held);
        });
        let admitted = known.admitted.unwrap_or(now);
        if known.held > 1 || known.waiting.is_empty() || !known.has_priority(now) {
            return;
        }
        // It can free what it holds only by going on: its other operations wait no longer
        // behind those of requests that hold nothing.
        for waiter in known.waiting.clone() {
            self.promote(waiter, admitted, now);
        }
    }

    /// The first lease of a request, or the first since it was taken to be over. Says how many
    /// connections it needs at the same time.
    fn begin(&mut self, request: RequestId, lent: &Lent, declared: u32, now: Instant) -> u32 {
        let feature = lent.cost.feature();
        let known = &mut self.requests.known[request];
        if known.admitted.is_some() {
            // It was taken to be over, and was not.
            self.features.paused(feature, now.saturating_duration_since(known.last_used));
        }
        let learnt = self.features.expected(feature).filter(|e| e.worth >= BELIEVED);
        known.figures = Figures { feature, ..Figures::new(now) };
        known.limit = learnt.map(|expected| expected.used_p95 * LAVISH);
        self.needs(declared, lent.cost)
    }

    fn promote(&mut self, id: WaiterId, admitted: Instant, now: Instant) {
        let waiter = &self.waiters[id];
        if waiter.level == Level::Holder || !matches!(waiter.fate, Fate::Waiting { .. }) {
            return;
        }
        self.dequeue(id, now);
        self.waiters[id].level = Level::Holder;
        self.waiters[id].age = admitted;
        self.enqueue(id, now);
    }

    /// How long a request that is counted may be idle: twice what such requests stay, where
    /// that is learnt; else as long as work of one client that comes together is one request.
    fn patience(&self, request: RequestId) -> Duration {
        self.patience_of(self.requests.known[request].figures.feature)
    }

    /// The same for the requests of `feature`.
    pub(super) fn patience_of(&self, feature: FeatureId) -> Duration {
        let learnt = self.features.expected(feature).filter(|e| e.worth >= BELIEVED);
        learnt.map_or(TOGETHER, |expected| (expected.residence * 2).clamp(TOGETHER, PRIORITY))
    }

    /// A request that is counted and has nothing under way any more may leave.
    pub(super) fn note_idle(&mut self, request: RequestId, now: Instant) {
        let known = &self.requests.known[request];
        if known.is_idle() && known.counted.is_some() && known.leaving == Leaving::No {
            let at = now + self.patience(request);
            self.requests.known[request].leaving = Leaving::Listed;
            self.requests.leaving.push(Reverse((at, request)));
        }
    }

    /// Counts no more those that have been idle for long enough.
    pub(super) fn leave_idle(&mut self, now: Instant) {
        while let Some(Reverse((at, request))) = self.requests.leaving.peek().copied()
            && at <= now
        {
            self.requests.leaving.pop();
            let Some(known) = self.requests.known.get(request) else { continue };
            let due = known.last_used + self.patience(request);
            let is_idle = self.requests.known[request].is_idle();
            let known = &mut self.requests.known[request];
            if is_idle && due > now {
                self.requests.leaving.push(Reverse((due, request)));
                continue;
            }
            known.leaving = Leaving::No;
            if is_idle && let Some((class, need)) = known.counted.take() {
                self.admission.leave(class, need);
            }
        }
    }

    /// When the next may be counted no more.
    pub(super) fn next_leave(&self) -> Option<Instant> {
        self.requests.leaving.peek().map(|Reverse((at, _))| *at)
    }

    /// How long a request of `feature` idles before it is taken to be over: twice what such
    /// requests stay, where that is learnt, and longer than any pause that proved this wrong.
    fn over_after(&self, feature: FeatureId) -> Duration {
        let learnt = self.features.expected(feature).filter(|e| e.worth >= BELIEVED);
        let stay = learnt.map_or(UNLEARNT, |expected| expected.residence * 2);
        stay.max(self.features.longest_pause(feature) * 3 / 2).clamp(SHORT, FORGOTTEN)
    }

    /// Learns what requests took that are over, and forgets those that are long over.
    pub(super) fn close_requests(&mut self, now: Instant) {
        let over: SmallVec<[RequestId; 8]> = self
            .requests
            .known
            .iter()
            .filter(|(_, known)| known.is_idle() && known.figures.leases > 0)
            .map(|(id, _)| id)
            .collect();
        for id in over {
            let patience = self.over_after(self.requests.known[id].figures.feature);
            let known = &mut self.requests.known[id];
            if known.last_used + patience > now {
                continue;
            }
            let figures = std::mem::replace(&mut known.figures, Figures::new(now));
            let jump = self.features.request_over(
                figures.feature,
                &RequestFigures {
                    leases: figures.leases,
                    used: figures.used,
                    residence: known.last_used.saturating_duration_since(figures.since),
                    peak: figures.peak,
                    nested: figures.nested,
                },
                now,
            );
            if let Some(FanOutJump { feature, before, now }) = jump {
                self.tell(Event::FanOutJump { feature, before, now });
            }
        }
        self.requests.forget_old(now);
    }

    /// How many operations of one request may wait under its name.
    pub(super) fn max_parallel(&self, class: ClassId) -> usize {
        let most = self.settings.classes[class.index()].1.max_parallel.max(1);
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use crate::request::TraceId;

    use super::*;

    #[test]
    fn a_request_that_two_pools_know_is_found_in_each() {
        let now = time::now();
        let names: Vec<_> = (1..=4)
            .map(|n| {
                let parent = format!("00-{n:032x}-00f067aa0ba902b7-01");
                Request::new("tenant".into(), TraceId::from_traceparent(&parent).unwrap())
            })
            .collect();
        let (mut here, mut there) = (Requests::default(), Requests::default());
        names.iter().for_each(|name| _ = here.know(name, now));
        names.iter().rev().for_each(|name| _ = there.know(name, now));
        for _ in 0..2 {
            for name in &names {
                for pool in [&here, &here, &there, &there] {
                    assert_eq!(pool.name(pool.find(name).unwrap()), name);
                }
            }
        }
        here.forget_unserved(here.find(&names[0]).unwrap());
        assert_eq!(here.find(&names[0]), None);
        let other = Request::new("tenant".into(), names[0].trace());
        assert_eq!(there.find(&other), there.find(&names[0]), "nor does it matter who names it");
    }
}
