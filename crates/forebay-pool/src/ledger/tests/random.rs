//! Random lives of a pool: whatever happens, in whatever order, the books agree after each
//! event, and once nothing fails any more everybody is served and nothing is left.
//!
//! The engine's invariants, and what stands for each, after every event unless it says
//! otherwise:
//!
//! | | what always holds | where it is checked |
//! |---|---|---|
//! | I1 | never more connections than the budget, those beside the pool included, or than before it shrank | `World::compare_growth` |
//! | I2 | ceilings, and the AI share | `World::compare_growth` |
//! | I3 | an unused guarantee is never lent | `World::compare_growth`; `reference` |
//! | I4 | each connection is in one place | `World::assert_conservation` |
//! | I5 | nobody who may have one waits beside an idle connection | `World::assert_nobody_waits_for_what_is_there`; `reference` |
//! | I6 | who leaves leaves nothing, and what was set aside for it goes on in the same step | `World::abandon` with I4 and I5 |
//! | I7 | one wake for each decision, and a grant stays | `World::wake`, `World::expire` |
//! | I8 | within a level and class the oldest goes first | `World::assert_fair`; `reference` |
//! | I9 | nothing new goes before what was admitted | `World::assert_fair`; `reference`; a sentence in `fairness` |
//! | I10 | classes that borrow share connection time by weight | properties in `fairness` and the room `fair`; `reference` |
//! | I11 | the queue's bound in requests; nobody waits beyond its deadline | `World::compare_growth`, `World::clock`; `reference` |
//! | I12 | opens are paced, with jitter; one at a time in an outage, none in a pause | `World::compare_growth`, `World::carry_out`; the room `target` |
//! | I13 | whoever closes a circle is told in the same step | `World::is_at_a_standstill` and the search itself |
//! | I14 | a lease is charged in the end what it took, once | a property in `fairness`; `reference`; `Ledger::end_lease` panics at a second time |
//! | I16 | no identity outgrows its size and reserve, nor several their cap; what is paused has nothing at rest | `World::compare_growth`, `World::assert_conservation` |
//! | I17 | what is called home is offered, and somebody waits for it; nothing that would help is left uncalled | `World::recalled`, `World::assert_recalls` |
//! | I15 | in the end nothing is left, and everybody is welcome again | `World::settle`, `World::assert_everybody_is_welcome_again` |

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::ask::{Ask, Attempt};
use crate::class::{ClassId, ClassName, ClassSettings, Kind, Policies, Share};
use crate::connect::FailureKind;
use crate::deadlock::Activity;
use crate::lease::Condition;
use crate::ledger::{Asked, Fitness};
use crate::mode::Mode;
use crate::operation::Operation;
use crate::settings::{Budget, Parting, PoolSettings};
use crate::terms::{Access, Terms};

use super::world::{Told, World, request};

/// What an ask says besides.
#[derive(Debug, Clone, Copy)]
struct Work {
    operation: u8,
    cost: Option<u16>,
    needs: u32,
    attempt: Attempt,
    /// Its own deadline, milliseconds from now.
    patience: Option<u16>,
}

/// What an identity may have from now on.
#[derive(Debug, Clone, Copy)]
struct Reviewed {
    is_paused: bool,
    size: Option<u32>,
    reserve: u32,
    reserve_after: u16,
    keep: u32,
    is_capped: bool,
}

prop_compose! {
    fn reviewed()(
        is_paused in prop::bool::weighted(0.3),
        size in prop::option::weighted(0.7, 1..5_u32),
        reserve in 0..3_u32,
        reserve_after in 0..2_000_u16,
        keep in 0..3_u32,
        is_capped in any::<bool>(),
    ) -> Reviewed {
        Reviewed { is_paused, size, reserve, reserve_after, keep, is_capped }
    }
}

/// One thing that may happen. An `Index` picks among what is there at that moment.
#[derive(Debug, Clone)]
enum Event {
    Ask { identity: usize, class: u8, request: Option<u8>, work: Work },
    Abandon(Index),
    Expire(Index),
    Take(Index),
    GiveBack(Index, Condition),
    Attach(Index, u8),
    Acts(Index, Activity),
    Offer(Index),
    Withdraw(Index),
    TurnsTo(Index, u8),
    WentWrong(Index),
    FailsElsewhere(Index),
    Opened(Index),
    OpenFailed(Index, FailureKind),
    Cleaned(Index, bool),
    Probed(Index, bool),
    WasDead(Index),
    Resize(u32),
    SetBudget(Option<u32>),
    Change(Box<PoolSettings>),
    StartOver,
    Renew,
    Parted(Index),
    Review(usize, Reviewed),
    Replace(usize),
    StandBeside(usize),
    LeaveBeside(Index),
    SetCap(u32),
    WarmUp(usize),
    Tick,
    Clock,
    Advance(u64),
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    let pick = any::<Index>;
    let condition = prop_oneof![
        6 => Just(Condition::Clean),
        2 => Just(Condition::Unknown),
        1 => Just(Condition::Broken),
    ];
    let kind = prop_oneof![
        Just(FailureKind::Unreachable),
        Just(FailureKind::Moving),
        Just(FailureKind::Busy),
        Just(FailureKind::Denied),
    ];
    let attempt = prop_oneof![
        8 => Just(Attempt::Unknown),
        1 => Just(Attempt::First),
        1 => Just(Attempt::Retry),
    ];
    let cost = prop::option::weighted(0.2, 0..3_000_u16);
    let patience = prop::option::weighted(0.2, 0..3_000_u16);
    let work = (0..4_u8, cost, 0..3_u32, attempt, patience).prop_map(
        |(operation, cost, needs, attempt, patience)| Work {
            operation,
            cost,
            needs,
            attempt,
            patience,
        },
    );
    let asked = (0..3_usize, 0..3_u8, prop::option::of(0..5_u8), work)
        .prop_map(|(identity, class, request, work)| Event::Ask { identity, class, request, work });
    prop_oneof![
        30 => asked,
        6 => pick().prop_map(Event::Abandon),
        3 => pick().prop_map(Event::Expire),
        12 => pick().prop_map(Event::Take),
        18 => (pick(), condition).prop_map(|(which, how)| Event::GiveBack(which, how)),
        2 => (pick(), 0..5_u8).prop_map(|(which, request)| Event::Attach(which, request)),
        6 => (pick(), prop::bool::weighted(0.8)).prop_map(|(which, rests)| {
            Event::Acts(which, if rests { Activity::AtRest } else { Activity::Working })
        }),
        8 => pick().prop_map(Event::Offer),
        3 => pick().prop_map(Event::Withdraw),
        2 => (pick(), 0..4_u8).prop_map(|(which, operation)| Event::TurnsTo(which, operation)),
        4 => pick().prop_map(Event::WentWrong),
        1 => pick().prop_map(Event::FailsElsewhere),
        14 => pick().prop_map(Event::Opened),
        3 => (pick(), kind).prop_map(|(which, kind)| Event::OpenFailed(which, kind)),
        5 => (pick(), prop::bool::weighted(0.7)).prop_map(|(which, fit)| Event::Cleaned(which, fit)),
        5 => (pick(), prop::bool::weighted(0.7)).prop_map(|(which, fit)| Event::Probed(which, fit)),
        2 => pick().prop_map(Event::WasDead),
        2 => (1..30_u32).prop_map(Event::Resize),
        2 => prop::option::of(1..30_u32).prop_map(Event::SetBudget),
        2 => some_settings().prop_map(|settings| Event::Change(Box::new(settings))),
        1 => Just(Event::StartOver),
        1 => Just(Event::Renew),
        6 => pick().prop_map(Event::Parted),
        4 => (0..3_usize, reviewed()).prop_map(|(identity, terms)| Event::Review(identity, terms)),
        1 => (0..3_usize).prop_map(Event::Replace),
        2 => (0..3_usize).prop_map(Event::StandBeside),
        2 => pick().prop_map(Event::LeaveBeside),
        1 => (0..5_u32).prop_map(Event::SetCap),
        1 => (0..3_usize).prop_map(Event::WarmUp),
        6 => Just(Event::Tick),
        4 => Just(Event::Clock),
        8 => prop_oneof![4 => 0..100_u64, 3 => 100..3_000_u64, 1 => 3_000..90_000_u64]
            .prop_map(Event::Advance),
        1 => prop::bool::weighted(0.1)
            .prop_map(|close| if close { Event::Close } else { Event::Tick }),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Off), Just(Mode::Observe), Just(Mode::Enforce)]
}

prop_compose! {
    fn some_policies()(
        modes in prop::array::uniform7(prop::option::of(mode())),
    ) -> Policies {
        let [admission, deadline, shedding, freshness, retries, lending, breaker] = modes;
        Policies { admission, deadline, shedding, freshness, retries, lending, breaker }
    }
}

prop_compose! {
    fn some_class()(
        core in any::<bool>(),
        guarantee in 0..4_u32,
        ceiling in prop::option::of(1..8_u32),
        weight in 1..4_u32,
        max_requests in prop::option::weighted(0.3, 1..6_u32),
        max_parallel in 1..4_u32,
        checkout_timeout in 100..5_000_u64,
        mode in mode(),
        policies in some_policies(),
    ) -> ClassSettings {
        ClassSettings {
            kind: if core { Kind::Core } else { Kind::Ai },
            guarantee: Share::Seats(guarantee),
            ceiling: ceiling.map(Share::Seats),
            checkout_timeout: Duration::from_millis(checkout_timeout),
            weight,
            max_requests,
            max_parallel,
            mode,
            policies,
            ..ClassSettings::default()
        }
    }
}

prop_compose! {
    fn some_settings()(
        fixed in any::<bool>(),
        size in 1..9_u32,
        beside in 0..3_u32,
        ai_share in 20..=100_u8,
        classes in prop::collection::vec(some_class(), 1..4),
        idle_ttl in 1..60_u64,
        lifetime in 2..90_u64,
        warm_up in 0..60_u8,
        probe_interval in 1..20_u64,
        queue_factor in 1..3_u32,
        pace in (prop::option::weighted(0.7, 1..30_u32), prop::option::weighted(0.7, 1..4_u32)),
        limits in (50..=100_u8, 100..3_000_u64, 100..20_000_u64),
        evidence in mode(),
        is_awaited in any::<bool>(),
        seed in any::<u64>(),
    ) -> PoolSettings {
        let budget = if fixed {
            Budget::Fixed(size)
        } else {
            Budget::OfCapacity { percent: 40, until_known: size }
        };
        let named = classes.into_iter().enumerate();
        PoolSettings {
            beside,
            ai_share,
            classes: named.map(|(n, c)| (ClassName::new(&format!("class {n}")), c)).collect(),
            idle_ttl: Duration::from_secs(idle_ttl),
            lifetime: Duration::from_secs(lifetime),
            warm_up,
            probe_interval: Duration::from_secs(probe_interval),
            queue_factor,
            opens_per_second: pace.0,
            concurrent_opens: pace.1,
            shed_from: limits.0,
            lend_max_hold: Duration::from_millis(limits.1),
            hold_limit: Duration::from_millis(limits.2),
            evidence,
            parting: if is_awaited { Parting::Awaited } else { Parting::AtOnce },
            seed,
            ..PoolSettings::new("destination", budget)
        }
    }
}

impl World {
    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Ask { identity, class, request: of, work } => {
                let class = ClassId(class % self.classes);
                self.ask_for(Ask {
                    request: of.map(request),
                    operation: Some(operation(work.operation)),
                    cost: work.cost.map(|ms| Duration::from_millis(ms.into())),
                    needs: work.needs,
                    attempt: work.attempt,
                    deadline: work.patience.map(|ms| self.now + Duration::from_millis(ms.into())),
                    ..Ask::new(identity, class)
                });
            }
            Event::Abandon(which) => {
                if let Some(id) = chosen(which, self.callers.keys().copied()) {
                    self.abandon(id);
                }
            }
            Event::Expire(which) => {
                if let Some(id) = chosen(which, self.callers.keys().copied()) {
                    self.expire(id);
                }
            }
            Event::Take(which) => {
                let granted =
                    self.callers.iter().filter(|(_, c)| matches!(c.told, Told::Granted(_)));
                if let Some(id) = chosen(which, granted.map(|(id, _)| *id)) {
                    self.take(id);
                }
            }
            Event::GiveBack(which, condition) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.give_back(conn, condition);
                }
            }
            Event::Attach(which, to) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.attach(conn, request(to));
                }
            }
            Event::Acts(which, activity) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.acts(conn, activity);
                }
            }
            Event::Offer(which) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.offer(conn);
                }
            }
            Event::Withdraw(which) => {
                let offered: Vec<_> = self.ledger.offers.iter().map(|offer| offer.conn).collect();
                if let Some(conn) = chosen(which, offered) {
                    self.withdraw(conn);
                }
            }
            Event::TurnsTo(which, to) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.turns_to(conn, &operation(to));
                }
            }
            Event::WentWrong(which) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    self.step_failed(conn);
                }
            }
            Event::FailsElsewhere(which) => {
                let waiting = self.callers.iter().filter(|(_, c)| c.told == Told::Nothing);
                if let Some(id) = chosen(which, waiting.map(|(id, _)| *id)) {
                    self.fails(id);
                }
            }
            Event::Opened(which) => {
                if let Some(n) = chosen(which, 0..self.opens.len()) {
                    self.opened(n);
                }
            }
            Event::OpenFailed(which, kind) => {
                if let Some(n) = chosen(which, 0..self.opens.len()) {
                    self.open_failed(n, kind);
                }
            }
            Event::Cleaned(which, fit) => {
                if let Some(n) = chosen(which, 0..self.resets.len()) {
                    self.cleaned(n, if fit { Fitness::Fit } else { Fitness::Unclean });
                }
            }
            Event::Probed(which, fit) => {
                if let Some(n) = chosen(which, 0..self.probes.len()) {
                    self.probed(n, if fit { Fitness::Fit } else { Fitness::Dead });
                }
            }
            Event::WasDead(which) => {
                if let Some(conn) = chosen(which, self.in_use()) {
                    let since = self.ledger.lent_since(conn).unwrap();
                    self.was_dead(conn, since);
                }
            }
            Event::Resize(capacity) => self.resize(capacity),
            Event::SetBudget(wanted) => self.set_budget(wanted),
            Event::WarmUp(identity) => self.warm_up(identity),
            Event::Change(ref settings) => self.change((**settings).clone()),
            Event::StartOver => self.start_over(),
            Event::Renew => self.renew(),
            Event::Parted(which) => {
                if let Some(n) = chosen(which, 0..self.parting.len()) {
                    self.parted(n);
                }
            }
            Event::Review(identity, terms) => {
                let access = if terms.is_paused { Access::Paused } else { Access::Open };
                let caps = terms.is_capped.then(|| Arc::clone(&self.cap)).into_iter().collect();
                let terms = Terms {
                    access,
                    size: terms.size,
                    reserve: terms.reserve,
                    reserve_after: Duration::from_millis(terms.reserve_after.into()),
                    keep: terms.keep,
                    caps,
                };
                self.review(identity, terms);
            }
            Event::Replace(identity) => self.replace(identity),
            Event::StandBeside(identity) => {
                self.stand_beside(identity);
            }
            Event::LeaveBeside(which) => {
                if let Some(n) = chosen(which, 0..self.besides.len()) {
                    self.leave_beside(n);
                }
            }
            Event::SetCap(limit) => self.cap.set_limit(limit),
            Event::Tick => self.tick(),
            Event::Clock => self.clock(),
            Event::Advance(ms) => self.advance(Duration::from_millis(ms)),
            Event::Close => self.close(),
        }
    }
}

fn operation(n: u8) -> Operation {
    Operation::new("feature", format!("operation {n}"))
}

/// Requests of two connections each that come and go, so that the ledger has learnt what such
/// requests take before anything else happens.
fn experience(world: &mut World) {
    for n in 100..125 {
        let mut held = Vec::new();
        for _ in 0..2 {
            let ask = Ask {
                request: Some(request(n)),
                operation: Some(operation(n % 4)),
                ..Ask::new(0, ClassId(n % world.classes))
            };
            if let Asked::Waiting(id) = world.ask_for(ask) {
                world.finish_work();
                if matches!(world.callers[&id].told, Told::Nothing | Told::Rejected(_)) {
                    world.abandon(id);
                } else {
                    world.take(id);
                }
            }
            held = world.in_use();
            held.iter().for_each(|conn| world.acts(*conn, Activity::AtRest));
        }
        world.advance(Duration::from_millis(40));
        held.into_iter().for_each(|conn| world.give_back(conn, Condition::Clean));
        world.finish_work();
    }
    world.advance(Duration::from_secs(61));
    world.tick();
}

fn chosen<T>(which: Index, among: impl IntoIterator<Item = T>) -> Option<T> {
    let mut among: Vec<T> = among.into_iter().collect();
    (!among.is_empty()).then(|| among.swap_remove(which.index(among.len())))
}

/// Full checks of a long life cost more than many short ones find: 256 lives of up to 300
/// events for each run, more by `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_books_agree_and_in_the_end_nothing_is_left(
        settings in some_settings(),
        is_experienced in prop::bool::weighted(0.3),
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut world = World::new(settings);
        if is_experienced {
            experience(&mut world);
        }
        for event in &events {
            world.happens(event);
        }
        world.settle();
        world.assert_everybody_is_welcome_again();
        world.end();
    }
}
