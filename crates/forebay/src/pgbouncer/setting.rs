//! Every setting of PgBouncer 1.25, with its default, and what becomes of it here.
//!
//! The one list: what a file may say is checked against it, the page for people who move is
//! written out of it, and `SHOW CONFIG` shows it. Always true: each setting has a fate, so none
//! is ignored without a word.

mod list;

pub(super) use list::{POOL_MODES, SETTINGS};

use forebay_postgres::console::KnownSetting;

use super::value::Kind;

/// A setting of `[pgbouncer]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Its name.
    pub(super) name: &'static str,
    /// What holds where no file sets it; `None`: nothing does.
    pub(super) default: Option<&'static str>,
    pub(super) kind: Kind,
    /// Whether `RELOAD` and `SET` change it in PgBouncer.
    pub(super) changes: Changes,
    /// What becomes of it here.
    pub(super) fate: Fate,
}

impl Setting {
    /// As the console knows it.
    pub(super) fn known(&self) -> KnownSetting {
        KnownSetting {
            name: self.name,
            value: None,
            default: self.default,
            changeable: self.changes == Changes::AtReload,
        }
    }
}

/// When a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    /// At a reload.
    AtReload,
    /// At a start only.
    AtStart,
}

/// What becomes of a setting of PgBouncer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is a setting of ours, and means the same.
    Becomes(&'static str),
    /// It is a setting of ours that means something a little different.
    Resembles {
        /// The setting of ours.
        key: &'static str,
        /// What is different.
        differs: &'static str,
    },
    /// `forebay pgbouncer` itself does it; there is no setting of ours.
    Mode(&'static str),
    /// It has no meaning here; why. Accepted, and said with `-v`.
    Nothing(&'static str),
    /// It would change something that we do not change; what happens instead. Accepted, and
    /// said at each start at which it is not the default.
    Instead(&'static str),
    /// It promises something that we cannot keep. Accepted at its default only; what to do.
    Refused(&'static str),
}

/// The setting called `name`.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// What to say of a name that is no setting of 1.25 but was one of an older or newer version,
/// or is one elsewhere.
pub(super) fn not_here(name: &str) -> Option<&'static str> {
    Some(match name {
        "service_name" => "it is for Windows services only; leave it out",
        "server_check_timeout" | "reserve_pool" => "in `[pgbouncer]` it is `reserve_pool_size`",
        "pool_size" => "in `[pgbouncer]` it is `default_pool_size`",
        "max_client_connections" => "it is `max_client_conn`",
        "host" | "dbname" | "port" | "password" | "connect_query" => {
            "it belongs into a connection string in `[databases]`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_in_the_order_of_show_config() {
        let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn every_default_is_a_value_that_the_setting_may_have() {
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                assert_eq!(setting.kind.check(default), Ok(()), "{}", setting.name);
            }
        }
    }
}
