//! One picture of a destination's limits, which every view renders.

use serde::Serialize;

use super::{Scope, Unit};
use crate::mode::Mode;

/// The limits of one destination at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct RateSnapshot {
    /// Whether they act.
    pub mode: Mode,
    /// Calls that were within all limits.
    pub admitted: u64,
    /// Calls that were not; with [`Mode::Observe`] they went out all the same.
    pub refused: Vec<RefusedSnapshot>,
    /// Tokens that calls within the limits used, as far as their answers said; else as
    /// reserved.
    pub tokens_used: u64,
    /// The limits of the destination as a whole.
    pub limits: Vec<LimitSnapshot>,
    /// What the service announced last for everybody's credential, where that holds still.
    pub announced: Vec<AnnouncedSnapshot>,
    /// How much longer the service wants no calls, seconds.
    pub rests: f64,
    /// Tenants with accounts of their own.
    pub tenants: u32,
    /// Those of them that are at a limit of their own now.
    pub tenants_limited: u32,
}

/// How often one limit was in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedSnapshot {
    /// Whose limit.
    pub scope: Scope,
    /// Which: `requests`, `tokens`, `announced-requests`, `announced-tokens`, `rests`.
    pub cause: &'static str,
    /// How often.
    pub count: u64,
}

/// One limit of a destination as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitSnapshot {
    /// Of what.
    pub unit: Unit,
    /// How much in a window.
    pub limit: u64,
    /// The window, seconds.
    pub per: f64,
    /// What could be taken now.
    pub remaining: u64,
    /// What calls under way have reserved.
    pub reserved: u64,
}

/// What a service says is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnnouncedSnapshot {
    /// Of what.
    pub unit: Unit,
    /// How much.
    pub left: u64,
}
