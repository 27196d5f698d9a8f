//! Another configuration while clients are there.
//!
//! The next plan is made beside the one in force, which changes nothing as long as something
//! can fail; then it takes its place in one step. Always true: no client is dropped for a
//! reload, except those whose database or user is configured no more, and those only when
//! their transaction is over.

use std::sync::Arc;

use serde::Serialize;

use super::{Course, Gateway, Plan, SettingsError};
use crate::settings::PostgresSettings;

/// What a reload came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Servers that got a pool.
    pub opened: Vec<String>,
    /// Servers whose connections are replaced, since they are reached in another way.
    pub reconnected: Vec<String>,
    /// Servers whose pool is closed; running transactions finish.
    pub closed: Vec<String>,
    /// Databases whose clients are sent away.
    pub databases_gone: Vec<String>,
    /// Users who are sent away.
    pub users_gone: Vec<String>,
    /// Settings that changed and count after a restart only, by path.
    pub needs_restart: Vec<String>,
}

impl Changes {
    /// As far as the settings say it.
    pub(super) fn between(before: Option<&PostgresSettings>, now: &PostgresSettings) -> Self {
        let Some(before) = before else { return Self::default() };
        let mut changes = Self::default();
        // Without a list of databases every name is served.
        if !now.databases.is_empty() {
            changes.databases_gone = gone(before.databases.keys(), |d| now.database(d).is_some());
        }
        changes.users_gone = gone(before.users.keys(), |user| now.users.contains_key(user));
        if before.listen != now.listen {
            changes.needs_restart.push("postgres.listen".to_owned());
        }
        changes
    }
}

fn gone<'a>(before: impl Iterator<Item = &'a String>, stays: impl Fn(&str) -> bool) -> Vec<String> {
    before.filter(|name| !stays(name)).cloned().collect()
}

impl Gateway {
    /// Carries other settings out while clients are served; what they find when it returns is
    /// the new configuration. Inside a runtime; reads files and runs commands of secrets, so
    /// not on a thread that serves.
    ///
    /// Servers that keep their name keep their pool. Clients follow at their next checkout,
    /// those that rest at once; open transactions and pinned connections end as they began.
    ///
    /// # Errors
    /// As [`Gateway::new`]; nothing has changed then.
    pub fn apply(
        &self,
        settings: PostgresSettings,
        default_tenant: Option<Arc<str>>,
    ) -> Result<Changes, SettingsError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.changing.lock();
        let before = inner.plan();
        let (plan, mut changes) =
            Plan::new(settings, &inner.roster, &inner.pairs, default_tenant, Some(&before))?;
        inner.held.set_limit(plan.settings.max_message_memory);
        let plan = Arc::new(plan);
        inner.plan.store(Arc::clone(&plan));
        inner.pairs.follow(&plan.settings);
        if plan.settings.databases != before.settings.databases || changes.servers_changed() {
            inner.welcomes.forget();
        }
        // Who was asked to wait by a pool that closes asks the plan in force.
        for (name, backend) in &before.backends {
            let stays = plan.backends.get(name);
            if !stays.is_some_and(|now| now.pool.is(&backend.pool)) {
                backend.pool.close();
                backend.listeners.start_over();
                changes.closed.push(name.clone());
            }
        }
        plan.part_with_others();
        for backend in plan.backends.values() {
            backend.pool.review(|_| true);
        }
        plan.warm_up();
        inner.bell.ring(Course::Serving);
        Ok(changes)
    }
}

impl Changes {
    fn servers_changed(&self) -> bool {
        !(self.opened.is_empty() && self.reconnected.is_empty())
    }
}
