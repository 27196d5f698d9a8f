//! When to open one more connection: paced, few at a time, and backing off from a
//! destination that does not answer, so that the pool itself never causes a storm.
//!
//! Asks no clock. Always true: at most `concurrent` connects are in flight, and opens in any
//! interval `t` are at most `rate · t + concurrent`.

use std::time::{Duration, Instant};

use forebay_seam::random::Dice;

use crate::connect::{ConnectFailure, FailureKind};
use crate::settings::PoolSettings;
use crate::stats::Health;

/// Failed connects in a row after which waiting is pointless: callers are told at once.
const BREAKER: u32 = 5;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(10);
const ROUNDING: Duration = Duration::from_micros(1);
/// A busy server is asked again after this.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// May one more connection be opened?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Now,
    /// Not before this moment.
    At(Instant),
    /// When one that is in flight has ended.
    WhenOneEnds,
}

#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) concurrent: u32,
    pub(crate) rate: f64,
    in_flight: u32,
    tokens: f64,
    refilled: Instant,
    failures: u32,
    not_before: Option<Instant>,
    health: Health,
    last_failure: Option<ConnectFailure>,
    /// How long connecting takes, smoothed, seconds.
    connect_time: Option<f64>,
}

impl Opener {
    pub(crate) fn new(settings: &PoolSettings, budget: u32, now: Instant) -> Self {
        let mut opener = Self {
            concurrent: 1,
            rate: 1.0,
            in_flight: 0,
            tokens: 0.0,
            refilled: now,
            failures: 0,
            not_before: None,
            health: Health::Unknown,
            last_failure: None,
            connect_time: None,
        };
        opener.resize(settings, budget);
        opener.tokens = f64::from(opener.concurrent);
        opener
    }

    /// The pace for a budget of another size.
    pub(crate) fn resize(&mut self, settings: &PoolSettings, budget: u32) {
        self.concurrent = settings.concurrent_opens.unwrap_or((budget / 8).clamp(1, 8)).max(1);
        self.rate = f64::from(settings.opens_per_second.unwrap_or((budget / 2).max(4)).max(1));
    }

    pub(crate) fn pace(&mut self, now: Instant) -> Pace {
        if let Some(at) = self.not_before
            && at > now
        {
            return Pace::At(at);
        }
        // A destination that failed is tried by one connect at a time until it answers.
        let concurrent = if self.failures > 0 { 1 } else { self.concurrent };
        if self.in_flight >= concurrent {
            return Pace::WhenOneEnds;
        }
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(f64::from(self.concurrent));
        self.refilled = now;
        if self.tokens >= 1.0 {
            return Pace::Now;
        }
        // A little later than the sum says: a timer that rings too early rings twice.
        let missing = Duration::from_secs_f64((1.0 - self.tokens) / self.rate) + ROUNDING;
        Pace::At(now + missing.max(Duration::from_millis(1)))
    }

    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
        self.tokens -= 1.0;
    }

    pub(crate) fn succeeded(&mut self, took: Duration) {
        self.in_flight -= 1;
        self.failures = 0;
        self.not_before = None;
        self.health = Health::Up;
        self.last_failure = None;
        let took = took.as_secs_f64();
        self.connect_time = Some(self.connect_time.map_or(took, |mean| mean + 0.2 * (took - mean)));
    }

    /// Full jitter: `U(0, min(10 s, 100 ms · 2ⁿ))` ("Exponential Backoff And Jitter", AWS
    /// Architecture Blog, 2015).
    pub(crate) fn failed(&mut self, failure: &ConnectFailure, now: Instant, dice: &mut Dice) {
        self.in_flight -= 1;
        match failure.kind {
            FailureKind::Unreachable => {
                self.failures += 1;
                let most = BACKOFF_BASE
                    .saturating_mul(1 << self.failures.saturating_sub(1).min(10))
                    .min(BACKOFF_MOST);
                let pause = most.mul_f64(dice.unit()).max(Duration::from_millis(10));
                self.not_before = Some(now + pause);
                self.health = Health::Down;
            }
            FailureKind::Busy => {
                self.not_before = Some(now + BUSY_PAUSE.mul_f64(dice.between(0.8..1.2)));
                self.health = Health::Busy;
            }
            FailureKind::Denied => {
                self.failures = 0;
                self.health = Health::Up;
            }
        }
        self.last_failure = Some(failure.clone());
    }

    /// Nobody answered for so long that callers without a connection are told at once,
    /// until the next attempt is due.
    pub(crate) fn is_broken(&self, now: Instant) -> bool {
        self.failures >= BREAKER && self.not_before.is_some_and(|at| at > now)
    }

    /// The failure that callers wait behind, if the destination does not answer.
    pub(crate) fn outage(&self) -> Option<&ConnectFailure> {
        self.last_failure.as_ref().filter(|_| self.failures > 0)
    }

    /// Has it given up, so that its waiters should too?
    pub(crate) fn gave_up(&self) -> bool {
        self.failures >= BREAKER
    }

    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(crate) fn health(&self) -> Health {
        self.health
    }

    pub(crate) fn last_failure(&self) -> Option<&ConnectFailure> {
        self.last_failure.as_ref().filter(|_| self.health != Health::Up)
    }

    /// How long connecting takes, seconds; `None` before the first success.
    pub(crate) fn connect_time(&self) -> Option<f64> {
        self.connect_time
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use forebay_seam::time;

    use super::*;
    use crate::settings::Budget;

    fn opener(budget: u32) -> (Opener, Instant) {
        let now = time::now();
        (Opener::new(&PoolSettings::new("t", Budget::Fixed(budget)), budget, now), now)
    }

    fn refused() -> ConnectFailure {
        ConnectFailure::new(
            FailureKind::Unreachable,
            io::Error::from(io::ErrorKind::ConnectionRefused),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn opens_are_bounded_by_rate_and_by_those_in_flight() {
        let (mut opener, start) = opener(80);
        let mut opened = 0_u32;
        for ms in 0..2_000 {
            let now = start + Duration::from_millis(ms);
            while opener.pace(now) == Pace::Now {
                opener.begin();
                opened += 1;
                assert!(opener.in_flight <= 8);
                opener.succeeded(Duration::from_millis(1));
            }
            let most = 40.0 * f64::from(u32::try_from(ms).unwrap()) / 1000.0 + 8.0;
            assert!(f64::from(opened) <= most + 1e-6, "{opened} opens after {ms} ms");
        }
        assert!(opened > 80, "the pace is a limit, not a stop: {opened}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_one_success_ends_it() {
        let (mut opener, mut now) = opener(80);
        let mut dice = Dice::new(1);
        for n in 1..=8 {
            while let Pace::At(at) = opener.pace(now) {
                now = at;
            }
            opener.begin();
            let alone = opener.pace(now) == Pace::WhenOneEnds;
            assert!(n == 1 || alone, "one at a time while it is down");
            opener.failed(&refused(), now, &mut dice);
            assert_eq!(opener.gave_up(), n >= 5);
            assert!(opener.not_before().unwrap() <= now + BACKOFF_MOST);
        }
        assert!(opener.is_broken(now));
        now += BACKOFF_MOST;
        assert!(!opener.is_broken(now), "the next attempt may be waited for");
        opener.begin();
        opener.succeeded(Duration::from_millis(5));
        assert_eq!(opener.health(), Health::Up);
        assert!(opener.outage().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_not_a_dead_one() {
        let (mut opener, now) = opener(80);
        opener.begin();
        let full = ConnectFailure::new(FailureKind::Busy, io::Error::other("53300"));
        opener.failed(&full, now, &mut Dice::new(1));
        assert_eq!(opener.health(), Health::Busy);
        assert!(opener.outage().is_none() && !opener.gave_up());
        assert!(matches!(opener.pace(now), Pace::At(_)));
    }
}
