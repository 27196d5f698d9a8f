//! Rate limits of one destination: requests, and units such as tokens, for the destination as
//! a whole and for each tenant.
//!
//! What a call will use is reserved before it goes out and settled when it is known
//! ([`Reservation`]). Who would exceed a limit is refused at once and told when to come back;
//! nobody sleeps here, because a sleeping caller holds memory and a socket, and its client's
//! own deadline runs on unseen. What the service itself announces counts like a limit until
//! its reset. The `bucket` has the arithmetic, the `book` the accounts; this is their lock
//! and their clock.
//!
//! Always true: over any window of a limit, no more is admitted than the limit and the burst
//! (one call that alone is larger than the burst waits for a full bucket and goes on debt);
//! without calls under way, nothing is reserved.

mod book;
mod bucket;
mod picture;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_seam::random::{self, Dice};
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use serde::Serialize;

use crate::mode::Mode;
use book::{Book, Entry};
pub use bucket::{Rate, RateError};
pub use picture::{AnnouncedSnapshot, LimitSnapshot, RateSnapshot, RefusedSnapshot};

/// Those who are told to come back come back at different times: the wait and up to a
/// quarter of it.
const SPREAD: f64 = 0.25;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Calls.
    Requests,
    /// What calls use up: tokens of a language model.
    Tokens,
}

impl Unit {
    const ALL: [Self; 2] = [Self::Requests, Self::Tokens];

    fn place(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Tokens => 1,
        }
    }

    /// Its name in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What one call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Calls.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

impl Amounts {
    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}

/// The limits of one account. `None`: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls in each window.
    pub requests: Option<Rate>,
    /// Tokens in each window.
    pub tokens: Option<Rate>,
}

/// The limits of a destination.
#[derive(Debug, Clone, Default)]
pub struct RateSettings {
    /// Whether they act.
    pub mode: Mode,
    /// For everybody together.
    pub whole: Limits,
    /// For each tenant.
    pub each_tenant: Limits,
    /// For single tenants; what one does not say is as for each.
    pub tenants: HashMap<Arc<str>, Limits>,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everybody's together.
    Destination,
    /// The tenant's own.
    Tenant,
}

impl Scope {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Tenant => "tenant",
        }
    }
}

/// With whom the service keeps count: whoever its credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// One credential for everybody.
    Destination,
    /// The tenant's own.
    Tenant(Arc<str>),
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A limit of ours.
    Limit(Unit),
    /// What the service said is left.
    Announced(Unit),
    /// The service asked to be left alone for a while.
    Rests,
}

impl Cause {
    const ALL: [Self; 5] = [
        Self::Limit(Unit::Requests),
        Self::Limit(Unit::Tokens),
        Self::Announced(Unit::Requests),
        Self::Announced(Unit::Tokens),
        Self::Rests,
    ];

    /// Its name in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Limit(Unit::Requests) => "requests",
            Self::Limit(Unit::Tokens) => "tokens",
            Self::Announced(Unit::Requests) => "announced-requests",
            Self::Announced(Unit::Tokens) => "announced-tokens",
            Self::Rests => "rests",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(unit) => write!(f, "the limit of {} is reached", unit.as_str()),
            Self::Announced(unit) => {
                write!(f, "the service announced that its {} are used up", unit.as_str())
            }
            Self::Rests => f.write_str("the service asked for a rest"),
        }
    }
}

/// How what a service announces comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// Bit by bit until the reset, as OpenAI and Anthropic document it.
    Gradual,
    /// All of it at the reset.
    AtOnce,
}

/// What a service says is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Of what.
    pub unit: Unit,
    /// How much there is when nothing is used; `None` where it does not say.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: u64,
    /// When there is all of it again, from now.
    pub reset: Duration,
    /// How it comes back.
    pub refill: Refill,
}

/// A limit, and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub scope: Scope,
    /// Of what.
    pub unit: Unit,
    /// How much in which window.
    pub rate: Rate,
    /// How much could be taken now.
    pub remaining: u64,
    /// When the burst is full again.
    pub reset: Duration,
    /// What is reserved by calls under way.
    pub reserved: u64,
}

/// No: come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When it would be admitted, if nobody else came before.
    pub retry_after: Duration,
    /// Whose limit it is.
    pub scope: Scope,
    /// What stands in the way.
    pub cause: Cause,
}

/// The answer to a call that wants to go out.
#[derive(Debug)]
#[must_use = "a reservation dropped at once gives everything back"]
pub enum Verdict {
    /// It may.
    Admit(Reservation),
    /// It may not.
    Refuse(Refused),
}

/// The limits of one destination, shared by all who call it.
pub struct RateLimits {
    mode: Mode,
    state: Mutex<State>,
}

struct State {
    book: Book,
    dice: Dice,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    admitted: u64,
    tokens_used: u64,
    /// By scope, then by cause.
    refused: [[u64; Cause::ALL.len()]; 2],
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl RateLimits {
    /// Limits as `settings` say, with everything left.
    pub fn new(settings: RateSettings) -> Arc<Self> {
        let mode = settings.mode;
        let book = Book::new(settings, time::now());
        let dice = Dice::new(random::seed());
        let state = State { book, dice, tally: Tally::default() };
        Arc::new(Self { mode, state: Mutex::new(state) })
    }

    /// Whether they act.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Reserves `amounts` for a call of `tenant`. Never waits. Under [`Mode::Observe`] a call
    /// that would be refused is counted and admitted, and takes nothing from the limits: so
    /// it would have been.
    pub fn reserve(self: &Arc<Self>, tenant: &Arc<str>, amounts: Amounts) -> Verdict {
        if self.mode == Mode::Off {
            return Verdict::Admit(self.reservation(None));
        }
        let mut state = self.state.lock();
        match state.book.reserve(tenant, amounts, time::now()) {
            Ok(entry) => {
                state.tally.admitted += 1;
                Verdict::Admit(self.reservation(Some(entry)))
            }
            Err(refused) => {
                state.tally.refuse(refused);
                if self.mode == Mode::Observe {
                    return Verdict::Admit(self.reservation(None));
                }
                let spread = 1.0 + SPREAD * state.dice.unit();
                let retry_after = refused.retry_after.mul_f64(spread);
                Verdict::Refuse(Refused { retry_after, ..refused })
            }
        }
    }

    fn reservation(self: &Arc<Self>, entry: Option<Entry>) -> Reservation {
        Reservation { limits: Arc::clone(self), entry, spent: Spent::Unsent }
    }

    /// The service said what `account` has left. The newest word counts, until its reset or
    /// ten minutes, whichever comes first; what was reserved before is thought to be in it.
    pub fn announced(&self, account: &Account, said: Announcement) {
        if self.mode != Mode::Off {
            self.state.lock().book.announce(account, said, time::now());
        }
    }

    /// The service wants no calls of `account` for `rest`: ten minutes at the most are heard.
    pub fn rest(&self, account: &Account, rest: Duration) {
        if self.mode != Mode::Off {
            self.state.lock().book.rest(account, rest, time::now());
        }
    }

    /// What the limits that count for `tenant` have left.
    pub fn standings(&self, tenant: &Arc<str>) -> Vec<Standing> {
        self.state.lock().book.standings(Some(tenant), time::now())
    }

    /// One picture.
    pub fn snapshot(&self) -> RateSnapshot {
        let now = time::now();
        let mut state = self.state.lock();
        let standings = state.book.standings(None, now);
        let (announced, rests) = state.book.announced(now);
        let (tenants, tenants_limited) = state.book.tenants(now);
        let limits = standings.into_iter().map(|standing| LimitSnapshot {
            unit: standing.unit,
            limit: standing.rate.limit(),
            per: standing.rate.per().as_secs_f64(),
            remaining: standing.remaining,
            reserved: standing.reserved,
        });
        let announced = announced.into_iter();
        RateSnapshot {
            mode: self.mode,
            admitted: state.tally.admitted,
            refused: state.tally.refusals(),
            tokens_used: state.tally.tokens_used,
            limits: limits.collect(),
            announced: announced.map(|(unit, left)| AnnouncedSnapshot { unit, left }).collect(),
            rests: rests.as_secs_f64(),
            tenants: u32::try_from(tenants).unwrap_or(u32::MAX),
            tenants_limited: u32::try_from(tenants_limited).unwrap_or(u32::MAX),
        }
    }
}

impl Tally {
    fn refuse(&mut self, refused: Refused) {
        let cause = Cause::ALL.iter().position(|cause| *cause == refused.cause);
        let row = match refused.scope {
            Scope::Destination => &mut self.refused[0],
            Scope::Tenant => &mut self.refused[1],
        };
        if let Some(count) = cause.and_then(|place| row.get_mut(place)) {
            *count += 1;
        }
    }

    fn refusals(&self) -> Vec<RefusedSnapshot> {
        let rows = [Scope::Destination, Scope::Tenant].into_iter().zip(&self.refused);
        rows.flat_map(|(scope, row)| {
            Cause::ALL.iter().zip(row).map(move |(cause, count)| RefusedSnapshot {
                scope,
                cause: cause.code(),
                count: *count,
            })
        })
        .filter(|refused| refused.count > 0)
        .collect()
    }
}

/// What is known of what a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    /// It never went out.
    Unsent,
    /// It went out; at least so many tokens were seen to be used.
    Sent { seen: u64 },
    /// The answer said how many.
    Known { tokens: u64 },
}

/// What a call may use, until it is known what it did.
///
/// # Cancel safety
/// Dropped at any point it settles itself: a call that was not sent gets everything back; one
/// whose answer said what it used pays that; one that broke off in between pays what was
/// reserved, or what was already seen if that is more, because the service goes on with what
/// it was sent, and bills it.
#[derive(Debug)]
#[must_use = "dropped at once it gives everything back"]
pub struct Reservation {
    limits: Arc<RateLimits>,
    entry: Option<Entry>,
    spent: Spent,
}

impl Reservation {
    /// From here on the call counts, whatever becomes of it.
    pub fn sent(&mut self) {
        if self.spent == Spent::Unsent {
            self.spent = Spent::Sent { seen: 0 };
        }
    }

    /// It came back untouched: nothing of it was sent after all.
    pub fn came_back(&mut self) {
        self.spent = Spent::Unsent;
    }

    /// The answer so far says that `tokens` were used, and is not over.
    pub fn at_least(&mut self, tokens: u64) {
        self.spent = match self.spent {
            Spent::Unsent | Spent::Known { .. } => self.spent,
            Spent::Sent { seen } => Spent::Sent { seen: seen.max(tokens) },
        };
    }

    /// The answer is over, and used `tokens`.
    pub fn used(&mut self, tokens: u64) {
        self.spent = Spent::Known { tokens };
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let reserved = entry.amounts;
        let used = match self.spent {
            Spent::Unsent => Amounts::default(),
            Spent::Sent { seen } => Amounts { tokens: reserved.tokens.max(seen), ..reserved },
            Spent::Known { tokens } => Amounts { tokens, ..reserved },
        };
        let mut state = self.limits.state.lock();
        state.tally.tokens_used = state.tally.tokens_used.saturating_add(used.tokens);
        state.book.settle(&entry, used);
    }
}
