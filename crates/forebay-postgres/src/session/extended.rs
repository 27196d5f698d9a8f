//! Messages of the extended protocol that name statements: Parse, Bind, Describe, Close.
//!
//! Names of the client's become names of ours. What the server lacks is prepared ahead of
//! the message that needs it, and makes room for itself; whose unnamed statement the server
//! has is always known, or it is closed first.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::heal::Told;
use super::notify::May;
use super::outward::MOST_STATEMENTS;
use super::rest::foresee;
use super::rows::{self, Rows, refuse_outdated, rows};
use super::{End, Session};
use crate::fault::{Fault, Limit};
use crate::own;
use crate::pins::PinReason;
use crate::prepared::{self, PREFIX, Place, Statement, Statements};
use crate::server::answers::{Awaited, Known, NameChange, Origin, Portal};
use crate::server::{Gate, Names, Server};
use crate::sql::effect::{Effect, Effects};
use crate::sql::names::{self, Use};
use crate::sql::tags;
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::{HEADER, Header};

/// The OID of `text`.
const TEXT_TYPE: u32 = 25;

impl Session {
    /// Parse: a name that the server knows already is answered by us, in turn.
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<(), End> {
        let parse = Parse::read(body)?;
        let (text, tags) = match tags::split(parse.text) {
            Some((text, tags)) => (text, Some(tags)),
            None => (parse.text.into(), None),
        };
        let said = self.note_parse(tags.as_ref());
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        if parse.name.is_empty() {
            self.parse_unnamed(&text, parse.types, said);
            return Ok(());
        }
        self.card.meter.client_prepares();
        let name = Bytes::copy_from_slice(parse.name);
        if let Some(existing) = self.statements.get(&name) {
            // The server shall say what is wrong with the text, or that the name is taken: under
            // a name of ours it is. In a failed transaction it would not take the statement
            // that exists, so where that is missing, the text itself takes a name first.
            let stand_in = if server.prepared.contains(&existing.id) {
                Arc::clone(existing)
            } else {
                self.gateway.statements.own(&text, parse.types)
            };
            prepare(server, &stand_in);
            Parse { name: &stand_in.name, text: &text, types: parse.types }
                .write(&mut server.outbox);
            let change = Some(NameChange::Taken(name));
            let displaced = server.unnamed;
            let awaited =
                Awaited::Parse { origin: Origin::Client, prepared: None, change, displaced };
            server.awaited.push_back(awaited);
            return Ok(());
        }
        if server.names == Names::AlsoOfSql {
            // Only the server knows whether this one is taken, and the client stays with it.
            self.pins.foresee(PinReason::SqlPrepare);
            Parse { name: &unknown(parse.name), text: &text, types: parse.types }
                .write(&mut server.outbox);
            let displaced = server.unnamed;
            let awaited =
                Awaited::Parse { origin: Origin::Client, prepared: None, change: None, displaced };
            server.awaited.push_back(awaited);
            self.keep_tags(&name, said);
            return Ok(());
        }
        if self.statements.len() >= MOST_STATEMENTS {
            return Err(Fault::TooManyStatements { limit: MOST_STATEMENTS }.into());
        }
        let statement = match self.deallocate(&text, parse.types) {
            Some(statement) => statement,
            None => {
                let shared = self.gateway.statements.shared(&text, parse.types, self.place());
                self.sensible(shared, parse.types)
            }
        };
        self.keep_tags(&name, said);
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
                let evicted = server.prepared.pop(&statement.id).map(|_| statement.id);
                server.awaited.push_back(Awaited::Close { origin: Origin::Own, evicted });
            }
            evict_for(server, &statement);
            statement.parse(&statement.name).write(&mut server.outbox);
            let prepared = Some(statement);
            let displaced = server.unnamed;
            let origin = Origin::Client;
            server.awaited.push_back(Awaited::Parse { origin, prepared, change, displaced });
        }
        Ok(())
    }

    /// `DEALLOCATE name` of a name that is the client's becomes one of our name.
    pub(super) fn deallocate(&self, text: &[u8], types: &[u8]) -> Option<Arc<Statement>> {
        if !prepared::is_deallocate(text) {
            return None;
        }
        let effect = prepared::effect_of(text);
        let Effect::Deallocate { name: Some(name) } = &effect else { return None };
        let ours = self.statements.get(name.as_bytes())?;
        let text = [b"DEALLOCATE ", &*ours.name].concat();
        Some(self.gateway.statements.with_effect(&text, types, effect))
    }

    /// `text` with the client's names of statements as the server at hand knows them, and
    /// `effects` with those of what it executes; `None` if it has none of these names.
    pub(super) fn respelled(&mut self, text: &[u8], effects: &mut Effects) -> Option<Vec<u8>> {
        if self.statements.is_empty() {
            return None;
        }
        let server = &mut **self.link.as_mut()?.connection();
        if !server.transaction_is_known_to_work() {
            return None;
        }
        let (mut out, mut done) = (Vec::new(), 0);
        let mut gone = Vec::new();
        for mention in names::mentions(text) {
            if gone.contains(&mention.name) {
                // Nobody has it any more by then, as the server will say.
                continue;
            }
            let Some(statement) = self.statements.get(mention.name.as_bytes()) else { continue };
            let mut stand_in = None;
            match mention.used {
                Use::Runs => {
                    if let Some(effect) = effects.get_mut(mention.statement) {
                        effect.clone_from(&statement.effect);
                    }
                }
                // The name is all that matters, and no table that is gone shall matter.
                Use::Names if !server.prepared.contains(&statement.id) => {
                    stand_in = Some(self.gateway.statements.own(b"", &[0, 0]));
                }
                Use::Names => {}
            }
            let statement = stand_in.as_ref().unwrap_or(statement);
            prepare(server, statement);
            if mention.used == Use::Names {
                gone.push(mention.name);
            }
            out.extend_from_slice(text.get(done..mention.place.start).unwrap_or_default());
            out.extend_from_slice(&statement.name);
            done = mention.place.end;
        }
        if done == 0 {
            return None;
        }
        out.extend_from_slice(text.get(done..).unwrap_or_default());
        Some(out)
    }

    /// A SET of ours with a value that cannot be read becomes one that fails.
    pub(super) fn sensible(&self, statement: Arc<Statement>, types: &[u8]) -> Arc<Statement> {
        match own::nonsense(std::slice::from_ref(&statement.effect)) {
            Some(nonsense) => {
                let fails = nonsense.statement();
                self.gateway.statements.with_effect(fails.as_bytes(), types, Effect::Dirty)
            }
            None => statement,
        }
    }

    /// Where what the client prepares means what it means.
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            database: &self.who.database,
            user: &self.who.identity.user,
            path: self.wanted.get("search_path"),
        }
    }

    /// What the client calls `name`.
    pub(super) fn known(&self, name: &[u8]) -> Option<Known> {
        if name.is_empty() {
            let statement = Arc::clone(self.unnamed.as_ref()?);
            return Some(Known { statement, name: Bytes::new() });
        }
        let (name, statement) = self.statements.get_key_value(name)?;
        Some(Known { statement: Arc::clone(statement), name: name.clone() })
    }

    pub(super) fn bind(&mut self, header: Header, taken: &[u8]) -> Result<Bound, End> {
        let body = taken.get(HEADER..).unwrap_or_default();
        let bind = Bind::read(body)?;
        let mut of = self.known(bind.statement);
        let statement = of.as_ref().map(|of| Arc::clone(&of.statement));
        let effect = statement.as_ref().map_or(Effect::Clean, |s| s.effect.clone());
        if matches!(effect, Effect::Listen { .. })
            && self.may_listen(std::slice::from_ref(&effect)).map_err(Fault::Listen)? == May::Later
        {
            return Ok(Bound::NotYet);
        }
        let Some(lease) = &mut self.link else { return Ok(Bound::Sent) };
        let server = &mut **lease.connection();
        let rows = of.as_ref().map_or(Rows::AsTold, |of| rows(server, self.told, of));
        if rows == Rows::Unproven {
            return Ok(Bound::Unproven);
        }
        server.unsynced = true;
        if !bind.statement.is_empty() {
            self.card.meter.binds();
        }
        let text = statement.as_ref().map_or(&b""[..], |s| &s.text);
        foresee(server, &mut self.pins, text, std::slice::from_ref(&effect));
        if let Effect::Deallocate { name: Some(name) } = &effect
            && let Some(goes) = self.statements.get(name.as_bytes())
        {
            prepare(server, goes);
        }
        close_gate(server, std::slice::from_ref(&effect));
        self.portals.insert(bind.portal, effect);
        let missing = header.whole() - taken.len();
        if rows == Rows::Outdated
            && let Some(of) = of
        {
            refuse_outdated(server, of);
            self.dropping = missing;
            return Ok(Bound::Sent);
        }
        let name = match &mut of {
            Some(of) if of.is_unnamed() => {
                prepare_unnamed(server, &of.statement);
                Bytes::new()
            }
            Some(of) => {
                if let Some(other) =
                    misfit(&self.gateway.statements, server, &of.statement, &bind, body)
                {
                    of.statement = other;
                }
                prepare(server, &of.statement);
                of.statement.name.clone()
            }
            None => {
                close_unnamed(server, bind.statement);
                unknown(bind.statement)
            }
        };
        server.awaited.push_back(Awaited::Bind { of, portal: Portal::of(bind.portal) });
        if name == bind.statement {
            server.outbox.extend_from_slice(taken);
        } else {
            let rest = body.get(bind.names..).unwrap_or_default();
            write_renamed(&mut server.outbox, header, &bind, &name, rest)?;
        }
        server.streaming = missing;
        self.note_portal(bind.portal, statement.as_ref());
        self.note_bind(bind.statement, statement);
        Ok(Bound::Sent)
    }

    pub(super) fn describe(&mut self, body: &[u8]) -> Result<(), End> {
        let named = Named::read(body)?;
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        let Named::Statement(name) = named else {
            self.told = self.told.max(Told::Rows);
            frontend::message(&mut server.outbox, b'D', |out| out.extend_from_slice(body));
            let of = rows::worth_learning(server, body);
            server.awaited.push_back(Awaited::Describe { of, origin: Origin::Client });
            return Ok(());
        };
        self.told = Told::Parameters;
        let of = self.known(name);
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        let name = match &of {
            Some(of) if of.is_unnamed() => {
                prepare_unnamed(server, &of.statement);
                Bytes::new()
            }
            Some(of) => {
                prepare(server, &of.statement);
                of.statement.name.clone()
            }
            None => {
                close_unnamed(server, name);
                unknown(name)
            }
        };
        frontend::write_named_statement(&mut server.outbox, b'D', &name);
        server.awaited.push_back(Awaited::Describe { of, origin: Origin::Client });
        Ok(())
    }

    pub(super) fn close(&mut self, body: &[u8]) -> Result<(), End> {
        let named = Named::read(body)?;
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.unsynced = true;
        match named {
            Named::Portal(name) => {
                self.note_close(name);
                let Some(lease) = &mut self.link else { return Ok(()) };
                let server = &mut **lease.connection();
                self.portals.remove(name);
                frontend::message(&mut server.outbox, b'C', |out| out.extend_from_slice(body));
                server.awaited.push_back(Awaited::Close { origin: Origin::Client, evicted: None });
            }
            Named::Statement(b"") => {
                frontend::write_named_statement(&mut server.outbox, b'C', b"");
                server.unnamed = None;
                server.pipeline.changes_unnamed();
                let before = self.unnamed.take();
                server.awaited.push_back(Awaited::CloseUnnamed { before });
            }
            Named::Statement(name)
                if server.names == Names::AlsoOfSql && !self.statements.contains_key(name) =>
            {
                self.pins.may_end();
                frontend::write_named_statement(&mut server.outbox, b'C', &unknown(name));
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
}

/// What became of a Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Sent,
    /// The session's mailbox will be stirred.
    NotYet,
    /// The rows may be others than the client was told.
    Unproven,
}

/// Makes sure that the server knows `statement` by its name of ours.
pub(super) fn prepare(server: &mut Server, statement: &Arc<Statement>) {
    if server.prepared.get(&statement.id).is_some() {
        return;
    }
    evict_for(server, statement);
    server.pipeline.changes_names();
    statement.parse(&statement.name).write(&mut server.outbox);
    let prepared = Some(Arc::clone(statement));
    let (origin, displaced) = (Origin::Own, server.unnamed);
    server.awaited.push_back(Awaited::Parse { origin, prepared, change: None, displaced });
}

/// A failed transaction takes no statement that the server has not got yet, and refuses its
/// Bind; but first a server counts the values. Where they do not fit, a statement that a failed
/// transaction does take stands in, with as many places.
fn misfit(
    statements: &Statements,
    server: &Server,
    statement: &Statement,
    bind: &Bind<'_>,
    body: &[u8],
) -> Option<Arc<Statement>> {
    if server.prepared.contains(&statement.id) || server.transaction_is_known_to_work() {
        return None;
    }
    let places = statement.parameters();
    if bind.values(body).ok()? == places {
        return None;
    }
    let count = u16::try_from(places).ok()?.to_be_bytes();
    let types = [&count[..], &TEXT_TYPE.to_be_bytes().repeat(places)].concat();
    Some(statements.own(b"ROLLBACK", &types))
}

/// Notes `statement` as prepared; the one that was used least makes room.
pub(super) fn evict_for(server: &mut Server, statement: &Statement) {
    if let Some((evicted, _)) = server.prepared.push(statement.id, None)
        && evicted != statement.id
    {
        let name = [PREFIX, evicted.to_string().as_bytes()].concat();
        frontend::write_named_statement(&mut server.outbox, b'C', &name);
        server.awaited.push_back(Awaited::Close { origin: Origin::Own, evicted: Some(evicted) });
    }
}

/// Names go when what forgets them is sent: what is sent behind it may use them anew.
pub(super) fn forget(
    server: &mut Server,
    statements: &mut HashMap<Bytes, Arc<Statement>>,
    effect: &Effect,
) -> NameChange {
    server.pipeline.changes_names();
    if let Effect::Deallocate { name: Some(name) } = effect {
        let gone = statements.remove_entry(name.as_bytes());
        let prepared = gone
            .iter()
            .filter_map(|(_, statement)| server.prepared.pop(&statement.id).map(|_| statement.id));
        let prepared = prepared.collect();
        return NameChange::Forgot { names: gone.into_iter().collect(), prepared };
    }
    let prepared = server.prepared.iter().map(|(id, _)| *id).collect();
    server.prepared.clear();
    NameChange::Forgot { names: std::mem::take(statements), prepared }
}

/// Statements that go change what the next messages have to be.
pub(super) fn close_gate(server: &mut Server, effects: &[Effect]) {
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
        let displaced = server.unnamed.replace(statement.id);
        server.pipeline.changes_unnamed();
        let awaited =
            Awaited::Parse { origin: Origin::Own, prepared: None, change: None, displaced };
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
    let too_long = || Fault::TooLong { length: header.body, limit: Limit::Protocol };
    let length = header.body - bind.statement.len() + name.len() + 4;
    let length = i32::try_from(length).map_err(|_| too_long())?;
    out.extend_from_slice(b"B");
    out.extend_from_slice(&length.to_be_bytes());
    frontend::cstr(out, bind.portal);
    frontend::cstr(out, name);
    out.extend_from_slice(rest);
    Ok(())
}
