//! Requests that wait for each other in a circle: seen in the step that closes it, and
//! broken by failing the youngest wait.

use std::time::Instant;

use crate::deadlock::{self, Census, Held, Waiting};
use crate::event::Event;
use crate::queue::{Fate, Rejection};
use crate::slot::{Slot, WaiterId};

use super::{Action, Actions, Ledger};

impl Ledger {
    /// Fails the youngest of those that wait for each other here, until none do.
    pub(super) fn untangle(&mut self, now: Instant, actions: &mut Actions) {
        while self.requests.suspects > 0
            && let Some(victim) = deadlock::find(&[self.census()])
        {
            self.fail_youngest(victim.waiter, now, actions);
        }
    }

    /// The waiter can never be served as things stand in all pools: it fails, so that others
    /// go on. It may have been the way out of a circle here.
    pub(crate) fn fail_circular(&mut self, id: WaiterId, now: Instant, actions: &mut Actions) {
        self.fail_youngest(id, now, actions);
        self.conclude(now, actions);
    }

    /// Does somebody wait whose request holds something here that is at rest? Only then can
    /// there be a circle.
    pub(crate) fn may_be_tangled(&self) -> bool {
        let is_waiting = |id: &WaiterId| matches!(self.waiters[*id].fate, Fate::Waiting { .. });
        let mut known = self.requests.known.values();
        known.any(|k| k.held.max(k.name.held()) > 0 && k.waiting.iter().any(is_waiting))
    }

    /// Who holds and who waits, of the requests that are known.
    pub(crate) fn census(&self) -> Census {
        let held = self.conns.values().filter_map(|conn| match conn.slot {
            Slot::Leased(lent) => Some(Held {
                request: self.requests.known[lent.request?].name.clone(),
                class: lent.class,
                activity: lent.activity,
            }),
            Slot::Opening { .. }
            | Slot::Idle { .. }
            | Slot::Cleaning { .. }
            | Slot::Probing { .. }
            | Slot::Parting { .. } => None,
        });
        let waiting = self.waiters.iter().filter_map(|(waiter, w)| match w.fate {
            Fate::Waiting { .. } => Some(Waiting {
                waiter,
                request: self.requests.known[w.request?].name.clone(),
                class: w.class,
                since: w.since,
            }),
            Fate::Granted { .. } | Fate::Rejected(_) => None,
        });
        Census { seats: self.seats.clone(), held: held.collect(), waiting: waiting.collect() }
    }

    fn fail_youngest(&mut self, id: WaiterId, now: Instant, actions: &mut Actions) {
        let Some(waiter) = self.waiters.get(id) else { return };
        if !matches!(waiter.fate, Fate::Waiting { .. }) {
            return;
        }
        let (class, request, since) = (waiter.class, waiter.request, waiter.since);
        let feature = self.feature_name(waiter.cost);
        let held = request.map_or(0, |request| {
            let known = &self.requests.known[request];
            known.held.max(known.name.held())
        });
        self.leave_line(id, now);
        let stats = &mut self.counters.classes[class.index()];
        stats.deadlocks += 1;
        stats.wait.record(now.saturating_duration_since(since));
        let class = self.class_name(class);
        self.tell(Event::Deadlock { class, feature: feature.clone(), held });
        self.reject(id, Rejection::Deadlock { feature, held }, now);
        actions.push(Action::Wake(id));
    }
}
