//! Who is next: every connection that is free and every seat that is free meet here.

use std::time::{Duration, Instant};

use crate::class::ClassId;
use crate::deadlock::Activity;
use crate::fair::{Charge, Turn};
use crate::freshness::Order;
use crate::queue::{Fate, Lanes, Level, Waiter, Work};
use crate::slot::{ConnId, IdentityId, Lent, Slot, Told, WaiterId, Watch};

use super::{Action, Actions, Ledger};

/// What a lease is expected to take before anything is known.
const UNKNOWN_HOLD: Duration = Duration::from_millis(10);
/// Waiters of a lane that are looked at for one that nothing holds back.
pub(super) const LOOKED_AT: usize = 64;

/// A waiter's claim, in the order in which claims are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    standing: Standing,
    /// Among those who borrow: whose class had least of what is lent, by weight.
    turn: Turn,
    level: Level,
    age: Instant,
}

/// On what ground a waiter claims a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Its class is below its guarantee: nobody waits for what it was promised behind one
    /// that borrows. It takes a seat that no other could have.
    BelowGuarantee,
    /// Its request holds a connection already, and can give it back only by going on.
    Holder,
    /// Everybody else, by class, then by level.
    Borrowing,
}

impl Ledger {
    /// Lends `conn`, whose idle place was already taken away, for `work` that came at `since`
    /// and is expected to take so long, where that is known.
    pub(super) fn lend(
        &mut self,
        conn: ConnId,
        work: &Work,
        expected: Option<Duration>,
        since: Instant,
        now: Instant,
    ) {
        let Work { class, request, cost, needs, pass } = *work;
        let charge = if self.seats.is_below_guarantee(class) {
            Charge::Free
        } else {
            self.fair.charge(class, expected.unwrap_or(UNKNOWN_HOLD))
        };
        self.take_seat(self.conns[conn].identity, class);
        self.note_use(class, now);
        let waited =
            if since == now { Duration::ZERO } else { now.saturating_duration_since(since) };
        let stats = &mut self.counters.classes[class.index()];
        stats.checkouts += 1;
        stats.wait.record(waited);
        self.features.lent(cost.feature(), waited);
        let lent = Lent {
            class,
            since: now,
            request,
            activity: Activity::Working,
            charge,
            cost,
            does: None,
            pass,
            outcome: Told::Nothing,
            watch: Watch::Silent,
        };
        self.conns[conn].slot = Slot::Leased(lent);
        self.hold_for(&lent, needs, now);
    }

    /// Gives idle connections to those who wait, until nobody who may have one waits for
    /// one that is there.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Actions) {
        while !self.queued.is_empty() && self.idle > 0 {
            let next = match self.queued[..] {
                // Nobody else has a claim.
                [only] => self.first_of(only, now),
                _ => {
                    let best = self
                        .queued
                        .iter()
                        .filter(|identity| !self.identities[**identity].idle.is_empty())
                        .filter_map(|identity| self.first_in_line(*identity, now))
                        .min();
                    let Some((claim, waiter)) = best else { return };
                    if self.give_way(claim, self.waiters[waiter].identity, now, actions) {
                        continue;
                    }
                    Some(waiter)
                }
            };
            let Some(waiter) = next else { return };
            let Some(conn) = self.identities[self.waiters[waiter].identity].idle.pop() else {
                return;
            };
            self.idle -= 1;
            self.grant(waiter, conn, now, actions);
        }
    }

    fn grant(&mut self, id: WaiterId, conn: ConnId, now: Instant, actions: &mut Actions) {
        self.dequeue(id, now);
        let waiter = &mut self.waiters[id];
        waiter.fate = Fate::Granted { conn };
        let (work, since, level) = (waiter.work(), waiter.since, waiter.level);
        let expected = self.costs.mean(waiter.cost, waiter.declared);
        self.counters.classes[work.class.index()].waited += 1;
        self.note_continuation(work.class, level, since, now);
        self.lend(conn, &work, expected, since, now);
        actions.push(Action::Wake(id));
    }

    /// The first of `class` in `lanes` that nothing holds back.
    #[inline]
    pub(super) fn next_of(
        &self,
        lanes: &Lanes,
        class: ClassId,
        now: Instant,
    ) -> Option<(Level, WaiterId)> {
        if self.is_open(class) {
            return lanes.first(class);
        }
        Level::ALL.into_iter().find_map(|level| {
            if level == Level::New && self.order(class, now) == Order::NewestFirst {
                let mut lane = lanes.newest_first(&self.waiters, class, level).take(LOOKED_AT);
                let next = lane.find(|id| self.may_go(&self.waiters[*id]))?;
                return Some((level, next));
            }
            let mut lane = lanes.lane(&self.waiters, class, level).take(LOOKED_AT);
            let next = lane.find(|id| self.may_go(&self.waiters[*id]))?;
            Some((level, next))
        })
    }

    fn claim(&self, class: ClassId, level: Level, age: Instant) -> Claim {
        let (standing, turn) = match level {
            _ if self.seats.is_below_guarantee(class) => (Standing::BelowGuarantee, Turn::FIRST),
            Level::Holder => (Standing::Holder, Turn::FIRST),
            Level::Continuation | Level::New => (Standing::Borrowing, self.fair.turn(class)),
        };
        Claim { standing, turn, level, age }
    }

    /// The claim of one who waits and whom its class allows a connection.
    pub(super) fn claim_of(&self, id: WaiterId) -> Claim {
        let Waiter { class, level, age, .. } = self.waiters[id];
        self.claim(class, level, age)
    }

    /// The first waiter of `identity` that its class allows a connection, where claims of other
    /// identities do not count.
    #[inline]
    fn first_of(&self, identity: IdentityId, now: Instant) -> Option<WaiterId> {
        let lanes = &self.identities[identity].lanes;
        let Some(class) = lanes.crowd().only() else {
            return self.first_in_line(identity, now).map(|(_, waiter)| waiter);
        };
        if !self.may_take(identity, class) {
            return None;
        }
        self.next_of(lanes, class, now).map(|(_, waiter)| waiter)
    }

    /// The first waiter of `identity` that its class allows a connection, with its claim.
    pub(super) fn first_in_line(
        &self,
        identity: IdentityId,
        now: Instant,
    ) -> Option<(Claim, WaiterId)> {
        let lanes = &self.identities[identity].lanes;
        let mut first: Option<(Claim, WaiterId)> = None;
        for class in lanes.crowd().classes() {
            if !self.may_take(identity, class) {
                continue;
            }
            let Some((level, waiter)) = self.next_of(lanes, class, now) else { continue };
            let claim = self.claim(class, level, self.waiters[waiter].age);
            if first.is_none_or(|first| (claim, waiter) < first) {
                first = Some((claim, waiter));
            }
        }
        first
    }
}
