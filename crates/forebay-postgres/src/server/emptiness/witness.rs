//! Connections over which transactions are looked at from outside: one for each pair of a
//! database and a user, since a server shows what a backend does to its own user only.
//!
//! Opened for the first question, closed when nothing was asked for as long as [`UNUSED`];
//! questions that come meanwhile are answered together. A witness serves nobody, and counts
//! within the server's budget: it stands beside the pool ([`Beside`]) until the server has let it
//! go. Where all that may stand there do, the one that was there first gives way. Before it
//! answers it has tried the whole proof on itself: the server's version, what it lets this user
//! see, each of our questions. Always true: a question is answered, or its asker hears that there
//! is no witness.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forebay_pool::{Beside, Connector, Pool};
use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::mishaps::said_against_proof;
use super::outside::{Look, OUTSIDE, Seen, pids};
use crate::parking::Reason;
use crate::server::connector::{Identity, Postgres};
use crate::server::{Server, ServerFailure};
use crate::sql::parkable::{self, Refusal, Subject};

/// A witness that nobody asks anything for so long ends.
const UNUSED: Duration = Duration::from_secs(45);
/// One that was asked nothing for so long gives way to another.
const QUIET: Duration = Duration::from_secs(1);
/// And one that was there for so long, whatever it is asked.
const TURN: Duration = Duration::from_secs(5);
/// How often a witness that is asked nothing looks whether it may stay.
const ROUND: Duration = Duration::from_secs(1);
/// How long the server may take to let one go.
const PARTING: Duration = Duration::from_secs(1);
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
    Names(Names, oneshot::Sender<Result<(), Reason>>),
}

/// Names to be looked up. The verdict is kept, whether or not its asker still waits.
pub(super) struct Names {
    /// Of [`parkable::Named`].
    pub(super) lines: String,
    pub(super) subject: Subject,
    /// As many changes of definitions were known when they were asked for.
    pub(super) definitions: u64,
}

/// All witnesses of one server.
#[derive(Default)]
pub(super) struct Witnesses {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    asked: HashMap<Identity, Asked>,
    /// Not to be opened again before then.
    pausing: HashMap<Identity, Instant>,
    ended: Ended,
}

/// A witness that is there, or about to be.
struct Asked {
    questions: mpsc::Sender<Question>,
    since: Instant,
    /// When it was asked last.
    last: Instant,
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
        let (mut known, now) = (self.known.lock(), time::now());
        let question = match known.asked.get_mut(identity) {
            Some(asked) => match asked.questions.try_send(question) {
                Ok(()) => {
                    asked.last = now;
                    return Ok(());
                }
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Reason::NoWitness),
                Err(mpsc::error::TrySendError::Closed(question)) => question,
            },
            None => question,
        };
        known.asked.remove(identity);
        known.pausing.retain(|_, until| *until > now);
        if known.ended == Ended::Yes || known.pausing.contains_key(identity) {
            return Err(Reason::NoWitness);
        }
        let Some(seat) = pool.stand_beside(identity) else {
            known.give_way(now);
            return Err(Reason::NoWitness);
        };
        let (asking, questions) = mpsc::channel(WAITING);
        if asking.try_send(question).is_err() {
            return Err(Reason::NoWitness);
        }
        known.asked.insert(identity.clone(), Asked { questions: asking, since: now, last: now });
        drop(known);
        let (shared, pool, identity) = (Arc::clone(shared), pool.clone(), identity.clone());
        drop(tokio::spawn(attend(shared, pool, identity, seat, questions)));
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

impl Known {
    /// Another one is asked for than those that are there: the one that is not asked any more, or
    /// has had its turn, ends.
    fn give_way(&mut self, now: Instant) {
        let has_served = |asked: &Asked| asked.last + QUIET <= now || asked.since + TURN <= now;
        let first = self.asked.iter().filter(|(_, asked)| has_served(asked));
        let first =
            first.min_by_key(|(_, asked)| asked.since).map(|(identity, _)| identity.clone());
        if let Some(identity) = first {
            self.asked.remove(&identity);
        }
    }
}

async fn attend(
    shared: Arc<Shared>,
    pool: Pool<Postgres>,
    identity: Identity,
    seat: Beside<Postgres>,
    mut questions: mpsc::Receiver<Question>,
) {
    let opened = open(&shared, &pool, &identity).await;
    let served = match opened {
        Ok(mut server) => {
            let witness = Witness { shared: &shared, pool: &pool, seat: &seat };
            let served = witness.serve(&mut server, &mut questions).await;
            // The seat is free once the server has one backend less.
            drop(time::timeout(PARTING, pool.connector().close(Box::new(server))).await);
            served
        }
        Err(failure) => Err(failure),
    };
    drop(seat);
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
            ServerFailure::Refused(said) if said_against_proof(&said) => Self::Server(said.text),
            ServerFailure::Refused(_)
            | ServerFailure::Io(_)
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

/// One that has proved itself.
struct Witness<'a> {
    shared: &'a Shared,
    pool: &'a Pool<Postgres>,
    seat: &'a Beside<Postgres>,
}

impl Witness<'_> {
    /// The next question; `None` when it is to end.
    async fn next(
        &self,
        server: &mut Server,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Option<Question> {
        let since = time::now();
        loop {
            let question = time::timeout(ROUND, questions.recv()).await;
            let may_stay = self.seat.may_stay() && self.pool.connector().leads_right(server);
            match question {
                Ok(question) => return question.filter(|_| may_stay),
                Err(_) if !may_stay || since.elapsed() >= UNUSED => return None,
                Err(_) => {}
            }
        }
    }

    /// Answers until nobody asks any more.
    async fn serve(
        &self,
        server: &mut Server,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Result<(), ServerFailure> {
        let mut looks = Vec::new();
        loop {
            let Some(first) = self.next(server, questions).await else { return Ok(()) };
            let mut next = Some(first);
            while let Some(question) = next.take() {
                match question {
                    Question::Look(look, reply) if !look.is_at(server) => {
                        // Another host of the same server, or another address of its name.
                        let _gone_on = reply.send(Err(Reason::Unseen));
                    }
                    Question::Look(look, reply) => looks.push((look, reply)),
                    Question::Names(names, reply) => {
                        let lines = &names.lines;
                        let answer = match server.inquire(parkable::QUESTION, lines).await {
                            Ok(rows) => parkable::read_answer(lines, &rows),
                            Err(ServerFailure::Refused(said)) => {
                                tracing::debug!(error = said.text, "names cannot be looked up");
                                Err(Refusal::NoAnswer)
                            }
                            Err(failure) => return Err(failure),
                        };
                        let verdicts = &self.shared.verdicts;
                        verdicts.keep(names.subject, answer, names.definitions, time::now());
                        // Who asked may have gone on.
                        let _gone_on = reply.send(answer.map_err(Reason::Text));
                    }
                }
                if looks.len() < TOGETHER {
                    next = questions.try_recv().ok();
                }
            }
            if looks.is_empty() {
                continue;
            }
            let rows =
                server.inquire(OUTSIDE, &pids(looks.iter().map(|(look, _)| look.pid()))).await?;
            let seen = Seen::read(rows);
            for (look, reply) in looks.drain(..) {
                let _gone_on = reply.send(seen.judge(&look, &self.shared.terms.relations));
            }
        }
    }
}
