//! One operator from login to goodbye: messages in, answers out.
//!
//! A query may have several commands; the first that fails ends it. Always true: what a
//! visitor may make us hold is bounded, and whoever leaves or cancels ends only its own wait.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use forebay_seam::task::Stop;
use forebay_seam::time;

use super::acts::{Operator, Outcome, Refusal};
use super::answer::{self, Formats};
use super::command::{self, Changing, Command};
use super::extended::Prepared;
use super::{Door, PGBOUNCER_VERSION, Visitor};
use crate::cancel::Registration;
use crate::census::{ClientEntry, Newcomer, Replication};
use crate::comings;
use crate::fault::{Fault, Limit};
use crate::gateway::{Flow, Gateway, Inner};
use crate::session::Session;
use crate::stream::Stream;
use crate::tally::Rest;
use crate::wire::backend::{self, Severity};
use crate::wire::{HEADER, Header, Malformed, TxStatus, frontend};

/// The longest message that makes sense here.
const LONGEST: usize = 64 * 1024;
/// Bytes that may wait to be read while a command runs.
const HIGH_WATER: usize = 64 * 1024;

/// One operator.
pub(crate) struct Visit {
    client: Stream,
    inbox: BytesMut,
    pub(super) outbox: BytesMut,
    registration: Registration,
    card: ClientEntry,
    pub(super) operator: Operator,
    pub(super) prepared: Prepared,
    suspension: Option<Suspension>,
}

/// A SUSPEND of this operator; it ends with the visit, since nobody else may come to end it.
struct Suspension(Arc<Inner>);

impl Drop for Suspension {
    fn drop(&mut self) {
        if self.0.control().flow == Flow::Suspended
            && let Err(error) = Gateway::of(&self.0).resume(None)
        {
            tracing::debug!(%error, "somebody else ended the SUSPEND");
        }
    }
}

/// Why a visit ended.
pub(super) enum End {
    Left,
    Fault(Fault),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Left
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::Fault(malformed.into())
    }
}

/// What came while a command ran.
enum Meanwhile<T> {
    Ended(T),
    Cancelled,
    Left,
}

impl Visit {
    pub(crate) fn new(inner: Arc<Inner>, visitor: Visitor, registration: Registration) -> Self {
        let Visitor { client, inbox, user, door, rank, application, .. } = visitor;
        let card = inner.census.enters(Newcomer {
            id: registration.number(&inner.census),
            database: &Arc::from(door.name()),
            user: &user,
            application: &application,
            ends: client.ends(),
            replication: Replication::None,
        });
        Self {
            client,
            inbox,
            outbox: BytesMut::new(),
            registration,
            card,
            operator: Operator { inner, user, door, rank },
            prepared: Prepared::default(),
            suspension: None,
        }
    }

    /// The operator's number among all clients.
    pub(crate) fn id(&self) -> u64 {
        self.card.id
    }

    /// Serves the operator to its end.
    pub(crate) async fn serve(mut self, mut stop: Stop) {
        tracing::info!(
            user = %self.operator.user, database = self.operator.door.name(),
            "an operator has come"
        );
        self.greet();
        match self.converse(&mut stop).await {
            End::Left => comings::client_left(&self.card, "client close request"),
            End::Fault(fault) => {
                comings::client_left(&self.card, fault.reason());
                comings::client_failed(&self.card, &fault);
                fault.write(&mut self.outbox, Severity::Fatal);
            }
        }
        self.card.parts();
        self.suspension = None;
        let Self { client, outbox, .. } = self;
        Session::send_away(client, outbox).await;
    }

    /// AuthenticationOk, ParameterStatus, BackendKeyData, ReadyForQuery.
    fn greet(&mut self) {
        let out = &mut self.outbox;
        backend::authentication(out, 0, &[]);
        let version = match self.operator.door {
            Door::PgBouncer => format!("{PGBOUNCER_VERSION}/bouncer"),
            Door::Forebay => {
                let office = self.operator.inner.office.get();
                let version = office.map_or(PGBOUNCER_VERSION, |office| office.version());
                format!("{version}/forebay")
            }
        };
        let parameters = [
            ("server_version", version.as_str()),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ];
        for (name, value) in parameters {
            backend::parameter_status(out, name, value);
        }
        let (pid, secret) = self.registration.key(&self.operator.inner.plan().fleet);
        backend::backend_key_data(out, pid, &secret);
        backend::ready_for_query(out, TxStatus::Idle);
    }

    async fn converse(&mut self, stop: &mut Stop) -> End {
        loop {
            let (tag, body) = match self.receive(stop).await {
                Ok(message) => message,
                Err(end) => return end,
            };
            self.asks();
            let taken = match tag {
                b'Q' => self.query(&body).await,
                b'X' => return End::Left,
                b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' => self.extended(tag, &body).await,
                tag => Err(Fault::Unexpected { tag, state: "in the console" }.into()),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    fn asks(&mut self) {
        let now = self.operator.inner.census.moment(time::now());
        self.card.asks(now);
    }

    /// The next message, once what is due has been sent.
    async fn receive(&mut self, stop: &mut Stop) -> Result<(u8, BytesMut), End> {
        self.card.meter.sent(self.outbox.len());
        self.client.drain(&mut self.outbox).await?;
        self.outbox = BytesMut::new();
        loop {
            if let Some(header) = Header::read(&self.inbox)? {
                if header.body > LONGEST {
                    let limit = Limit::Console(LONGEST);
                    return Err(Fault::TooLong { length: header.body, limit }.into());
                }
                if self.inbox.len() >= header.whole() {
                    let mut message = self.inbox.split_to(header.whole());
                    self.card.meter.received(message.len());
                    return Ok((header.tag, message.split_off(HEADER)));
                }
            }
            tokio::select! {
                filled = self.client.fill_more(&mut self.inbox) => filled?,
                () = stop.told() => return Err(Fault::Stopping.into()),
            }
        }
    }

    /// A simple query: its commands in turn.
    async fn query(&mut self, body: &[u8]) -> Result<(), End> {
        let text = String::from_utf8_lossy(frontend::query(body)?).into_owned();
        match command::read(&text) {
            Ok(commands) if commands.is_empty() => frontend::write_bare(&mut self.outbox, b'I'),
            Ok(commands) => {
                for command in &commands {
                    match self.attend(command).await? {
                        Ok(outcome) => self.show(&outcome, &Formats::default()),
                        Err(refusal) => {
                            self.refuse(&refusal);
                            break;
                        }
                    }
                }
            }
            Err(unreadable) => self.refuse(&unreadable.into()),
        }
        self.ready();
        Ok(())
    }

    pub(super) fn ready(&mut self) {
        let now = self.operator.inner.census.moment(time::now());
        self.card.answered(now, Rest::OutsideTransaction);
        backend::ready_for_query(&mut self.outbox, TxStatus::Idle);
    }

    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let (code, text) = (refusal.code(), refusal.to_string());
        backend::error_response(&mut self.outbox, Severity::Error, code, &text, None, None);
    }

    /// Carries `command` out; meanwhile the operator may cancel it, or leave.
    pub(super) async fn attend(
        &mut self,
        command: &Command,
    ) -> Result<Result<Outcome, Refusal>, End> {
        let operator = self.operator.clone();
        let mut act = pin!(operator.act(command));
        let (client, inbox) = (&mut self.client, &mut self.inbox);
        let cancelable = &self.registration.client;
        let meanwhile = poll_fn(|cx| {
            if let Poll::Ready(ended) = act.as_mut().poll(cx) {
                return Poll::Ready(Meanwhile::Ended(ended));
            }
            if cancelable.poll_wait(cx).is_ready() {
                return Poll::Ready(Meanwhile::Cancelled);
            }
            while inbox.len() < HIGH_WATER {
                match client.poll_fill(cx, inbox) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Meanwhile::Left),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await;
        self.registration.client.rests();
        if *command == Command::Change(Changing::Suspend)
            && !matches!(meanwhile, Meanwhile::Ended(Err(_)))
        {
            self.suspension = Some(Suspension(Arc::clone(&self.operator.inner)));
        }
        match meanwhile {
            Meanwhile::Ended(ended) => Ok(ended),
            Meanwhile::Cancelled => Ok(Err(Refusal::Cancelled)),
            Meanwhile::Left => Err(End::Left),
        }
    }

    fn show(&mut self, outcome: &Outcome, formats: &Formats) {
        let out = &mut self.outbox;
        match outcome {
            Outcome::Rows { columns, rows } => {
                answer::row_description(out, columns, formats);
                rows.iter().for_each(|row| answer::data_row(out, columns, formats, row));
                backend::command_complete(out, "SHOW");
            }
            Outcome::Done(tag) => backend::command_complete(out, tag),
            Outcome::Noted { notice, detail, tag } => {
                backend::notice(out, notice, detail.as_deref());
                backend::command_complete(out, tag);
            }
        }
    }
}
