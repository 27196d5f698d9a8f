//! A token bucket: a limit in any window, with a burst on top, and debts that are paid first.
//!
//! Counts in units × nanoseconds of the window, so nothing is ever rounded in anybody's
//! favour. Asks no clock. Always true: the level is at most the burst, and the debt at most
//! what one window brings in.

use std::time::{Duration, Instant};

/// So many units in each window, a part of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    limit: u64,
    per: Duration,
    burst: u64,
}

/// Why a rate is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// Nothing would ever be admitted, or nothing ever refused.
    #[error("{0} is no limit: write a number from 1 to 1000000000000")]
    Limit(u64),
    /// The window is too short to be kept, or longer than anybody counts.
    #[error("a window must last from 100ms to 31days")]
    Window,
    /// Not even one unit could be taken at once.
    #[error("a burst of {0} is not possible: write a number from 1 to 1000000000000")]
    Burst(u64),
}

impl Rate {
    const MOST: u64 = 1_000_000_000_000;
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

    /// `limit` units in each window of `per`, at most `burst` of them at once.
    ///
    /// # Errors
    /// [`RateError`], when one of them cannot be meant.
    pub fn new(limit: u64, per: Duration, burst: u64) -> Result<Self, RateError> {
        if !(1..=Self::MOST).contains(&limit) {
            return Err(RateError::Limit(limit));
        }
        if !(Self::SHORTEST..=Self::LONGEST).contains(&per) {
            return Err(RateError::Window);
        }
        if !(1..=Self::MOST).contains(&burst) {
            return Err(RateError::Burst(burst));
        }
        Ok(Self { limit, per, burst })
    }

    /// Units in each window.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a window is.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// Units that may go at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }
}

/// What is left of a rate.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// Units that come in for each `window` nanoseconds; 0: none ever do.
    gain: u64,
    window: u64,
    capacity: u64,
    /// In units × `window`; below zero is a debt.
    level: i128,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `rate`.
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self::holding(rate.burst, rate.burst, rate.limit, rate.per, now)
    }

    /// A bucket of `capacity` with `units` in it that gains `gain` in each window of `per`.
    pub(super) fn holding(
        units: u64,
        capacity: u64,
        gain: u64,
        per: Duration,
        now: Instant,
    ) -> Self {
        let window = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX).max(1);
        let level = i128::from(units.min(capacity)) * i128::from(window);
        Self { gain, window, capacity, level, at: now }
    }

    /// How long until `amount` may be taken. What is larger than the bucket may be taken when
    /// the bucket is full, on debt. `None`: never.
    pub(super) fn wait(&mut self, amount: u64, now: Instant) -> Option<Duration> {
        if amount == 0 {
            return Some(Duration::ZERO);
        }
        self.refill(now);
        self.until(self.scaled(amount.min(self.capacity)))
    }

    /// Takes `amount`, whatever is there.
    pub(super) fn take(&mut self, amount: u64) {
        self.level = (self.level - self.scaled(amount)).max(-self.deepest());
    }

    /// Corrects what was taken as `reserved` to what was really `used`.
    pub(super) fn settle(&mut self, reserved: u64, used: u64) {
        let back = self.scaled(reserved) - self.scaled(used);
        self.level = (self.level + back).clamp(-self.deepest(), self.scaled(self.capacity));
    }

    /// Whole units that could be taken now.
    pub(super) fn remaining(&mut self, now: Instant) -> u64 {
        self.refill(now);
        u64::try_from(self.level / i128::from(self.window)).unwrap_or(0)
    }

    /// How long until it is full again, if nothing is taken. `None`: never.
    pub(super) fn until_full(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        self.until(self.scaled(self.capacity))
    }

    fn scaled(&self, units: u64) -> i128 {
        i128::from(units) * i128::from(self.window)
    }

    /// A debt beyond one window's gain is forgiven: no answer may close a service for longer.
    fn deepest(&self) -> i128 {
        self.scaled(self.gain.max(self.capacity))
    }

    fn until(&self, wanted: i128) -> Option<Duration> {
        let missing = wanted - self.level;
        if missing <= 0 {
            return Some(Duration::ZERO);
        }
        let gain = i128::from(self.gain);
        // Rounded up: a nanosecond too early would be refused again.
        let nanos = (missing + gain - 1).checked_div(gain)?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let elapsed = i128::from(u64::try_from(elapsed).unwrap_or(u64::MAX));
        let gained = self.level + elapsed * i128::from(self.gain);
        self.level = gained.min(self.scaled(self.capacity));
        self.at = self.at.max(now);
    }
}
