//! Leases that their owners could do without: which are called home, and for whom.

use std::cmp::Reverse;
use std::time::Duration;

use crate::ask::{Ask, Resumes};
use crate::class::{ClassId, Kind};
use crate::lease::Condition;
use crate::ledger::recall::Called;
use crate::ledger::{Action, Asked};
use crate::slot::{ConnId, Slot};
use crate::terms::{Access, Terms};

use super::sentences::{MS, SECOND};
use super::world::{World, class, settings};

impl World {
    /// The owner of `conn` could give it back.
    pub(super) fn offer(&mut self, conn: ConnId) {
        let since = self.now;
        self.step(|ledger, now, actions| ledger.offer(conn, since, now, actions));
    }

    /// It cannot after all.
    pub(super) fn withdraw(&mut self, conn: ConnId) {
        self.step(|ledger, now, actions| ledger.withdraw(conn, now, actions));
    }

    /// I17: somebody waits for what is called home.
    pub(super) fn recalled(&self, conn: ConnId) {
        assert!(self.leases.contains_key(&conn), "only what is lent is called home");
        assert!(!self.ledger.queued.is_empty(), "nobody waits for it");
    }

    /// I17: what is offered is lent; and where nothing is on its way home, nothing that is offered
    /// would let somebody go who waits, once those have gone who may go as it is.
    pub(super) fn assert_recalls(&self) {
        let ledger = &self.ledger;
        let offered = |conn: &ConnId| {
            let Slot::Leased(lent) = &ledger.conns[*conn].slot else {
                panic!("{:?} is offered", ledger.conns[*conn].slot)
            };
            lent.class
        };
        let classes: Vec<_> =
            ledger.offers.iter().map(|offer| (offered(&offer.conn), offer.called)).collect();
        let coming = ledger.cleaning > 0 || classes.iter().any(|(_, c)| *c == Called::Yes);
        if coming {
            return;
        }
        let mut seats = ledger.seats.clone();
        let mut waiting: Vec<_> = ledger.crowd.classes().collect();
        waiting.sort_by_key(|class| Reverse(ledger.missing(*class)));
        for class in waiting {
            let mut left = ledger.within_reach(class);
            while left > 0 && seats.may_take(class) {
                seats.take(class);
                left -= 1;
            }
            for (of, _) in classes.iter().filter(|_| left > 0) {
                let mut without = seats.clone();
                without.free(*of);
                assert!(!without.may_take(class), "nobody is called home for {class:?}");
            }
        }
    }

    fn called(&self) -> Vec<ConnId> {
        let mut calls = Vec::new();
        for action in self.last.list() {
            if let Action::Recall(conn) = action {
                calls.push(*conn);
            }
        }
        calls
    }
}

/// Two classes of agents with a guarantee of one of four connections each, and all four taken
/// by the first.
fn all_borrowed() -> (World, Vec<ConnId>) {
    let classes = vec![class(Kind::Ai, 0, None), class(Kind::Ai, 0, None)];
    let mut world = World::new(settings(4, classes));
    let leases = world.fill();
    assert_eq!(leases.len(), 4);
    (world, leases)
}

#[test]
fn nothing_is_called_home_while_nobody_waits() {
    let (mut world, leases) = all_borrowed();
    leases.iter().for_each(|conn| world.offer(*conn));
    assert!(world.ledger.offers.iter().all(|offer| offer.called == Called::No));
}

#[test]
fn who_waits_is_served_by_the_offer_that_rests_for_longest() {
    let (mut world, leases) = all_borrowed();
    for conn in [leases[2], leases[0]] {
        world.advance(MS);
        world.offer(conn);
    }
    let waiter = world.waits_as(0, 1, None);
    assert_eq!(world.called(), [leases[2]]);
    world.give_back(leases[2], Condition::Clean);
    assert_eq!(world.take(waiter), leases[2]);
}

#[test]
fn an_offer_that_is_withdrawn_passes_the_call_on() {
    let (mut world, leases) = all_borrowed();
    leases.iter().for_each(|conn| world.offer(*conn));
    world.waits_as(0, 1, None);
    world.withdraw(leases[0]);
    assert_eq!(world.called(), [leases[1]]);
}

#[test]
fn no_more_are_called_than_wait() {
    let (mut world, leases) = all_borrowed();
    leases.iter().for_each(|conn| world.offer(*conn));
    for _ in 0..2 {
        world.waits_as(0, 1, None);
        assert_eq!(world.called().len(), 1);
    }
    world.offer(leases[3]);
    assert!(world.called().is_empty(), "both are called for");
}

#[test]
fn what_was_borrowed_goes_home_first_for_a_class_below_its_nominal_share() {
    let classes =
        vec![class(Kind::Ai, 0, None), class(Kind::Ai, 0, None), class(Kind::Ai, 0, None)];
    let mut world = World::new(settings(6, classes));
    // Two are the nominal share of each: class 1 has its two, and class 0 two too many.
    let ask = |world: &mut World, class| match world.ask(0, class, None) {
        Asked::Granted(conn) => conn,
        Asked::Waiting(id) => {
            world.finish_work();
            world.take(id)
        }
        Asked::Rejected(why) => panic!("{why:?}"),
    };
    let own: Vec<_> = (0..2).map(|_| ask(&mut world, 1)).collect();
    own.iter().for_each(|conn| world.offer(*conn));
    world.advance(SECOND);
    let borrowed: Vec<_> = (0..4).map(|_| ask(&mut world, 0)).collect();
    borrowed.iter().for_each(|conn| world.offer(*conn));
    world.waits_as(0, 2, None);
    assert_eq!(world.called(), [borrowed[0]], "though it rests for less long");
}

#[test]
fn a_connection_that_would_not_help_stays() {
    // Class 1 may have one connection, and has it.
    let classes = vec![class(Kind::Ai, 0, None), class(Kind::Ai, 0, Some(1))];
    let mut world = World::new(settings(3, classes));
    let Asked::Waiting(id) = world.ask(0, 1, None) else { panic!("none is open") };
    world.finish_work();
    let held = world.take(id);
    let Asked::Waiting(id) = world.ask(0, 0, None) else { panic!("none is open") };
    world.finish_work();
    let other = world.take(id);
    world.offer(other);
    world.waits_as(0, 1, None);
    assert!(world.called().is_empty());
    world.offer(held);
    assert_eq!(world.called(), [held]);
}

#[test]
fn who_resumes_goes_before_new_requests_and_by_its_own_deadline() {
    let (mut world, leases) = all_borrowed();
    let newcomer = world.waits(None);
    let since = world.now - SECOND;
    let deadline = Some(world.now + Duration::from_secs(60));
    let ask = Ask { resumes: Resumes::Since(since), deadline, ..Ask::new(0, ClassId(0)) };
    let Asked::Waiting(resumed) = world.ask_for(ask) else { panic!("all are taken") };
    assert!(world.ledger.has_own_patience(resumed) && !world.ledger.has_own_patience(newcomer));
    world.give_back(leases[0], Condition::Clean);
    assert_eq!(world.take(resumed), leases[0]);
}

/// Terms of one who is paused, or has all that it may.
fn shut() -> [Terms; 2] {
    let paused = Terms { access: Access::Paused, ..Terms::default() };
    [paused, Terms { size: Some(1), ..Terms::default() }]
}

#[test]
fn who_could_not_be_served_anyway_keeps_nobody_from_what_is_called_home() {
    for terms in shut() {
        let classes = vec![class(Kind::Ai, 0, None), class(Kind::Ai, 0, None)];
        let mut world = World::new(settings(4, classes));
        // One of its own, which is not on offer.
        let first = world.waits_as(1, 0, None);
        world.finish_work();
        world.take(first);
        let leases = world.fill();
        world.review(1, terms);
        world.waits_as(1, 1, None);
        world.offer(leases[0]);
        assert_eq!(world.called(), [], "nobody whom it could serve waits");
        world.waits_as(0, 1, None);
        assert_eq!(world.called(), [leases[0]]);
    }
}
