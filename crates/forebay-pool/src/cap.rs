//! A limit on connections that several identities share, and several pools: of one database,
//! of one user.
//!
//! Knows neither connections nor who waits. A place is taken before a connection is opened and
//! given back when the destination has let it go, whichever way that came: a [`Place`] does so
//! when it is dropped. Always true: what is taken is what the places that exist add up to, and
//! a place is only given while fewer than `limit` are taken.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many connections several identities may have together, in however many pools.
#[derive(Debug)]
pub struct Cap {
    limit: AtomicU32,
    taken: AtomicU32,
    /// Which pool lacks a place that others have, by its number; 0: none.
    wanted_by: AtomicU64,
}

impl Cap {
    /// A cap of `limit` connections.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            taken: AtomicU32::new(0),
            wanted_by: AtomicU64::new(0),
        })
    }

    /// Another limit from now on. Places above a smaller one stay taken until they are given
    /// back.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Connections at the most.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Connections that there are, or that are being opened or closed.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }

    /// Is there no place left?
    pub(crate) fn is_full(&self) -> bool {
        self.taken() >= self.limit()
    }

    /// The pool with this number waits for a place that others have. What of theirs is not in
    /// use is to be closed.
    pub(crate) fn is_wanted_by(&self, pool: NonZeroU64) {
        self.wanted_by.store(pool.get(), Ordering::Release);
    }

    /// Does a pool wait for a place that the one with this number may have?
    pub(crate) fn is_wanted_from(&self, pool: NonZeroU64) -> bool {
        let by = self.wanted_by.load(Ordering::Acquire);
        by != 0 && by != pool.get() && self.is_full()
    }

    /// A place was given up for the one that waits.
    pub(crate) fn is_served(&self) {
        self.wanted_by.store(0, Ordering::Release);
    }

    /// One place, if one is left.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.limit()).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// A place under a cap, until dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Cap>);

impl Place {
    /// Is it a place under `cap`?
    pub(crate) fn is_of(&self, cap: &Arc<Cap>) -> bool {
        Arc::ptr_eq(&self.0, cap)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One place under each of `caps`, or none at all.
pub(crate) fn take_all(caps: &[Arc<Cap>]) -> Option<Vec<Place>> {
    caps.iter().map(Cap::take).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// Under the first cap, the second, or both.
        Take(u8),
        GiveBack(usize),
        Limit(usize, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_u8..4).prop_map(Step::Take),
            3 => (0_usize..64).prop_map(Step::GiveBack),
            1 => (0_usize..2, 0_u32..6).prop_map(|(cap, limit)| Step::Limit(cap, limit)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_was_given_and_never_more_than_the_limit(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let caps = [Cap::new(3), Cap::new(2)];
            let mut held: Vec<Vec<Place>> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(which) => {
                        let wanted: Vec<_> = (0..2)
                            .filter(|cap| which & (1 << cap) != 0)
                            .map(|cap: usize| Arc::clone(&caps[cap]))
                            .collect();
                        let had_room = wanted.iter().all(|cap| !cap.is_full());
                        let taken = take_all(&wanted);
                        prop_assert_eq!(taken.is_some(), had_room);
                        held.extend(taken);
                    }
                    Step::GiveBack(place) if !held.is_empty() => {
                        drop(held.swap_remove(place % held.len()));
                    }
                    Step::GiveBack(_) => {}
                    Step::Limit(cap, limit) => caps[cap].set_limit(limit),
                }
                for cap in &caps {
                    let given = held.iter().flatten().filter(|place| place.is_of(cap)).count();
                    prop_assert_eq!(usize::try_from(cap.taken()).unwrap(), given);
                }
            }
            drop(held);
            prop_assert!(caps.iter().all(|cap| cap.taken() == 0));
        }
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let cap = Cap::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let place = cap.take();
                        assert!(cap.taken() <= 3);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(cap.taken(), 0);
    }
}
