//! The paced core clients: people at the login page, while agents wait for a model.
//!
//! Each has a connection of its own and asks when it is due, whether or not it is late; its
//! times run from then. What was due and never answered counts with the time it has waited
//! so far, so a run in which nobody is answered does not look fast.

use std::time::{Duration, Instant};

use forebay_seam::time;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio_postgres::Config;
use tokio_postgres::types::{ToSql, Type};

use crate::demo::database::{Session, connect, told};
use crate::demo::gateway::CORE_NAME;

/// How many there are.
pub(crate) const CLIENTS: usize = 8;
/// Each asks so often.
pub(crate) const EVERY: Duration = Duration::from_millis(80);
/// What they ask: a lookup that takes 5 ms.
const QUERY: &str = "SELECT email, pg_sleep(0.005) FROM accounts WHERE id = $1";
/// Distinct errors kept.
const ERRORS_KEPT: usize = 3;

/// The clients, connected.
pub(super) struct CoreClients {
    sessions: Vec<Session>,
}

/// What they saw.
pub(crate) struct Answers {
    micros: Histogram<u64>,
    /// Queries that were due and not answered when the time was over.
    pub(crate) unanswered: u64,
    /// Queries that failed.
    pub(crate) failed: u64,
    /// What they said.
    pub(crate) errors: Vec<String>,
}

impl Answers {
    /// The 99th percentile.
    pub(crate) fn p99(&self) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(0.99))
    }

    /// Answered well.
    pub(crate) fn answered(&self) -> u64 {
        self.micros.len() - self.unanswered
    }

    fn none() -> Self {
        let micros = Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 µs to 10 min");
        Self { micros, unanswered: 0, failed: 0, errors: Vec::new() }
    }

    fn note(&mut self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.micros.saturating_record(micros.max(1));
    }

    /// With those of another client.
    fn and(mut self, other: Self) -> Self {
        self.micros.add(&other.micros).expect("the bounds are the same");
        self.unanswered += other.unanswered;
        self.failed += other.failed;
        self.errors.extend(other.errors);
        self.errors.truncate(ERRORS_KEPT);
        self
    }
}

impl CoreClients {
    /// Connects all of them as `config` says.
    pub(super) async fn connect(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let mut config = config.clone();
        config.application_name(CORE_NAME);
        let mut sessions = Vec::new();
        for _ in 0..CLIENTS {
            sessions.push(connect(&config).await?);
        }
        Ok(Self { sessions })
    }

    /// They ask for `length`; who is not answered by then gives up, and its connection.
    pub(super) async fn ask(&mut self, length: Duration) -> Answers {
        let start = time::now();
        let mut asking = JoinSet::new();
        let clients = u32::try_from(CLIENTS).unwrap_or(u32::MAX);
        for (number, session) in (0_u32..).zip(self.sessions.drain(..)) {
            let first = start + EVERY * number / clients;
            asking.spawn(async move {
                let answers = one(&session, first, start + length).await;
                (session, answers)
            });
        }
        let mut all = Answers::none();
        for (session, answers) in asking.join_all().await {
            self.sessions.push(session);
            all = all.and(answers);
        }
        all
    }
}

/// One client, from its `first` query to the `end`.
async fn one(session: &Session, first: Instant, end: Instant) -> Answers {
    let mut answers = Answers::none();
    let mut due = first;
    let mut id = 1;
    while due < end {
        time::sleep_until(due).await;
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&id, Type::INT4)];
        let query = session.query_typed(QUERY, &parameters);
        match time::timeout(end.saturating_duration_since(time::now()), query).await {
            Ok(Ok(_)) => answers.note(time::now().saturating_duration_since(due)),
            Ok(Err(error)) => {
                answers.failed += 1;
                if answers.errors.len() < ERRORS_KEPT {
                    answers.errors.push(told(&error));
                }
            }
            Err(_) => {
                while due < end {
                    answers.unanswered += 1;
                    answers.note(end.saturating_duration_since(due));
                    due += EVERY;
                }
            }
        }
        id = id % 10_000 + 1;
        due += EVERY;
    }
    answers
}
