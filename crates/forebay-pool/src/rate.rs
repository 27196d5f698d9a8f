//! Rate limits of one destination: requests, and units such as tokens, for the destination as
//! a whole and for each tenant.
//!
//! What a call will use is reserved before it goes out and settled when it is known
//! ([`Reservation`]). Who would exceed a limit is refused at once and told when to come back;
//! nobody sleeps here, because a sleeping caller holds memory and a socket, and its client's
//! own deadline runs on unseen. What the service itself announces counts like a limit until
//! its reset. The `bucket` has the arithmetic, the `book` the accounts, with `now` as an
//! argument; their lock and their clock are the `limiter`'s ([`RateLimits`]).
//!
//! Always true: over any window of a limit, no more is admitted than the limit and the burst
//! (one call that alone is larger than the burst waits for a full bucket and goes on debt);
//! without calls under way, nothing is reserved.

pub(crate) mod book;
mod bucket;
mod picture;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use crate::limiter::{RateLimits, Reservation, Verdict};
use crate::mode::Mode;
pub use bucket::{Rate, RateError};
pub use picture::{AnnouncedSnapshot, LimitSnapshot, RateSnapshot, RefusedSnapshot};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Calls.
    Requests,
    /// What calls use up: tokens of a language model.
    Tokens,
}

impl Unit {
    const ALL: [Self; 2] = [Self::Requests, Self::Tokens];

    fn place(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Tokens => 1,
        }
    }

    /// Its name in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What one call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Calls.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

impl Amounts {
    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}

/// The limits of one account. `None`: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls in each window.
    pub requests: Option<Rate>,
    /// Tokens in each window.
    pub tokens: Option<Rate>,
}

/// The limits of a destination.
#[derive(Debug, Clone, Default)]
pub struct RateSettings {
    /// Whether they act.
    pub mode: Mode,
    /// For everybody together.
    pub whole: Limits,
    /// For each tenant.
    pub each_tenant: Limits,
    /// For single tenants; what one does not say is as for each.
    pub tenants: HashMap<Arc<str>, Limits>,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everybody's together.
    Destination,
    /// The tenant's own.
    Tenant,
}

impl Scope {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Tenant => "tenant",
        }
    }
}

/// With whom the service keeps count: whoever its credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// One credential for everybody.
    Destination,
    /// The tenant's own.
    Tenant(Arc<str>),
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A limit of ours.
    Limit(Unit),
    /// What the service said is left.
    Announced(Unit),
    /// The service asked to be left alone for a while.
    Rests,
}

impl Cause {
    pub(crate) const ALL: [Self; 5] = [
        Self::Limit(Unit::Requests),
        Self::Limit(Unit::Tokens),
        Self::Announced(Unit::Requests),
        Self::Announced(Unit::Tokens),
        Self::Rests,
    ];

    /// Its name in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Limit(Unit::Requests) => "requests",
            Self::Limit(Unit::Tokens) => "tokens",
            Self::Announced(Unit::Requests) => "announced-requests",
            Self::Announced(Unit::Tokens) => "announced-tokens",
            Self::Rests => "rests",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(unit) => write!(f, "the limit of {} is reached", unit.as_str()),
            Self::Announced(unit) => {
                write!(f, "the service announced that its {} are used up", unit.as_str())
            }
            Self::Rests => f.write_str("the service asked for a rest"),
        }
    }
}

/// How what a service announces comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// Bit by bit until the reset, as OpenAI and Anthropic document it.
    Gradual,
    /// All of it at the reset.
    AtOnce,
}

/// What a service says is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Of what.
    pub unit: Unit,
    /// How much there is when nothing is used; `None` where it does not say.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: u64,
    /// When there is all of it again, from now.
    pub reset: Duration,
    /// How it comes back.
    pub refill: Refill,
}

/// A limit, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub scope: Scope,
    /// Of what.
    pub unit: Unit,
    /// How much in which window.
    pub rate: Rate,
    /// How much could be taken now.
    pub remaining: u64,
    /// When the burst is full again.
    pub reset: Duration,
    /// What is reserved by calls under way.
    pub reserved: u64,
}

/// No: come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When it would be admitted, if nobody else came before.
    pub retry_after: Duration,
    /// Whose limit it is.
    pub scope: Scope,
    /// What stands in the way.
    pub cause: Cause,
}
