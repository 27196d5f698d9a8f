//! Which of several hosts connections go to, and which work may go to replicas.

use std::time::Duration;

use forebay_pool::ClassName;
use schemars::JsonSchema;
use serde::Deserialize;

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

pub(super) fn watch_interval() -> Duration {
    Duration::from_secs(5)
}
