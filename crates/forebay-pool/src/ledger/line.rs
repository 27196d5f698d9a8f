//! Asking, waiting and leaving: who stands in line, and who is told at once that it is no use.
//!
//! Always true: at most `queue_factor` times the seats that an AI class can get are *new
//! requests* in its line, however many queries each has there; a waiter's rank only improves.

use std::time::{Duration, Instant};

use crate::ask::{Ask, Attempt, Resumes};
use crate::breaker::{Outcome, Pass};
use crate::class::{ClassId, Kind};
use crate::cost::CostId;
use crate::lease::Condition;
use crate::operation::Operation;
use crate::queue::{Fate, Level, Rejection, Waiter, Work};
use crate::request::Request;
use crate::slot::{ConnId, IdentityId, RequestId, WaiterId};

use super::home::Length;
use super::{Action, Actions, Identity, Ledger};

/// What a caller is told at once.
#[derive(Debug)]
pub(crate) enum Asked {
    Granted(ConnId),
    Waiting(WaiterId),
    Rejected(Rejection),
}

/// What a caller asks the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) identity: IdentityId,
    pub(crate) class: ClassId,
    pub(crate) request: Option<&'a Request>,
    pub(crate) operation: Option<&'a Operation>,
    /// The connection time that it is declared to take.
    pub(crate) cost: Option<Duration>,
    pub(crate) attempt: Attempt,
    /// Connections that the request needs at the same time, as far as declared.
    pub(crate) needs: u32,
    /// Its own, beside the class's.
    pub(crate) deadline: Option<Instant>,
    pub(crate) resumes: Resumes,
    pub(crate) came: Came,
}

impl<'a> Wanted<'a> {
    /// What `ask` asks, as `identity`.
    pub(crate) fn of<I>(ask: &'a Ask<I>, identity: IdentityId, came: Came) -> Self {
        Self {
            identity,
            class: ask.class,
            request: ask.request.as_ref(),
            operation: ask.operation.as_ref(),
            cost: ask.cost,
            attempt: ask.attempt,
            needs: ask.needs,
            deadline: ask.deadline,
            resumes: ask.resumes,
            came,
        }
    }
}

/// When a caller came.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Came {
    Now,
    /// It was given a connection that turned out to be dead, and keeps its place.
    Before(Instant),
}

impl Ledger {
    /// A caller wants a connection.
    pub(crate) fn ask(
        &mut self,
        wanted: &Wanted<'_>,
        now: Instant,
        actions: &mut Actions,
    ) -> Asked {
        let Wanted { identity, class, request, came, .. } = *wanted;
        if self.closing {
            return Asked::Rejected(Rejection::Closed);
        }
        let since = match came {
            Came::Now => now,
            Came::Before(since) => since,
        };
        let known = request.and_then(|request| self.requests.find(request));
        let most = self.max_parallel(class);
        let (level, age) = {
            let held = request.map_or(0, Request::held);
            let ranked = self.requests.rank(known, held, most, since, now);
            match wanted.resumes {
                Resumes::No => ranked,
                Resumes::Since(first) => (ranked.0.min(Level::Continuation), ranked.1.min(first)),
            }
        };
        let cost = match wanted.operation {
            Some(operation) => self.costs.find(class, operation, &mut self.features, now),
            None => CostId::unnamed(class),
        };
        let (declared, needs) = (wanted.cost, wanted.needs);
        let expected = self.costs.mean(cost, declared);
        let fate = Fate::Waiting { prev: None, next: None };
        let mut waiter = Waiter {
            identity,
            class,
            request: known,
            cost,
            declared,
            needs,
            pass: Pass::Usual,
            level,
            age,
            since,
            until: match wanted.resumes {
                Resumes::No => None,
                Resumes::Since(_) => wanted.deadline,
            },
            fate,
        };
        if let (Came::Now, Resumes::No) = (came, wanted.resumes)
            && let Some(rejection) = self.turn_away(&mut waiter, wanted, expected, now)
        {
            return self.refuse(&waiter, wanted, rejection, now);
        }
        if self.may_take_now(&waiter)
            && let Some(conn) = self.identities[identity].idle.pop()
        {
            self.idle -= 1;
            let request = known.or_else(|| request.and_then(|r| self.requests.know(r, now)));
            self.lend(conn, &Work { request, ..waiter.work() }, expected, since, now);
            // Who waits for a connection to be opened may have lost the seat for it.
            self.recall_offered(actions);
            return Asked::Granted(conn);
        }
        if let Some(rejection) = self.hopeless(identity, now) {
            self.counters.classes[class.index()].failed += 1;
            return self.refuse(&waiter, wanted, rejection, now);
        }
        let named = known.filter(|id| self.requests.has_place(*id, most));
        if let (Level::New, Came::Now) = (waiter.level, came) {
            if !self.queue_has_room(class, named) {
                self.counters.classes[class.index()].queue_full += 1;
                let rejection = Rejection::QueueFull { limit: self.queue_limit(class) };
                return self.refuse(&waiter, wanted, rejection, now);
            }
            if let Some(rejection) = self.too_late(&waiter, wanted, now) {
                return self.refuse(&waiter, wanted, rejection, now);
            }
        }
        waiter.request = match known {
            Some(_) => named,
            None => request.and_then(|request| self.requests.know(request, now)),
        };
        let waiter = self.waiters.insert(waiter);
        self.enqueue(waiter, now);
        self.watch_queue(waiter, now, actions);
        self.open_more(now, actions);
        self.conclude(now, actions);
        Asked::Waiting(waiter)
    }

    fn refuse(
        &mut self,
        waiter: &Waiter,
        wanted: &Wanted<'_>,
        rejection: Rejection,
        now: Instant,
    ) -> Asked {
        self.note_rejection(waiter, wanted, now);
        Asked::Rejected(rejection)
    }

    /// Nothing to wait for: the destination is down, or refuses this identity, and no
    /// connection of it is there that could come home.
    fn hopeless(&self, identity: IdentityId, now: Instant) -> Option<Rejection> {
        let identity = &self.identities[identity];
        if identity.live > 0 || identity.is_paused() {
            return None;
        }
        if let Some((failure, _)) = identity.denied(now) {
            return Some(Rejection::Denied(failure.clone()));
        }
        let failure = self.opener.outage().filter(|_| self.opener.is_broken(now))?;
        Some(Rejection::Unreachable(failure.clone()))
    }

    /// New requests of `class` that may wait: a multiple of the seats it can get.
    pub(super) fn queue_limit(&self, class: ClassId) -> u32 {
        self.seats.reach(class).saturating_mul(self.settings.queue_factor)
    }

    /// Core is bounded by its connected clients and their deadline.
    fn queue_has_room(&self, class: ClassId, request: Option<RequestId>) -> bool {
        self.seats.kind(class) == Kind::Core
            || self.new_waiting[class.index()] < self.queue_limit(class)
            || self.new_waits_already(request, class, None)
    }

    pub(super) fn enqueue(&mut self, id: WaiterId, now: Instant) {
        let Waiter { identity, class, level, request, .. } = self.waiters[id];
        let lanes = &mut self.identities[identity].lanes;
        if lanes.is_empty() {
            self.queued.push(identity);
        }
        lanes.insert(&mut self.waiters, id);
        self.crowd.enters(class);
        if level == Level::New && !self.new_waits_already(request, class, Some(id)) {
            self.new_waiting[class.index()] += 1;
            self.freshness[class.index()].queue(self.new_waiting[class.index()], now);
        }
        if let Some(request) = request {
            self.requests.waits(request, id);
        }
    }

    /// Takes `id` out of its lane and out of its request's list.
    pub(super) fn dequeue(&mut self, id: WaiterId, now: Instant) {
        let Waiter { identity, class, level, request, .. } = self.waiters[id];
        let lanes = &mut self.identities[identity].lanes;
        lanes.remove(&mut self.waiters, id);
        self.crowd.leaves(class);
        if lanes.is_empty() {
            self.queued.retain(|other| *other != identity);
        }
        if level == Level::New && !self.new_waits_already(request, class, Some(id)) {
            self.new_waiting[class.index()] -= 1;
            self.freshness[class.index()].queue(self.new_waiting[class.index()], now);
        }
        if let Some(request) = request {
            self.requests.waits_no_more(request, id);
        }
    }

    /// `id` goes without a connection: nothing is kept of a request that never had one.
    pub(super) fn leave_line(&mut self, id: WaiterId, now: Instant) {
        let Waiter { class, pass, request, .. } = self.waiters[id];
        self.note_end(class, pass, Outcome::Unknown, now);
        self.dequeue(id, now);
        if let Some(request) = request {
            self.note_idle(request, now);
        }
    }

    /// A waiter that left the line is told why.
    pub(super) fn reject(&mut self, id: WaiterId, why: Rejection, now: Instant) {
        let Waiter { class, request, cost, .. } = self.waiters[id];
        self.note_failure(class, request, cost, now);
        self.waiters[id].fate = Fate::Rejected(why);
        self.forget_unserved(id);
    }

    /// Nothing is kept of a request that went without a connection and waits for none.
    fn forget_unserved(&mut self, id: WaiterId) {
        if let Some(request) = self.waiters[id].request {
            self.requests.forget_unserved(request);
        }
    }

    /// Is another query of the same new request in the line of `class`?
    fn new_waits_already(
        &self,
        request: Option<RequestId>,
        class: ClassId,
        beside: Option<WaiterId>,
    ) -> bool {
        request.is_some_and(|request| {
            self.requests.waiting(request).iter().any(|other| {
                let waiter = &self.waiters[*other];
                Some(*other) != beside && waiter.class == class && waiter.level == Level::New
            })
        })
    }

    /// Does only its own deadline count?
    pub(crate) fn has_own_patience(&self, id: WaiterId) -> bool {
        self.waiters.get(id).is_some_and(|waiter| waiter.until.is_some())
    }

    pub(crate) fn fate(&self, id: WaiterId) -> &Fate {
        &self.waiters[id].fate
    }

    /// The caller has heard its fate: it has its connection, or knows why not.
    pub(crate) fn heard(&mut self, id: WaiterId) {
        self.waiters.remove(id);
    }

    /// The waiter's deadline passed. Does nothing to one whose fate is decided.
    pub(crate) fn expire(&mut self, id: WaiterId, now: Instant, actions: &mut Actions) {
        let Waiter { identity, class, since, ref fate, .. } = self.waiters[id];
        if !matches!(fate, Fate::Waiting { .. }) {
            return;
        }
        let held_back = self.held_back(id);
        self.leave_line(id, now);
        let stats = &mut self.counters.classes[class.index()];
        stats.wait.record(now.saturating_duration_since(since));
        let is_cut_off = |identity: &Identity| identity.live == 0 && !identity.is_paused();
        let outage = self.opener.outage().filter(|_| is_cut_off(&self.identities[identity]));
        let rejection = match outage {
            Some(failure) => {
                stats.failed += 1;
                Rejection::Unreachable(failure.clone())
            }
            None => {
                stats.timed_out += 1;
                held_back.unwrap_or(Rejection::TimedOut)
            }
        };
        self.reject(id, rejection, now);
        self.conclude(now, actions);
    }

    /// The waiter left without hearing its fate. A connection that was set aside for it goes
    /// on to the next.
    pub(crate) fn abandon(&mut self, id: WaiterId, now: Instant, actions: &mut Actions) {
        let Waiter { class, ref fate, .. } = self.waiters[id];
        match *fate {
            Fate::Waiting { .. } => {
                self.counters.classes[class.index()].abandoned += 1;
                self.leave_line(id, now);
                self.forget_unserved(id);
            }
            Fate::Granted { conn } => {
                self.counters.classes[class.index()].abandoned += 1;
                self.return_untouched(conn, now, actions);
            }
            Fate::Rejected(_) => {}
        }
        self.waiters.remove(id);
        self.conclude(now, actions);
    }

    /// Nobody of `identity` gets anything.
    pub(super) fn reject_all(
        &mut self,
        identity: IdentityId,
        rejection: &Rejection,
        now: Instant,
        actions: &mut Actions,
    ) {
        for id in self.identities[identity].lanes.all(&self.waiters) {
            self.leave_line(id, now);
            let waiter = &self.waiters[id];
            let stats = &mut self.counters.classes[waiter.class.index()];
            stats.failed += 1;
            stats.wait.record(now.saturating_duration_since(waiter.since));
            self.reject(id, rejection.clone(), now);
            actions.push(Action::Wake(id));
        }
    }

    pub(super) fn reject_all_closing(&mut self, now: Instant, actions: &mut Actions) {
        for identity in self.queued.clone() {
            self.reject_all(identity, &Rejection::Closed, now, actions);
        }
    }

    /// A connection was set aside for a caller that left before it came.
    fn return_untouched(&mut self, conn: ConnId, now: Instant, actions: &mut Actions) {
        let class = self.undo_lease(conn, now);
        self.counters.classes[class.index()].waited -= 1;
        self.come_home(conn, class, (Condition::Clean, Length::Unusual), now, actions);
    }
}
