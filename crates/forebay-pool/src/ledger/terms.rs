//! What one identity may have, beside what its class may: a size of its own with a reserve,
//! caps that it shares, connections that are kept open, and pauses.
//!
//! Always true: an identity never has more connections than its size and reserve, in whatever
//! state; what it lends counts for its class in the pool and in its own seats; who is paused is
//! lent nothing, and nothing of it rests.

use std::sync::Arc;
use std::time::Instant;

use crate::budget::Seats;
use crate::cap::Cap;
use crate::class::ClassId;
use crate::generation::Generation;
use crate::slot::{Conn, ConnId, IdentityId, Slot};
use crate::terms::Terms;

use super::opening::{CAP_PAUSE, EVICTABLE, Needy, SPARE_PAUSE};
use super::{Actions, Identity, Ledger};

/// Connections of some identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// In whatever state: opening, lent, at rest, on their way out.
    pub all: u32,
    /// Of these, such as are closed as soon as they come home: they were told to be replaced,
    /// or died with their destination.
    pub outdated: u32,
}

impl Ledger {
    /// `identity` may have what `terms` say from now on.
    pub(crate) fn review(
        &mut self,
        id: IdentityId,
        terms: Terms,
        now: Instant,
        actions: &mut Actions,
    ) {
        let most = terms.most();
        let own = most.map(|most| self.own_seats(id, most));
        let identity = &mut self.identities[id];
        let was_paused = identity.is_paused();
        self.keepers -= u32::from(identity.terms.keep > 0);
        self.keepers += u32::from(terms.keep > 0);
        self.capped -= u32::from(!identity.terms.caps.is_empty());
        self.capped += u32::from(!terms.caps.is_empty());
        identity.terms = terms;
        identity.own = own;
        let is_paused = identity.is_paused();
        if was_paused && !is_paused {
            // Who waited comes back to a destination that may be another by now.
            identity.denied = None;
            self.opener.begin_slowly(now);
        }
        self.part_with_surplus_of(id, actions);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.keep_some(now, actions);
        self.conclude(now, actions);
    }

    /// Seats of its own for `id`, with what it has taken of them already.
    fn own_seats(&self, id: IdentityId, most: u32) -> Box<Seats> {
        let mut own = match &self.identities[id].own {
            Some(own) => own.clone(),
            None => {
                let mut own = Box::new(Seats::of_its_own(&self.settings, most));
                for conn in self.conns.values().filter(|conn| conn.identity == id) {
                    match conn.slot {
                        Slot::Leased(lent) => own.take(lent.class),
                        Slot::Cleaning { class } => own.take(class),
                        Slot::Opening { .. }
                        | Slot::Idle { .. }
                        | Slot::Probing { .. }
                        | Slot::Parting { .. } => {}
                    }
                }
                own
            }
        };
        own.fit(self.settings.ai_share, most.max(1), None);
        own
    }

    /// Idle connections that `id` may not have any more.
    fn part_with_surplus_of(&mut self, id: IdentityId, actions: &mut Actions) {
        while let Some(coldest) = self.identities[id].idle.first().copied()
            && !self.may_rest(id)
        {
            self.take_idle(coldest);
            self.counters.closed.surplus += 1;
            self.discard(coldest, actions);
        }
    }

    /// May what `id` has rest?
    pub(super) fn may_rest(&self, id: IdentityId) -> bool {
        let identity = &self.identities[id];
        !identity.is_paused() && identity.terms.most().is_none_or(|most| identity.live <= most)
    }

    /// Could `class` of `id` be lent one more?
    #[inline]
    pub(super) fn may_take(&self, id: IdentityId, class: ClassId) -> bool {
        let own = &self.identities[id].own;
        self.seats.may_take(class) && own.as_ref().is_none_or(|own| own.may_take(class))
    }

    #[inline]
    pub(super) fn take_seat(&mut self, id: IdentityId, class: ClassId) {
        self.seats.take(class);
        if let Some(own) = &mut self.identities[id].own {
            own.take(class);
        }
    }

    #[inline]
    pub(super) fn free_seat(&mut self, id: IdentityId, class: ClassId, now: Instant) {
        self.seats.free(class);
        if let Some(own) = &mut self.identities[id].own {
            own.free(class);
        }
        self.note_use(class, now);
    }

    /// May `identity` have one more, whose first waiter came at `since`? The reserve is for
    /// those who have waited.
    #[inline]
    pub(super) fn has_size_left(
        &self,
        identity: &Identity,
        since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        let terms = &identity.terms;
        let (Some(size), all) = (terms.size, identity.all() + identity.coming) else {
            return true;
        };
        if all < size {
            return true;
        }
        if all >= size.saturating_add(terms.reserve) {
            return false;
        }
        let opens = since + terms.reserve_after;
        if opens > now {
            actions.ring(opens);
        }
        opens <= now
    }

    /// Is there a place for `id` under each of its caps?
    #[inline]
    pub(super) fn has_places(&self, id: IdentityId) -> bool {
        self.identities[id].terms.caps.iter().all(|cap| !cap.is_full())
    }

    /// As [`Ledger::has_places`], or does something rest that could make room? What other pools
    /// have under a full cap is waited for.
    pub(super) fn may_get_place(
        &self,
        id: IdentityId,
        since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) -> bool {
        if self.has_places(id) {
            return true;
        }
        let full = || self.full_caps(id);
        let mut resting = self.conns.values().filter(|conn| conn.idle_since().is_some());
        if self.idle > 0
            && resting.any(|conn| conn.identity != id && full().all(|cap| conn.is_under(cap)))
        {
            return true;
        }
        let ours = |cap: &Arc<Cap>| self.conns.values().filter(|conn| conn.is_under(cap)).count();
        for cap in full() {
            if usize::try_from(cap.taken()).is_ok_and(|all| all > ours(cap)) {
                if since + EVICTABLE <= now {
                    cap.is_wanted_by(self.number);
                }
                actions.ring(now + CAP_PAUSE);
            }
        }
        false
    }

    pub(super) fn full_caps(&self, id: IdentityId) -> impl Iterator<Item = &Arc<Cap>> {
        self.identities[id].terms.caps.iter().filter(|cap| cap.is_full())
    }

    /// Another pool lacks places that identities of this one have: the coldest connection that
    /// rests under such a cap makes room. Asked each [`SPARE_PAUSE`] while there are caps and
    /// something rests.
    pub(super) fn spare(&mut self, now: Instant, actions: &mut Actions) {
        if self.capped == 0 || self.idle == 0 {
            return;
        }
        let wanted = |conn: &Conn| {
            let caps = &self.identities[conn.identity].terms.caps;
            caps.iter().find(|cap| cap.is_wanted_from(self.number) && conn.is_under(cap))
        };
        let coldest = self
            .conns
            .iter()
            .filter_map(|(id, conn)| Some((conn.idle_since()?, id, wanted(conn)?)))
            .min_by_key(|(since, id, _)| (*since, *id));
        if let Some((_, id, cap)) = coldest {
            cap.is_served();
            self.take_idle(id);
            self.counters.closed.evicted += 1;
            self.discard(id, actions);
        }
        let is_shared = |identity: &Identity| {
            !identity.idle.is_empty() && identity.terms.caps.iter().any(|cap| cap.is_full())
        };
        if self.identities.values().any(is_shared) {
            actions.ring(now + SPARE_PAUSE);
        }
    }

    /// Does another pool lack the place of `id`? Then it is to be closed rather than to rest.
    pub(super) fn gives_up(&self, id: ConnId) -> bool {
        if self.capped == 0 {
            return false;
        }
        let conn = &self.conns[id];
        let caps = &self.identities[conn.identity].terms.caps;
        let wanted = caps.iter().find(|cap| cap.is_wanted_from(self.number) && conn.is_under(cap));
        wanted.inspect(|cap| cap.is_served()).is_some()
    }

    /// Can room be lacking that others could make?
    pub(super) fn is_crowded(&self) -> bool {
        self.total() >= self.seats.budget || self.queued.iter().any(|id| !self.has_places(*id))
    }

    /// Is there room for `needy` once `id` is closed, and not before?
    pub(super) fn frees(&self, id: ConnId, needy: &Needy) -> bool {
        let conn = &self.conns[id];
        let mut full = self.full_caps(needy.identity).peekable();
        (self.total() >= self.seats.budget || full.peek().is_some())
            && full.all(|cap| conn.is_under(cap))
    }

    /// Opens what is to be kept of each identity, as the pace allows.
    pub(super) fn keep_some(&mut self, now: Instant, actions: &mut Actions) {
        if self.keepers == 0 || self.closing {
            return;
        }
        loop {
            if self.total() >= self.seats.budget {
                return;
            }
            let lacks = |identity: &Identity| {
                let size = identity.terms.size.unwrap_or(u32::MAX);
                identity.all() + identity.coming < identity.terms.keep.min(size)
            };
            let next = self.identities.iter().find(|(id, identity)| {
                lacks(identity)
                    && !identity.is_paused()
                    && identity.denied(now).is_none()
                    && self.has_places(*id)
            });
            let Some((id, _)) = next else { return };
            if !self.open_if_paced(id, now, actions) {
                return;
            }
        }
    }

    /// Those of which some connections are kept open, once in each round.
    pub(crate) fn keepers_due(&self, now: Instant) -> Vec<IdentityId> {
        if self.keepers == 0 || self.next_round > now {
            return Vec::new();
        }
        let keeps =
            |(id, identity): (IdentityId, &Identity)| (identity.terms.keep > 0).then_some(id);
        self.identities.iter().filter_map(keeps).collect()
    }

    /// Is everything that `id` has to be kept open?
    pub(super) fn is_kept(&self, id: IdentityId) -> bool {
        let identity = &self.identities[id];
        identity.live <= identity.terms.keep
    }

    /// All connections of now of `identities` are replaced: those that rest at once, the others
    /// when they come home.
    pub(crate) fn replace_all_of(
        &mut self,
        identities: &[IdentityId],
        now: Instant,
        actions: &mut Actions,
    ) {
        for conn in self.conns.values_mut().filter(|conn| identities.contains(&conn.identity)) {
            conn.generation = Generation::REPLACED;
        }
        for id in identities {
            for resting in self.identities[*id].idle.clone() {
                self.take_idle(resting);
                self.counters.closed.renewed += 1;
                self.discard(resting, actions);
            }
        }
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.keep_some(now, actions);
        self.conclude(now, actions);
    }

    /// What `identities` have now.
    pub(crate) fn count(&self, identities: &[IdentityId]) -> Count {
        let mut count = Count::default();
        for conn in self.conns.values().filter(|conn| identities.contains(&conn.identity)) {
            count.all += 1;
            count.outdated += u32::from(!self.generations.is_current(conn.generation));
        }
        count
    }
}
