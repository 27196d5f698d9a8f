//! Back to a known state: what runs is cancelled, what is owed is read, what is open is
//! rolled back, what may be left behind is cleared; then the connection serves again. What
//! cannot be proved is closed, and what runs on it is cancelled until the server closes too.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Buf;
use forebay_seam::task::Spawner;
use forebay_seam::{random, time};
use tokio::sync::Notify;

use super::answers::Awaited;
use super::{CopyIn, Names, Residue, Server, ServerFailure, Skips};
use crate::cancel;
use crate::wire::backend::ServerError;
use crate::wire::frontend::{Parse, cstr, message, write_bare, write_query};
use crate::wire::{Fields, HEADER, Header, Malformed, TxStatus};

/// As `DISCARD ALL`, but prepared statements stay: they are shared, and known. And nobody shall
/// foretell what `random()` gives the next client.
fn clear() -> String {
    let seed = u32::from_be_bytes(random::bytes());
    format!(
        "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
         SELECT pg_catalog.pg_advisory_unlock_all(), pg_catalog.setseed(0.{seed:010}); \
         DISCARD SEQUENCES; DISCARD TEMP"
    )
}

/// How long an answer may take before the cancel is repeated: at first, and at most.
const CANCEL_FIRST: Duration = Duration::from_millis(10);
const CANCEL_AGAIN: Duration = Duration::from_millis(250);
/// How long the server may take to end a connection that we closed.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// No statement: it fails the transaction that a vanished client left open.
const ABANDONED: &[u8] = b"abandoned by its client";

/// A connection on its way back. Whoever gives up waiting for it leaves nothing running on
/// the server.
struct Parting {
    server: Option<Server>,
    spawner: Spawner,
}

impl Parting {
    fn with(server: Server) -> Self {
        Self { server: Some(server), spawner: Spawner::current() }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            self.spawner.spawn(async move { server.end().await });
        }
    }
}

impl Server {
    /// The connection as good as fresh, or nothing.
    pub(crate) async fn reset(self) -> Option<Self> {
        let mut parting = Parting::with(self);
        match parting.server.as_mut()?.bring_back().await {
            Ok(()) => parting.server.take(),
            Err(error) => {
                tracing::debug!(%error, "a server connection could not be reset");
                let server = parting.server.as_mut()?;
                if let (Some(card), true) = (&server.card, !matches!(error, ServerFailure::Io(_))) {
                    card.is_closed("client disconnect while server was not ready");
                }
                server.end().await;
                parting.server = None;
                None
            }
        }
    }

    /// Says goodbye, and waits until the server has one backend less.
    pub(crate) async fn close(mut self) {
        if self.outbox.is_empty() && self.streaming == 0 {
            write_bare(&mut self.outbox, b'X');
            drop(self.send().await);
        }
        self.end().await;
    }

    /// Closes our side and waits until the server has closed its own: then what was sent runs
    /// no more, and the server has one backend less.
    async fn end(&mut self) {
        let ended = async {
            drop(self.stream.shutdown().await);
            let mut pause = CANCEL_FIRST;
            loop {
                if !self.awaited.is_empty() {
                    cancel::send_counted(&self.key, &self.in_flight).await;
                }
                let closed = async {
                    while self.stream.fill(&mut self.inbox).await.is_ok_and(|n| n > 0) {
                        self.inbox.clear();
                    }
                };
                if time::timeout(pause, closed).await.is_ok() {
                    return;
                }
                pause = (pause * 2).min(CANCEL_AGAIN);
            }
        };
        if time::timeout(END_PATIENCE, ended).await.is_err() {
            tracing::warn!(pid = self.key.pid, "a server does not end a connection that we closed");
        }
    }

    /// Does it still answer? An empty query asks the least.
    pub(crate) async fn probe(mut self) -> Option<Self> {
        self.run_unasked().await.ok()?;
        (self.status == TxStatus::Idle).then_some(self)
    }

    /// An empty query: what the server reports beside its answer, nobody asked for.
    async fn run_unasked(&mut self) -> Result<(), ServerFailure> {
        const READ_ONLY: &str = "default_transaction_read_only";
        let before = self.settings.now.get(READ_ONLY).map(str::to_owned);
        self.run("").await?;
        let now = self.settings.now.get(READ_ONLY).map(str::to_owned);
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            self.settings.report_unasked(READ_ONLY, &now);
        }
        Ok(())
    }

    async fn bring_back(&mut self) -> Result<(), ServerFailure> {
        // Half a message cannot be taken back, and what a vanished client had still to send
        // must not run.
        if self.streaming > 0 || !self.outbox.is_empty() {
            return Err(Malformed::Short.into());
        }
        self.suspect_what_is_owed();
        self.inbox.advance(self.passed);
        self.passed = 0;
        self.finish_what_runs().await?;
        self.in_flight.settled().await;
        if !self.in_flight.is_over() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        if self.status != TxStatus::Idle {
            self.run("ROLLBACK").await?;
        } else if self.residue == Residue::None {
            // A cancel's signal may still be on its way inside the server: an answer shows
            // that it has been dealt with.
            self.run("").await?;
        }
        if self.residue == Residue::WithStatements {
            self.run("DEALLOCATE ALL").await?;
            self.prepared.clear();
            self.names = Names::Ours;
        }
        if self.residue != Residue::None {
            self.run(&clear()).await?;
            self.run_connect_query().await?;
            self.settings.cleared();
            self.residue = Residue::None;
        }
        self.defining = None;
        self.look_at_catalogue().await?;
        self.unnamed = None;
        if self.is_clean() { Ok(()) } else { Err(Malformed::Value.into()) }
    }

    /// What the database's configuration wants to be run first, if anything.
    pub(super) async fn run_connect_query(&mut self) -> Result<(), ServerFailure> {
        match self.connect_query.clone() {
            Some(query) => self.run(&query).await,
            None => Ok(()),
        }
    }

    /// Nobody follows what the owed answers say: settings may have changed, and statements
    /// may have been prepared, or not.
    fn suspect_what_is_owed(&mut self) {
        for awaited in &self.awaited {
            self.residue.at_least(match awaited {
                Awaited::Parse { .. } | Awaited::Close { .. } => Residue::WithStatements,
                Awaited::Execute { change: Some(_), .. } => Residue::WithStatements,
                Awaited::Execute { .. }
                | Awaited::Query { .. }
                | Awaited::OwnQuery(_)
                | Awaited::FunctionCall => Residue::Possible,
                Awaited::Bind { .. }
                | Awaited::Describe { .. }
                | Awaited::OutdatedBind { .. }
                | Awaited::CloseUnnamed { .. }
                | Awaited::Sync
                | Awaited::OwnParseComplete { .. }
                | Awaited::OwnCloseComplete { .. } => Residue::None,
            });
        }
    }

    /// Cancels what runs and reads what is owed.
    async fn finish_what_runs(&mut self) -> Result<(), ServerFailure> {
        if self.copy == CopyIn::Receiving {
            message(&mut self.outbox, b'f', |out| cstr(out, b"the client has gone"));
            self.copy = CopyIn::None;
        }
        if self.unsynced {
            // A Sync alone would commit what a batch without its own has done so far.
            Parse { name: b"", text: ABANDONED, types: &[0, 0] }.write(&mut self.outbox);
            write_bare(&mut self.outbox, b'S');
            self.awaited.push_back(Awaited::Sync);
            self.unsynced = false;
            self.skips = Skips::Nothing;
        }
        let owed = self.awaited.iter().filter(|awaited| awaited.ends_with_ready()).count();
        if owed == 0 {
            return self.send().await;
        }
        let (key, in_flight) = (self.key.clone(), Arc::clone(&self.in_flight));
        // The server may want to be read before it reads, so sending and reading go on
        // together; the cancel goes its own way, to its end: who left one under way would not
        // know whom it hits. One that comes before its statement has begun is lost on the
        // server, and each batch of a pipeline needs its own, so there are more while answers
        // are owed.
        let left = AtomicUsize::new(owed);
        let answered = Notify::new();
        let cancel = async {
            let mut pause = CANCEL_FIRST;
            loop {
                cancel::send_counted(&key, &in_flight).await;
                let progress = time::timeout(pause, answered.notified()).await.is_ok();
                if left.load(Ordering::Relaxed) == 0 {
                    return;
                }
                pause = if progress { CANCEL_FIRST } else { (pause * 2).min(CANCEL_AGAIN) };
            }
        };
        let drain = async {
            let drained = self.read_owed(&left, &answered).await;
            left.store(0, Ordering::Relaxed);
            answered.notify_one();
            drained
        };
        let ((), drained) = tokio::join!(cancel, drain);
        drained
    }

    /// Reads until `left` answers have come, and tells of each that others follow.
    async fn read_owed(
        &mut self,
        left: &AtomicUsize,
        answered: &Notify,
    ) -> Result<(), ServerFailure> {
        let mut skip = std::mem::take(&mut self.passing);
        loop {
            let n = skip.min(self.inbox.len());
            self.inbox.advance(n);
            skip -= n;
            if skip == 0
                && let Some(header) = Header::read(&self.inbox)?
            {
                let short = matches!(header.tag, b'Z' | b'S');
                if !short {
                    if header.tag == b'G' {
                        // It had not begun to copy when its client left.
                        message(&mut self.outbox, b'f', |out| cstr(out, b"the client has gone"));
                    }
                    skip = header.whole();
                    continue;
                }
                if self.inbox.len() >= header.whole() {
                    let message = self.inbox.split_to(header.whole());
                    let body = message.get(HEADER..).unwrap_or_default();
                    if header.tag == b'S' {
                        self.take_parameter(body)?;
                        continue;
                    }
                    let status = TxStatus::from_byte(Fields::new(body).u8()?);
                    self.status = status.ok_or(Malformed::Value)?;
                    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        self.awaited.clear();
                        return Ok(());
                    }
                    answered.notify_one();
                    continue;
                }
            }
            self.read_and_write().await?;
        }
    }

    /// Reads more, and writes what is due as the socket takes it.
    pub(crate) async fn read_and_write(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            // Pending or not: reading may be what the server waits for.
            let _written = self.stream.poll_drain(cx, &mut self.outbox)?;
            match ready!(self.stream.poll_fill(cx, &mut self.inbox))? {
                0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Runs a query of our own; its rows are of no interest.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), ServerFailure> {
        write_query(&mut self.outbox, sql);
        self.send().await?;
        let mut failed = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'Z' => {
                    let status = TxStatus::from_byte(Fields::new(&body).u8()?);
                    self.status = status.ok_or(Malformed::Value)?;
                    return failed.map_or(Ok(()), Err);
                }
                b'S' => self.take_parameter(&body)?,
                b'E' => {
                    let said = ServerError::read(&body);
                    failed = Some(ServerFailure::Refused(said));
                }
                _ => {}
            }
        }
    }
}
