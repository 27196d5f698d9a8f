//! What a client was told of a statement's rows, and what the connection at hand would send.
//!
//! A server that has had a statement since before DDL refuses it (`heal`). One that gets it
//! only now would answer with rows of another shape than the client was told, and no error. So
//! before a client that may build on what it was told runs a statement where its rows were
//! never described, we have them described; where they are others, the client hears what the
//! server would have said. That costs one round trip for a statement on a connection.

use super::extended::prepare;
use super::heal::{Told, asks_anew};
use super::inward::Show;
use super::{End, Session};
use crate::prepared::{PREFIX, Shape};
use crate::server::answers::{Awaited, Known, Origin, Portal};
use crate::server::{Gate, Server};
use crate::wire::frontend::{self, Bind, Named};
use crate::wire::{HEADER, Header, TxStatus};

/// Does the server at hand send the rows that a statement's clients were told of?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    AsTold,
    /// It has not been asked yet.
    Unproven,
    /// Others.
    Outdated,
}

/// What a client that was `told` something may expect of a statement on `server`.
pub(super) fn rows(server: &Server, told: Told, of: &Known) -> Rows {
    if told == Told::Nothing || of.is_unnamed() || server.status == TxStatus::Failed {
        return Rows::AsTold;
    }
    let Some(told) = of.statement.rows.get() else { return Rows::AsTold };
    match server.prepared.peek(&of.statement.id) {
        Some(Some(here)) if here == told => Rows::AsTold,
        Some(Some(_)) => Rows::Outdated,
        Some(None) | None => Rows::Unproven,
    }
}

/// Whose rows the Describe of a portal with this `body` tells, where they are not known of this
/// connection: those of the unnamed portal that was bound just before.
pub(super) fn worth_learning(server: &Server, body: &[u8]) -> Option<Known> {
    let Some(Awaited::Bind { of: Some(of), portal: Portal::Unnamed }) = server.awaited.back()
    else {
        return None;
    };
    if Named::read(body) != Ok(Named::Portal(b"")) {
        return None;
    }
    let is_known = matches!(server.prepared.peek(&of.statement.id), Some(Some(_)));
    (!is_known && !of.is_unnamed()).then(|| of.clone())
}

/// Has the server refuse a Bind as if it had had the statement since before its rows changed:
/// what follows is skipped, and a transaction has failed.
pub(super) fn refuse_outdated(server: &mut Server, of: Known) {
    // A name that no server knows.
    let unknown = [PREFIX, b"outdated"].concat();
    frontend::message(&mut server.outbox, b'B', |out| {
        frontend::cstr(out, b"");
        frontend::cstr(out, &unknown);
        out.extend_from_slice(&[0; 6]);
    });
    server.awaited.push_back(Awaited::OutdatedBind { of });
}

/// Whether the Bind at hand can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    NotNeeded,
    /// Not before the server has described the rows.
    Awaited,
}

impl Session {
    /// `messages` begin with a Bind whose rows are unproven: asks the server for them, unless
    /// the client does that itself before it sees any.
    pub(super) fn prove_rows(&mut self, messages: &[u8]) -> Result<Proof, End> {
        let Some(header) = Header::read(messages)? else { return Ok(Proof::NotNeeded) };
        let body = messages.get(HEADER..header.whole().min(messages.len())).unwrap_or_default();
        let name = Bind::read(body)?.statement;
        let Some(of) = self.known(name) else { return Ok(Proof::NotNeeded) };
        if asks_anew(messages, name, self.told) {
            return Ok(Proof::NotNeeded);
        }
        let Some(lease) = &mut self.link else { return Ok(Proof::NotNeeded) };
        let server = &mut **lease.connection();
        prepare(server, &of.statement);
        frontend::write_named_statement(&mut server.outbox, b'D', &of.statement.name);
        frontend::write_bare(&mut server.outbox, b'H');
        server.awaited.push_back(Awaited::Describe { of: Some(of), origin: Origin::Own });
        server.unsynced = true;
        server.gate = Gate::UntilAnswered;
        Ok(Proof::Awaited)
    }

    /// RowDescription or NoData, of which `header` is: what a statement's rows are here.
    pub(super) fn described(&mut self, header: Header) -> Result<Show, End> {
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        let Some(Awaited::Describe { .. }) = server.awaited.front() else {
            return Ok(Show::Pass);
        };
        let Some(Awaited::Describe { of, origin }) = server.awaited.pop_front() else {
            return Ok(Show::Pass);
        };
        if let Some(of) = of.filter(|of| !of.is_unnamed()) {
            let message = server.inbox.get(server.passed..).unwrap_or_default();
            let shape = match (header.tag, message.get(HEADER..header.whole())) {
                (b'n', _) => Some(Shape::NONE),
                (_, Some(body)) => Some(Shape::of_rows(body)?),
                // It is still arriving, and too long to wait for.
                (_, None) => None,
            };
            if let Some(shape) = shape {
                self.rows_are(&of, origin, shape);
            }
        }
        Ok(if origin == Origin::Own { Show::Hide } else { Show::Pass })
    }

    fn rows_are(&mut self, of: &Known, origin: Origin, shape: Shape) {
        let Some(lease) = &mut self.link else { return };
        if let Some(here) = lease.connection().prepared.peek_mut(&of.statement.id) {
            *here = Some(shape);
        }
        let told = *of.statement.rows.get_or_init(|| shape);
        if told != shape && origin == Origin::Client {
            // This client knows better now than those who were told before.
            self.renew(&of.statement);
            if let Some(of) = self.known(&of.name) {
                of.statement.rows.get_or_init(|| shape);
            }
        }
    }
}
