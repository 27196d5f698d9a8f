//! Every life of a small pool, to a given depth: random lives may miss a corner of three
//! connections, this does not. States that differ in nothing but names and exact times are
//! visited once.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::class::Kind;
use crate::connect::FailureKind;
use crate::lease::Condition;
use crate::ledger::Fitness;
use crate::queue::Fate;
use crate::slot::{ConnId, Slot, WaiterId};

use super::world::{Told, World, class, request, settings};

#[derive(Debug, Clone, Copy)]
enum Event {
    Ask { identity: usize, class: u8, request: Option<u8> },
    Abandon(WaiterId),
    Expire(WaiterId),
    Take(WaiterId),
    GiveBack(ConnId, Condition),
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

impl World {
    fn possible(&self, asks: &[(usize, u8, Option<u8>)]) -> Vec<Event> {
        let mut events = vec![Event::Later];
        if self.callers.len() < CALLERS {
            events.extend(asks.iter().map(|&(identity, class, request)| Event::Ask {
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
                        format!("leased {:?} {:?}", lent.class, place(lent.request))
                    }
                    Slot::Cleaning { class } => format!("cleaning {class:?}"),
                    Slot::Probing { .. } => "probing".to_owned(),
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
        text
    }
}

/// Visits everything that can follow `world` in `depth` events. From states that are new
/// within the first events everything must come to a good end, too.
fn explore(
    world: &World,
    asks: &[(usize, u8, Option<u8>)],
    depth: u32,
    seen: &mut HashMap<String, u32>,
) {
    for event in world.possible(asks) {
        let mut after = world.clone();
        after.follows(event);
        let before = seen.insert(after.signature(), depth);
        match before {
            Some(deeper) if deeper >= depth => {
                seen.insert(after.signature(), deeper);
                continue;
            }
            Some(_) => {}
            None if depth > SETTLED => after.clone().settle(),
            None => {}
        }
        if depth > 1 {
            explore(&after, asks, depth - 1, seen);
        }
    }
}

#[test]
fn every_life_of_two_classes_on_three_connections_keeps_the_books() {
    let classes = vec![class(Kind::Core, 1, None), class(Kind::Ai, 0, Some(2))];
    let asks = [(0, 0, None), (0, 1, None), (0, 1, Some(0))];
    let mut seen = HashMap::new();
    explore(&World::new(settings(3, classes)), &asks, DEPTH, &mut seen);
    assert!(seen.len() > 3_000, "{} states", seen.len());
}

#[test]
fn every_life_of_two_identities_on_two_connections_keeps_the_books() {
    let asks = [(0, 0, None), (1, 0, None)];
    let classes = vec![class(Kind::Core, 0, None)];
    let mut seen = HashMap::new();
    explore(&World::new(settings(2, classes)), &asks, DEPTH, &mut seen);
    assert!(seen.len() > 3_000, "{} states", seen.len());
}
