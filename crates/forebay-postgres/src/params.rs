//! Settings of sessions: what a client wants, what a server connection has, and the one
//! statement that makes the second into the first.
//!
//! Names are compared as PostgreSQL does, without case. Values that the server reports are
//! kept as it writes them, so that `utf-8` and `UTF8` are no difference.

use std::collections::{BTreeMap, btree_map};
use std::fmt::Write;
use std::sync::Arc;

use forebay_seam::random;

/// Settings by lower-case name. Clones share their memory until one of them changes:
/// thousands of clients want the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Settings(Arc<BTreeMap<String, String>>);

impl Settings {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if self.get(name) != Some(value) {
            Arc::make_mut(&mut self.0).insert(name.to_owned(), value.to_owned());
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if self.0.contains_key(name) {
            Arc::make_mut(&mut self.0).remove(name);
        }
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        if !self.0.keys().all(|name| keep(name)) {
            Arc::make_mut(&mut self.0).retain(|name, _| keep(name));
        }
    }

    pub(crate) fn iter(&self) -> btree_map::Iter<'_, String, String> {
        self.0.iter()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Settings {
    fn from(settings: [(&str, &str); N]) -> Self {
        settings.into_iter().collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Settings {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(settings: I) -> Self {
        let owned = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(Arc::new(owned.collect()))
    }
}

/// What a server reports of itself, as it writes it.
///
/// Always true: two with the same stamp have the same values. Each change draws a new one, of
/// 63 random bits; 0 is that of no values. Clones share their memory until one changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    values: Arc<BTreeMap<String, (String, String)>>,
    stamp: u64,
}

impl Reported {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let values = Arc::make_mut(&mut self.values);
        values.insert(name.to_ascii_lowercase(), (name.to_owned(), value.to_owned()));
        self.stamp = random::seed() | 1;
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// Names as the server writes them, with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.values().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Are the values those of `other`? If so, the next time that is told by the stamp alone:
    /// clients and servers compare theirs before each transaction, and mostly nothing changes.
    /// The smaller stamp counts, so that all who agree have the same before long.
    pub(crate) fn is_same(&mut self, other: &mut Self) -> bool {
        if self.stamp != other.stamp {
            if self.values != other.values {
                return false;
            }
            let (older, newer) =
                if self.stamp < other.stamp { (&*self, other) } else { (&*other, self) };
            newer.clone_from(older);
        }
        true
    }
}

/// Reported, but not to be set: they say what the server is.
pub(crate) fn is_fact(name: &str) -> bool {
    matches!(
        name,
        "server_version"
            | "server_encoding"
            | "is_superuser"
            | "session_authorization"
            | "integer_datetimes"
            | "in_hot_standby"
    )
}

/// What changed, where nobody asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// A default.
    Default,
    Other,
}

/// What a server connection has beyond its state after login.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    /// Reported at login.
    pub(crate) base: Reported,
    /// Reported now.
    pub(crate) now: Reported,
    /// Set since login and different from it.
    changed: Settings,
    role: RoleNews,
}

/// Whether a server has said something new of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RoleNews {
    #[default]
    None,
    Some,
}

impl Applied {
    /// The server reports a value.
    pub(crate) fn report(&mut self, name: &str, value: &str) {
        self.now.set(name, value);
        let name = name.to_ascii_lowercase();
        if is_fact(&name) {
            if name == "in_hot_standby" {
                self.role = RoleNews::Some;
            }
            return;
        }
        if self.base.get(&name) == Some(value) {
            self.changed.remove(&name);
        } else {
            self.changed.set(&name, value);
        }
    }

    /// The server reports a value, and nothing that was sent to it can be why: if the session
    /// had its default, that has changed, by a reload of the server's configuration. Has it?
    pub(crate) fn report_unasked(&mut self, name: &str, value: &str) -> Unasked {
        let lower = name.to_ascii_lowercase();
        if is_fact(&lower) || self.changed.get(&lower).is_some() {
            self.report(name, value);
            return Unasked::Other;
        }
        self.base.set(name, value);
        self.now.set(name, value);
        if lower == "default_transaction_read_only" {
            self.role = RoleNews::Some;
        }
        Unasked::Default
    }

    /// Has the server said something new of its role since the last question?
    pub(crate) fn role_news(&mut self) -> RoleNews {
        std::mem::take(&mut self.role)
    }

    /// All settings were reset: what is reported now are their defaults.
    pub(crate) fn cleared(&mut self) {
        self.settle();
    }

    /// The login is over: what is reported now is the state to come back to.
    pub(crate) fn settle(&mut self) {
        self.base = self.now.clone();
        self.changed = Settings::default();
    }

    /// A setting that is not reported was set.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if self.base.get(name).is_none() {
            self.changed.set(name, value);
        }
    }

    /// A setting that is not reported has perhaps been set, to what is not known.
    pub(crate) fn suspect(&mut self, name: &str) {
        self.set(name, UNKNOWN);
    }

    /// Is `name`, which the server reports, as it was at login?
    pub(crate) fn is_as_at_login(&self, name: &str) -> bool {
        self.base.get(name) == self.now.get(name)
    }

    /// A setting that is not reported is back at its state after login.
    pub(crate) fn reset(&mut self, name: &str) {
        if self.base.get(name).is_none() {
            self.changed.remove(name);
        }
    }

    /// What [`Applied::replay_of`] asked for has been carried out: `wanted` is what the
    /// connection has, in the spelling of the server where it reports it.
    pub(crate) fn replayed(&mut self, wanted: &mut Settings) {
        // What was reset has its default now, whatever that was before.
        for (name, _) in self.changed.iter().filter(|(name, _)| wanted.get(name).is_none()) {
            if let Some(default) = self.now.get(name).filter(|now| self.base.get(name) != Some(now))
            {
                let default = default.to_owned();
                self.base.set(name, &default);
            }
        }
        self.changed.retain(|name| wanted.get(name).is_some());
        let asked = wanted.clone();
        for (name, value) in asked.iter() {
            match self.now.get(name) {
                Some(reported) => wanted.set(name, reported),
                None => self.set(name, value),
            }
        }
    }

    /// Everything that is not reported is back at its state after login.
    pub(crate) fn reset_all(&mut self) {
        let base = &self.base;
        self.changed.retain(|name| base.get(name).is_some());
    }

    /// What brings the connection to `wanted`; `None` if it is there.
    pub(crate) fn replay_of(&mut self, wanted: &Settings) -> Option<Replay> {
        if self.changed == *wanted {
            // From now on they are one, and compared at a glance.
            self.changed.clone_from(wanted);
            return None;
        }
        let mut sql = String::new();
        let mut stakes = Stakes::NameOnly;
        // What may be set depends on the role, so an old one goes first and a new one last.
        let by_role = |name: &str| name == ROLE;
        let mut gone: Vec<_> =
            self.changed.0.keys().filter(|name| wanted.get(name).is_none()).collect();
        gone.sort_by_key(|name| !by_role(name));
        if let (Some(has), Some(wants)) = (self.changed.get(ROLE), wanted.get(ROLE))
            && has != wants
        {
            sql.push_str("RESET ROLE;");
        }
        for name in gone {
            stakes.raise_for(name);
            sql.push_str("RESET ");
            quote_name(&mut sql, name);
            sql.push(';');
        }
        let mut missing: Vec<_> = wanted
            .iter()
            .filter(|(name, value)| match self.changed.get(name) {
                Some(has) => has != value.as_str(),
                None => self.base.get(name) != Some(value.as_str()),
            })
            .collect();
        missing.sort_by_key(|(name, _)| by_role(name));
        let mut sets = String::new();
        for (name, value) in missing {
            stakes.raise_for(name);
            sets.push_str(if sets.is_empty() { "SELECT " } else { ", " });
            sets.push_str("pg_catalog.set_config(");
            quote_text(&mut sets, name);
            sets.push(',');
            quote_text(&mut sets, value);
            sets.push_str(",false)");
        }
        sql.push_str(&sets);
        (!sql.is_empty()).then_some(Replay { sql, stakes })
    }
}

const ROLE: &str = "role";
/// What no setting can be: it differs from whatever is wanted.
const UNKNOWN: &str = "\0";

/// What brings a connection to a client's settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) sql: String,
    pub(crate) stakes: Stakes,
}

/// What a statement would suffer that runs although its settings could not be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stakes {
    /// It runs under another application_name: no reason to wait for the answer.
    NameOnly,
    /// It may mean something else, or be allowed more.
    Meaning,
}

impl Stakes {
    fn raise_for(&mut self, setting: &str) {
        if setting != "application_name" {
            *self = Self::Meaning;
        }
    }
}

/// A name that may be quoted part by part (`a.b`).
fn quote_name(out: &mut String, name: &str) {
    for (i, part) in name.split('.').enumerate() {
        if i > 0 {
            out.push('.');
        }
        out.push('"');
        out.push_str(&part.replace('"', "\"\""));
        out.push('"');
    }
}

/// A string that means the same whatever `standard_conforming_strings` says.
pub(crate) fn quote_text(out: &mut String, text: &str) {
    let text = text.replace('\'', "''");
    if text.contains('\\') {
        let escaped = text.replace('\\', "\\\\");
        write!(out, "E'{escaped}'").expect("writing to a string succeeds");
    } else {
        write!(out, "'{text}'").expect("writing to a string succeeds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged_in() -> Applied {
        let mut applied = Applied::default();
        applied.report("TimeZone", "UTC");
        applied.report("client_encoding", "UTF8");
        applied.report("server_version", "15.1");
        applied.settle();
        applied
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().copied().collect()
    }

    #[test]
    fn what_changed_since_it_was_the_same_is_told() {
        let (mut server, mut client) = (logged_in().now, logged_in().now);
        assert!(server.is_same(&mut client) && server.is_same(&mut client.clone()));
        server.set("TimeZone", "CET");
        assert!(!server.is_same(&mut client));
        client.set("TimeZone", "CET");
        assert!(server.is_same(&mut client) && server.stamp == client.stamp);
        assert!(!server.is_same(&mut Reported::default()));
        assert!(Reported::default().is_same(&mut Reported::default()));
    }

    #[test]
    fn nothing_is_sent_where_nothing_differs() {
        let mut server = logged_in();
        assert_eq!(server.replay_of(&settings(&[])), None);
        assert_eq!(server.replay_of(&settings(&[("timezone", "UTC")])), None);
        server.report("TimeZone", "CET");
        assert_eq!(server.replay_of(&settings(&[("timezone", "CET")])), None);
    }

    #[test]
    fn what_another_client_set_is_taken_back() {
        let mut server = logged_in();
        server.report("TimeZone", "CET");
        server.set("work_mem", "64MB");
        let sql = server.replay_of(&settings(&[("app.tenant", "o'b\\c")])).unwrap().sql;
        assert_eq!(
            sql,
            "RESET \"timezone\";RESET \"work_mem\";\
             SELECT pg_catalog.set_config('app.tenant',E'o''b\\\\c',false)"
        );
    }

    #[test]
    fn back_at_its_login_state_a_connection_owes_nothing() {
        let mut server = logged_in();
        server.report("TimeZone", "CET");
        server.set("a.b", "1");
        server.report("TimeZone", "UTC");
        server.reset_all();
        assert_eq!(server.replay_of(&Settings::default()), None);
    }

    #[test]
    fn a_default_that_changed_is_what_a_connection_comes_back_to() {
        let mut server = logged_in();
        assert_eq!(server.report_unasked("TimeZone", "CET"), Unasked::Default);
        assert_eq!(server.replay_of(&settings(&[])), None);
        server.report("TimeZone", "JST");
        assert_eq!(server.report_unasked("TimeZone", "CET"), Unasked::Other, "a client's value");
        // It changed while another's value was in force: RESET shows it.
        server.report("TimeZone", "JST");
        assert!(server.replay_of(&settings(&[])).is_some());
        server.report("TimeZone", "EET");
        server.replayed(&mut settings(&[]));
        assert_eq!(server.replay_of(&settings(&[])), None);
    }

    #[test]
    fn an_old_role_goes_first_and_a_new_one_comes_last() {
        let mut server = logged_in();
        server.set("role", "old");
        server.set("log_statement", "all");
        let sql = server.replay_of(&settings(&[("role", "new"), ("work_mem", "1MB")])).unwrap().sql;
        let order = ["RESET ROLE", "log_statement", "work_mem", "'role','new'"];
        let places: Vec<_> = order.iter().map(|part| sql.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{sql}");
    }

    #[test]
    fn only_a_name_needs_no_answer() {
        let mut server = logged_in();
        let mut stakes = |pairs| server.replay_of(&settings(pairs)).unwrap().stakes;
        assert_eq!(stakes(&[("application_name", "a")]), Stakes::NameOnly);
        assert_eq!(stakes(&[("application_name", "a"), ("role", "b")]), Stakes::Meaning);
    }
}
