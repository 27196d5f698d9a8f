//! The budget a destination can bear, from how it bears it: less when the cheapest work it
//! does often takes twice its usual time, or when it says that it is full; slowly more when
//! neither is so (additive increase, multiplicative decrease; Chiu and Jain 1989).
//!
//! Asks no clock. Always true: the limit is between a tenth of the configured budget and
//! all of it, and falls at most once in ten seconds.

use std::time::{Duration, Instant};

mod watch;

pub(crate) use watch::Watch;

/// The limit changes at most once in this time.
const STEP: Duration = Duration::from_secs(10);
/// What is left of the limit after evidence, percent.
const DECREASE: u64 = 90;
/// The limit never falls below so much of the configured budget, percent.
const FLOOR: u64 = 10;
/// An operation that takes so many times its minimum is slow.
const SLOW: u32 = 2;
/// The minimum is that of an hour, kept by the minute.
const MINUTES: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// The shortest times of one operation in each of the last sixty minutes.
#[derive(Debug, Clone)]
struct Shortest {
    operation: u64,
    minutes: [Option<Duration>; MINUTES as usize],
    newest: usize,
    since: Instant,
}

impl Shortest {
    fn new(operation: u64, now: Instant) -> Self {
        Self { operation, minutes: [None; MINUTES as usize], newest: 0, since: now }
    }

    fn record(&mut self, p95: Duration, now: Instant) {
        let mut passed = 0;
        while self.since + MINUTE <= now {
            passed += 1;
            if passed > MINUTES {
                self.since = now;
                break;
            }
            self.since += MINUTE;
            self.newest = (self.newest + 1) % self.minutes.len();
            self.minutes[self.newest] = None;
        }
        let slot = &mut self.minutes[self.newest];
        *slot = Some(slot.map_or(p95, |other| other.min(p95)));
    }

    fn least(&self) -> Option<Duration> {
        self.minutes.iter().flatten().min().copied()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// The limit, where it is below the configured budget.
    limit: Option<u32>,
    shortest: Option<Shortest>,
    /// Was there evidence since the last step?
    overloaded: bool,
    stepped: Option<Instant>,
}

impl Evidence {
    /// The cheapest operation that is frequent, told by any number of its own, takes `p95`
    /// now to execute, without its waits.
    pub(crate) fn executed(&mut self, operation: u64, p95: Duration, now: Instant) {
        let known = self.shortest.take().filter(|shortest| shortest.operation == operation);
        let mut shortest = known.unwrap_or_else(|| Shortest::new(operation, now));
        shortest.record(p95, now);
        self.overloaded |= shortest.least().is_some_and(|least| p95 > least * SLOW);
        self.shortest = Some(shortest);
    }

    /// The destination said that it is full.
    pub(crate) fn was_busy(&mut self) {
        self.overloaded = true;
    }

    /// Of a `budget` that is configured or wanted, how much it bears. To be asked every
    /// second or so.
    pub(crate) fn limit(&mut self, budget: u32, now: Instant) -> u32 {
        let due = self.stepped.is_none_or(|at| at + STEP <= now);
        let limit = self.limit.unwrap_or(budget).min(budget);
        if !due || (!self.overloaded && self.limit.is_none()) {
            return limit;
        }
        self.stepped = Some(now);
        let limit = if std::mem::take(&mut self.overloaded) {
            let part = |percent: u64| u64::from(budget) * percent / 100;
            let less = u64::from(limit) * DECREASE / 100;
            u32::try_from(less.max(part(FLOOR)).max(1)).unwrap_or(budget)
        } else {
            limit.saturating_add(1)
        };
        self.limit = Some(limit).filter(|limit| *limit < budget);
        limit.min(budget)
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn without_evidence_the_budget_is_the_limit() {
        let (mut evidence, now) = (Evidence::default(), time::now());
        for second in 0..100 {
            let now = now + Duration::from_secs(second);
            evidence.executed(1, 5 * MS, now);
            assert_eq!(evidence.limit(80, now), 80);
        }
    }

    #[test]
    fn twice_the_usual_time_takes_a_tenth_away_each_ten_seconds() {
        let (mut evidence, start) = (Evidence::default(), time::now());
        evidence.executed(1, 5 * MS, start);
        let mut limits = Vec::new();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            evidence.executed(1, 11 * MS, now);
            limits.push(evidence.limit(80, now));
        }
        limits.dedup();
        assert_eq!(limits, [72, 64, 57]);
    }

    #[test]
    fn it_comes_back_by_one_each_ten_seconds_to_the_budget_and_no_further() {
        let (mut evidence, start) = (Evidence::default(), time::now());
        evidence.was_busy();
        assert_eq!(evidence.limit(30, start), 27);
        let limits: Vec<_> = (1..=60)
            .map(|second| evidence.limit(30, start + Duration::from_secs(second)))
            .collect();
        assert_eq!((limits[8], limits[9], limits[19], limits[29]), (27, 28, 29, 30));
        assert!(limits[29..].iter().all(|limit| *limit == 30));
    }

    #[test]
    fn the_limit_never_falls_below_a_tenth() {
        let (mut evidence, mut now) = (Evidence::default(), time::now());
        for _ in 0..200 {
            evidence.was_busy();
            let limit = evidence.limit(80, now);
            assert!((8..=80).contains(&limit));
            now += STEP;
        }
        assert_eq!(evidence.limit(80, now), 9, "and then it rises again");
        let mut one = Evidence::default();
        one.was_busy();
        assert_eq!(one.limit(1, now), 1);
    }

    #[test]
    fn what_was_usual_an_hour_ago_is_forgotten() {
        let (mut evidence, start) = (Evidence::default(), time::now());
        evidence.executed(1, 5 * MS, start);
        for minute in 1..=60 {
            evidence.executed(1, 11 * MS, start + minute * MINUTE);
        }
        let now = start + 61 * MINUTE;
        evidence.overloaded = false;
        evidence.executed(1, 11 * MS, now);
        assert!(!evidence.overloaded, "11 ms are usual now");
    }

    #[test]
    fn another_operation_has_another_usual_time() {
        let (mut evidence, now) = (Evidence::default(), time::now());
        evidence.executed(1, MS, now);
        evidence.executed(2, 50 * MS, now);
        assert_eq!(evidence.limit(80, now), 80);
    }

    #[test]
    fn a_smaller_budget_by_other_reasons_is_never_exceeded() {
        let (mut evidence, now) = (Evidence::default(), time::now());
        evidence.was_busy();
        assert_eq!(evidence.limit(80, now), 72);
        assert_eq!(evidence.limit(50, now), 50);
    }
}
