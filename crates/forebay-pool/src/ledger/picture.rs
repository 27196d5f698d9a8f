//! One picture of the ledger, without what only the shell knows (names of identities).

use std::time::Instant;

use slotmap::SecondaryMap;

use crate::breaker::Phase;
use crate::class::ClassId;
use crate::slot::{IdentityId, Slot};
use crate::stats::{
    BreakerSnapshot, ClassSnapshot, HOLD_BUCKETS, OperationSnapshot, Snapshot, TriesSnapshot,
    WAIT_BUCKETS, WantedSnapshot,
};

use super::Ledger;

/// The numbers of one identity.
pub(crate) struct IdentityCount {
    pub(crate) leased: u32,
    pub(crate) idle: u32,
    pub(crate) opening: u32,
}

impl Ledger {
    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let classes = self
            .class_ids()
            .zip(&self.settings.classes)
            .filter(|(id, _)| self.is_shown(*id))
            .map(|(id, (name, settings))| {
                let stats = &self.counters.classes[id.index()];
                let seats = self.seats.classes[id.index()];
                ClassSnapshot {
                    class: name.clone(),
                    kind: settings.kind,
                    guarantee: seats.limits.guarantee,
                    ceiling: seats.limits.ceiling,
                    leased: seats.taken,
                    waiting: self.crowd.of(id),
                    checkouts: stats.checkouts,
                    waited: stats.waited,
                    timed_out: stats.timed_out,
                    queue_full: stats.queue_full,
                    failed: stats.failed,
                    abandoned: stats.abandoned,
                    deadlocks: stats.deadlocks,
                    long_holds: stats.long_holds,
                    weight: settings.weight,
                    under_way: self.admission.requests(id),
                    demand: self.admission.demand(id),
                    utilisation: self.shedding[id.index()].utilisation(now),
                    pressure: self.shedding[id.index()].pressure(now),
                    retry_after: self.drain_time(id).clamp(0.02, 30.0),
                    tries: self.tries(id),
                    breaker: self.breaker(id),
                    policies: self.policies[id.index()].decided().collect(),
                    wait: stats.wait.snapshot(&WAIT_BUCKETS),
                    hold: stats.hold.snapshot(&HOLD_BUCKETS),
                }
            })
            .collect();
        Snapshot {
            destination: self.settings.name.clone(),
            health: self.opener.health(),
            budget: self.seats.whole(),
            wanted: WantedSnapshot {
                configured: self.configured_budget(),
                by_hand: None,
                window: None,
                advice: None,
                borne: None,
            },
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
            features: self.features.snapshot(),
            identities: Vec::new(),
            last_error: self.opener.last_failure().map(ToString::to_string),
        }
    }

    /// A class is shown while it is configured, or has work.
    fn is_shown(&self, class: ClassId) -> bool {
        self.listed().contains(&class)
            || self.seats.classes[class.index()].taken > 0
            || self.crowd.of(class) > 0
    }

    fn tries(&self, class: ClassId) -> TriesSnapshot {
        let counted = self.retries[class.index()].counted();
        TriesSnapshot {
            first: counted.first_tries,
            retries: counted.retries,
            over_budget: counted.over_budget,
            over_tries: counted.over_tries,
        }
    }

    fn breaker(&self, class: ClassId) -> BreakerSnapshot {
        let breaker = &self.breakers[class.index()];
        let state = match breaker.phase() {
            Phase::Closed => "closed",
            Phase::Open => "open",
            Phase::HalfOpen => "half-open",
        };
        BreakerSnapshot { state, openings: breaker.openings() }
    }

    /// What is learnt of operations that were done, the one that takes longest first.
    pub(crate) fn operations(&self) -> Vec<OperationSnapshot> {
        let known = self.costs.known().filter(|(_, _, took)| !took.is_empty());
        let mut operations: Vec<_> = known
            .map(|(class, operation, took)| OperationSnapshot {
                class: self.settings.classes[class.index()].0.clone(),
                feature: operation.feature().clone(),
                operation: operation.name().clone(),
                worth: took.worth(),
                mean: took.mean() * 1e-6,
                p95: took.percentiles().p95 * 1e-6,
            })
            .collect();
        operations.sort_by(|a, b| b.mean.total_cmp(&a.mean));
        operations
    }

    pub(crate) fn count_identities(&self) -> SecondaryMap<IdentityId, IdentityCount> {
        let mut counts = SecondaryMap::new();
        for (id, identity) in &self.identities {
            let idle = u32::try_from(identity.idle.len()).unwrap_or(u32::MAX);
            counts.insert(id, IdentityCount { leased: 0, idle, opening: identity.opening });
        }
        for conn in self.conns.values() {
            if let Slot::Leased(_) = conn.slot {
                counts[conn.identity].leased += 1;
            }
        }
        counts
    }
}
