//! Leases whose owners could do without them for now, and which of them are called home for
//! somebody who waits (parking; the reclaim of engine notes c.5).
//!
//! An owner offers its lease while nothing runs on it; the ledger calls when that lets a waiter
//! go, no more than there are waiters; the owner gives the lease back, or withdraws its offer
//! because it cannot, and the next one is called. Classes below their nominal share come first,
//! and what others have borrowed is called first. Always true: a call is for somebody who waits,
//! and whoever a called lease could serve is called for.

use std::cmp::Reverse;
use std::time::Instant;

use crate::class::ClassId;
use crate::slot::{ConnId, Slot};

use super::{Action, Actions, Ledger};

/// A lease that may be called home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) conn: ConnId,
    /// Since when nothing runs on it.
    since: Instant,
    pub(super) called: Called,
}

/// Whether its owner was asked to give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    No,
    Yes,
}

/// A change of seats that is only thought of.
#[derive(Debug, Clone, Copy)]
enum Thought {
    Freed(ClassId),
    Taken(ClassId),
}

impl Ledger {
    /// The owner of a lease, on which nothing runs since `since`, could give it back.
    pub(crate) fn offer(
        &mut self,
        id: ConnId,
        since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Slot::Leased(_) = self.conns[id].slot else { return };
        self.offers.retain(|offer| offer.conn != id);
        self.offers.push(Offer { conn: id, since, called: Called::No });
        self.conclude(now, actions);
    }

    /// It cannot, or goes on with its work.
    pub(crate) fn withdraw(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        self.offers.retain(|offer| offer.conn != id);
        self.conclude(now, actions);
    }

    /// A lease ends, and with it what was offered.
    pub(super) fn forget_offer(&mut self, id: ConnId) {
        if !self.offers.is_empty() {
            self.offers.retain(|offer| offer.conn != id);
        }
    }

    /// At the end of whatever may have given or taken a seat: calls home what lets somebody go
    /// who waits.
    #[inline]
    pub(super) fn recall_offered(&mut self, actions: &mut Actions) {
        if !self.offers.is_empty() {
            self.recall(actions);
        }
    }

    #[inline(never)]
    fn recall(&mut self, actions: &mut Actions) {
        if self.queued.is_empty() || self.offers.iter().all(|offer| offer.called == Called::Yes) {
            return;
        }
        let mut thoughts = Vec::new();
        for at in 0..self.offers.len() {
            if self.offers[at].called == Called::Yes
                && let Some(class) = self.offered_class(at)
            {
                self.think(Thought::Freed(class), &mut thoughts);
            }
        }
        // What is being cleaned serves somebody soon.
        let mut coming = self.cleaning;
        let mut classes: Vec<_> = self.crowd.classes().collect();
        classes.sort_by_key(|class| Reverse(self.missing(*class)));
        for class in classes {
            for _ in 0..self.within_reach(class) {
                if !self.seats.may_take(class) {
                    let Some(at) = self.best_offer(class) else { break };
                    if coming > 0 {
                        coming -= 1;
                        continue;
                    }
                    self.offers[at].called = Called::Yes;
                    actions.push(Action::Recall(self.offers[at].conn));
                    if let Some(freed) = self.offered_class(at) {
                        self.think(Thought::Freed(freed), &mut thoughts);
                    }
                }
                self.think(Thought::Taken(class), &mut thoughts);
            }
        }
        for thought in thoughts.into_iter().rev() {
            match thought {
                Thought::Freed(class) => self.seats.take(class),
                Thought::Taken(class) => self.seats.free(class),
            }
        }
    }

    /// Those of `class` who wait, and whom a connection that comes home could serve: nobody of an
    /// identity that is paused, and of one that has all it may, or whose caps are full, no more
    /// than could give a connection of its own back.
    pub(super) fn within_reach(&self, class: ClassId) -> u32 {
        let mut within = 0_u32;
        for id in &self.queued {
            let identity = &self.identities[*id];
            let waiting = identity.lanes.crowd().of(class);
            if waiting == 0 || identity.is_paused() {
                continue;
            }
            let own = identity.own.as_ref().map_or(u32::MAX, |own| own.headroom(class));
            let resting = u32::try_from(identity.idle.len()).unwrap_or(u32::MAX);
            let free = if self.has_places(*id) { own } else { own.min(resting) };
            let full: Vec<_> = self.full_caps(*id).collect();
            let frees = |offer: &&Offer| {
                let conn = &self.conns[offer.conn];
                conn.identity == *id || !full.is_empty() && full.iter().all(|c| conn.is_under(c))
            };
            let offered = if waiting > free { self.offers.iter().filter(frees).count() } else { 0 };
            let most = free.saturating_add(u32::try_from(offered).unwrap_or(u32::MAX));
            within = within.saturating_add(waiting.min(most));
        }
        within
    }

    fn think(&mut self, thought: Thought, thoughts: &mut Vec<Thought>) {
        match thought {
            Thought::Freed(class) => self.seats.free(class),
            Thought::Taken(class) => self.seats.take(class),
        }
        thoughts.push(thought);
    }

    fn offered_class(&self, at: usize) -> Option<ClassId> {
        match self.conns[self.offers[at].conn].slot {
            Slot::Leased(lent) => Some(lent.class),
            Slot::Opening { .. }
            | Slot::Idle { .. }
            | Slot::Cleaning { .. }
            | Slot::Probing { .. }
            | Slot::Parting { .. } => None,
        }
    }

    /// The offer that lets `class` go: of the class that has borrowed most, then of an identity
    /// that somebody waits for, then the one that rests for longest.
    fn best_offer(&mut self, class: ClassId) -> Option<usize> {
        let mut best = None;
        for at in 0..self.offers.len() {
            let Offer { conn, since, called } = self.offers[at];
            let Some(of) = self.offered_class(at).filter(|_| called == Called::No) else {
                continue;
            };
            if !self.would_help(of, class) {
                continue;
            }
            let is_wanted = !self.identities[self.conns[conn].identity].lanes.is_empty();
            let key = (Reverse(-self.missing(of).min(0)), !is_wanted, since);
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// Could `class` be given a connection if `of` gave one back?
    pub(super) fn would_help(&mut self, of: ClassId, class: ClassId) -> bool {
        self.seats.free(of);
        let would = self.seats.may_take(class);
        self.seats.take(of);
        would
    }

    /// What `class` lacks of its nominal share; less than nothing: what it has beyond it.
    pub(super) fn missing(&self, class: ClassId) -> i64 {
        i64::from(self.nominal(class)) - i64::from(self.seats.classes[class.index()].taken)
    }

    /// The nominal share of `class`: its guarantee, and its part by weight of what is above the
    /// guarantees; never above its ceiling.
    pub(super) fn nominal(&self, class: ClassId) -> u32 {
        let weight =
            |class: &ClassId| u64::from(self.settings.classes[class.index()].1.weight.max(1));
        let limits = |class: &ClassId| self.seats.classes[class.index()].limits;
        let (all, guaranteed) = self.listed.iter().fold((0, 0), |(all, guaranteed), class| {
            (all + weight(class), guaranteed + limits(class).guarantee)
        });
        let above = u64::from(self.seats.budget.saturating_sub(guaranteed));
        let part = (above * weight(&class)).checked_div(all).unwrap_or(0);
        let part = u32::try_from(part).unwrap_or(u32::MAX);
        limits(&class).guarantee.saturating_add(part).min(limits(&class).ceiling)
    }
}
