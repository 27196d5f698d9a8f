//! What another configuration means for a client that is there.
//!
//! A session takes the plan in force over while it has no server connection: before each
//! checkout, and at once if it rests. Always true: whatever is linked ends as it began.

use std::sync::Arc;

use super::Session;
use crate::fault::{Fault, Removed};

impl Session {
    /// There may be another plan, and the client runs nothing.
    ///
    /// # Errors
    /// The client's database or user is gone.
    pub(super) fn rests_under_plan(&mut self) -> Result<(), Fault> {
        if self.link.is_none() {
            return self.follow_plan().map(drop);
        }
        // What it keeps its connection for is there, and nowhere else.
        let Some(plan) = self.gateway.plan_beside(&self.plan) else { return Ok(()) };
        let who = &self.who;
        if !plan.has(&who.database) {
            return Err(Fault::Removed(Removed::Database));
        }
        if !plan.keeps_user(&who.user, &self.plan) {
            return Err(Fault::Removed(Removed::User));
        }
        Ok(())
    }

    /// Takes the plan in force over, if it is another one. No server is linked.
    ///
    /// # Errors
    /// The client's database or user is gone.
    pub(super) fn follow_plan(&mut self) -> Result<Followed, Fault> {
        let Some(plan) = self.gateway.plan_beside(&self.plan) else { return Ok(Followed::Same) };
        let who = &mut self.who;
        let route = plan.route(&who.database, &who.user);
        let route = route.ok_or(Fault::Removed(Removed::Database))?;
        if !plan.keeps_user(&who.user, &self.plan) {
            return Err(Fault::Removed(Removed::User));
        }
        who.tenant = plan.tenant(&who.user);
        who.mode = route.mode;
        who.identity = route.identity;
        let before = std::mem::replace(&mut who.backend, route.backend);
        let application = Arc::clone(&who.application);
        who.set_application_name(&application);
        if !before.pool.is(&who.backend.pool) {
            self.work_moves(&before);
        }
        self.work_asks_anew();
        self.plan = plan;
        self.watches_under_plan();
        Ok(Followed::Another)
    }
}

/// Whether there was another plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    Same,
    Another,
}
