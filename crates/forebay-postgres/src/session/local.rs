//! What needs no server: a transaction that is empty so far, names that are the client's
//! only, settings of ours, refusals that are certain.
//!
//! A BEGIN is answered and waits for the first statement that needs a server; the end of a
//! transaction that waited is answered, too. A batch is answered here as a whole or not at
//! all.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forebay_pool::overlap::HoldKind;

use super::outward::MOST_STATEMENTS;
use super::{Session, TxStatus};
use crate::fault::Fault;
use crate::own::{self, Nonsense};
use crate::prepared::Statement;
use crate::sql::effect::{self, Effect};
use crate::sql::transaction::{self, Begin, Modes};
use crate::wire::backend::{self, Severity};
use crate::wire::frontend::{self, Bind, Named, Parse};
use crate::wire::{HEADER, Header};

/// Whether a server is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    Answered,
    NeedsServer,
}

/// What a batch does that needs no server, as far as it is read.
struct Script {
    answers: BytesMut,
    status: TxStatus,
    begin: Option<Box<[u8]>>,
    unnamed: Option<Arc<Statement>>,
    named: Vec<(Bytes, Arc<Statement>)>,
    /// What the unnamed portal will run.
    portal: Option<Arc<Statement>>,
}

impl Session {
    /// A BEGIN that may wait for the first statement that needs a server.
    fn may_wait(&self, text: &[u8]) -> Option<Begin> {
        let begin = transaction::begin(text)?;
        let is_standby = || self.reported.get("in_hot_standby") == Some("on");
        (begin.modes == Modes::Usual || !is_standby()).then_some(begin)
    }

    /// A simple query: a BEGIN that can wait, the end of one that waited, settings of ours,
    /// names that are the client's only.
    pub(super) fn answer_locally(&mut self, text: &Bytes) -> Local {
        let shown = own::shown(text).filter(|_| self.status != TxStatus::Failed);
        if let Some(name) = shown {
            backend::one_value(&mut self.outbox, name, &self.who.own.value(name));
        }
        let tag = match (self.status, &self.begin) {
            _ if shown.is_some() => Ok(Some("SHOW")),
            (TxStatus::Open, Some(_)) => match transaction::end(text) {
                Some(tag) => {
                    self.begin = None;
                    self.status = TxStatus::Idle;
                    self.work_is_over();
                    Ok(Some(tag))
                }
                None => self.answer_about_us(&effect::of(text)),
            },
            (TxStatus::Failed, _) => Ok(transaction::end(text).map(|_| {
                self.status = TxStatus::Idle;
                self.work_is_over();
                "ROLLBACK"
            })),
            (TxStatus::Idle, None) => match self.may_wait(text) {
                Some(begin) => {
                    self.begin = Some(text.as_ref().into());
                    self.status = TxStatus::Open;
                    self.note_query(text);
                    Ok(Some(begin.tag))
                }
                None => self.answer_about_session(text),
            },
            (TxStatus::Idle, Some(_)) | (TxStatus::Open, None) => Ok(None),
        };
        match tag {
            Ok(Some(tag)) => backend::command_complete(&mut self.outbox, tag),
            Ok(None) => return Local::NeedsServer,
            Err(nonsense) => {
                if self.begin.take().is_some() {
                    self.status = TxStatus::Failed;
                }
                Fault::from(nonsense).write(&mut self.outbox, Severity::Error);
            }
        }
        self.unnamed = None;
        backend::ready_for_query(&mut self.outbox, self.status);
        self.rests_if_begun();
        Local::Answered
    }

    /// A BEGIN that waits may wait for a model before it needs a server.
    fn rests_if_begun(&mut self) {
        if self.begin.is_some() {
            self.rests(HoldKind::Deferred);
        }
    }

    fn answer_about_session(&mut self, text: &[u8]) -> Result<Option<&'static str>, Nonsense> {
        let effects = effect::of(text);
        Ok(match effects.as_slice() {
            [Effect::Deallocate { name: Some(name) }] => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                self.statements.remove(&name).map(|_| "DEALLOCATE")
            }
            [Effect::Deallocate { name: None }] => {
                self.statements.clear();
                Some("DEALLOCATE ALL")
            }
            effects => self.answer_about_us(effects)?,
        })
    }

    /// `SET forebay.class` and its kin are for us.
    fn answer_about_us(&mut self, effects: &[Effect]) -> Result<Option<&'static str>, Nonsense> {
        match effects {
            [Effect::Set { name, value }] if own::is_ours(name) => {
                self.who.own.set(name, value)?;
                Ok(Some("SET"))
            }
            [Effect::Reset { name }] if own::is_ours(name) => {
                self.who.own_resets(name);
                Ok(Some("RESET"))
            }
            _ => Ok(None),
        }
    }

    /// The batch at the start of the inbox: one that only begins or ends a transaction, or
    /// only prepares what servers have prepared before.
    pub(super) fn answer_batch(&mut self) -> Local {
        let batch = self.inbox.get(..self.batch).unwrap_or_default();
        let Some(script) = self.script(batch) else { return Local::NeedsServer };
        self.outbox.extend_from_slice(&script.answers);
        self.statements.extend(script.named);
        (self.status, self.begin, self.unnamed) = (script.status, script.begin, script.unnamed);
        drop(self.inbox.split_to(self.batch));
        self.batch = 0;
        if self.status == TxStatus::Idle {
            self.work_is_over();
        }
        self.rests_if_begun();
        Local::Answered
    }

    /// What `batch` does, if it needs no server.
    fn script(&self, batch: &[u8]) -> Option<Script> {
        let mut script = Script {
            answers: BytesMut::new(),
            status: self.status,
            begin: self.begin.clone(),
            unnamed: self.unnamed.clone(),
            named: Vec::new(),
            portal: None,
        };
        let mut rest = batch;
        loop {
            let header = Header::read(rest).ok()??;
            let (message, after) = rest.split_at_checked(header.whole())?;
            let body = message.get(HEADER..)?;
            match header.tag {
                b'P' => self.script_parse(&mut script, &Parse::read(body).ok()?)?,
                b'B' => {
                    let bind = Bind::read(body).ok()?;
                    let statement = self.scripted(&script, bind.statement)?;
                    if !bind.portal.is_empty() || bind.values(body).ok()? > 0 {
                        return None;
                    }
                    script.portal = Some(Arc::clone(statement));
                    frontend::write_bare(&mut script.answers, b'2');
                }
                b'D' => {
                    match Named::read(body).ok()? {
                        Named::Statement(name) => {
                            self.scripted(&script, name)?;
                            backend::no_parameters(&mut script.answers);
                        }
                        Named::Portal(name) => {
                            script.portal.as_ref().filter(|_| name.is_empty())?;
                        }
                    }
                    frontend::write_bare(&mut script.answers, b'n');
                }
                b'E' => {
                    let portal = frontend::execute(body).ok()?;
                    let statement = script.portal.take().filter(|_| portal.is_empty())?;
                    self.script_run(&mut script, &statement)?;
                }
                b'S' if after.is_empty() => {
                    backend::ready_for_query(&mut script.answers, script.status);
                    return Some(script);
                }
                _ => return None,
            }
            rest = after;
        }
    }

    fn script_parse(&self, script: &mut Script, parse: &Parse<'_>) -> Option<()> {
        let name = Bytes::copy_from_slice(parse.name);
        let is_taken = self.statements.contains_key(&name)
            || script.named.iter().any(|(other, _)| *other == name);
        if is_taken || self.statements.len() + script.named.len() >= MOST_STATEMENTS {
            return None;
        }
        let place = self.place();
        let known = &self.gateway.statements;
        if is_scriptable(parse.text, script.status) {
            if parse.types != NO_TYPES {
                return None;
            }
            if name.is_empty() {
                script.unnamed = Some(known.own(parse.text, parse.types));
            } else {
                script.named.push((name, known.shared(parse.text, parse.types, place)));
            }
        } else {
            // A server has taken this text in this database before.
            if name.is_empty() || script.status == TxStatus::Failed {
                return None;
            }
            let statement = known.existing(parse.text, parse.types, place)?;
            if statement.proven.get() != Some(&self.who.identity) {
                return None;
            }
            script.named.push((name, statement));
        }
        frontend::write_bare(&mut script.answers, b'1');
        Some(())
    }

    /// The statement of this name, if running it needs no server.
    fn scripted<'a>(&'a self, script: &'a Script, name: &[u8]) -> Option<&'a Arc<Statement>> {
        let statement = if name.is_empty() {
            script.unnamed.as_ref()?
        } else {
            let new = script.named.iter().find(|(new, _)| *new == name);
            new.map(|(_, statement)| statement).or_else(|| self.statements.get(name))?
        };
        is_scriptable(&statement.text, script.status).then_some(statement)
    }

    fn script_run(&self, script: &mut Script, statement: &Statement) -> Option<()> {
        let tag = match script.status {
            TxStatus::Idle => {
                let begin = self.may_wait(&statement.text)?;
                script.status = TxStatus::Open;
                script.begin = Some(statement.text.as_ref().into());
                begin.tag
            }
            TxStatus::Open => {
                script.begin.take()?;
                script.status = TxStatus::Idle;
                transaction::end(&statement.text)?
            }
            TxStatus::Failed => {
                transaction::end(&statement.text)?;
                script.status = TxStatus::Idle;
                "ROLLBACK"
            }
        };
        backend::command_complete(&mut script.answers, tag);
        Some(())
    }

    /// What a server would say to the message at hand in a transaction that has failed before
    /// it had a server.
    pub(super) fn refusal(&self, header: Header) -> Fault {
        let body = self.inbox.get(HEADER..header.whole().min(self.inbox.len())).unwrap_or_default();
        let statement = match header.tag {
            b'B' => Bind::read(body).ok().map(|bind| bind.statement),
            b'D' => match Named::read(body) {
                Ok(Named::Portal(name)) => return Fault::NoPortal(name_of(name)),
                Ok(Named::Statement(name)) => Some(name),
                Err(_) => None,
            },
            b'E' => match frontend::execute(body) {
                Ok(name) => return Fault::NoPortal(name_of(name)),
                Err(_) => None,
            },
            _ => None,
        };
        match statement {
            Some(b"") if self.unnamed.is_none() => Fault::NoUnnamedStatement,
            Some(name) if !name.is_empty() && !self.statements.contains_key(name) => {
                Fault::NoStatement(name_of(name))
            }
            Some(_) | None => Fault::InFailedTransaction,
        }
    }
}

/// No parameter types, as Parse has them.
const NO_TYPES: &[u8] = &[0, 0];

/// Does `text` only begin or end a transaction, where one in `status` may take that?
fn is_scriptable(text: &[u8], status: TxStatus) -> bool {
    transaction::end(text).is_some()
        || (status != TxStatus::Failed && transaction::begin(text).is_some())
}

fn name_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
