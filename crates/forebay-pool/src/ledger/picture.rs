//! One picture of the ledger, without what only the shell knows (names of identities).

use slotmap::SecondaryMap;

use crate::slot::{IdentityId, Slot};
use crate::stats::{ClassSnapshot, HOLD_BUCKETS, Snapshot, WAIT_BUCKETS, WantedSnapshot};

use super::Ledger;

/// The numbers of one identity.
pub(crate) struct IdentityCount {
    pub(crate) leased: u32,
    pub(crate) idle: u32,
    pub(crate) opening: u32,
}

impl Ledger {
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
            identities: Vec::new(),
            last_error: self.opener.last_failure().map(ToString::to_string),
        }
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
