//! What the ledger does without being asked: warming, probing, retiring, forgetting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::class;
use crate::event::Event;
use crate::slot::{ConnId, IdentityId, Lent, Slot, Watch};

use super::gate::MOMENT;
use super::{Action, Actions, Ledger};

/// How often the ledger looks around while nothing else happens.
const ROUND: Duration = Duration::from_secs(1);

impl Ledger {
    /// These identities are kept warm, in turn.
    pub(crate) fn warm_up(&mut self, identity: IdentityId, now: Instant, actions: &mut Actions) {
        self.identities[identity].warm = true;
        self.keeps_warm = true;
        self.keep_warm(now, actions);
    }

    /// Looks around; to be called again at the moment that is returned, or at an
    /// alarm before.
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Actions) -> Instant {
        self.leave_idle(now);
        self.recover(now, actions);
        // Alarms may come every millisecond; what looks at everything comes each round.
        if self.next_round <= now {
            self.next_round = now + ROUND;
            self.retire(now, actions);
            self.probe_some(now, actions);
            self.admission.step();
            self.close_requests(now);
            self.watch_holds(now);
            self.forget_identities(now, actions);
            self.keep_some(now, actions);
        }
        self.freshen(now, actions);
        self.spare(now, actions);
        // Who was refused may have been the way out of a circle.
        self.conclude(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        // Who is held back may go when others are counted no more.
        if !self.queued.is_empty()
            && let Some(at) = self.next_leave()
        {
            actions.ring(at.max(now + MOMENT));
        }
        self.next_round
    }

    /// Connections to be kept whether anybody asks or not.
    pub(super) fn warm_target(&self) -> u32 {
        if self.keeps_warm {
            class::percent_of(self.seats.budget, self.settings.warm_up).max(1)
        } else {
            0
        }
    }

    /// Is the warm-up done? It stays done, whatever happens later.
    pub(super) fn is_warm(&self) -> bool {
        self.warmed || self.warm_target() == 0
    }

    pub(super) fn keep_warm(&mut self, now: Instant, actions: &mut Actions) {
        let target = self.warm_target();
        if self.total() - self.opening >= target {
            self.warmed |= target > 0;
        }
        while !self.closing && self.total() < target {
            let coldest = self
                .identities
                .iter()
                .filter(|(_, i)| i.warm && !i.is_paused() && i.denied(now).is_none())
                .filter(|(_, i)| i.terms.size.is_none_or(|size| i.all() < size))
                .min_by_key(|(_, identity)| identity.live + identity.opening)
                .map(|(id, _)| id);
            let Some(identity) = coldest else { return };
            if !self.open_if_paced(identity, now, actions) {
                return;
            }
        }
    }

    /// Idle connections, coldest first.
    fn idle_by_age(&self) -> Vec<ConnId> {
        let mut idle: Vec<_> =
            self.conns.iter().filter_map(|(id, conn)| Some((conn.idle_since()?, id))).collect();
        idle.sort_unstable();
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Parts with idle connections above the budget, after it shrank.
    pub(super) fn close_surplus(&mut self, actions: &mut Actions) {
        if self.total() <= self.seats.budget {
            return;
        }
        for id in self.idle_by_age() {
            if self.total() <= self.seats.budget {
                return;
            }
            self.counters.closed.surplus += 1;
            self.take_idle(id);
            self.discard(id, actions);
        }
    }

    /// Parts with connections that are too old or too long idle, a tenth at a time.
    fn retire(&mut self, now: Instant, actions: &mut Actions) {
        let target = self.warm_target();
        let mut left = (self.seats.budget / 10).max(1);
        for id in self.idle_by_age() {
            let conn = &self.conns[id];
            let is_stale = conn.idle_since().is_some_and(|at| at + self.settings.idle_ttl <= now);
            if conn.expires <= now {
                self.counters.closed.lifetime += 1;
            } else if is_stale && self.total() > target && !self.is_kept(conn.identity) {
                self.counters.closed.idle += 1;
            } else {
                continue;
            }
            self.take_idle(id);
            self.discard(id, actions);
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }

    /// Asks a tenth of the idle connections that were not asked for a while.
    fn probe_some(&mut self, now: Instant, actions: &mut Actions) {
        let some = usize::try_from((self.idle / 10).max(1)).unwrap_or(usize::MAX);
        let due: Vec<_> = self
            .conns
            .iter()
            .filter_map(|(id, conn)| match conn.slot {
                Slot::Idle { since, checked } => Some((id, since, checked)),
                Slot::Opening { .. }
                | Slot::Leased(_)
                | Slot::Cleaning { .. }
                | Slot::Probing { .. }
                | Slot::Parting { .. } => None,
            })
            .filter(|(_, _, checked)| *checked + self.settings.probe_interval <= now)
            .map(|(id, since, _)| (id, since))
            .take(some)
            .collect();
        for (id, idle_since) in due {
            self.ask_whether_it_lives(id, idle_since, actions);
        }
    }

    /// Tells of each lease that lasts longer than the hold limit, once.
    fn watch_holds(&mut self, now: Instant) {
        let limit = self.settings.hold_limit;
        let long: Vec<_> = self
            .conns
            .iter()
            .filter_map(|(id, conn)| match conn.slot {
                Slot::Leased(lent) => Some((id, lent)),
                Slot::Opening { .. }
                | Slot::Idle { .. }
                | Slot::Cleaning { .. }
                | Slot::Probing { .. }
                | Slot::Parting { .. } => None,
            })
            .filter(|(_, lent)| lent.watch == Watch::Silent && lent.since + limit <= now)
            .collect();
        for (id, lent) in long {
            if let Slot::Leased(lent) = &mut self.conns[id].slot {
                lent.watch = Watch::Told;
            }
            self.tell_long_hold(&lent, now.saturating_duration_since(lent.since));
        }
    }

    /// A lease that lasted longer than the hold limit is told when it ends, at the latest.
    pub(super) fn watch_return(&mut self, lent: &Lent, held: Duration) {
        if held >= self.settings.hold_limit && lent.watch == Watch::Silent {
            self.tell_long_hold(lent, held);
        }
    }

    fn tell_long_hold(&mut self, lent: &Lent, held: Duration) {
        self.counters.classes[lent.class.index()].long_holds += 1;
        let does = lent.does.unwrap_or(lent.cost);
        let operation = self.costs.operation(does);
        self.tell(Event::LongHold {
            class: self.class_name(lent.class),
            feature: self.feature_name(does),
            operation: operation.map(|operation| Arc::clone(operation.name())),
            request: lent.request.map(|id| format!("{:?}", self.requests.known[id].name)),
            held,
        });
    }

    /// Identities that nobody uses any more, except those whose refusal is still believed.
    fn forget_identities(&mut self, now: Instant, actions: &mut Actions) {
        self.identities.retain(|id, i| {
            let has_any = i.all() + i.coming > 0;
            let is_used = has_any || !i.lanes.is_empty() || i.warm || i.terms.keep > 0;
            let keep = is_used || i.denied(now).is_some();
            if !keep {
                self.capped -= u32::from(!i.terms.caps.is_empty());
                actions.push(Action::Forget(id));
            }
            keep
        });
    }
}
