//! Connections of the pool's owner, within the budget and beside the pool.

use std::sync::Arc;

use crate::cap::Place;
use crate::class::Kind;
use crate::lease::Condition;
use crate::settings::PoolSettings;
use crate::slot::IdentityId;

use super::world::{World, class, settings};

/// One that stands beside the pool, with its places under caps.
pub(super) type Standing = (IdentityId, Arc<Vec<Place>>);

impl World {
    /// The owner would like one of identity `n`; whether it may.
    pub(super) fn stand_beside(&mut self, n: usize) -> bool {
        let id = self.identity(n);
        let places = self.ledger.stand_beside(id);
        let may = places.is_some();
        self.besides.extend(places.map(|places| (id, Arc::new(places))));
        self.step(|_, _, _| ());
        if may {
            assert!(self.all_there_are() <= self.ledger.seats.whole(), "above the whole budget");
        }
        may
    }

    /// One of them was closed.
    pub(super) fn leave_beside(&mut self, n: usize) {
        let (id, places) = self.besides.swap_remove(n);
        drop(places);
        self.step(|ledger, now, actions| ledger.left_beside(id, now, actions));
    }

    /// Those in the pool and those beside it.
    pub(super) fn all_there_are(&self) -> u32 {
        u32::try_from(self.ledger.conns.len()).unwrap() + self.ledger.beside
    }
}

fn with_beside(budget: u32, beside: u32) -> World {
    let plain = settings(budget, vec![class(Kind::Core, 0, None)]);
    World::new(PoolSettings { beside, ..plain })
}

#[test]
fn what_stands_beside_the_pool_is_part_of_its_budget() {
    let mut world = with_beside(5, 1);
    assert_eq!(world.fill().len(), 4);
    assert!(world.stand_beside(0));
    assert!(!world.stand_beside(0), "one is all that may");
    assert_eq!(world.all_there_are(), 5);
    world.leave_beside(0);
    assert!(world.stand_beside(1));
}

#[test]
fn a_small_budget_is_the_pools_alone() {
    for budget in [1, 2] {
        let mut world = with_beside(budget, 4);
        assert!(!world.stand_beside(0));
        assert_eq!(u32::try_from(world.fill().len()).unwrap(), budget);
    }
    let mut world = with_beside(4, 4);
    assert!(world.stand_beside(0) && world.stand_beside(1) && !world.stand_beside(2));
}

#[test]
fn none_stands_beside_a_pool_that_has_not_shrunk_to_make_room() {
    let mut world = with_beside(4, 0);
    let leases = world.fill();
    assert_eq!(leases.len(), 4);
    world.change(PoolSettings { beside: 1, ..settings(4, vec![class(Kind::Core, 0, None)]) });
    assert!(!world.stand_beside(0));
    world.give_back(leases[0], Condition::Clean);
    assert!(world.stand_beside(0));
    // And the pool takes its seat back only once it is left.
    world.change(settings(4, vec![class(Kind::Core, 0, None)]));
    let waiter = world.waits_as(0, 0, None);
    world.finish_work();
    assert!(!world.served(waiter));
    world.leave_beside(0);
    world.finish_work();
    assert!(world.served(waiter));
}
