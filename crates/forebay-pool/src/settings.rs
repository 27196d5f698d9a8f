//! What an operator sets for one pool, with the defaults of the field.

use std::sync::Arc;
use std::time::Duration;

use crate::class::{self, ClassName, ClassSettings};
use crate::mode::Mode;
use crate::timetable::Timetable;

/// How many connections a destination may have from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many connections.
    Fixed(u32),
    /// Percent of the destination's own capacity, once that is known; `until_known` before.
    OfCapacity {
        /// Percent of the capacity.
        percent: u8,
        /// The budget in connections until [`Pool::set_capacity`](crate::Pool::set_capacity)
        /// has told the capacity.
        until_known: u32,
    },
}

impl Budget {
    /// So many connections, where the destination can take `capacity` in all, if that is
    /// known; at least one.
    pub(crate) fn of(self, capacity: Option<u32>) -> u32 {
        match (self, capacity) {
            (Self::Fixed(budget), _) => budget,
            (Self::OfCapacity { percent, .. }, Some(capacity)) => {
                class::percent_of(capacity, percent)
            }
            (Self::OfCapacity { until_known, .. }, None) => until_known,
        }
        .max(1)
    }
}

/// When a connection that is closed counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// At once.
    AtOnce,
    /// When the destination has let it go ([`Connector::close`](crate::Connector::close)), or
    /// has not within the reset timeout: it never has more of ours than the limits say.
    Awaited,
}

/// Everything that can be set for one pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The destination's name: in metrics, logs and errors.
    pub name: Arc<str>,
    /// Connections we may hold there, for all identities and classes.
    pub budget: Budget,
    /// Of the budget, connections that are no part of the pool: its owner opens them, with
    /// [`Pool::stand_beside`](crate::Pool::stand_beside). At least two are always left to the
    /// pool, so a smaller budget has fewer or none. Default 0.
    pub beside: u32,
    /// Windows with budgets of their own. Default: none.
    pub timetable: Timetable,
    /// Whether the budget follows observed demand, between what is kept warm and the largest
    /// budget that is configured. Default: observe.
    pub forecast: Mode,
    /// Whether the budget shrinks while the destination shows that it bears less. Default:
    /// off.
    pub evidence: Mode,
    /// Percent of the destination's real capacity that all AI classes may have together.
    /// Default 35.
    pub ai_share: u8,
    /// The workload classes, 1 to 16. Default `core`, `ai-read` and `ai-write`
    /// ([`ClassSettings::defaults`]).
    pub classes: Vec<(ClassName, ClassSettings)>,
    /// A connection idle for longer is closed, down to the warm ones. Default 45 s.
    pub idle_ttl: Duration,
    /// A connection older than this is replaced when it is idle. Default 30 min.
    pub lifetime: Duration,
    /// Percent by which each connection's lifetime is varied, drawn once at its birth.
    /// Default 10.
    pub lifetime_jitter: u8,
    /// Percent of the budget that is opened at start and kept. Default 25.
    pub warm_up: u8,
    /// How often an idle connection is asked whether it still answers. Default 10 s.
    pub probe_interval: Duration,
    /// How long one attempt to connect may take. Default 5 s.
    pub connect_timeout: Duration,
    /// A destination that does not answer is taken to restart for so long: callers wait, until
    /// their own deadline. Then they are told at once. Default 0 s.
    pub restart_patience: Duration,
    /// How long resetting a connection of unknown state may take before it is closed.
    /// Default 1 s.
    pub reset_timeout: Duration,
    /// When a connection that is closed counts no more. Default: at once.
    pub parting: Parting,
    /// Requests that may wait, as a multiple of the seats a class can get. Default 2.
    pub queue_factor: u32,
    /// New connections a second at the most. Default: half the budget, at least 4.
    pub opens_per_second: Option<u32>,
    /// Connections being opened at the same time, at the most. Default: an eighth of the
    /// budget, 1 to 8.
    pub concurrent_opens: Option<u32>,
    /// Percent of what a class can get that must be in use before it sheds expensive work.
    /// Default 80.
    pub shed_from: u8,
    /// A connection on lease for longer is told of (C1). Default 15 s.
    pub hold_limit: Duration,
    /// Operations whose hold time is known to exceed this at its 95th percentile do not
    /// borrow above their class's guarantee, where that policy is enforced. Default 1 s.
    pub lend_max_hold: Duration,
    /// Seed of the jitter; the same seed replays the same decisions. Default: random.
    pub seed: u64,
}

impl PoolSettings {
    /// How many connections may stand beside the pool where `wanted` are to and all may be
    /// `budget`: at least two are left to the pool.
    pub fn beside_of(budget: u32, wanted: u32) -> u32 {
        wanted.min(budget.saturating_sub(2))
    }

    /// The defaults for a destination called `name`, with the three standard classes.
    pub fn new(name: &str, budget: Budget) -> Self {
        Self {
            name: name.into(),
            budget,
            beside: 0,
            timetable: Timetable::default(),
            forecast: Mode::Observe,
            evidence: Mode::Off,
            ai_share: 35,
            classes: ClassSettings::defaults(),
            idle_ttl: Duration::from_secs(45),
            lifetime: Duration::from_secs(30 * 60),
            lifetime_jitter: 10,
            warm_up: 25,
            probe_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            restart_patience: Duration::ZERO,
            reset_timeout: Duration::from_secs(1),
            parting: Parting::AtOnce,
            queue_factor: 2,
            opens_per_second: None,
            concurrent_opens: None,
            shed_from: 80,
            hold_limit: Duration::from_secs(15),
            lend_max_hold: Duration::from_secs(1),
            seed: forebay_seam::random::seed(),
        }
    }
}
