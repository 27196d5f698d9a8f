//! From the client towards the server.
//!
//! A batch of extended-protocol messages is looked at only when its Sync, Flush or Query is
//! there, so a client that vanishes half way has run nothing. Names of statements become
//! names of ours; everything else goes on as it came.

use bytes::{Buf, Bytes, BytesMut};
use forebay_seam::time;

use super::extended::{Bound, close_gate, forget};
use super::heal::Told;
use super::local::Local;
use super::notify::May;
use super::parking::Told as Lost;
use super::rest::foresee;
use super::rows::Proof;
use super::{End, Intake, Next, Session};
use crate::cancel::Begun;
use crate::fault::{Fault, Limit};
use crate::own;
use crate::params::quote_text;
use crate::prepared;
use crate::server::answers::{Awaited, Purpose};
use crate::server::{CopyIn, Flush, Gate, Residue, Server, Sets, Skips};
use crate::sql::effect::{self, Effect, Effects};
use crate::sql::{names, transaction};
use crate::wire::backend::{self, Severity};
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::{HEADER, Header, TxStatus};

/// A batch that is longer goes on in parts.
pub(super) const LONGEST_BATCH: usize = 256 * 1024;
/// Queries, Binds and COPY data from this length on are passed on while they arrive.
const STREAM_FROM: usize = 64 * 1024;
/// Of a message that is passed on while it arrives, so much is looked at.
const HEAD: usize = 4 * 1024;
/// Named statements of one client; a client that needs more leaks them.
pub(super) const MOST_STATEMENTS: usize = 10_000;
/// Opens a transaction that has failed: the savepoint does not exist.
const FAILED_BEGIN: &[u8] = b"BEGIN; ROLLBACK TO SAVEPOINT forebay";

impl Session {
    /// Digests what the client has sent, as far as that goes now.
    pub(super) fn outward(&mut self) -> Result<Next, End> {
        loop {
            if !self.pass_streaming() || self.is_gated() {
                return Ok(Next::Exchange);
            }
            let Some(header) = Header::read(&self.inbox)? else { return Ok(Next::Exchange) };
            if self.batch == 0 {
                self.batch = self.measure_batch()?;
                if self.batch == 0 {
                    return Ok(Next::Exchange);
                }
            }
            if self.must_wait(header) {
                return Ok(Next::Exchange);
            }
            self.goes_on();
            let next = match (self.intake, &self.link) {
                (Intake::SkipToSync, _) => self.skip(header),
                (Intake::Normal, None) => self.unlinked(header)?,
                (Intake::Normal, Some(lease)) if lease.is_fenced() => {
                    return Err(self.server_gone());
                }
                (Intake::Normal, Some(_)) => self.linked(header)?,
            };
            match next {
                Step::Taken => {}
                Step::Link => return Ok(Next::Link),
                Step::Wait | Step::Prove => return Ok(Next::Exchange),
                Step::Leave => return Ok(Next::Leave),
            }
        }
    }

    /// Must answers come before more may be sent? A COPY's data may always follow.
    fn is_gated(&mut self) -> bool {
        let Some(lease) = &mut self.link else { return false };
        let server = lease.connection();
        let waits = server.gate == Gate::UntilAnswered;
        if waits && server.awaited.is_empty() {
            server.gate = Gate::Open;
            return false;
        }
        waits && server.copy == CopyIn::None
    }

    /// Does the message at hand build on an earlier batch whose answers may take it back?
    fn must_wait(&mut self, header: Header) -> bool {
        let Some(lease) = &mut self.link else { return false };
        let server = lease.connection();
        if server.awaited.is_empty() {
            server.pipeline.is_empty();
            server.flush = Flush::MayWait;
            let now = time::now();
            let moment = self.gateway.census.moment(now);
            self.card.asks(moment);
            self.cancels_due = self.registration.client.begins(now);
            return self.cancels_due == Begun::Held;
        }
        if matches!(header.tag, b'd' | b'c' | b'f') && server.skips == Skips::Nothing {
            // Sent ahead of the server's word that it takes data: it may turn out not to. The
            // word comes by itself, but not that there is no COPY at all.
            let waits = server.copy == CopyIn::None;
            if waits && server.unsynced && server.flush == Flush::MayWait {
                frontend::write_bare(&mut server.outbox, b'H');
                server.flush = Flush::Asked;
            }
            return waits;
        }
        if header.tag == b'X' {
            // A goodbye comes behind what was asked before.
            return server.copy == CopyIn::None;
        }
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        let forgets = match header.tag {
            b'Q' => {
                let text = body.strip_suffix(&[0]).unwrap_or(body);
                let is_ours = |name: &str| self.statements.contains_key(name.as_bytes());
                prepared::is_deallocate(text)
                    || !self.statements.is_empty()
                        && names::mentions(text).iter().any(|mention| is_ours(&mention.name))
            }
            b'P' => Parse::read(body).is_ok_and(|parse| prepared::is_deallocate(parse.text)),
            _ => false,
        };
        if forgets {
            return server.awaited.iter().any(Awaited::ends_with_ready)
                && server.copy == CopyIn::None;
        }
        let (names, unnamed) =
            (server.pipeline.names_are_open(), server.pipeline.unnamed_is_open());
        if !names && !unnamed || server.copy == CopyIn::Receiving {
            return false;
        }
        let statement = match header.tag {
            b'P' => match Parse::read(body) {
                // A new unnamed statement replaces whichever there was.
                Ok(parse) => Some(parse.name).filter(|name| !name.is_empty()),
                Err(_) => None,
            },
            b'B' => Bind::read(body).ok().map(|bind| bind.statement),
            b'D' | b'C' => match Named::read(body) {
                Ok(Named::Statement(name)) => Some(name),
                Ok(Named::Portal(_)) | Err(_) => None,
            },
            _ => None,
        };
        statement.is_some_and(|name| if name.is_empty() { unnamed } else { names })
    }

    /// Moves bytes of a long message on, or away. `false`: more of them have to come.
    fn pass_streaming(&mut self) -> bool {
        let dropped = self.dropping.min(self.inbox.len());
        self.inbox.advance(dropped);
        self.dropping -= dropped;
        if self.dropping > 0 {
            return false;
        }
        let Some(lease) = &mut self.link else { return true };
        let server = lease.connection();
        server.stream_from(&mut self.inbox);
        server.streaming == 0
    }

    /// How many bytes at the start of the inbox make a batch that can be worked on; 0 if more
    /// have to come.
    fn measure_batch(&mut self) -> Result<usize, End> {
        let mut end = 0;
        self.needs = 0;
        loop {
            let rest = self.inbox.get(end..).unwrap_or_default();
            let Some(header) = Header::read(rest)? else { break };
            let limit = self.plan.settings.max_message;
            let streams = matches!(header.tag, b'Q' | b'B' | b'd' | b'F');
            if !streams && header.body > limit {
                return Err(Fault::TooLong {
                    length: header.body,
                    limit: Limit::MaxMessage(limit),
                }
                .into());
            }
            if rest.len() < header.whole() {
                // What comes before it can be worked on; a long one can begin.
                let begins = streams && header.whole() > STREAM_FROM && rest.len() >= HEAD;
                if begins {
                    return Ok(self.inbox.len());
                }
                self.needs = end + header.whole();
                return Ok(0);
            }
            end += header.whole();
            match header.tag {
                b'P' | b'B' | b'D' | b'E' | b'C' => {}
                _ => return Ok(end),
            }
        }
        Ok(if end >= LONGEST_BATCH { end } else { 0 })
    }

    /// Takes a message out of the inbox: its header and what is there of its body.
    fn take(&mut self, header: Header) -> BytesMut {
        let whole = header.whole().min(self.inbox.len());
        self.batch = self.batch.saturating_sub(header.whole());
        self.inbox.split_to(whole)
    }

    fn skip(&mut self, header: Header) -> Step {
        let taken = self.take(header);
        self.dropping = header.whole() - taken.len();
        match header.tag {
            b'S' => {
                self.intake = Intake::Normal;
                backend::ready_for_query(&mut self.outbox, self.status);
                Step::Taken
            }
            b'X' => Step::Leave,
            _ => Step::Taken,
        }
    }

    /// A message while no server is linked.
    fn unlinked(&mut self, header: Header) -> Result<Step, End> {
        if self.tell_lost(header) == Lost::Lost {
            return Ok(Step::Taken);
        }
        match header.tag {
            b'Q' => {
                let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len()));
                let whole = self.inbox.len() >= header.whole();
                let text = body.filter(|_| whole).map(frontend::query).transpose()?;
                let local = match text {
                    Some(text) if effect::may_need_no_server(text) => {
                        self.answer_locally(&Bytes::copy_from_slice(text))
                    }
                    Some(_) | None => Local::NeedsServer,
                };
                match local {
                    Local::Answered => {
                        self.card.meter.answers_itself();
                        self.take(header);
                        Ok(Step::Taken)
                    }
                    Local::NeedsServer if self.status == TxStatus::Failed => {
                        let taken = self.take(header);
                        self.dropping = header.whole() - taken.len();
                        Fault::InFailedTransaction.write(&mut self.outbox, Severity::Error);
                        backend::ready_for_query(&mut self.outbox, self.status);
                        Ok(Step::Taken)
                    }
                    Local::NeedsServer => Ok(self.link_for(header)),
                }
            }
            b'C' => {
                // Names are the client's, and a portal needs a transaction on a server.
                let taken = self.take(header);
                if let Named::Statement(name) =
                    Named::read(taken.get(HEADER..).unwrap_or_default())?
                {
                    self.statements.remove(name);
                    if name.is_empty() {
                        self.unnamed = None;
                    }
                }
                frontend::write_bare(&mut self.outbox, b'3');
                Ok(Step::Taken)
            }
            b'P' | b'B' if self.answer_batch() == Local::Answered => Ok(Step::Taken),
            b'P' | b'B' if self.status == TxStatus::Failed && self.ends_transaction(header) => {
                // Only a server can carry out what ends the transaction: one is brought to
                // where the client believes to be.
                self.begin = Some(FAILED_BEGIN.into());
                Ok(Step::Link)
            }
            b'P' | b'B' | b'D' | b'E' | b'F' if self.status == TxStatus::Failed => {
                let refusal = self.refusal(header);
                self.refuse_batch(&refusal);
                Ok(Step::Taken)
            }
            b'P' | b'B' => Ok(self.link_for(header)),
            b'D' | b'E' | b'F' => Ok(Step::Link),
            b'S' => {
                self.take(header);
                backend::ready_for_query(&mut self.outbox, self.status);
                Ok(Step::Taken)
            }
            // A lone Flush links nothing, and data of a COPY that has failed is nobody's.
            b'H' | b'd' | b'c' | b'f' => {
                let taken = self.take(header);
                self.dropping = header.whole() - taken.len();
                Ok(Step::Taken)
            }
            b'X' => Ok(Step::Leave),
            tag => Err(Fault::Unexpected { tag, state: "while idle" }.into()),
        }
    }

    /// Is the Parse or Bind at hand one of a plain COMMIT or ROLLBACK?
    fn ends_transaction(&self, header: Header) -> bool {
        self.end_at_hand(header).is_some()
    }

    /// The tag of the plain COMMIT or ROLLBACK that the Query, Parse or Bind at hand is.
    pub(super) fn end_at_hand(&self, header: Header) -> Option<&'static str> {
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        match header.tag {
            b'Q' => transaction::end(frontend::query(body).ok()?),
            b'P' => transaction::end(Parse::read(body).ok()?.text),
            b'B' => {
                let bind = Bind::read(body).ok()?;
                let named = self.statements.get(bind.statement);
                let statement =
                    if bind.statement.is_empty() { self.unnamed.as_ref() } else { named };
                transaction::end(&statement?.text)
            }
            _ => None,
        }
    }

    /// The message at hand could not be carried out: its error, and the end of its batch.
    pub(super) fn refuse_batch(&mut self, fault: &Fault) {
        let Ok(Some(header)) = Header::read(&self.inbox) else { return };
        let taken = self.take(header);
        self.dropping = header.whole() - taken.len();
        fault.write(&mut self.outbox, Severity::Error);
        if matches!(header.tag, b'Q' | b'F') {
            backend::ready_for_query(&mut self.outbox, self.status);
        } else {
            self.intake = Intake::SkipToSync;
        }
    }

    /// A message while a server is linked.
    fn linked(&mut self, header: Header) -> Result<Step, End> {
        // Lent, not split off: a buffer that is shared has memory besides.
        let mut inbox = std::mem::take(&mut self.inbox);
        let whole = header.whole().min(inbox.len());
        self.batch = self.batch.saturating_sub(header.whole());
        let message = inbox.get(..whole).unwrap_or_default();
        let mut step = self.pass_on(header, message);
        if matches!(step, Ok(Step::Prove)) {
            step = match self.prove_rows(&inbox) {
                Ok(Proof::Awaited) => Ok(Step::Wait),
                Ok(Proof::NotNeeded) => {
                    let told = std::mem::replace(&mut self.told, Told::Nothing);
                    let step = self.pass_on(header, message);
                    self.told = told;
                    step
                }
                Err(end) => Err(end),
            };
        }
        if matches!(step, Ok(Step::Wait)) {
            self.batch += header.whole();
            if let Some(lease) = &mut self.link {
                // It comes once more.
                lease.connection().kept.forget();
            }
        } else {
            self.unsent = false;
            inbox.advance(whole);
        }
        self.inbox = inbox;
        step
    }

    /// A message for the linked server: `taken` is its header and what is there of its body.
    pub(super) fn pass_on(&mut self, header: Header, taken: &[u8]) -> Result<Step, End> {
        let body = taken.get(HEADER..).unwrap_or_default();
        let missing = header.whole() - taken.len();
        let text = body.strip_suffix(&[0]).unwrap_or(body);
        let mut effects = match header.tag {
            b'Q' if missing == 0 => self.effects(text),
            _ => Effects::new(),
        };
        let Some(lease) = &mut self.link else { return Ok(Step::Link) };
        let server = &mut **lease.connection();
        if server.skips == Skips::ToSync {
            match header.tag {
                b'S' => server.skips = Skips::Nothing,
                b'X' => return Ok(Step::Leave),
                _ => {
                    self.dropping = missing;
                    return Ok(Step::Taken);
                }
            }
        }
        if missing == 0 {
            match header.tag {
                // What is parsed at once is never out of date.
                b'P' if body.starts_with(&[0]) && self.who.backend.named.is_empty() => {}
                b'P' | b'B' | b'D' | b'C' => server.keep_from_here(),
                _ => {}
            }
            server.keep(header.tag, taken);
        } else {
            server.kept.forget();
        }
        match header.tag {
            b'Q' => {
                if missing == 0 {
                    frontend::query(body)?;
                } else {
                    // Its end may do anything.
                    server.residue.at_least(Residue::WithStatements);
                    server.sets = Sets::Perhaps;
                    self.pins.suspect();
                }
                if effects.iter().any(|effect| matches!(effect, Effect::Listen { .. }))
                    && self.may_listen(&effects).map_err(Fault::Listen)? == May::Later
                {
                    return Ok(Step::Wait);
                }
                let respelled = self.respelled(text, &mut effects);
                let Some(lease) = &mut self.link else { return Ok(Step::Link) };
                let server = &mut **lease.connection();
                foresee(server, &mut self.pins, text, &effects);
                if let Some(name) = own::shown(text)
                    && server.transaction_is_known_to_work()
                {
                    // For the server, which answers in turn.
                    show_ahead(server, name, &self.who.own.value(name));
                }
                match (respelled, own::nonsense(&effects)) {
                    (_, Some(nonsense)) => {
                        frontend::write_query(&mut server.outbox, &nonsense.statement());
                    }
                    (Some(text), None) => {
                        frontend::message(&mut server.outbox, b'Q', |out| {
                            frontend::cstr(out, &text);
                        });
                    }
                    (None, None) => server.outbox.extend_from_slice(taken),
                }
                server.unnamed = None;
                let before = self.unnamed.take();
                if !self.who.backend.named.is_empty() {
                    self.path = self.path.after(text);
                }
                self.portals.remove(b"");
                close_gate(server, &effects);
                let effects = effects.into_iter();
                server.awaited.push_back(Awaited::Query { effects, before });
                server.pipeline.changes_unnamed();
                server.pipeline.ends_batch();
                server.streaming = missing;
                server.unsynced = false;
                self.note_text(text, missing);
                self.note_query(text);
            }
            b'P' => self.parse(body)?,
            b'B' => match self.bind(header, taken)? {
                Bound::Sent => {}
                Bound::NotYet => return Ok(Step::Wait),
                Bound::Unproven => return Ok(Step::Prove),
            },
            b'D' => self.describe(body)?,
            b'E' => {
                let portal = frontend::execute(body)?;
                let effect = self.portals.get(portal).cloned();
                if effect.is_none() {
                    // Bound too long ago to be known.
                    server.residue.at_least(Residue::Possible);
                    self.pins.suspect();
                }
                let (effect, change) = match effect {
                    Some(effect @ (Effect::DiscardAll | Effect::Deallocate { .. })) => {
                        let change = forget(server, &mut self.statements, &effect);
                        let rest = (effect == Effect::DiscardAll).then_some(Effect::ResetAll);
                        (rest, Some(Box::new(change)))
                    }
                    effect => (effect, None),
                };
                server.awaited.push_back(Awaited::Execute { effect, change });
                server.outbox.extend_from_slice(taken);
                server.unsynced = true;
                self.note_execute(portal, body);
            }
            b'C' => self.close(body)?,
            b'H' => server.outbox.extend_from_slice(taken),
            b'S' => {
                server.outbox.extend_from_slice(taken);
                // The server ignores a Sync while it takes COPY data: it owes nothing.
                if server.copy == CopyIn::None {
                    server.awaited.push_back(Awaited::Sync);
                    server.pipeline.ends_batch();
                    server.unsynced = false;
                }
            }
            b'F' => {
                server.awaited.push_back(Awaited::FunctionCall);
                server.pipeline.ends_batch();
                server.outbox.extend_from_slice(taken);
                server.streaming = missing;
                server.residue.at_least(Residue::Possible);
                server.sets = Sets::Perhaps;
                self.pins.suspect();
                self.note_function();
            }
            b'd' => {
                server.outbox.extend_from_slice(taken);
                server.streaming = missing;
            }
            b'c' | b'f' => {
                server.outbox.extend_from_slice(taken);
                server.copy = CopyIn::None;
            }
            b'X' => return Ok(Step::Leave),
            tag => return Err(Fault::Unexpected { tag, state: "in a session" }.into()),
        }
        if let Some(lease) = &mut self.link
            && lease.connection().gate == Gate::AfterBatch
            && matches!(header.tag, b'Q' | b'S' | b'H')
        {
            lease.connection().gate = Gate::UntilAnswered;
        }
        self.answer_in_turn();
        Ok(Step::Taken)
    }
}

/// Lets the server know a setting of ours until the end of its transaction.
fn show_ahead(server: &mut Server, name: &str, value: &str) {
    let mut sql = String::from("SELECT pg_catalog.set_config(");
    quote_text(&mut sql, name);
    sql.push(',');
    quote_text(&mut sql, value);
    sql.push_str(",true)");
    frontend::write_query(&mut server.outbox, &sql);
    server.awaited.push_back(Awaited::OwnQuery(Purpose::Show));
    server.pipeline.ends_batch();
}

/// What became of one message.
pub(super) enum Step {
    Taken,
    Link,
    /// Nothing was taken: the session's mailbox will be stirred, or answers have to come.
    Wait,
    /// Nothing was taken: what the statement's rows are has to be seen to.
    Prove,
    Leave,
}
