//! How many connections we may hold, changed while they are used: idle ones above a smaller
//! budget are closed, leased ones when they come home.

use std::time::{Duration, Instant};

use crate::class;
use crate::event::Event;
use crate::settings::Budget;

use super::{Actions, Ledger};

impl Ledger {
    /// The destination says what it can take in all.
    pub(crate) fn resize(&mut self, capacity: u32, now: Instant, actions: &mut Actions) {
        self.refit(Some(capacity), now, actions);
    }

    /// `wanted` connections count in place of the configured budget, as far as the capacity
    /// goes where that is known; `None`: the configuration counts again.
    pub(crate) fn set_budget(&mut self, wanted: Option<u32>, now: Instant, actions: &mut Actions) {
        if self.wanted != wanted {
            self.wanted = wanted;
            self.refit(self.seats.capacity, now, actions);
        }
    }

    pub(super) fn refit(&mut self, capacity: Option<u32>, now: Instant, actions: &mut Actions) {
        self.settings.budget = match self.wanted {
            Some(wanted) => Budget::Fixed(capacity.map_or(wanted, |most| wanted.min(most))),
            None => self.configured,
        };
        let from = self.seats.whole();
        self.seats.resize(&self.settings, capacity);
        self.recover(now, actions);
        let to = self.seats.whole();
        if to != from {
            self.tell(Event::Resized { from, to });
        }
        self.opener.resize(&self.settings, self.seats.budget, now);
        self.recover(now, actions);
        self.close_surplus(actions);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.conclude(now, actions);
    }

    /// The configured budget, whatever counts now.
    pub(crate) fn configured_budget(&self) -> u32 {
        self.configured.of(self.seats.capacity)
    }

    /// What of the configured budget is kept open.
    pub(crate) fn configured_warmth(&self) -> u32 {
        class::percent_of(self.configured_budget(), self.settings.warm_up).max(1)
    }

    /// The cheapest frequent operation and the 95th percentile of what it takes, each ten
    /// seconds, where evidence is gathered.
    pub(crate) fn executed(&mut self, now: Instant) -> Option<(u64, Duration)> {
        self.watch.as_mut()?.take(now)
    }

    /// Connections that are lent or stand beside the pool, and callers who wait for one: what
    /// could be used now.
    pub(crate) fn demand(&self) -> u32 {
        let used = self.seats.taken.saturating_add(self.seats.beside);
        used.saturating_add(self.crowd.all())
    }
}
