//! A shell without threads or sockets: it drives the ledger as the pool does, keeps its own
//! books, and compares the two after each event.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_seam::time;

use crate::ask::Ask;
use crate::budget::ClassSeats;
use crate::cap::Cap;
use crate::class::{ClassId, ClassName, ClassSettings, Kind, Share};
use crate::connect::{ConnectFailure, FailureKind};
use crate::deadlock::Activity;
use crate::freshness::Order;
use crate::lease::Condition;
use crate::ledger::{Action, Actions, Asked, Came, Fitness, Ledger, Wanted};
use crate::mode::Mode;
use crate::operation::Operation;
use crate::queue::{Fate, Rejection};
use crate::request::{Request, TraceId};
use crate::settings::{Budget, PoolSettings};
use crate::slot::{ConnId, IdentityId, Slot, WaiterId};
use crate::terms::Terms;

use super::besides::Standing;

/// The request number `n`, the same at each call.
pub(super) fn request(n: u8) -> Request {
    let trace =
        TraceId::from_traceparent(&format!("00-{:032x}-0000000000000001-01", u32::from(n) + 1));
    Request::new("tenant".into(), trace.unwrap())
}

pub(super) fn failure(kind: FailureKind) -> ConnectFailure {
    ConnectFailure::new(kind, io::Error::other(format!("{kind:?}")))
}

pub(super) fn class(kind: Kind, guarantee: u32, ceiling: Option<u32>) -> ClassSettings {
    ClassSettings {
        kind,
        guarantee: Share::Seats(guarantee),
        ceiling: ceiling.map(Share::Seats),
        checkout_timeout: Duration::from_secs(5),
        mode: Mode::Off,
        ..ClassSettings::default()
    }
}

/// A pool of `budget` connections whose pace stands in nobody's way.
pub(super) fn settings(budget: u32, classes: Vec<ClassSettings>) -> PoolSettings {
    let named = classes.into_iter().enumerate();
    PoolSettings {
        ai_share: 100,
        classes: named.map(|(n, c)| (ClassName::new(&format!("class {n}")), c)).collect(),
        concurrent_opens: Some(100),
        opens_per_second: Some(1_000_000),
        warm_up: 0,
        seed: 7,
        ..PoolSettings::new("destination", Budget::Fixed(budget))
    }
}

/// A timer may ring so much later than arithmetic would have it.
const SLACK: Duration = Duration::from_millis(1);

/// What a caller knows of its own fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// A connection is set aside for it.
    Granted(ConnId),
    Rejected(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) identity: IdentityId,
    pub(super) class: ClassId,
    /// Its own deadline or its class's, whichever is first.
    pub(super) latest: Instant,
    pub(super) told: Told,
}

/// What the books said before an event.
struct Before {
    total: u32,
    classes: Vec<ClassSeats>,
    new_waiting: Vec<u32>,
    opening: u32,
    identities: BTreeMap<IdentityId, u32>,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) now: Instant,
    pub(super) identities: Vec<IdentityId>,
    pub(super) callers: BTreeMap<WaiterId, Caller>,
    /// Connections out there, those set aside for a caller included.
    pub(super) leases: BTreeMap<ConnId, ClassId>,
    pub(super) opens: Vec<(ConnId, IdentityId)>,
    pub(super) resets: Vec<(ConnId, ClassId)>,
    pub(super) probes: Vec<ConnId>,
    /// Closed on our side; the other side has not let go.
    pub(super) parting: Vec<ConnId>,
    /// Those that stand beside the pool.
    pub(super) besides: Vec<Standing>,
    /// Connections that were opened and not closed.
    pub(super) live: BTreeSet<ConnId>,
    /// The earliest alarm since the ledger looked around.
    pub(super) alarm: Option<Instant>,
    /// When it looks around without an alarm.
    pub(super) round: Option<Instant>,
    /// Was the last look around asked for?
    pub(super) rung: bool,
    opened_ever: u32,
    /// Opens that the pace has allowed so far, at the most.
    allowance: f64,
    pub(super) classes: u8,
    /// What identities may share.
    pub(super) cap: Arc<Cap>,
    /// Who comes again asks, and no queue is full for it.
    keeps_its_place: bool,
    /// What the ledger wanted done at the last event.
    pub(super) last: Actions,
}

impl World {
    pub(super) fn new(settings: PoolSettings) -> Self {
        let now = time::now();
        let classes = u8::try_from(settings.classes.len()).unwrap();
        let ledger = Ledger::new(settings, now);
        let allowance = f64::from(ledger.opener.burst);
        let mut world = Self {
            ledger,
            now,
            identities: Vec::new(),
            callers: BTreeMap::new(),
            leases: BTreeMap::new(),
            opens: Vec::new(),
            resets: Vec::new(),
            probes: Vec::new(),
            parting: Vec::new(),
            besides: Vec::new(),
            live: BTreeSet::new(),
            alarm: None,
            round: None,
            rung: false,
            opened_ever: 0,
            allowance,
            classes,
            cap: Cap::new(3),
            keeps_its_place: false,
            last: Actions::new(),
        };
        world.tick();
        world
    }

    /// The identity number `n`, introduced when it is not known (any more).
    pub(super) fn identity(&mut self, n: usize) -> IdentityId {
        while self.identities.len() <= n {
            self.identities.push(self.ledger.introduce(Terms::default()));
        }
        if !self.ledger.identities.contains_key(self.identities[n]) {
            self.identities[n] = self.ledger.introduce(Terms::default());
        }
        self.identities[n]
    }

    pub(super) fn step<R>(
        &mut self,
        event: impl FnOnce(&mut Ledger, Instant, &mut Actions) -> R,
    ) -> R {
        self.step_noting(event, |_, _| ())
    }

    /// One event; `note` writes its answer into the books before they are compared.
    fn step_noting<R>(
        &mut self,
        event: impl FnOnce(&mut Ledger, Instant, &mut Actions) -> R,
        note: impl FnOnce(&mut Self, &R),
    ) -> R {
        let before = Before {
            total: self.all_there_are(),
            classes: self.ledger.seats.classes.clone(),
            new_waiting: self.ledger.new_waiting.clone(),
            opening: self.ledger.opening,
            identities: self.ledger.identities.iter().map(|(id, i)| (id, i.all())).collect(),
        };
        let capped = self.cap.taken();
        let mut actions = Actions::new();
        let result = event(&mut self.ledger, self.now, &mut actions);
        assert!(self.cap.taken() <= self.cap.limit().max(capped), "a cap was outgrown");
        note(self, &result);
        self.carry_out(&actions);
        self.compare_growth(&before);
        self.last = actions;
        result
    }

    fn carry_out(&mut self, actions: &Actions) {
        let wakes = actions.list().iter().filter(|action| matches!(action, Action::Wake(_)));
        let grants = wakes.count();
        if let Some(at) = actions.alarm() {
            self.alarm = Some(self.alarm.map_or(at, |other| other.min(at)));
        }
        for action in actions.list() {
            match *action {
                Action::Wake(id) => self.wake(id, grants == 1),
                Action::Open(conn, identity) => {
                    self.opens.push((conn, identity));
                    self.opened_ever += 1;
                    let pause = self.ledger.opener.not_before();
                    assert!(pause.is_none_or(|at| at <= self.now), "nothing is opened in a pause");
                    let is_trial = self.ledger.opener.outage().is_some();
                    assert!(!is_trial || self.ledger.opening == 1, "one at a time is tried");
                }
                Action::Close(conn) => {
                    assert!(self.live.remove(&conn), "only what lives is closed, and once");
                }
                Action::Part(conn) => {
                    assert!(self.live.remove(&conn), "only what lives is closed, and once");
                    self.parting.push(conn);
                }
                Action::Reset(conn) => {
                    let class = self.leases.remove(&conn).expect("what is reset was lent");
                    self.resets.push((conn, class));
                }
                Action::Probe(conn) => {
                    assert!(self.live.contains(&conn) && !self.leases.contains_key(&conn));
                    self.probes.push(conn);
                }
                Action::Recall(conn) => self.recalled(conn),
                Action::Forget(id) => assert!(!self.ledger.identities.contains_key(id)),
            }
        }
    }

    /// I7: one wake for each decision, and none without.
    fn wake(&mut self, id: WaiterId, alone: bool) {
        let caller = self.callers.get_mut(&id).expect("only who waits is woken");
        assert_eq!(caller.told, Told::Nothing, "a fate is decided once");
        caller.told = match self.ledger.fate(id) {
            Fate::Granted { conn } => {
                let conn = *conn;
                assert_eq!(self.leases.insert(conn, caller.class), None, "one owner at a time");
                assert_eq!(self.ledger.conns[conn].identity, caller.identity, "never lent across");
                Told::Granted(conn)
            }
            Fate::Rejected(why) => Told::Rejected(name(why)),
            Fate::Waiting { .. } => panic!("woken for nothing"),
        };
        // Of several grants in one event the earlier ones change the ranks of those behind.
        if alone && matches!(caller.told, Told::Granted(_)) {
            self.assert_fair(id);
        }
    }

    /// I8, I9: nobody of the same identity and class has a better level, or the same and is
    /// older.
    fn assert_fair(&self, granted: WaiterId) {
        let winner = &self.ledger.waiters[granted];
        for (id, other) in &self.ledger.waiters {
            let rival = self.callers.get(&id).is_some_and(|c| c.told == Told::Nothing)
                && matches!(other.fate, Fate::Waiting { .. })
                && (other.identity, other.class) == (winner.identity, winner.class);
            // What else waits of the winner's request became a holder by this very grant.
            let is_first = other.level < winner.level && other.request != winner.request
                || other.age < winner.age
                    && other.level == winner.level
                    && self.ledger.order(winner.class, self.now) == Order::OldestFirst;
            let overtaken = rival && is_first && self.ledger.may_go(other);
            assert!(!overtaken, "{other:?} was overtaken by {winner:?}");
        }
    }

    /// I1, I2, I3, I11, I12: what may never grow.
    fn compare_growth(&mut self, before: &Before) {
        let ledger = &self.ledger;
        let seats = &ledger.seats;
        let total = self.all_there_are();
        assert!(total <= seats.whole() || total <= before.total, "grew above the budget");
        // By what a class is now: it may have been core work before.
        let ai = |classes: &[ClassSeats]| -> u32 {
            let now = classes.iter().zip(&seats.classes);
            now.filter(|(_, now)| now.limits.kind == Kind::Ai).map(|(was, _)| was.taken).sum()
        };
        let (ai_now, ai_before) = (ai(&seats.classes), ai(&before.classes));
        assert!(ai_now <= seats.ai_ceiling || ai_now <= ai_before, "grew above the AI share");
        let taken: u32 = seats.classes.iter().map(|c| c.taken).sum();
        let free = i64::from(seats.budget) - i64::from(taken);
        for (k, (class, was)) in seats.classes.iter().zip(&before.classes).enumerate() {
            if class.taken > was.taken {
                assert!(class.taken <= class.limits.ceiling, "a class grew above its ceiling");
                let unmet: i64 = seats
                    .classes
                    .iter()
                    .enumerate()
                    .filter(|(j, _)| *j != k)
                    .map(|(_, c)| i64::from(c.limits.guarantee.saturating_sub(c.taken)))
                    .sum();
                assert!(unmet <= free, "an unused guarantee was lent to class {k}");
            }
            let id = ClassId(u8::try_from(k).unwrap());
            let waiting = ledger.new_waiting[k];
            let bounded = seats.kind(id) == Kind::Core
                || waiting <= ledger.queue_limit(id)
                || waiting <= before.new_waiting[k] + u32::from(self.keeps_its_place);
            assert!(bounded, "the queue of class {k} outgrew its bound");
        }
        for (id, identity) in &ledger.identities {
            let before = before.identities.get(&id).copied().unwrap_or(0);
            let most = identity.terms.most().unwrap_or(u32::MAX);
            assert!(identity.all() <= most.max(before), "an identity outgrew its size");
        }
        let at_once = ledger.opener.concurrent;
        let opening = ledger.opening;
        assert!(opening <= at_once || opening <= before.opening, "too many connects at once");
        let most = self.allowance + 1e-3;
        assert!(f64::from(self.opened_ever) <= most, "{} opens of {most}", self.opened_ever);
        self.keeps_its_place = false;
        self.assert_consistent();
    }

    pub(super) fn ask(&mut self, identity: usize, class: u8, request: Option<Request>) -> Asked {
        self.ask_for(Ask { request, ..Ask::new(identity, ClassId(class % self.classes)) })
    }

    /// The same, for work that says more of itself.
    pub(super) fn ask_for(&mut self, ask: Ask<usize>) -> Asked {
        self.ask_as(ask, Came::Now)
    }

    fn ask_as(&mut self, ask: Ask<usize>, came: Came) -> Asked {
        let identity = self.identity(ask.identity);
        let class = ask.class;
        let since = match came {
            Came::Now => self.now,
            Came::Before(since) => since,
        };
        let latest = self.ledger.deadline(class, since);
        let latest = ask.deadline.map_or(latest, |own| own.min(latest));
        self.keeps_its_place = matches!(came, Came::Before(_));
        self.step_noting(
            |ledger, now, actions| ledger.ask(&Wanted::of(&ask, identity, came), now, actions),
            |world, asked| match asked {
                Asked::Granted(conn) => {
                    assert_eq!(world.leases.insert(*conn, class), None, "one owner at a time");
                    assert_eq!(world.ledger.conns[*conn].identity, identity, "never lent across");
                }
                Asked::Waiting(id) => {
                    let caller = Caller { identity, class, latest, told: Told::Nothing };
                    assert!(world.callers.insert(*id, caller).is_none());
                }
                Asked::Rejected(_) => {}
            },
        )
    }

    pub(super) fn abandon(&mut self, id: WaiterId) {
        let caller = self.callers.remove(&id).unwrap();
        if let Told::Granted(conn) = caller.told {
            assert!(self.leases.remove(&conn).is_some());
        }
        self.step(|ledger, now, actions| ledger.abandon(id, now, actions));
        assert!(self.ledger.waiters.get(id).is_none(), "nothing is left of who left");
    }

    pub(super) fn expire(&mut self, id: WaiterId) {
        let told = self.callers[&id].told.clone();
        if told == Told::Nothing {
            // Who finds its own deadline passed needs no wake.
            self.callers.get_mut(&id).unwrap().told = Told::Rejected("its deadline");
        }
        self.step(|ledger, now, actions| ledger.expire(id, now, actions));
        if let Told::Granted(conn) = told {
            let fate = self.ledger.fate(id);
            assert!(matches!(fate, Fate::Granted { conn: c } if *c == conn), "a grant stays");
        }
    }

    /// The caller takes what was set aside for it.
    pub(super) fn take(&mut self, id: WaiterId) -> ConnId {
        let Told::Granted(conn) = self.callers.remove(&id).unwrap().told else {
            panic!("nothing was set aside for it")
        };
        self.step(|ledger, _, _| ledger.heard(id));
        conn
    }

    pub(super) fn give_back(&mut self, conn: ConnId, condition: Condition) {
        match condition {
            Condition::Clean => drop(self.leases.remove(&conn)),
            Condition::Unknown => {}
            Condition::Broken => drop(self.leases.remove(&conn)),
        }
        self.step(|ledger, now, actions| ledger.give_back(conn, condition, now, actions));
    }

    /// The owner says that its work failed.
    pub(super) fn step_failed(&mut self, conn: ConnId) {
        self.step(|ledger, _, _| ledger.went_wrong(conn));
    }

    /// The owner says what it does now.
    pub(super) fn turns_to(&mut self, conn: ConnId, operation: &Operation) {
        self.step(|ledger, now, _| ledger.does(conn, operation, now));
    }

    /// A circle through other pools runs through this waiter.
    pub(super) fn fails(&mut self, id: WaiterId) {
        self.step(|ledger, now, actions| ledger.fail_circular(id, now, actions));
        assert_ne!(self.callers[&id].told, Told::Nothing, "it is told at once");
    }

    /// What the shell's clock does: whoever's patience is over is told so, and is gone from
    /// the line within that look (I11).
    pub(super) fn clock(&mut self) {
        self.tick();
        let late = |caller: &Caller, now| caller.told == Told::Nothing && caller.latest <= now;
        while let Some(id) = self.callers.iter().find(|(_, c)| late(c, self.now)).map(|(id, _)| *id)
        {
            self.expire(id);
        }
    }

    pub(super) fn renew(&mut self) {
        self.step(|ledger, now, actions| ledger.renew(now, actions));
    }

    pub(super) fn acts(&mut self, conn: ConnId, activity: Activity) {
        self.step(|ledger, now, actions| ledger.acts(conn, activity, now, actions));
    }

    pub(super) fn attach(&mut self, conn: ConnId, request: Request) {
        self.step(|ledger, now, actions| ledger.attach(conn, &request, now, actions));
    }

    /// A connection that was lent turns out to be dead: its owner, who came at `since`, asks
    /// again.
    pub(super) fn was_dead(&mut self, conn: ConnId, since: Instant) -> Asked {
        let Slot::Leased(lent) = self.ledger.conns[conn].slot else { panic!("it was not lent") };
        let class = lent.class;
        let request = lent.request.map(|id| self.ledger.requests.name(id).clone());
        let identity = self.ledger.conns[conn].identity;
        let identity = self.identities.iter().position(|i| *i == identity).unwrap();
        self.leases.remove(&conn);
        self.step(|ledger, now, actions| ledger.was_dead(conn, now, actions));
        self.ask_as(Ask { request, ..Ask::new(identity, class) }, Came::Before(since))
    }

    /// Connections in the hands of an owner.
    pub(super) fn in_use(&self) -> Vec<ConnId> {
        let aside: BTreeSet<_> = self
            .callers
            .values()
            .filter_map(|c| match c.told {
                Told::Granted(conn) => Some(conn),
                Told::Nothing | Told::Rejected(_) => None,
            })
            .collect();
        self.leases.keys().filter(|conn| !aside.contains(conn)).copied().collect()
    }

    pub(super) fn opened(&mut self, n: usize) -> ConnId {
        let (conn, _) = self.opens.remove(n);
        self.live.insert(conn);
        self.step(|ledger, now, actions| ledger.opened(conn, now, actions));
        conn
    }

    pub(super) fn open_failed(&mut self, n: usize, kind: FailureKind) {
        let (conn, identity) = self.opens.remove(n);
        let others: Vec<_> = self
            .callers
            .iter()
            .filter(|(_, c)| c.identity != identity && c.told == Told::Nothing)
            .map(|(id, _)| *id)
            .collect();
        let waiting = self.waiting();
        self.step(|ledger, now, actions| ledger.open_failed(conn, failure(kind), now, actions));
        match kind {
            FailureKind::Busy | FailureKind::Moving => {
                assert_eq!(self.waiting(), waiting, "it rejects nobody");
            }
            FailureKind::Denied => {
                for id in others {
                    // It may have been the way out of a circle.
                    let told = &self.callers[&id].told;
                    assert_ne!(*told, Told::Rejected("denied"), "one's refusal hit another");
                }
            }
            FailureKind::Unreachable => {}
        }
    }

    pub(super) fn cleaned(&mut self, n: usize, fit: Fitness) {
        let (conn, _) = self.resets.remove(n);
        if fit != Fitness::Fit {
            self.live.remove(&conn);
        }
        self.step(|ledger, now, actions| ledger.cleaned(conn, fit, now, actions));
    }

    pub(super) fn probed(&mut self, n: usize, fit: Fitness) {
        let conn = self.probes.remove(n);
        if fit != Fitness::Fit {
            self.live.remove(&conn);
        }
        self.step(|ledger, now, actions| ledger.probed(conn, fit, now, actions));
    }

    pub(super) fn parted(&mut self, n: usize) {
        let conn = self.parting.remove(n);
        self.step(|ledger, now, actions| ledger.parted(conn, now, actions));
    }

    pub(super) fn review(&mut self, identity: usize, terms: Terms) {
        let id = self.identity(identity);
        self.step(|ledger, now, actions| ledger.review(id, terms, now, actions));
    }

    pub(super) fn replace(&mut self, identity: usize) {
        let id = self.identity(identity);
        self.step(|ledger, now, actions| ledger.replace_all_of(&[id], now, actions));
        assert!(self.ledger.identities[id].idle.is_empty(), "what rests is replaced at once");
    }

    pub(super) fn resize(&mut self, capacity: u32) {
        self.refit(|ledger, now, actions| ledger.resize(capacity, now, actions));
    }

    pub(super) fn set_budget(&mut self, wanted: Option<u32>) {
        self.refit(|ledger, now, actions| ledger.set_budget(wanted, now, actions));
    }

    /// Other settings, for classes that may be others.
    pub(super) fn change(&mut self, settings: PoolSettings) {
        let fits = self.ledger.has_places_for(&settings.classes);
        assert!(fits, "there are few classes here");
        self.refit(|ledger, now, actions| ledger.change(settings, now, actions));
        self.classes = u8::try_from(self.ledger.class_ids().count()).unwrap();
    }

    pub(super) fn start_over(&mut self) {
        self.step(|ledger, now, actions| ledger.start_over(now, actions));
    }

    fn refit(&mut self, how: impl FnOnce(&mut Ledger, Instant, &mut Actions)) {
        let before = self.ledger.opener.burst;
        self.step(how);
        // The bucket may be larger now; what it holds is not.
        let after = self.ledger.opener.burst;
        self.allowance += f64::from(after.saturating_sub(before));
    }

    pub(super) fn warm_up(&mut self, identity: usize) {
        let id = self.identity(identity);
        self.step(|ledger, now, actions| ledger.warm_up(id, now, actions));
    }

    pub(super) fn close(&mut self) {
        self.step(|ledger, now, actions| ledger.close(now, actions));
    }

    /// Looks around now.
    pub(super) fn tick(&mut self) {
        self.rung = self.alarm.is_some_and(|at| at <= self.now + SLACK);
        self.alarm = None;
        let at = self.step(|ledger, now, actions| ledger.tick(now, actions));
        self.round = Some(at);
        self.assert_nobody_is_held_back_for_nothing();
        assert!(at > self.now, "it looks around again later, not at once");
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.allowance += by.as_secs_f64() * self.ledger.opener.rate;
    }

    pub(super) fn waiting(&self) -> usize {
        self.callers.values().filter(|c| c.told == Told::Nothing).count()
    }

    /// Everything that is under way comes to a good end, at once.
    pub(super) fn finish_work(&mut self) {
        while !self.opens.is_empty() {
            self.opened(0);
        }
        while !self.resets.is_empty() {
            self.cleaned(0, Fitness::Fit);
        }
        while !self.probes.is_empty() {
            self.probed(0, Fitness::Fit);
        }
        while !self.parting.is_empty() {
            self.parted(0);
        }
        // What was closed may have made room.
        if !self.opens.is_empty() {
            self.finish_work();
        }
    }
}

fn name(why: &Rejection) -> &'static str {
    match why {
        Rejection::QueueFull { .. } => "queue full",
        Rejection::TimedOut => "timed out",
        Rejection::Refused { .. } => "refused",
        Rejection::Deadlock { .. } => "deadlock",
        Rejection::Unreachable(_) => "unreachable",
        Rejection::Denied(_) => "denied",
        Rejection::Closed => "closed",
    }
}
