//! When one more connection is opened, and for whom: as many as those who wait could be
//! lent, as the pace allows, never more than the budget; at the budget an idle connection of
//! another identity makes room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cap;
use crate::queue::Waiter;
use crate::settings::Parting;
use crate::slot::{Conn, ConnId, IdentityId, Slot, WaiterId};
use crate::target::Pace;

use super::dispatch::Claim;
use super::{Action, Actions, Identity, Ledger};

/// A cap that is full of other pools' connections is looked at again after this.
pub(super) const CAP_PAUSE: Duration = Duration::from_millis(10);
/// How often a pool looks whether another lacks what rests here under a full cap.
pub(super) const SPARE_PAUSE: Duration = Duration::from_millis(100);
/// An idle connection younger than this is not closed to make room for another identity,
/// unless that one has waited for as long.
pub(super) const EVICTABLE: Duration = Duration::from_millis(50);

enum Eviction {
    Now(ConnId),
    At(Instant),
    Never,
}

/// An identity that lacks a connection which could be lent if it were there.
pub(super) struct Needy {
    pub(super) identity: IdentityId,
    /// Its first waiter, and since when that one waits.
    first: WaiterId,
    since: Instant,
}

impl Ledger {
    /// Opens what the queue needs, as the pace allows.
    pub(super) fn open_more(&mut self, now: Instant, actions: &mut Actions) {
        while !self.closing && !self.queued.is_empty() && self.seats.are_left() {
            let neediest = match self.queued[..] {
                [only] => self.need_of(only, now, actions),
                _ => self.neediest(now, actions),
            };
            let Some(needy) = neediest else { return };
            if self.total() < self.seats.budget && self.has_places(needy.identity) {
                if !self.open_if_paced(needy.identity, now, actions) {
                    return;
                }
                continue;
            }
            match self.evictable(&needy, now) {
                Eviction::Now(victim) => {
                    if !self.replace(victim, needy.identity, now, actions) {
                        return;
                    }
                }
                Eviction::At(at) => return actions.ring(at),
                Eviction::Never => return,
            }
        }
    }

    /// A connection of `holder` is free and the budget is used up. Is it the turn of another
    /// identity, which has waited long enough and has an older claim? Then that connection
    /// makes room, so that an identity under load cannot keep all of the budget for ever.
    pub(super) fn give_way(
        &mut self,
        claim: Claim,
        holder: IdentityId,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        if self.queued.len() < 2 || self.closing || !self.is_crowded() {
            return false;
        }
        let Some(needy) = self.neediest(now, actions) else { return false };
        if needy.identity == holder
            || self.claim_of(needy.first) > claim
            || needy.since + EVICTABLE > now
            || !self.identities[holder].idle.first().is_some_and(|id| self.frees(*id, &needy))
        {
            return false;
        }
        match self.identities[holder].idle.first() {
            Some(coldest) => self.replace(*coldest, needy.identity, now, actions),
            None => false,
        }
    }

    /// Closes `victim` and opens one of `identity` in its place; `false` if the pace forbids
    /// it now.
    fn replace(
        &mut self,
        victim: ConnId,
        identity: IdentityId,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        if !self.is_paced(now, actions) {
            return false;
        }
        self.take_idle(victim);
        self.counters.closed.evicted += 1;
        self.make_room(victim, Some(identity), actions);
        match self.settings.parting {
            Parting::AtOnce => self.open(identity, now, actions),
            Parting::Awaited => true,
        }
    }

    /// The identity whose first waiter has the best claim to a connection that is not there
    /// and not on its way.
    fn neediest(&self, now: Instant, actions: &mut Actions) -> Option<Needy> {
        let lendable = self.seats.lendable(&self.crowd);
        if lendable == 0 {
            return None;
        }
        let mut on_the_way = 0;
        let mut best: Option<(Claim, Needy)> = None;
        for id in &self.queued {
            let identity = &self.identities[*id];
            let coming = identity.opening + identity.coming;
            on_the_way += self.seats.lendable(identity.lanes.crowd()).min(coming);
            let Some(needy) = self.need_of(*id, now, actions) else { continue };
            let claim = self.claim_of(needy.first);
            if best.as_ref().is_none_or(|(other, _)| claim < *other) {
                best = Some((claim, needy));
            }
        }
        best.filter(|_| on_the_way < lendable).map(|(_, needy)| needy)
    }

    /// Whether `identity` lacks a connection that is worth opening.
    #[inline]
    fn need_of(&self, id: IdentityId, now: Instant, actions: &mut Actions) -> Option<Needy> {
        let identity = &self.identities[id];
        let crowd = identity.lanes.crowd();
        let only = crowd.only();
        let wanted = match (only, &identity.own) {
            (Some(class), None) => crowd.of(class).min(self.seats.headroom(class)),
            (None, None) => self.seats.lendable(crowd),
            (_, Some(own)) => self.seats.lendable(crowd).min(own.lendable(crowd)),
        };
        // One attempt shows whether it is still refused.
        let wanted = if identity.denied.is_some() { wanted.min(1) } else { wanted };
        if wanted <= identity.opening + identity.coming || identity.is_paused() {
            return None;
        }
        if let Some((_, until)) = identity.denied(now) {
            actions.ring(until);
            return None;
        }
        let first = match only {
            Some(class) => self.next_of(&identity.lanes, class, now).map(|(_, waiter)| waiter),
            None => self.first_in_line(id, now).map(|(_, waiter)| waiter),
        }?;
        let waiter = &self.waiters[first];
        if !self.has_size_left(identity, waiter.since, now, actions)
            || !self.may_get_place(id, waiter.since, now, actions)
        {
            return None;
        }
        if identity.live > 0 && !self.is_worth_opening(waiter, identity, now, actions) {
            return None;
        }
        Some(Needy { identity: id, first, since: waiter.since })
    }

    /// A burst that the connections at hand absorb sooner than a new one could be opened
    /// opens nothing (HikariCP, "Welcome to the jungle").
    fn is_worth_opening(
        &self,
        waiter: &Waiter,
        identity: &Identity,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        let seats = identity.own.as_deref().unwrap_or(&self.seats);
        let taken = seats.classes[waiter.class.index()].taken;
        let known = (self.opener.connect_time(), self.mean_hold(waiter.class));
        let (Some(connect), Some(hold)) = known else {
            return true;
        };
        if taken == 0 {
            return true;
        }
        let waiting = identity.lanes.crowd().of(waiter.class);
        if f64::from(waiting) * hold / f64::from(taken) > connect {
            return true;
        }
        let patience = waiter.since + self.opener.patience();
        if patience > now {
            actions.ring(patience);
        }
        patience <= now
    }

    /// May a connection be opened now? If not, an alarm is set for when it may.
    fn is_paced(&mut self, now: Instant, actions: &mut Actions) -> bool {
        match self.opener.pace(now) {
            Pace::Now => true,
            Pace::At(at) => {
                actions.ring(at);
                false
            }
            Pace::WhenOneEnds => false,
        }
    }

    /// Opens a connection of `identity`; `false` if the pace forbids it now.
    pub(super) fn open_if_paced(
        &mut self,
        identity: IdentityId,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        self.is_paced(now, actions) && self.open(identity, now, actions)
    }

    /// `false`: one of its caps is full, which another pool may have filled just now.
    fn open(&mut self, identity: IdentityId, now: Instant, actions: &mut Actions) -> bool {
        let caps = &self.identities[identity].terms.caps;
        let Some(places) = cap::take_all(caps) else {
            actions.ring(now + CAP_PAUSE);
            return false;
        };
        let places = (!places.is_empty()).then(|| Arc::from(places));
        let jitter = f64::from(self.settings.lifetime_jitter.min(99)) / 100.0;
        let factor = if jitter > 0.0 { self.dice.between(1.0 - jitter..1.0 + jitter) } else { 1.0 };
        let expires = now + self.settings.lifetime.mul_f64(factor);
        let slot = Slot::Opening { since: now };
        let generation = self.generations.current();
        let id = self.conns.insert(Conn { identity, expires, generation, slot, places });
        self.identities[identity].opening += 1;
        self.opening += 1;
        self.opener.begin(now, &mut self.dice);
        actions.push(Action::Open(id, identity));
        true
    }

    /// Whether an idle connection of another identity may be closed for `needy`.
    fn evictable(&self, needy: &Needy, now: Instant) -> Eviction {
        if self.idle == 0 {
            return Eviction::Never;
        }
        let coldest = self
            .conns
            .iter()
            .filter(|(id, conn)| conn.identity != needy.identity && self.frees(*id, needy))
            .filter_map(|(id, conn)| Some((conn.idle_since()?, id)))
            .min();
        let Some((idle_since, victim)) = coldest else { return Eviction::Never };
        let at = idle_since.min(needy.since) + EVICTABLE;
        if at <= now { Eviction::Now(victim) } else { Eviction::At(at) }
    }

    /// Takes `id` out of the idle ones of its identity.
    pub(super) fn take_idle(&mut self, id: ConnId) {
        self.identities[self.conns[id].identity].idle.retain(|other| *other != id);
        self.idle -= 1;
    }
}
