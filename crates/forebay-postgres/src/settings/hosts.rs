//! Which of several hosts connections go to, and which work may go to replicas.

use std::time::Duration;

use forebay_pool::ClassName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::ServerSettings;
use crate::server::place::Place;

/// Which servers connections may go to: the names and meanings of libpq's
/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionAttrs {
    /// Every one that answers.
    #[default]
    Any,
    /// One whose sessions may write unless they say otherwise.
    ReadWrite,
    /// One whose sessions may not write unless they say otherwise.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or where there is none, any.
    PreferStandby,
}

/// What bounds the connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BoundedBy {
    /// Its `budget`: what the server has room for is compared with it.
    #[default]
    Budget,
    /// `pool_size` and `max_connections` of databases and users, as in PgBouncer; `budget` is
    /// only there to be out of their way, and says nothing of what is to be expected.
    Pools,
}

/// In which order hosts, and addresses of one host, are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalance {
    /// As they are written: the next one if those before cannot be used.
    #[default]
    Disable,
    /// By chance.
    Random,
    /// In turn.
    RoundRobin,
}

/// `[postgres.servers.NAME.replicas]`: work that may go to replicas instead.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplicaSettings {
    /// The server, with hosts and a budget of its own, that stands for the replicas. It needs
    /// classes of the same names.
    pub server: String,
    /// Classes whose work goes there.
    pub classes: Vec<ClassName>,
    /// What becomes of that work while no replica can be used. Default `primary`.
    #[serde(default)]
    pub otherwise: Otherwise,
}

/// What becomes of work for replicas while none can be used: away, or behind by more than
/// `max_lag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// The primary does it, within what its class may take there.
    #[default]
    Primary,
    /// It waits, and is refused at its deadline.
    Refuse,
}

impl ServerSettings {
    /// Is it said where the server is, once, and in words that are an address?
    ///
    /// # Errors
    /// The key that is wrong, such as `hosts[1]`, and why.
    pub fn check_hosts(&self) -> Result<(), (String, String)> {
        match (self.address.is_empty(), self.hosts.is_empty()) {
            (true, true) => {
                let reason = "no `address`: write `host`, `host:port`, `[v6]:port` or the folder \
                              of a Unix socket, or several of them as `hosts`";
                return Err(("address".into(), reason.into()));
            }
            (false, false) => {
                let reason = "both `address` and `hosts`: put all of them into `hosts`";
                return Err(("hosts".into(), reason.into()));
            }
            (true, false) | (false, true) => {}
        }
        for (key, host) in self.written_hosts() {
            Place::parse(host).map_err(|reason| (key, reason))?;
        }
        Ok(())
    }

    /// Hosts with the keys that they stand at.
    pub(crate) fn written_hosts(&self) -> Vec<(String, &str)> {
        match self.hosts.as_slice() {
            [] => vec![("address".to_owned(), self.address.as_str())],
            hosts => {
                let each = hosts.iter().enumerate();
                each.map(|(n, host)| (format!("hosts[{n}]"), host.as_str())).collect()
            }
        }
    }
}

pub(super) fn watch_interval() -> Duration {
    Duration::from_secs(5)
}
