//! What one identity may have of a pool: the whole of it, or so many connections, some of them
//! only after a wait, under limits that it shares with others; and whether it may have any now.
//!
//! The protocol's side says it when an identity comes, and again when the pool is told to ask
//! ([`Pool::review`](crate::Pool::review)). Plain values.

use std::sync::Arc;
use std::time::Duration;

use crate::cap::Cap;

/// What one identity may have. The default: as much of the pool as it can get.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Whether it is lent anything now.
    pub access: Access,
    /// Connections of its own, at the most; its classes share these. `None`: those of the pool.
    pub size: Option<u32>,
    /// So many more, once somebody has waited for `reserve_after`.
    pub reserve: u32,
    /// How long somebody waits before the reserve is opened.
    pub reserve_after: Duration,
    /// Connections that are kept open whether anybody asks or not; no others make room for
    /// them.
    pub keep: u32,
    /// Limits that it shares with other identities, of this pool and of others.
    pub caps: Vec<Arc<Cap>>,
}

/// Whether an identity is lent connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// It is.
    #[default]
    Open,
    /// Not now: who asks waits, as long as it may; what comes home is closed.
    Paused,
}

impl Terms {
    /// Connections of its own, with the reserve.
    pub(crate) fn most(&self) -> Option<u32> {
        self.size.map(|size| size.saturating_add(self.reserve))
    }
}
