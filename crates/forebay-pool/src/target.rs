//! When to open one more connection: paced, few at a time, and backing off from a
//! destination that does not answer, so that the pool itself never causes a storm.
//!
//! Asks no clock. Always true: at most `concurrent` connects are in flight, and opens in any
//! interval `t` are at most `rate · t + burst`; jitter only ever puts an open off. The burst
//! lets a pool that was idle grow as fast as connects in flight allow; after an outage there
//! is none.
//!
//! The breaker of the destination is here too: closed, it lets connects pass at the pace;
//! open, none until its pause is over; half-open, one, whose end decides. After an outage
//! the number in flight doubles with each success, and what may be lent grows in steps.

use std::time::{Duration, Instant};

use forebay_seam::random::Dice;

use crate::class;
use crate::connect::{ConnectFailure, FailureKind};
use crate::settings::PoolSettings;
use crate::stats::Health;

mod record;

use record::Record;

/// Failed connects in a row after which waiting is pointless: callers are told at once.
const BREAKER: u32 = 5;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Who is back is found so soon.
const BACKOFF_MOST: Duration = Duration::from_millis(400);
const ROUNDING: Duration = Duration::from_micros(1);
/// A busy server is asked again after this.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Gaps between opens that follow each other at the pace, as parts of `1 / rate`: pools that
/// were started together do not stay in step.
const JITTER: std::ops::Range<f64> = 0.8..1.2;
/// After an outage so much of the budget, in percent, may be lent until so long after the
/// first connect that succeeded.
const RAMP: [(u8, Duration); 2] = [(25, Duration::from_secs(2)), (50, Duration::from_secs(4))];

/// May one more connection be opened?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Now,
    /// Not before this moment.
    At(Instant),
    /// When one that is in flight has ended.
    WhenOneEnds,
}

/// Where the way back from an outage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// There is none to come back from.
    Whole,
    /// It has given up; the next success begins the way back.
    Due,
    /// On the way back since this first success.
    Since(Instant),
}

#[derive(Debug, Clone)]
pub(crate) struct Opener {
    /// Connects in flight at the most.
    pub(crate) concurrent: u32,
    /// Opens a second at the most, once the burst is spent.
    pub(crate) rate: f64,
    /// Opens that may be saved up: half the budget, unless the rate was set.
    pub(crate) burst: u32,
    /// Connects in flight that are trusted now: halved by a failure, doubled by a success.
    trusted: u32,
    in_flight: u32,
    tokens: f64,
    refilled: Instant,
    /// The jitter of the last open: none before this.
    spaced: Option<Instant>,
    /// Connects that failed in a row; at least [`BREAKER`] while it has given up, and fewer
    /// until then.
    failures: u32,
    /// How long connects fail before it gives up.
    restart_patience: Duration,
    /// It does not give up before.
    patient_until: Option<Instant>,
    record: Record,
    not_before: Option<Instant>,
    recovery: Recovery,
    health: Health,
    last_failure: Option<ConnectFailure>,
    /// How long connecting takes, smoothed, seconds.
    connect_time: Option<f64>,
    /// The same, a second at the most.
    patience: Duration,
}

impl Opener {
    pub(crate) fn new(settings: &PoolSettings, budget: u32, now: Instant) -> Self {
        let mut opener = Self {
            concurrent: 1,
            rate: 1.0,
            burst: 1,
            trusted: u32::MAX,
            in_flight: 0,
            tokens: 0.0,
            refilled: now,
            spaced: None,
            failures: 0,
            restart_patience: Duration::ZERO,
            patient_until: None,
            record: Record::default(),
            not_before: None,
            recovery: Recovery::Whole,
            health: Health::Unknown,
            last_failure: None,
            connect_time: None,
            patience: Duration::ZERO,
        };
        opener.resize(settings, budget, now);
        opener.tokens = f64::from(opener.burst);
        opener
    }

    /// The pace for a budget of another size: `clamp(budget / 8, 1, 8)` in flight and
    /// `max(4, budget / 2)` a second, unless they are set. What was saved up until `now` was at
    /// the pace before.
    pub(crate) fn resize(&mut self, settings: &PoolSettings, budget: u32, now: Instant) {
        self.refill(now);
        self.restart_patience = settings.restart_patience;
        let before = self.concurrent;
        self.concurrent = settings.concurrent_opens.unwrap_or((budget / 8).clamp(1, 8)).max(1);
        self.rate = f64::from(settings.opens_per_second.unwrap_or((budget / 2).max(4)).max(1));
        self.burst = match settings.opens_per_second {
            Some(_) => self.concurrent,
            None => self.concurrent.max(budget / 2),
        };
        if self.trusted >= before {
            self.trusted = self.concurrent;
        }
    }

    /// The destination is another one, of which nothing is known: no failure counts.
    pub(crate) fn start_over(&mut self, now: Instant) {
        self.refill(now);
        self.trusted = u32::MAX;
        self.failures = 0;
        self.patient_until = None;
        self.record = Record::default();
        self.not_before = None;
        self.recovery = Recovery::Whole;
        self.health = Health::Unknown;
        self.last_failure = None;
        self.connect_time = None;
        self.patience = Duration::ZERO;
    }

    /// Everybody comes back at once, to a destination of which nothing is known any more: one
    /// connect at a time, and twice as many after each that succeeds.
    pub(crate) fn begin_slowly(&mut self, now: Instant) {
        self.refill(now);
        (self.trusted, self.tokens) = (1, self.tokens.min(1.0));
        (self.failures, self.not_before, self.record) = (0, None, Record::default());
        self.last_failure = None;
        self.health = Health::Unknown;
    }

    pub(crate) fn pace(&mut self, now: Instant) -> Pace {
        if let Some(at) = self.not_before
            && at > now
        {
            return Pace::At(at);
        }
        // A destination that failed is tried by one connect at a time until it answers.
        let concurrent = if self.failures > 0 { 1 } else { self.trusted.min(self.concurrent) };
        if self.in_flight >= concurrent {
            return Pace::WhenOneEnds;
        }
        self.refill(now);
        let spaced = self.spaced.filter(|at| *at > now);
        if self.tokens >= 1.0 {
            return spaced.map_or(Pace::Now, Pace::At);
        }
        // A little later than the sum says: a timer that rings too early rings twice.
        let missing = Duration::from_secs_f64((1.0 - self.tokens) / self.rate) + ROUNDING;
        let at = now + missing.max(Duration::from_millis(1));
        Pace::At(spaced.map_or(at, |spaced| spaced.max(at)))
    }

    /// What the pace allowed since the last look: asked before the pace changes, too.
    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(f64::from(self.most_saved(now)));
        self.refilled = now;
    }

    /// Opens that may be saved up now.
    fn most_saved(&self, now: Instant) -> u32 {
        let is_whole = self.recovery != Recovery::Due && self.ramp_step(now).is_none();
        if is_whole { self.burst } else { self.concurrent }
    }

    /// One more is being opened. A burst that was saved up is spent at once; what follows at
    /// the pace is spaced with jitter.
    pub(crate) fn begin(&mut self, now: Instant, dice: &mut Dice) {
        self.in_flight += 1;
        self.tokens -= 1.0;
        let gap = Duration::from_secs_f64(dice.between(JITTER) / self.rate);
        self.spaced = (self.tokens < 1.0).then(|| now + gap);
    }

    pub(crate) fn succeeded(&mut self, took: Duration, now: Instant) {
        self.in_flight -= 1;
        self.answered(now);
        self.not_before = None;
        self.health = Health::Up;
        self.last_failure = None;
        if self.recovery == Recovery::Due {
            self.recovery = Recovery::Since(now);
        }
        let took = took.as_secs_f64();
        let mean = self.connect_time.map_or(took, |mean| mean + 0.2 * (took - mean));
        self.connect_time = Some(mean);
        self.patience = Duration::from_secs_f64(mean.min(1.0));
    }

    /// The destination said something: it is there.
    fn answered(&mut self, now: Instant) {
        let was_waited_for = self.patient_until.is_some() && self.failures + 1 >= BREAKER;
        if self.gave_up() || was_waited_for {
            // What came before belongs to the outage, or the restart, that is over.
            self.record = Record::default();
        }
        self.failures = 0;
        self.patient_until = None;
        self.record.succeeded(now);
        self.trusted = self.trusted.saturating_mul(2).min(self.concurrent);
    }

    /// Full jitter: `U(0, min(400 ms, 100 ms · 2ⁿ))` ("Exponential Backoff And Jitter", AWS
    /// Architecture Blog, 2015).
    pub(crate) fn failed(&mut self, failure: &ConnectFailure, now: Instant, dice: &mut Dice) {
        self.in_flight -= 1;
        match failure.kind {
            FailureKind::Unreachable => {
                self.failures = self.failures.saturating_add(1);
                self.record.failed(now);
                let patient_until = *self.patient_until.get_or_insert(now + self.restart_patience);
                if self.failures >= BREAKER {
                    if now < patient_until {
                        self.failures = BREAKER - 1;
                    }
                } else if self.record.is_bad(now) {
                    // It comes and goes.
                    self.failures = BREAKER;
                    self.patient_until = Some(now);
                }
                if self.gave_up() {
                    self.recovery = Recovery::Due;
                }
                self.back_off(now, dice);
            }
            // It will be there before long: nobody gives up, and there is no herd at its return.
            FailureKind::Moving => {
                self.failures = (self.failures + 1).min(BREAKER - 1);
                self.recovery = Recovery::Due;
                self.back_off(now, dice);
            }
            // It is full, which is another thing than away: a pause, and one at a time.
            FailureKind::Busy => {
                self.answered(now);
                self.trusted = 1;
                self.not_before = Some(now + BUSY_PAUSE);
                self.health = Health::Busy;
            }
            // An answer about one identity, which the ledger does not ask again for a while.
            FailureKind::Denied => {
                self.answered(now);
                self.health = Health::Up;
            }
        }
        self.last_failure = Some(failure.clone());
    }

    fn back_off(&mut self, now: Instant, dice: &mut Dice) {
        self.trusted = (self.trusted / 2).max(1);
        let most = BACKOFF_BASE
            .saturating_mul(1 << self.failures.saturating_sub(1).min(10))
            .min(BACKOFF_MOST);
        let pause = most.mul_f64(dice.unit()).max(Duration::from_millis(10));
        self.not_before = Some(now + pause);
        self.health = Health::Down;
    }

    /// Of `budget`, what may be lent now: all of it, but after an outage 25 % at first, 50 %
    /// after 2 s and 100 % after 4 s, so that those who were turned away do not come back as
    /// one herd.
    pub(crate) fn ramp(&self, budget: u32, now: Instant) -> u32 {
        match self.ramp_step(now) {
            Some((percent, _)) => class::percent_of(budget, percent).max(1),
            None => budget,
        }
    }

    /// When [`Self::ramp`] says something else; `None` when all may be lent.
    pub(crate) fn next_ramp(&self, now: Instant) -> Option<Instant> {
        self.ramp_step(now).map(|(_, until)| until)
    }

    fn ramp_step(&self, now: Instant) -> Option<(u8, Instant)> {
        let Recovery::Since(since) = self.recovery else { return None };
        RAMP.into_iter().map(|(percent, after)| (percent, since + after)).find(|(_, at)| *at > now)
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

    /// How long somebody waits at the most for what is lent to come home, before one more is
    /// opened: as long as connecting takes, and a second at the most.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}

#[cfg(test)]
mod tests;
