//! Errors of the server's: what it skips with them, and whose names they tell.
//!
//! Always true: what was taken as changed when it was sent, and is skipped, is changed no
//! longer when the error is passed on; no error names a statement as only servers know it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::inward::Show;
use super::{End, Session};
use crate::cancel::Cancelable;
use crate::fault::Fault;
use crate::prepared::{PREFIX, Statement, StatementId};
use crate::server::answers::{Awaited, NameChange};
use crate::server::{CopyIn, Server, Skips};
use crate::wire::backend::{self, ServerError, Severity};
use crate::wire::frontend;
use crate::wire::{HEADER, Header};

impl Session {
    /// A Parse of the unnamed statement has failed: it is gone before its successor is looked at.
    fn lose_unnamed(&mut self) {
        let Some(lease) = &mut self.link else { return };
        put_back_unnamed(lease.connection(), &mut self.unnamed, None);
    }

    /// The server failed what is at the front: what follows up to Sync is skipped.
    pub(super) fn failed(&mut self) -> Result<Show, End> {
        self.failed = true;
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        server.copy = CopyIn::None;
        let unread = server.inbox.get(server.passed..).unwrap_or_default();
        let header = Header::read(unread)?;
        let whole = header.map_or(0, Header::whole).min(unread.len());
        let body = Bytes::copy_from_slice(unread.get(HEADER..whole).unwrap_or_default());
        let said = ServerError::read(&body);
        if said.severity == Severity::Fatal {
            self.server_said_goodbye = true;
        }
        if said.says_another_role()
            && let Some(berth) = &lease.berth
        {
            berth.is_doubtful();
        }
        let is_late =
            said.code == "57014" && self.watch.as_ref().is_some_and(|w| w.has_cancelled());
        if is_late || said.is_of_load_or_time() && !is_wished(&said, &self.registration.client) {
            lease.failed();
        }
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        let (mut stale, mut outdated) = (None, false);
        let (mut lost_unnamed, mut meant) = (false, None);
        // A simple query, or the commit at a Sync, ends with its own ReadyForQuery; after
        // everything else all up to Sync is skipped, simple queries too.
        if !server.awaited.front().is_none_or(Awaited::ends_with_ready) {
            let is_for_query = query_waits_for_it(&server.awaited);
            match server.awaited.front() {
                // It is gone before its successor is looked at.
                Some(Awaited::Parse { change: Some(NameChange::Unnamed(..)), .. }) => {
                    lost_unnamed = true;
                }
                Some(Awaited::Parse { change: Some(NameChange::Taken(name)), .. }) => {
                    meant = Some(name.clone());
                }
                Some(
                    Awaited::Bind { of: Some(of), .. } | Awaited::Describe { of: Some(of), .. },
                ) if !of.is_unnamed() => {
                    meant = Some(of.name.clone());
                    stale = said.stale_plan.then(|| Arc::clone(&of.statement));
                }
                Some(Awaited::OutdatedBind { of }) => {
                    outdated = true;
                    stale = Some(Arc::clone(&of.statement));
                }
                _ => {}
            }
            let unnamed = unnamed_at_failure(server);
            self.skip_to_sync();
            if lost_unnamed {
                self.lose_unnamed();
            }
            if let (Some(unnamed), Some(lease)) = (unnamed, &mut self.link) {
                let server = &mut **lease.connection();
                // What was sent since may displace it.
                let is_last = server.awaited.iter().all(|later| matches!(later, Awaited::Sync));
                server.unnamed = Some(unnamed).filter(|_| is_last);
            }
            // The client is told, so from now on its plans may be new ones.
            if let Some(stale) = stale {
                self.renew(&stale);
            }
            let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
            let server = &mut **lease.connection();
            if is_for_query {
                // The query was skipped with it: the error is its answer.
                frontend::write_bare(&mut server.outbox, b'S');
                server.awaited.push_front(Awaited::Sync);
            } else if server.awaited.is_empty() {
                server.skips = Skips::ToSync;
                server.unsynced = true;
            }
        }
        if is_late {
            // Its own words would be that the user asked for it.
            self.keep_passed();
            Fault::QueryTimeout.write(&mut self.outbox, Severity::Error);
            return Ok(Show::Hide);
        }
        if let Some(fault) = self.failed_to_resume() {
            self.keep_passed();
            fault.write(&mut self.outbox, Severity::Error);
            return Ok(Show::Hide);
        }
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        if outdated {
            self.keep_passed();
            backend::outdated_plan(&mut self.outbox);
            return Ok(Show::Hide);
        }
        let awaited = &server.awaited;
        let renamed = backend::rename(&body, PREFIX, |ours| {
            if meant.is_some() {
                return meant.clone();
            }
            let id: StatementId = std::str::from_utf8(ours).ok()?.parse().ok()?;
            let forgotten = awaited.iter().filter_map(Awaited::forgets);
            let names = std::iter::once(&self.statements).chain(forgotten);
            let known = names.flatten().find(|(_, s)| s.id == id).map(|(name, _)| name.clone());
            // Perhaps it went before, by the statement that was to make it go again.
            known.or_else(|| self.unnamed.as_ref()?.deallocates(ours))
        });
        let Some(renamed) = renamed else { return Ok(Show::Pass) };
        self.keep_passed();
        frontend::message(&mut self.outbox, b'E', |out| out.extend_from_slice(&renamed));
        Ok(Show::Hide)
    }

    /// The server failed what is at the front of the line, and drops what follows up to Sync.
    pub(super) fn skip_to_sync(&mut self) {
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        let end = server.awaited.iter().position(|awaited| matches!(awaited, Awaited::Sync));
        let end = end.unwrap_or(server.awaited.len());
        let skipped: Vec<_> = server.awaited.drain(..end).collect();
        for skipped in skipped.into_iter().rev() {
            take_back(server, &mut self.statements, &mut self.unnamed, skipped);
        }
    }
}

/// The unnamed statement that the server still has, where it failed what is at the front and
/// skips one or more that were to displace it.
fn unnamed_at_failure(server: &Server) -> Option<StatementId> {
    let batch = server.awaited.iter().take_while(|awaited| !matches!(awaited, Awaited::Sync));
    let mut parses = batch.enumerate().filter_map(|(place, awaited)| {
        let Awaited::Parse { prepared: None, displaced, .. } = awaited else { return None };
        Some((place, *displaced))
    });
    // A Parse that fails ends the one that was there before it is looked at.
    parses.next().and_then(|(place, displaced)| displaced.filter(|_| place > 0))
}

/// Did we prepare what is at the front for a simple query behind it?
fn query_waits_for_it(awaited: &VecDeque<Awaited>) -> bool {
    let next = awaited.iter().find(|awaited| !awaited.is_hidden());
    awaited.front().is_some_and(Awaited::is_hidden) && matches!(next, Some(Awaited::Query { .. }))
}

/// Was a statement cancelled because its client asked for it?
fn is_wished(said: &ServerError, client: &Cancelable) -> bool {
    said.code == "57014" && client.was_cancelled()
}

/// A message was skipped or failed: what it would have changed did not change.
fn take_back(
    server: &mut Server,
    statements: &mut HashMap<Bytes, Arc<Statement>>,
    unnamed: &mut Option<Arc<Statement>>,
    skipped: Awaited,
) {
    let change = match skipped {
        Awaited::Parse { prepared, change, .. } => {
            match prepared {
                Some(statement) => drop(server.prepared.pop(&statement.id)),
                None => server.unnamed = None,
            }
            change
        }
        Awaited::Close { evicted: Some(id), .. } => {
            server.prepared.push(id, None);
            None
        }
        Awaited::Execute { change, .. } => change.map(|change| *change),
        Awaited::OwnParseComplete { change } | Awaited::OwnCloseComplete { change } => change,
        Awaited::Query { before, .. } | Awaited::CloseUnnamed { before } => {
            put_back_unnamed(server, unnamed, before);
            None
        }
        Awaited::Close { evicted: None, .. }
        | Awaited::Bind { .. }
        | Awaited::Describe { .. }
        | Awaited::OutdatedBind { .. }
        | Awaited::Sync
        | Awaited::OwnQuery(_)
        | Awaited::FunctionCall => None,
    };
    match change {
        None | Some(NameChange::Taken(_)) => {}
        Some(NameChange::Added(name)) => drop(statements.remove(&name)),
        Some(NameChange::Removed(name, statement)) => drop(statements.insert(name, statement)),
        Some(NameChange::Unnamed(before)) => put_back_unnamed(server, unnamed, before),
        Some(NameChange::Forgot { names, prepared }) => {
            statements.extend(names);
            for id in prepared {
                server.prepared.push(id, None);
            }
        }
    }
}

/// The client's unnamed statement is what it was, unless a message of a later batch has changed
/// it since; that one may be skipped, too.
fn put_back_unnamed(
    server: &mut Server,
    unnamed: &mut Option<Arc<Statement>>,
    before: Option<Arc<Statement>>,
) {
    let later = server.awaited.iter_mut().find_map(|awaited| {
        if let Awaited::Query { before, .. }
        | Awaited::CloseUnnamed { before }
        | Awaited::Parse { change: Some(NameChange::Unnamed(before)), .. }
        | Awaited::OwnParseComplete { change: Some(NameChange::Unnamed(before)) } = awaited
        {
            Some(before)
        } else {
            None
        }
    });
    *later.unwrap_or(unnamed) = before;
}
