//! Random lives of a pool: whatever happens, in whatever order, the books agree after each
//! event, and once nothing fails any more everybody is served and nothing is left.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::ask::Ask;
use crate::class::{ClassId, ClassName, ClassSettings, Kind, Share};
use crate::connect::FailureKind;
use crate::deadlock::Activity;
use crate::lease::Condition;
use crate::ledger::Fitness;
use crate::mode::Mode;
use crate::operation::Operation;
use crate::settings::{Budget, PoolSettings};

use super::world::{Told, World, request};

/// What an ask says besides.
#[derive(Debug, Clone, Copy)]
struct Work {
    operation: u8,
    cost: Option<u16>,
    needs: u32,
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
    Opened(Index),
    OpenFailed(Index, FailureKind),
    Cleaned(Index, bool),
    Probed(Index, bool),
    WasDead(Index),
    Resize(u32),
    SetBudget(Option<u32>),
    WarmUp(usize),
    Tick,
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
        Just(FailureKind::Busy),
        Just(FailureKind::Denied),
    ];
    let work = (0..4_u8, prop::option::weighted(0.2, 0..3_000_u16), 0..3_u32)
        .prop_map(|(operation, cost, needs)| Work { operation, cost, needs });
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
        14 => pick().prop_map(Event::Opened),
        3 => (pick(), kind).prop_map(|(which, kind)| Event::OpenFailed(which, kind)),
        5 => (pick(), prop::bool::weighted(0.7)).prop_map(|(which, fit)| Event::Cleaned(which, fit)),
        5 => (pick(), prop::bool::weighted(0.7)).prop_map(|(which, fit)| Event::Probed(which, fit)),
        2 => pick().prop_map(Event::WasDead),
        2 => (1..30_u32).prop_map(Event::Resize),
        2 => prop::option::of(1..30_u32).prop_map(Event::SetBudget),
        1 => (0..3_usize).prop_map(Event::WarmUp),
        8 => Just(Event::Tick),
        8 => prop_oneof![4 => 0..100_u64, 3 => 100..3_000_u64, 1 => 3_000..90_000_u64]
            .prop_map(Event::Advance),
        1 => prop::bool::weighted(0.1)
            .prop_map(|close| if close { Event::Close } else { Event::Tick }),
    ]
}

prop_compose! {
    fn some_class()(
        core in any::<bool>(),
        guarantee in 0..4_u32,
        ceiling in prop::option::of(1..8_u32),
        weight in 1..4_u32,
        max_requests in prop::option::weighted(0.3, 1..6_u32),
        max_parallel in 1..4_u32,
        mode in prop_oneof![Just(Mode::Off), Just(Mode::Observe), Just(Mode::Enforce)],
    ) -> ClassSettings {
        ClassSettings {
            kind: if core { Kind::Core } else { Kind::Ai },
            guarantee: Share::Seats(guarantee),
            ceiling: ceiling.map(Share::Seats),
            checkout_timeout: Duration::from_secs(2),
            weight,
            max_requests,
            max_parallel,
            mode,
            ..ClassSettings::default()
        }
    }
}

prop_compose! {
    fn some_settings()(
        fixed in any::<bool>(),
        size in 1..9_u32,
        ai_share in 20..=100_u8,
        classes in prop::collection::vec(some_class(), 1..4),
        idle_ttl in 1..60_u64,
        lifetime in 2..90_u64,
        warm_up in 0..60_u8,
        probe_interval in 1..20_u64,
        queue_factor in 1..3_u32,
        opens_per_second in 1..30_u32,
        concurrent_opens in 1..4_u32,
        seed in any::<u64>(),
    ) -> PoolSettings {
        let budget = if fixed {
            Budget::Fixed(size)
        } else {
            Budget::OfCapacity { percent: 40, until_known: size }
        };
        let named = classes.into_iter().enumerate();
        PoolSettings {
            ai_share,
            classes: named.map(|(n, c)| (ClassName::new(&format!("class {n}")), c)).collect(),
            idle_ttl: Duration::from_secs(idle_ttl),
            lifetime: Duration::from_secs(lifetime),
            warm_up,
            probe_interval: Duration::from_secs(probe_interval),
            queue_factor,
            opens_per_second: Some(opens_per_second),
            concurrent_opens: Some(concurrent_opens),
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
                let name = format!("operation {}", work.operation);
                self.ask_for(Ask {
                    request: of.map(request),
                    operation: Some(Operation::new("feature", name)),
                    cost: work.cost.map(|ms| Duration::from_millis(ms.into())),
                    needs: work.needs,
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
            Event::Tick => self.tick(),
            Event::Advance(ms) => self.advance(Duration::from_millis(ms)),
            Event::Close => self.close(),
        }
    }
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
        events in prop::collection::vec(event(), 1..300),
    ) {
        let mut world = World::new(settings);
        for event in &events {
            world.happens(event);
        }
        world.settle();
    }
}
