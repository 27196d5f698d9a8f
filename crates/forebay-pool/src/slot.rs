//! A connection's place in the ledger, from birth to close:
//! `Opening → Idle ⇄ Leased → Cleaning → Idle`, `Idle ⇄ Probing`, and from each `→ closed`.
//!
//! Always true: a connection is in exactly one state; one that is leased or being cleaned
//! after a lease counts for its class, so a storm of cancellations cannot exceed a ceiling.

use std::time::Instant;

use slotmap::new_key_type;

use crate::class::ClassId;
use crate::request::Request;

new_key_type! {
    /// A connection of one pool.
    pub(crate) struct ConnId;
    /// A caller that waits.
    pub(crate) struct WaiterId;
    /// An identity of one pool.
    pub(crate) struct IdentityId;
}

/// Where a connection is in its life.
#[derive(Debug)]
pub(crate) enum Slot {
    Opening { since: Instant },
    Idle { since: Instant, checked: Instant },
    Leased { class: ClassId, since: Instant, request: Option<Request> },
    Cleaning { class: ClassId },
    Probing { idle_since: Instant },
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) identity: IdentityId,
    /// Drawn once, at birth; a jitter drawn at each look would be none.
    pub(crate) expires: Instant,
    pub(crate) slot: Slot,
}
