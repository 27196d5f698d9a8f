//! Who is next: every connection that is free and every seat that is free meet here.

use std::time::{Duration, Instant};

use crate::class::ClassId;
use crate::deadlock::Activity;
use crate::fair::{Charge, Turn};
use crate::queue::{Fate, Level};
use crate::slot::{ConnId, IdentityId, Lent, RequestId, Slot, WaiterId};

use super::{Action, Actions, Ledger};

/// What a lease is expected to take before anything is known, seconds.
const UNKNOWN_HOLD: f64 = 0.01;

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
    /// Lends `conn`, whose idle place was already taken away.
    pub(super) fn lend(
        &mut self,
        conn: ConnId,
        class: ClassId,
        request: Option<RequestId>,
        since: Instant,
        now: Instant,
    ) {
        let stats = &mut self.counters.classes[class.index()];
        let charge = if self.seats.is_below_guarantee(class) {
            Charge::Free
        } else {
            let expected = stats.hold_mean.unwrap_or(UNKNOWN_HOLD);
            self.fair.charge(class, Duration::from_secs_f64(expected))
        };
        self.seats.take(class);
        stats.checkouts += 1;
        stats.wait.record(now.saturating_duration_since(since));
        let activity = Activity::Working;
        let lent = Lent { class, since: now, request, activity, charge };
        self.conns[conn].slot = Slot::Leased(lent);
        self.hold_for(lent, now);
    }

    /// Gives idle connections to those who wait, until nobody who may have one waits for
    /// one that is there.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Actions) {
        while !self.queued.is_empty() && self.idle > 0 {
            let best = self
                .queued
                .iter()
                .filter(|identity| !self.identities[**identity].idle.is_empty())
                .filter_map(|identity| self.first_in_line(*identity))
                .min();
            let Some((claim, waiter)) = best else { return };
            if self.give_way(claim, self.waiters[waiter].identity, now, actions) {
                continue;
            }
            let Some(conn) = self.identities[self.waiters[waiter].identity].idle.pop() else {
                return;
            };
            self.idle -= 1;
            self.grant(waiter, conn, now, actions);
        }
    }

    fn grant(&mut self, id: WaiterId, conn: ConnId, now: Instant, actions: &mut Actions) {
        self.dequeue(id);
        let waiter = &mut self.waiters[id];
        waiter.fate = Fate::Granted { conn };
        let (class, request, since) = (waiter.class, waiter.request, waiter.since);
        self.counters.classes[class.index()].waited += 1;
        self.lend(conn, class, request, since, now);
        actions.push(Action::Wake(id));
    }

    /// The first waiter of `identity` that its class allows a connection.
    pub(super) fn first_in_line(&self, identity: IdentityId) -> Option<(Claim, WaiterId)> {
        let lanes = &self.identities[identity].lanes;
        self.class_ids()
            .filter_map(|class| Some((class, lanes.first(class)?)))
            .filter(|(class, _)| self.seats.may_take(*class))
            .map(|(class, (level, waiter))| {
                let (standing, turn) = match level {
                    _ if self.seats.is_below_guarantee(class) => {
                        (Standing::BelowGuarantee, Turn::FIRST)
                    }
                    Level::Holder => (Standing::Holder, Turn::FIRST),
                    Level::Continuation | Level::New => {
                        (Standing::Borrowing, self.fair.turn(class))
                    }
                };
                (Claim { standing, turn, level, age: self.waiters[waiter].age }, waiter)
            })
            .min()
    }
}
