//! The shell around the ledger: it holds the connections, carries the ledger's actions out,
//! and wakes those who wait.
//!
//! One lock for each pool, held for a decision and never across an await; sockets are
//! opened, reset, probed and closed after it was released, in tasks of the pool's own. A
//! grant sets the connection aside inside the lock, so a waiter that is dropped between
//! grant and poll loses nothing: its connection goes to the next in the same step.

mod beside;
mod change;
mod company;
mod errand;
mod error;
mod names;
mod offer;
mod patience;
mod review;
mod shelf;
#[cfg(test)]
mod tests;
mod ticket;

use std::borrow::Borrow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use forebay_seam::sync::{Mutex, MutexGuard};
use forebay_seam::task::Spawner;
use forebay_seam::time;
use tokio::sync::{Notify, broadcast};

use crate::ask::Ask;
use crate::class::{self, ClassId, ClassName};
use crate::connect::Connector;
use crate::event::Told;
use crate::lease::{Condition, Lease};
use crate::ledger::{Action, Actions, Fitness, Ledger};
use crate::overflow::Outlook;
use crate::queue::Rejection;
use crate::request::Request;
use crate::roster::Roster;
use crate::settings::PoolSettings;
use crate::slot::{ConnId, IdentityId, WaiterId};
use crate::stats::{IdentitySnapshot, OperationSnapshot, Snapshot};
use crate::wishes::{Seen, Wishes};

pub use crate::ledger::Count;
pub use beside::Beside;
pub use change::{NoPlace, WeakPool};
use errand::Errand;
pub use error::{CheckoutError, Refusal};
use names::Names;
use offer::Calls;
pub use offer::Offer;
use patience::Waiting;
use shelf::Shelf;
use ticket::Ticket;

/// Events kept for a slow reader before it misses the oldest.
const EVENTS: usize = 1_024;

/// Connections to one destination, shared by classes and identities. Cheap to clone.
pub struct Pool<K: Connector> {
    shared: Arc<Shared<K>>,
}

impl<K: Connector> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

pub(crate) struct Shared<K: Connector> {
    connector: K,
    spawner: Spawner,
    /// Places are filled once and never emptied, so readable without the lock.
    names: [OnceLock<ClassName>; class::MOST],
    destination: Arc<str>,
    timings: Mutex<Timings>,
    state: Mutex<State<K>>,
    alarm: Notify,
    emptied: Notify,
    /// A connection is gone.
    left: Notify,
    events: broadcast::Sender<Told>,
    roster: OnceLock<Arc<Roster>>,
}

/// Reads the wall clock.
type WallClock = fn() -> SystemTime;

#[derive(Clone, Copy)]
struct Timings {
    connect: Duration,
    reset: Duration,
}

impl Timings {
    fn of(settings: &PoolSettings) -> Self {
        Self { connect: settings.connect_timeout, reset: settings.reset_timeout }
    }
}

struct State<K: Connector> {
    ledger: Ledger,
    wishes: Wishes,
    wall: WallClock,
    /// Connections at rest and those set aside for a waiter; leased ones are their owners'.
    shelf: Shelf<K::Connection>,
    waiting: Waiting,
    /// Owners that could give their leases back.
    calls: Calls,
    names: Names<K::Identity>,
    next_alarm: Option<Instant>,
    /// What the last connect said when it failed, so that it is logged once.
    last_failure: Option<String>,
}

/// What is left to do once the lock is released.
enum Chore<K: Connector> {
    Wake(Waker),
    Open(ConnId, K::Identity),
    Close(K::Connection),
    Part(ConnId, K::Connection),
    Reset(ConnId, K::Connection),
    Probe(ConnId, K::Connection),
    Alarm,
    Emptied,
}

type Chores<K> = smallvec::SmallVec<[Chore<K>; 2]>;

impl<K: Connector> Pool<K> {
    /// A pool; it opens nothing until it is asked or told to warm up.
    ///
    /// # Panics
    /// Outside a runtime, or unless `settings` have 1 to 16 classes.
    pub fn new(connector: K, settings: PoolSettings) -> Self {
        Self::with_wall_clock(connector, settings, time::wall_now)
    }

    fn with_wall_clock(connector: K, settings: PoolSettings, wall: WallClock) -> Self {
        let classes = settings.classes.len();
        assert!((1..=class::MOST).contains(&classes), "a pool has 1 to 16 classes");
        let now = time::now();
        let shared = Arc::new(Shared {
            connector,
            spawner: Spawner::current(),
            names: Default::default(),
            destination: Arc::clone(&settings.name),
            timings: Mutex::new(Timings::of(&settings)),
            state: Mutex::new(State {
                waiting: Waiting::new(settings.classes.len()),
                wishes: Wishes::new(&settings, now),
                wall,
                ledger: Ledger::new(settings, now),
                shelf: Shelf::new(),
                calls: Calls::default(),
                names: Names::new(),
                next_alarm: None,
                last_failure: None,
            }),
            alarm: Notify::new(),
            emptied: Notify::new(),
            left: Notify::new(),
            events: broadcast::channel(EVENTS).0,
            roster: OnceLock::new(),
        });
        shared.name_classes();
        // A window that is open by now counts from the first connection on.
        shared.act(|state, actions| state.look_at_wishes(now, actions));
        shared.spawner.spawn(look_around(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// The protocol's side.
    pub fn connector(&self) -> &K {
        &self.shared.connector
    }

    /// What the destination is called.
    pub fn destination(&self) -> &Arc<str> {
        &self.shared.destination
    }

    /// The class called `name`; also one that [`Pool::apply`] has left out since, as long as
    /// the pool lives.
    pub fn class(&self, name: &str) -> Option<ClassId> {
        let place = self.class_names().position(|class| class.as_str() == name)?;
        u8::try_from(place).ok().map(ClassId)
    }

    /// What a class is called.
    ///
    /// # Panics
    /// For a class of another pool that this one has not got.
    pub fn class_name(&self, class: ClassId) -> &ClassName {
        self.shared.class_name(class)
    }

    /// Opens the warm share of the budget for `identities` (in turn), paced, and keeps it.
    pub fn warm_up(&self, identities: impl IntoIterator<Item = K::Identity>) {
        let now = time::now();
        for identity in identities {
            self.shared.act(|state, actions| {
                let id = state.identity(&identity, &self.shared.connector);
                state.ledger.warm_up(id, now, actions);
            });
        }
    }

    /// The destination says what it can take in all (its `max_connections`): the budget and
    /// the AI share follow.
    pub fn set_capacity(&self, capacity: u32) {
        let now = time::now();
        self.shared.act(|state, actions| state.ledger.resize(capacity, now, actions));
    }

    /// Replaces all connections of now: idle ones at once, leased ones when they come home.
    pub fn renew(&self) {
        let now = time::now();
        self.shared.act(|state, actions| state.ledger.renew(now, actions));
    }

    /// Looks at all connections that rest, and replaces those that are not current any more
    /// ([`Connector::is_current`]); leased ones are looked at when they come home.
    pub fn replace_outdated(&self) {
        let now = time::now();
        self.shared.act(|state, actions| {
            let mut found = false;
            for id in state.ledger.resting() {
                let connection = state.shelf.look_at(id);
                if connection.is_some_and(|conn| !self.shared.connector.is_current(conn)) {
                    state.ledger.outdate(id);
                    found = true;
                }
            }
            if found {
                state.ledger.replace_outdated(now, actions);
            }
        });
    }

    /// `identity` proves itself with something else from now on: that it was denied before says
    /// nothing any more.
    pub fn forgive(&self, identity: &K::Identity) {
        self.shared.act(|state, _| {
            if let Some(id) = state.names.number(identity) {
                state.ledger.forgive(id);
            }
        });
    }

    /// Sets the budget by hand, as far as the capacity goes; `None`: what is configured, the
    /// timetable and demand count again. No lease is broken: idle connections above a
    /// smaller budget are closed at once, leased ones when they come home.
    pub fn set_budget(&self, budget: Option<u32>) {
        let now = time::now();
        self.shared.act(|state, actions| {
            state.wishes.set_by_hand(budget);
            state.grant_wishes(now, actions);
        });
    }

    /// Waits for a connection, at most until the class's checkout timeout. Whoever asks for
    /// the same again and again keeps its `ask` and lends it.
    ///
    /// # Errors
    /// Why there is none, and when to try again; [`crate::guide::errors`] says what to do with
    /// each. Nothing was sent anywhere.
    ///
    /// # Cancel safety
    /// Dropped at any await point, its place in the queue is free at once, and a connection
    /// that was already set aside goes to the next in line.
    pub async fn checkout(
        &self,
        ask: impl Borrow<Ask<K::Identity>>,
    ) -> Result<Lease<K>, CheckoutError> {
        let mut ticket = Ticket::new(&self.shared, ask.borrow());
        let mut timer = pin!(None);
        poll_fn(|cx| ticket.poll(cx, timer.as_mut())).await
    }

    /// What one who asks for a connection of `class` would meet now.
    pub(crate) fn outlook(&self, class: ClassId, now: Instant) -> Outlook {
        let state = self.shared.state.lock();
        Outlook {
            wait: state.ledger.expected_wait(class),
            latest: state.ledger.deadline(class, now),
            is_away: state.ledger.is_away(),
        }
    }

    pub(crate) fn class_names(&self) -> impl Iterator<Item = &ClassName> {
        self.shared.names.iter().map_while(OnceLock::get)
    }

    /// What operations were learnt to take, the longest first: up to 4,096.
    pub fn operations(&self) -> Vec<OperationSnapshot> {
        self.shared.state.lock().ledger.operations()
    }

    /// One picture of the pool.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.state.lock();
        let mut snapshot = state.ledger.snapshot(time::now());
        snapshot.wanted = state.wishes.snapshot(snapshot.wanted.configured);
        snapshot.identities = state
            .ledger
            .count_identities()
            .into_iter()
            .filter_map(|(id, count)| {
                Some(IdentitySnapshot {
                    identity: state.names.name(id)?.to_string(),
                    leased: count.leased,
                    idle: count.idle,
                    opening: count.opening,
                })
            })
            .collect();
        drop(state);
        snapshot.identities.sort_by(|a, b| a.identity.cmp(&b.identity));
        snapshot
    }

    /// No new leases from now on; idle connections are closed, leased ones when they return.
    pub fn close(&self) {
        let now = time::now();
        self.shared.act(|state, actions| state.ledger.close(now, actions));
    }

    /// [`Pool::close`], then waits until the last connection is closed, at most until
    /// `deadline`. Leases that are still out then close theirs when they end.
    ///
    /// # Cancel safety
    /// The pool stays closed; nothing else is lost.
    pub async fn drain(&self, deadline: Instant) {
        self.close();
        let mut timer = pin!(time::sleep_until(deadline));
        loop {
            // Made before the look, so that it hears of what happens after it.
            let emptied = self.shared.emptied.notified();
            if self.shared.state.lock().ledger.is_empty() {
                return;
            }
            tokio::select! {
            biased;
                () = emptied => {}
                () = &mut timer => return,
            }
        }
    }
}

/// The pool's own clock: ticks until the pool is gone.
async fn look_around<K: Connector>(pool: Weak<Shared<K>>) {
    loop {
        let Some(shared) = pool.upgrade() else { return };
        let at = shared.act(|state, actions| {
            state.review_keepers(&shared.connector, actions);
            state.look_around(time::now(), actions)
        });
        shared.untangle();
        let mut timer = pin!(time::sleep_until(at));
        // Held for one round at the most, so a pool that nobody has any more ends with it.
        let notified = shared.alarm.notified();
        tokio::select! {
            biased;
            () = notified => {}
            () = &mut timer => {}
        }
    }
}

impl<K: Connector> Shared<K> {
    fn class_name(&self, class: ClassId) -> &ClassName {
        self.names[class.index()].get().expect("a ClassId is made for a class that has a name")
    }

    /// Lets the ledger decide under the lock, then carries out what it decided.
    fn act<R>(self: &Arc<Self>, decide: impl FnOnce(&mut State<K>, &mut Actions) -> R) -> R {
        let mut actions = Actions::new();
        let mut state = self.state.lock();
        let result = decide(&mut state, &mut actions);
        // Almost always there is nothing to do, or one caller to wake.
        match state.only_wakes(&actions) {
            Some(None) => {}
            Some(Some(waiter)) => {
                let waker = state.waiting.leave(waiter);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            None => self.carry_out_all(state, &actions),
        }
        result
    }

    #[inline(never)]
    fn carry_out_all(self: &Arc<Self>, mut state: MutexGuard<'_, State<K>>, actions: &Actions) {
        let mut chores = Chores::new();
        state.prepare(actions, &mut chores);
        let events = state.ledger.take_events();
        drop(state);
        self.announce(events);
        for chore in chores {
            self.carry_out(chore);
        }
    }

    fn carry_out(self: &Arc<Self>, chore: Chore<K>) {
        match chore {
            Chore::Wake(waker) => waker.wake(),
            Chore::Close(connection) => {
                drop(connection);
                self.one_left();
            }
            Chore::Part(id, connection) => {
                self.spawner.spawn(Errand::part(Arc::clone(self), id, connection));
            }
            Chore::Alarm => self.alarm.notify_one(),
            Chore::Emptied => self.emptied.notify_waiters(),
            Chore::Open(id, identity) => {
                self.spawner.spawn(Errand::open(Arc::clone(self), id, identity));
            }
            Chore::Reset(id, connection) => {
                self.spawner.spawn(Errand::reset(Arc::clone(self), id, connection));
            }
            Chore::Probe(id, connection) => {
                self.spawner.spawn(Errand::probe(Arc::clone(self), id, connection));
            }
        }
    }

    pub(crate) fn attach(self: &Arc<Self>, id: ConnId, request: &Request) {
        let now = time::now();
        self.act(|state, actions| state.ledger.attach(id, request, now, actions));
    }

    pub(crate) fn give_back(
        self: &Arc<Self>,
        id: ConnId,
        mut connection: K::Connection,
        condition: Condition,
    ) {
        let now = time::now();
        self.act(|state, actions| {
            if !self.connector.is_current(&mut connection) {
                state.ledger.outdate(id);
            }
            state.shelf.put(id, connection);
            state.calls.forget(id);
            state.ledger.give_back(id, condition, now, actions);
        });
    }
}

/// May a connection that rested be lent? One that is not current ends without a suspicion.
fn is_fit<K: Connector>(
    connector: &K,
    ledger: &mut Ledger,
    id: ConnId,
    connection: &mut K::Connection,
) -> bool {
    if connector.is_current(connection) {
        return connector.is_open(connection);
    }
    ledger.outdate(id);
    false
}

impl<K: Connector> State<K> {
    /// Ticks the ledger and tells those whose patience is over; returns when to do so again.
    /// Alarms that it sets while ticking are part of that answer: ringing them would wake the
    /// one who is awake.
    fn look_around(&mut self, now: Instant, actions: &mut Actions) -> Instant {
        self.look_at_wishes(now, actions);
        let mut at = self.ledger.tick(now, actions);
        for class in self.ledger.class_ids() {
            for (waiter, since) in self.waiting.longest(class) {
                if self.ledger.has_own_patience(waiter) {
                    continue;
                }
                let deadline = self.ledger.deadline(class, since);
                if deadline > now {
                    at = at.min(deadline);
                    break;
                }
                self.ledger.expire(waiter, now, actions);
                actions.push(Action::Wake(waiter));
            }
        }
        if let Some(earlier) = actions.take_alarm() {
            at = at.min(earlier);
        }
        self.next_alarm = Some(at);
        at
    }

    /// Who wishes for which budget by now? It is given at once.
    fn look_at_wishes(&mut self, now: Instant, actions: &mut Actions) {
        if !self.wishes.is_due(now) {
            return;
        }
        let seen = Seen {
            demand: self.ledger.demand(),
            configured: self.ledger.configured_budget(),
            warm: self.ledger.configured_warmth(),
        };
        if let Some((operation, p95)) = self.ledger.executed(now) {
            self.wishes.executed(operation, p95, now);
        }
        for news in self.wishes.look(seen, (self.wall)(), now) {
            self.ledger.tell(news);
        }
        self.grant_wishes(now, actions);
    }

    fn grant_wishes(&mut self, now: Instant, actions: &mut Actions) {
        let wanted = self.wishes.budget(self.ledger.configured_budget());
        self.ledger.set_budget(wanted, now, actions);
    }

    fn identity(&mut self, identity: &K::Identity, connector: &K) -> IdentityId {
        match self.names.number(identity) {
            Some(id) => id,
            None => self.introduce(identity, connector),
        }
    }

    /// `waiter` waits, at most as long as its class allows: the pool's own clock looks.
    fn waits(
        &mut self,
        waiter: WaiterId,
        class: ClassId,
        since: Instant,
        waker: Waker,
        actions: &mut Actions,
    ) {
        self.waiting.enter(waiter, class, since, waker);
        actions.ring(self.ledger.deadline(class, since));
    }

    /// Takes a lent connection out of the pool's hands; `None` if it had died at rest.
    fn hand_out(
        &mut self,
        id: ConnId,
        connector: &K,
        actions: &mut Actions,
    ) -> Option<K::Connection> {
        let connection = self.shelf.look_at(id);
        if !connection.is_some_and(|connection| is_fit(connector, &mut self.ledger, id, connection))
        {
            self.ledger.was_dead(id, time::now(), actions);
            return None;
        }
        self.shelf.take(id)
    }

    /// A connection was looked after, and rests if it is there and still current.
    fn put_back(
        &mut self,
        id: ConnId,
        connection: Option<K::Connection>,
        connector: &K,
        otherwise: Fitness,
    ) -> Fitness {
        match connection {
            Some(mut connection) => {
                if !connector.is_current(&mut connection) {
                    self.ledger.outdate(id);
                }
                self.shelf.put(id, connection);
                Fitness::Fit
            }
            None => otherwise,
        }
    }

    /// The one caller to wake, if `actions` and what is to be told ask for no more than that.
    #[inline]
    fn only_wakes(&self, actions: &Actions) -> Option<Option<WaiterId>> {
        if self.ledger.is_closing() || self.ledger.has_events() {
            return None;
        }
        if actions.alarm().is_some_and(|at| self.is_news(at)) {
            return None;
        }
        match *actions.list() {
            [] => Some(None),
            [Action::Wake(waiter)] => Some(Some(waiter)),
            _ => None,
        }
    }

    /// Is nobody going to look around by then?
    fn is_news(&self, alarm: Instant) -> bool {
        self.next_alarm.is_none_or(|next| alarm < next)
    }

    /// Turns actions into chores that need no lock.
    fn prepare(&mut self, actions: &Actions, chores: &mut Chores<K>) {
        for action in actions.list() {
            let chore = match *action {
                Action::Wake(waiter) => self.waiting.leave(waiter).map(Chore::Wake),
                Action::Open(id, identity) => {
                    self.names.name(identity).map(|name| Chore::Open(id, name.clone()))
                }
                Action::Close(id) => self.shelf.take(id).map(Chore::Close),
                Action::Part(id) => self.shelf.take(id).map(|c| Chore::Part(id, c)),
                Action::Reset(id) => self.shelf.take(id).map(|c| Chore::Reset(id, c)),
                Action::Probe(id) => self.shelf.take(id).map(|c| Chore::Probe(id, c)),
                Action::Recall(id) => self.calls.call(id).map(Chore::Wake),
                Action::Forget(id) => {
                    self.names.remove(id);
                    None
                }
            };
            chores.extend(chore);
        }
        if let Some(at) = actions.alarm().filter(|at| self.is_news(*at)) {
            self.next_alarm = Some(at);
            chores.push(Chore::Alarm);
        }
        if self.ledger.is_empty() && self.ledger.is_closing() {
            chores.push(Chore::Emptied);
        }
    }

    fn explain(
        &mut self,
        shared: &Shared<K>,
        class: ClassId,
        why: Rejection,
        since: Instant,
        now: Instant,
    ) -> CheckoutError {
        let destination = Arc::clone(&shared.destination);
        let name = || shared.class_name(class).clone();
        match why {
            Rejection::Refused { why, retry_after } => {
                CheckoutError::Refused { destination, class: name(), why, retry_after }
            }
            Rejection::Deadlock { feature, held } => {
                let feature = feature.unwrap_or_else(|| "unnamed".into());
                CheckoutError::Deadlock { destination, class: name(), feature, held }
            }
            Rejection::QueueFull { limit } => CheckoutError::QueueFull {
                destination,
                class: name(),
                limit,
                retry_after: self.ledger.retry_after(class),
            },
            Rejection::TimedOut => CheckoutError::TimedOut {
                destination,
                class: name(),
                waited: now.saturating_duration_since(since),
                retry_after: self.ledger.retry_after(class),
            },
            Rejection::Unreachable(failure) => CheckoutError::Unreachable {
                destination,
                failure,
                retry_after: self.ledger.next_attempt(now),
            },
            Rejection::Denied(failure) => CheckoutError::Denied { destination, failure },
            Rejection::Closed => CheckoutError::Closed { destination },
        }
    }
}
