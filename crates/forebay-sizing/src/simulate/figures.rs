//! What was seen in a run: counted where it happens, never derived from settings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use forebay_pool::dry::Why;
use forebay_pool::{Refusal, Snapshot};
use hdrhistogram::Histogram;

/// One run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// By stream, in the order of the scenario.
    pub streams: Vec<StreamFigures>,
    /// What was counted, seconds.
    pub seconds: f64,
    /// Connections on lease on average, over the budget.
    pub utilisation: f64,
    /// Slice by slice ([`super::Scenario::slice`]) from the start, what came before counting included.
    pub timeline: Vec<Slice>,
    /// The moment of each attempt to connect, from the start.
    pub connects: Vec<Duration>,
    /// The pool's own picture at the end.
    pub snapshot: Snapshot,
}

/// One stream in one run.
#[derive(Debug, Clone)]
pub struct StreamFigures {
    /// Its name.
    pub name: &'static str,
    /// Requests that came.
    pub arrived: u64,
    /// Requests that were done.
    pub completed: u64,
    /// Requests that were given up after the last try.
    pub failed: u64,
    /// Tries, the first ones included.
    pub tries: u64,
    /// Queries asked for.
    pub asked: u64,
    /// Queries that got a connection.
    pub granted: u64,
    /// Queries that did not, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// Waits of those that got one, those that did not wait included.
    pub wait: Spread,
    /// From a request's arrival to its end, of those that were done.
    pub duration: Spread,
    /// Connection time of tries that succeeded, seconds.
    pub useful: f64,
    /// Connection time of tries that failed, seconds.
    pub wasted: f64,
}

impl StreamFigures {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            arrived: 0,
            completed: 0,
            failed: 0,
            tries: 0,
            asked: 0,
            granted: 0,
            refused: BTreeMap::new(),
            wait: Spread::default(),
            duration: Spread::default(),
            useful: 0.0,
            wasted: 0.0,
        }
    }

    /// Queries that got no connection.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Their part of all queries, 0 to 1.
    pub fn refused_part(&self) -> f64 {
        part(self.refusals(), self.asked)
    }

    /// The part of its connection time that was spent for nothing, 0 to 1.
    pub fn wasted_part(&self) -> f64 {
        let all = self.useful + self.wasted;
        if all > 0.0 { self.wasted / all } else { 0.0 }
    }

    /// Tries for each request that came: 1 without retries.
    pub fn amplification(&self) -> f64 {
        part(self.tries, self.arrived)
    }
}

/// `some` over `all`; 0 of nothing.
#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

/// Why a query failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// As many requests waited as may.
    QueueFull,
    /// Its deadline passed.
    TimedOut,
    /// The client had no more patience.
    GivenUp,
    /// The destination was down, or its connection broke.
    Unreachable,
    /// Expensive work was shed.
    Shed,
    /// Requests under way needed all connections, or were as many as may be.
    Admission,
    /// It would have waited beyond its deadline.
    Late,
    /// Newer work went first.
    Stale,
    /// Retries had used up their budget.
    Retries,
    /// Work of its class kept failing.
    Broken,
    /// Something else.
    Other,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::QueueFull => Self::QueueFull,
            Why::TimedOut => Self::TimedOut,
            Why::Unreachable => Self::Unreachable,
            Why::Policy(refusal) => match refusal {
                Refusal::Shed { .. } => Self::Shed,
                Refusal::Demand { .. } | Refusal::Requests { .. } => Self::Admission,
                Refusal::Late { .. } => Self::Late,
                Refusal::Stale => Self::Stale,
                Refusal::Retries => Self::Retries,
                Refusal::Broken => Self::Broken,
                _ => Self::Other,
            },
            Why::Denied | Why::Closed | _ => Self::Other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "queue full",
            Self::TimedOut => "timed out",
            Self::GivenUp => "given up",
            Self::Unreachable => "unreachable",
            Self::Shed => "shed",
            Self::Admission => "admission",
            Self::Late => "too late",
            Self::Stale => "stale",
            Self::Retries => "retry budget",
            Self::Broken => "breaker",
            Self::Other => "other",
        })
    }
}

/// One slice of a run, all streams together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slice {
    /// Requests that came.
    pub arrived: u32,
    /// Tries that began.
    pub tries: u32,
    /// Of those, tries beyond the first that the pool did not bar by its retry budget.
    pub retries: u32,
    /// Queries that got a connection.
    pub granted: u32,
    /// Queries that did not.
    pub refused: u32,
    /// Requests that were done.
    pub completed: u32,
    /// Connects that began.
    pub connects: u32,
    /// Connections that there were at its end.
    pub open: u32,
    /// Queries in line at its end.
    pub waiting: u32,
}

/// How times were spread: the mean is exact, percentiles within 0.1 %.
#[derive(Clone)]
pub struct Spread {
    micros: Histogram<u64>,
    total: Duration,
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, mean, p99) = (self.count(), self.mean(), self.quantile(0.99));
        write!(f, "{count} times, mean {mean:?}, p99 {p99:?}, longest {:?}", self.max())
    }
}

impl Default for Spread {
    fn default() -> Self {
        let micros =
            Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("1 µs to 1 h, 3 digits");
        Self { micros, total: Duration::ZERO }
    }
}

impl Spread {
    pub(super) fn record(&mut self, time: Duration) {
        self.micros.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        self.total += time;
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// The mean; zero of nothing.
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.total.checked_div(count).unwrap_or_default()
    }

    /// So many of them, 0 to 1, were at most as long.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(part))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.micros.max())
    }

    /// The part of them that was longer than `limit`, 0 to 1.
    pub fn longer_than(&self, limit: Duration) -> f64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let longer = self.count() - self.micros.count_between(0, limit);
        part(longer, self.count())
    }
}
