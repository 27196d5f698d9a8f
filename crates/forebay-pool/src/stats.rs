//! One picture of a pool: every view (metrics, API, console, demo) renders this one, so
//! they cannot disagree. Rooms count their own events; views never count.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::class::{ClassName, Kind};
pub use crate::feature::{Buckets, FeatureSnapshot, Figure};
pub use crate::forecast::{Advice, Because};
use crate::mode::Mode;
use crate::policy::Policy;

/// Upper bounds of the wait buckets, in seconds.
pub const WAIT_BUCKETS: [f64; 13] =
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Upper bounds of the hold and connect buckets, in seconds: an LLM hold is 2 to 60.
pub const HOLD_BUCKETS: [f64; 13] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0];

/// Between a power of two and the next there are this many slots, as a power of two: what is
/// counted in one slot differs by 1/32 at the most.
const PRECISION: u32 = 5;
/// Each slot below this holds one value; above, the slots of each power of two.
const EXACT: u32 = 1 << (PRECISION + 1);
/// The longest time that is told apart, in microseconds: an hour.
const LONGEST: u32 = 3_600_000_000;

/// How times are spread: counts in slots of microseconds that widen with the time
/// (log-linear, as HdrHistogram's). Percentiles are within 1.6 %.
#[derive(Clone)]
pub struct Spread {
    slots: Box<[u64]>,
    count: u64,
    /// Nanoseconds.
    total: u128,
    /// Nanoseconds.
    longest: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { slots: vec![0; slot(LONGEST) + 1].into(), count: 0, total: 0, longest: 0 }
    }
}

/// The slot in which `micros` is counted: its highest bits, and how many follow them.
fn slot(micros: u32) -> usize {
    let shift = (micros | (EXACT >> 1)).ilog2() - PRECISION;
    ((shift << PRECISION) + (micros >> shift)) as usize
}

/// The lowest and the highest time counted in `slot`, in microseconds.
fn range(slot: usize) -> (u64, u64) {
    let slot = slot as u64;
    let shift = (slot >> PRECISION).saturating_sub(1);
    let lowest = (slot - (shift << PRECISION)) << shift;
    (lowest, lowest + (1 << shift) - 1)
}

impl Spread {
    /// Counts one `duration`; above an hour it counts as an hour.
    #[inline]
    pub fn record(&mut self, duration: Duration) {
        self.count += 1;
        if duration.is_zero() {
            // As most waits are.
            self.slots[0] += 1;
            return;
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let micros = u32::try_from(nanos / 1_000).unwrap_or(LONGEST).min(LONGEST);
        self.slots[slot(micros)] += 1;
        self.total += u128::from(nanos);
        self.longest = self.longest.max(nanos);
    }

    /// What was counted so far, in the buckets `bounds` (upper bounds, in seconds).
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are constants between 100 µs and a minute"
    )]
    pub fn snapshot(&self, bounds: &[f64]) -> SpreadSnapshot {
        // One pass over what was recorded. A slot may span a bound: its lowest value decides,
        // so that nothing is counted on both sides.
        let mut recorded = self.recorded().peekable();
        let mut below = 0;
        let buckets = bounds
            .iter()
            .map(|bound| {
                let to = (bound * 1e6) as u64;
                while let Some((_, count)) = recorded.next_if(|(slot, _)| range(*slot).0 <= to) {
                    below += count;
                }
                (*bound, below)
            })
            .collect();
        SpreadSnapshot {
            count: self.count,
            sum: self.sum().as_secs_f64(),
            p50: self.percentile(50),
            p95: self.percentile(95),
            p99: self.percentile(99),
            max: Duration::from_nanos(self.longest).as_secs_f64(),
            buckets,
        }
    }

    fn sum(&self) -> Duration {
        let micros = u64::try_from(self.total / 1_000).unwrap_or(u64::MAX);
        let nanos = u64::try_from(self.total % 1_000).unwrap_or(0);
        Duration::from_micros(micros) + Duration::from_nanos(nanos)
    }

    /// Slots in which something was counted, and how much.
    fn recorded(&self) -> impl Iterator<Item = (usize, u64)> {
        self.slots.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// The time that `percent` of all did not exceed: the middle of its slot, in seconds; 0
    /// if there was none.
    fn percentile(&self, percent: u64) -> f64 {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut below = 0;
        let slot = self.recorded().find(|(_, count)| {
            below += u128::from(*count);
            below >= rank
        });
        let Some((slot, _)) = slot else { return 0.0 };
        let (lowest, highest) = range(slot);
        let middle = lowest.midpoint(highest).saturating_mul(1_000);
        Duration::from_nanos(middle.min(self.longest)).as_secs_f64()
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
    /// Callers who failed because requests waited for each other in a circle.
    pub deadlocks: u64,
    /// Leases that lasted longer than the hold limit.
    pub long_holds: u64,
    /// Its part of what is above the guarantees, against the other classes' weights.
    pub weight: u32,
    /// Requests under way; what no request is known of counts by itself while it has a lease.
    pub under_way: u32,
    /// Connections that they need on average, as far as learnt.
    pub demand: f64,
    /// How busy it is, 0 to 1: what is in use of what it can get, averaged over a second.
    pub utilisation: f64,
    /// How close it is to shedding, 0 to 1.
    pub pressure: f64,
    /// How long its connections take for the work that waits and one more, seconds: when one
    /// who is refused now is told to come back, before the jitter. 0.02 to 30.
    pub retry_after: f64,
    /// What was tried for the first time, and again.
    pub tries: TriesSnapshot,
    /// Whether its work is refused because it keeps failing.
    pub breaker: BreakerSnapshot,
    /// What its policies decided.
    pub policies: Vec<PolicySnapshot>,
    /// From asking to lease (zero waits included).
    pub wait: SpreadSnapshot,
    /// From lease to return.
    pub hold: SpreadSnapshot,
}

/// First tries and retries of one class, as far as they were recognised.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct TriesSnapshot {
    /// Tried for the first time.
    pub first: u64,
    /// Tried again, within the budget.
    pub retries: u64,
    /// Tried again, beyond the budget of the class.
    pub over_budget: u64,
    /// Tried again more often than any operation is.
    pub over_tries: u64,
}

/// The breaker of one class.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BreakerSnapshot {
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// How often it opened, since start.
    pub openings: u64,
}

/// What one policy of one class decided.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PolicySnapshot {
    /// Which.
    pub policy: Policy,
    /// What it may do.
    pub mode: Mode,
    /// How often it refused or held back somebody.
    pub acted: u64,
    /// How often it would have, had it been enforced.
    pub observed: u64,
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
    /// Opened before the destination was restarted, or before they were told to be replaced.
    pub renewed: u64,
    /// Over the budget after it shrank, or the pool is draining.
    pub surplus: u64,
}

/// Who wants which budget.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WantedSnapshot {
    /// Connections, as configured.
    pub configured: u32,
    /// Set by a person, in place of all others.
    pub by_hand: Option<u32>,
    /// Of the window of the timetable that is open.
    pub window: Option<u32>,
    /// What demand asks for, whether it may act or not.
    pub advice: Option<Advice>,
    /// What the destination bears, where that is less than is wanted, whether it counts or
    /// not.
    pub borne: Option<u32>,
}

/// One operation of one class.
#[derive(Debug, Clone, Serialize)]
pub struct OperationSnapshot {
    /// The class.
    pub class: ClassName,
    /// The feature that it is done for.
    pub feature: Arc<str>,
    /// What is done.
    pub operation: Arc<str>,
    /// How many leases what is learnt is worth: those seen, less what was forgotten.
    pub worth: f64,
    /// Connection time that it takes on average, seconds.
    pub mean: f64,
    /// The 95th percentile of that, seconds.
    pub p95: f64,
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
    /// Who wants which budget.
    pub wanted: WantedSnapshot,
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
    /// By feature: `other` is all that found no place of its own, `untagged` what names none.
    pub features: Vec<FeatureSnapshot>,
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
    fn slots_follow_each_other_without_gap_and_widen_by_a_thirty_second_at_most() {
        let mut next = 0;
        for place in 0..=slot(LONGEST) {
            let (lowest, highest) = range(place);
            assert_eq!(lowest, next, "slot {place}");
            for micros in [lowest, highest] {
                assert_eq!(slot(u32::try_from(micros).unwrap()), place, "{micros} µs");
            }
            assert!((highest - lowest) * 32 <= lowest, "{lowest}..={highest}");
            next = highest + 1;
        }
        assert!(next > u64::from(LONGEST));
    }

    #[test]
    fn percentiles_are_near_whatever_the_scale() {
        for unit in [Duration::from_micros(1), Duration::from_micros(333), Duration::from_secs(3)] {
            let mut spread = Spread::default();
            for number in 1..=1_000 {
                spread.record(unit * number);
            }
            let seen = spread.snapshot(&WAIT_BUCKETS);
            for (said, exact) in [(seen.p50, 500), (seen.p95, 950), (seen.p99, 990)] {
                let exact = (unit * exact).as_secs_f64();
                assert!((said / exact - 1.0).abs() < 0.016, "{said} for {exact}");
            }
            assert_eq!((seen.count, seen.max), (1_000, (unit * 1_000).as_secs_f64()));
            assert_eq!(seen.sum, (unit * 500_500).as_secs_f64());
        }
    }

    #[test]
    fn times_beyond_the_scale_are_counted_in_its_last_slot() {
        let mut spread = Spread::default();
        for time in [Duration::MAX, Duration::from_secs(4_000), Duration::ZERO] {
            spread.record(time);
        }
        let seen = spread.snapshot(&WAIT_BUCKETS);
        assert_eq!((seen.count, seen.buckets[0].1), (3, 1));
        assert!((3_500.0..3_700.0).contains(&seen.p50), "{}", seen.p50);
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
