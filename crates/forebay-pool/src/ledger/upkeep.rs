//! What the ledger does without being asked: opening, warming, probing, retiring, evicting.

use std::time::{Duration, Instant};

#[cfg(test)]
use slotmap::SecondaryMap;

use crate::class;
use crate::slot::{Conn, ConnId, IdentityId, Slot, WaiterId};
use crate::stats::{ClassSnapshot, HOLD_BUCKETS, Snapshot, WAIT_BUCKETS};
use crate::target::Pace;

use super::{Action, Actions, CONTINUATION, Ledger};

/// How often the ledger looks around while nothing else happens.
const ROUND: Duration = Duration::from_secs(1);
/// An idle connection younger than this is not closed to make room for another identity,
/// unless that one has waited for as long.
const EVICTABLE: Duration = Duration::from_millis(50);

impl Ledger {
    /// These identities are kept warm, in turn.
    pub(crate) fn warm_up(&mut self, identity: IdentityId, now: Instant, actions: &mut Actions) {
        self.identities[identity].warm = true;
        self.keep_warm(now, actions);
    }

    /// Looks around; to be called again at the moment that is returned, or at an
    /// [`Action::Alarm`] before.
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Actions) -> Instant {
        self.retire(now, actions);
        self.probe_some(now, actions);
        self.forget_requests(now);
        self.dispatch(now, actions);
        self.keep_warm(now, actions);
        self.open_more(now, actions);
        now + ROUND
    }

    fn total(&self) -> u32 {
        u32::try_from(self.conns.len()).unwrap_or(u32::MAX)
    }

    /// Connections to be kept whether anybody asks or not.
    pub(super) fn warm_target(&self) -> u32 {
        if self.identities.values().any(|identity| identity.warm) {
            class::percent_of(self.seats.budget, self.settings.warm_up).max(1)
        } else {
            0
        }
    }

    /// Is the warm-up done? It stays done, whatever happens later.
    pub(crate) fn is_warm(&self) -> bool {
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
                .filter(|(_, i)| i.warm && i.denied.as_ref().is_none_or(|(_, until)| *until <= now))
                .min_by_key(|(_, identity)| identity.live + identity.opening)
                .map(|(id, _)| id);
            let Some(identity) = coldest else { return };
            if !self.open_if_paced(identity, now, actions) {
                return;
            }
        }
    }

    /// Opens what the queue needs, as the pace allows.
    pub(super) fn open_more(&mut self, now: Instant, actions: &mut Actions) {
        while !self.closing {
            let Some((identity, since)) = self.neediest(now, actions) else { return };
            if self.total() < self.seats.budget {
                if !self.open_if_paced(identity, now, actions) {
                    return;
                }
                continue;
            }
            match self.evictable(identity, since, now) {
                Eviction::Now(victim) => {
                    if self.opener.pace(now) != Pace::Now {
                        self.open_if_paced(identity, now, actions);
                        return;
                    }
                    self.take_idle(victim);
                    self.counters.closed.evicted += 1;
                    self.discard(victim, actions);
                    self.open(identity, now, actions);
                }
                Eviction::At(at) => return actions.push(Action::Alarm(at)),
                Eviction::Never => return,
            }
        }
    }

    /// The identity whose first waiter has the best claim to a connection that is not there
    /// and not on its way, and since when it waits.
    fn neediest(&self, now: Instant, actions: &mut Actions) -> Option<(IdentityId, Instant)> {
        let mut best = None;
        for id in &self.queued {
            let identity = &self.identities[*id];
            let wanted: u32 = self
                .class_ids()
                .map(|class| identity.lanes.waiting(class).min(self.seats.headroom(class)))
                .sum();
            if wanted <= identity.opening {
                continue;
            }
            let Some((claim, waiter)) = self.first_in_line(*id) else { continue };
            if identity.live > 0 && !self.is_worth_opening(waiter, now, actions) {
                continue;
            }
            if best.is_none_or(|(other, _, _)| claim < other) {
                best = Some((claim, *id, self.waiters[waiter].since));
            }
        }
        best.map(|(_, id, since)| (id, since))
    }

    /// A burst that the connections at hand absorb sooner than a new one could be opened
    /// opens nothing (HikariCP, "Welcome to the jungle").
    fn is_worth_opening(&self, waiter: WaiterId, now: Instant, actions: &mut Actions) -> bool {
        let waiter = &self.waiters[waiter];
        let stats = &self.counters.classes[waiter.class.index()];
        let taken = self.seats.classes[waiter.class.index()].taken;
        let (Some(connect), Some(hold)) = (self.opener.connect_time(), stats.hold_mean) else {
            return true;
        };
        if taken == 0 {
            return true;
        }
        let waiting = self.identities[waiter.identity].lanes.waiting(waiter.class);
        if f64::from(waiting) * hold / f64::from(taken) > connect {
            return true;
        }
        let patience = waiter.since + Duration::from_secs_f64(connect.min(1.0));
        if patience > now {
            actions.push(Action::Alarm(patience));
        }
        patience <= now
    }

    /// Opens a connection of `identity`; `false` if the pace forbids it now (an alarm is set
    /// for when it will not).
    fn open_if_paced(&mut self, identity: IdentityId, now: Instant, actions: &mut Actions) -> bool {
        match self.opener.pace(now) {
            Pace::Now => {
                self.open(identity, now, actions);
                true
            }
            Pace::At(at) => {
                actions.push(Action::Alarm(at));
                false
            }
            Pace::WhenOneEnds => false,
        }
    }

    fn open(&mut self, identity: IdentityId, now: Instant, actions: &mut Actions) {
        let jitter = f64::from(self.settings.lifetime_jitter.min(99)) / 100.0;
        let factor = if jitter > 0.0 { self.dice.between(1.0 - jitter..1.0 + jitter) } else { 1.0 };
        let expires = now + self.settings.lifetime.mul_f64(factor);
        let slot = Slot::Opening { since: now };
        let id = self.conns.insert(Conn { identity, expires, slot });
        self.identities[identity].opening += 1;
        self.opening += 1;
        self.opener.begin();
        actions.push(Action::Open(id, identity));
    }

    /// Whether an idle connection of another identity may be closed for one of `identity`,
    /// whose first waiter came at `since`.
    fn evictable(&self, identity: IdentityId, since: Instant, now: Instant) -> Eviction {
        let coldest = self
            .identities
            .iter()
            .filter(|(other, _)| *other != identity)
            .filter_map(|(_, other)| other.idle.first().copied())
            .filter_map(|id| match self.conns[id].slot {
                Slot::Idle { since, .. } => Some((since, id)),
                Slot::Opening { .. }
                | Slot::Leased { .. }
                | Slot::Cleaning { .. }
                | Slot::Probing { .. } => None,
            })
            .min();
        let Some((idle_since, victim)) = coldest else { return Eviction::Never };
        let at = (idle_since + EVICTABLE).min(since + EVICTABLE);
        if at <= now { Eviction::Now(victim) } else { Eviction::At(at) }
    }

    /// Takes `id` out of the idle ones of its identity.
    fn take_idle(&mut self, id: ConnId) {
        self.identities[self.conns[id].identity].idle.retain(|other| *other != id);
        self.idle -= 1;
    }

    /// Parts with connections that are too old, too long idle or too many, a tenth at a time.
    fn retire(&mut self, now: Instant, actions: &mut Actions) {
        let target = self.warm_target();
        let mut left = (self.seats.budget / 10).max(1);
        let idle: Vec<_> = self
            .conns
            .iter()
            .filter_map(|(id, conn)| match conn.slot {
                Slot::Idle { since, .. } => Some((since, id, conn.expires)),
                Slot::Opening { .. }
                | Slot::Leased { .. }
                | Slot::Cleaning { .. }
                | Slot::Probing { .. } => None,
            })
            .collect();
        let mut by_age = idle;
        by_age.sort_unstable_by_key(|(since, _, _)| *since);
        for (since, id, expires) in by_age {
            if self.total() > self.seats.budget {
                self.counters.closed.surplus += 1;
            } else if left == 0 {
                return;
            } else if expires <= now {
                self.counters.closed.lifetime += 1;
                left -= 1;
            } else if since + self.settings.idle_ttl <= now && self.total() > target {
                self.counters.closed.idle += 1;
                left -= 1;
            } else {
                continue;
            }
            self.take_idle(id);
            self.discard(id, actions);
        }
    }

    /// Asks a tenth of the idle connections that were not asked for a while.
    fn probe_some(&mut self, now: Instant, actions: &mut Actions) {
        let mut left = (self.idle / 10).max(1);
        let due: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| match conn.slot {
                Slot::Idle { checked, .. } => checked + self.settings.probe_interval <= now,
                Slot::Opening { .. }
                | Slot::Leased { .. }
                | Slot::Cleaning { .. }
                | Slot::Probing { .. } => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in due {
            if left == 0 {
                return;
            }
            left -= 1;
            self.take_idle(id);
            let Slot::Idle { since: idle_since, .. } = self.conns[id].slot else { continue };
            self.conns[id].slot = Slot::Probing { idle_since };
            self.probing += 1;
            actions.push(Action::Probe(id));
        }
    }

    fn forget_requests(&mut self, now: Instant) {
        self.requests.retain(|_, state| {
            state.held > 0 || !state.waiting.is_empty() || state.last_used + CONTINUATION > now
        });
    }

    /// Identities that nobody uses any more; the shell forgets them too.
    pub(crate) fn retire_identities(&mut self) -> Vec<IdentityId> {
        let unused: Vec<_> = self
            .identities
            .iter()
            .filter(|(_, i)| i.live == 0 && i.opening == 0 && i.lanes.is_empty() && !i.warm)
            .map(|(id, _)| id)
            .collect();
        for id in &unused {
            self.identities.remove(*id);
        }
        unused
    }

    /// One picture, without what only the shell knows (names of identities).
    pub(crate) fn snapshot(&self) -> Snapshot {
        let classes = self
            .class_ids()
            .zip(&self.settings.classes)
            .map(|(id, (name, settings))| {
                let stats = &self.counters.classes[id.index()];
                let seats = self.seats.classes[id.index()];
                ClassSnapshot {
                    class: name.clone(),
                    kind: settings.kind,
                    guarantee: seats.limits.guarantee,
                    ceiling: seats.limits.ceiling,
                    leased: seats.taken,
                    waiting: self
                        .queued
                        .iter()
                        .map(|i| self.identities[*i].lanes.waiting(id))
                        .sum(),
                    checkouts: stats.checkouts,
                    waited: stats.waited,
                    timed_out: stats.timed_out,
                    queue_full: stats.queue_full,
                    failed: stats.failed,
                    abandoned: stats.abandoned,
                    wait: stats.wait.snapshot(&WAIT_BUCKETS),
                    hold: stats.hold.snapshot(&HOLD_BUCKETS),
                }
            })
            .collect();
        Snapshot {
            destination: self.settings.name.clone(),
            health: self.opener.health(),
            budget: self.seats.budget,
            capacity: self.seats.capacity,
            ai_ceiling: self.seats.ai_ceiling,
            leased: self.seats.taken - self.cleaning,
            idle: self.idle,
            opening: self.opening,
            cleaning: self.cleaning + self.probing,
            warm: self.is_warm(),
            opened: self.counters.opened,
            open_failures: self.counters.open_failures,
            closed: self.counters.closed,
            connect: self.counters.connect.snapshot(&HOLD_BUCKETS),
            classes,
            identities: Vec::new(),
            last_error: self.opener.last_failure().map(ToString::to_string),
        }
    }

    /// Everything that must hold after each event; the tests call it after each.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        use crate::queue::Fate;
        let count = |f: fn(&Slot) -> bool| {
            u32::try_from(self.conns.values().filter(|c| f(&c.slot)).count()).unwrap()
        };
        assert_eq!(self.idle, count(|s| matches!(s, Slot::Idle { .. })));
        assert_eq!(self.opening, count(|s| matches!(s, Slot::Opening { .. })));
        assert_eq!(self.cleaning, count(|s| matches!(s, Slot::Cleaning { .. })));
        assert_eq!(self.probing, count(|s| matches!(s, Slot::Probing { .. })));
        let leased = count(|s| matches!(s, Slot::Leased { .. }));
        assert_eq!(self.seats.taken, leased + self.cleaning);
        let listed: usize = self.identities.values().map(|i| i.idle.len()).sum();
        assert_eq!(self.idle, u32::try_from(listed).unwrap(), "idle lists and slots agree");
        let mut live: SecondaryMap<IdentityId, u32> = SecondaryMap::new();
        for conn in self.conns.values() {
            if !matches!(conn.slot, Slot::Opening { .. }) {
                *live.entry(conn.identity).unwrap().or_default() += 1;
            }
        }
        for (id, identity) in &self.identities {
            assert_eq!(identity.live, live.get(id).copied().unwrap_or(0));
            assert_eq!(identity.lanes.is_empty(), !self.queued.contains(&id));
            if !identity.idle.is_empty() && !self.closing {
                assert!(self.first_in_line(id).is_none(), "nobody waits for what is idle");
            }
        }
        for class in self.class_ids() {
            let seats = self.seats.classes[class.index()];
            assert!(seats.taken <= seats.limits.ceiling.max(seats.taken));
        }
        for (id, waiter) in &self.waiters {
            if let Fate::Granted { conn } = waiter.fate {
                assert!(self.lent_since(conn).is_some(), "{id:?} was granted what is not lent");
            }
        }
    }
}

enum Eviction {
    Now(ConnId),
    At(Instant),
    Never,
}
