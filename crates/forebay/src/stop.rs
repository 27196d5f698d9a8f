//! How the program comes to its end: who may stay, and how long.
//!
//! In every way no new client is accepted, and /readyz has said so before. A second order cuts
//! off what is left.

use std::time::Duration;

/// A way to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Clients leave as soon as they run nothing; what still runs after `stop_timeout` is cut
    /// off.
    #[default]
    Drain,
    /// The same without a deadline (PgBouncer's `SHUTDOWN WAIT_FOR_SERVERS`).
    WaitForServers,
    /// Clients stay until they leave by themselves (PgBouncer's `SHUTDOWN WAIT_FOR_CLIENTS`).
    WaitForClients,
    /// All is cut off at once.
    Immediate,
    /// Another process has the sockets. Clients may stay for half of `stop_timeout`, so that
    /// who has just come can do what it came for; then as [`Ending::Drain`] for the other half.
    HandedOver,
}

/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Ending {
    /// How long until what still runs is cut off.
    pub fn patience(self, stop_timeout: Duration) -> Duration {
        match self {
            Self::Drain | Self::HandedOver => stop_timeout,
            Self::WaitForServers | Self::WaitForClients => NEVER,
            Self::Immediate => Duration::ZERO,
        }
    }

    /// How long clients that run nothing may stay.
    pub fn welcome(self, stop_timeout: Duration) -> Duration {
        match self {
            Self::Drain | Self::WaitForServers | Self::Immediate => Duration::ZERO,
            Self::WaitForClients => NEVER,
            Self::HandedOver => stop_timeout / 2,
        }
    }
}

/// What signals mean.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// SIGTERM.
    pub terminate: Ending,
    /// SIGINT.
    pub interrupt: Ending,
}
