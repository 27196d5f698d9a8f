//! From the client towards the server.
//!
//! A batch of extended-protocol messages is looked at only when its Sync, Flush or Query is
//! there, so a client that vanishes half way has run nothing. Names of statements become
//! names of ours; everything else goes on as it came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use forebay_pool::{Request, TraceId};

use super::{End, Intake, Next, Session};
use crate::fault::Fault;
use crate::prepared::{self, PREFIX, Statement};
use crate::server::answers::{Awaited, NameChange, Origin};
use crate::server::{CopyIn, Gate, Residue, Server, Skips};
use crate::sql::effect::{self, Effect, PinReason};
use crate::sql::tags::{self, Tags};
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
const MOST_STATEMENTS: usize = 10_000;
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
            self.idling = None;
            let next = match (self.intake, &self.link) {
                (Intake::SkipToSync, _) => self.skip(header),
                (Intake::Normal, None) => self.unlinked(header)?,
                (Intake::Normal, Some(_)) => self.linked(header)?,
            };
            match next {
                Step::Taken => {}
                Step::Link => return Ok(Next::Link),
                Step::Leave => return Ok(Next::Leave),
            }
        }
    }

    /// Must answers come before more may be sent? A COPY's data may always follow.
    fn is_gated(&mut self) -> bool {
        let Some(lease) = &mut self.link else { return false };
        let server = lease.connection();
        if server.gate == Gate::UntilAnswered && server.awaited.is_empty() {
            server.gate = Gate::Open;
        }
        server.gate == Gate::UntilAnswered && server.copy == CopyIn::None
    }

    /// Does the message at hand build on an earlier batch whose answers may take it back?
    fn must_wait(&mut self, header: Header) -> bool {
        let Some(lease) = &mut self.link else { return false };
        let server = lease.connection();
        if server.awaited.is_empty() {
            server.pipeline.is_empty();
            return false;
        }
        if matches!(header.tag, b'd' | b'c' | b'f') && server.skips == Skips::Nothing {
            // Sent ahead of the server's word that it takes data: it may turn out not to.
            return server.copy == CopyIn::None;
        }
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        let forgets = match header.tag {
            b'Q' => prepared::is_deallocate(body.strip_suffix(&[0]).unwrap_or(body)),
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
        if server.streaming > 0 {
            let n = server.streaming.min(self.inbox.len());
            server.outbox.extend_from_slice(&self.inbox.split_to(n));
            server.streaming -= n;
        }
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
            let limit = self.gateway.settings.max_message;
            let streams = matches!(header.tag, b'Q' | b'B' | b'd' | b'F');
            if !streams && header.body > limit {
                return Err(Fault::TooLong { length: header.body, limit }.into());
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
                    Local::NeedsServer => Ok(Step::Link),
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
            b'P' | b'B' if self.status == TxStatus::Failed && self.ends_transaction(header) => {
                // Only a server can carry out what ends the transaction: one is brought to
                // where the client believes to be.
                self.begin = Some(Bytes::from_static(FAILED_BEGIN));
                Ok(Step::Link)
            }
            b'P' | b'B' | b'D' | b'E' | b'F' if self.status == TxStatus::Failed => {
                self.refuse_batch(&Fault::InFailedTransaction);
                Ok(Step::Taken)
            }
            b'P' | b'B' | b'D' | b'E' | b'F' => Ok(Step::Link),
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
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        match header.tag {
            b'P' => Parse::read(body).is_ok_and(|parse| effect::plain_end(parse.text).is_some()),
            _ => Bind::read(body).is_ok_and(|bind| {
                let named = self.statements.get(bind.statement);
                let statement =
                    if bind.statement.is_empty() { self.unnamed.as_ref() } else { named };
                statement.is_some_and(|statement| effect::plain_end(&statement.text).is_some())
            }),
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

    /// Statements that need no server: a BEGIN that can wait, the end of one that waited,
    /// settings of ours, names that are the client's only.
    fn answer_locally(&mut self, text: &Bytes) -> Local {
        let tag = match (self.status, &self.begin) {
            (TxStatus::Open, Some(_)) => match effect::plain_end(text) {
                Some(tag) => {
                    self.begin = None;
                    self.status = TxStatus::Idle;
                    tag
                }
                None => return Local::NeedsServer,
            },
            (TxStatus::Failed, _) => match effect::plain_end(text) {
                Some(_) => {
                    self.status = TxStatus::Idle;
                    "ROLLBACK"
                }
                None => return Local::NeedsServer,
            },
            (TxStatus::Idle, None) => match effect::plain_begin(text) {
                Some(tag) => {
                    self.begin = Some(text.clone());
                    self.status = TxStatus::Open;
                    tag
                }
                None => match self.answer_about_session(text) {
                    Some(tag) => tag,
                    None => return Local::NeedsServer,
                },
            },
            (TxStatus::Idle, Some(_)) | (TxStatus::Open, None) => return Local::NeedsServer,
        };
        self.unnamed = None;
        backend::command_complete(&mut self.outbox, tag);
        backend::ready_for_query(&mut self.outbox, self.status);
        self.note_deferred();
        Local::Answered
    }

    fn answer_about_session(&mut self, text: &[u8]) -> Option<&'static str> {
        let effects = effect::of(text);
        match effects.as_slice() {
            [Effect::Set { name, value }] if name.starts_with("forebay.") => {
                let (name, value) = (name.clone(), value.clone());
                self.note_own_setting(&name, &value);
                Some("SET")
            }
            [Effect::Deallocate { name: Some(name) }] => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                self.statements.remove(&name).map(|_| "DEALLOCATE")
            }
            [Effect::Deallocate { name: None }] => {
                self.statements.clear();
                Some("DEALLOCATE ALL")
            }
            _ => None,
        }
    }

    /// `forebay.class`, `forebay.feature`, `forebay.traceparent`: settings for us.
    pub(super) fn note_own_setting(&mut self, name: &str, value: &str) {
        match name {
            "forebay.class" => self.who.class_wish = Some(value.to_owned()),
            "forebay.feature" => self.who.feature = Arc::from(value),
            "forebay.traceparent" => self.who.trace = TraceId::from_traceparent(value),
            _ => {}
        }
    }

    /// A message while a server is linked.
    fn linked(&mut self, header: Header) -> Result<Step, End> {
        let taken = self.take(header);
        let body = taken.get(HEADER..).unwrap_or_default();
        let missing = header.whole() - taken.len();
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
        match header.tag {
            b'Q' => {
                let text = body.strip_suffix(&[0]).unwrap_or(body);
                if missing == 0 {
                    frontend::query(body)?;
                }
                let effects = if missing == 0 {
                    effect::of(text)
                } else {
                    // Its end may do anything.
                    server.residue.at_least(Residue::WithStatements);
                    Vec::new()
                };
                effects.iter().for_each(|effect| foresee(server, &mut self.pin, effect));
                let ours = match effects.as_slice() {
                    [Effect::Deallocate { name: Some(name) }] => {
                        self.statements.get(name.as_bytes())
                    }
                    _ => None,
                };
                match ours {
                    Some(statement) if server.transaction_is_known_to_work() => {
                        prepare(server, statement);
                        let text = [b"DEALLOCATE ", &*statement.name].concat();
                        frontend::message(&mut server.outbox, b'Q', |out| {
                            frontend::cstr(out, &text)
                        });
                    }
                    _ => server.outbox.extend_from_slice(&taken),
                }
                server.unnamed = None;
                self.unnamed = None;
                self.portals.clear();
                close_gate(server, &effects);
                server.awaited.push_back(Awaited::Query { effects: VecDeque::from(effects) });
                server.pipeline.changes_unnamed();
                server.pipeline.ends_batch();
                server.streaming = missing;
                server.unsynced = false;
                let tags = tags::of(text);
                let text = Bytes::copy_from_slice(text.get(..text.len().min(2048)).unwrap_or(text));
                self.note_work(tags, &text);
            }
            b'P' => self.parse(body)?,
            b'B' => self.bind(header, &taken)?,
            b'D' => self.describe(body)?,
            b'E' => {
                let portal = frontend::execute(body)?;
                let effect = self.portals.get(portal).cloned();
                let (effect, change) = match effect {
                    Some(effect @ (Effect::DiscardAll | Effect::Deallocate { .. })) => {
                        let change = forget(server, &mut self.statements, &effect);
                        let rest = (effect == Effect::DiscardAll).then_some(Effect::ResetAll);
                        (rest, Some(Box::new(change)))
                    }
                    effect => (effect, None),
                };
                server.awaited.push_back(Awaited::Execute { effect, change });
                server.outbox.extend_from_slice(&taken);
                server.unsynced = true;
            }
            b'C' => self.close(body)?,
            b'H' => server.outbox.extend_from_slice(&taken),
            b'S' => {
                server.outbox.extend_from_slice(&taken);
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
                server.outbox.extend_from_slice(&taken);
                server.streaming = missing;
                server.residue = Residue::Possible;
            }
            b'd' => {
                server.outbox.extend_from_slice(&taken);
                server.streaming = missing;
            }
            b'c' | b'f' => {
                server.outbox.extend_from_slice(&taken);
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

    /// Parse: a name that the server knows already is answered by us, in turn.
    fn parse(&mut self, body: &[u8]) -> Result<(), End> {
        let parse = Parse::read(body)?;
        let (text, tags) = match tags::split(parse.text) {
            Some((text, tags)) => (text, Some(tags)),
            None => (parse.text.into(), None),
        };
        self.note_work(tags, &text);
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        if parse.name.is_empty() {
            // Drivers parse the same text again and again: what it does is known then.
            let again = |s: &Arc<Statement>| s.text == *text && s.types == parse.types;
            let statement = self
                .deallocate(&text, parse.types)
                .or_else(|| self.unnamed.clone().filter(again))
                .unwrap_or_else(|| self.gateway.statements.own(&text, parse.types));
            let Some(lease) = &mut self.link else { return Ok(()) };
            let server = &mut **lease.connection();
            statement.parse(b"").write(&mut server.outbox);
            server.unnamed = Some(statement.id);
            server.pipeline.changes_unnamed();
            let change = Some(NameChange::Unnamed(self.unnamed.replace(statement)));
            server.awaited.push_back(Awaited::Parse {
                origin: Origin::Client,
                prepared: None,
                change,
            });
            return Ok(());
        }
        let name = Bytes::copy_from_slice(parse.name);
        if let Some(existing) = self.statements.get(&name) {
            // The server shall say what is wrong with the text, or that the name is taken: it
            // is, under the name of ours.
            let existing = Arc::clone(existing);
            prepare(server, &existing);
            Parse { name: &existing.name, text: &text, types: parse.types }
                .write(&mut server.outbox);
            let change = Some(NameChange::Taken(name));
            let awaited = Awaited::Parse { origin: Origin::Client, prepared: None, change };
            server.awaited.push_back(awaited);
            return Ok(());
        }
        if self.statements.len() >= MOST_STATEMENTS {
            return Err(Fault::TooManyStatements { limit: MOST_STATEMENTS }.into());
        }
        let path = self.wanted.get("search_path").map(String::as_str);
        let statement = match self.deallocate(&text, parse.types) {
            Some(statement) => statement,
            None => self.gateway.statements.shared(&text, parse.types, path),
        };
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        self.statements.insert(name.clone(), Arc::clone(&statement));
        server.pipeline.changes_names();
        let change = Some(NameChange::Added(name));
        let is_known = server.prepared.get(&statement.id).is_some();
        if is_known && server.transaction_is_known_to_work() {
            server.awaited.push_back(Awaited::OwnParseComplete { change });
        } else {
            if is_known {
                // In a failed transaction the server refuses a Parse, so it has to see it.
                frontend::write_named_statement(&mut server.outbox, b'C', &statement.name);
                let evicted = server.prepared.pop(&statement.id).map(|()| statement.id);
                server.awaited.push_back(Awaited::Close { origin: Origin::Own, evicted });
            }
            evict_for(server, &statement);
            statement.parse(&statement.name).write(&mut server.outbox);
            let prepared = Some(statement.id);
            server.awaited.push_back(Awaited::Parse { origin: Origin::Client, prepared, change });
        }
        Ok(())
    }

    /// `DEALLOCATE name` of a name that is the client's becomes one of our name.
    fn deallocate(&self, text: &[u8], types: &[u8]) -> Option<Arc<Statement>> {
        if !prepared::is_deallocate(text) {
            return None;
        }
        let effect = prepared::effect_of(text);
        let Effect::Deallocate { name: Some(name) } = &effect else { return None };
        let ours = self.statements.get(name.as_bytes())?;
        let text = [b"DEALLOCATE ", &*ours.name].concat();
        Some(self.gateway.statements.with_effect(&text, types, effect))
    }

    fn bind(&mut self, header: Header, taken: &BytesMut) -> Result<(), End> {
        let body = taken.get(HEADER..).unwrap_or_default();
        let bind = Bind::read(body)?;
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        let statement = if bind.statement.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.statements.get(bind.statement)
        };
        let effect = statement.map_or(Effect::Clean, |statement| statement.effect.clone());
        foresee(server, &mut self.pin, &effect);
        if let Effect::Deallocate { name: Some(name) } = &effect
            && let Some(goes) = self.statements.get(name.as_bytes())
        {
            prepare(server, goes);
        }
        close_gate(server, std::slice::from_ref(&effect));
        self.portals.insert(Bytes::copy_from_slice(bind.portal), effect);
        let missing = header.whole() - taken.len();
        let bound = statement.map(|statement| statement.id);
        let name = match statement.map(Arc::clone) {
            Some(statement) if bind.statement.is_empty() => {
                prepare_unnamed(server, &statement);
                Bytes::new()
            }
            Some(statement) => {
                prepare(server, &statement);
                statement.name.clone()
            }
            None => {
                close_unnamed(server, bind.statement);
                unknown(bind.statement)
            }
        };
        server.awaited.push_back(Awaited::Bind { statement: bound });
        if name == bind.statement {
            server.outbox.extend_from_slice(taken);
        } else {
            let rest = body.get(bind.names..).unwrap_or_default();
            write_renamed(&mut server.outbox, header, &bind, &name, rest)?;
        }
        server.streaming = missing;
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), End> {
        let named = Named::read(body)?;
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        let mut described = None;
        match named {
            Named::Portal(_) => {
                frontend::message(&mut server.outbox, b'D', |out| out.extend_from_slice(body))
            }
            Named::Statement(b"") => {
                match &self.unnamed {
                    Some(statement) => prepare_unnamed(server, statement),
                    None => close_unnamed(server, b""),
                }
                frontend::write_named_statement(&mut server.outbox, b'D', b"");
            }
            Named::Statement(name) => match self.statements.get(name) {
                Some(statement) => {
                    described = Some(statement.id);
                    prepare(server, statement);
                    frontend::write_named_statement(&mut server.outbox, b'D', &statement.name);
                }
                None => frontend::write_named_statement(&mut server.outbox, b'D', &unknown(name)),
            },
        }
        server.awaited.push_back(Awaited::Describe { statement: described });
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Result<(), End> {
        let named = Named::read(body)?;
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        match named {
            Named::Portal(name) => {
                self.portals.remove(name);
                frontend::message(&mut server.outbox, b'C', |out| out.extend_from_slice(body));
                server.awaited.push_back(Awaited::Close { origin: Origin::Client, evicted: None });
            }
            Named::Statement(b"") => {
                frontend::write_named_statement(&mut server.outbox, b'C', b"");
                server.unnamed = None;
                self.unnamed = None;
                server.awaited.push_back(Awaited::Close { origin: Origin::Client, evicted: None });
            }
            Named::Statement(name) => {
                // Others may use the server's statement: only the client's name goes.
                server.pipeline.changes_names();
                let name = Bytes::copy_from_slice(name);
                let change = self.statements.remove(&name).map(|s| NameChange::Removed(name, s));
                server.awaited.push_back(Awaited::OwnCloseComplete { change });
            }
        }
        Ok(())
    }

    /// Takes note of which request, class and feature the work at hand belongs to.
    pub(super) fn note_work(&mut self, tags: Option<Tags>, text: &[u8]) {
        if let Some(tags) = tags {
            let trace = tags.traceparent.as_deref().and_then(TraceId::from_traceparent);
            if let (Some(trace), Some(tenant)) = (trace, &self.who.tenant) {
                let request = Request::new(Arc::clone(tenant), trace);
                if let Some(lease) = &mut self.link {
                    lease.attach(request.clone());
                }
                self.work.request = Some(request);
            }
            if let Some(class) = tags.class {
                self.work.class = Some(class);
            }
            if let Some(feature) = tags.feature {
                self.work.feature = Some(feature.into());
            }
        }
        if self.work.request.is_some() && !text.is_empty() && effect::plain_end(text).is_none() {
            self.work.text.clear();
            self.work.text.extend_from_slice(text.get(..text.len().min(2048)).unwrap_or(text));
        }
    }
}

/// What became of one message.
enum Step {
    Taken,
    Link,
    Leave,
}

enum Local {
    Answered,
    NeedsServer,
}

/// What a statement may do is noted before it is sent: it may do it and fail later.
fn foresee(server: &mut Server, pin: &mut Option<PinReason>, effect: &Effect) {
    match effect {
        // What is not followed may stay behind.
        Effect::Set { name, .. } if name.starts_with("forebay.") => {
            server.residue.at_least(Residue::Possible);
        }
        Effect::Clean
        | Effect::Set { .. }
        | Effect::Reset { .. }
        | Effect::ResetAll
        | Effect::Savepoint { .. }
        | Effect::Release { .. }
        | Effect::RollbackTo { .. } => {}
        Effect::Dirty => server.residue.at_least(Residue::Possible),
        Effect::Pin(reason) => {
            pin.get_or_insert(*reason);
            server.residue.at_least(if *reason == PinReason::SqlPrepare {
                Residue::WithStatements
            } else {
                Residue::Possible
            });
        }
        Effect::DiscardAll | Effect::Deallocate { .. } => {
            server.residue.at_least(Residue::WithStatements);
        }
    }
}

/// Makes sure that the server knows `statement` by its name of ours.
fn prepare(server: &mut Server, statement: &Statement) {
    if server.prepared.get(&statement.id).is_some() {
        return;
    }
    evict_for(server, statement);
    server.pipeline.changes_names();
    statement.parse(&statement.name).write(&mut server.outbox);
    let prepared = Some(statement.id);
    server.awaited.push_back(Awaited::Parse { origin: Origin::Own, prepared, change: None });
}

/// Notes `statement` as prepared; the one that was used least makes room.
fn evict_for(server: &mut Server, statement: &Statement) {
    if let Some((evicted, ())) = server.prepared.push(statement.id, ())
        && evicted != statement.id
    {
        let name = [PREFIX, evicted.to_string().as_bytes()].concat();
        frontend::write_named_statement(&mut server.outbox, b'C', &name);
        server.awaited.push_back(Awaited::Close { origin: Origin::Own, evicted: Some(evicted) });
    }
}

/// Names go when what forgets them is sent: what is sent behind it may use them anew.
fn forget(
    server: &mut Server,
    statements: &mut HashMap<Bytes, Arc<Statement>>,
    effect: &Effect,
) -> NameChange {
    server.pipeline.changes_names();
    if let Effect::Deallocate { name: Some(name) } = effect {
        let gone = statements.remove_entry(name.as_bytes());
        let prepared = gone
            .iter()
            .filter_map(|(_, statement)| server.prepared.pop(&statement.id).map(|()| statement.id));
        let prepared = prepared.collect();
        return NameChange::Forgot { names: gone.into_iter().collect(), prepared };
    }
    let prepared = server.prepared.iter().map(|(id, ())| *id).collect();
    server.prepared.clear();
    NameChange::Forgot { names: std::mem::take(statements), prepared }
}

/// Statements that go change what the next messages have to be.
fn close_gate(server: &mut Server, effects: &[Effect]) {
    let forgets =
        |effect: &Effect| matches!(effect, Effect::DiscardAll | Effect::Deallocate { .. });
    if effects.iter().any(forgets) {
        server.gate = Gate::AfterBatch;
    }
}

/// A client without an unnamed statement must not meet another's.
fn close_unnamed(server: &mut Server, name: &[u8]) {
    if name.is_empty() {
        frontend::write_named_statement(&mut server.outbox, b'C', b"");
        server.unnamed = None;
        server.awaited.push_back(Awaited::Close { origin: Origin::Own, evicted: None });
    }
}

/// Makes sure that the server's unnamed statement is this client's.
fn prepare_unnamed(server: &mut Server, statement: &Statement) {
    if server.unnamed != Some(statement.id) {
        statement.parse(b"").write(&mut server.outbox);
        server.unnamed = Some(statement.id);
        server.pipeline.changes_unnamed();
        let awaited = Awaited::Parse { origin: Origin::Own, prepared: None, change: None };
        server.awaited.push_back(awaited);
    }
}

/// A name that no client has, as the server shall complain about it; never one of ours.
fn unknown(name: &[u8]) -> Bytes {
    if name.starts_with(PREFIX) {
        return [b"__client_", name.get(PREFIX.len()..).unwrap_or_default()].concat().into();
    }
    Bytes::copy_from_slice(name)
}

fn write_renamed(
    out: &mut BytesMut,
    header: Header,
    bind: &Bind<'_>,
    name: &[u8],
    rest: &[u8],
) -> Result<(), End> {
    let too_long = || Fault::TooLong { length: header.body, limit: 1 << 30 };
    let length = header.body - bind.statement.len() + name.len() + 4;
    let length = i32::try_from(length).map_err(|_| too_long())?;
    out.extend_from_slice(b"B");
    out.extend_from_slice(&length.to_be_bytes());
    frontend::cstr(out, bind.portal);
    frontend::cstr(out, name);
    out.extend_from_slice(rest);
    Ok(())
}
