//! From the server towards the client.
//!
//! Each message is what the front of `awaited` says it is. Runs of messages go on as they
//! came, straight from the receive buffer; what we asked for ourselves is taken out, what we
//! answer ourselves is put in, in turn.

use bytes::Buf;
use forebay_seam::time;
use smallvec::SmallVec;

use super::exchange::COPIED;
use super::heal::{self, First};
use super::notify::ListenChange;
use super::parking::Behind;
use super::rest::Learns;
use super::unnamed::Path;
use super::{Change, End, Session};
use crate::fault::Fault;
use crate::own;
use crate::params::{Unasked, is_fact};
use crate::pins::PinReason;
use crate::server::answers::{Awaited, Origin, Purpose};
use crate::server::{CopyIn, Sets};
use crate::sql::effect::Effect;
use crate::tally::Rest;
use crate::wire::backend::{self, Notification, ServerError};
use crate::wire::frontend;
use crate::wire::{Fields, HEADER, Header, Malformed, TxStatus};

/// Messages whose body we read are never longer than this.
pub(super) const LONGEST_READ: usize = 1 << 20;

/// Whether a message goes on to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Pass,
    Hide,
    /// It does not, and the batch that is kept goes to the server once more.
    HideAndSendAgain,
}

impl Session {
    /// Digests what the server has sent, as far as that goes now.
    pub(super) fn inward(&mut self) -> Result<(), End> {
        while let Some(lease) = &mut self.link {
            let server = &mut **lease.connection();
            if server.passing > 0 {
                let n = server.passing.min(server.inbox.len() - server.passed);
                server.passed += n;
                server.passing -= n;
            }
            if server.is_our_turn() {
                // Now that what came before is whole, an answer of ours may be next.
                self.answer_in_turn();
            }
            let Some(lease) = &mut self.link else { break };
            let server = &mut **lease.connection();
            let unread = server.inbox.get(server.passed..).unwrap_or_default();
            let Some(header) = Header::read(unread)? else { break };
            if server.is_about_itself() && !self.unsent && !self.keeps_server() {
                // The client's work is over: the connection goes home, where it is found ending.
                break;
            }
            let Some(lease) = &mut self.link else { break };
            let server = &mut **lease.connection();
            let unread = server.inbox.get(server.passed..).unwrap_or_default();
            let is_own = server.awaited.front().is_some_and(Awaited::is_for_us);
            let streams = match header.tag {
                // Read whole where that is possible: it may name a statement by our name.
                b'E' => header.body > LONGEST_READ,
                tag => matches!(tag, b'D' | b'd' | b'T' | b'N' | b'V' | b't'),
            };
            if (!streams || is_own) && header.body > LONGEST_READ {
                return Err(Malformed::Length(i32::MAX).into());
            }
            if server.is_kept_back() {
                match heal::look_at_first(server, self.told, header) {
                    First::Wait => break,
                    First::Heal { stale, said } => {
                        self.heal(&stale, said);
                        continue;
                    }
                    First::Hide => {}
                    First::Pass => {
                        server.kept.forget();
                        continue;
                    }
                }
            }
            let is_whole = unread.len() >= header.whole();
            if !is_whole && (is_own || !streams) {
                break;
            }
            let body = unread.get(HEADER..header.whole().min(unread.len())).unwrap_or_default();
            let body: SmallVec<[u8; 64]> =
                if streams && !is_own { SmallVec::new() } else { SmallVec::from_slice(body) };
            match self.understand(header, &body)? {
                Show::Pass => {
                    if let Some(lease) = &mut self.link {
                        let server = lease.connection();
                        server.passing = header.whole();
                    }
                }
                Show::Hide => self.take_out(header.whole()),
                Show::HideAndSendAgain => {
                    self.take_out(header.whole());
                    self.send_again()?;
                }
            }
        }
        self.answer_in_turn();
        self.gather();
        self.after_answers();
        Ok(())
    }

    /// What is passed on behind an answer of ours goes out in the same write, where it is short.
    fn gather(&mut self) {
        let Some(lease) = &mut self.link else { return };
        if !self.outbox.is_empty() && (1..=COPIED).contains(&lease.connection().passed) {
            self.keep_passed();
        }
    }

    /// Removes a message from the server's inbox; what was passed before it keeps its order.
    pub(super) fn take_out(&mut self, whole: usize) {
        self.keep_passed();
        if let Some(lease) = &mut self.link {
            lease.connection().inbox.advance(whole);
        }
    }

    /// What a message means for us, and whether the client sees it.
    fn understand(&mut self, header: Header, body: &[u8]) -> Result<Show, End> {
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        if header.tag == b'A' {
            // What the shared connection listens to for the client comes from there.
            let channel = Notification::read(body)?.channel;
            let shared = self.listening.as_ref().is_some_and(|l| l.carries(channel));
            return Ok(if shared { Show::Hide } else { Show::Pass });
        }
        if let Some(Awaited::OwnQuery(purpose)) = server.awaited.front() {
            let purpose = *purpose;
            return self.understand_own(purpose, header, body);
        }
        match header.tag {
            b'1' => match server.awaited.pop_front() {
                Some(Awaited::Parse { origin, prepared, .. }) => {
                    if let Some(statement) = prepared {
                        self.card.meter.server_prepares();
                        statement.proven.get_or_init(|| self.who.identity.clone());
                    }
                    Ok(if origin == Origin::Own { Show::Hide } else { Show::Pass })
                }
                _ => Err(out_of_turn(header.tag)),
            },
            b'2' => expect(server.awaited.pop_front(), header.tag, |a| {
                matches!(a, Awaited::Bind { .. })
            }),
            b'3' => match server.awaited.pop_front() {
                Some(Awaited::Close { origin: Origin::Own, .. }) => Ok(Show::Hide),
                Some(
                    Awaited::Close { origin: Origin::Client, .. } | Awaited::CloseUnnamed { .. },
                ) => Ok(Show::Pass),
                _ => Err(out_of_turn(header.tag)),
            },
            b'T' | b'n' => self.described(header),
            b't' if server.awaited.front().is_some_and(Awaited::is_hidden) => Ok(Show::Hide),
            b'C' | b'I' | b's' => {
                server.copy = CopyIn::None;
                let effect = match server.awaited.front_mut() {
                    Some(Awaited::Execute { effect, .. }) => {
                        let effect = effect.take();
                        server.awaited.pop_front();
                        effect
                    }
                    Some(Awaited::Query { effects, .. }) => effects.next(),
                    _ => None,
                };
                if header.tag == b'C' {
                    self.completed(body, effect);
                }
                Ok(Show::Pass)
            }
            b'Z' => self.ready(body),
            b'E' => self.failed(),
            b'S' => {
                let (name, value) = backend::read_parameter_status(body)?;
                if self.tell_start_value(name, value) {
                    return Ok(Show::Hide);
                }
                let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
                let server = &mut **lease.connection();
                self.reported.set(name, value);
                let unasked = match server.sets {
                    Sets::Nothing => server.settings.report_unasked(name, value),
                    Sets::Perhaps => {
                        server.settings.report(name, value);
                        Unasked::Other
                    }
                };
                if unasked == Unasked::Default {
                    self.gateway.welcomes.forget();
                    return Ok(Show::Pass);
                }
                let name = name.to_ascii_lowercase();
                if name == "application_name" {
                    self.who.set_application_name(value);
                    self.card.is_called(&self.who.application);
                }
                if !is_fact(&name) {
                    self.wanted.set(&name, value);
                }
                Ok(Show::Pass)
            }
            b'G' => {
                server.copy = CopyIn::Receiving;
                // Syncs already sent behind it are ignored by the server. A batch still needs one.
                let by_batch = matches!(server.awaited.front(), Some(Awaited::Execute { .. }));
                if by_batch || matches!(server.awaited.front(), Some(Awaited::Query { .. })) {
                    while matches!(server.awaited.get(1), Some(Awaited::Sync)) {
                        server.awaited.remove(1);
                        server.unsynced |= by_batch;
                    }
                }
                Ok(Show::Pass)
            }
            b'D' | b'd' | b'c' | b'H' | b'W' | b'N' | b't' | b'V' => Ok(Show::Pass),
            tag => Err(out_of_turn(tag)),
        }
    }

    /// Has the client put `name` back, to what is its start value and not the server's `value`?
    /// Then it is told its own; the connection gets it when it is linked next.
    fn tell_start_value(&mut self, name: &str, value: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        let Some(start) = self.wanted_at_start.get(&lower).map(str::to_owned) else { return false };
        let is_base = self
            .link
            .as_mut()
            .is_some_and(|lease| lease.connection().settings.base.get(&lower) == Some(value));
        let last = self.uncommitted.iter().rev().find_map(|change| match change {
            Change::Set { name, .. } => (*name == lower).then_some(false),
            Change::Reset { name } => (*name == lower).then_some(true),
            Change::ResetAll | Change::Discarded => Some(true),
            Change::Savepoint { .. } | Change::Listen(_) | Change::Learn { .. } => None,
        });
        if !is_base || last != Some(true) {
            return false;
        }
        if let Some(lease) = &mut self.link {
            lease.connection().settings.report(name, value);
        }
        self.keep_passed();
        if self.reported.get(&lower) != Some(&*start) {
            backend::parameter_status(&mut self.outbox, name, &start);
            self.reported.set(name, &start);
        }
        true
    }

    /// An answer to a query of our own.
    fn understand_own(
        &mut self,
        purpose: Purpose,
        header: Header,
        body: &[u8],
    ) -> Result<Show, End> {
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        match header.tag {
            // The status that follows tells.
            b'E' if matches!(purpose, Purpose::FailedBegin | Purpose::Proof) => Ok(Show::Hide),
            b'E' if purpose == Purpose::Queried
                && !ServerError::read(body).ends_the_connection() =>
            {
                self.fails_to_resume(ServerError::read(body).text);
                Ok(Show::Hide)
            }
            b'E' if purpose == Purpose::Rest => {
                self.server_is_silent(&ServerError::read(body).text);
                Ok(Show::Hide)
            }
            b'D' if purpose == Purpose::Rest => {
                self.hear_server(body)?;
                Ok(Show::Hide)
            }
            b'E' => {
                let unread = server.inbox.get(server.passed..).unwrap_or_default();
                let body = unread.get(HEADER..header.whole().min(unread.len())).unwrap_or_default();
                let said = ServerError::read(body);
                Err(Fault::Replay(said.text).into())
            }
            b'S' => {
                let (name, value) = backend::read_parameter_status(body)?;
                server.settings.report(name, value);
                Ok(Show::Hide)
            }
            b'Z' => {
                server.status =
                    TxStatus::from_byte(Fields::new(body).u8()?).ok_or(Malformed::Value)?;
                server.awaited.pop_front();
                server.pipeline.is_answered();
                if purpose == Purpose::Heal {
                    return Ok(Show::HideAndSendAgain);
                }
                match server.awaited.front() {
                    Some(Awaited::OwnQuery(_)) => {}
                    Some(_) => self.registration.client.goes_on(),
                    // What waits in the inbox is what a cancel is for.
                    None if !self.inbox.is_empty() => {}
                    None => self.registration.client.pauses(),
                }
                if purpose == Purpose::Settings {
                    self.settings_replayed();
                }
                Ok(Show::Hide)
            }
            _ => Ok(Show::Hide),
        }
    }

    /// The connection has the client's settings now. What the server reports of them is how
    /// they are compared from now on, and what the client is told.
    fn settings_replayed(&mut self) {
        let Some(lease) = &mut self.link else { return };
        lease.connection().settings.replayed(&mut self.wanted);
        self.tell_reported();
    }

    /// Tells the client what differs from what it was told.
    pub(super) fn tell_reported(&mut self) {
        let reported = &mut self.reported;
        if self.link.as_mut().is_none_or(|l| l.connection().settings.now.is_same(reported)) {
            return;
        }
        self.keep_passed();
        let Some(lease) = &mut self.link else { return };
        for (name, value) in lease.connection().settings.now.iter() {
            if self.reported.get(&name.to_ascii_lowercase()) != Some(value) {
                backend::parameter_status(&mut self.outbox, name, value);
                self.reported.set(name, value);
            }
        }
    }

    /// A command of the client's has succeeded.
    fn completed(&mut self, tag: &[u8], effect: Option<Effect>) {
        if changes_meanings(tag) {
            self.gateway.statements.outdate();
        }
        let savepoint = |changes: &[Change], wanted: &str| {
            let is_it = |c: &Change| matches!(c, Change::Savepoint { name } if name == wanted);
            changes.iter().rposition(is_it)
        };
        match effect {
            Some(Effect::Set { name, value }) if own::is_ours(&name) => {
                // Among other statements of a query, nonsense is too late to be refused.
                if self.who.own.set(&name, &value).is_err() {
                    self.gateway.count_ignored_hint();
                }
            }
            Some(Effect::Reset { name }) if own::is_ours(&name) => {
                self.who.own_resets(&name);
            }
            Some(Effect::Listen { channel }) => self.listened(ListenChange::To(channel)),
            Some(Effect::Unlisten { channel }) => self.listened(ListenChange::NoLonger(channel)),
            Some(Effect::Set { name, value }) => self.uncommitted.push(Change::Set { name, value }),
            Some(Effect::Reset { name }) => self.uncommitted.push(Change::Reset { name }),
            Some(Effect::Learn { names }) => self.uncommitted.push(Change::Learn { names }),
            Some(Effect::ResetAll) => {
                self.who.own_resets_all();
                self.uncommitted.push(Change::ResetAll);
                if tag.starts_with(b"DISCARD") {
                    self.discarded();
                }
            }
            Some(Effect::DiscardAll) => {
                self.who.own_resets_all();
                self.uncommitted.push(Change::ResetAll);
                self.discarded();
                self.forget_statements();
            }
            Some(Effect::Deallocate { name: None }) => self.forget_statements(),
            Some(Effect::Deallocate { name: Some(name) }) => {
                let gone = self.statements.remove(name.as_bytes());
                if let (Some(gone), Some(lease)) = (gone, &mut self.link) {
                    lease.connection().prepared.pop(&gone.id);
                }
            }
            // Without changes before it, there is nothing to come back to.
            Some(Effect::Savepoint { name }) if !self.uncommitted.is_empty() => {
                self.uncommitted.push(Change::Savepoint { name });
            }
            Some(Effect::Release { name }) => {
                if let Some(at) = savepoint(&self.uncommitted, &name) {
                    let kept = self.uncommitted.split_off(at).into_iter();
                    let kept = kept.filter(|change| !matches!(change, Change::Savepoint { .. }));
                    self.uncommitted.extend(kept);
                }
            }
            Some(Effect::RollbackTo { name }) => {
                let at = savepoint(&self.uncommitted, &name);
                self.uncommitted.truncate(at.map_or(0, |at| at + 1));
            }
            None
            | Some(
                Effect::Clean
                | Effect::MayEnd
                | Effect::Defines(_)
                | Effect::Local
                | Effect::Dirty
                | Effect::Pin(_)
                | Effect::Savepoint { .. },
            ) => {
                if tag.starts_with(b"COMMIT") || tag.starts_with(b"PREPARE TRANSACTION") {
                    self.commit_settings();
                    self.failed = false;
                } else if tag.starts_with(b"ROLLBACK") {
                    self.roll_back_settings();
                    self.failed = false;
                    if let Some(parking) = &mut self.parking {
                        parking.is_rolled_back();
                    }
                }
            }
        }
    }

    /// DISCARD ALL runs outside of transactions only, and commits at once. What the server
    /// reports of it comes later, so start settings are put back once more at the end.
    fn discarded(&mut self) {
        self.commit_settings();
        if let Some(listening) = &mut self.listening {
            listening.commit(ListenChange::NoLonger(None));
        }
        self.uncommitted.push(Change::Discarded);
        self.pins.may_end();
    }

    /// What the transaction did to settings has not happened.
    fn roll_back_settings(&mut self) {
        self.uncommitted.retain(|change| matches!(change, Change::Discarded));
    }

    fn forget_statements(&mut self) {
        self.statements.clear();
        if let Some(lease) = &mut self.link {
            lease.connection().prepared.clear();
        }
    }

    /// What the transaction did to settings is the session's from now on.
    fn commit_settings(&mut self) {
        let Some(lease) = &mut self.link else { return };
        let settings = &mut lease.connection().settings;
        for change in std::mem::take(&mut self.uncommitted) {
            match change {
                Change::Set { name, value } => {
                    settings.set(&name, &value);
                    let value = settings.now.get(&name).map_or(value, str::to_owned);
                    if !is_fact(&name) {
                        self.wanted.set(&name, &value);
                    }
                }
                Change::Reset { name } => {
                    settings.reset(&name);
                    match self.wanted_at_start.get(&name) {
                        Some(value) => self.wanted.set(&name, value),
                        None => self.wanted.remove(&name),
                    }
                }
                Change::ResetAll | Change::Discarded => {
                    settings.reset_all();
                    self.wanted.clone_from(&self.wanted_at_start);
                    self.learns = None;
                    self.pins.held.remove(PinReason::Setting);
                }
                Change::Learn { names } => {
                    let news = names.into_iter().filter(|name| settings.now.get(name).is_none());
                    Learns::add(&mut self.learns, news);
                }
                Change::Listen(change) => {
                    if let Some(listening) = &mut self.listening {
                        listening.commit(change);
                    }
                }
                Change::Savepoint { .. } => {}
            }
        }
    }

    /// Answers that are ours and whose turn has come.
    pub(super) fn answer_in_turn(&mut self) {
        loop {
            let Some(lease) = &mut self.link else { return };
            let server = &mut **lease.connection();
            let tag = match server.awaited.front() {
                // It is not certain yet whether the client sees these answers.
                Some(own) if own.is_ours_to_give() && server.is_kept_back() => {
                    let more = server.awaited.iter().any(|awaited| !awaited.is_ours_to_give());
                    if more || self.batch > 0 {
                        return;
                    }
                    server.kept.forget();
                    continue;
                }
                Some(Awaited::OwnParseComplete { .. }) => b'1',
                Some(Awaited::OwnCloseComplete { .. }) => b'3',
                _ => return,
            };
            // A message that is passed on must be whole before ours follows.
            if server.passing > 0 {
                return;
            }
            server.awaited.pop_front();
            self.keep_passed();
            frontend::write_bare(&mut self.outbox, tag);
        }
    }

    /// ReadyForQuery for the client.
    fn ready(&mut self, body: &[u8]) -> Result<Show, End> {
        let Some(lease) = &mut self.link else { return Ok(Show::Hide) };
        let server = &mut **lease.connection();
        match server.awaited.pop_front() {
            Some(awaited) if awaited.ends_with_ready() => {}
            _ => return Err(out_of_turn(b'Z')),
        }
        let status = TxStatus::from_byte(Fields::new(body).u8()?).ok_or(Malformed::Value)?;
        server.status = status;
        server.pipeline.is_answered();
        server.copy = CopyIn::None;
        self.status = status;
        match server.awaited.front() {
            None => self.registration.client.pauses(),
            Some(Awaited::OwnQuery(_)) => self.registration.client.prepares(),
            Some(_) => self.registration.client.goes_on(),
        }
        let now = self.gateway.census.moment(time::now());
        let rest = match status {
            TxStatus::Idle => Rest::OutsideTransaction,
            TxStatus::Open | TxStatus::Failed => Rest::InTransaction,
        };
        self.card.answered(now, rest);
        self.card.has_statements(self.statements.len());
        if let Some(watch) = &mut self.watch {
            watch.ends(status);
        }
        let failed = std::mem::take(&mut self.failed);
        if status == TxStatus::Idle {
            if let Some(parking) = &mut self.parking {
                let is_all = server.awaited.is_empty() && !server.unsynced;
                parking.is_idle(if is_all { Behind::All } else { Behind::Some });
            }
            if server.awaited.is_empty() {
                self.path = Path::Settled;
            }
            // Later batches may have bound theirs already.
            if server.awaited.is_empty() && !server.unsynced {
                self.portals.clear();
            }
            if failed {
                // A transaction that nobody began ends with its error.
                self.roll_back_settings();
            }
            self.commit_settings();
            // Should they be the end of the session, it comes behind this ReadyForQuery.
            drop(self.tell_notifications());
        }
        Ok(Show::Pass)
    }
}

/// Do names in statements perhaps mean something else, once a command with this tag ran?
fn changes_meanings(tag: &[u8]) -> bool {
    [&b"ALTER "[..], b"DROP ", b"CREATE VIEW"].iter().any(|command| tag.starts_with(command))
}

fn out_of_turn(tag: u8) -> End {
    Fault::Unexpected { tag, state: "from the server" }.into()
}

fn expect(front: Option<Awaited>, tag: u8, is: fn(&Awaited) -> bool) -> Result<Show, End> {
    if front.as_ref().is_some_and(is) { Ok(Show::Pass) } else { Err(out_of_turn(tag)) }
}
