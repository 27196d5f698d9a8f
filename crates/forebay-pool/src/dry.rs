//! The engine without a shell: for simulators, and for tests of those who use the engine.
//!
//! A [`DryPool`] decides exactly as a [`Pool`](crate::Pool) does, since it drives the same
//! ledger, but it has no clock, task or connection: each event says when it happens, and what
//! a pool would do next comes out as [`News`]. So an hour of traffic is played in a second,
//! and the same seed and events give the same decisions.
//!
//! It owns the names: connections and places in line are opaque numbers here, identities are
//! the caller's own. Always true: what is decided for a place is told once.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use slotmap::SecondaryMap;

use crate::ask::Ask;
use crate::class::{self, ClassId, ClassName};
use crate::connect::ConnectFailure;
use crate::lease::Condition;
use crate::ledger::{Action, Actions, Asked, Came, Ledger, Wanted};
use crate::pool::Refusal;
use crate::queue::{Fate, Rejection};
use crate::settings::{Parting, PoolSettings};
use crate::slot::{ConnId, IdentityId, WaiterId};
use crate::stats::Snapshot;
use crate::terms::Terms;

pub use crate::ledger::Fitness;

/// A connection that a real pool would have, or would be opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection(ConnId);

/// A place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(WaiterId);

/// What a caller is told at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// It has this connection until [`DryPool::give_back`].
    Granted(Connection),
    /// It stands in line: what becomes of it is [`News::Granted`] or [`News::Refused`]. At
    /// the moment said, [`DryPool::expire`] is due.
    Waiting(Place, Instant),
    /// It gets nothing.
    Refused(Why),
}

/// Why a caller gets nothing: [`CheckoutError`](crate::CheckoutError) without its texts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// As many requests wait as may.
    QueueFull,
    /// Its deadline passed while it waited.
    TimedOut,
    /// A policy refuses it.
    Policy(Refusal),
    /// All that could serve it wait for each other, and it is the youngest.
    Deadlock,
    /// Nobody answers at the destination.
    Unreachable,
    /// The destination refuses its identity.
    Denied,
    /// The pool is closing.
    Closed,
}

/// What a pool would do now, or would tell a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum News {
    /// The caller in line has this connection until [`DryPool::give_back`].
    Granted(Place, Connection),
    /// The caller in line gets nothing.
    Refused(Place, Why),
    /// Connect, then say [`DryPool::opened`] or [`DryPool::open_failed`].
    Open(Connection),
    /// Bring it to a known state, then say [`DryPool::reset_ended`].
    Reset(Connection),
    /// Ask whether it answers, then say [`DryPool::probe_ended`].
    Probe(Connection),
    /// It is gone.
    Closed(Connection),
}

/// The engine's decisions under a clock of the caller's. Moments must never go back.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use forebay_pool::dry::{Answer, DryPool, News};
/// use forebay_pool::{Ask, Budget, PoolSettings};
///
/// let now = Instant::now();
/// let mut pool = DryPool::new(PoolSettings::new("numbers", Budget::Fixed(10)), now);
/// let class = pool.class("core").expect("one of the three standard classes");
///
/// // Nothing is open yet: the caller waits, and the pool connects for it.
/// let Answer::Waiting(place, _) = pool.ask(&Ask::new(0, class), now) else { panic!() };
/// let Some(News::Open(connection)) = pool.news() else { panic!() };
/// pool.opened(connection, now + Duration::from_millis(20));
/// assert_eq!(pool.news(), Some(News::Granted(place, connection)));
/// ```
pub struct DryPool {
    ledger: Ledger,
    names: Vec<ClassName>,
    identities: HashMap<u32, IdentityId>,
    numbers: SecondaryMap<IdentityId, u32>,
    /// Who stands in line.
    places: SecondaryMap<WaiterId, ()>,
    news: VecDeque<News>,
    /// When the ledger wants to look around.
    due: Instant,
}

impl DryPool {
    /// A pool that nobody has asked anything yet, at `now`.
    ///
    /// # Panics
    /// Unless `settings` have 1 to 16 classes.
    pub fn new(mut settings: PoolSettings, now: Instant) -> Self {
        // Nobody is there who would have to let go.
        settings.parting = Parting::AtOnce;
        let classes = settings.classes.len();
        assert!((1..=class::MOST).contains(&classes), "a pool has 1 to 16 classes");
        Self {
            names: settings.classes.iter().map(|(name, _)| name.clone()).collect(),
            ledger: Ledger::new(settings, now),
            identities: HashMap::new(),
            numbers: SecondaryMap::new(),
            places: SecondaryMap::new(),
            news: VecDeque::new(),
            due: now,
        }
    }

    /// The class called `name`.
    pub fn class(&self, name: &str) -> Option<ClassId> {
        let place = self.names.iter().position(|class| class.as_str() == name)?;
        u8::try_from(place).ok().map(ClassId)
    }

    /// A caller asks for a connection.
    pub fn ask(&mut self, ask: &Ask<u32>, now: Instant) -> Answer {
        self.ask_as(ask, Came::Now, now)
    }

    fn ask_as(&mut self, ask: &Ask<u32>, came: Came, now: Instant) -> Answer {
        let identity = self.identity(ask.identity);
        let since = match came {
            Came::Now => now,
            Came::Before(since) => since,
        };
        let wanted = Wanted::of(ask, identity, came);
        let mut actions = Actions::new();
        let answer = match self.ledger.ask(&wanted, now, &mut actions) {
            Asked::Granted(conn) => Answer::Granted(Connection(conn)),
            Asked::Waiting(waiter) => {
                self.places.insert(waiter, ());
                let deadline = self.ledger.deadline(ask.class, since);
                let deadline = ask.deadline.map_or(deadline, |own| own.min(deadline));
                Answer::Waiting(Place(waiter), deadline)
            }
            Asked::Rejected(why) => Answer::Refused(explain(&why)),
        };
        self.carry_out(&actions);
        answer
    }

    /// The caller's deadline passed. Nothing happens if its fate was decided before.
    pub fn expire(&mut self, place: Place, now: Instant) {
        if self.places.contains_key(place.0) {
            self.step(|ledger, actions| ledger.expire(place.0, now, actions));
            self.tell(place.0);
        }
    }

    /// The caller leaves the line. Nothing happens if its fate was decided before.
    pub fn abandon(&mut self, place: Place, now: Instant) {
        if self.places.remove(place.0).is_some() {
            self.step(|ledger, actions| ledger.abandon(place.0, now, actions));
        }
    }

    /// A connection comes home. Nothing happens if it was not lent.
    pub fn give_back(&mut self, connection: Connection, condition: Condition, now: Instant) {
        if self.ledger.lent_since(connection.0).is_some() {
            self.step(|ledger, actions| {
                ledger.give_back(connection.0, condition, now, actions);
            });
        }
    }

    /// A connection turned out to be dead when it was lent: its caller, who came at `since`,
    /// asks again and keeps its place.
    pub fn was_dead(
        &mut self,
        connection: Connection,
        ask: &Ask<u32>,
        since: Instant,
        now: Instant,
    ) -> Answer {
        if self.ledger.lent_since(connection.0).is_some() {
            self.step(|ledger, actions| ledger.was_dead(connection.0, now, actions));
        }
        self.ask_as(ask, Came::Before(since), now)
    }

    /// The connect that [`News::Open`] wanted succeeded.
    ///
    /// # Panics
    /// If it was not wanted.
    pub fn opened(&mut self, connection: Connection, now: Instant) {
        self.step(|ledger, actions| ledger.opened(connection.0, now, actions));
    }

    /// The connect that [`News::Open`] wanted failed.
    pub fn open_failed(&mut self, connection: Connection, why: ConnectFailure, now: Instant) {
        self.step(|ledger, actions| ledger.open_failed(connection.0, why, now, actions));
    }

    /// The reset that [`News::Reset`] wanted has ended.
    ///
    /// # Panics
    /// If it was not wanted.
    pub fn reset_ended(&mut self, connection: Connection, how: Fitness, now: Instant) {
        self.step(|ledger, actions| ledger.cleaned(connection.0, how, now, actions));
    }

    /// The probe that [`News::Probe`] wanted has ended.
    ///
    /// # Panics
    /// If it was not wanted.
    pub fn probe_ended(&mut self, connection: Connection, how: Fitness, now: Instant) {
        self.step(|ledger, actions| ledger.probed(connection.0, how, now, actions));
    }

    /// Opens the warm share of the budget for `identity`, paced, and keeps it.
    pub fn warm_up(&mut self, identity: u32, now: Instant) {
        let id = self.identity(identity);
        self.step(|ledger, actions| ledger.warm_up(id, now, actions));
    }

    /// The destination says what it can take in all.
    pub fn set_capacity(&mut self, capacity: u32, now: Instant) {
        self.step(|ledger, actions| ledger.resize(capacity, now, actions));
    }

    /// When [`DryPool::tick`] is due; it changes with each event.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Looks around, as a pool does by its own clock.
    pub fn tick(&mut self, now: Instant) {
        let mut actions = Actions::new();
        self.due = self.ledger.tick(now, &mut actions);
        self.carry_out(&actions);
    }

    /// What happened since it was last asked, oldest first.
    pub fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// One picture of the pool.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        self.ledger.snapshot(now)
    }

    fn identity(&mut self, number: u32) -> IdentityId {
        if let Some(id) = self.identities.get(&number) {
            return *id;
        }
        let id = self.ledger.introduce(Terms::default());
        self.identities.insert(number, id);
        self.numbers.insert(id, number);
        id
    }

    fn step<R>(&mut self, event: impl FnOnce(&mut Ledger, &mut Actions) -> R) -> R {
        let mut actions = Actions::new();
        let result = event(&mut self.ledger, &mut actions);
        self.carry_out(&actions);
        result
    }

    fn carry_out(&mut self, actions: &Actions) {
        self.due = actions.alarm().map_or(self.due, |at| self.due.min(at));
        for action in actions.list() {
            match *action {
                Action::Wake(waiter) => self.tell(waiter),
                Action::Open(conn, _) => self.news.push_back(News::Open(Connection(conn))),
                Action::Close(conn) | Action::Part(conn) => {
                    self.news.push_back(News::Closed(Connection(conn)))
                }
                Action::Reset(conn) => self.news.push_back(News::Reset(Connection(conn))),
                Action::Probe(conn) => self.news.push_back(News::Probe(Connection(conn))),
                // Nobody offers anything here.
                Action::Recall(_) => {}
                Action::Forget(id) => {
                    if let Some(number) = self.numbers.remove(id) {
                        self.identities.remove(&number);
                    }
                }
            }
        }
    }

    /// The caller hears at once what was decided for it.
    fn tell(&mut self, waiter: WaiterId) {
        let news = match self.ledger.fate(waiter) {
            Fate::Waiting { .. } => return,
            Fate::Granted { conn } => News::Granted(Place(waiter), Connection(*conn)),
            Fate::Rejected(why) => News::Refused(Place(waiter), explain(why)),
        };
        self.ledger.heard(waiter);
        self.places.remove(waiter);
        self.news.push_back(news);
    }
}

fn explain(why: &Rejection) -> Why {
    match why {
        Rejection::QueueFull { .. } => Why::QueueFull,
        Rejection::TimedOut => Why::TimedOut,
        Rejection::Refused { why, .. } => Why::Policy(*why),
        Rejection::Deadlock { .. } => Why::Deadlock,
        Rejection::Unreachable(_) => Why::Unreachable,
        Rejection::Denied(_) => Why::Denied,
        Rejection::Closed => Why::Closed,
    }
}

#[cfg(test)]
mod tests;
