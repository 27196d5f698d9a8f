//! A connection's place in the ledger, from birth to close:
//! `Opening → Idle ⇄ Leased → Cleaning → Idle`, `Idle ⇄ Probing`, and from each `→ closed`,
//! where the pool waits for the destination by way of `Parting`.
//!
//! Always true: a connection is in exactly one state; one that is leased or being cleaned
//! after a lease counts for its class, so a storm of cancellations cannot exceed a ceiling.

use std::sync::Arc;
use std::time::Instant;

use slotmap::new_key_type;

use crate::breaker::Pass;
use crate::cap::{Cap, Place};
use crate::class::ClassId;
use crate::cost::CostId;
use crate::deadlock::Activity;
use crate::fair::Charge;
use crate::generation::Generation;

new_key_type! {
    /// A connection of one pool.
    pub(crate) struct ConnId;
    /// A caller that waits.
    pub(crate) struct WaiterId;
    /// An identity of one pool.
    pub(crate) struct IdentityId;
    /// A request that one pool knows.
    pub(crate) struct RequestId;
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    Opening {
        since: Instant,
    },
    Idle {
        since: Instant,
        checked: Instant,
    },
    Leased(Lent),
    Cleaning {
        class: ClassId,
    },
    Probing {
        idle_since: Instant,
    },
    /// On its way out; it made room for `heir`.
    Parting {
        heir: Option<IdentityId>,
    },
}

/// Who has a connection, and for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lent {
    pub(crate) class: ClassId,
    pub(crate) since: Instant,
    pub(crate) request: Option<RequestId>,
    pub(crate) activity: Activity,
    pub(crate) charge: Charge,
    /// Under which its cost is learnt.
    pub(crate) cost: CostId,
    /// What it does now, where that was told.
    pub(crate) does: Option<CostId>,
    pub(crate) pass: Pass,
    pub(crate) outcome: Told,
    pub(crate) watch: Watch,
}

/// How the work on a lease went, where its owner said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    Good,
    Failed,
}

/// Whether a lease that lasts long was told already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    Silent,
    Told,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Conn {
    pub(crate) identity: IdentityId,
    /// Drawn once, at birth; a jitter drawn at each look would be none.
    pub(crate) expires: Instant,
    pub(crate) generation: Generation,
    pub(crate) slot: Slot,
    /// Its places under the caps of its identity.
    pub(crate) places: Option<Arc<[Place]>>,
}

impl Conn {
    /// Has it a place under `cap`?
    pub(crate) fn is_under(&self, cap: &Arc<Cap>) -> bool {
        self.places.as_ref().is_some_and(|places| places.iter().any(|place| place.is_of(cap)))
    }

    /// Since when it rests; `None` if it does not.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        match self.slot {
            Slot::Idle { since, .. } => Some(since),
            Slot::Opening { .. }
            | Slot::Leased(_)
            | Slot::Cleaning { .. }
            | Slot::Probing { .. }
            | Slot::Parting { .. } => None,
        }
    }
}
