//! Which operation is the cheapest of those that are frequent, and how long it takes now: in
//! windows of ten seconds, with what was seen in them and nothing older.
//!
//! Asks no clock. Memory is bounded: sixteen candidates, 256 times of the one that is watched.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
/// Returns in a window that make an operation frequent.
const FREQUENT: u32 = 20;
const CANDIDATES: usize = 16;
const TIMES: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Candidate {
    operation: u64,
    returns: u32,
    held: Duration,
}

impl Candidate {
    fn mean(&self) -> Duration {
        self.held / self.returns.max(1)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Watch {
    since: Instant,
    candidates: Vec<Candidate>,
    /// The one that is watched: it stays while it is frequent, so that its usual time is known.
    watched: Option<u64>,
    times: Vec<Duration>,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, candidates: Vec::new(), watched: None, times: Vec::new() }
    }

    /// A connection came home that was held for `operation`.
    pub(crate) fn returned(&mut self, operation: u64, held: Duration) {
        if self.watched == Some(operation) && self.times.len() < TIMES {
            self.times.push(held);
        }
        let known = self.candidates.iter_mut().find(|known| known.operation == operation);
        if let Some(known) = known {
            known.returns = known.returns.saturating_add(1);
            known.held = known.held.saturating_add(held);
        } else if self.candidates.len() < CANDIDATES {
            self.candidates.push(Candidate { operation, returns: 1, held });
        }
    }

    /// At the end of a window: the operation that was watched, and the 95th percentile of
    /// what it took, if it was frequent.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(u64, Duration)> {
        if now < self.since + WINDOW {
            return None;
        }
        self.since = now;
        self.times.sort_unstable();
        let enough = u32::try_from(self.times.len()).is_ok_and(|seen| seen >= FREQUENT);
        let rank = (self.times.len() * 95).div_ceil(100).saturating_sub(1);
        let p95 = self.times.get(rank).copied().filter(|_| enough);
        let seen = self.watched.zip(p95);
        self.times.clear();
        if seen.is_none() {
            let frequent = self.candidates.iter().filter(|known| known.returns >= FREQUENT);
            self.watched = frequent.min_by_key(|known| known.mean()).map(|known| known.operation);
        }
        self.candidates.clear();
        seen
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_cheapest_of_the_frequent_operations_is_watched() {
        let now = time::now();
        let mut watch = Watch::new(now);
        for window in 1..=3 {
            for n in 1..=40 {
                watch.returned(1, 9 * MS);
                watch.returned(2, n * MS / 10);
                if n <= 5 {
                    watch.returned(3, MS / 100);
                }
            }
            assert_eq!(watch.take(now + window * WINDOW - MS), None, "the window goes on");
            let expected = (window > 1).then_some((2, 38 * MS / 10));
            assert_eq!(watch.take(now + window * WINDOW), expected, "the first window chooses");
        }
    }

    #[test]
    fn one_that_becomes_slow_stays_watched_and_one_that_becomes_rare_does_not() {
        let now = time::now();
        let mut watch = Watch::new(now);
        let window = |watch: &mut Watch, at: u32, first: (u32, Duration)| {
            (0..first.0).for_each(|_| watch.returned(1, first.1));
            (0..30).for_each(|_| watch.returned(2, 5 * MS));
            watch.take(now + at * WINDOW)
        };
        assert_eq!(window(&mut watch, 1, (30, MS)), None);
        assert_eq!(window(&mut watch, 2, (30, 50 * MS)), Some((1, 50 * MS)));
        assert_eq!(window(&mut watch, 3, (3, MS)), None);
        assert_eq!(window(&mut watch, 4, (3, MS)), Some((2, 5 * MS)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new(time::now());
        watch.watched = Some(1);
        for n in 0..10_000 {
            watch.returned(n % 100, MS);
            watch.returned(1, MS);
        }
        assert!(watch.candidates.len() <= CANDIDATES && watch.times.len() <= TIMES);
    }
}
