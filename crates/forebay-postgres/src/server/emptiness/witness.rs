//! Connections over which transactions are looked at from outside: one for each pair of a
//! database and a user, since a server shows what a backend does to its own user only.
//!
//! Opened for the first question, closed when nothing was asked for as long as [`UNUSED`];
//! questions that come meanwhile are answered together. A witness serves nobody and belongs to
//! no budget. Before it answers it has tried the whole proof on itself: the server's version,
//! what it lets this user see, each of our questions. Always true: a question is answered, or
//! its asker hears that there is no witness.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::Pool;
use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::outside::{Look, OUTSIDE, Seen, pids};
use crate::parking::Reason;
use crate::server::connector::{Identity, Postgres};
use crate::server::{Server, ServerFailure};
use crate::sql::parkable::{self, Refusal};

/// A witness that nobody asks anything for so long ends.
const UNUSED: Duration = Duration::from_secs(45);
/// One that could not be opened, or was lost, is opened again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions that wait for one witness; who has more is told that there is none.
const WAITING: usize = 256;
/// Backends that are looked at together.
const TOGETHER: usize = 64;
/// Versions that the proof is known to hold for.
const VERSIONS: std::ops::Range<u32> = 130_000..190_000;

/// It is nobody's work, it answers soon or not at all, and names mean PostgreSQL's own.
const SETUP: &str = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false), \
     pg_catalog.set_config('application_name', 'forebay parking', false), \
     pg_catalog.set_config('statement_timeout', '1s', false), \
     pg_catalog.set_config('lock_timeout', '1s', false), \
     pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
     WHERE name = 'idle_session_timeout' UNION ALL SELECT '', '', '', '', ''";

/// What a witness is asked.
pub(super) enum Question {
    Look(Look, oneshot::Sender<Result<(), Reason>>),
    /// Lines of [`parkable::Named`].
    Names(String, oneshot::Sender<Result<(), Reason>>),
}

/// All witnesses of one server.
#[derive(Default)]
pub(super) struct Witnesses {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    asked: HashMap<Identity, mpsc::Sender<Question>>,
    /// Not to be opened again before then.
    pausing: HashMap<Identity, Instant>,
    ended: Ended,
}

#[derive(Default, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    Yes,
}

impl Witnesses {
    /// Asks the witness of `identity`; opens one if there is none.
    ///
    /// # Errors
    /// There is none, and none may be opened now.
    pub(super) fn ask(
        &self,
        shared: &Arc<Shared>,
        pool: &Pool<Postgres>,
        identity: &Identity,
        question: Question,
    ) -> Result<(), Reason> {
        let mut known = self.known.lock();
        let question = match known.asked.get(identity) {
            Some(asked) => match asked.try_send(question) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Reason::NoWitness),
                Err(mpsc::error::TrySendError::Closed(question)) => question,
            },
            None => question,
        };
        known.asked.remove(identity);
        let now = time::now();
        known.pausing.retain(|_, until| *until > now);
        let is_full = known.asked.len() >= shared.terms.connections;
        if known.ended == Ended::Yes || is_full || known.pausing.contains_key(identity) {
            return Err(Reason::NoWitness);
        }
        let (asked, questions) = mpsc::channel(WAITING);
        if asked.try_send(question).is_err() {
            return Err(Reason::NoWitness);
        }
        known.asked.insert(identity.clone(), asked);
        drop(known);
        let (shared, pool, identity) = (Arc::clone(shared), pool.clone(), identity.clone());
        drop(tokio::spawn(attend(shared, pool, identity, questions)));
        Ok(())
    }

    /// No witness from now on; those that are there end.
    pub(super) fn end(&self) {
        let mut known = self.known.lock();
        known.ended = Ended::Yes;
        known.asked.clear();
    }

    fn pause(&self, identity: &Identity) {
        let mut known = self.known.lock();
        known.asked.remove(identity);
        known.pausing.insert(identity.clone(), time::now() + PAUSE);
    }
}

async fn attend(
    shared: Arc<Shared>,
    pool: Pool<Postgres>,
    identity: Identity,
    mut questions: mpsc::Receiver<Question>,
) {
    let opened = open(&shared, &pool, &identity).await;
    drop(pool);
    let served = match opened {
        Ok(mut server) => serve(&shared, &mut server, &mut questions).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = served {
        tracing::debug!(%identity, %failure, "no connection to look at idle transactions from");
        shared.witnesses.pause(&identity);
    }
}

/// A connection that has proved itself; the error closes nothing but itself.
async fn open(
    shared: &Arc<Shared>,
    pool: &Pool<Postgres>,
    identity: &Identity,
) -> Result<Server, ServerFailure> {
    let mut server = pool.connector().open(identity).await?;
    server.run(SETUP).await?;
    match rehearse(&mut server).await {
        Ok(version) => {
            shared.works(version);
            Ok(server)
        }
        Err(Flaw::Server(why)) => {
            shared.closes(&why);
            Err(ServerFailure::Unfit(why))
        }
        Err(Flaw::Lost(failure)) => Err(failure),
    }
}

/// What a rehearsal shows.
enum Flaw {
    /// The proof does not work on this server.
    Server(String),
    Lost(ServerFailure),
}

impl From<ServerFailure> for Flaw {
    fn from(failure: ServerFailure) -> Self {
        match failure {
            ServerFailure::Refused(said) => Self::Server(said.text),
            ServerFailure::Io(_)
            | ServerFailure::Protocol(_)
            | ServerFailure::Tls(_)
            | ServerFailure::Auth(_)
            | ServerFailure::Unfit(_)
            | ServerFailure::Moving(_) => Self::Lost(failure),
        }
    }
}

/// The whole proof, on a transaction of its own.
async fn rehearse(server: &mut Server) -> Result<u32, Flaw> {
    let version = server.ask("SHOW server_version_num").await?;
    let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
    if !VERSIONS.contains(&version) {
        let why =
            format!("server_version_num is {version}; the proof is known to hold for 13 to 18");
        return Err(Flaw::Server(why));
    }
    server.run("BEGIN").await?;
    let inside = server.look_inside().await?;
    server.run("ROLLBACK").await?;
    // The settings above are its own; nothing else may speak against an empty transaction.
    if let Err(reason) = inside.judge(|_| true) {
        let why = format!("an empty transaction does not look empty: {}", reason.name());
        return Err(Flaw::Server(why));
    }
    let pid = server.key.pid;
    let seen = Seen::read(server.inquire(OUTSIDE, &pids([pid].into_iter())).await?);
    if !seen.shows(pid) {
        return Err(Flaw::Server("the server does not show what its backends do".into()));
    }
    let named = parkable::examine("SELECT 1").map_err(|refusal| refusal.name().to_owned());
    let lines = named.map_err(Flaw::Server)?.lines(&[], &[]);
    match parkable::read_answer(&lines, &server.inquire(parkable::QUESTION, &lines).await?) {
        Ok(()) => Ok(version),
        Err(refusal) => {
            let why = format!("a plain statement is refused: {}", refusal.name());
            Err(Flaw::Server(why))
        }
    }
}

/// Answers until nobody asks any more.
async fn serve(
    shared: &Shared,
    server: &mut Server,
    questions: &mut mpsc::Receiver<Question>,
) -> Result<(), ServerFailure> {
    let mut looks = Vec::new();
    loop {
        let Ok(Some(first)) = time::timeout(UNUSED, questions.recv()).await else {
            return Ok(());
        };
        let mut next = Some(first);
        while let Some(question) = next.take() {
            match question {
                Question::Look(look, reply) => looks.push((look, reply)),
                Question::Names(lines, reply) => {
                    let answer = match server.inquire(parkable::QUESTION, &lines).await {
                        Ok(rows) => parkable::read_answer(&lines, &rows).map_err(Reason::Text),
                        Err(ServerFailure::Refused(said)) => {
                            tracing::debug!(error = said.text, "names cannot be looked up");
                            Err(Reason::Text(Refusal::NoAnswer))
                        }
                        Err(failure) => return Err(failure),
                    };
                    // Who asked may have gone on.
                    let _gone_on = reply.send(answer);
                }
            }
            if looks.len() < TOGETHER {
                next = questions.try_recv().ok();
            }
        }
        if looks.is_empty() {
            continue;
        }
        let rows = server.inquire(OUTSIDE, &pids(looks.iter().map(|(look, _)| look.pid))).await?;
        let seen = Seen::read(rows);
        for (look, reply) in looks.drain(..) {
            let _gone_on = reply.send(seen.judge(look, &shared.terms.relations));
        }
    }
}
