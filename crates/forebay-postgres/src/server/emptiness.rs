//! The proof by the server that an open transaction holds nothing: asked on its own connection,
//! and looked at from another one.
//!
//! From inside it tells what no other connection sees: isolation, cursors, settings. From
//! outside ([`witness`]) it is seen without that the look itself leaves a trace: its transaction
//! id, its snapshot and its locks. Both are asked while the transaction idles, so nothing
//! changes in between. Our statements use the extended protocol with names of ours and nothing
//! but what is qualified by `pg_catalog`, since a simple query would destroy the client's unnamed
//! statement, and its search_path may lead anywhere. Always true: what cannot be read holds
//! something.

mod mishaps;
mod outside;
mod rate;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use forebay_pool::Pool;
use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Instant};
use tokio::sync::oneshot;

use super::answers::{Awaited, Purpose};
use super::inquiry::Row;
use super::{Server, ServerFailure};
use crate::cancel::ServerKey;
use crate::parking::{Book, Reason};
use crate::server::catalogue::Catalogue;
use crate::server::connector::{Identity, Postgres};
use crate::settings::ParkingSettings;
use crate::sql::parkable::{Named, Subject, Verdicts};
use crate::wire::backend::{self, ServerError};
use crate::wire::frontend::{Parse, cstr, message, write_bare, write_named_statement};
use crate::wire::{Fields, Malformed, TxStatus};

use mishaps::{After, Mishaps};
use outside::Look;
pub(crate) use outside::Snapshots;
use rate::Rate;
use witness::{Names, Question, Witnesses};

/// Our statement and our portal; no client's name begins so.
const NAME: &[u8] = b"__forebay_proof";

/// One row: isolation, whether there is no transaction id, cursors but ours, settings of the
/// session, and how long the transaction may idle and last.
const INSIDE: &str = "SELECT pg_catalog.max(setting) FILTER (WHERE name \
     OPERATOR(pg_catalog.=) 'transaction_isolation'), \
     pg_catalog.pg_current_xact_id_if_assigned() IS NULL, \
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursor() WHERE name OPERATOR(pg_catalog.<>) \
     '__forebay_proof'), \
     pg_catalog.string_agg(name, ',') FILTER (WHERE source OPERATOR(pg_catalog.=) 'session'), \
     pg_catalog.max(setting) FILTER (WHERE name OPERATOR(pg_catalog.=) \
     'idle_in_transaction_session_timeout'), \
     pg_catalog.max(setting) FILTER (WHERE name OPERATOR(pg_catalog.=) 'transaction_timeout') \
     FROM pg_catalog.pg_show_all_settings()";

/// How long the server's part of a proof may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What a transaction's own connection tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    isolation: String,
    has_id: bool,
    cursors: bool,
    /// Set in the session, or in the transaction.
    settings: Vec<String>,
    /// The server would end the session when it idled for so long.
    pub(crate) idle_timeout: Option<Duration>,
    /// And the transaction when it took so long.
    pub(crate) transaction_timeout: Option<Duration>,
}

impl Inside {
    fn read(row: Row) -> Option<Self> {
        let mut columns = row.into_iter();
        let mut next = || columns.next();
        let isolation = next()??;
        let has_id = next()??;
        let cursors = next()??;
        let settings = next()?.unwrap_or_default();
        let timeout = |text: Option<String>| {
            let millis = text?.parse().ok()?;
            Some(Duration::from_millis(millis)).filter(|limit| !limit.is_zero())
        };
        Some(Self {
            isolation,
            has_id: has_id != "t",
            cursors: cursors != "0",
            settings: settings.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            idle_timeout: timeout(next()?),
            transaction_timeout: timeout(next()?),
        })
    }

    /// Does it show that the transaction holds nothing, where `is_followed` says which settings
    /// are brought along?
    ///
    /// # Errors
    /// What it may hold.
    pub(crate) fn judge(&self, is_followed: impl Fn(&str) -> bool) -> Result<(), Reason> {
        if self.has_id {
            return Err(Reason::TransactionId);
        }
        // A server treats read uncommitted as read committed.
        if !matches!(&*self.isolation, "read committed" | "read uncommitted") {
            return Err(Reason::Isolation);
        }
        if self.cursors {
            return Err(Reason::Cursor);
        }
        // The transaction's own options are in its BEGIN, which is sent again.
        const OPTIONS: [&str; 3] =
            ["transaction_deferrable", "transaction_isolation", "transaction_read_only"];
        let is_kept = |name: &String| {
            OPTIONS.contains(&name.as_str()) || is_followed(&name.to_ascii_lowercase())
        };
        if !self.settings.iter().all(is_kept) {
            return Err(Reason::Setting);
        }
        Ok(())
    }
}

impl Server {
    /// Asks the open transaction what it holds. The client's unnamed portal is closed first: one
    /// that is done still keeps its snapshot.
    ///
    /// # Errors
    /// The connection, or its transaction, is of no use any more.
    ///
    /// # Cancel safety
    /// The answer is owed until it came, so who brings the connection back reads it first.
    pub(crate) async fn look_inside(&mut self) -> Result<Inside, ServerFailure> {
        message(&mut self.outbox, b'C', |out| {
            out.put_u8(b'P');
            cstr(out, b"");
        });
        write_named_statement(&mut self.outbox, b'C', NAME);
        let parse = Parse { name: NAME, text: INSIDE.as_bytes(), types: &[0, 0] };
        parse.write(&mut self.outbox);
        message(&mut self.outbox, b'B', |out| {
            cstr(out, NAME);
            cstr(out, NAME);
            // No values, all columns as text.
            out.put_slice(&[0, 0, 0, 0, 0, 0]);
        });
        message(&mut self.outbox, b'E', |out| {
            cstr(out, NAME);
            out.put_i32(0);
        });
        message(&mut self.outbox, b'C', |out| {
            out.put_u8(b'P');
            cstr(out, NAME);
        });
        write_named_statement(&mut self.outbox, b'C', NAME);
        write_bare(&mut self.outbox, b'S');
        let row = self.finish_own().await?;
        if self.status != TxStatus::Open {
            return Err(Malformed::Value.into());
        }
        row.and_then(Inside::read).ok_or_else(|| Malformed::Value.into())
    }

    /// Ends the transaction, which holds nothing.
    ///
    /// # Errors
    /// The connection is of no use any more.
    ///
    /// # Cancel safety
    /// As of [`Server::look_inside`].
    pub(crate) async fn end_empty(&mut self) -> Result<(), ServerFailure> {
        message(&mut self.outbox, b'Q', |out| cstr(out, b"ROLLBACK"));
        self.unnamed = None;
        self.finish_own().await?;
        if self.status == TxStatus::Idle { Ok(()) } else { Err(Malformed::Value.into()) }
    }

    /// Sends what is due, which ends with one ReadyForQuery, and reads up to it: the last row.
    async fn finish_own(&mut self) -> Result<Option<Row>, ServerFailure> {
        self.kept.forget();
        self.awaited.push_back(Awaited::OwnQuery(Purpose::Proof));
        self.pipeline.ends_batch();
        self.send().await?;
        let (mut row, mut refused) = (None, None);
        loop {
            let (tag, body) = self.receive().await?;
            let mut fields = Fields::new(&body);
            match tag {
                b'Z' => {
                    self.status = TxStatus::from_byte(fields.u8()?).ok_or(Malformed::Value)?;
                    self.awaited.pop_front();
                    self.pipeline.is_answered();
                    return match refused {
                        Some(said) => Err(ServerFailure::Refused(said)),
                        None => Ok(row),
                    };
                }
                b'S' => {
                    let (name, value) = backend::read_parameter_status(&body)?;
                    self.settings.report_unasked(name, value);
                }
                b'E' => refused = Some(ServerError::read(&body)),
                b'D' => {
                    let mut columns = Row::new();
                    for _ in 0..fields.u16()? {
                        columns.push(match usize::try_from(fields.i32()?) {
                            Ok(length) => {
                                Some(String::from_utf8_lossy(fields.bytes(length)?).into_owned())
                            }
                            Err(_) => None,
                        });
                    }
                    row = Some(columns);
                }
                _ => {}
            }
        }
    }
}

/// Whether a server's proof can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Untried,
    Works,
    Closed,
}

impl Shared {
    /// The proof was tried on a server of this version, and works.
    fn works(&self, version: u32) {
        let before = {
            let mut standing = self.standing.lock();
            match *standing {
                Standing::Untried => std::mem::replace(&mut *standing, Standing::Works),
                Standing::Works | Standing::Closed => return,
            }
        };
        if before == Standing::Untried {
            self.book.is_checked(Ok(version));
            tracing::info!(server = %self.server, version, "idle transactions can be parked");
        }
    }

    fn closes(&self, why: &str) {
        if std::mem::replace(&mut *self.standing.lock(), Standing::Closed) == Standing::Closed {
            return;
        }
        self.book.is_checked(Err(why.to_owned()));
        tracing::warn!(
            server = %self.server, why,
            "parking is closed for the server: its proof cannot be used; a reload opens it again"
        );
    }
}

/// Proves at one server that transactions hold nothing.
pub(crate) struct Prover {
    shared: Arc<Shared>,
}

struct Shared {
    terms: ParkingSettings,
    rate: Rate,
    mishaps: Mishaps,
    standing: Mutex<Standing>,
    witnesses: Witnesses,
    verdicts: Verdicts,
    book: Arc<Book>,
    server: Arc<str>,
}

impl Prover {
    /// At the server called `server`.
    pub(crate) fn new(server: &Arc<str>, terms: &ParkingSettings, book: &Arc<Book>) -> Self {
        Self {
            shared: Arc::new(Shared {
                rate: Rate::new(terms.proofs_per_second),
                mishaps: Mishaps::default(),
                terms: terms.clone(),
                standing: Mutex::new(Standing::Untried),
                witnesses: Witnesses::default(),
                verdicts: Verdicts::default(),
                book: Arc::clone(book),
                server: Arc::clone(server),
            }),
        }
    }

    /// Takes part in a configuration with `terms`, which opens parking again, if they are those
    /// that it has.
    pub(crate) fn goes_on_with(&self, terms: &ParkingSettings) -> bool {
        let is_same = self.shared.terms == *terms;
        if is_same {
            let mut standing = self.shared.standing.lock();
            if *standing == Standing::Closed {
                *standing = Standing::Untried;
            }
        }
        is_same
    }

    /// May one more proof be asked for?
    ///
    /// # Errors
    /// Not before then.
    pub(crate) fn admits(&self) -> Result<(), Instant> {
        let now = time::now();
        self.shared.mishaps.admit(now)?;
        self.shared.rate.admits(now)
    }

    /// Is parking closed for the server?
    pub(crate) fn is_closed(&self) -> bool {
        *self.shared.standing.lock() == Standing::Closed
    }

    /// A look has failed, and its transaction with it. What speaks against the proof itself closes
    /// parking for the server; of other failures many in a short time make a pause.
    pub(crate) fn look_failed(&self, failure: &ServerFailure) {
        if mishaps::speaks_against_proof(failure) {
            return self.shared.closes(&failure.to_string());
        }
        let after = self.shared.mishaps.one_more(time::now());
        tracing::info!(
            server = %self.shared.server, %failure,
            "an idle transaction was lost while it was looked at"
        );
        if after == After::Pauses {
            tracing::warn!(
                server = %self.shared.server,
                "idle transactions are not looked at for a minute: several were lost by that"
            );
        }
    }

    /// Does what a transaction's statements name mean nothing that could hold anything?
    ///
    /// # Errors
    /// It may, or it cannot be known.
    pub(crate) async fn names_hold_nothing(
        &self,
        pool: &Pool<Postgres>,
        identity: &Identity,
        catalogue: &Catalogue,
        named: &[Named],
    ) -> Result<(), Reason> {
        let verdicts = &self.shared.verdicts;
        for named in named {
            let lines = named.lines(&self.shared.terms.extensions, &self.shared.terms.relations);
            let subject = Subject::new(&identity.database, &lines);
            let (definitions, now) = (catalogue.definitions(), time::now());
            if let Some(verdict) = verdicts.of(subject, definitions, now) {
                verdict.map_err(Reason::Text)?;
                continue;
            }
            let names = Names { lines, subject, definitions };
            self.asks(pool, identity, |reply| Question::Names(names, reply)).await?;
        }
        Ok(())
    }

    async fn asks(
        &self,
        pool: &Pool<Postgres>,
        identity: &Identity,
        question: impl FnOnce(oneshot::Sender<Result<(), Reason>>) -> Question,
    ) -> Result<(), Reason> {
        let (reply, answer) = oneshot::channel();
        self.shared.witnesses.ask(&self.shared, pool, identity, question(reply))?;
        match time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Reason::NoWitness),
        }
    }

    /// Does the backend of `key`, whose transaction idles, hold nothing, as others see it?
    ///
    /// # Errors
    /// What it may hold, or that it cannot be seen.
    pub(crate) async fn holds_nothing(
        &self,
        pool: &Pool<Postgres>,
        identity: &Identity,
        key: Arc<ServerKey>,
        snapshots: Snapshots,
    ) -> Result<(), Reason> {
        let look = Look { key, snapshots };
        self.asks(pool, identity, |reply| Question::Look(look, reply)).await
    }

    /// Ends all its connections.
    pub(crate) fn ends(&self) {
        self.shared.witnesses.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(row: &[Option<&str>]) -> Option<Inside> {
        Inside::read(row.iter().map(|column| column.map(str::to_owned)).collect())
    }

    #[test]
    fn what_its_own_connection_tells_speaks_for_parking_only_if_nothing_speaks_against_it() {
        let empty = [Some("read committed"), Some("t"), Some("0"), None, Some("0"), None];
        let with = |at: usize, value| {
            let mut row = empty;
            row[at] = value;
            inside(&row).unwrap().judge(|name| name == "app.x")
        };
        assert_eq!(with(0, Some("read uncommitted")), Ok(()));
        assert_eq!(with(3, Some("App.x,transaction_read_only")), Ok(()));
        for (at, value, reason) in [
            (0, "repeatable read", Reason::Isolation),
            (0, "serializable", Reason::Isolation),
            (1, "f", Reason::TransactionId),
            (2, "1", Reason::Cursor),
            (3, "app.x,app.y", Reason::Setting),
        ] {
            assert_eq!(with(at, Some(value)), Err(reason));
        }
        for at in 0..3 {
            let mut row = empty;
            row[at] = None;
            assert_eq!(inside(&row), None, "what cannot be read proves nothing");
        }
    }

    #[test]
    fn the_servers_timeouts_are_read_in_milliseconds() {
        let row = [Some("read committed"), Some("t"), Some("0"), None, Some("1500"), Some("0")];
        let inside = inside(&row).unwrap();
        assert_eq!(inside.idle_timeout, Some(Duration::from_millis(1_500)));
        assert_eq!(inside.transaction_timeout, None);
    }
}
