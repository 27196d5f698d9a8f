//! Where a parked transaction goes on, and what it has done when it does.
//!
//! Always true: it goes on in the pool where it was parked, or not at all; one that had run a
//! statement has run one when its client's next comes, so what a server takes only before the
//! first is too late; one that could not be brought there is told so, unless it rolls back.

use super::deeds::Queried;
use super::{Parked, Parking, Session, Stage};
use crate::fault::Fault;
use crate::replicas::To;
use crate::route::Backend;

impl Parked {
    /// How a session of `backend` gets to where it was parked, if it still does.
    pub(super) fn way(&self, backend: &Backend) -> Option<To> {
        let is_there = |other: &Backend| self.there.pool.is(&other.pool);
        let replicas = backend.replicas.as_ref();
        if is_there(backend) {
            Some(To::Own)
        } else if replicas.is_some_and(|replicas| is_there(&replicas.backend)) {
            Some(To::Replicas(self.class))
        } else {
            None
        }
    }
}

impl Parking {
    /// It was rolled back: what comes now is of another one.
    pub(in crate::session) fn is_rolled_back(&mut self) {
        if let Stage::Failed { .. } = self.stage {
            self.stage = Stage::Working;
        }
    }

    /// Does it go on behind statements that the server it has now did not see?
    pub(in crate::session) fn had_queried(&self) -> bool {
        self.deeds.queried() == Queried::Before
    }
}

impl Session {
    /// Where the transaction goes on, if it was parked. Nobody else does its work.
    pub(in crate::session) fn resumes_at(&self) -> Option<To> {
        let Stage::Parked(parked) = &self.parking.as_ref()?.stage else { return None };
        parked.way(&self.who.backend)
    }

    /// The server has failed it before its client's statement came, and `said` why.
    pub(in crate::session) fn fails_to_resume(&mut self, said: String) {
        if let Some(parking) = &mut self.parking {
            parking.stage = Stage::Failed { said };
        }
    }

    /// The client's statement has failed: what it is told in the server's place, which knows
    /// only that the transaction had failed before.
    pub(in crate::session) fn failed_to_resume(&mut self) -> Option<Fault> {
        let parking = self.parking.as_mut()?;
        let Stage::Failed { said } = &mut parking.stage else { return None };
        let fault = Fault::NotBegunAgain(std::mem::take(said));
        parking.stage = Stage::Working;
        Some(fault)
    }
}
