//! What clients are told at login, remembered for each server, identity and set of start
//! settings, so that a login needs no server connection, and clients who are told the same
//! share its memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use forebay_seam::sync::Mutex;

use crate::params::{Reported, Settings};
use crate::server::connector::Identity;

/// Sets of start settings remembered; beyond that all are forgotten and learnt anew.
const MOST: usize = 4_096;

/// The server by its name, since two may have databases and users of the same names.
type Key = (Arc<str>, Identity, Settings);

/// What the server reported to a client, and the client's settings as the server writes them.
#[derive(Clone)]
pub(crate) struct Welcome {
    pub(crate) reported: Reported,
    pub(crate) settings: Settings,
}

#[derive(Default)]
pub(crate) struct Welcomes(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// As servers told them, without `application_name`.
    told: HashMap<Key, Welcome>,
    /// Made of these, with one.
    named: HashMap<Key, Welcome>,
}

impl Welcomes {
    /// What the server told a client of `identity` that asked for `settings`. Settings that
    /// differ only in `application_name` are one.
    pub(crate) fn get(
        &self,
        server: &Arc<str>,
        identity: &Identity,
        settings: &Settings,
    ) -> Option<Welcome> {
        let key = (Arc::clone(server), identity.clone(), settings.clone());
        let mut known = self.0.lock();
        if let Some(named) = known.named.get(&key) {
            return Some(named.clone());
        }
        let mut welcome = known.told.get(&without_name(&key)).cloned()?;
        if let Some(name) = settings.get(NAME) {
            welcome.reported.set(NAME, name);
            welcome.settings.set(NAME, name);
            insert(&mut known.named, key, welcome.clone());
        }
        Some(welcome)
    }

    /// A default has changed on a server: all is learnt anew.
    pub(crate) fn forget(&self) {
        *self.0.lock() = Known::default();
    }

    /// A server has told this to a client that asked for `settings`; one that gives no name
    /// is called `unnamed` there.
    pub(crate) fn remember(
        &self,
        server: &Arc<str>,
        identity: &Identity,
        settings: &Settings,
        welcome: &Welcome,
        unnamed: &str,
    ) {
        let key = without_name(&(Arc::clone(server), identity.clone(), settings.clone()));
        let mut welcome = welcome.clone();
        welcome.reported.set(NAME, unnamed);
        welcome.settings.remove(NAME);
        insert(&mut self.0.lock().told, key, welcome);
    }
}

const NAME: &str = "application_name";

fn without_name((server, identity, settings): &Key) -> Key {
    let mut settings = settings.clone();
    settings.remove(NAME);
    (Arc::clone(server), identity.clone(), settings)
}

fn insert<K: Hash + Eq, V>(known: &mut HashMap<K, V>, key: K, value: V) {
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_clients_own() {
        let identity =
            Identity { name: Arc::from("d"), database: Arc::from("d"), user: Arc::from("u") };
        let welcomes = Welcomes::default();
        let asked = Settings::from([("application_name", "one"), ("timezone", "utc")]);
        let mut reported = Reported::default();
        reported.set("TimeZone", "UTC");
        reported.set("application_name", "one");
        let settings = Settings::from([("application_name", "one"), ("timezone", "UTC")]);
        let told = Welcome { reported, settings };
        let server = Arc::from("main");
        welcomes.remember(&server, &identity, &asked, &told, "pooler");
        for (asked, name, wants) in [
            (Settings::from([("timezone", "utc")]), "pooler", None),
            (
                Settings::from([("application_name", "two"), ("timezone", "utc")]),
                "two",
                Some("two"),
            ),
        ] {
            let Welcome { reported, settings } = welcomes.get(&server, &identity, &asked).unwrap();
            assert_eq!(reported.get("application_name"), Some(name));
            assert_eq!(settings.get("application_name"), wants);
            assert_eq!(settings.get("timezone"), Some("UTC"));
        }
        assert!(welcomes.get(&server, &identity, &Settings::default()).is_none());
        assert!(welcomes.get(&Arc::from("other"), &identity, &asked).is_none());
    }
}
