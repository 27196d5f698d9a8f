//! A plan that is out of date, where its client need not know.
//!
//! After DDL, a server refuses a statement whose rows would be others than when it was
//! prepared (0A000, "cached plan must not change result type"). A client that was told what
//! the rows look like has to learn of that. One that asks for it in the same batch has not:
//! outside of a transaction nothing has happened yet, so the statement is prepared anew and
//! the batch sent again. Always true: nothing of its answers had been passed on before.

use std::sync::Arc;

use super::inward::LONGEST_READ;
use super::{End, Session};
use crate::prepared::Statement;
use crate::server::answers::{Awaited, Purpose};
use crate::server::{Gate, Server};
use crate::wire::backend::ServerError;
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::{HEADER, Header};

/// What a client was told of its statements, and may build on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Nothing,
    /// Their rows.
    Rows,
    /// Their rows and their parameters.
    Parameters,
}

/// What becomes of the first answer to a batch that is kept.
pub(super) enum First {
    /// More of it has to come before that can be said.
    Wait,
    /// It is passed on, and the batch is kept no longer.
    Pass,
    /// It is not for the client to see, and the batch stays.
    Hide,
    /// The statement is out of date, and its client need not know. So many bytes say so.
    Heal { stale: Arc<Statement>, said: usize },
}

/// Looks at the first answer to a batch that is kept: `header` is that of the next message.
pub(super) fn look_at_first(server: &Server, told: Told, header: Header) -> First {
    let error_at = match header.tag {
        b'1' | b'3' => {
            let is_hidden = server.awaited.front().is_some_and(Awaited::is_hidden);
            return if is_hidden { First::Hide } else { First::Pass };
        }
        b'E' => 0,
        // The description of parameters comes before the error that there is none of rows.
        b't' => header.whole(),
        _ => return First::Pass,
    };
    let error = server.inbox.get(server.passed + error_at..).unwrap_or_default();
    let Ok(next) = Header::read(error) else { return First::Pass };
    let Some(next) = next else { return First::Wait };
    if next.tag != b'E' || next.body > LONGEST_READ {
        return First::Pass;
    }
    let Some(body) = error.get(HEADER..next.whole()) else { return First::Wait };
    match healable(server, told, body) {
        Some(stale) => First::Heal { stale, said: error_at + next.whole() },
        None => First::Pass,
    }
}

/// The statement that is out of date, if that is what is wrong and the client need not know.
fn healable(server: &Server, told: Told, error: &[u8]) -> Option<Arc<Statement>> {
    if !server.may_send_again() || !ServerError::read(error).stale_plan {
        return None;
    }
    let failed = server.awaited.iter().find(|awaited| !awaited.is_ours_to_give())?;
    let (Awaited::Bind { of: Some(of), .. } | Awaited::Describe { of: Some(of), .. }) = failed
    else {
        return None;
    };
    if of.is_unnamed() {
        return None;
    }
    asks_anew(server.kept.messages(), &of.name, told).then(|| Arc::clone(&of.statement))
}

impl Session {
    /// Takes the failed batch back, and sends it again once the server is ready.
    pub(super) fn heal(&mut self, stale: &Statement, said: usize) {
        self.take_out(said);
        self.skip_to_sync();
        self.renew(stale);
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        if server.awaited.pop_front().is_none() {
            frontend::write_bare(&mut server.outbox, b'S');
            server.pipeline.ends_batch();
            server.unsynced = false;
        }
        server.awaited.push_back(Awaited::OwnQuery(Purpose::Heal));
        server.gate = Gate::UntilAnswered;
        // A cancel that comes now is for the batch that will be sent.
        self.registration.client.prepares();
    }

    /// The server is ready for the batch once more.
    pub(super) fn send_again(&mut self) -> Result<(), End> {
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        server.gate = Gate::Open;
        let (messages, times) = server.take_kept();
        // What it may expect of rows was looked at before.
        let told = std::mem::replace(&mut self.told, Told::Nothing);
        let mut rest = &messages[..];
        while let Some(header) = Header::read(rest)?
            && let Some((message, after)) = rest.split_at_checked(header.whole())
        {
            self.pass_on(header, message)?;
            rest = after;
        }
        self.told = self.told.max(told);
        if let Some(lease) = &mut self.link {
            lease.connection().kept_again(times);
        }
        self.registration.client.goes_on();
        Ok(())
    }

    /// The statement is prepared under a new name from now on: for this client at once, for
    /// others when they prepare it again, or have to be told of it themselves.
    pub(super) fn renew(&mut self, stale: &Statement) {
        let known = &self.gateway.statements;
        let renewed = known.renewed(stale, self.place());
        let statements = self.statements.values_mut().chain(&mut self.unnamed);
        for statement in statements.filter(|statement| statement.id == stale.id) {
            statement.clone_from(&renewed);
        }
    }
}

/// Does a client that sends `messages` learn of the rows of the statement `name` before it
/// gets any, or does it not know what they were?
pub(super) fn asks_anew(messages: &[u8], name: &[u8], told: Told) -> bool {
    let mut asks = told == Told::Nothing;
    let mut bound = None;
    let mut rest = messages;
    while let Ok(Some(header)) = Header::read(rest)
        && let Some((message, after)) = rest.split_at_checked(header.whole())
    {
        let body = message.get(HEADER..).unwrap_or_default();
        match header.tag {
            b'P' if Parse::read(body).is_ok_and(|parse| parse.name == name) => return true,
            b'B' => match Bind::read(body) {
                Ok(bind) if bind.statement == name => {
                    if bound.is_some() && told != Told::Nothing {
                        return false;
                    }
                    bound = Some(bind.portal);
                }
                Ok(_) | Err(_) => {}
            },
            b'D' => match Named::read(body) {
                Ok(Named::Statement(asked)) if asked == name && bound.is_none() => return true,
                Ok(Named::Portal(portal)) if bound == Some(portal) => {
                    asks |= told != Told::Parameters;
                    bound = None;
                }
                Ok(_) | Err(_) => {}
            },
            b'E' if told != Told::Nothing
                && bound.is_some_and(|p| frontend::execute(body) == Ok(p)) =>
            {
                return false;
            }
            _ => {}
        }
        rest = after;
    }
    asks
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn parse(name: &str) -> BytesMut {
        let mut out = BytesMut::new();
        Parse { name: name.as_bytes(), text: b"SELECT 1", types: &[0, 0] }.write(&mut out);
        out
    }

    fn message(tag: u8, parts: &[&[u8]]) -> BytesMut {
        let mut out = BytesMut::new();
        frontend::message(&mut out, tag, |out| parts.iter().for_each(|part| out.put_slice(part)));
        out
    }

    fn bind(name: &str) -> BytesMut {
        message(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"])
    }

    #[test]
    fn who_is_told_anew_or_knows_nothing_need_not_know() {
        let describe_portal = message(b'D', &[b"P\0"]);
        let describe = message(b'D', &[b"Ss\0"]);
        let execute = message(b'E', &[b"\0\0\0\0\0"]);
        let sync = message(b'S', &[]);
        let asks = |parts: &[&BytesMut], told| {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            asks_anew(&all, b"s", told)
        };
        let (s, t) = (bind("s"), bind("t"));
        assert!(asks(&[&s, &execute, &sync], Told::Nothing));
        for told in [Told::Rows, Told::Parameters] {
            assert!(!asks(&[&s, &execute, &sync], told));
            assert!(asks(&[&describe, &s, &execute, &sync], told));
            assert!(asks(&[&parse("s"), &s, &execute, &sync], told));
            assert!(!asks(&[&parse("t"), &s, &execute, &sync], told));
            assert!(!asks(&[&s, &describe_portal, &execute, &s, &execute, &sync], told));
            assert!(!asks(&[&s, &execute, &t, &describe_portal, &execute, &sync], told));
        }
        assert!(asks(&[&s, &describe_portal, &execute, &sync], Told::Rows));
        assert!(!asks(&[&s, &describe_portal, &execute, &sync], Told::Parameters));
    }
}
