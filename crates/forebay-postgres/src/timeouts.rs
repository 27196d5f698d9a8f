//! How long things may last for one client, and how often they lasted too long.
//!
//! Knows no clock and no session: [`crate::session`] watches. Always true: a limit that is set
//! is longer than nothing, and of several that are set for a client the smallest counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::settings::PostgresSettings;

/// What one client may take; nothing is limited where it is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A statement, from the moment it is sent.
    pub(crate) query: Option<Duration>,
    /// A transaction, with what its client does in between.
    pub(crate) transaction: Option<Duration>,
    /// A pause within a transaction.
    pub(crate) idle_transaction: Option<Duration>,
    /// A pause outside of transactions.
    pub(crate) client_idle: Option<Duration>,
}

impl Limits {
    /// What `user` may take in `database`, as clients call it.
    pub(crate) fn of(settings: &PostgresSettings, database: &str, user: &str) -> Self {
        let (database, user) = (settings.databases.get(database), settings.users.get(user));
        let limit = |gateway, of_database: Option<Duration>, of_user: Option<Duration>| {
            let set = [Some(gateway), of_database, of_user].into_iter().flatten();
            set.filter(|limit| !limit.is_zero()).min()
        };
        Self {
            query: limit(
                settings.query_timeout,
                database.map(|d| d.query_timeout),
                user.map(|u| u.query_timeout),
            ),
            transaction: limit(
                settings.transaction_timeout,
                database.map(|d| d.transaction_timeout),
                user.map(|u| u.transaction_timeout),
            ),
            idle_transaction: limit(
                settings.idle_transaction_timeout,
                database.map(|d| d.idle_transaction_timeout),
                user.map(|u| u.idle_transaction_timeout),
            ),
            client_idle: limit(
                settings.client_idle_timeout,
                database.map(|d| d.client_idle_timeout),
                user.map(|u| u.client_idle_timeout),
            ),
        }
    }

    /// Is anything limited at all?
    pub(crate) fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// What lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Query,
    /// The server did not obey the cancel of one.
    Disobeyed,
    Transaction,
    IdleTransaction,
    ClientIdle,
    Login,
}

/// How often something lasted too long, since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TimeoutCounts {
    /// Statements that were cancelled (`query_timeout`).
    pub query: u64,
    /// Of these, those whose connection was closed, because the server went on
    /// (`cancel_wait_timeout`).
    pub disobeyed: u64,
    /// Transactions (`transaction_timeout`).
    pub transaction: u64,
    /// Transactions in which the client was silent (`idle_transaction_timeout`).
    pub idle_transaction: u64,
    /// Clients that asked nothing (`client_idle_timeout`).
    pub client_idle: u64,
    /// Logins that were not over in time (`login_timeout`).
    pub login: u64,
}

/// Counts what [`TimeoutCounts`] shows.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    query: AtomicU64,
    disobeyed: AtomicU64,
    transaction: AtomicU64,
    idle_transaction: AtomicU64,
    client_idle: AtomicU64,
    login: AtomicU64,
}

impl Counter {
    pub(crate) fn count(&self, kind: Kind) {
        let counter = match kind {
            Kind::Query => &self.query,
            Kind::Disobeyed => &self.disobeyed,
            Kind::Transaction => &self.transaction,
            Kind::IdleTransaction => &self.idle_transaction,
            Kind::ClientIdle => &self.client_idle,
            Kind::Login => &self.login,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> TimeoutCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TimeoutCounts {
            query: read(&self.query),
            disobeyed: read(&self.disobeyed),
            transaction: read(&self.transaction),
            idle_transaction: read(&self.idle_transaction),
            client_idle: read(&self.client_idle),
            login: read(&self.login),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DatabaseSettings, UserSettings};

    #[test]
    fn of_the_limits_that_are_set_the_smallest_counts() {
        let second = Duration::from_secs;
        let mut settings =
            PostgresSettings { query_timeout: second(30), ..PostgresSettings::default() };
        assert!(!Limits::of(&PostgresSettings::default(), "db", "app").is_any());
        let shop = DatabaseSettings { query_timeout: second(20), ..DatabaseSettings::default() };
        settings.databases.insert("shop".into(), shop);
        let agent = UserSettings {
            query_timeout: second(10),
            client_idle_timeout: second(60),
            ..UserSettings::default()
        };
        settings.users.insert("agent".into(), agent);
        let query = |database, user| Limits::of(&settings, database, user).query;
        assert_eq!(query("db", "app"), Some(second(30)));
        assert_eq!(query("shop", "app"), Some(second(20)));
        assert_eq!(query("shop", "agent"), Some(second(10)));
        let agent = Limits::of(&settings, "db", "agent");
        assert_eq!((agent.client_idle, agent.transaction), (Some(second(60)), None));
    }
}
