//! Users that are in no list: their secrets are looked up on the server.
//!
//! Each login asks, together with all others of the same user at that moment, so that a changed
//! password counts at once; what was answered before counts while the server does not answer in
//! time, for at most `cache_ttl`. Connections are our own, opened as the [`Inquirer`] of the
//! configuration, with nothing in them that a client said but the value of `$1`.
//!
//! Always true: at most [`CONNECTIONS`] for each place to ask, at most [`FLIGHTS`] questions
//! under way, and a question that fails is a user that is not there, never another one.

mod connections;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_seam::secret::SecretString;
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time::{self, Instant};
use lru::LruCache;
use tokio::sync::watch;
use zeroize::Zeroize;

#[cfg(doc)]
use connections::CONNECTIONS;
use connections::Connections;
pub(crate) use connections::{Inquirer, Place};

use super::Account;
use super::secret::Secret;
use crate::server::ServerFailure;

/// Questions under way; who comes beyond them is told that the password is wrong.
const FLIGHTS: usize = 512;
/// Users whose answers are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).expect("16384 is not zero");
/// Names that nobody has, and how long that counts.
const ABSENT: NonZeroUsize = NonZeroUsize::new(4_096).expect("4096 is not zero");
const ABSENT_TTL: Duration = Duration::from_secs(1);
/// How long a login waits for the server where an older answer will do, and where not.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_WITHOUT: Duration = Duration::from_secs(5);
/// After a failure nobody asks for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// What a question came to.
#[derive(Clone)]
enum Answer {
    Found(Option<Secret>),
    /// There is no such user.
    Absent,
    /// The server did not answer.
    Failed,
}

type Flight = watch::Receiver<Option<Answer>>;

/// Looks users up in one place.
pub(crate) struct Lookup {
    connections: Arc<Connections>,
    query: String,
    ttl: Duration,
    known: Mutex<Known>,
    md5_seen: AtomicBool,
    scram_seen: AtomicBool,
}

struct Known {
    /// Found, and when.
    found: LruCache<Arc<str>, (Option<Secret>, Instant)>,
    absent: LruCache<Arc<str>, Instant>,
    flights: HashMap<Arc<str>, Flight>,
    /// Nobody asks before.
    paused_until: Option<Instant>,
}

impl Lookup {
    /// Asks `query` at `place`, as `inquirer`.
    pub(crate) fn new(place: Place, inquirer: Inquirer, query: String, ttl: Duration) -> Self {
        let mut found = LruCache::unbounded();
        found.resize(REMEMBERED);
        let mut absent = LruCache::unbounded();
        absent.resize(ABSENT);
        let known = Known { found, absent, flights: HashMap::new(), paused_until: None };
        Self {
            connections: Arc::new(Connections::new(place, inquirer)),
            query,
            ttl,
            known: Mutex::new(known),
            md5_seen: AtomicBool::new(false),
            scram_seen: AtomicBool::new(false),
        }
    }

    /// Were secrets of MD5 seen, and of SCRAM?
    pub(super) fn seen(&self) -> (bool, bool) {
        (self.md5_seen.load(Ordering::Relaxed), self.scram_seen.load(Ordering::Relaxed))
    }

    /// What the server knows of `user`.
    ///
    /// # Cancel safety
    /// Dropped, the question goes on for those who wait with it.
    pub(super) async fn account(self: &Arc<Self>, user: &str) -> Account {
        let (mut flight, older) = match self.board(user) {
            Boarded::Known(account) => return account,
            Boarded::Waits { flight, older } => (flight, older),
        };
        let patience = if older.is_some() { PATIENCE } else { PATIENCE_WITHOUT };
        let landed = time::timeout(patience, flight.wait_for(Option::is_some)).await;
        let answer = landed.ok().and_then(|landed| landed.ok()?.clone());
        match (answer.unwrap_or(Answer::Failed), older) {
            (Answer::Found(secret), _) => Account::Known(secret),
            (Answer::Absent, _) | (Answer::Failed, None) => Account::Unknown,
            (Answer::Failed, Some(secret)) => Account::Known(secret),
        }
    }

    /// Joins the question that is under way for `user`, or begins one.
    fn board(self: &Arc<Self>, user: &str) -> Boarded {
        let now = time::now();
        let mut known = self.known.lock();
        let older = known.found.get(user).filter(|(_, at)| now < *at + self.ttl);
        let older = older.map(|(secret, _)| secret.clone());
        if let Some(flight) = known.flights.get(user) {
            return Boarded::Waits { flight: flight.clone(), older };
        }
        let is_absent = known.absent.get(user).is_some_and(|at| now < *at + ABSENT_TTL);
        let is_paused = known.paused_until.is_some_and(|until| now < until);
        if is_absent || is_paused || known.flights.len() >= FLIGHTS {
            return Boarded::Known(older.map_or(Account::Unknown, Account::Known));
        }
        let (lands, flight) = watch::channel(None);
        let user: Arc<str> = Arc::from(user);
        known.flights.insert(Arc::clone(&user), flight.clone());
        let lookup = Arc::clone(self);
        Spawner::current().spawn(async move {
            let asked = lookup.connections.ask(&lookup.query, &user).await;
            let answer = lookup.read(&user, asked);
            lookup.land(user, &answer);
            lands.send_replace(Some(answer));
        });
        Boarded::Waits { flight, older }
    }

    fn land(&self, user: Arc<str>, answer: &Answer) {
        let now = time::now();
        let mut known = self.known.lock();
        known.flights.remove(&user);
        match answer {
            Answer::Found(secret) => {
                known.absent.pop(&user);
                known.found.put(user, (secret.clone(), now));
            }
            Answer::Absent => {
                known.found.pop(&user);
                known.absent.put(user, now);
            }
            Answer::Failed => known.paused_until = Some(now + PAUSE),
        }
    }

    /// What the rows mean: the name and what is stored of the password.
    fn read(&self, user: &str, asked: Result<Vec<Vec<Option<String>>>, ServerFailure>) -> Answer {
        let rows = match asked {
            Ok(rows) => rows,
            Err(error) => {
                let place = self.connections.place();
                tracing::warn!(
                    %error, database = %place.database, user = self.connections.user(),
                    "users cannot be looked up: see [postgres.auth_query]"
                );
                return Answer::Failed;
            }
        };
        let Some(row) = rows.into_iter().next() else { return Answer::Absent };
        let mut columns = row.into_iter();
        let (name, stored) = (columns.next().flatten(), columns.next());
        let (Some(name), Some(stored)) = (name, stored) else {
            tracing::warn!("`query` of [postgres.auth_query] must give a name and a password");
            return Answer::Absent;
        };
        if name != user {
            tracing::warn!(
                "`query` of [postgres.auth_query] gives another user than was asked for"
            );
            return Answer::Absent;
        }
        let Some(mut stored) = stored.filter(|stored| !stored.is_empty()) else {
            return Answer::Found(None);
        };
        let secret = Secret::read(SecretString::from(stored.as_str()));
        stored.zeroize();
        match &secret {
            Ok(Secret::Plain(_) | Secret::Md5(_)) => self.md5_seen.store(true, Ordering::Relaxed),
            Ok(Secret::Scram(_)) => self.scram_seen.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!(user, %error, "a secret that was looked up is of no use"),
        }
        Answer::Found(secret.ok())
    }
}

/// What a login finds when it comes.
enum Boarded {
    Known(Account),
    Waits {
        flight: Flight,
        /// What was answered before, and still counts.
        older: Option<Option<Secret>>,
    },
}

/// Where the users of each database are looked up.
#[derive(Default)]
pub(crate) struct Lookups {
    /// By the name that clients give the database.
    pub(crate) named: HashMap<String, Arc<Lookup>>,
    /// Where databases have no names of ours.
    pub(crate) any: Option<Arc<Lookup>>,
}

impl Lookups {
    pub(super) fn of(&self, database: &str) -> Option<&Arc<Lookup>> {
        self.named.get(database).or(self.any.as_ref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Lookup>> {
        self.named.values().chain(&self.any)
    }
}
