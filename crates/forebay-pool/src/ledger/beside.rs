//! Connections that the pool's owner opens for questions of its own, and that count within the
//! budget: the pool has so many fewer.
//!
//! Always true: those that stand beside the pool and those in it are together no more than the
//! whole budget, unless it was lowered meanwhile; each counts for its identity and under its
//! caps.

use std::time::Instant;

use crate::cap::{self, Place};
use crate::slot::IdentityId;

use super::{Actions, Ledger};

impl Ledger {
    /// One more connection of `id` may stand beside the pool: its places under its caps.
    pub(crate) fn stand_beside(&mut self, id: IdentityId) -> Option<Vec<Place>> {
        let all = self.total().saturating_add(self.beside);
        if self.closing || self.beside >= self.seats.beside || all >= self.seats.whole() {
            return None;
        }
        let identity = &mut self.identities[id];
        if identity.is_paused() || identity.terms.most().is_some_and(|most| identity.all() >= most)
        {
            return None;
        }
        let places = cap::take_all(&identity.terms.caps)?;
        identity.beside += 1;
        self.beside += 1;
        Some(places)
    }

    /// May all that stand beside the pool go on, also those of `id`?
    pub(crate) fn may_stand_beside(&self, id: IdentityId) -> bool {
        !self.closing && self.beside <= self.seats.beside && !self.identities[id].is_paused()
    }

    /// One that stood beside the pool is closed.
    pub(crate) fn left_beside(&mut self, id: IdentityId, now: Instant, actions: &mut Actions) {
        self.identities[id].beside -= 1;
        self.beside -= 1;
        self.open_more(now, actions);
        self.keep_warm(now, actions);
    }
}
