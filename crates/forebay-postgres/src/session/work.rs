//! The work at hand: the request, class, feature and operation that a transaction belongs to,
//! and whether it goes on or rests.
//!
//! What a statement's tags say holds until its transaction is over, and for each run of a
//! statement that was prepared with them; what the session says
//! (`SET forebay.…`) holds where they are silent. Work that belongs to no request is not
//! followed beyond its checkout, and costs nothing more. Always true: a lease is told to be at
//! rest only while its client is owed nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_pool::overlap::{AtWork, HoldKind, IdleTransaction, Idling};
use forebay_pool::{Activity, Ask, Attempt, ClassId, Operation, Request, TraceId};
use forebay_seam::time;

use super::Session;
use super::outward::MOST_STATEMENTS;
use super::recent::Recent;
use crate::operations;
use crate::own::{self, Nonsense};
use crate::prepared::Statement;
use crate::route::Backend;
use crate::server::connector::Identity;
use crate::sql::effect::Effects;
use crate::sql::tags::{self, Tags};
use crate::wire::frontend::{Bind, Named, Parse};
use crate::wire::{HEADER, Header};

/// What is followed of an open transaction whose request is known.
#[derive(Default)]
pub(super) enum Followed {
    /// None is open, or it has overlapped no call so far and is at work.
    #[default]
    Nothing,
    Idling(Idling),
    AtWork(AtWork),
}

/// What preparing a statement is told apart by from running it.
const PREPARE: &[u8] = b"PREPARE";

/// What a session knows of the work at hand.
#[derive(Default)]
pub(super) struct Work {
    /// The request that tags named.
    request: Option<Request>,
    said: Said,
    /// What the tags of prepared statements say of each run, by the client's name.
    prepared: Option<Box<Prepared>>,
    at_hand: AtHand,
    last: Last,
    /// What the lease is known to do.
    told: Option<Operation>,
    /// What was asked last, of the engine. Boxed: who asks nothing needs no room for it.
    ask: Option<Box<Ask<Identity>>>,
    recent: Recent,
}

/// What tags say of the work.
#[derive(Clone, Default)]
struct Said {
    trace: Option<TraceId>,
    class: Option<ClassId>,
    feature: Option<Arc<str>>,
    cost: Option<Duration>,
    attempt: Option<Attempt>,
    needs: Option<u32>,
}

impl Said {
    /// What is said later counts.
    fn and(&mut self, later: &Self) {
        self.trace = later.trace.or(self.trace);
        self.class = later.class.or(self.class);
        if later.feature.is_some() {
            self.feature.clone_from(&later.feature);
        }
        self.cost = later.cost.or(self.cost);
        self.attempt = later.attempt.or(self.attempt);
        self.needs = later.needs.or(self.needs);
    }
}

/// Most clients have no statements with tags: these take no memory where there are none.
#[derive(Default)]
struct Prepared(HashMap<Bytes, Said>);

/// Whether the tags of the first message in the inbox were read.
#[derive(Default)]
enum AtHand {
    #[default]
    Unread,
    /// For the checkout that it needed; what they say.
    Read(Option<Box<Said>>),
}

/// The statement that ran last, where a request is known.
#[derive(Default)]
enum Last {
    #[default]
    Unknown,
    Text(Vec<u8>),
    Prepared(Arc<Statement>),
}

/// What the tags of a Parse say, for the statement that comes of it.
pub(super) struct PreparedTags(Option<Said>);

impl Session {
    /// What is asked of the engine for the message at hand.
    pub(super) fn ask(&mut self) -> Box<Ask<Identity>> {
        let inbox = std::mem::take(&mut self.inbox);
        let operation = self.read_ahead(&inbox);
        self.inbox = inbox;
        if self.work.told != operation {
            self.work.told.clone_from(&operation);
            self.card.begins_with(operation.as_ref().map(Operation::name));
            self.shows_beginning = true;
        }
        let (request, class) = (self.request(), self.class());
        let kept = self.work.ask.take();
        let mut ask = kept.unwrap_or_else(|| Box::new(Ask::new(self.who.identity.clone(), class)));
        let (said, own) = (&self.work.said, &self.who.own);
        ask.class = class;
        ask.request = request;
        ask.operation = operation;
        ask.cost = said.cost.or(own.cost);
        ask.attempt = said.attempt.unwrap_or_default();
        ask.needs = said.needs.unwrap_or(own.needs);
        self.asks_to_resume(&mut ask);
        ask
    }

    /// What was asked is asked again with little changed.
    pub(super) fn keep_ask(&mut self, mut ask: Box<Ask<Identity>>) {
        ask.request = None;
        self.work.ask = Some(ask);
    }

    /// Reads the tags of the first message in `inbox`, and what it will run.
    fn read_ahead(&mut self, inbox: &[u8]) -> Option<Operation> {
        let header = Header::read(inbox).ok()??;
        let body = inbox.get(HEADER..header.whole().min(inbox.len()))?;
        let text = match header.tag {
            b'Q' => body.strip_suffix(&[0]).unwrap_or(body),
            b'P' => Parse::read(body).ok()?.text,
            b'B' => return self.run_of(Bind::read(body).ok()?.statement),
            b'D' => match Named::read(body).ok()? {
                Named::Statement(name) => return self.run_of(name),
                Named::Portal(_) => return None,
            },
            _ => return None,
        };
        let split = tags::split(text);
        let said = split.as_ref().map(|(_, tags)| self.interpret(tags));
        if let Some(said) = &said {
            self.hear(said);
        }
        self.work.at_hand = AtHand::Read(said.map(Box::new));
        // A transaction that begins by preparing goes on to run it.
        if header.tag == b'P' && self.begin.is_none() && !executes(inbox) {
            return Some(self.operation(PREPARE));
        }
        Some(self.operation(split.as_ref().map_or(text, |(text, _)| text)))
    }

    /// A statement that was prepared before is to be run.
    fn run_of(&mut self, name: &[u8]) -> Option<Operation> {
        self.hear_prepared(name);
        let statement = match name {
            b"" => self.unnamed.clone(),
            name => self.statements.get(name).cloned(),
        };
        Some(self.operation(&statement?.text))
    }

    /// `text`, run for the feature of now.
    pub(super) fn operation(&mut self, text: &[u8]) -> Operation {
        let feature = self.work.said.feature.as_ref().unwrap_or_else(|| self.who.feature());
        self.work.recent.operation(&self.gateway.operations, feature, text)
    }

    /// What `text` may leave behind.
    pub(super) fn effects(&mut self, text: &[u8]) -> Effects {
        self.work.recent.effects(text)
    }

    pub(super) fn class(&self) -> ClassId {
        self.work.said.class.unwrap_or_else(|| self.who.class(None))
    }

    /// The request that the work belongs to: by its tags, or that of the whole session.
    fn request(&mut self) -> Option<Request> {
        if let Some(request) = &self.work.request {
            return Some(request.clone());
        }
        let (tenant, trace) = (self.who.tenant.as_ref()?, self.who.own.trace?);
        Some(self.work.recent.request(&self.gateway.roster, tenant, trace))
    }

    fn has_request(&self) -> bool {
        self.work.request.is_some() || (self.who.own.trace.is_some() && self.who.tenant.is_some())
    }

    /// A simple query goes to the server.
    pub(super) fn note_query(&mut self, text: &[u8]) {
        if let AtHand::Unread = std::mem::take(&mut self.work.at_hand)
            && let Some((_, tags)) = tags::split(text)
        {
            let said = self.interpret(&tags);
            self.hear(&said);
        }
        if self.has_request() {
            self.work.last = Last::Text(operations::head(text).to_vec());
        }
    }

    /// A Parse with `tags` goes to the server. They hold for each run of the statement, once
    /// it is [kept](Session::keep_tags).
    pub(super) fn note_parse(&mut self, tags: Option<&Tags<'_>>) -> PreparedTags {
        PreparedTags(match std::mem::take(&mut self.work.at_hand) {
            AtHand::Read(said) => said.map(|said| *said),
            AtHand::Unread => tags.map(|tags| {
                let said = self.interpret(tags);
                self.hear(&said);
                said
            }),
        })
    }

    /// The client has a statement of this name from now on.
    pub(super) fn keep_tags(&mut self, name: &Bytes, PreparedTags(said): PreparedTags) {
        let Some(said) = said else {
            if let Some(kept) = &mut self.work.prepared {
                kept.0.remove(name);
            }
            return;
        };
        let kept = &mut self.work.prepared.get_or_insert_default().0;
        if kept.len() >= MOST_STATEMENTS {
            kept.retain(|name, _| self.statements.contains_key(name));
        }
        kept.insert(name.clone(), said);
    }

    /// A prepared statement is bound, to be run.
    pub(super) fn note_bind(&mut self, name: &[u8], statement: Option<Arc<Statement>>) {
        self.work.at_hand = AtHand::Unread;
        self.hear_prepared(name);
        if let Some(statement) = statement.filter(|_| self.has_request()) {
            self.work.last = Last::Prepared(statement);
        }
    }

    fn hear_prepared(&mut self, name: &[u8]) {
        if let Some(said) = self.work.prepared.as_ref().and_then(|kept| kept.0.get(name)).cloned() {
            self.hear(&said);
        }
    }

    fn hear(&mut self, said: &Said) {
        if let (Some(trace), Some(tenant)) = (said.trace, &self.who.tenant) {
            let request = self.work.recent.request(&self.gateway.roster, tenant, trace);
            if let Some(lease) = &mut self.link {
                lease.attach(request.clone());
            }
            self.work.request = Some(request);
        }
        self.work.said.and(said);
    }

    fn interpret(&mut self, tags: &Tags<'_>) -> Said {
        let feature = tags.feature.as_deref().filter(|feature| !feature.is_empty());
        Said {
            trace: tags.traceparent.as_deref().and_then(TraceId::from_traceparent),
            class: tags.class.as_deref().map(|class| self.who.class(Some(class))),
            feature: feature.map(|feature| self.work.recent.feature(feature)),
            cost: self.read_hint(tags.cost.as_deref(), own::cost),
            attempt: self.read_hint(tags.attempt.as_deref(), own::attempt),
            needs: self.read_hint(tags.needs.as_deref(), own::needs),
        }
    }

    /// A comment never fails its statement: what cannot be read is counted.
    fn read_hint<T>(&self, text: Option<&str>, read: fn(&str) -> Result<T, Nonsense>) -> Option<T> {
        let read = read(text?);
        if read.is_err() {
            self.gateway.count_ignored_hint();
        }
        read.ok()
    }

    /// The transaction is over: what its tags said holds no longer.
    pub(super) fn work_is_over(&mut self) {
        self.parking_is_over();
        self.work.request = None;
        self.work.said = Said::default();
        self.work.last = Last::Unknown;
        self.followed = Followed::Nothing;
    }

    /// A transaction is open and its client is owed nothing: it may be waiting for a model, or
    /// for another connection.
    pub(super) fn rests(&mut self, kind: HoldKind) {
        // What a server says by itself is no work of the transaction's.
        if let Followed::Idling(_) = self.followed {
            return;
        }
        let Some(request) = self.request() else { return };
        let operation = self.last_operation();
        let mut since = None;
        if let Some(lease) = &mut self.link {
            if self.work.told.as_ref() != Some(&operation) {
                lease.does(&operation);
                self.work.told = Some(operation.clone());
            }
            lease.now(Activity::AtRest);
            since = Some(lease.since());
        }
        let what = IdleTransaction {
            kind,
            class: self.who.class_name(self.class()),
            feature: Arc::clone(operation.feature()),
            statement: Arc::clone(operation.name()),
            database: Arc::clone(&self.who.database),
            user: Arc::clone(&self.who.user),
            application: self.card.application(),
            client: self.card.id,
            since: since.unwrap_or_else(time::now),
        };
        let idling = match std::mem::take(&mut self.followed) {
            Followed::AtWork(at_work) => at_work.idles(&request, what),
            Followed::Nothing | Followed::Idling(_) => {
                self.gateway.overlaps.transaction_idles(&request, what)
            }
        };
        self.followed = Followed::Idling(idling);
    }

    /// The client has sent something: its transaction rests no longer.
    pub(super) fn goes_on(&mut self) {
        self.parking_goes_on();
        let Followed::Idling(_) = self.followed else { return };
        if let Followed::Idling(idling) = std::mem::take(&mut self.followed)
            && let Some(at_work) = idling.goes_on()
        {
            self.followed = Followed::AtWork(at_work);
        }
        if let Some(lease) = &mut self.link {
            lease.now(Activity::Working);
        }
    }

    /// A transaction that was deferred or parked has a connection from now on.
    pub(super) fn work_is_linked(&self) {
        if let Followed::AtWork(at_work) = &self.followed {
            at_work.takes_connection();
        }
    }

    /// The transaction is over, and the connection is kept for the next.
    pub(super) fn work_keeps_server(&mut self) {
        if std::mem::take(&mut self.shows_beginning) {
            self.card.begins_with(None);
        }
    }

    /// What is asked of the engine is not what was asked before.
    pub(super) fn work_asks_anew(&mut self) {
        self.work.ask = None;
    }

    /// The client's work goes to another server than that of `before`: classes are known there
    /// by their names.
    pub(super) fn work_moves(&mut self, before: &Backend) {
        let now = &self.who.backend;
        let same = |class: ClassId| {
            let name = before.pool.class_name(class);
            now.classes.get(name.as_str()).map(|(class, _)| *class)
        };
        let at_hand = match &mut self.work.at_hand {
            AtHand::Unread | AtHand::Read(None) => None,
            AtHand::Read(Some(said)) => Some(&mut **said),
        };
        let prepared = self.work.prepared.iter_mut().flat_map(|kept| kept.0.values_mut());
        for said in prepared.chain(at_hand).chain([&mut self.work.said]) {
            said.class = said.class.and_then(same);
        }
    }

    fn last_operation(&mut self) -> Operation {
        match std::mem::take(&mut self.work.last) {
            Last::Unknown => self.operation(b""),
            Last::Text(text) => {
                let split = tags::split(&text);
                let operation = self.operation(split.as_ref().map_or(&text, |(text, _)| text));
                drop(split);
                self.work.last = Last::Text(text);
                operation
            }
            Last::Prepared(statement) => {
                let operation = self.operation(&statement.text);
                self.work.last = Last::Prepared(statement);
                operation
            }
        }
    }
}

/// Does a batch at the start of `inbox` run anything, or only prepare?
fn executes(inbox: &[u8]) -> bool {
    let mut rest = inbox;
    while let Ok(Some(header)) = Header::read(rest) {
        match header.tag {
            b'P' | b'B' | b'D' | b'C' => {}
            b'S' | b'H' => return false,
            _ => return true,
        }
        let Some(next) = rest.get(header.whole()..) else { return true };
        rest = next;
    }
    true
}
