//! Who is next: every connection that is free and every seat that is free meet here.

use std::time::Instant;

use crate::class::ClassId;
use crate::queue::{Fate, Level};
use crate::slot::{ConnId, IdentityId, RequestId, Slot, WaiterId};

use super::{Action, Actions, Ledger};

/// A waiter's claim, in the order in which claims are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// A class below its guarantee goes first: nobody waits for what it was promised behind
    /// one that borrows. It takes a seat that no other could have.
    standing: Standing,
    level: Level,
    age: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    BelowGuarantee,
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
        self.seats.take(class);
        let stats = &mut self.counters.classes[class.index()];
        stats.checkouts += 1;
        stats.wait.record(now.saturating_duration_since(since));
        self.conns[conn].slot = Slot::Leased { class, since: now, request };
        if let Some(request) = request {
            self.hold_for(request, now);
        }
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
                let standing = if self.seats.is_below_guarantee(class) {
                    Standing::BelowGuarantee
                } else {
                    Standing::Borrowing
                };
                (Claim { standing, level, age: self.waiters[waiter].age }, waiter)
            })
            .min()
    }
}
