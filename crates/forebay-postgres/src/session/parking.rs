//! The session's side of parking: when its transaction is looked at, how its connection is given
//! back, and how it goes on.
//!
//! A parked transaction is one whose BEGIN waits for its next statement, as it did at its
//! beginning ([`super::local`]). What the server did for it meanwhile, we do: its timeouts run
//! on. Always true: both proofs have succeeded, and the client had sent nothing, when the
//! transaction is ended on the server; one that cannot go on is told so before anything else
//! runs.

mod deeds;
mod resuming;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_pool::overlap::HoldKind;
use forebay_pool::{Ask, ClassId, Lease, Mode, Offer, Operation, ParkWhen, Resumes};
use forebay_seam::net::Address;
use forebay_seam::time::{self, Instant, Sleep};

use super::Session;
use super::work::Followed;
use crate::fault::Fault;
use crate::parking::book::Stay;
use crate::parking::{Reason, Terms};
use crate::prepared::Statement;
use crate::route::Backend;
use crate::server::connector::{Identity, Postgres};
use crate::server::emptiness::{Inside, PATIENCE, Snapshots};
use crate::server::hosts::Berth;
use crate::server::{Gate, ServerFailure};
use crate::settings::PoolMode;
use crate::sql::{parkable, tags};
use crate::wire::{Header, TxStatus};

use deeds::{Deeds, Rows};

/// A transaction that could not be looked at just now is looked at again after this.
const SOON: Duration = Duration::from_millis(20);
/// One that nobody could look at is looked at again after this.
const LATER: Duration = Duration::from_secs(1);

/// What a session knows of parking; none where nothing parks.
#[derive(Default)]
pub(super) struct Parking {
    deeds: Deeds,
    stage: Stage,
}

/// `Working → Resting → Stays | Possible | Parked | Lost`, and back with the client's next
/// statement.
#[derive(Default)]
enum Stage {
    /// No transaction rests.
    #[default]
    Working,
    /// One does, and is looked at when it is time.
    Resting(Resting),
    /// It keeps its connection for this pause.
    Stays,
    /// It could be parked, where that is only observed.
    Possible { _stay: Stay },
    /// It has no connection.
    Parked(Box<Parked>),
    /// It keeps it, and has not told in time what it holds: nothing is sent before it did.
    Owed { class: ClassId },
    /// It has none, and cannot go on.
    Lost { class: ClassId, there: Arc<Backend> },
    /// It has one, where it failed before its client's statement came; what the server said.
    Failed { said: String },
}

/// A transaction that rests with its connection.
struct Resting {
    since: Instant,
    when: ParkWhen,
    calls: Calls,
    cue: Cue,
}

/// Whether a call of the same request is a reason to look at it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    Awaited,
    /// It was looked at before; the timer says when again.
    Heeded,
}

/// What a transaction that rests is looked at for.
enum Cue {
    /// It is time.
    Timer(Pin<Box<Sleep>>),
    /// Somebody waits for its connection.
    Call(Offer<Postgres>),
}

struct Parked {
    _stay: Stay,
    /// Its class there.
    class: ClassId,
    terms: Terms,
    /// Where it was parked: at the session's server, or at its replicas.
    there: Arc<Backend>,
    /// The host.
    address: Address,
    /// Since when its client has worked on it.
    since: Instant,
}

/// Whether more was sent than has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    All,
    Some,
}

/// What the client was told just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// Its transaction cannot go on.
    Lost,
}

/// What a look at a transaction comes to.
enum Verdict {
    /// With what its connection told.
    HoldsNothing(Inside),
    /// As far as can be told without touching it.
    SeemsToHoldNothing,
    Stays(Reason),
    /// Not now, but perhaps then.
    NotBefore(Instant),
    /// Its transaction is of no use any more.
    Lost(ServerFailure),
    /// The server did not answer in time.
    Silent,
}

/// How long a statement may take by `value` of `statement_timeout`; none where that is for ever.
/// A number without a unit is milliseconds ("Server Configuration", 19.1.1).
fn statement_timeout(value: &str) -> Option<Duration> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let unit = match unit.trim() {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        // The server knows it, and we do not: as if it were short.
        _ => return Some(Duration::ZERO),
    };
    let Ok(number) = number.parse::<f64>() else { return Some(Duration::ZERO) };
    let limit = Duration::try_from_secs_f64(number * unit).unwrap_or(Duration::MAX);
    Some(limit).filter(|limit| !limit.is_zero())
}

impl Cue {
    fn at(moment: Instant) -> Self {
        Self::Timer(Box::pin(time::sleep_until(moment)))
    }
}

impl Parking {
    /// The server says that no transaction is open: behind all that was sent, or ahead of
    /// batches whose deeds were noted before, and are not told apart.
    pub(super) fn is_idle(&mut self, behind: Behind) {
        self.deeds.clear();
        if behind == Behind::Some {
            self.deeds.refuses(Reason::NoBegin);
        }
    }
}

impl Session {
    fn deeds(&mut self) -> Option<&mut Deeds> {
        self.who.backend.parking.as_ref()?;
        Some(&mut self.parking.get_or_insert_default().deeds)
    }

    /// A BEGIN that waited goes to the server.
    pub(super) fn note_begin(&mut self, text: &[u8]) {
        if let Some(deeds) = self.deeds() {
            deeds.begins(text);
        }
    }

    /// A simple query goes to the server: all of it, or its first part.
    pub(super) fn note_text(&mut self, text: &[u8], missing: usize) {
        let Some(deeds) = self.deeds() else { return };
        if missing == 0 {
            deeds.query(text);
        } else {
            deeds.refuses(Reason::LongStatement);
        }
        self.may_change_limits(text);
    }

    /// A statement is bound.
    pub(super) fn note_portal(&mut self, portal: &[u8], statement: Option<&Arc<Statement>>) {
        if let Some(deeds) = self.deeds() {
            deeds.bind(portal, statement);
        }
        self.may_change_limits(statement.map_or(&[], |statement| &statement.text));
    }

    /// `text` runs in a transaction that was parked: unless it is a plain SELECT, the server may
    /// allow it another time from now on.
    fn may_change_limits(&mut self, text: &[u8]) {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.counts_for_server()) else {
            return;
        };
        let split = tags::split(text);
        let text = split.as_ref().map_or(text, |(text, _)| text);
        if !std::str::from_utf8(text).is_ok_and(parkable::changes_no_setting) {
            watch.leaves_to_server();
        }
    }

    /// A portal is executed.
    pub(super) fn note_execute(&mut self, portal: &[u8], body: &[u8]) {
        if let Some(deeds) = self.deeds() {
            deeds.execute(portal, Rows::of(body));
        }
    }

    /// A portal is closed.
    pub(super) fn note_close(&mut self, portal: &[u8]) {
        if let Some(deeds) = self.deeds() {
            deeds.close(portal);
        }
    }

    /// A function is called without SQL.
    pub(super) fn note_function(&mut self) {
        if let Some(deeds) = self.deeds() {
            deeds.refuses(Reason::FunctionCall);
        }
        self.may_change_limits(&[]);
    }

    /// The transaction is over, wherever it was.
    pub(super) fn parking_is_over(&mut self) {
        if let Some(parking) = &mut self.parking {
            parking.deeds.clear();
            parking.stage = Stage::Working;
        }
    }

    /// A transaction is open on a server, and its client is owed nothing.
    pub(super) fn may_be_parked(&mut self) {
        let Some(lease) = &self.link else { return };
        if self.who.backend.parking.is_none() {
            return;
        }
        let class = lease.class();
        let backend = self.backend_at_hand();
        let Some(terms) = backend.parking.as_ref().and_then(|place| place.of(class)) else {
            return;
        };
        let parking = self.parking.get_or_insert_default();
        if let Stage::Working = parking.stage
            && self.status == TxStatus::Open
        {
            let since = time::now();
            let cue = Cue::at(since + terms.after);
            let calls = Calls::Awaited;
            parking.stage = Stage::Resting(Resting { since, when: terms.when, calls, cue });
        }
    }

    /// The client has sent something.
    pub(super) fn parking_goes_on(&mut self) {
        let Some(parking) = &mut self.parking else { return };
        match parking.stage {
            Stage::Working | Stage::Parked(_) | Stage::Lost { .. } | Stage::Failed { .. } => {}
            // Nothing that was sent is looked at while an answer is owed.
            Stage::Resting(_) | Stage::Stays | Stage::Possible { .. } | Stage::Owed { .. } => {
                parking.stage = Stage::Working;
            }
        }
    }

    /// Ready when the transaction is to be looked at: when it has idled for as long as it has to
    /// and somebody waits for its connection, or when a call of its request begins.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(parking) = &mut self.parking else { return Poll::Pending };
        let Stage::Resting(resting) = &mut parking.stage else { return Poll::Pending };
        if let (Followed::Idling(idling), ParkWhen::Contended, Calls::Awaited) =
            (&self.followed, resting.when, resting.calls)
            && idling.poll_call_begins(cx).is_ready()
        {
            return Poll::Ready(());
        }
        if let Cue::Timer(timer) = &mut resting.cue {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let beside_call =
                matches!(&self.followed, Followed::Idling(idling) if idling.is_beside_call());
            if resting.when == ParkWhen::Idle || beside_call {
                return Poll::Ready(());
            }
            let Some(lease) = &self.link else { return Poll::Pending };
            resting.cue = Cue::Call(lease.offer(resting.since));
        }
        match &resting.cue {
            Cue::Call(offer) => offer.poll_called(cx),
            Cue::Timer(_) => Poll::Pending,
        }
    }

    /// Looks at the transaction that rests, and parks it if it holds nothing.
    ///
    /// # Cancel safety
    /// What the server owes is known, so the connection comes home in unknown state.
    pub(super) async fn look_at_rest(&mut self) {
        let Some(lease) = &self.link else { return };
        let class = lease.class();
        let backend = self.backend_at_hand();
        let Some(place) = &backend.parking else { return };
        let Some(terms) = place.of(class) else { return };
        let verdict = self.prove(&backend, terms).await;
        let stage = match verdict {
            Verdict::HoldsNothing(inside) => self.park(&backend, class, terms, &inside).await,
            Verdict::SeemsToHoldNothing => {
                if let Followed::Idling(idling) = &self.followed {
                    idling.could_be_parked();
                }
                Stage::Possible { _stay: place.book.could_park(class) }
            }
            Verdict::Stays(reason) => {
                let operation = self.last_deed();
                place.book.refuses(class, reason, operation.feature(), operation.name());
                if reason.may_pass() {
                    self.rests_until(time::now() + LATER, terms)
                } else {
                    Stage::Stays
                }
            }
            Verdict::NotBefore(at) => self.rests_until(at, terms),
            Verdict::Lost(failure) => {
                place.prover.look_failed(&failure);
                self.loses(class, &backend)
            }
            Verdict::Silent => {
                let operation = self.last_deed();
                let (feature, name) = (operation.feature(), operation.name());
                place.book.refuses(class, Reason::NoWitness, feature, name);
                self.waits_for_proof(class)
            }
        };
        // A cancel may be for what was said meanwhile, and waits for that.
        if self.link.is_some() && !matches!(stage, Stage::Owed { .. }) && !self.has_spoken().await {
            self.registration.client.pauses();
        }
        if let Some(parking) = &mut self.parking {
            parking.stage = stage;
        }
    }

    /// The operation of the statement that was sent last.
    fn last_deed(&mut self) -> Operation {
        let last = self.parking.as_ref().and_then(|parking| parking.deeds.last());
        let text = last.unwrap_or_default();
        let split = tags::split(&text);
        self.operation(split.as_ref().map_or(&text, |(text, _)| text))
    }

    /// Where the connection at hand leads: to the session's server, or to its replicas.
    fn backend_at_hand(&self) -> Arc<Backend> {
        let backend = &self.who.backend;
        let lease = self.link.as_ref();
        let replicas = backend
            .replicas
            .as_ref()
            .filter(|replicas| lease.is_some_and(|lease| lease.is_of(&replicas.backend.pool)));
        Arc::clone(replicas.map_or(backend, |replicas| &replicas.backend))
    }

    fn rests_since(&self) -> Instant {
        match self.parking.as_ref().map(|parking| &parking.stage) {
            Some(Stage::Resting(resting)) => resting.since,
            _ => time::now(),
        }
    }

    /// It is looked at again `at` that moment.
    fn rests_until(&self, at: Instant, terms: Terms) -> Stage {
        let (since, when) = (self.rests_since(), terms.when);
        Stage::Resting(Resting { since, when, calls: Calls::Heeded, cue: Cue::at(at) })
    }

    /// Both proofs; where parking is observed, as far as they touch nothing.
    async fn prove(&mut self, backend: &Backend, terms: Terms) -> Verdict {
        let Some(place) = &backend.parking else { return Verdict::Stays(Reason::Closed) };
        if place.prover.is_closed() {
            return Verdict::Stays(Reason::Closed);
        }
        let Some(parking) = &self.parking else { return Verdict::Stays(Reason::NoBegin) };
        let named = match parking.deeds.examine() {
            Ok(named) => named,
            Err(reason) => return Verdict::Stays(reason),
        };
        let has_portal = parking.deeds.has_portal();
        if self.who.mode == PoolMode::Session || !self.pins.held.is_empty() {
            return Verdict::Stays(Reason::KeepsConnection);
        }
        let limit = self.wanted.get("statement_timeout").and_then(statement_timeout);
        if terms.mode == Mode::Enforce && limit.is_some_and(|limit| limit < PATIENCE) {
            // What we ask might take longer, and cost the transaction.
            return Verdict::Stays(Reason::Setting);
        }
        if backend.pool.connector().access().hosts.are_spread_over() {
            return Verdict::Stays(Reason::SeveralHosts);
        }
        self.keep_passed();
        let soon = time::now() + SOON;
        let Some(lease) = &mut self.link else { return Verdict::Stays(Reason::NoBegin) };
        let server = &mut **lease.connection();
        if server.in_flight.is_settled() && !server.in_flight.is_over() {
            // A cancel of which nobody knows where it is would hit what we ask.
            return Verdict::Stays(Reason::Unseen);
        }
        if server.berth.as_ref().is_some_and(Berth::is_one_of_several) {
            return Verdict::Stays(Reason::SeveralHosts);
        }
        let is_ready = server.is_quiet()
            && server.status == TxStatus::Open
            && server.in_flight.is_settled()
            && self.outbox.is_empty();
        if !is_ready || !self.inbox.is_empty() {
            return Verdict::NotBefore(soon);
        }
        let key = Arc::clone(&server.key);
        let definitions = Arc::clone(&server.catalogue);
        if let Err(later) = place.prover.admits() {
            return Verdict::NotBefore(later);
        }
        let (pool, identity) = (&backend.pool, self.who.identity.clone());
        let names = place.prover.names_hold_nothing(pool, &identity, &definitions, &named);
        match self.unless_spoken(names).await {
            None => return Verdict::NotBefore(soon),
            Some(Err(reason)) => return Verdict::Stays(reason),
            Some(Ok(())) => {}
        }
        let (mut snapshots, mut told) = (Snapshots::Count, None);
        match terms.mode {
            Mode::Enforce => match self.ask_inside().await {
                Ok(inside) => {
                    if let Err(reason) = self.judge(&inside) {
                        return Verdict::Stays(reason);
                    }
                    told = Some(inside);
                }
                Err(verdict) => return verdict,
            },
            Mode::Off | Mode::Observe if has_portal => snapshots = Snapshots::MayBeAPortals,
            Mode::Off | Mode::Observe => {}
        }
        let outside = place.prover.holds_nothing(pool, &identity, key, snapshots);
        match self.unless_spoken(outside).await {
            None => Verdict::NotBefore(soon),
            Some(Err(reason)) => Verdict::Stays(reason),
            Some(Ok(())) => told.map_or(Verdict::SeemsToHoldNothing, Verdict::HoldsNothing),
        }
    }

    /// What its own connection tells. Cancels wait from now on.
    async fn ask_inside(&mut self) -> Result<Inside, Verdict> {
        let Some(lease) = &mut self.link else { return Err(Verdict::Stays(Reason::NoBegin)) };
        self.registration.client.prepares();
        let inside = time::timeout(PATIENCE, lease.connection().look_inside()).await;
        let Ok(inside) = inside else { return Err(Verdict::Silent) };
        self.tell_reported();
        inside.map_err(Verdict::Lost)
    }

    fn judge(&self, inside: &Inside) -> Result<(), Reason> {
        let connect_query = self.link.as_ref().and_then(|lease| lease.connect_query.as_deref());
        let connect_query = connect_query.map(str::to_ascii_lowercase).unwrap_or_default();
        inside.judge(|name| self.wanted.get(name).is_some() || connect_query.contains(name))
    }

    /// Gives the connection back. What the client has sent meanwhile goes first.
    async fn park(
        &mut self,
        backend: &Arc<Backend>,
        class: ClassId,
        terms: Terms,
        inside: &Inside,
    ) -> Stage {
        if self.has_spoken().await {
            return Stage::Working;
        }
        let Some(place) = &backend.parking else { return Stage::Working };
        let since = self.link.as_ref().map_or_else(time::now, |lease| lease.since());
        let Some(lease) = &mut self.link else { return Stage::Working };
        let address = lease.key.door.address.clone();
        self.registration.client.prepares();
        // It is empty: should its end go wrong, only the connection is lost.
        let ended = time::timeout(PATIENCE, lease.connection().end_empty()).await;
        let begin = self.parking.as_mut().and_then(|parking| parking.deeds.is_parked());
        self.begin = begin;
        self.portals.clear();
        if let Ok(Ok(())) = ended
            && self.has_spoken().await
        {
            // It goes on where it is, and a cancel that has come meanwhile is for what follows.
            self.unsent = true;
            self.prepare_link();
            return Stage::Working;
        }
        self.part_with_server();
        self.watches_in_place_of_server(inside, since, self.rests_since());
        if let Followed::Idling(idling) = &self.followed {
            idling.becomes(HoldKind::Parked);
        }
        let (stay, there) = (place.book.parks(class), Arc::clone(backend));
        Stage::Parked(Box::new(Parked { _stay: stay, class, terms, there, address, since }))
    }

    /// Has the client sent something that was not read yet, or gone?
    async fn has_spoken(&mut self) -> bool {
        self.unless_spoken(std::future::ready(())).await.is_none()
    }

    /// What comes of `question`; none when the client sends something, or goes, before.
    async fn unless_spoken<T>(&mut self, question: impl Future<Output = T>) -> Option<T> {
        if !self.inbox.is_empty() {
            return None;
        }
        let mut question = pin!(question);
        let (client, inbox, meter) = (&mut self.client, &mut self.inbox, &self.card.meter);
        poll_fn(|cx| {
            if let Poll::Ready(filled) = client.poll_fill(cx, inbox) {
                meter.received(filled.unwrap_or(0));
                return Poll::Ready(None);
            }
            question.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// The server has not told in time what the transaction holds. It keeps its connection, and
    /// its client's next statement waits for that answer.
    fn waits_for_proof(&mut self, class: ClassId) -> Stage {
        if let Some(lease) = &mut self.link {
            lease.connection().gate = Gate::UntilAnswered;
        }
        Stage::Owed { class }
    }

    /// All that the server owed has come: the transaction stays, unless the proof has failed it.
    pub(super) fn proof_was_late(&mut self) {
        let Some(parking) = &self.parking else { return };
        let Stage::Owed { class } = parking.stage else { return };
        let stands = |lease: &mut Lease<Postgres>| lease.connection().status == TxStatus::Open;
        let stage = match self.link.as_mut().is_some_and(stands) {
            true => Stage::Stays,
            false => {
                let backend = self.backend_at_hand();
                self.loses(class, &backend)
            }
        };
        self.tell_reported();
        if let Some(parking) = &mut self.parking {
            parking.stage = stage;
        }
    }

    /// The transaction cannot go on; its client hears that with its next statement.
    fn loses(&mut self, class: ClassId, there: &Arc<Backend>) -> Stage {
        let begin = self.parking.as_mut().and_then(|parking| parking.deeds.is_parked());
        self.begin = begin;
        self.portals.clear();
        self.part_with_server();
        Stage::Lost { class, there: Arc::clone(there) }
    }

    /// A transaction that goes on is asked for as such, in the class that it was in: what its
    /// next statement says of that is as late as it would be without parking.
    pub(super) fn asks_to_resume(&self, ask: &mut Ask<Identity>) {
        (ask.resumes, ask.deadline) = (Resumes::No, None);
        if let Some(parking) = &self.parking
            && let Stage::Parked(parked) = &parking.stage
        {
            ask.class = parked.class;
            ask.resumes = Resumes::Since(parked.since);
            ask.deadline = Some(time::now() + parked.terms.unpark_timeout);
        }
    }

    /// Can the transaction go on where its session would be served now?
    ///
    /// # Errors
    /// It was lost, or its server is another one by now.
    pub(super) fn can_resume(&self) -> Result<(), Fault> {
        match self.parking.as_ref().map(|parking| &parking.stage) {
            Some(Stage::Lost { .. }) => Err(Fault::ParkedLost),
            Some(Stage::Parked(parked)) if parked.way(&self.who.backend).is_none() => {
                Err(Fault::ParkedLost)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Does `lease` lead to the host that the transaction was parked at?
    ///
    /// # Errors
    /// What was read there may not be there on another one, which may be behind: without parking
    /// the transaction would have been lost with its connection.
    pub(super) fn leads_where_it_was(&self, lease: &Lease<Postgres>) -> Result<(), Fault> {
        match self.parking.as_ref().map(|parking| &parking.stage) {
            Some(Stage::Parked(parked)) if parked.address != lease.key.door.address => {
                Err(Fault::ParkedLost)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A transaction that was lost: its client is told, unless it rolls back.
    pub(super) fn tell_lost(&mut self, header: Header) -> Told {
        let is_lost = |parking: &Parking| matches!(parking.stage, Stage::Lost { .. });
        if !self.parking.as_deref().is_some_and(is_lost)
            || !matches!(header.tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'F')
        {
            return Told::Nothing;
        }
        let end = self.end_at_hand(header);
        if end == Some("ROLLBACK") {
            return Told::Nothing;
        }
        let fault = self.cannot_resume(Fault::ParkedLost);
        self.begin = None;
        let commits = header.tag == b'Q' && end.is_some();
        self.status = if commits { TxStatus::Idle } else { TxStatus::Failed };
        self.refuse_batch(&fault);
        if commits {
            self.work_is_over();
        }
        Told::Lost
    }

    /// The transaction has got a connection, if it was parked.
    pub(super) fn resumes(&mut self) {
        if let Some(parking) = &mut self.parking {
            if let Stage::Parked(parked) = &parking.stage
                && let Some(place) = &parked.there.parking
            {
                place.book.resumed(parked.class);
            }
            if let (Stage::Parked(_), Some(watch)) = (&parking.stage, &mut self.watch) {
                watch.resumes();
            }
            parking.stage = Stage::Working;
        }
    }

    /// It has got none: what the client is told if it was parked.
    pub(super) fn cannot_resume(&mut self, fault: Fault) -> Fault {
        let Some(parking) = &mut self.parking else { return fault };
        let (class, there) = match std::mem::take(&mut parking.stage) {
            Stage::Parked(parked) => (parked.class, parked.there),
            Stage::Lost { class, there } => (class, there),
            Stage::Working
            | Stage::Resting(_)
            | Stage::Stays
            | Stage::Possible { .. }
            | Stage::Owed { .. }
            | Stage::Failed { .. } => return fault,
        };
        parking.deeds.clear();
        if let Fault::Cancelled = fault {
            return fault;
        }
        if let Some(place) = &there.parking {
            place.book.lost(class);
        }
        if let Fault::Checkout(why) = fault { Fault::NotResumed(why) } else { Fault::ParkedLost }
    }
}
