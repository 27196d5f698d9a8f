//! A token and its life: fetched once for all who wait, renewed before it ends, dropped when
//! the service no longer takes it.
//!
//! One [`TokenSource`] for each (issuer, client, secret, scopes, audience, subject). Always
//! true: at most one exchange is under way (a refresh token that is used twice may end its
//! grant), and it goes on when those who wait for it leave; a failure is told to all who wait
//! and to all who come within its rest, so that a broken issuer is not hammered. Asks no
//! wall clock: what an issuer says of a life counts from the moment it was asked.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use forebay_seam::random::{self, Dice};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::HeaderValue;
use tokio::sync::watch;

use crate::meter::Meter;
use crate::oauth::{ExchangeError, Granted, Issuer, SharedError};

/// The rest after the first failure; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Time between two tokens dropped because the service refused them: a service that refuses
/// whatever it is sent must not turn every call into an exchange.
const BETWEEN_DROPS: Duration = Duration::from_secs(5);
/// What of a rest is really rested: many instances do not come back at once.
const JITTER: std::ops::Range<f64> = 0.75..1.0;
/// When of a token's life it is renewed, and until when it is sent: one that ends on its way
/// to the service is no use.
const RENEWED_AT: f64 = 0.8;
const SENT_UNTIL: f64 = 0.95;

/// A token as it is sent.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) authorization: HeaderValue,
    serial: u64,
}

/// Why there is no token, and from when on it is worth asking again.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: SharedError,
    pub(crate) retry_at: Instant,
}

type Outcome = Result<Token, Failure>;
type Outlook = watch::Receiver<Option<Outcome>>;

/// `Empty → Exchanging → Held → Empty`, or `Exchanging → Resting → Exchanging`. A token that
/// is renewed in time stays `Held` throughout.
enum Phase {
    Empty,
    Exchanging {
        outcome: Outlook,
    },
    Held {
        token: Token,
        until: Instant,
        use_: Use,
        /// The outcome of its renewal, while that is under way.
        renewal: Option<Outlook>,
    },
    Resting {
        failure: Failure,
        failures: u32,
    },
}

/// Whether anybody took the token since it came.
#[derive(PartialEq, Eq)]
enum Use {
    Unused,
    Used,
}

struct Book {
    phase: Phase,
    /// The keeper in charge; an older one has nothing to say any more.
    keeper: u64,
    /// Tokens received so far.
    serial: u64,
    dropped_at: Option<Instant>,
    dice: Dice,
}

/// Whether somebody will tell the outcome: a task that died will not.
fn is_under_way(outcome: &Outlook) -> bool {
    outcome.has_changed().is_ok()
}

/// Where a destination's tokens come from.
pub(crate) struct TokenSource {
    issuer: Arc<Issuer>,
    spawner: Spawner,
    book: Mutex<Book>,
}

impl TokenSource {
    /// Fetches from `issuer` when first asked.
    pub(crate) fn new(issuer: Issuer) -> Self {
        let spawner = issuer.spawner.clone();
        let dice = Dice::new(random::seed());
        let book = Book { phase: Phase::Empty, keeper: 0, serial: 0, dropped_at: None, dice };
        Self { issuer: Arc::new(issuer), spawner, book: Mutex::new(book) }
    }

    /// A token that is good now: the one at hand, or the outcome of the exchange on its way,
    /// started if there is none. `meter` counts it.
    ///
    /// # Cancel safety
    /// Dropped, the exchange goes on for the others.
    pub(crate) async fn token(self: &Arc<Self>, meter: &Arc<Meter>) -> Outcome {
        let mut outcome = match self.at_hand(meter) {
            Ok(known) => return known,
            Err(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            // The runtime is ending, and the exchange with it.
            Ok(None) | Err(_) => Err(Failure {
                error: Arc::new(ExchangeError::TimedOut),
                retry_at: time::now() + FIRST_REST,
            }),
        }
    }

    /// What is known now, or where the outcome will be told.
    fn at_hand(self: &Arc<Self>, meter: &Arc<Meter>) -> Result<Outcome, Outlook> {
        let now = time::now();
        let mut book = self.book.lock();
        let failures = match &mut book.phase {
            Phase::Held { token, until, use_, .. } if now < *until => {
                *use_ = Use::Used;
                return Ok(Ok(token.clone()));
            }
            Phase::Held { renewal: Some(outcome), .. } | Phase::Exchanging { outcome }
                if is_under_way(outcome) =>
            {
                return Err(outcome.clone());
            }
            Phase::Resting { failure, .. } if now < failure.retry_at => {
                return Ok(Err(failure.clone()));
            }
            Phase::Resting { failures, .. } => *failures,
            Phase::Empty | Phase::Held { .. } | Phase::Exchanging { .. } => 0,
        };
        let (tell, outcome) = watch::channel(None);
        book.phase = Phase::Exchanging { outcome: outcome.clone() };
        book.keeper += 1;
        let keeper = Keeper {
            source: Arc::downgrade(self),
            issuer: Arc::clone(&self.issuer),
            meter: Arc::clone(meter),
            number: book.keeper,
        };
        self.spawner.spawn(keeper.keep(tell, failures));
        Err(outcome)
    }

    /// The service refused `token`. Says whether another one may be had.
    pub(crate) fn refused(&self, token: &Token) -> bool {
        let now = time::now();
        let mut book = self.book.lock();
        let too_soon = book.dropped_at.is_some_and(|at| now < at + BETWEEN_DROPS);
        match &book.phase {
            Phase::Held { token: held, renewal, .. } if held.serial == token.serial => {
                if too_soon {
                    return false;
                }
                book.phase = match renewal.clone() {
                    Some(outcome) => Phase::Exchanging { outcome },
                    None => Phase::Empty,
                };
                book.dropped_at = Some(now);
                true
            }
            // Somebody else dropped it before us.
            Phase::Held { .. } | Phase::Empty | Phase::Exchanging { .. } => true,
            Phase::Resting { .. } => false,
        }
    }

    /// Whether a token is at hand.
    pub(crate) fn holds_one(&self) -> bool {
        let now = time::now();
        matches!(&self.book.lock().phase, Phase::Held { until, .. } if now < *until)
    }
}

/// The task that fetches a token and renews it as long as somebody uses it.
struct Keeper {
    source: Weak<TokenSource>,
    issuer: Arc<Issuer>,
    meter: Arc<Meter>,
    number: u64,
}

impl Keeper {
    async fn keep(self, tell: watch::Sender<Option<Outcome>>, failures: u32) {
        let asked = time::now();
        let (outcome, mut renew_at) = match self.exchange().await {
            Ok(granted) => {
                let renew_at = asked + granted.life.mul_f64(RENEWED_AT);
                match self.hold(granted, asked) {
                    Some(token) => (Ok(token), Some(renew_at)),
                    None => return,
                }
            }
            Err(error) => (Err(self.rest(error, failures)), None),
        };
        // Nobody waits any more: that is no error, the book has it.
        drop(tell.send(Some(outcome)));
        while let Some(at) = renew_at {
            time::sleep_until(at).await;
            renew_at = self.renew().await;
        }
    }

    async fn exchange(&self) -> Result<Granted, SharedError> {
        let outcome = self.issuer.exchange().await;
        match &outcome {
            Ok(_) => self.meter.token_exchanged(),
            Err(error) => {
                self.meter.token_failed();
                let issuer = &self.issuer.terms.target.host;
                let client = &self.issuer.terms.client_id;
                tracing::warn!(issuer, client, %error, "no token");
            }
        }
        outcome.map_err(Arc::new)
    }

    /// Renews the token if it was used; says when to renew the next one.
    async fn renew(&self) -> Option<Instant> {
        let (tell, outcome) = watch::channel(None);
        let until = self.source.upgrade()?.begin_renewal(self.number, outcome)?;
        let asked = time::now();
        let (outcome, next) = match self.exchange().await {
            Ok(granted) => {
                let renew_at = asked + granted.life.mul_f64(RENEWED_AT);
                (Ok(self.hold(granted, asked)?), Some(renew_at))
            }
            Err(error) => self.keep_the_old_one(error, until)?,
        };
        // Those whose token ended meanwhile have waited.
        drop(tell.send(Some(outcome)));
        next
    }

    /// The token was not renewed: the old one stays while it is good, and it is tried again a
    /// few times before it ends.
    fn keep_the_old_one(
        &self,
        error: SharedError,
        until: Instant,
    ) -> Option<(Outcome, Option<Instant>)> {
        let now = time::now();
        let source = self.source.upgrade()?;
        let mut book = source.book.lock();
        let is_good = match &mut book.phase {
            Phase::Held { renewal, .. } if now < until => {
                *renewal = None;
                true
            }
            Phase::Held { .. } | Phase::Exchanging { .. } => false,
            Phase::Empty | Phase::Resting { .. } => return None,
        };
        if !is_good {
            drop(book);
            return Some((Err(self.rest(error, 0)), None));
        }
        let wait = error.wait().unwrap_or_default();
        let rest = (until.saturating_duration_since(now) / 4).max(wait);
        let rest = rest.mul_f64(book.dice.between(JITTER));
        let failure = Failure { error, retry_at: now + rest };
        Some((Err(failure), (rest >= FIRST_REST.mul_f64(JITTER.start)).then(|| now + rest)))
    }

    fn hold(&self, granted: Granted, asked: Instant) -> Option<Token> {
        let source = self.source.upgrade()?;
        let mut book = source.book.lock();
        if book.keeper != self.number {
            return None;
        }
        book.serial += 1;
        let token = Token { authorization: granted.authorization, serial: book.serial };
        let until = asked + granted.life.mul_f64(SENT_UNTIL);
        let phase = Phase::Held { token: token.clone(), until, use_: Use::Unused, renewal: None };
        book.phase = phase;
        Some(token)
    }

    fn rest(&self, error: SharedError, failures: u32) -> Failure {
        let rest = FIRST_REST.saturating_mul(1 << failures.min(8)).min(LONGEST_REST);
        let wait = error.wait().unwrap_or_default();
        let Some(source) = self.source.upgrade() else {
            return Failure { error, retry_at: time::now() + rest };
        };
        let mut book = source.book.lock();
        let rest = rest.mul_f64(book.dice.between(JITTER)).max(wait);
        let failure = Failure { error, retry_at: time::now() + rest };
        if book.keeper == self.number {
            let failures = failures.saturating_add(1);
            book.phase = Phase::Resting { failure: failure.clone(), failures };
        }
        failure
    }
}

impl TokenSource {
    /// Keeper `number` renews the token, if it was used and lasts; says until when it does.
    fn begin_renewal(&self, number: u64, outcome: Outlook) -> Option<Instant> {
        let mut book = self.book.lock();
        let keeper = book.keeper;
        match &mut book.phase {
            Phase::Held { until, use_: Use::Used, renewal, .. } if keeper == number => {
                *renewal = Some(outcome);
                Some(*until)
            }
            Phase::Held { .. } | Phase::Empty => None,
            Phase::Exchanging { .. } | Phase::Resting { .. } => None,
        }
    }
}
