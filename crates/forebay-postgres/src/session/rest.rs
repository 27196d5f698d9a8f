//! The end of a transaction: what the client keeps its server connection for, and how the
//! connection goes home.
//!
//! Where statements may have begun or ended something that lives in the session, or set
//! something whose value no text tells, the server is asked once all answers are here: in one
//! query, and only then. Always true: nothing of ours is sent while a cancel request is on its
//! way.

use forebay_pool::Condition;
use forebay_pool::overlap::HoldKind;

use super::Session;
use crate::cancel::Begun;
use crate::own;
use crate::params::quote_text;
use crate::pins::{self, Keeper, PinReason, Pins};
use crate::server::answers::{Awaited, Purpose};
use crate::server::catalogue::Statements;
use crate::server::{Names, Residue, Server, Sets};
use crate::settings::PoolMode;
use crate::sql::effect::{self, Definition, Effect};
use crate::wire::frontend;
use crate::wire::{Fields, Malformed, TxStatus};

/// Settings that the client has set to values that only the server knows; most clients have
/// none, and then it takes no memory.
#[derive(Default)]
pub(super) struct Learns {
    names: Vec<String>,
}

impl Learns {
    /// `names` besides.
    pub(super) fn add(this: &mut Option<Box<Self>>, names: impl Iterator<Item = String>) {
        for name in names {
            this.get_or_insert_default().names.push(name);
        }
    }
}

impl Session {
    /// All that has come is digested: is the transaction over, or does it idle?
    pub(super) fn after_answers(&mut self) {
        // Answers to what went ahead of it are not the end of the client's statement.
        if self.unsent {
            return;
        }
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        let is_over = server.is_quiet() || server.is_about_itself();
        if !server.awaited.is_empty() || !is_over {
            return;
        }
        server.line.is_read(&server.stream, self.plan.settings.tcp_user_timeout);
        self.proof_was_late();
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        if server.status != TxStatus::Idle {
            self.card.idles();
            self.may_be_parked();
            return self.rests(HoldKind::Held);
        }
        let is_settled = server.in_flight.is_settled();
        // Committed, or not: others see it now.
        server.defining = None;
        server.sets = Sets::Nothing;
        self.work_is_over();
        self.settle_listening();
        if !is_settled && (self.keeps_server() || self.has_questions()) {
            self.cancels_due = Begun::Held;
            return;
        }
        if self.has_questions() {
            return self.ask_server();
        }
        if self.keeps_server() {
            // Its next transaction takes none.
            self.work_keeps_server();
            // RESET goes back to the client's start values, which the server does not know.
            self.replay_settings();
            self.tell_pins();
        } else {
            self.part_with_server();
        }
    }

    /// Does the client keep its connection beyond its transaction?
    pub(super) fn keeps_server(&self) -> bool {
        self.who.mode == PoolMode::Session || !self.pins.held.is_empty()
    }

    fn has_questions(&self) -> bool {
        self.learns.is_some() || (self.who.mode == PoolMode::Transaction && self.pins.is_in_doubt())
    }

    /// Asks what holds on the connection, and what values the client has set.
    fn ask_server(&mut self) {
        let Some(lease) = &mut self.link else { return };
        let server = &mut **lease.connection();
        let mut sql = pins::QUESTION.to_owned();
        for name in self.learns.iter().flat_map(|learns| &learns.names) {
            sql.push_str(", pg_catalog.current_setting(");
            quote_text(&mut sql, name);
            sql.push_str(", true)");
        }
        self.pins.is_asked();
        frontend::write_query(&mut server.outbox, &sql);
        server.unnamed = None;
        server.awaited.push_back(Awaited::OwnQuery(Purpose::Rest));
        server.pipeline.ends_batch();
        self.registration.client.prepares();
    }

    /// The server's answer to [`Session::ask_server`]: a row.
    pub(super) fn hear_server(&mut self, row: &[u8]) -> Result<(), Malformed> {
        let Some(lease) = &mut self.link else { return Ok(()) };
        let server = &mut **lease.connection();
        let settings = &mut server.settings;
        let mut fields = Fields::new(row);
        let _columns = fields.u16()?;
        let mut next = || {
            let Ok(length) = usize::try_from(fields.i32()?) else { return Ok(None) };
            Ok::<_, Malformed>(std::str::from_utf8(fields.bytes(length)?).ok())
        };
        self.pins.hear(next()?.unwrap_or_default());
        for name in self.learns.take().into_iter().flat_map(|learns| learns.names) {
            if let Some(value) = next()? {
                settings.set(&name, value);
                self.wanted.set(&name, value);
            }
        }
        if !self.pins.held.contains(PinReason::SqlPrepare) {
            server.names = Names::Ours;
        }
        if settings.is_as_at_login("session_authorization") {
            self.pins.held.remove(PinReason::SessionAuthorization);
        }
        Ok(())
    }

    /// It could not say: what was foreseen is taken to hold.
    pub(super) fn server_is_silent(&mut self, why: &str) {
        tracing::warn!(
            user = %self.who.user, database = %self.who.database, error = why,
            "the server does not say what the session holds"
        );
        self.learns = None;
    }

    /// What the client keeps its connection for is certain.
    fn tell_pins(&mut self) {
        let who = &self.who;
        let keeper = || Keeper {
            user: who.user.clone(),
            database: who.database.clone(),
            application: who.application.clone(),
        };
        for reason in self.pins.tell(&self.gateway.pins, keeper).iter() {
            tracing::info!(
                user = %who.user, database = %who.database, reason = reason.name(),
                "the client keeps its server connection"
            );
        }
    }

    /// Gives the server connection back, in the condition it is in.
    pub(super) fn part_with_server(&mut self) {
        self.keep_passed();
        let Some(mut lease) = self.link.take() else { return };
        self.registration.client.rests();
        self.card.rests();
        self.card.parts();
        let since = lease.since();
        let server = &mut **lease.connection();
        server.shows_rest();
        server.sheds_buffers();
        if self.keeps_server() {
            server.residue.at_least(Residue::Possible);
        }
        self.pins.clear();
        self.learns = None;
        let catalogue = &server.catalogue;
        let has_run = server.seen.statements == Statements::Some;
        if has_run && !catalogue.holds(&server.seen) {
            server.residue.at_least(Residue::Possible);
        }
        let is_due = has_run && catalogue.is_due(since);
        let condition = if server.is_clean() && !is_due {
            Condition::Clean
        } else {
            if server.is_quiet() && server.status == TxStatus::Idle {
                lease.succeeded();
            }
            Condition::Unknown
        };
        lease.give_back(condition);
    }
}

/// What a text may do is noted before it is sent: it may do it and fail later.
pub(super) fn foresee(server: &mut Server, pins: &mut Pins, text: &[u8], effects: &[Effect]) {
    let sets = |effect: &Effect| match effect {
        Effect::Clean
        | Effect::MayEnd
        | Effect::Savepoint { .. }
        | Effect::Release { .. }
        | Effect::Listen { .. }
        | Effect::Unlisten { .. }
        | Effect::Deallocate { .. } => false,
        Effect::Defines(_)
        | Effect::Local
        | Effect::Dirty
        | Effect::Set { .. }
        | Effect::Learn { .. }
        | Effect::Reset { .. }
        | Effect::ResetAll
        | Effect::DiscardAll
        | Effect::Pin(_)
        | Effect::RollbackTo { .. } => true,
    };
    if effects.iter().any(sets) || server.seen.suspects.is_none() {
        server.sets = Sets::Perhaps;
    }
    server.seen.statements = Statements::Some;
    // Taken out for a moment, which costs nothing.
    let Some(suspects) = server.seen.suspects.take() else {
        // Nothing is known of the database: the connection is cleared in any case.
        return effects.iter().for_each(|effect| note(server, pins, effect));
    };
    let is_suspect = suspects.touches(text);
    if is_suspect {
        server.sets = Sets::Perhaps;
        note(server, pins, &Effect::Dirty);
    }
    let unclear = |effect: &Effect| matches!(effect, Effect::Dirty | Effect::Defines(_));
    if effects.iter().any(unclear) {
        // Perhaps what it calls is known. It may end something all the same.
        pins.may_end();
        let effects = effect::of_known(text, &|name| suspects.clears(name));
        for effect in &effects {
            if is_suspect || *effect != Effect::Defines(Definition::Data) {
                note(server, pins, effect);
            }
        }
    } else {
        effects.iter().for_each(|effect| note(server, pins, effect));
    }
    server.seen.suspects = Some(suspects);
}

fn note(server: &mut Server, pins: &mut Pins, effect: &Effect) {
    match effect {
        // What is not followed may stay behind.
        Effect::Set { name, .. } if own::is_ours(name) => {
            server.residue.at_least(Residue::Possible);
        }
        Effect::Clean
        | Effect::Local
        | Effect::Set { .. }
        | Effect::Reset { .. }
        | Effect::ResetAll
        | Effect::Savepoint { .. }
        | Effect::Release { .. }
        | Effect::RollbackTo { .. } => {}
        Effect::Defines(what) => {
            server.defining.get_or_insert_with(|| server.catalogue.defines());
            if *what == Definition::Script {
                note(server, pins, &Effect::Dirty);
            }
        }
        Effect::MayEnd | Effect::Unlisten { .. } => pins.may_end(),
        Effect::Listen { .. } => {
            pins.shares_listening();
            server.residue.at_least(Residue::Possible);
        }
        Effect::Learn { names } => names.iter().for_each(|name| server.settings.suspect(name)),
        Effect::Dirty => {
            pins.suspect();
            server.residue.at_least(Residue::Possible);
        }
        Effect::Pin(reason) => {
            pins.foresee(*reason);
            if *reason == PinReason::SqlPrepare {
                server.names = Names::AlsoOfSql;
            }
            server.residue.at_least(if *reason == PinReason::SqlPrepare {
                Residue::WithStatements
            } else {
                Residue::Possible
            });
        }
        Effect::DiscardAll | Effect::Deallocate { .. } => {
            pins.may_end();
            server.residue.at_least(Residue::WithStatements);
        }
    }
}
