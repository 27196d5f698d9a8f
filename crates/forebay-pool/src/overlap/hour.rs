//! Sums of the last hour, in twelve parts that are forgotten one after the other.
//!
//! Asks no clock. Always true: what [`Hour::sum`] returns was added within the time that
//! [`covered`] says.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// Parts of an hour.
const PARTS: usize = 12;
/// How long one is.
const PART: Duration = Duration::from_secs(300);

/// The part of time that `now` is in, counted from `start`.
fn part(start: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(start).as_secs() / PART.as_secs()
}

/// How much time the sums of `now` are of: all since `start` in the first hour, then between 55
/// minutes and an hour.
pub(super) fn covered(start: Instant, now: Instant) -> Duration {
    let all = now.saturating_duration_since(start);
    let forgotten = part(start, now).saturating_sub(PARTS as u64 - 1);
    all.saturating_sub(Duration::from_secs(forgotten.saturating_mul(PART.as_secs())))
}

/// What was added up in the last hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hour<S> {
    parts: [S; PARTS],
    /// The newest part.
    at: u64,
}

impl<S: Copy + Default> Default for Hour<S> {
    fn default() -> Self {
        Self { parts: [S::default(); PARTS], at: 0 }
    }
}

impl<S: Copy + Default + AddAssign> Hour<S> {
    /// Adds `more` at `now`; `start` is the same at each call.
    pub(super) fn add(&mut self, start: Instant, now: Instant, more: S) {
        self.turn(part(start, now));
        if let Some(slot) = self.parts.get_mut(place(self.at)) {
            *slot += more;
        }
    }

    /// What was added in the hour before `now`.
    pub(super) fn sum(&self, start: Instant, now: Instant) -> S {
        let mut turned = *self;
        turned.turn(part(start, now));
        let mut sum = S::default();
        turned.parts.iter().for_each(|part| sum += *part);
        sum
    }

    /// Forgets what is older than an hour at part `now`.
    fn turn(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at).min(PARTS as u64);
        for behind in 0..passed {
            if let Some(slot) = self.parts.get_mut(place(now - behind)) {
                *slot = S::default();
            }
        }
        self.at = self.at.max(now);
    }
}

fn place(part: u64) -> usize {
    usize::try_from(part % PARTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    #[test]
    fn an_hour_forgets_what_is_older_and_nothing_else() {
        let start = time::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut hour = Hour::<u64>::default();
        hour.add(start, at(0), 1);
        hour.add(start, at(4), 2);
        hour.add(start, at(30), 4);
        assert_eq!(hour.sum(start, at(59)), 7);
        assert_eq!(hour.sum(start, at(60)), 4);
        assert_eq!(hour.sum(start, at(89)), 4);
        assert_eq!(hour.sum(start, at(90)), 0);
        hour.add(start, at(10_000), 8);
        assert_eq!(hour.sum(start, at(10_001)), 8);
    }

    #[test]
    fn what_the_sums_are_of_is_never_more_than_an_hour() {
        let start = time::now();
        let covered = |minutes: u64| covered(start, start + Duration::from_secs(60 * minutes));
        assert_eq!(covered(1), Duration::from_secs(60));
        assert_eq!(covered(59), Duration::from_secs(59 * 60));
        assert_eq!(covered(60), Duration::from_secs(55 * 60));
        assert_eq!(covered(64), Duration::from_secs(59 * 60));
        assert_eq!(covered(1_000), Duration::from_secs(55 * 60));
    }
}
