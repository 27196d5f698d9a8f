//! The unnamed statement: one at a time, gone with the next simple query, and named by us
//! where an operator wants that.
//!
//! PostgreSQL analyses and plans an unnamed statement each time, a named one a few times
//! only. In classes of `name_unnamed`, a text that comes again and again is prepared under a
//! name of ours, and the client's Parse answered by us. Always true: what is named so is the
//! same text, with the same types, on the same search path, and known to no transaction that
//! changes the path for itself.

use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::extended::evict_for;
use super::work::PreparedTags;
use crate::prepared::{Kind, Statement};
use crate::server::answers::{Awaited, NameChange, Origin};
use crate::sql::effect::Effect;

/// Whether unnamed statements may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Names mean what the session's settings say.
    Settled,
    /// Something in this transaction may have changed what they mean until its end.
    Open,
}

impl Path {
    /// What becomes of it when `text` runs.
    pub(super) fn after(self, text: &[u8]) -> Self {
        const SIGNS: [&[u8]; 3] = [b"search_path", b"set_config", b"schema"];
        let shows = |sign: &[u8]| text.windows(sign.len()).any(|w| w.eq_ignore_ascii_case(sign));
        if SIGNS.into_iter().any(shows) { Self::Open } else { self }
    }
}

impl Session {
    /// Parse of the unnamed statement.
    pub(super) fn parse_unnamed(&mut self, text: &[u8], types: &[u8], said: PreparedTags) {
        let statement = self.unnamed_statement(text, types);
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        let id = statement.id;
        let change = Some(NameChange::Unnamed(self.unnamed.replace(Arc::clone(&statement))));
        server.pipeline.changes_unnamed();
        let awaited = if statement.kind == Kind::Own {
            statement.parse(b"").write(&mut server.outbox);
            let displaced = server.unnamed.replace(id);
            Awaited::Parse { origin: Origin::Client, prepared: None, change, displaced }
        } else if server.prepared.get(&id).is_some() {
            Awaited::OwnParseComplete { change }
        } else {
            evict_for(server, &statement);
            server.pipeline.changes_names();
            statement.parse(&statement.name).write(&mut server.outbox);
            let displaced = server.unnamed;
            let prepared = Some(statement);
            Awaited::Parse { origin: Origin::Client, prepared, change, displaced }
        };
        server.awaited.push_back(awaited);
        self.keep_tags(&Bytes::new(), said);
    }

    fn unnamed_statement(&mut self, text: &[u8], types: &[u8]) -> Arc<Statement> {
        if let Some(statement) = self.deallocate(text, types) {
            return statement;
        }
        if let Some(named) = self.named(text, types) {
            return named;
        }
        // Drivers parse the same text again and again: what it does is known then.
        let again =
            |s: &&Arc<Statement>| s.kind == Kind::Own && s.text == *text && s.types == types;
        if let Some(statement) = self.unnamed.as_ref().filter(again) {
            return Arc::clone(statement);
        }
        self.sensible(self.gateway.statements.own(text, types), types)
    }

    /// The statement that the text has a name by, if it may have one here and now.
    fn named(&mut self, text: &[u8], types: &[u8]) -> Option<Arc<Statement>> {
        if self.who.backend.named.is_empty() {
            return None;
        }
        self.path = self.path.after(text);
        let known_to_work = self.link.as_mut()?.connection().transaction_is_known_to_work();
        if self.path == Path::Open || !known_to_work || !self.who.backend.names(self.class()) {
            return None;
        }
        let statement = self.gateway.statements.repeated(text, types, self.place())?;
        matches!(statement.effect, Effect::Clean | Effect::Dirty).then_some(statement)
    }
}
