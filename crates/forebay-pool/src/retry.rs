//! The retry budget of one class: retries may cost a tenth of what first tries cost.
//!
//! Without one, a destination that fails half the time gets up to twice the work, and one
//! that fails entirely as much as its callers have patience for ("Handling Overload", Google
//! SRE book; the budget's form is Finagle's `RetryBudget`). Units are connection time, so a
//! retry of something expensive needs many cheap first tries.
//!
//! Within any ten seconds retries cost at most a tenth of the first tries of those and the
//! second before, and besides ten of them are free, so that a class with little to do can
//! retry at all. A request tries an operation three times at the most. Bounded memory:
//! [`REMEMBERED`] failures, in a class that had one.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::ask::Attempt;
use crate::operation::Operation;
use crate::request::Request;
use crate::window::Window;

/// First tries pay for a tenth of their cost in retries.
const SHARE: u64 = 10;
/// Retries within the window that need no budget: one a second.
const FLOOR: u64 = 10;
/// Tries of one operation by one request.
const TRIES: u8 = 3;
/// A failure is remembered so long.
const MEMORY: Duration = Duration::from_secs(30);
/// Failures remembered.
const REMEMBERED: usize = 8_192;
/// Those that compete for the same place: the oldest gives way.
const WAYS: usize = 4;

/// May it be tried?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    FirstTry,
    /// A retry, and the budget has paid for it.
    Retry,
    TooMany(Excess),
}

/// Of what there is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Retries of this class; in a while there may be budget again.
    Retries,
    /// Tries of this operation by this request; another would not help.
    Tries,
}

/// What was said so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) first_tries: u64,
    pub(crate) retries: u64,
    /// Retries beyond the budget.
    pub(crate) over_budget: u64,
    /// Tries beyond the third.
    pub(crate) over_tries: u64,
}

/// A failed try. 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Failure {
    fingerprint: u64,
    /// Tenths of a second since the beginning.
    at: u32,
    /// Failed so often; 0: no failure.
    tries: u8,
}

/// What is spent.
const FIRST: usize = 0;
const AGAIN: usize = 1;
const FREE: usize = 2;

const NONE: Failure = Failure { fingerprint: 0, at: 0, tries: 0 };

#[derive(Debug, Clone)]
pub(crate) struct Retries {
    /// Of [`FIRST`] tries and [`AGAIN`], microseconds; of [`FREE`] retries, their number.
    spent: Window<3>,
    began: Instant,
    last_failure: Option<Instant>,
    /// Empty before the first failure.
    failures: Vec<Failure>,
    /// Names come from clients: a seed keeps them from choosing who collides.
    seed: RandomState,
    counted: Counted,
}

impl Retries {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            spent: Window::new(now),
            began: now,
            last_failure: None,
            failures: Vec::new(),
            seed: RandomState::new(),
            counted: Counted::default(),
        }
    }

    /// May `operation` of `request` be tried? A first try pays in, a retry is paid for, with
    /// its `cost` (unknown costs neither pay nor can be paid, but by the free retries). A
    /// claim to be the first does not hide a failure that was seen; without request or
    /// operation only the claim counts.
    #[inline]
    pub(crate) fn verdict(
        &mut self,
        who: Option<(&Request, &Operation)>,
        attempt: Attempt,
        cost: Option<Duration>,
        now: Instant,
    ) -> Verdict {
        let tried = self.tried(who, now);
        if tried >= TRIES {
            self.counted.over_tries += 1;
            return Verdict::TooMany(Excess::Tries);
        }
        let cost = cost.map(|cost| u64::try_from(cost.as_micros()).unwrap_or(u64::MAX / SHARE));
        if tried == 0 && attempt != Attempt::Retry {
            self.counted.first_tries += 1;
            self.spent.add(FIRST, cost.unwrap_or(0), now);
            return Verdict::FirstTry;
        }
        let [paid_in, paid_out, free] = self.spent.sums(now);
        let affordable = |cost: &u64| paid_out.saturating_add(*cost) <= paid_in / SHARE;
        if let Some(cost) = cost.filter(affordable) {
            self.spent.add(AGAIN, cost, now);
        } else if free < FLOOR {
            self.spent.add(FREE, 1, now);
        } else {
            self.counted.over_budget += 1;
            return Verdict::TooMany(Excess::Retries);
        }
        self.counted.retries += 1;
        Verdict::Retry
    }

    /// A try failed: within half a minute the next one of the same is a retry.
    pub(crate) fn failed(&mut self, request: &Request, operation: &Operation, now: Instant) {
        if self.failures.is_empty() {
            self.failures = vec![NONE; REMEMBERED];
        }
        let fingerprint = self.fingerprint(request, operation);
        let at = self.tenths(now);
        self.last_failure = Some(now);
        let tries = match self.remembered(fingerprint, now) {
            Some(failure) => {
                failure.at = at;
                failure.tries = failure.tries.saturating_add(1);
                return;
            }
            None => 1,
        };
        let oldest = |failure: &&mut Failure| (failure.tries > 0, failure.at);
        if let Some(place) = self.ways(fingerprint).iter_mut().min_by_key(oldest) {
            *place = Failure { fingerprint, at, tries };
        }
    }

    /// A try did not fail: the next one of the same is something new.
    pub(crate) fn succeeded(&mut self, request: &Request, operation: &Operation, now: Instant) {
        if self.knows_failures(now) {
            let fingerprint = self.fingerprint(request, operation);
            if let Some(failure) = self.remembered(fingerprint, now) {
                *failure = NONE;
            }
        }
    }

    /// Did no try ever fail?
    pub(crate) fn is_untroubled(&self) -> bool {
        self.last_failure.is_none()
    }

    /// What was said so far.
    pub(crate) fn counted(&self) -> Counted {
        self.counted
    }

    /// How often it failed within half a minute. Where nothing fails, nothing is hashed.
    fn tried(&mut self, who: Option<(&Request, &Operation)>, now: Instant) -> u8 {
        let Some((request, operation)) = who.filter(|_| self.knows_failures(now)) else { return 0 };
        let fingerprint = self.fingerprint(request, operation);
        self.remembered(fingerprint, now).map_or(0, |failure| failure.tries)
    }

    fn knows_failures(&self, now: Instant) -> bool {
        self.last_failure.is_some_and(|at| now < at + MEMORY)
    }

    fn fingerprint(&self, request: &Request, operation: &Operation) -> u64 {
        self.seed.hash_one((request, operation))
    }

    fn remembered(&mut self, fingerprint: u64, now: Instant) -> Option<&mut Failure> {
        let oldest = self.tenths(now).saturating_sub(tenths(MEMORY));
        let same = |failure: &&mut Failure| {
            failure.tries > 0 && failure.fingerprint == fingerprint && failure.at >= oldest
        };
        self.ways(fingerprint).iter_mut().find(same)
    }

    /// The places where it may be.
    fn ways(&mut self, fingerprint: u64) -> &mut [Failure] {
        let sets = u64::try_from(REMEMBERED / WAYS).unwrap_or(1);
        let first = usize::try_from(fingerprint % sets).unwrap_or(0) * WAYS;
        self.failures.get_mut(first..first + WAYS).unwrap_or_default()
    }

    fn tenths(&self, now: Instant) -> u32 {
        tenths(now.saturating_duration_since(self.began))
    }
}

fn tenths(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
