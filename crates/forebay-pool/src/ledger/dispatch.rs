//! Who is next: every connection that is free and every seat that is free meet here.

use std::time::Instant;

use crate::class::ClassId;
use crate::queue::{Fate, Level};
use crate::request::Request;
use crate::slot::{ConnId, IdentityId, Slot, WaiterId};

use super::{Action, Actions, Ledger};

/// A waiter's claim, in the order in which claims are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    level: Level,
    /// A class below its guarantee goes before one that borrows.
    standing: Standing,
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
        request: Option<Request>,
        since: Instant,
        now: Instant,
    ) {
        self.seats.take(class);
        let stats = &mut self.counters.classes[class.index()];
        stats.checkouts += 1;
        stats.wait.record(now.saturating_duration_since(since));
        if let Some(request) = &request {
            self.hold_for(request.clone(), now);
        }
        self.conns[conn].slot = Slot::Leased { class, since: now, request };
    }

    /// A connection that is fit rests, unless there is a reason to part with it. One that
    /// was only probed keeps its place among the idle ones, so that probes do not keep alive
    /// what nobody uses.
    pub(super) fn rest(&mut self, id: ConnId, since: Instant, now: Instant, actions: &mut Actions) {
        let total = u32::try_from(self.conns.len()).unwrap_or(u32::MAX);
        if self.closing || total > self.seats.budget {
            self.counters.closed.surplus += 1;
            return self.discard(id, actions);
        }
        if self.conns[id].expires <= now {
            self.counters.closed.lifetime += 1;
            return self.discard(id, actions);
        }
        self.conns[id].slot = Slot::Idle { since, checked: now };
        let idle = &mut self.identities[self.conns[id].identity].idle;
        let place = if since == now {
            idle.len()
        } else {
            idle.partition_point(|other| match self.conns[*other].slot {
                Slot::Idle { since: others, .. } => others <= since,
                Slot::Opening { .. }
                | Slot::Leased { .. }
                | Slot::Cleaning { .. }
                | Slot::Probing { .. } => false,
            })
        };
        idle.insert(place, id);
        self.idle += 1;
    }

    /// The connection leaves the ledger, and the shell closes it.
    pub(super) fn discard(&mut self, id: ConnId, actions: &mut Actions) {
        self.forget(id);
        actions.push(Action::Close(id));
    }

    /// The connection leaves the ledger; the shell has closed it already.
    pub(super) fn forget(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(id) {
            self.identities[conn.identity].live -= 1;
        }
    }

    /// Gives idle connections to those who wait, until nobody who may have one waits for
    /// one that is there.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Actions) {
        while !self.queued.is_empty() {
            let best = self
                .queued
                .iter()
                .filter(|identity| !self.identities[**identity].idle.is_empty())
                .filter_map(|identity| self.first_in_line(*identity))
                .min();
            let Some((_, waiter)) = best else { return };
            let identity = self.waiters[waiter].identity;
            let Some(conn) = self.identities[identity].idle.pop() else { return };
            self.idle -= 1;
            self.grant(waiter, conn, now, actions);
        }
    }

    fn grant(&mut self, id: WaiterId, conn: ConnId, now: Instant, actions: &mut Actions) {
        self.dequeue(id);
        let waiter = &mut self.waiters[id];
        waiter.fate = Fate::Granted { conn };
        let (class, request, since) = (waiter.class, waiter.request.clone(), waiter.since);
        self.counters.classes[class.index()].waited += 1;
        self.lend(conn, class, request, since, now);
        actions.push(Action::Wake(id));
    }

    /// The first waiter of `identity` that its class allows a connection.
    pub(super) fn first_in_line(&self, identity: IdentityId) -> Option<(Claim, WaiterId)> {
        let lanes = &self.identities[identity].lanes;
        Level::ALL.into_iter().find_map(|level| {
            self.class_ids()
                .filter_map(|class| Some((class, lanes.head(class, level)?)))
                .filter(|(class, _)| self.seats.may_take(*class))
                .map(|(class, waiter)| {
                    let standing = if self.seats.is_below_guarantee(class) {
                        Standing::BelowGuarantee
                    } else {
                        Standing::Borrowing
                    };
                    (Claim { level, standing, age: self.waiters[waiter].age }, waiter)
                })
                .min()
        })
    }

    pub(super) fn class_ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        let count = u8::try_from(self.settings.classes.len()).unwrap_or(u8::MAX);
        (0..count).map(ClassId)
    }
}
