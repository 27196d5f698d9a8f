//! A connection to a PostgreSQL server: its login, what is known of its state, and how it
//! is brought back to a known one.
//!
//! Always true: `awaited` holds, in order, what the server still owes; a connection goes
//! home as clean only when nothing is owed, no byte is unread and no transaction is open.

pub(crate) mod answers;
pub(crate) mod capacity;
pub(crate) mod catalogue;
pub(crate) mod connector;
pub(crate) mod emptiness;
pub(crate) mod entrance;
pub(crate) mod hosts;
pub(crate) mod inquiry;
mod kept;
pub(crate) mod login;
pub(crate) mod names;
mod pipeline;
pub(crate) mod place;
pub(crate) mod proof;
mod reset;
pub(crate) mod role;
mod sasl;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use lru::LruCache;

pub(crate) use answers::Awaited;
use capacity::Ours;
use catalogue::{Catalogue, Defining, Seen};
use hosts::Berth;
use kept::Kept;
use pipeline::Pipeline;

use crate::cancel::{InFlight, ServerKey};
use crate::census::{Known, ServerEntry};
use crate::line::Line;
use crate::params::Applied;
use crate::prepared::{Shape, StatementId};
use crate::stream::Stream;
use crate::wire::backend::{self, ServerError};
use crate::wire::frontend::write_bare;
use crate::wire::{HEADER, Header, Malformed, TxStatus};

/// A buffer with room for more bytes than this is not kept by a connection at rest.
const KEPT_AT_REST: usize = 32 * 1024;

/// Why a server could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerFailure {
    #[error("{} (SQLSTATE {})", .0.text, .0.code)]
    Refused(ServerError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it broke the protocol: {0}")]
    Protocol(#[from] Malformed),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("authentication: {0}")]
    Auth(String),
    /// It is not the server that is wanted.
    #[error("{0}")]
    Unfit(String),
    /// As [`ServerFailure::Unfit`], and since a short time.
    #[error("{0}")]
    Moving(String),
}

/// Whether a COPY has the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyIn {
    None,
    /// The server takes CopyData; it ignores Sync and Flush meanwhile.
    Receiving,
}

/// Whether the session may hold something that its next owner must not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Residue {
    /// Provably nothing.
    None,
    /// Perhaps something.
    Possible,
    /// Perhaps also prepared statements that we do not know, or not those that we think.
    WithStatements,
}

impl Residue {
    /// Notes that there is perhaps as much as `found`.
    pub(crate) fn at_least(&mut self, found: Self) {
        *self = (*self).max(found);
    }
}

/// Whether statements of a transaction may have changed settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sets {
    Nothing,
    Perhaps,
}

/// Whose names its prepared statements have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    Ours,
    /// Some have those that SQL gave them: the client that did keeps the connection.
    AlsoOfSql,
}

/// Whether the server drops what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skips {
    Nothing,
    /// After an error in a batch, up to the Sync that has not been sent yet.
    ToSync,
}

/// Whether the server sends the answers to a batch before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// It may keep them.
    MayWait,
    /// A Flush of ours asks for what is owed now.
    Asked,
}

/// Whether more of the client's messages may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The rest of this batch.
    AfterBatch,
    /// What was sent decides what may follow, or what follows has to be: not before all
    /// answers are here.
    UntilAnswered,
}

/// A logged-in server connection.
pub(crate) struct Server {
    pub(crate) stream: Stream,
    /// From the server, not looked at yet, behind `passed` bytes that are on their way to
    /// the client.
    pub(crate) inbox: BytesMut,
    /// Bytes at the start of `inbox` that the client gets as they are.
    pub(crate) passed: usize,
    /// Bytes of a message that is passed on while it still arrives.
    pub(crate) passing: usize,
    /// To the server, not sent yet.
    pub(crate) outbox: BytesMut,
    /// What was sent and may not have been read.
    pub(crate) line: Line,
    /// Bytes of a client's message that still have to follow what is in `outbox`.
    pub(crate) streaming: usize,
    pub(crate) awaited: VecDeque<Awaited>,
    pub(crate) status: TxStatus,
    pub(crate) copy: CopyIn,
    /// Extended-protocol messages were sent since the last Sync.
    pub(crate) unsynced: bool,
    pub(crate) skips: Skips,
    pub(crate) flush: Flush,
    pub(crate) gate: Gate,
    pub(crate) pipeline: Pipeline,
    pub(crate) kept: Kept,
    pub(crate) settings: Applied,
    /// Statements that it has by name, and their rows where they were described here.
    pub(crate) prepared: LruCache<StatementId, Option<Shape>>,
    pub(crate) names: Names,
    /// Whose unnamed statement it has.
    pub(crate) unnamed: Option<StatementId>,
    pub(crate) residue: Residue,
    /// Of its database.
    pub(crate) catalogue: Arc<Catalogue>,
    /// The work at hand may have set something.
    pub(crate) sets: Sets,
    /// What the work at hand goes by.
    pub(crate) seen: Seen,
    /// The work at hand defines something.
    pub(crate) defining: Option<Defining>,
    pub(crate) key: Arc<ServerKey>,
    pub(crate) in_flight: Arc<InFlight>,
    /// What it runs before anybody gets it, and again once it was cleared.
    pub(crate) connect_query: Option<Arc<str>>,
    /// Counts it among our connections, once it has logged in.
    ours: Option<Ours>,
    /// What the console shows of it.
    pub(crate) card: Option<ServerEntry>,
    /// Where it leads, once that was found right.
    pub(crate) berth: Option<Berth>,
}

impl Server {
    fn new(stream: Stream, key: Arc<ServerKey>, max_prepared: NonZeroUsize) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            passed: 0,
            passing: 0,
            outbox: BytesMut::new(),
            line: Line::default(),
            streaming: 0,
            awaited: VecDeque::new(),
            status: TxStatus::Idle,
            copy: CopyIn::None,
            unsynced: false,
            skips: Skips::Nothing,
            flush: Flush::MayWait,
            gate: Gate::Open,
            pipeline: Pipeline::default(),
            kept: Kept::default(),
            settings: Applied::default(),
            prepared: LruCache::new(max_prepared),
            names: Names::Ours,
            unnamed: None,
            residue: Residue::None,
            catalogue: Arc::default(),
            sets: Sets::Nothing,
            seen: Seen::default(),
            defining: None,
            key,
            in_flight: Arc::default(),
            connect_query: None,
            ours: None,
            card: None,
            berth: None,
        }
    }

    /// Has another primary replaced this one, so that nothing more may be sent?
    pub(crate) fn is_fenced(&self) -> bool {
        self.berth.as_ref().is_some_and(Berth::is_fenced)
    }

    /// Nothing is owed, nothing is unread, nothing is half sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inbox.len() == self.passed && self.owes_nothing()
    }

    /// Is what it says outside of all transactions, unasked, that it will end? Nobody else has
    /// anything to say there.
    pub(crate) fn is_about_itself(&self) -> bool {
        matches!(self.inbox.get(self.passed), Some(b'N' | b'E'))
            && self.status == TxStatus::Idle
            && self.owes_nothing()
    }

    fn owes_nothing(&self) -> bool {
        self.awaited.is_empty()
            && self.passing == 0
            && self.outbox.is_empty()
            && self.streaming == 0
            && !self.unsynced
            && self.copy == CopyIn::None
    }

    /// Is the next answer one of ours?
    pub(crate) fn is_our_turn(&self) -> bool {
        let next = self.awaited.front();
        matches!(next, Some(Awaited::OwnParseComplete { .. } | Awaited::OwnCloseComplete { .. }))
    }

    /// Would a statement of now be carried out? Not known while an answer is owed that may
    /// end in another status.
    pub(crate) fn transaction_is_known_to_work(&self) -> bool {
        self.status != TxStatus::Failed && !self.awaited.iter().any(Awaited::ends_with_ready)
    }

    /// Moves bytes of a client's long message on from its `inbox`, once those before them have
    /// gone: the two buffers change hands, so nothing is copied and neither grows.
    pub(crate) fn stream_from(&mut self, inbox: &mut BytesMut) {
        if self.streaming == 0 || !self.outbox.is_empty() {
            return;
        }
        let n = self.streaming.min(inbox.len());
        if n == inbox.len() {
            std::mem::swap(&mut self.outbox, inbox);
        } else {
            self.outbox.extend_from_slice(inbox.get(..n).unwrap_or_default());
            inbox.advance(n);
        }
        self.streaming -= n;
    }

    /// At rest it keeps no memory that only something long needed.
    pub(crate) fn sheds_buffers(&mut self) {
        for buffer in [&mut self.inbox, &mut self.outbox] {
            if buffer.is_empty() && buffer.try_reclaim(KEPT_AT_REST) {
                *buffer = BytesMut::new();
            }
        }
    }

    /// It has logged in, and is listed as `card` from now on.
    fn is_listed(&mut self, card: ServerEntry) {
        let in_flight = Arc::clone(&self.in_flight);
        card.is_open(Known { ends: self.stream.ends(), pid: self.key.pid, in_flight });
        self.card = Some(card);
    }

    /// It is at rest, as far as the console shows it.
    pub(crate) fn shows_rest(&self) {
        if let Some(card) = &self.card {
            card.rests(self.prepared.len());
        }
    }

    /// It is being reset or probed, as far as the console shows it.
    pub(crate) fn shows_test(&self) {
        if let Some(card) = &self.card {
            card.is_tested();
        }
    }

    /// Fit for the next owner as it is.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_quiet()
            && self.status == TxStatus::Idle
            && self.residue == Residue::None
            && self.in_flight.is_over()
    }

    /// A look at a connection at rest: open, unless the end or an error has come.
    /// Asynchronous messages are taken in.
    pub(crate) fn is_open(&mut self) -> bool {
        if self.stream.is_silent() {
            return self.inbox.is_empty();
        }
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.stream.poll_fill(&mut cx, &mut self.inbox) {
                Poll::Pending => return self.inbox.is_empty(),
                Poll::Ready(Ok(1..)) => {
                    if self.take_asynchronous().is_err() {
                        return false;
                    }
                }
                Poll::Ready(Ok(0) | Err(_)) => return false,
            }
        }
    }

    /// Takes in notices, notifications and parameters that came while nobody asked.
    fn take_asynchronous(&mut self) -> Result<(), Malformed> {
        while let Some(header) = Header::read(&self.inbox)? {
            if self.inbox.len() < header.whole() {
                return Ok(());
            }
            let message = self.inbox.split_to(header.whole());
            match header.tag {
                b'N' | b'A' => {}
                b'S' => {
                    let body = message.get(HEADER..).unwrap_or_default();
                    let (name, value) = backend::read_parameter_status(body)?;
                    self.settings.report_unasked(name, value);
                }
                _ => return Err(Malformed::Value),
            }
        }
        Ok(())
    }

    pub(crate) fn take_parameter(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let (name, value) = backend::read_parameter_status(body)?;
        self.settings.report(name, value);
        Ok(())
    }

    /// The next message, whole; for exchanges of our own, whose messages are short.
    ///
    /// # Cancel safety
    /// None: used where the connection is dropped with the future.
    async fn receive(&mut self) -> Result<(u8, BytesMut), ServerFailure> {
        loop {
            if let Some(header) = Header::read(&self.inbox)? {
                if header.body > LONGEST_OWN {
                    return Err(Malformed::Length(i32::MAX).into());
                }
                if self.inbox.len() >= header.whole() {
                    let mut message = self.inbox.split_to(header.whole());
                    message.advance(HEADER);
                    return Ok((header.tag, message));
                }
            }
            self.stream.fill_more(&mut self.inbox).await?;
        }
    }

    async fn send(&mut self) -> Result<(), ServerFailure> {
        Ok(self.stream.drain(&mut self.outbox).await?)
    }
}

/// The longest message expected in an exchange of our own.
const LONGEST_OWN: usize = 1 << 20;

impl Drop for Server {
    fn drop(&mut self) {
        // A goodbye, if the socket takes it at once; otherwise the end of the stream tells.
        let mut goodbye = BytesMut::new();
        write_bare(&mut goodbye, b'X');
        let mut cx = Context::from_waker(Waker::noop());
        if self.outbox.is_empty() && self.streaming == 0 {
            drop(self.stream.poll_drain(&mut cx, &mut goodbye));
        }
    }
}
