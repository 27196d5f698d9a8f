//! The extended protocol, for drivers that know no other: statements without parameters.
//!
//! PgBouncer refuses it. A statement is one command; its rows are made when its portal runs
//! first, and kept while the client takes them in parts.

use std::collections::HashMap;
use std::vec::IntoIter;

use super::acts::{Outcome, Refusal};
use super::answer::{self, Format, Formats};
use super::command::{self, Command};
use super::table::{Column, Row};
use super::visit::{End, Visit};
use crate::wire::backend;
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::{Fields, Malformed};

/// Statements, and portals, that one visitor may have.
const MOST: usize = 100;

/// What a visitor has prepared and bound.
#[derive(Default)]
pub(super) struct Prepared {
    /// Nothing: an empty text.
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
    intake: Intake,
}

#[derive(Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Normal,
    /// Something failed: the rest of the batch is dropped.
    SkipToSync,
}

struct Portal {
    command: Option<Command>,
    formats: Formats,
    /// Rows that the client has not taken yet.
    rest: Option<(&'static [Column], IntoIter<Row>)>,
}

impl Visit {
    /// A message of the extended protocol.
    pub(super) async fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), End> {
        if tag == b'S' {
            self.prepared.intake = Intake::Normal;
            // There are no transactions: portals live as long as their batch.
            self.prepared.portals.clear();
            self.ready();
            return Ok(());
        }
        if self.prepared.intake == Intake::SkipToSync || tag == b'H' {
            return Ok(());
        }
        let done = match tag {
            b'P' => self.parse(body)?,
            b'B' => self.bind(body)?,
            b'D' => self.describe(body)?,
            b'E' => self.execute(body).await?,
            _ => self.close(body)?,
        };
        if let Err(refusal) = done {
            self.prepared.intake = Intake::SkipToSync;
            self.refuse(&refusal);
        }
        Ok(())
    }

    fn parse(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        let parse = Parse::read(body)?;
        let command = match command::read(&String::from_utf8_lossy(parse.text)) {
            Ok(commands) if commands.len() > 1 => {
                let text = "a prepared statement has one command";
                return Ok(Err(Refusal::Argument(text.into())));
            }
            Ok(commands) => commands.into_iter().next(),
            Err(unreadable) => return Ok(Err(unreadable.into())),
        };
        let statements = &mut self.prepared.statements;
        if statements.len() >= MOST && !statements.contains_key(parse.name) {
            return Ok(Err(too_many("prepared statements")));
        }
        statements.insert(parse.name.to_vec(), command);
        frontend::write_bare(&mut self.outbox, b'1');
        Ok(Ok(()))
    }

    fn bind(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        let bind = Bind::read(body)?;
        let mut fields = Fields::new(body);
        fields.bytes(bind.names)?;
        let formats = usize::from(fields.u16()?);
        fields.bytes(formats * 2)?;
        if fields.u16()? > 0 {
            return Ok(Err(Refusal::Argument("a command takes no parameters".into())));
        }
        let mut formats = Formats::default();
        for _ in 0..fields.u16()? {
            formats.0.push(match fields.u16()? {
                0 => Format::Text,
                1 => Format::Binary,
                _ => return Err(Malformed::Value),
            });
        }
        let Some(command) = self.prepared.statements.get(bind.statement).cloned() else {
            return Ok(Err(missing("prepared statement", bind.statement)));
        };
        let portals = &mut self.prepared.portals;
        if portals.len() >= MOST && !portals.contains_key(bind.portal) {
            return Ok(Err(too_many("portals")));
        }
        portals.insert(bind.portal.to_vec(), Portal { command, formats, rest: None });
        frontend::write_bare(&mut self.outbox, b'2');
        Ok(Ok(()))
    }

    fn describe(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        let (command, formats) = match Named::read(body)? {
            Named::Statement(name) => match self.prepared.statements.get(name) {
                Some(command) => {
                    backend::no_parameters(&mut self.outbox);
                    (command, &Formats::default())
                }
                None => return Ok(Err(missing("prepared statement", name))),
            },
            Named::Portal(name) => match self.prepared.portals.get(name) {
                Some(portal) => (&portal.command, &portal.formats),
                None => return Ok(Err(missing("portal", name))),
            },
        };
        let columns = match command {
            Some(command) => match self.operator.columns(command) {
                Ok(columns) => columns,
                Err(refusal) => return Ok(Err(refusal)),
            },
            None => None,
        };
        match columns {
            Some(columns) => answer::row_description(&mut self.outbox, columns, formats),
            None => frontend::write_bare(&mut self.outbox, b'n'),
        }
        Ok(Ok(()))
    }

    async fn execute(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, End> {
        let name = frontend::execute(body)?;
        let mut limit = Fields::new(body);
        limit.cstr()?;
        let limit = usize::try_from(limit.i32()?).unwrap_or(0);
        let Some(mut portal) = self.prepared.portals.remove(name) else {
            return Ok(Err(missing("portal", name)));
        };
        let Some(command) = portal.command.clone() else {
            frontend::write_bare(&mut self.outbox, b'I');
            return Ok(Ok(()));
        };
        let (columns, mut rows) = match portal.rest.take() {
            Some(rest) => rest,
            None => match self.attend(&command).await? {
                Ok(Outcome::Rows { columns, rows }) => (columns, rows.into_iter()),
                Ok(Outcome::Done(tag)) => {
                    backend::command_complete(&mut self.outbox, &tag);
                    return Ok(Ok(()));
                }
                Ok(Outcome::Noted { notice, detail, tag }) => {
                    backend::notice(&mut self.outbox, notice, detail.as_deref());
                    backend::command_complete(&mut self.outbox, tag);
                    return Ok(Ok(()));
                }
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let most = if limit == 0 { usize::MAX } else { limit };
        for row in rows.by_ref().take(most) {
            answer::data_row(&mut self.outbox, columns, &portal.formats, &row);
        }
        if rows.len() > 0 {
            frontend::write_bare(&mut self.outbox, b's');
            portal.rest = Some((columns, rows));
            self.prepared.portals.insert(name.to_vec(), portal);
        } else {
            backend::command_complete(&mut self.outbox, command.verb());
        }
        Ok(Ok(()))
    }

    fn close(&mut self, body: &[u8]) -> Result<Result<(), Refusal>, Malformed> {
        match Named::read(body)? {
            Named::Statement(name) => drop(self.prepared.statements.remove(name)),
            Named::Portal(name) => drop(self.prepared.portals.remove(name)),
        }
        frontend::write_bare(&mut self.outbox, b'3');
        Ok(Ok(()))
    }
}

fn missing(what: &'static str, name: &[u8]) -> Refusal {
    Refusal::Missing { what, name: String::from_utf8_lossy(name).into_owned() }
}

fn too_many(what: &'static str) -> Refusal {
    Refusal::Argument(format!("too many {what}: {MOST} are allowed"))
}
