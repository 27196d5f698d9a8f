//! One picture of a pool: every view (metrics, API, console, demo) renders this one, so
//! they cannot disagree. Rooms count their own events; views never count.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::class::{ClassName, Kind};
pub use crate::feature::{Buckets, FanOutJump, FeatureSnapshot, Figure};

/// Upper bounds of the wait buckets, in seconds.
pub const WAIT_BUCKETS: [f64; 13] =
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Upper bounds of the hold and connect buckets, in seconds: an LLM hold is 2 to 60.
pub const HOLD_BUCKETS: [f64; 13] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0];

/// How times are spread: exact counters for buckets, percentiles within 1 %.
#[derive(Clone)]
pub struct Spread {
    micros: Histogram<u64>,
    total: Duration,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            micros: Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("1 µs to 1 h, 2 digits"),
            total: Duration::ZERO,
        }
    }
}

impl Spread {
    /// Counts one `duration`; above an hour it counts as an hour.
    pub fn record(&mut self, duration: Duration) {
        self.micros
            .saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1));
        self.total += duration;
    }

    /// What was counted so far, in the buckets `bounds` (upper bounds, in seconds).
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are constants between 100 µs and a minute"
    )]
    pub fn snapshot(&self, bounds: &[f64]) -> SpreadSnapshot {
        let quantile =
            |q: f64| Duration::from_micros(self.micros.value_at_quantile(q)).as_secs_f64();
        let empty = self.micros.is_empty();
        let at = |q: f64| if empty { 0.0 } else { quantile(q) };
        // One pass over what was recorded. A slot of the histogram may span a bound: its
        // lowest value decides, so that nothing is counted on both sides.
        let mut recorded = self.micros.iter_recorded().peekable();
        let mut below = 0;
        let buckets = bounds
            .iter()
            .map(|bound| {
                let to = (bound * 1e6) as u64;
                while let Some(slot) = recorded
                    .next_if(|slot| self.micros.lowest_equivalent(slot.value_iterated_to()) <= to)
                {
                    below += slot.count_at_value();
                }
                (*bound, below)
            })
            .collect();
        SpreadSnapshot {
            count: self.micros.len(),
            sum: self.total.as_secs_f64(),
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: if empty { 0.0 } else { Duration::from_micros(self.micros.max()).as_secs_f64() },
            buckets,
        }
    }
}

/// Times in seconds since start.
#[derive(Debug, Clone, Serialize)]
pub struct SpreadSnapshot {
    /// How many.
    pub count: u64,
    /// Their sum, seconds.
    pub sum: f64,
    /// Median, seconds.
    pub p50: f64,
    /// 95th percentile, seconds.
    pub p95: f64,
    /// 99th percentile, seconds.
    pub p99: f64,
    /// The longest, seconds.
    pub max: f64,
    /// Cumulative counts: (upper bound in seconds, count at or below).
    pub buckets: Vec<(f64, u64)>,
}

/// Whether the destination can be reached, which is another question than whether it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No connection was tried yet.
    Unknown,
    /// The last attempt or answer was good.
    Up,
    /// It answers but has no place for another connection of ours now.
    Busy,
    /// Connects fail.
    Down,
}

/// One workload class of one pool.
#[derive(Debug, Clone, Serialize)]
pub struct ClassSnapshot {
    /// Its name.
    pub class: ClassName,
    /// Whose work.
    pub kind: Kind,
    /// Seats no other class can take.
    pub guarantee: u32,
    /// Seats it never exceeds.
    pub ceiling: u32,
    /// Connections on lease.
    pub leased: u32,
    /// Callers waiting.
    pub waiting: u32,
    /// Leases given.
    pub checkouts: u64,
    /// Of those, how many had to wait.
    pub waited: u64,
    /// Callers whose deadline passed while all seats were taken.
    pub timed_out: u64,
    /// Callers told at once that the queue is full.
    pub queue_full: u64,
    /// Callers told that the destination cannot be reached, or refuses them.
    pub failed: u64,
    /// Callers who left while they waited.
    pub abandoned: u64,
    /// From asking to lease (zero waits included).
    pub wait: SpreadSnapshot,
    /// From lease to return.
    pub hold: SpreadSnapshot,
}

/// One identity of one pool.
#[derive(Debug, Clone, Serialize)]
pub struct IdentitySnapshot {
    /// Its name.
    pub identity: String,
    /// Connections on lease.
    pub leased: u32,
    /// Connections at rest.
    pub idle: u32,
    /// Connections being opened.
    pub opening: u32,
}

/// Why connections ended, since start.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Closed {
    /// Idle longer than the idle TTL.
    pub idle: u64,
    /// Older than their lifetime.
    pub lifetime: u64,
    /// Found dead at checkout, by a probe, or reported broken by their user.
    pub broken: u64,
    /// Could not be brought back to a known state.
    pub unclean: u64,
    /// Closed to make room for another identity.
    pub evicted: u64,
    /// Over the budget after it shrank, or the pool is draining.
    pub surplus: u64,
}

/// One pool at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The destination.
    pub destination: Arc<str>,
    /// Can it be reached?
    pub health: Health,
    /// Connections we may hold there.
    pub budget: u32,
    /// What it says it can take, once known.
    pub capacity: Option<u32>,
    /// What all AI classes may have together.
    pub ai_ceiling: u32,
    /// On lease.
    pub leased: u32,
    /// At rest.
    pub idle: u32,
    /// Being opened.
    pub opening: u32,
    /// Being reset or probed.
    pub cleaning: u32,
    /// Whether the warm-up is done and the pool may be called ready.
    pub warm: bool,
    /// Connections opened since start.
    pub opened: u64,
    /// Attempts to connect that failed since start.
    pub open_failures: u64,
    /// Connections closed since start, by reason.
    pub closed: Closed,
    /// How long connecting took, of those that succeeded.
    pub connect: SpreadSnapshot,
    /// By class, in the order of the settings.
    pub classes: Vec<ClassSnapshot>,
    /// By identity, in the order of their names.
    pub identities: Vec<IdentitySnapshot>,
    /// What the last failed attempt said, while the destination is not up.
    pub last_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bucket_however_coarse_the_histogram() {
        let mut spread = Spread::default();
        for micros in (0..2_000_000).step_by(77) {
            spread.record(Duration::from_micros(micros));
        }
        for bounds in [WAIT_BUCKETS, HOLD_BUCKETS] {
            let seen = spread.snapshot(&bounds);
            assert!(seen.buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
            assert_eq!(seen.buckets.last().map(|(_, count)| *count), Some(seen.count));
        }
    }

    #[test]
    fn a_time_on_a_bound_is_counted_once() {
        let mut spread = Spread::default();
        for millis in [2, 2_000, 90_000] {
            spread.record(Duration::from_millis(millis));
        }
        let counts: Vec<_> = spread.snapshot(&HOLD_BUCKETS).buckets.iter().map(|b| b.1).collect();
        assert_eq!(counts, [0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(spread.snapshot(&HOLD_BUCKETS).count, 3);
    }
}
