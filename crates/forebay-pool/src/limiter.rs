//! The lock and the clock of rate limits: what many callers share of one destination's.
//!
//! Decides nothing: the book does. Always true: a reservation is settled once, when it is
//! dropped, whatever became of its call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_seam::random::{self, Dice};
use forebay_seam::sync::Mutex;
use forebay_seam::time;

use crate::mode::Mode;
use crate::rate::book::{Book, Entry};
use crate::rate::{
    Account, Amounts, AnnouncedSnapshot, Announcement, Cause, LimitSnapshot, RateSettings,
    RateSnapshot, Refused, RefusedSnapshot, Scope, Standing,
};

/// Those who are told to come back come back at different times: the wait and up to a
/// quarter of it.
const SPREAD: f64 = 0.25;

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
