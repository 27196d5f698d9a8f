//! What each pair of a database and a user may have on a server, by the settings in force and
//! by what an operator said: sizes, limits that pairs share, pauses.
//!
//! Every pool asks here under its lock, so nothing here waits. It outlives each configuration:
//! what is paused stays paused over a reload. Always true: a limit is one [`Cap`] however many
//! pairs, servers and configurations it is shared by, and only limits that somebody is under
//! are kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use forebay_pool::{Access, Cap, Terms};
use forebay_seam::sync::Mutex;

use super::doors::Doors;
use super::roll::Roll;
use crate::server::connector::Identity;
use crate::settings::{DatabaseSettings, PostgresSettings, UserSettings};

/// Limits of several pairs that are remembered before those that nobody is under are
/// forgotten.
const REMEMBERED: usize = 64;

/// What pairs may have.
pub(crate) struct Pairs {
    settings: ArcSwap<PostgresSettings>,
    pub(super) doors: Doors,
    pub(crate) roll: Arc<Roll>,
    databases: Mutex<Limits>,
    users: Mutex<Limits>,
}

/// Limits by name.
#[derive(Default)]
struct Limits {
    caps: HashMap<Arc<str>, Weak<Cap>>,
    /// How many may be remembered before the next look for forgotten ones.
    room: usize,
}

impl Limits {
    fn cap(&mut self, name: &Arc<str>, limit: u32) -> Arc<Cap> {
        if let Some(cap) = self.caps.get(name).and_then(Weak::upgrade) {
            cap.set_limit(limit);
            return cap;
        }
        if self.caps.len() >= self.room {
            self.caps.retain(|_, cap| cap.strong_count() > 0);
            self.room = (2 * self.caps.len()).max(REMEMBERED);
        }
        let cap = Cap::new(limit);
        self.caps.insert(Arc::clone(name), Arc::downgrade(&cap));
        cap
    }
}

/// What of the settings counts for one pair: the user's goes before the database's, that
/// before the gateway's.
struct Words<'a> {
    gateway: &'a PostgresSettings,
    database: Option<&'a DatabaseSettings>,
    user: Option<&'a UserSettings>,
}

impl Words<'_> {
    fn size(&self) -> Option<u32> {
        let user = self.user.and_then(|user| user.pool_size);
        let database = || self.database.and_then(|database| database.pool_size);
        user.or_else(database).or(self.gateway.pool_size).filter(|size| *size > 0)
    }

    fn reserve(&self) -> u32 {
        let user = self.user.and_then(|user| user.reserve_pool_size);
        let database = || self.database.and_then(|database| database.reserve_pool_size);
        user.or_else(database).unwrap_or(self.gateway.reserve_pool_size)
    }

    fn kept(&self) -> u32 {
        let database = self.database.and_then(|database| database.min_pool_size);
        database.unwrap_or(self.gateway.min_pool_size)
    }

    fn max_of_database(&self) -> u32 {
        let own = self.database.and_then(|database| database.max_connections);
        own.unwrap_or(self.gateway.max_database_connections)
    }

    fn sizes(&self, connections: u32, clients: u32) -> Sizes {
        let (pool, reserve, kept) = (self.size(), self.reserve(), self.kept());
        Sizes { pool, reserve, kept, connections, clients }
    }

    fn max_of_user(&self) -> u32 {
        let own = self.user.and_then(|user| user.max_connections);
        own.unwrap_or(self.gateway.max_user_connections)
    }
}

/// What the settings say of a database or of a user, whatever the other half of the pair is.
/// A limit of 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Server connections of each pair; `None`: pairs have no pool of their own.
    pub(crate) pool: Option<u32>,
    pub(crate) reserve: u32,
    pub(crate) kept: u32,
    pub(crate) connections: u32,
    pub(crate) clients: u32,
}

/// Clients that a database and a user may have; 0: as many as come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientLimits {
    pub(super) database: u32,
    pub(super) user: u32,
}

impl Pairs {
    pub(super) fn new(settings: &PostgresSettings) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings.clone()),
            doors: Doors::default(),
            roll: Arc::default(),
            databases: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// `settings` are in force from now on; pools have to be told to ask again.
    pub(super) fn follow(&self, settings: &PostgresSettings) {
        self.settings.store(Arc::new(settings.clone()));
    }

    /// What `identity` may have now.
    pub(crate) fn terms(&self, identity: &Identity) -> Terms {
        let settings = self.settings.load();
        let words = Words {
            gateway: &settings,
            database: settings.database(&identity.name),
            user: settings.users.get(&*identity.user),
        };
        let mut caps = Vec::new();
        for (limits, name, limit) in [
            (&self.databases, &identity.name, words.max_of_database()),
            (&self.users, &identity.user, words.max_of_user()),
        ] {
            if limit > 0 {
                caps.push(limits.lock().cap(name, limit));
            }
        }
        let kept = words.kept();
        let is_forced = words.database.is_some_and(|database| database.force_user.is_some());
        let is_wanted = kept > 0 && (is_forced || self.roll.has_clients_of(identity));
        let size = words.size();
        Terms {
            access: match self.doors.is_paused(&identity.name) {
                true => Access::Paused,
                false => Access::Open,
            },
            size,
            reserve: if size.is_some() { words.reserve() } else { 0 },
            reserve_after: settings.reserve_pool_timeout,
            keep: if is_wanted { kept } else { 0 },
            caps,
        }
    }

    /// Is anything kept open for clients of `database`?
    pub(super) fn keeps_any(&self, database: &str) -> bool {
        let settings = self.settings.load();
        let words = Words { gateway: &settings, database: settings.database(database), user: None };
        words.kept() > 0
    }

    /// How many clients `database` and `user` may have.
    pub(super) fn client_limits(&self, database: &str, user: &str) -> ClientLimits {
        let settings = self.settings.load();
        let of_database = settings.database(database).and_then(|d| d.max_client_connections);
        let of_user = settings.users.get(user).and_then(|user| user.max_client_connections);
        ClientLimits {
            database: of_database.unwrap_or(settings.max_database_client_connections),
            user: of_user.unwrap_or(settings.max_user_client_connections),
        }
    }

    /// What the settings say of `database`.
    pub(crate) fn sizes_of_database(&self, database: &str) -> Sizes {
        let settings = self.settings.load();
        let words = Words { gateway: &settings, database: settings.database(database), user: None };
        let own = words.database.and_then(|database| database.max_client_connections);
        words
            .sizes(words.max_of_database(), own.unwrap_or(settings.max_database_client_connections))
    }

    /// What the settings say of `user`.
    pub(crate) fn sizes_of_user(&self, user: &str) -> Sizes {
        let settings = self.settings.load();
        let words = Words { gateway: &settings, database: None, user: settings.users.get(user) };
        let own = words.user.and_then(|user| user.max_client_connections);
        words.sizes(words.max_of_user(), own.unwrap_or(settings.max_user_client_connections))
    }

    /// May applications ask for `database`?
    pub(super) fn knows(&self, database: &str) -> bool {
        let settings = self.settings.load();
        settings.databases.is_empty() || settings.database(database).is_some()
    }

    /// Databases that are configured by their names, or have clients.
    pub(super) fn names_in_use(&self) -> BTreeSet<Arc<str>> {
        let settings = self.settings.load();
        let configured = settings.databases.keys().map(String::as_str);
        let configured = configured.filter(|name| *name != DatabaseSettings::ALL_OTHERS);
        configured.map(Arc::from).chain(self.roll.databases()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, user: &str) -> Identity {
        Identity { name: name.into(), database: name.into(), user: user.into() }
    }

    fn settings(text: &str) -> PostgresSettings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_users_size_goes_before_the_databases_and_that_before_the_gateways() {
        let pairs = Pairs::new(&settings(
            r#"{"pool_size": 20, "reserve_pool_size": 5,
                "databases": {"app": {"pool_size": 7}, "*": {"pool_size": 9}},
                "users": {"ann": {"pool_size": 3, "reserve_pool_size": 1}}}"#,
        ));
        let size = |name, user| {
            let terms = pairs.terms(&pair(name, user));
            (terms.size, terms.reserve)
        };
        assert_eq!(size("app", "ann"), (Some(3), 1));
        assert_eq!(size("app", "bob"), (Some(7), 5));
        assert_eq!(size("other", "bob"), (Some(9), 5));
        pairs.follow(&settings(r#"{"reserve_pool_size": 5}"#));
        assert_eq!(size("other", "bob"), (None, 0), "without a size there is no reserve");
    }

    #[test]
    fn pairs_of_one_database_and_of_one_user_share_their_limits() {
        let both = settings(r#"{"max_database_connections": 4, "max_user_connections": 2}"#);
        let pairs = Pairs::new(&both);
        let caps = |name, user| pairs.terms(&pair(name, user)).caps;
        let (ann, bob, elsewhere) = (caps("a", "ann"), caps("a", "bob"), caps("b", "ann"));
        assert_eq!((ann[0].limit(), ann[1].limit()), (4, 2));
        assert!(Arc::ptr_eq(&ann[0], &bob[0]) && !Arc::ptr_eq(&ann[1], &bob[1]));
        assert!(Arc::ptr_eq(&ann[1], &elsewhere[1]) && !Arc::ptr_eq(&ann[0], &elsewhere[0]));
        pairs.follow(&settings(r#"{"max_database_connections": 9}"#));
        assert_eq!(caps("a", "ann").len(), 1);
        assert_eq!(ann[0].limit(), 9, "those who are under it already follow");
    }

    #[test]
    fn limits_that_nobody_is_under_are_forgotten() {
        let pairs = Pairs::new(&settings(r#"{"max_database_connections": 4}"#));
        for n in 0..10_000 {
            drop(pairs.terms(&pair(&format!("database {n}"), "ann")));
        }
        assert!(pairs.databases.lock().caps.len() <= REMEMBERED);
    }
}
