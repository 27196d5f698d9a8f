//! Every life of a small pool, to a given depth: random lives may miss a corner of three
//! connections, this does not. States that differ in nothing but names and exact times are
//! visited once. Circles of requests that wait for each other, and policies, have worlds of
//! their own.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::class::{ClassSettings, Kind};
use crate::connect::FailureKind;
use crate::deadlock::Activity;
use crate::lease::Condition;
use crate::ledger::Fitness;
use crate::mode::Mode;
use crate::queue::Fate;
use crate::settings::PoolSettings;
use crate::slot::{ConnId, Slot, WaiterId};

use super::world::{Told, World, class, request, settings};

#[derive(Debug, Clone, Copy)]
enum Event {
    Ask { identity: usize, class: u8, request: Option<u8> },
    Abandon(WaiterId),
    Expire(WaiterId),
    Take(WaiterId),
    GiveBack(ConnId, Condition),
    Acts(ConnId, Activity),
    Opened,
    OpenFailed(FailureKind),
    Cleaned(Fitness),
    Later,
}

/// Longer than an idle connection is kept from making room for another identity.
const LATER: Duration = Duration::from_millis(60);

/// Events in one life.
const DEPTH: u32 = 7;
/// States that are reached with more than so many events to go are brought to an end.
const SETTLED: u32 = 2;
/// Callers at the same time.
const CALLERS: usize = 4;

/// What may happen in one of these worlds, beside what always may.
struct Menu<'a> {
    /// Who may ask: identity, class and request.
    asks: &'a [(usize, u8, Option<u8>)],
    /// Whether owners let their connections rest.
    owners: Owners,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owners {
    Work,
    MayRest,
}

impl World {
    fn possible(&self, menu: &Menu<'_>) -> Vec<Event> {
        let mut events = vec![Event::Later];
        if self.callers.len() < CALLERS {
            events.extend(menu.asks.iter().map(|&(identity, class, request)| Event::Ask {
                identity,
                class,
                request,
            }));
        }
        for (id, caller) in &self.callers {
            match caller.told {
                Told::Nothing => events.extend([Event::Abandon(*id), Event::Expire(*id)]),
                Told::Granted(_) => events.extend([Event::Abandon(*id), Event::Take(*id)]),
                Told::Rejected(_) => events.push(Event::Abandon(*id)),
            }
        }
        for conn in self.in_use() {
            let conditions = [Condition::Clean, Condition::Unknown, Condition::Broken];
            events.extend(conditions.map(|condition| Event::GiveBack(conn, condition)));
            if menu.owners == Owners::MayRest {
                events.push(Event::Acts(conn, Activity::AtRest));
                events.push(Event::Acts(conn, Activity::Working));
            }
        }
        if !self.opens.is_empty() {
            events.extend([
                Event::Opened,
                Event::OpenFailed(FailureKind::Unreachable),
                Event::OpenFailed(FailureKind::Denied),
            ]);
        }
        if !self.resets.is_empty() {
            events.extend([Event::Cleaned(Fitness::Fit), Event::Cleaned(Fitness::Unclean)]);
        }
        events
    }

    fn follows(&mut self, event: Event) {
        match event {
            Event::Ask { identity, class, request: of } => {
                self.advance(Duration::from_millis(1));
                self.ask(identity, class, of.map(request));
            }
            Event::Abandon(id) => self.abandon(id),
            Event::Expire(id) => self.expire(id),
            Event::Take(id) => drop(self.take(id)),
            Event::GiveBack(conn, condition) => self.give_back(conn, condition),
            Event::Acts(conn, activity) => self.acts(conn, activity),
            Event::Opened => drop(self.opened(0)),
            Event::OpenFailed(kind) => self.open_failed(0, kind),
            Event::Cleaned(fitness) => self.cleaned(0, fitness),
            Event::Later => {
                self.advance(LATER);
                self.tick();
            }
        }
    }

    /// What makes this state another than others.
    fn signature(&self) -> String {
        let ledger = &self.ledger;
        let mut text = String::new();
        let known: Vec<_> = ledger.requests.all().map(|(id, ..)| id).collect();
        let place = |request| known.iter().position(|id| Some(*id) == request);
        let mut conns: Vec<_> = ledger
            .conns
            .values()
            .map(|conn| {
                let owner = self.identities.iter().position(|i| *i == conn.identity);
                let slot = match conn.slot {
                    Slot::Opening { .. } => "opening".to_owned(),
                    Slot::Idle { since, .. } => format!("idle {}", self.now - since >= LATER),
                    Slot::Leased(lent) => {
                        let of = place(lent.request);
                        format!("leased {:?} {of:?} {:?}", lent.class, lent.activity)
                    }
                    Slot::Cleaning { class } => format!("cleaning {class:?}"),
                    Slot::Probing { .. } => "probing".to_owned(),
                    Slot::Parting { .. } => "parting".to_owned(),
                };
                format!("{owner:?} {slot}")
            })
            .collect();
        conns.sort_unstable();
        let mut waiters: Vec<_> = ledger.waiters.values().collect();
        waiters.sort_by_key(|waiter| (waiter.age, waiter.since));
        for waiter in waiters {
            let owner = self.identities.iter().position(|i| *i == waiter.identity);
            let fate = match waiter.fate {
                Fate::Waiting { .. } => 'w',
                Fate::Granted { .. } => 'g',
                Fate::Rejected(_) => 'r',
            };
            let long = self.now - waiter.since >= LATER;
            let of = place(waiter.request);
            write!(text, "{owner:?}{:?}{:?}{of:?}{fate}{long};", waiter.class, waiter.level)
                .unwrap();
        }
        let pause = ledger.opener.not_before().is_some_and(|at| at > self.now);
        let denied = ledger.identities.values().map(|i| i.denied(self.now).is_some());
        let denied: Vec<_> = denied.collect();
        let down = ledger.opener.outage().is_some();
        write!(text, "{conns:?}{pause}{down}{denied:?}{}", ledger.requests.all().count()).unwrap();
        for class in ledger.class_ids() {
            let (breaker, under_way) = (&ledger.breakers[class.index()], &ledger.admission);
            let order = ledger.order(class, self.now);
            let under_way = under_way.requests(class);
            write!(text, "{:?}{order:?}{under_way}", breaker.phase()).unwrap();
        }
        text
    }
}

/// Visits everything that can follow `world` in `depth` events. From states that are new
/// within the first events everything must come to a good end, too.
fn explore(world: &World, menu: &Menu<'_>, depth: u32, seen: &mut HashMap<String, u32>) {
    for event in world.possible(menu) {
        let mut after = world.clone();
        after.follows(event);
        let before = seen.insert(after.signature(), depth);
        match before {
            Some(deeper) if deeper >= depth => {
                seen.insert(after.signature(), deeper);
                continue;
            }
            Some(_) => {}
            None if depth > SETTLED => {
                let mut last = after.clone();
                last.settle();
                last.end();
            }
            None => {}
        }
        if depth > 1 {
            explore(&after, menu, depth - 1, seen);
        }
    }
}

#[test]
fn every_life_of_two_classes_on_three_connections_keeps_the_books() {
    let classes = vec![class(Kind::Core, 1, None), class(Kind::Ai, 0, Some(2))];
    let asks = [(0, 0, None), (0, 1, None), (0, 1, Some(0))];
    let mut seen = HashMap::new();
    let menu = Menu { asks: &asks, owners: Owners::Work };
    explore(&World::new(settings(3, classes)), &menu, DEPTH, &mut seen);
    assert!(seen.len() > 3_000, "{} states", seen.len());
}

#[test]
fn every_life_of_two_identities_on_two_connections_keeps_the_books() {
    let asks = [(0, 0, None), (1, 0, None)];
    let classes = vec![class(Kind::Core, 0, None)];
    let mut seen = HashMap::new();
    let menu = Menu { asks: &asks, owners: Owners::Work };
    explore(&World::new(settings(2, classes)), &menu, DEPTH, &mut seen);
    assert!(seen.len() > 3_000, "{} states", seen.len());
}

/// Two requests on two connections that are open.
fn two_requests_on_two_connections(class: ClassSettings) -> usize {
    let settings = PoolSettings { warm_up: 100, ..settings(2, vec![class]) };
    let mut world = World::new(settings);
    world.warm_up(0);
    world.finish_work();
    let asks = [(0, 0, Some(0)), (0, 0, Some(1))];
    let mut seen = HashMap::new();
    explore(&world, &Menu { asks: &asks, owners: Owners::MayRest }, DEPTH, &mut seen);
    seen.len()
}

#[test]
fn no_life_of_two_requests_that_rest_on_two_connections_ends_in_a_circle() {
    let states = two_requests_on_two_connections(class(Kind::Ai, 0, None));
    assert!(states > 3_000, "{states} states");
}

#[test]
fn no_life_of_two_requests_under_every_policy_shuts_anybody_out() {
    let strict =
        ClassSettings { mode: Mode::Enforce, max_requests: Some(1), ..class(Kind::Ai, 0, None) };
    let states = two_requests_on_two_connections(strict);
    assert!(states > 2_000, "{states} states");
}
