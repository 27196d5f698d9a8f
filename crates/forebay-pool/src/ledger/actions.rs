//! What the shell has to do after a decision. Of several moments at which the ledger wants
//! to look around, only the earliest is kept: then it says when the next is.

use std::time::Instant;

use smallvec::SmallVec;

use crate::slot::{ConnId, IdentityId, WaiterId};

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The waiter's fate is decided.
    Wake(WaiterId),
    /// Open a connection and report [`Ledger::opened`](super::Ledger::opened) or
    /// [`Ledger::open_failed`](super::Ledger::open_failed).
    Open(ConnId, IdentityId),
    /// The connection left the ledger: close it.
    Close(ConnId),
    /// Close it and report [`Ledger::parted`](super::Ledger::parted).
    Part(ConnId),
    /// Bring it to a known state and report [`Ledger::cleaned`](super::Ledger::cleaned).
    Reset(ConnId),
    /// Ask whether it answers and report [`Ledger::probed`](super::Ledger::probed).
    Probe(ConnId),
    /// Somebody waits for what the owner of this lease has offered.
    Recall(ConnId),
    /// Nobody uses the identity any more: forget its name.
    Forget(IdentityId),
}

/// All there is to do.
#[derive(Debug, Default, Clone)]
pub(crate) struct Actions {
    list: SmallVec<[Action; 2]>,
    alarm: Option<Instant>,
}

impl Actions {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// [`Ledger::tick`](super::Ledger::tick) is to be called at this moment at the latest.
    #[inline]
    pub(crate) fn ring(&mut self, at: Instant) {
        self.alarm = Some(self.alarm.map_or(at, |other| other.min(at)));
    }

    /// When to look around at the latest.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.alarm
    }

    /// The same; it is not set any more.
    pub(crate) fn take_alarm(&mut self) -> Option<Instant> {
        self.alarm.take()
    }

    pub(crate) fn list(&self) -> &[Action] {
        &self.list
    }
}
