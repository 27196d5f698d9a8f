//! Who gets the next connection, a second time: lists instead of lanes, a sort instead of
//! sums, every rule as the documents say it. Both are told the same random events and have to
//! agree, after each, on who was served, who was refused and who waits.
//!
//! Policies are off, everybody is one identity, and all connections of the budget are open:
//! what is left is the order (guarantees, ceilings, AI share, holders before the class whose
//! turn it is, continuations before what is new, age) and the bound of the queue in requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;

use crate::ask::Ask;
use crate::class::{ClassId, ClassName, ClassSettings, Kind, Share};
use crate::lease::Condition;
use crate::ledger::{Action, Asked, Fitness};
use crate::mode::Mode;
use crate::operation::Operation;
use crate::queue::Rejection;
use crate::settings::{Budget, PoolSettings};
use crate::slot::{ConnId, WaiterId};

use super::world::{Told, World, request};

const MINUTE: Duration = Duration::from_secs(60);
/// What a class has saved up at the most, and what it owes at the most, per unit of weight.
const CREDIT: Duration = Duration::from_millis(100);
const DEBT: Duration = Duration::from_secs(10);

/// The limits of a class, its weight, and its clock: the connection time that it borrowed.
#[derive(Debug)]
struct Class {
    kind: Kind,
    guarantee: u32,
    ceiling: u32,
    weight: u32,
    clock: Duration,
}

/// A caller that waits: its standing among its like, and what it declared.
#[derive(Debug, Clone, Copy)]
struct Caller {
    class: usize,
    request: Option<u8>,
    cost: Duration,
    level: Level,
    age: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Holder,
    Continuation,
    New,
}

/// A connection that is lent, or looked after since it was.
#[derive(Debug, Clone, Copy)]
struct Use {
    class: usize,
    request: Option<u8>,
    since: Instant,
    /// What it was charged; nothing within the guarantee.
    charge: Option<Duration>,
    is_held: bool,
}

/// A request that got a connection: when it first did, and when it last used one.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    at: Instant,
    used: Instant,
}

#[derive(Debug)]
struct Model {
    budget: u32,
    ai_ceiling: u32,
    queue_factor: u32,
    classes: Vec<Class>,
    /// The latest clock at which somebody was served.
    present: Duration,
    waiting: Vec<(WaiterId, Caller)>,
    uses: BTreeMap<ConnId, Use>,
    admitted: BTreeMap<u8, Admitted>,
    next_round: Instant,
}

impl Model {
    fn new(settings: &PoolSettings, now: Instant) -> Self {
        let Budget::Fixed(budget) = settings.budget else { panic!("a fixed budget") };
        let ai_ceiling = (budget * u32::from(settings.ai_share) / 100).max(1);
        let classes = settings.classes.iter().map(|(_, class)| {
            let seats = |share| if let Share::Seats(seats) = share { seats } else { panic!() };
            let most = if class.kind == Kind::Ai { ai_ceiling } else { budget };
            Class {
                kind: class.kind,
                guarantee: seats(class.guarantee),
                ceiling: class.ceiling.map_or(most, |ceiling| seats(ceiling).min(most)),
                weight: class.weight,
                clock: Duration::ZERO,
            }
        });
        Self {
            budget,
            ai_ceiling,
            queue_factor: settings.queue_factor,
            classes: classes.collect(),
            present: Duration::ZERO,
            waiting: Vec::new(),
            uses: BTreeMap::new(),
            admitted: BTreeMap::new(),
            next_round: now,
        }
    }

    fn taken(&self, counts: impl Fn(usize) -> bool) -> u32 {
        u32::try_from(self.uses.values().filter(|used| counts(used.class)).count()).unwrap()
    }

    fn unused_guarantee(&self, class: usize) -> u32 {
        self.classes[class].guarantee.saturating_sub(self.taken(|k| k == class))
    }

    /// May `class` have one more, so that all others can still have what they are promised?
    fn may_take(&self, class: usize) -> bool {
        let is_ai = |k: usize| self.classes[k].kind == Kind::Ai;
        let others = (0..self.classes.len()).filter(|k| *k != class);
        let promised: u32 = others.map(|k| self.unused_guarantee(k)).sum();
        self.taken(|_| true) + promised < self.budget
            && self.taken(|k| k == class) < self.classes[class].ceiling
            && (!is_ai(class) || self.taken(is_ai) < self.ai_ceiling)
    }

    /// Who comes first has the least of these: below its guarantee, then holders, then the
    /// class that had least by its weight; level; age.
    fn claim(&self, caller: &Caller) -> (u8, Duration, Level, Instant) {
        let Caller { class, level, age, .. } = *caller;
        match level {
            _ if self.unused_guarantee(class) > 0 => (0, Duration::ZERO, level, age),
            Level::Holder => (1, Duration::ZERO, level, age),
            Level::Continuation | Level::New => (2, self.turn(class), level, age),
        }
    }

    /// A class's clock; nobody saves up more than the credit.
    fn turn(&self, class: usize) -> Duration {
        self.classes[class].clock.max(self.present.saturating_sub(CREDIT))
    }

    fn holds(&self, request: Option<u8>) -> usize {
        let held = self.uses.values().filter(|used| used.is_held && used.request == request);
        held.count()
    }

    /// The level of what comes now and its age, by what its request had.
    fn rank(&self, request: Option<u8>, now: Instant) -> (Level, Instant) {
        match request.and_then(|name| self.admitted.get(&name)) {
            Some(admitted) if now < admitted.at + MINUTE && self.holds(request) > 0 => {
                (Level::Holder, admitted.at)
            }
            Some(admitted) if now < admitted.at + MINUTE => (Level::Continuation, admitted.at),
            _ => (Level::New, now),
        }
    }

    /// The bound counts new requests, each once however many queries it has there.
    fn has_room_for(&self, caller: &Caller) -> bool {
        let (mut named, mut unnamed) = (Vec::new(), 0);
        for (_, other) in &self.waiting {
            if (other.class, other.level) == (caller.class, Level::New) {
                match other.request {
                    Some(name) => named.push(name),
                    None => unnamed += 1,
                }
            }
        }
        named.sort_unstable();
        named.dedup();
        let class = &self.classes[caller.class];
        let promised: u32 = self.classes.iter().map(|other| other.guarantee).sum();
        let reach = class.ceiling.min(self.budget - (promised - class.guarantee)).max(1);
        class.kind == Kind::Core
            || caller.level != Level::New
            || caller.request.is_some_and(|name| named.contains(&name))
            || named.len() + unnamed < usize::try_from(reach * self.queue_factor).unwrap()
    }

    fn serve(&mut self, conn: ConnId, caller: &Caller, now: Instant) {
        let class = caller.class;
        let charge = (self.unused_guarantee(class) == 0).then_some(caller.cost);
        if let Some(cost) = charge {
            let start = self.turn(class);
            self.classes[class].clock = start + cost / self.classes[class].weight;
            self.present = self.present.max(start);
        }
        let request = caller.request;
        self.uses.insert(conn, Use { class, request, since: now, charge, is_held: true });
        self.begins_to_hold(request, now);
    }

    /// With its first connection a request's other callers become holders.
    fn begins_to_hold(&mut self, request: Option<u8>, now: Instant) {
        let Some(name) = request else { return };
        let admitted = self.admitted.entry(name).or_insert(Admitted { at: now, used: now });
        admitted.used = now;
        let at = admitted.at;
        if self.holds(request) == 1 && now < at + MINUTE {
            for (_, other) in self.waiting.iter_mut().filter(|(_, c)| c.request == request) {
                (other.level, other.age) = (Level::Holder, at);
            }
        }
    }

    /// Its owner lets go of it after it took so long; the seat may stay taken for a while.
    fn comes_home(&mut self, conn: ConnId, took: Duration, now: Instant) {
        let used = self.uses.get_mut(&conn).unwrap();
        used.is_held = false;
        let Use { class, request, charge, .. } = *used;
        if let Some(charge) = charge {
            let class = &mut self.classes[class];
            // What is settled is the difference: its nanoseconds are rounded once.
            let settled = if took <= charge {
                class.clock.saturating_sub((charge - took) / class.weight)
            } else {
                class.clock + (took - charge) / class.weight
            };
            class.clock = settled.min((self.present + DEBT).max(class.clock));
        }
        if let Some(admitted) = request.and_then(|name| self.admitted.get_mut(&name)) {
            admitted.used = now;
        }
    }

    /// Each second: who used nothing for a minute is forgotten.
    fn look_around(&mut self, now: Instant) {
        if self.next_round > now {
            return;
        }
        self.next_round = now + Duration::from_secs(1);
        let busy: Vec<_> = self.uses.values().filter(|u| u.is_held).map(|u| u.request).collect();
        let waits: Vec<_> = self.waiting.iter().map(|(_, caller)| caller.request).collect();
        self.admitted.retain(|name, admitted| {
            let name = Some(*name);
            busy.contains(&name) || waits.contains(&name) || admitted.used + MINUTE > now
        });
    }
}

/// One thing that happens to both. An `Index` picks among what is there at that moment.
#[derive(Debug, Clone)]
enum Event {
    Ask { class: u8, request: Option<u8>, cost: u16 },
    Abandon(Index),
    Expire(Index),
    Take(Index),
    GiveBack(Index, bool),
    Cleaned(Index),
    Attach(Index, u8),
    Advance(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let pick = any::<Index>;
    let asked = (0..3_u8, prop::option::weighted(0.7, 0..6_u8), 1..400_u16);
    prop_oneof![
        40 => asked.prop_map(|(class, request, cost)| Event::Ask { class, request, cost }),
        3 => pick().prop_map(Event::Abandon),
        2 => pick().prop_map(Event::Expire),
        12 => pick().prop_map(Event::Take),
        24 => (pick(), prop::bool::weighted(0.8)).prop_map(|(which, ok)| Event::GiveBack(which, ok)),
        6 => pick().prop_map(Event::Cleaned),
        3 => (pick(), 0..6_u8).prop_map(|(which, request)| Event::Attach(which, request)),
        10 => prop_oneof![8 => 0..300_u64, 1 => 300..30_000_u64].prop_map(Event::Advance),
    ]
}

fn pick<T>(which: Index, among: impl IntoIterator<Item = T>) -> Option<T> {
    let mut among: Vec<T> = among.into_iter().collect();
    (!among.is_empty()).then(|| among.swap_remove(which.index(among.len())))
}

prop_compose! {
    /// Promises that can be kept; nothing closes or replaces a connection.
    fn settings()(
        classes in prop::collection::vec(
            (any::<bool>(), 0..3_u32, prop::option::of(0..5_u32), 1..4_u32), 1..4),
        spare in 1..5_u32,
        ai_share in prop_oneof![Just(35_u8), Just(70), Just(100)],
        queue_factor in 1..3_u32,
    ) -> PoolSettings {
        let promised = |ai: bool| -> u32 {
            classes.iter().filter(|c| c.0 || !ai).map(|(_, guarantee, ..)| guarantee).sum()
        };
        let budget = promised(false) + spare;
        let kept = budget * u32::from(ai_share) / 100 >= promised(true);
        let class = |&(is_ai, guarantee, more, weight): &(bool, u32, Option<u32>, u32)| {
            ClassSettings {
                kind: if is_ai { Kind::Ai } else { Kind::Core },
                guarantee: Share::Seats(guarantee),
                ceiling: more.map(|more| Share::Seats((guarantee + more).clamp(1, budget))),
                weight,
                max_parallel: 1_000,
                mode: Mode::Off,
                ..ClassSettings::default()
            }
        };
        let named = classes.iter().enumerate();
        let named = named.map(|(n, c)| (ClassName::new(&format!("class {n}")), class(c)));
        let day = Duration::from_secs(86_400);
        PoolSettings {
            ai_share: if kept { ai_share } else { 100 },
            classes: named.collect(),
            queue_factor,
            warm_up: 100,
            idle_ttl: day,
            lifetime: day,
            probe_interval: day,
            concurrent_opens: Some(100),
            opens_per_second: Some(1_000_000),
            ..PoolSettings::new("destination", Budget::Fixed(budget))
        }
    }
}

/// The ledger and the model, and how many asked so far.
struct Both {
    world: World,
    model: Model,
    asked: u32,
}

impl Both {
    fn new(settings: PoolSettings) -> Self {
        let mut world = World::new(settings.clone());
        world.warm_up(0);
        world.finish_work();
        let mut model = Model::new(&settings, world.now);
        model.look_around(world.now);
        assert_eq!(world.ledger.idle, model.budget);
        Self { world, model, asked: 0 }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Ask { class, request, cost } => self.ask(class, request, cost),
            Event::Abandon(which) => {
                let Some(id) = pick(which, self.world.callers.keys().copied()) else { return };
                let told = self.world.callers[&id].told.clone();
                self.world.abandon(id);
                self.model.waiting.retain(|(other, _)| *other != id);
                if let Told::Granted(conn) = told {
                    self.model.comes_home(conn, Duration::ZERO, self.world.now);
                    self.model.uses.remove(&conn);
                }
                self.compare();
            }
            Event::Expire(which) => {
                let Some(id) = pick(which, self.world.callers.keys().copied()) else { return };
                self.world.expire(id);
                self.model.waiting.retain(|(other, _)| *other != id);
                self.compare();
            }
            Event::Take(which) => {
                let callers = self.world.callers.iter();
                let granted = callers.filter(|(_, c)| matches!(c.told, Told::Granted(_)));
                if let Some(id) = pick(which, granted.map(|(id, _)| *id)) {
                    self.world.take(id);
                }
            }
            Event::GiveBack(which, is_clean) => {
                let Some(conn) = pick(which, self.world.in_use()) else { return };
                let now = self.world.now;
                self.model.comes_home(conn, now - self.model.uses[&conn].since, now);
                if is_clean {
                    self.model.uses.remove(&conn);
                }
                let how = if is_clean { Condition::Clean } else { Condition::Unknown };
                self.world.give_back(conn, how);
                self.compare();
            }
            Event::Cleaned(which) => {
                let Some(n) = pick(which, 0..self.world.resets.len()) else { return };
                self.model.uses.remove(&self.world.resets[n].0);
                self.world.cleaned(n, Fitness::Fit);
                self.compare();
            }
            Event::Attach(which, to) => {
                let Some(conn) = pick(which, self.world.in_use()) else { return };
                let now = self.world.now;
                let before = self.model.uses[&conn].request;
                if before != Some(to) {
                    if let Some(had) = before.and_then(|name| self.model.admitted.get_mut(&name)) {
                        had.used = now;
                    }
                    self.model.uses.get_mut(&conn).unwrap().request = Some(to);
                    self.model.begins_to_hold(Some(to), now);
                }
                self.world.attach(conn, request(to));
                self.compare();
            }
            Event::Advance(ms) => {
                self.world.advance(Duration::from_millis(ms));
                self.model.look_around(self.world.now);
                self.world.tick();
                self.compare();
            }
        }
    }

    /// Every ask names a feature of its own, of which nothing is learnt.
    fn ask(&mut self, class: u8, of: Option<u8>, cost: u16) {
        self.world.advance(Duration::from_millis(1));
        self.asked += 1;
        let now = self.world.now;
        let class = ClassId(class % self.world.classes);
        let cost = Duration::from_millis(cost.into());
        let (level, age) = self.model.rank(of, now);
        let caller = Caller { class: class.index(), request: of, cost, level, age };
        let asked = self.world.ask_for(Ask {
            request: of.map(request),
            operation: Some(Operation::new(format!("feature {}", self.asked), "work")),
            cost: Some(cost),
            ..Ask::new(0, class)
        });
        let may = (self.model.may_take(caller.class), self.model.has_room_for(&caller));
        match (asked, may) {
            (Asked::Granted(conn), (true, _)) => self.model.serve(conn, &caller, now),
            (Asked::Waiting(id), (false, true)) => self.model.waiting.push((id, caller)),
            (Asked::Rejected(Rejection::QueueFull { .. }), (false, false)) => {}
            (asked, may) => panic!("{caller:?} was told {asked:?}; seat, place: {may:?}"),
        }
        self.compare();
    }

    /// Whoever was served had the best claim at that moment, and whoever has one was served.
    fn compare(&mut self) {
        let last = std::mem::take(&mut self.world.last);
        let woken = last.list().iter().filter_map(|action| match *action {
            Action::Wake(id) => Some(id),
            Action::Open(..) | Action::Close(_) | Action::Part(_) | Action::Reset(_) => None,
            Action::Probe(_) | Action::Forget(_) | Action::Recall(_) => None,
        });
        for id in woken {
            let Told::Granted(conn) = self.world.callers[&id].told else {
                panic!("nobody is rejected who waits")
            };
            let model = &mut self.model;
            let eligible = model.waiting.iter().filter(|(_, c)| model.may_take(c.class));
            let best = eligible.map(|(_, caller)| model.claim(caller)).min();
            let place = model.waiting.iter().position(|(other, _)| *other == id);
            let (_, caller) = model.waiting[place.expect("only who waits is served")];
            assert!(model.may_take(caller.class), "{caller:?} took what was not to be had");
            assert_eq!(Some(model.claim(&caller)), best, "it was not its turn");
            model.waiting.remove(place.unwrap());
            model.serve(conn, &caller, self.world.now);
        }
        let forgotten = self.model.waiting.iter().find(|(_, c)| self.model.may_take(c.class));
        assert!(forgotten.is_none(), "{forgotten:?} could have one");
        let waiting = self.world.callers.iter().filter(|(_, c)| c.told == Told::Nothing);
        let mut expected: Vec<_> = self.model.waiting.iter().map(|(id, _)| *id).collect();
        expected.sort_unstable();
        assert!(waiting.map(|(id, _)| *id).eq(expected), "the same ones wait");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn who_is_served_and_who_is_refused_is_what_the_rules_say(
        settings in settings(),
        events in prop::collection::vec(event(), 1..250),
    ) {
        let mut both = Both::new(settings);
        for event in &events {
            both.happens(event);
        }
    }
}
