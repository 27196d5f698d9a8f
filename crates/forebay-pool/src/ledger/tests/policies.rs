//! The policies of a class, one sentence each: who is refused, who is held back, and that
//! nobody is where they only observe.

use std::time::Duration;

use crate::ask::{Ask, Attempt};
use crate::class::{ClassId, ClassSettings, Kind, Policies};
use crate::connect::FailureKind;
use crate::event::Event;
use crate::lease::Condition;
use crate::ledger::{Asked, Fitness};
use crate::mode::Mode;
use crate::operation::Operation;
use crate::policy::Policy;
use crate::pool::Refusal;
use crate::queue::Rejection;
use crate::settings::PoolSettings;
use crate::slot::{ConnId, WaiterId};

use super::sentences::{MS, SECOND};
use super::world::{Told, World, class, request, settings};

const AGENTS: ClassId = ClassId(0);

/// Agents under these policies, all others off, on so many connections that are open.
fn under(budget: u32, policies: Policies, class: ClassSettings) -> World {
    let classes = vec![ClassSettings { policies, ..class }];
    let lifetime = 36_000 * SECOND;
    let settings = PoolSettings { warm_up: 100, lifetime, ..settings(budget, classes) };
    let mut world = World::new(settings);
    world.warm_up(0);
    world.finish_work();
    world
}

fn agents() -> ClassSettings {
    class(Kind::Ai, 0, None)
}

/// Work called `name`.
fn work(name: &str) -> Ask<usize> {
    Ask { operation: Some(Operation::new("answer", name)), ..Ask::new(0, AGENTS) }
}

impl World {
    fn does(&mut self, ask: Ask<usize>) -> ConnId {
        match self.ask_for(ask) {
            Asked::Granted(conn) => conn,
            // It went past those who are held back, in the same step.
            Asked::Waiting(id) if self.served(id) => self.take(id),
            other @ (Asked::Waiting(_) | Asked::Rejected(_)) => {
                panic!("a connection is there: {other:?}")
            }
        }
    }

    fn stands(&mut self, ask: Ask<usize>) -> WaiterId {
        self.advance(MS);
        match self.ask_for(ask) {
            Asked::Waiting(id) => id,
            other @ (Asked::Granted(_) | Asked::Rejected(_)) => {
                panic!("it should wait: {other:?}")
            }
        }
    }

    fn refused(&mut self, ask: Ask<usize>) -> (Refusal, Option<Duration>) {
        match self.ask_for(ask) {
            Asked::Rejected(Rejection::Refused { why, retry_after }) => (why, retry_after),
            other @ (Asked::Granted(_) | Asked::Waiting(_) | Asked::Rejected(_)) => {
                panic!("it should be refused: {other:?}")
            }
        }
    }

    /// Work that takes `hold`, so often that it is known.
    fn learns(&mut self, name: &str, hold: Duration, times: u32) {
        for _ in 0..times {
            let conn = self.does(work(name));
            self.advance(hold);
            self.give_back(conn, Condition::Clean);
        }
    }

    fn observed(&self, policy: Policy) -> u64 {
        let mut seen = self.ledger.policies[AGENTS.index()].decided();
        seen.find(|seen| seen.policy == policy).unwrap().observed
    }

    fn events(&mut self) -> Vec<Event> {
        self.ledger.take_events()
    }
}

#[test]
fn a_new_request_waits_until_one_under_way_is_over_where_only_so_many_may_be() {
    let policies = Policies { admission: Some(Mode::Enforce), ..Policies::default() };
    let capped = ClassSettings { max_requests: Some(2), ..agents() };
    let mut world = under(4, policies, capped);
    let first = world.gets(0, 0, Some(request(0)));
    let _second = world.gets(0, 0, Some(request(1)));
    let third = world.waits(Some(request(2)));
    let more = world.gets(0, 0, Some(request(1)));
    world.give_back(more, Condition::Clean);
    world.give_back(first, Condition::Clean);
    assert!(!world.served(third), "the first may go on within a moment");
    world.advance(101 * MS);
    world.tick();
    assert!(world.served(third), "it did not");
}

#[test]
fn requests_that_need_little_of_a_connection_are_admitted_in_numbers() {
    let policies = Policies { admission: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(2, policies, agents());
    // A query of 10 ms, a second of thinking, another query: 0.02 connections on average.
    for n in 0..30 {
        for _ in 0..2 {
            let conn = world.does(Ask { request: Some(request(n)), ..work("read") });
            world.advance(10 * MS);
            world.give_back(conn, Condition::Clean);
            world.advance(SECOND);
        }
        world.advance(61 * SECOND);
        world.tick();
        world.finish_work();
    }
    // Ten requests that think: by number they would be too many for two connections.
    for n in 100..110 {
        world.tick();
        world.finish_work();
        let conn = world.does(Ask { request: Some(request(n)), ..work("read") });
        world.advance(10 * MS);
        world.give_back(conn, Condition::Clean);
    }
    let demand = world.ledger.admission.demand(AGENTS);
    assert!(demand > 0.05 && demand < 1.0, "{demand}");
}

#[test]
fn observed_admission_counts_and_holds_back_nobody() {
    let policies = Policies { admission: Some(Mode::Observe), ..Policies::default() };
    let capped = ClassSettings { max_requests: Some(1), ..agents() };
    let mut world = under(4, policies, capped);
    for n in 0..3 {
        world.gets(0, 0, Some(request(n)));
    }
    assert_eq!(world.observed(Policy::Admission), 2);
}

#[test]
fn who_would_wait_beyond_its_deadline_is_told_at_once_and_when_to_come_back() {
    let policies = Policies { deadline: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(1, policies, agents());
    world.learns("read", SECOND, 30);
    let _lease = world.does(work("read"));
    let patient = world.stands(work("read"));
    let hurried = Ask { deadline: Some(world.now + 500 * MS), ..work("read") };
    let (why, retry_after) = world.refused(hurried);
    assert!(matches!(why, Refusal::Late { wait } if wait > SECOND), "{why:?}");
    assert!(retry_after.is_some());
    assert_eq!(world.callers[&patient].told, Told::Nothing);
}

#[test]
fn expensive_work_is_shed_before_cheap_work_while_the_class_is_busy() {
    let policies = Policies { shedding: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(10, policies, agents());
    world.learns("cheap", 5 * MS, 200);
    world.learns("dear", SECOND, 20);
    let _busy: Vec<_> = (0..10).map(|_| world.does(work("cheap"))).collect();
    world.advance(5 * SECOND);
    let (mut cheap, mut dear) = (0, 0);
    for n in 0..1_000 {
        world.advance(10 * MS);
        for (name, passed) in [("cheap", &mut cheap), ("dear", &mut dear)] {
            match world.ask_for(work(name)) {
                Asked::Waiting(id) => {
                    *passed += u32::from(n >= 800);
                    world.abandon(id);
                }
                Asked::Rejected(Rejection::Refused { why: Refusal::Shed { .. }, .. }) => {}
                other @ (Asked::Granted(_) | Asked::Rejected(_)) => panic!("{other:?}"),
            }
        }
    }
    assert!(cheap > 190, "{cheap} of 200 cheap ones passed");
    assert!((1..120).contains(&dear), "{dear} of 200 dear ones passed");
}

#[test]
fn work_that_holds_long_does_not_borrow_above_the_guarantee() {
    let policies = Policies { lending: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(4, policies, class(Kind::Ai, 1, None));
    world.learns("think", 5 * SECOND, 30);
    world.learns("read", 5 * MS, 300);
    let first = world.does(work("think"));
    let second = world.stands(work("think"));
    let short = world.does(work("read"));
    world.give_back(short, Condition::Clean);
    assert!(!world.served(second), "it would borrow");
    world.give_back(first, Condition::Clean);
    assert!(world.served(second), "it is the first within the guarantee");
}

#[test]
fn what_was_declared_counts_more_than_what_was_learnt() {
    let policies = Policies { lending: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(4, policies, class(Kind::Ai, 1, None));
    world.learns("read", 5 * MS, 300);
    let _first = world.does(work("read"));
    world.stands(Ask { cost: Some(2 * SECOND), ..work("read") });
    world.does(Ask { cost: Some(20 * MS), ..work("read") });
}

#[test]
fn requests_that_say_how_many_connections_they_need_never_wait_in_a_circle() {
    for needs in [2, 3] {
        let mut world = under(5, Policies::default(), agents());
        let nested = |n| Ask { request: Some(request(n)), needs, ..work("nested") };
        let asked: Vec<_> = (0..5).map(|n| world.ask_for(nested(n))).collect();
        let mut begun: Vec<(u8, Vec<ConnId>)> = Vec::new();
        let mut waiting = Vec::new();
        for (n, asked) in (0_u8..).zip(asked) {
            match asked {
                Asked::Granted(conn) => begun.push((n, vec![conn])),
                Asked::Waiting(id) => waiting.push((n, id)),
                Asked::Rejected(why) => panic!("{why:?}"),
            }
        }
        let may_begin = usize::try_from((5 - 1) / (needs - 1)).unwrap();
        assert_eq!(begun.len(), may_begin);
        // Each goes on to what it needs, is done, and makes room for the next.
        while let Some((n, mut held)) = begun.pop() {
            for conn in &held {
                world.acts(*conn, crate::deadlock::Activity::AtRest);
            }
            while held.len() < usize::try_from(needs).unwrap() {
                held.push(world.does(nested(n)));
            }
            for conn in held {
                world.give_back(conn, Condition::Clean);
            }
            waiting.retain(|(n, id)| {
                let served = world.served(*id);
                if served {
                    begun.push((*n, vec![world.take(*id)]));
                }
                !served
            });
        }
        assert!(waiting.is_empty(), "everybody was served");
    }
}

#[test]
fn the_newest_goes_first_and_the_oldest_is_refused_while_the_queue_does_not_empty() {
    let policies = Policies { freshness: Some(Mode::Enforce), ..Policies::default() };
    let impatient = ClassSettings { checkout_timeout: 200 * MS, ..agents() };
    let mut world = under(1, policies, impatient);
    let lease = world.does(work("read"));
    let old = world.stands(work("read"));
    world.advance(150 * MS);
    let new = world.stands(work("read"));
    world.give_back(lease, Condition::Clean);
    assert!(world.served(new) && !world.served(old));
    let _lease = world.take(new);
    world.advance(100 * MS);
    world.tick();
    world.advance(101 * MS);
    world.tick();
    assert_eq!(world.callers[&old].told, Told::Rejected("refused"));
}

#[test]
fn a_request_under_way_is_not_blocked_by_newer_ones_that_wait_for_it_to_be_over() {
    let policies = Policies {
        freshness: Some(Mode::Enforce),
        admission: Some(Mode::Enforce),
        retries: Some(Mode::Enforce),
        ..Policies::default()
    };
    let mut world = under(1, policies, ClassSettings { max_requests: Some(1), ..agents() });
    let first = Ask { request: Some(request(0)), ..work("read") };
    let conn = world.does(first.clone());
    // A retry stands in the line of new work, though its request is under way.
    let own = world.stands(Ask { attempt: Attempt::Retry, ..first });
    let other = world.stands(Ask { request: Some(request(1)), ..work("read") });
    world.advance(150 * MS);
    world.give_back(conn, Condition::Clean);
    world.tick();
    assert!(world.served(own) && !world.served(other));
}

#[test]
fn retries_stand_in_line_as_new_work_and_may_cost_a_share_of_first_tries() {
    let policies = Policies { retries: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(2, policies, agents());
    world.learns("read", 100 * MS, 50);
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..100 {
        match world.ask_for(Ask { attempt: Attempt::Retry, ..work("read") }) {
            Asked::Granted(conn) => {
                passed += 1;
                world.give_back(conn, Condition::Clean);
            }
            Asked::Rejected(Rejection::Refused { why: Refusal::Retries, retry_after }) => {
                refused += 1;
                assert!(retry_after.is_some_and(|after| after >= SECOND));
            }
            other @ (Asked::Waiting(_) | Asked::Rejected(_)) => panic!("{other:?}"),
        }
    }
    assert!((10..=20).contains(&passed) && refused >= 80, "{passed} passed, {refused} refused");
    let conn = world.does(work("read"));
    world.give_back(conn, Condition::Clean);
}

#[test]
fn the_same_operation_of_a_request_that_failed_is_a_retry_and_the_fourth_try_is_none() {
    let policies = Policies { retries: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(2, policies, agents());
    let ask = Ask { request: Some(request(0)), ..work("read") };
    for _ in 0..3 {
        let conn = world.does(ask.clone());
        world.step_failed(conn);
        world.give_back(conn, Condition::Clean);
        world.advance(MS);
    }
    assert_eq!(world.refused(ask), (Refusal::Retries, None), "another try would not help");
    let other = Ask { request: Some(request(1)), ..work("read") };
    world.does(other);
}

#[test]
fn work_that_keeps_failing_is_refused_until_a_trial_succeeds() {
    let policies = Policies { breaker: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(2, policies, agents());
    for _ in 0..5 {
        let conn = world.does(work("read"));
        world.step_failed(conn);
        world.give_back(conn, Condition::Clean);
    }
    assert!(matches!(world.events()[..], [.., Event::BreakerOpened { .. }]));
    let (why, retry_after) = world.refused(work("read"));
    assert_eq!(why, Refusal::Broken);
    world.advance(retry_after.unwrap());
    let trial = world.does(work("read"));
    assert_eq!(world.refused(work("read")).0, Refusal::Broken, "one trial at a time");
    world.give_back(trial, Condition::Clean);
    assert!(matches!(world.events()[..], [.., Event::BreakerClosed { .. }]));
    world.does(work("read"));
}

#[test]
fn a_trial_that_is_given_up_makes_way_for_another() {
    let policies = Policies { breaker: Some(Mode::Enforce), ..Policies::default() };
    let mut world = under(1, policies, agents());
    for _ in 0..5 {
        let conn = world.does(work("read"));
        world.step_failed(conn);
        world.give_back(conn, Condition::Clean);
    }
    let (_, retry_after) = world.refused(work("read"));
    world.advance(retry_after.unwrap());
    let trial = world.does(work("read"));
    assert_eq!(world.refused(work("read")).0, Refusal::Broken);
    world.give_back(trial, Condition::Unknown);
    world.cleaned(0, Fitness::Fit);
    world.does(work("read"));
}

#[test]
fn a_lease_beyond_the_hold_limit_is_told_once_with_what_it_does() {
    let mut world = under(2, Policies::default(), agents());
    world.events();
    let conn = world.does(Ask { request: Some(request(0)), ..work("begin") });
    let now = world.now;
    world.ledger.does(conn, &Operation::new("answer", "SELECT pg_sleep(?)"), now);
    world.advance(16 * SECOND);
    world.tick();
    let [Event::LongHold { feature, operation, held, request, .. }] = &world.events()[..] else {
        panic!("it is told")
    };
    assert_eq!(feature.as_deref(), Some("answer"));
    assert_eq!(operation.as_deref(), Some("SELECT pg_sleep(?)"));
    assert_eq!((*held, request.is_some()), (16 * SECOND, true));
    world.advance(16 * SECOND);
    world.tick();
    assert_eq!(world.events(), [], "it is told once");
    assert_eq!(world.ledger.counters.classes[0].long_holds, 1);
}

#[test]
fn a_lease_beyond_the_hold_limit_that_ends_between_two_looks_is_told_too() {
    let mut world = under(2, Policies::default(), agents());
    world.events();
    let conn = world.does(work("think"));
    world.advance(15 * SECOND);
    world.give_back(conn, Condition::Clean);
    assert!(matches!(&world.events()[..], [Event::LongHold { held, .. }] if *held == 15 * SECOND));
    let conn = world.does(work("think"));
    world.advance(14 * SECOND);
    world.give_back(conn, Condition::Clean);
    assert_eq!(world.events(), []);
}

#[test]
fn a_feature_whose_fan_out_jumps_is_told() {
    let mut world = under(2, Policies::default(), agents());
    world.events();
    let serve = |world: &mut World, n: u8, leases: u32| {
        for _ in 0..leases {
            let conn = world.does(Ask { request: Some(request(n)), ..work("read") });
            world.advance(MS);
            world.give_back(conn, Condition::Clean);
        }
        world.advance(61 * SECOND);
        world.tick();
        world.finish_work();
    };
    for n in 0..40 {
        serve(&mut world, n, 3);
    }
    for n in 40..50 {
        serve(&mut world, n, 30);
    }
    let jumps: Vec<_> =
        world.events().into_iter().filter(|e| matches!(e, Event::FanOutJump { .. })).collect();
    let [Event::FanOutJump { feature, before, now }] = &jumps[..] else { panic!("{jumps:?}") };
    assert_eq!(&**feature, "answer");
    assert!(*before < 4.0 && *now > 10.0, "{before} {now}");
}

#[test]
fn when_one_connection_is_dead_and_the_next_one_too_all_older_ones_are_closed() {
    let mut world = under(6, Policies::default(), agents());
    let conn = world.does(work("read"));
    world.give_back(conn, Condition::Broken);
    assert_eq!((world.idle(), world.probes.len()), (4, 1), "one other is asked");
    world.probed(0, Fitness::Dead);
    assert_eq!(world.idle(), 0, "the server was restarted");
    assert_eq!(world.ledger.counters.closed.renewed, 4);
}

#[test]
fn a_connection_that_dies_alone_takes_nobody_with_it() {
    let mut world = under(6, Policies::default(), agents());
    let conn = world.does(work("read"));
    world.give_back(conn, Condition::Broken);
    world.probed(0, Fitness::Fit);
    assert_eq!(world.idle(), 5);
    let conn = world.does(work("read"));
    world.give_back(conn, Condition::Broken);
    assert_eq!((world.idle(), world.probes.len()), (4, 0), "one has just answered");
}

#[test]
fn connections_that_are_replaced_by_hand_come_home_first() {
    let mut world = under(3, Policies::default(), agents());
    let lease = world.does(work("read"));
    world.renew();
    assert_eq!(world.idle(), 0);
    world.give_back(lease, Condition::Clean);
    assert_eq!(world.idle(), 0, "it was opened before");
    let id = world.stands(work("read"));
    world.finish_work();
    let fresh = world.take(id);
    world.give_back(fresh, Condition::Clean);
    assert_eq!(world.idle(), 3);
}

#[test]
fn after_an_outage_what_may_be_lent_grows_in_steps() {
    let mut world = under(8, Policies::default(), agents());
    let leases: Vec<_> = (0..8).map(|_| world.does(work("read"))).collect();
    for conn in leases {
        world.give_back(conn, Condition::Broken);
    }
    world.finish_work();
    for _ in 0..6 {
        world.advance(11 * SECOND);
        if let Asked::Waiting(id) = world.ask_for(work("read")) {
            world.tick();
            if !world.opens.is_empty() {
                world.open_failed(0, FailureKind::Unreachable);
            }
            if world.callers.contains_key(&id) {
                world.abandon(id);
            }
        }
    }
    world.advance(11 * SECOND);
    let mut waiting: Vec<_> = (0..8).map(|_| world.stands(work("read"))).collect();
    let mut served = |world: &mut World| {
        for _ in 0..20 {
            world.advance(20 * MS);
            world.tick();
            world.finish_work();
        }
        waiting.retain(|id| {
            let gone = world.served(*id);
            if gone {
                world.take(*id);
            }
            !gone
        });
        8 - waiting.len()
    };
    assert_eq!(served(&mut world), 2, "a quarter at first");
    world.advance(2 * SECOND);
    assert_eq!(served(&mut world), 4);
    world.advance(2 * SECOND);
    assert_eq!(served(&mut world), 8);
}

#[test]
fn a_request_that_took_far_more_than_others_of_its_kind_goes_before_nobody() {
    let mut world = under(2, Policies::default(), agents());
    for n in 0..40 {
        let conn = world.does(Ask { request: Some(request(n)), ..work("read") });
        world.advance(10 * MS);
        world.give_back(conn, Condition::Clean);
        world.advance(61 * SECOND);
        world.tick();
        world.finish_work();
    }
    let greedy = Ask { request: Some(request(100)), ..work("read") };
    let conn = world.does(greedy.clone());
    world.advance(SECOND);
    world.give_back(conn, Condition::Clean);
    let leases: Vec<_> = (0..2).map(|_| world.does(work("read"))).collect();
    let other = world.stands(work("read"));
    let greedy = world.stands(greedy);
    world.give_back(leases[0], Condition::Clean);
    assert!(world.served(other) && !world.served(greedy));
}
