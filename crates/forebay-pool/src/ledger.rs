//! Decides who gets which connection of one destination, and touches none.
//!
//! Plain arithmetic: no await, no lock, no clock, no socket. Events come in as method calls
//! with `now`; what must be done goes out as [`Action`]s. The shell ([`crate::pool`]), the
//! property tests and the simulator drive the same lines.
//!
//! Always true after each event:
//! - a connection is in exactly one state, and there are never more than the budget allowed;
//! - no class is above its ceiling, and no grant touches another's unused guarantee;
//! - nobody who may have a connection waits while one of its identity is idle;
//! - a waiter is granted once or rejected once, and a granted one is never rejected.

mod dispatch;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use forebay_seam::random::Dice;
use slotmap::{SecondaryMap, SlotMap};

use crate::budget::Seats;
use crate::class::{ClassId, Kind};
use crate::connect::{ConnectFailure, FailureKind};
use crate::lease::Condition;
use crate::queue::{Fate, Lanes, Level, Rejection, Waiter};
use crate::request::Request;
use crate::settings::PoolSettings;
use crate::slot::{Conn, ConnId, IdentityId, Slot, WaiterId};
use crate::stats::{Closed, Spread};
use crate::target::Opener;

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The waiter's fate is decided.
    Wake(WaiterId),
    /// Open a connection and report [`Ledger::opened`] or [`Ledger::open_failed`].
    Open(ConnId, IdentityId),
    /// The connection left the ledger: close it.
    Close(ConnId),
    /// Bring it to a known state and report [`Ledger::cleaned`].
    Reset(ConnId),
    /// Ask whether it answers and report [`Ledger::probed`].
    Probe(ConnId),
    /// Call [`Ledger::tick`] at this moment at the latest.
    Alarm(Instant),
}

pub(crate) type Actions = smallvec::SmallVec<[Action; 4]>;

/// What a caller is told at once.
#[derive(Debug)]
pub(crate) enum Asked {
    Granted(ConnId),
    Waiting(WaiterId),
    Rejected(Rejection),
}

/// Connections, waiters and warmth of one identity.
#[derive(Debug)]
struct Identity {
    /// Coldest first; the next to lend is the last.
    idle: Vec<ConnId>,
    lanes: Lanes,
    opening: u32,
    /// All of its connections, in whatever state but opening.
    live: u32,
    warm: bool,
    /// The server would not have it: what it said, and until when that is believed.
    denied: Option<(ConnectFailure, Instant)>,
}

/// What is known of a request that has taken or waits for connections here.
#[derive(Debug)]
struct RequestState {
    held: u32,
    waiting: Vec<WaiterId>,
    admitted: Option<Instant>,
    last_used: Instant,
}

/// An admitted request that used nothing for so long has to queue as a new one.
const CONTINUATION: Duration = Duration::from_secs(60);
/// Requests remembered; further ones are served as if they had no trace id.
const REQUESTS: usize = 65_536;
/// How long a server's refusal of an identity is believed.
const DENIAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct ClassStats {
    pub(crate) checkouts: u64,
    pub(crate) waited: u64,
    pub(crate) timed_out: u64,
    pub(crate) queue_full: u64,
    pub(crate) failed: u64,
    pub(crate) abandoned: u64,
    pub(crate) wait: Spread,
    pub(crate) hold: Spread,
    /// Smoothed hold time, seconds.
    hold_mean: Option<f64>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) classes: Vec<ClassStats>,
    pub(crate) opened: u64,
    pub(crate) open_failures: u64,
    pub(crate) closed: Closed,
    pub(crate) connect: Spread,
}

pub(crate) struct Ledger {
    settings: PoolSettings,
    seats: Seats,
    opener: Opener,
    dice: Dice,
    conns: SlotMap<ConnId, Conn>,
    identities: SlotMap<IdentityId, Identity>,
    waiters: SlotMap<WaiterId, Waiter>,
    /// Identities that have waiters, for a dispatch that looks at nobody else.
    queued: Vec<IdentityId>,
    requests: HashMap<Request, RequestState>,
    /// Distinct new requests waiting, by class: the unit of the queue's bound.
    new_waiting: Vec<u32>,
    idle: u32,
    opening: u32,
    cleaning: u32,
    probing: u32,
    warmed: bool,
    closing: bool,
    counters: Counters,
}

impl Ledger {
    pub(crate) fn new(settings: PoolSettings, now: Instant) -> Self {
        let seats = Seats::new(&settings);
        let classes = settings.classes.len();
        Self {
            opener: Opener::new(&settings, seats.budget, now),
            dice: Dice::new(settings.seed),
            seats,
            conns: SlotMap::with_key(),
            identities: SlotMap::with_key(),
            waiters: SlotMap::with_key(),
            queued: Vec::new(),
            requests: HashMap::new(),
            new_waiting: vec![0; classes],
            idle: 0,
            opening: 0,
            cleaning: 0,
            probing: 0,
            warmed: false,
            closing: false,
            counters: Counters {
                classes: (0..classes).map(|_| ClassStats::default()).collect(),
                ..Counters::default()
            },
            settings,
        }
    }

    /// Makes room for an identity that was not known.
    pub(crate) fn introduce(&mut self) -> IdentityId {
        self.identities.insert(Identity {
            idle: Vec::new(),
            lanes: Lanes::new(self.settings.classes.len()),
            opening: 0,
            live: 0,
            warm: false,
            denied: None,
        })
    }

    /// A caller wants a connection. It came at `since`, which is before `now` only when the
    /// connection it was given turned out to be dead and it asks again.
    pub(crate) fn ask(
        &mut self,
        identity: IdentityId,
        class: ClassId,
        request: Option<Request>,
        since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) -> Asked {
        if self.closing {
            return Asked::Rejected(Rejection::Closed);
        }
        if self.seats.may_take(class)
            && let Some(conn) = self.identities[identity].idle.pop()
        {
            self.idle -= 1;
            self.lend(conn, class, request, since, now);
            return Asked::Granted(conn);
        }
        if let Some(rejection) = self.hopeless(identity, now) {
            self.counters.classes[class.index()].failed += 1;
            return Asked::Rejected(rejection);
        }
        let request =
            request.filter(|r| self.requests.len() < REQUESTS || self.requests.contains_key(r));
        let (level, age) = self.rank(request.as_ref(), since, now);
        if level == Level::New && !self.queue_has_room(class, request.as_ref()) {
            self.counters.classes[class.index()].queue_full += 1;
            return Asked::Rejected(Rejection::QueueFull { limit: self.queue_limit(class) });
        }
        let fate = Fate::Waiting { prev: None, next: None };
        let waiter =
            self.waiters.insert(Waiter { identity, class, request, level, age, since, fate });
        self.enqueue(waiter, now);
        self.open_more(now, actions);
        Asked::Waiting(waiter)
    }

    /// Nothing to wait for: the destination is down, or refuses this identity, and no
    /// connection of it is there that could come home.
    fn hopeless(&self, identity: IdentityId, now: Instant) -> Option<Rejection> {
        let identity = &self.identities[identity];
        if identity.live > 0 {
            return None;
        }
        if let Some((failure, until)) = &identity.denied
            && *until > now
        {
            return Some(Rejection::Denied(failure.clone()));
        }
        let failure = self.opener.outage().filter(|_| self.opener.is_broken(now))?;
        Some(Rejection::Unreachable(failure.clone()))
    }

    fn rank(&self, request: Option<&Request>, since: Instant, now: Instant) -> (Level, Instant) {
        match request.and_then(|r| self.requests.get(r)) {
            Some(RequestState { held: 1.., admitted: Some(at), .. }) => (Level::Holder, *at),
            Some(RequestState { admitted: Some(at), last_used, .. })
                if *last_used + CONTINUATION > now =>
            {
                (Level::Continuation, *at)
            }
            _ => (Level::New, since),
        }
    }

    /// New requests of `class` that may wait: a multiple of the seats it can get.
    pub(crate) fn queue_limit(&self, class: ClassId) -> u32 {
        self.seats.reach(class).saturating_mul(self.settings.queue_factor)
    }

    /// Core is bounded by its connected clients and their deadline.
    fn queue_has_room(&self, class: ClassId, request: Option<&Request>) -> bool {
        let counts_already = request
            .and_then(|r| self.requests.get(r))
            .is_some_and(|state| state.waiting.iter().any(|w| self.waiters[*w].class == class));
        self.seats.kind(class) == Kind::Core
            || counts_already
            || self.new_waiting[class.index()] < self.queue_limit(class)
    }

    fn enqueue(&mut self, id: WaiterId, now: Instant) {
        let Waiter { identity, class, level, ref request, .. } = self.waiters[id];
        let request = request.clone();
        let lanes = &mut self.identities[identity].lanes;
        if lanes.is_empty() {
            self.queued.push(identity);
        }
        lanes.insert(&mut self.waiters, id);
        if level == Level::New && !self.another_new_waits(request.as_ref(), class, id) {
            self.new_waiting[class.index()] += 1;
        }
        if let Some(request) = request {
            let state = self.requests.entry(request).or_insert(RequestState {
                held: 0,
                waiting: Vec::new(),
                admitted: None,
                last_used: now,
            });
            state.waiting.push(id);
        }
    }

    /// Takes `id` out of its lane and out of its request's list.
    fn dequeue(&mut self, id: WaiterId) {
        let Waiter { identity, class, level, ref request, .. } = self.waiters[id];
        let request = request.clone();
        let lanes = &mut self.identities[identity].lanes;
        lanes.remove(&mut self.waiters, id);
        if lanes.is_empty() {
            self.queued.retain(|other| *other != identity);
        }
        if level == Level::New && !self.another_new_waits(request.as_ref(), class, id) {
            self.new_waiting[class.index()] -= 1;
        }
        if let Some(request) = request
            && let Some(state) = self.requests.get_mut(&request)
        {
            state.waiting.retain(|other| *other != id);
            if state.held == 0 && state.waiting.is_empty() && state.admitted.is_none() {
                self.requests.remove(&request);
            }
        }
    }

    fn another_new_waits(&self, request: Option<&Request>, class: ClassId, id: WaiterId) -> bool {
        request.and_then(|r| self.requests.get(r)).is_some_and(|state| {
            state.waiting.iter().any(|other| {
                let waiter = &self.waiters[*other];
                *other != id && waiter.class == class && waiter.level == Level::New
            })
        })
    }

    pub(crate) fn fate(&self, id: WaiterId) -> &Fate {
        &self.waiters[id].fate
    }

    /// The waiter takes the connection that was set aside for it.
    pub(crate) fn take_grant(&mut self, id: WaiterId) {
        self.waiters[id].fate = Fate::Taken;
    }

    /// The waiter's deadline passed. Does nothing to one whose fate is decided.
    pub(crate) fn expire(&mut self, id: WaiterId, now: Instant) {
        let Waiter { identity, class, ref fate, .. } = self.waiters[id];
        if !matches!(fate, Fate::Waiting { .. }) {
            return;
        }
        self.dequeue(id);
        let stats = &mut self.counters.classes[class.index()];
        let outage = self.opener.outage().filter(|_| self.identities[identity].live == 0);
        let rejection = match outage {
            Some(failure) => {
                stats.failed += 1;
                Rejection::Unreachable(failure.clone())
            }
            None => {
                stats.timed_out += 1;
                Rejection::TimedOut
            }
        };
        stats.wait.record(now.saturating_duration_since(self.waiters[id].since));
        self.waiters[id].fate = Fate::Rejected(rejection);
    }

    /// The waiter left. A connection already set aside for it goes on to the next.
    pub(crate) fn abandon(&mut self, id: WaiterId, now: Instant, actions: &mut Actions) {
        match self.waiters[id].fate {
            Fate::Waiting { .. } => {
                self.dequeue(id);
                let class = self.waiters[id].class;
                self.counters.classes[class.index()].abandoned += 1;
            }
            Fate::Granted { conn } => self.give_back(conn, Condition::Clean, now, actions),
            Fate::Taken | Fate::Rejected(_) => {}
        }
        self.waiters.remove(id);
    }

    /// A connection comes home.
    pub(crate) fn give_back(
        &mut self,
        id: ConnId,
        condition: Condition,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Slot::Leased { class, since, ref request } = self.conns[id].slot else {
            unreachable!("only what was lent is given back");
        };
        let request = request.clone();
        let held = now.saturating_duration_since(since);
        let stats = &mut self.counters.classes[class.index()];
        stats.hold.record(held);
        let seconds = held.as_secs_f64();
        stats.hold_mean = Some(stats.hold_mean.map_or(seconds, |m| m + 0.1 * (seconds - m)));
        if let Some(request) = request {
            self.detach(&request, now);
        }
        match condition {
            Condition::Clean => {
                self.seats.free(class);
                self.rest(id, now, now, actions);
            }
            Condition::Unknown => {
                self.conns[id].slot = Slot::Cleaning { class };
                self.cleaning += 1;
                actions.push(Action::Reset(id));
            }
            Condition::Broken => {
                self.seats.free(class);
                self.counters.closed.broken += 1;
                self.discard(id, actions);
            }
        }
        self.dispatch(now, actions);
        self.open_more(now, actions);
    }

    /// A lease turned out to belong to `request`.
    pub(crate) fn attach(&mut self, id: ConnId, belongs_to: Request, now: Instant) {
        let Slot::Leased { ref mut request, .. } = self.conns[id].slot else { return };
        if request.as_ref() == Some(&belongs_to) {
            return;
        }
        let before = request.replace(belongs_to.clone());
        if let Some(before) = before {
            self.detach(&before, now);
        }
        if self.requests.len() < REQUESTS || self.requests.contains_key(&belongs_to) {
            self.hold_for(belongs_to, now);
        }
    }

    fn detach(&mut self, request: &Request, now: Instant) {
        if let Some(state) = self.requests.get_mut(request) {
            state.held = state.held.saturating_sub(1);
            state.last_used = now;
        }
    }

    fn hold_for(&mut self, request: Request, now: Instant) {
        let state = self.requests.entry(request).or_insert(RequestState {
            held: 0,
            waiting: Vec::new(),
            admitted: None,
            last_used: now,
        });
        state.held += 1;
        state.last_used = now;
        if state.admitted.is_none() {
            state.admitted = Some(now);
            // Its other queries need not queue as newcomers any more.
            for waiter in state.waiting.clone() {
                self.promote(waiter, now);
            }
        }
    }

    fn promote(&mut self, id: WaiterId, now: Instant) {
        if !matches!(self.waiters[id].fate, Fate::Waiting { .. }) {
            return;
        }
        self.dequeue(id);
        self.waiters[id].level = Level::Holder;
        self.waiters[id].age = now;
        self.enqueue(id, now);
    }

    /// A connect succeeded.
    pub(crate) fn opened(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        let Slot::Opening { since } = self.conns[id].slot else {
            unreachable!("only what is opening can be opened");
        };
        let took = now.saturating_duration_since(since);
        self.opener.succeeded(took);
        self.counters.opened += 1;
        self.counters.connect.record(took);
        self.opening -= 1;
        let identity = &mut self.identities[self.conns[id].identity];
        identity.opening -= 1;
        identity.live += 1;
        identity.denied = None;
        self.rest(id, now, now, actions);
        self.dispatch(now, actions);
        self.keep_warm(now, actions);
        self.open_more(now, actions);
    }

    /// A connect failed.
    pub(crate) fn open_failed(
        &mut self,
        id: ConnId,
        failure: ConnectFailure,
        now: Instant,
        actions: &mut Actions,
    ) {
        self.opener.failed(&failure, now, &mut self.dice);
        self.counters.open_failures += 1;
        self.opening -= 1;
        let Some(conn) = self.conns.remove(id) else { return };
        let identity = &mut self.identities[conn.identity];
        identity.opening -= 1;
        match failure.kind {
            FailureKind::Denied => {
                identity.denied = Some((failure.clone(), now + DENIAL));
                if identity.live == 0 && identity.opening == 0 {
                    self.reject_all(conn.identity, &Rejection::Denied(failure), now, actions);
                }
            }
            FailureKind::Unreachable if self.opener.gave_up() => {
                let lost: Vec<_> = self
                    .queued
                    .iter()
                    .copied()
                    .filter(|identity| self.identities[*identity].live == 0)
                    .collect();
                for identity in lost {
                    let rejection = Rejection::Unreachable(failure.clone());
                    self.reject_all(identity, &rejection, now, actions);
                }
            }
            FailureKind::Unreachable | FailureKind::Busy => {}
        }
        if let Some(at) = self.opener.not_before() {
            actions.push(Action::Alarm(at));
        }
        self.open_more(now, actions);
    }

    fn reject_all(
        &mut self,
        identity: IdentityId,
        rejection: &Rejection,
        now: Instant,
        actions: &mut Actions,
    ) {
        let waiting: Vec<_> = self
            .waiters
            .iter()
            .filter(|(_, w)| w.identity == identity && matches!(w.fate, Fate::Waiting { .. }))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            self.dequeue(id);
            let waiter = &mut self.waiters[id];
            let stats = &mut self.counters.classes[waiter.class.index()];
            stats.failed += 1;
            stats.wait.record(now.saturating_duration_since(waiter.since));
            waiter.fate = Fate::Rejected(rejection.clone());
            actions.push(Action::Wake(id));
        }
    }

    /// A reset has ended: well, or with the connection closed.
    pub(crate) fn cleaned(
        &mut self,
        id: ConnId,
        fit: Fitness,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Slot::Cleaning { class } = self.conns[id].slot else {
            unreachable!("only what is being cleaned can be clean");
        };
        self.cleaning -= 1;
        self.seats.free(class);
        self.back_from_upkeep(id, fit, now, now, actions);
    }

    /// A probe has ended: well, or with the connection closed.
    pub(crate) fn probed(&mut self, id: ConnId, fit: Fitness, now: Instant, actions: &mut Actions) {
        let Slot::Probing { idle_since } = self.conns[id].slot else {
            unreachable!("only what is being probed can be probed");
        };
        self.probing -= 1;
        self.back_from_upkeep(id, fit, idle_since, now, actions);
    }

    fn back_from_upkeep(
        &mut self,
        id: ConnId,
        fit: Fitness,
        idle_since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) {
        match fit {
            Fitness::Fit => self.rest(id, idle_since, now, actions),
            Fitness::Dead => {
                self.counters.closed.broken += 1;
                self.forget(id);
            }
            Fitness::Unclean => {
                self.counters.closed.unclean += 1;
                self.forget(id);
            }
        }
        self.dispatch(now, actions);
        self.keep_warm(now, actions);
        self.open_more(now, actions);
    }

    /// A connection that was just lent turned out to be dead before its owner used it.
    pub(crate) fn was_dead(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        let Slot::Leased { class, ref request, .. } = self.conns[id].slot else { return };
        let request = request.clone();
        self.counters.classes[class.index()].checkouts -= 1;
        if let Some(request) = request {
            self.detach(&request, now);
        }
        self.seats.free(class);
        self.counters.closed.broken += 1;
        self.forget(id);
        self.dispatch(now, actions);
        self.open_more(now, actions);
    }

    /// No more leases. What is idle is closed, what is lent when it comes home.
    pub(crate) fn close(&mut self, now: Instant, actions: &mut Actions) {
        self.closing = true;
        for identity in self.queued.clone() {
            self.reject_all(identity, &Rejection::Closed, now, actions);
        }
        let idle: Vec<_> =
            self.identities.values_mut().flat_map(|i| std::mem::take(&mut i.idle)).collect();
        for id in idle {
            self.idle -= 1;
            self.counters.closed.surplus += 1;
            self.discard(id, actions);
        }
    }

    /// The destination says what it can take in all.
    pub(crate) fn resize(&mut self, capacity: u32, now: Instant, actions: &mut Actions) {
        self.seats.resize(&self.settings, Some(capacity));
        self.opener.resize(&self.settings, self.seats.budget);
        self.dispatch(now, actions);
        self.keep_warm(now, actions);
        self.open_more(now, actions);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// How long until a seat of `class` is likely free: a hint, not a promise.
    pub(crate) fn retry_after(&mut self, class: ClassId) -> Duration {
        let hold = self.counters.classes[class.index()].hold_mean.unwrap_or(0.1);
        let ahead = f64::from(self.new_waiting[class.index()] + 1);
        let drain = hold * ahead / f64::from(self.seats.reach(class));
        Duration::from_secs_f64((drain * self.dice.between(0.5..1.5)).clamp(0.02, 30.0))
    }

    /// When a destination that is down is tried again.
    pub(crate) fn next_attempt(&self, now: Instant) -> Duration {
        let at = self.opener.not_before().unwrap_or(now);
        at.saturating_duration_since(now).max(Duration::from_millis(20))
    }

    pub(crate) fn deadline(&self, class: ClassId, since: Instant) -> Instant {
        self.seats.deadline(class, since)
    }

    /// Whose connection it is.
    pub(crate) fn lent_since(&self, id: ConnId) -> Option<(ClassId, Instant)> {
        match self.conns.get(id)?.slot {
            Slot::Leased { class, since, .. } => Some((class, since)),
            Slot::Opening { .. }
            | Slot::Idle { .. }
            | Slot::Cleaning { .. }
            | Slot::Probing { .. } => None,
        }
    }
}

/// What came out of looking after a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// As good as fresh.
    Fit,
    /// It did not answer and was closed.
    Dead,
    /// It could not be brought to a known state and was closed.
    Unclean,
}

/// The numbers of one identity, for the snapshot.
pub(crate) struct IdentityCount {
    pub(crate) leased: u32,
    pub(crate) idle: u32,
    pub(crate) opening: u32,
}

impl Ledger {
    pub(crate) fn count_identities(&self) -> SecondaryMap<IdentityId, IdentityCount> {
        let mut counts = SecondaryMap::new();
        for (id, identity) in &self.identities {
            let idle = u32::try_from(identity.idle.len()).unwrap_or(u32::MAX);
            counts.insert(id, IdentityCount { leased: 0, idle, opening: identity.opening });
        }
        for conn in self.conns.values() {
            if let Slot::Leased { .. } = conn.slot {
                counts[conn.identity].leased += 1;
            }
        }
        counts
    }
}
