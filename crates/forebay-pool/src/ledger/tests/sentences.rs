//! Single rules of the ledger, one sentence each.

use std::time::Duration;

use crate::class::{ClassSettings, Kind};
use crate::connect::FailureKind;
use crate::lease::Condition;
use crate::ledger::{Action, Asked, Fitness};
use crate::queue::Rejection;
use crate::request::Request;
use crate::settings::{Budget, PoolSettings};
use crate::slot::{ConnId, WaiterId};

use super::world::{Told, World, class, request, settings};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn one_class(budget: u32) -> World {
    World::new(settings(budget, vec![class(Kind::Core, 0, None)]))
}

pub(super) fn agents(budget: u32) -> World {
    World::new(settings(budget, vec![class(Kind::Ai, 0, None)]))
}

impl World {
    /// A caller of class 0 that has to wait.
    pub(super) fn waits(&mut self, of: Option<Request>) -> WaiterId {
        self.waits_as(0, 0, of)
    }

    pub(super) fn waits_as(&mut self, identity: usize, class: u8, of: Option<Request>) -> WaiterId {
        self.advance(MS);
        let asked = self.ask(identity, class, of);
        let Asked::Waiting(id) = asked else { panic!("it should wait: {asked:?}") };
        id
    }

    pub(super) fn gets(&mut self, identity: usize, class: u8, of: Option<Request>) -> ConnId {
        let asked = self.ask(identity, class, of);
        let Asked::Granted(conn) = asked else { panic!("one is idle: {asked:?}") };
        conn
    }

    /// Leases of everything that class 0 of identity 0 can get.
    pub(super) fn fill(&mut self) -> Vec<ConnId> {
        let mut leases = Vec::new();
        while self.ledger.seats.headroom(crate::class::ClassId(0)) > 0 {
            let conn = match self.ask(0, 0, None) {
                Asked::Granted(conn) => conn,
                Asked::Waiting(id) => {
                    self.finish_work();
                    self.take(id)
                }
                Asked::Rejected(why) => panic!("{why:?}"),
            };
            leases.push(conn);
        }
        leases
    }

    pub(super) fn fill_and_rest(&mut self) {
        for conn in self.fill() {
            self.give_back(conn, Condition::Clean);
        }
    }

    pub(super) fn served(&self, id: WaiterId) -> bool {
        matches!(self.callers[&id].told, Told::Granted(_))
    }

    pub(super) fn idle(&self) -> u32 {
        self.ledger.idle
    }
}

#[test]
fn holders_are_served_before_continuations_and_these_before_new_requests() {
    let mut world = one_class(3);
    let leases = world.fill();
    let (holder, admitted) = (request(1), request(2));
    world.attach(leases[0], holder.clone());
    world.attach(leases[1], admitted.clone());
    world.give_back(leases[1], Condition::Clean);
    let blocking = world.gets(0, 0, None);
    let new = world.waits(None);
    let continuation = world.waits(Some(admitted));
    let holding = world.waits(Some(holder));
    world.give_back(blocking, Condition::Clean);
    assert!(world.served(holding) && !world.served(continuation));
    world.give_back(leases[2], Condition::Clean);
    assert!(world.served(continuation) && !world.served(new));
    world.settle();
}

#[test]
fn a_request_goes_before_new_ones_for_a_minute_and_no_longer() {
    let mut world = one_class(1);
    let lease = world.fill()[0];
    world.attach(lease, request(1));
    world.give_back(lease, Condition::Clean);
    let lease = world.gets(0, 0, None);
    world.advance(59 * SECOND);
    let new = world.waits(None);
    let continuation = world.waits(Some(request(1)));
    world.give_back(lease, Condition::Broken);
    world.opened(0);
    assert!(world.served(continuation) && !world.served(new));
    let lease = world.take(continuation);
    world.advance(2 * SECOND);
    let late = world.waits(Some(request(1)));
    world.give_back(lease, Condition::Broken);
    world.opened(0);
    assert!(world.served(new) && !world.served(late));
    world.settle();
}

#[test]
fn the_other_queries_of_a_request_that_got_a_connection_wait_as_holders() {
    let mut world = one_class(2);
    let leases = world.fill();
    let first = world.waits(Some(request(1)));
    let stranger = world.waits(None);
    let second = world.waits(Some(request(1)));
    world.give_back(leases[0], Condition::Clean);
    assert!(world.served(first));
    world.give_back(leases[1], Condition::Clean);
    assert!(world.served(second) && !world.served(stranger));
    world.settle();
}

#[test]
fn a_class_below_its_guarantee_goes_first_even_before_holders_that_borrow() {
    let mut world =
        World::new(settings(3, vec![class(Kind::Ai, 0, None), class(Kind::Core, 1, None)]));
    let leases = world.fill();
    assert_eq!(leases.len(), 2, "the guarantee is not lent");
    world.attach(leases[0], request(1));
    let holder = world.waits(Some(request(1)));
    let core = world.waits_as(0, 1, None);
    let [_] = world.opens[..] else { panic!("one for core") };
    world.give_back(leases[1], Condition::Clean);
    assert!(world.served(core) && !world.served(holder));
    world.settle();
}

#[test]
fn an_unused_guarantee_is_not_lent_and_neither_is_the_ai_share_exceeded() {
    let mut settings = settings(10, vec![class(Kind::Ai, 0, None), class(Kind::Core, 3, None)]);
    settings.ai_share = 50;
    let mut world = World::new(settings);
    assert_eq!(world.fill().len(), 5, "the AI share");
    let mut world = World::new(super::world::settings(
        10,
        vec![class(Kind::Ai, 0, None), class(Kind::Core, 3, None)],
    ));
    assert_eq!(world.fill().len(), 7, "all but the guarantee");
}

#[test]
fn queries_of_one_new_request_count_once_in_the_queue() {
    let mut world = agents(2);
    let _leases = world.fill();
    for n in 0..3 {
        world.waits(Some(request(n)));
    }
    for _ in 0..20 {
        world.waits(Some(request(0)));
    }
    world.waits(None);
    let full = world.ask(0, 0, Some(request(9)));
    assert!(matches!(full, Asked::Rejected(Rejection::QueueFull { limit: 4 })));
    world.waits(Some(request(1)));
    world.settle();
}

#[test]
fn a_request_waits_with_32_queries_under_its_name_and_further_ones_count_alone() {
    let mut world = agents(1);
    let _lease = world.fill();
    for _ in 0..32 {
        world.waits(Some(request(0)));
    }
    world.waits(Some(request(0)));
    let full = world.ask(0, 0, Some(request(0)));
    assert!(matches!(full, Asked::Rejected(Rejection::QueueFull { limit: 2 })));
    world.settle();
}

#[test]
fn the_queue_of_core_is_bounded_by_its_clients_only() {
    let mut world = one_class(1);
    let _lease = world.fill();
    for _ in 0..100 {
        world.waits(None);
    }
    world.settle();
}

#[test]
fn nothing_is_kept_of_a_request_that_got_nothing() {
    let mut world = agents(1);
    let lease = world.fill()[0];
    let left = world.waits(Some(request(1)));
    let late = world.waits(Some(request(2)));
    world.abandon(left);
    world.expire(late);
    assert!(world.ledger.requests.is_empty());
    world.give_back(lease, Condition::Clean);
    world.settle();
}

#[test]
fn a_connection_set_aside_for_one_who_left_goes_to_the_next_in_the_same_step() {
    let mut world = one_class(1);
    let lease = world.fill()[0];
    let first = world.waits(None);
    let second = world.waits(None);
    world.give_back(lease, Condition::Clean);
    assert!(world.served(first));
    world.abandon(first);
    assert!(world.served(second));
    let snapshot = world.ledger.snapshot(world.now);
    assert_eq!((snapshot.classes[0].checkouts, snapshot.classes[0].abandoned), (2, 1));
    world.settle();
}

#[test]
fn a_broken_connection_is_replaced_for_those_who_wait() {
    let mut world = one_class(1);
    let lease = world.fill()[0];
    let waiter = world.waits(None);
    world.give_back(lease, Condition::Broken);
    assert_eq!(world.opens.len(), 1);
    world.opened(0);
    assert!(world.served(waiter));
    world.settle();
}

#[test]
fn a_connection_of_unknown_state_keeps_its_seat_until_it_is_clean() {
    let mut world = one_class(1);
    let lease = world.fill()[0];
    let waiter = world.waits(None);
    world.give_back(lease, Condition::Unknown);
    assert!(!world.served(waiter) && world.opens.is_empty());
    assert_eq!(world.ledger.seats.taken, 1);
    world.cleaned(0, Fitness::Fit);
    assert!(world.served(waiter));
    world.settle();
}

#[test]
fn who_was_given_a_dead_connection_keeps_its_place_in_a_full_queue() {
    let mut world = agents(1);
    let lease = world.fill()[0];
    let unlucky = world.waits(None);
    let since = world.now;
    world.waits(None);
    world.give_back(lease, Condition::Clean);
    let lease = world.take(unlucky);
    let other = world.waits(None);
    let again = world.was_dead(lease, since);
    let Asked::Waiting(again) = again else { panic!("it waits again: {again:?}") };
    world.opened(0);
    assert!(!world.served(other));
    assert!(world.served(again), "it is still the oldest");
    world.settle();
}

#[test]
fn a_refused_login_is_told_to_its_identity_alone() {
    let mut world = one_class(2);
    let stranger = world.waits_as(0, 0, None);
    let refused = world.waits_as(1, 0, None);
    world.open_failed(1, FailureKind::Denied);
    assert_eq!(world.callers[&refused].told, Told::Rejected("denied"));
    assert_eq!(world.callers[&stranger].told, Told::Nothing);
    assert!(matches!(world.ask(1, 0, None), Asked::Rejected(Rejection::Denied(_))));
    world.opened(0);
    assert!(world.served(stranger));
    world.advance(2 * SECOND);
    world.waits_as(1, 0, None);
    assert_eq!(world.opens.len(), 1, "the refusal is believed for a second");
    world.settle();
}

#[test]
fn a_refused_identity_is_not_tried_again_while_its_other_attempts_end() {
    let mut world = one_class(4);
    let waiters = [world.waits(None), world.waits(None)];
    assert_eq!(world.opens.len(), 2);
    world.open_failed(0, FailureKind::Denied);
    assert_eq!(world.opens.len(), 1, "no third attempt");
    world.open_failed(0, FailureKind::Denied);
    for waiter in waiters {
        assert_eq!(world.callers[&waiter].told, Told::Rejected("denied"));
    }
    world.settle();
}

#[test]
fn a_refusal_does_not_touch_those_who_wait_for_a_connection_that_lives() {
    let mut world = one_class(2);
    let id = world.waits(None);
    world.opened(0);
    let lease = world.take(id);
    let waiter = world.waits(None);
    world.open_failed(0, FailureKind::Denied);
    assert_eq!(world.callers[&waiter].told, Told::Nothing);
    assert!(world.opens.is_empty());
    world.give_back(lease, Condition::Clean);
    assert!(world.served(waiter));
    world.settle();
}

#[test]
fn a_refusal_lets_the_next_identity_connect_at_once() {
    let mut slow = settings(4, vec![class(Kind::Core, 0, None)]);
    slow.concurrent_opens = Some(1);
    let mut world = World::new(slow);
    world.waits_as(0, 0, None);
    let next = world.waits_as(1, 0, None);
    assert_eq!(world.opens.len(), 1);
    world.advance(SECOND);
    world.open_failed(0, FailureKind::Denied);
    world.opened(0);
    assert!(world.served(next));
    world.settle();
}

#[test]
fn who_waited_for_a_seat_gets_the_warmest_connection() {
    let mut world =
        World::new(settings(3, vec![class(Kind::Core, 0, None), class(Kind::Ai, 0, Some(1))]));
    world.fill_and_rest();
    let lease = world.gets(0, 1, None);
    let waiter = world.waits_as(0, 1, None);
    world.advance(SECOND);
    world.give_back(lease, Condition::Clean);
    assert_eq!(world.callers[&waiter].told, Told::Granted(lease));
    world.settle();
}

#[test]
fn a_busy_destination_rejects_nobody_and_is_asked_again_after_a_second() {
    let mut world = one_class(2);
    let waiter = world.waits(None);
    for _ in 0..10 {
        world.open_failed(0, FailureKind::Busy);
        assert_eq!(world.callers[&waiter].told, Told::Nothing);
        assert!(world.opens.is_empty() && world.alarm.is_some());
        world.advance(2 * SECOND);
        world.tick();
        assert_eq!(world.opens.len(), 1);
    }
    world.expire(waiter);
    world.settle();
}

#[test]
fn after_five_failed_connects_callers_without_a_connection_are_told_at_once() {
    let mut world = one_class(2);
    let waiter = world.waits(None);
    for _ in 0..5 {
        assert_eq!(world.callers[&waiter].told, Told::Nothing);
        world.open_failed(0, FailureKind::Unreachable);
        let alarm = world.alarm.unwrap();
        world.advance(alarm - world.now);
        world.tick();
    }
    assert_eq!(world.callers[&waiter].told, Told::Rejected("unreachable"));
    world.ask(0, 0, None);
    world.open_failed(0, FailureKind::Unreachable);
    assert!(matches!(world.ask(0, 0, None), Asked::Rejected(Rejection::Unreachable(_))));
    world.settle();
}

#[test]
fn a_burst_that_one_connection_absorbs_in_time_opens_no_other() {
    let mut world = one_class(5);
    let id = world.waits(None);
    world.advance(100 * MS);
    world.opened(0);
    let lease = world.take(id);
    world.advance(MS);
    world.give_back(lease, Condition::Clean);
    let lease = world.gets(0, 0, None);
    world.waits(None);
    assert!(world.opens.is_empty(), "a hold of 1 ms, a connect of 100 ms");
    assert!(world.alarm.is_some());
    world.advance(101 * MS);
    world.tick();
    assert_eq!(world.opens.len(), 1, "the hold is longer than was thought");
    world.give_back(lease, Condition::Clean);
    world.settle();
}

#[test]
fn no_more_is_opened_than_could_be_lent() {
    let mut world =
        World::new(settings(10, vec![class(Kind::Ai, 0, Some(2)), class(Kind::Core, 5, None)]));
    for identity in 0..4 {
        world.waits_as(identity, 0, None);
    }
    assert_eq!(world.opens.len(), 2);
    world.settle();
}

#[test]
fn opens_are_paced_and_an_alarm_says_when_the_next_is_due() {
    let mut slow = settings(10, vec![class(Kind::Core, 0, None)]);
    (slow.concurrent_opens, slow.opens_per_second) = (Some(2), Some(10));
    let mut world = World::new(slow);
    for _ in 0..6 {
        world.ask(0, 0, None);
    }
    assert_eq!(world.opens.len(), 2, "two at once");
    world.opened(0);
    world.opened(0);
    assert!(world.opens.is_empty(), "then ten a second");
    let wait = world.alarm.unwrap() - world.now;
    assert!(wait > 99 * MS && wait < 122 * MS, "up to 20 % later: {wait:?}");
    world.settle();
}

#[test]
fn an_idle_connection_makes_room_for_another_identity_after_50_ms() {
    let mut world = one_class(1);
    world.fill_and_rest();
    world.waits_as(1, 0, None);
    assert!(world.opens.is_empty());
    let alarm = world.alarm.unwrap();
    assert!(alarm - world.now <= 50 * MS);
    world.advance(50 * MS);
    world.tick();
    assert_eq!(world.opens.len(), 1);
    assert_eq!(world.ledger.snapshot(world.now).closed.evicted, 1);
    world.settle();
}

#[test]
fn an_identity_under_load_gives_way_when_it_is_the_turn_of_another() {
    let mut world = one_class(1);
    let mut lease = world.fill()[0];
    let mut last = world.waits(None);
    let other = world.waits_as(1, 0, None);
    for _ in 0..100 {
        let next = world.waits(None);
        world.advance(MS);
        world.give_back(lease, Condition::Clean);
        if !world.opens.is_empty() {
            world.opened(0);
            assert!(world.served(other));
            assert!(world.now - world.ledger.waiters[other].since >= 50 * MS, "not at once");
            world.settle();
            return;
        }
        assert!(world.served(last));
        lease = world.take(last);
        last = next;
    }
    panic!("it waits for ever behind callers that came later");
}

#[test]
fn a_probe_does_not_keep_alive_what_nobody_uses() {
    let mut short = settings(1, vec![class(Kind::Core, 0, None)]);
    (short.idle_ttl, short.probe_interval) = (30 * SECOND, 10 * SECOND);
    let mut world = World::new(short);
    world.fill_and_rest();
    for _ in 0..2 {
        world.advance(10 * SECOND);
        world.tick();
        world.probed(0, Fitness::Fit);
    }
    assert_eq!(world.idle(), 1);
    world.advance(10 * SECOND);
    world.tick();
    assert_eq!((world.idle(), world.ledger.snapshot(world.now).closed.idle), (0, 1));
}

#[test]
fn a_probed_connection_is_not_lent_and_a_dead_one_is_closed() {
    let mut world = one_class(2);
    world.fill_and_rest();
    world.advance(11 * SECOND);
    world.tick();
    assert_eq!((world.probes.len(), world.idle()), (1, 1), "a tenth at a time");
    world.gets(0, 0, None);
    let waiter = world.waits(None);
    world.probed(0, Fitness::Dead);
    assert!(!world.served(waiter) && world.opens.len() == 1);
    assert_eq!(world.ledger.snapshot(world.now).closed.broken, 1);
    world.settle();
}

#[test]
fn idle_connections_are_closed_coldest_first_down_to_the_warm_ones() {
    let mut warm = settings(4, vec![class(Kind::Core, 0, None)]);
    (warm.warm_up, warm.idle_ttl, warm.probe_interval) = (50, 10 * SECOND, 3600 * SECOND);
    let mut world = World::new(warm);
    world.warm_up(0);
    assert_eq!(world.opens.len(), 2);
    assert!(!world.ledger.snapshot(world.now).warm);
    world.finish_work();
    assert!(world.ledger.snapshot(world.now).warm);
    let mut leases = world.fill();
    assert_eq!(leases.len(), 4);
    let last = leases.pop().unwrap();
    for conn in leases {
        world.give_back(conn, Condition::Clean);
    }
    world.advance(SECOND);
    world.give_back(last, Condition::Clean);
    for _ in 0..5 {
        world.advance(9 * SECOND);
        world.tick();
    }
    assert_eq!((world.idle(), world.ledger.snapshot(world.now).closed.idle), (2, 2));
    assert_eq!(world.gets(0, 0, None), last, "the warmest is lent first");
}

#[test]
fn lifetimes_are_drawn_once_within_their_jitter() {
    let mut world = one_class(50);
    world.fill_and_rest();
    let start = world.now;
    let lives: Vec<_> = world.ledger.conns.values().map(|conn| conn.expires - start).collect();
    let half_hour = Duration::from_secs(1800);
    assert!(lives.iter().all(|life| *life > half_hour.mul_f64(0.899)));
    assert!(lives.iter().all(|life| *life < half_hour.mul_f64(1.1)));
    assert!(lives.iter().max().unwrap().abs_diff(*lives.iter().min().unwrap()) > 60 * SECOND);
    world.advance(10 * SECOND);
    world.tick();
    let later: Vec<_> = world.ledger.conns.values().map(|conn| conn.expires - start).collect();
    assert_eq!(lives, later);
}

#[test]
fn a_connection_past_its_lifetime_is_closed_when_it_comes_home_and_replaced() {
    let mut world = one_class(1);
    let lease = world.fill()[0];
    world.advance(Duration::from_secs(2000));
    let waiter = world.waits(None);
    world.give_back(lease, Condition::Clean);
    assert_eq!((world.ledger.snapshot(world.now).closed.lifetime, world.opens.len()), (1, 1));
    world.opened(0);
    assert!(world.served(waiter));
    world.settle();
}

#[test]
fn a_smaller_budget_closes_idle_connections_at_once_and_lent_ones_at_their_return() {
    let half = Budget::OfCapacity { percent: 50, until_known: 6 };
    let classes = vec![class(Kind::Core, 0, None)];
    let mut world = World::new(PoolSettings { budget: half, ..settings(6, classes) });
    let mut leases = world.fill();
    world.give_back(leases.pop().unwrap(), Condition::Clean);
    world.resize(8);
    assert_eq!((world.idle(), world.ledger.total()), (0, 5));
    world.give_back(leases.pop().unwrap(), Condition::Clean);
    assert_eq!((world.idle(), world.ledger.total()), (0, 4));
    world.give_back(leases.pop().unwrap(), Condition::Clean);
    assert_eq!((world.idle(), world.ledger.total()), (1, 4), "four is what it may be");
    world.settle();
}

#[test]
fn a_larger_budget_serves_those_who_wait() {
    let half = Budget::OfCapacity { percent: 50, until_known: 1 };
    let classes: Vec<ClassSettings> = vec![class(Kind::Core, 0, None)];
    let mut world = World::new(PoolSettings { budget: half, ..settings(1, classes) });
    let _lease = world.fill();
    let waiters = [world.waits(None), world.waits(None)];
    world.resize(10);
    world.finish_work();
    assert!(waiters.iter().all(|waiter| world.served(*waiter)));
    world.settle();
}

#[test]
fn a_closing_pool_rejects_those_who_wait_and_not_those_who_were_served() {
    let mut world = one_class(2);
    let leases = world.fill();
    let (first, second) = (world.waits(None), world.waits(None));
    world.give_back(leases[0], Condition::Clean);
    world.close();
    assert!(world.served(first));
    assert_eq!(world.callers[&second].told, Told::Rejected("closed"));
    assert!(matches!(world.ask(0, 0, None), Asked::Rejected(Rejection::Closed)));
    let taken = world.take(first);
    world.give_back(taken, Condition::Clean);
    world.give_back(leases[1], Condition::Clean);
    assert!(world.ledger.is_empty());
}

#[test]
fn an_identity_that_nobody_uses_is_forgotten_but_not_its_refusal() {
    let mut world = one_class(1);
    let waiter = world.waits(None);
    world.advance(500 * MS);
    world.open_failed(0, FailureKind::Denied);
    assert_eq!(world.callers[&waiter].told, Told::Rejected("denied"));
    world.advance(600 * MS);
    world.tick();
    assert!(matches!(world.ask(0, 0, None), Asked::Rejected(Rejection::Denied(_))));
    world.advance(2 * SECOND);
    world.tick();
    assert!(world.last.list().iter().any(|action| matches!(action, Action::Forget(_))));
}

#[test]
fn a_guarantee_and_a_holder_of_another_identity_compete_for_seats_only() {
    let mut world = one_class(2);
    let id = world.waits(None);
    world.opened(0);
    let lease = world.take(id);
    world.attach(lease, request(1));
    let first = world.waits_as(1, 0, None);
    world.opened(0);
    assert!(world.served(first), "the second seat is free for another identity");
    world.settle();
}

#[test]
fn who_waits_goes_before_what_is_kept_warm() {
    let classes = vec![class(Kind::Core, 0, None)];
    let slow = PoolSettings {
        warm_up: 100,
        opens_per_second: Some(1),
        concurrent_opens: Some(1),
        ..settings(8, classes)
    };
    let mut world = World::new(slow);
    world.warm_up(1);
    world.opened(0);
    let waits = world.waits_as(0, 0, None);
    while world.opens.is_empty() {
        world.advance(100 * MS);
        world.tick();
    }
    world.opened(0);
    assert!(world.served(waits), "seven are still to be kept warm");
}
