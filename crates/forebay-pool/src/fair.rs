//! Whose turn it is between classes: start-time fair queueing in connection time.
//!
//! Each class has a clock that runs with the connection time it takes above its guarantee,
//! divided by its weight; among classes that wait, the one whose clock is furthest behind goes
//! first (Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996; engine notes c.4, I10).
//! A lease is charged what it is expected to take when it is granted, and settled with what it
//! took when it comes home. Always true: a class that did not wait has saved up at most
//! [`CREDIT`], and owes at most [`DEBT`], so that nobody is shut out for what is past.

use std::time::Duration;

use crate::class::ClassId;

/// What a class may be behind the others when it begins to wait, per unit of weight.
const CREDIT: u64 = nanos(Duration::from_millis(100));
/// What a class may be ahead of the others, per unit of weight.
const DEBT: u64 = nanos(Duration::from_secs(10));
/// The longest lease that is charged as such.
const LONGEST: Duration = Duration::from_secs(3600);

const fn nanos(duration: Duration) -> u64 {
    // Every duration of this room is below an hour.
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

/// A class's clock, nanoseconds of connection time per unit of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Turn(u64);

impl Turn {
    /// Before everybody's.
    pub(crate) const FIRST: Self = Self(0);
}

#[derive(Debug, Clone)]
pub(crate) struct Fair {
    clocks: Vec<Clock>,
    /// The latest clock at which somebody was served.
    present: u64,
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    weight: u64,
    time: u64,
}

/// What a lease was charged when it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// It was within the guarantee, which is free.
    Free,
    /// It borrows: nanoseconds of connection time.
    Paid(u64),
}

impl Fair {
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let clock = |weight: u32| Clock { weight: u64::from(weight.max(1)), time: 0 };
        Self { clocks: weights.into_iter().map(clock).collect(), present: 0 }
    }

    /// The weights are others by now, also of classes that came to be. Time that passed stays.
    pub(crate) fn reweigh(&mut self, weights: impl IntoIterator<Item = u32>) {
        let fresh = Self::new(weights).clocks;
        let before = std::mem::replace(&mut self.clocks, fresh);
        for (clock, before) in self.clocks.iter_mut().zip(before) {
            clock.time = before.time;
        }
    }

    /// When it is the turn of `class`.
    pub(crate) fn turn(&self, class: ClassId) -> Turn {
        Turn(self.clocks[class.index()].time.max(self.present.saturating_sub(CREDIT)))
    }

    /// A lease of `class` that borrows is granted and will take about `expected`.
    pub(crate) fn charge(&mut self, class: ClassId, expected: Duration) -> Charge {
        let Turn(start) = self.turn(class);
        let clock = &mut self.clocks[class.index()];
        let paid = nanos(expected.min(LONGEST));
        clock.time = start + paid / clock.weight;
        self.present = self.present.max(start);
        Charge::Paid(paid)
    }

    /// A lease that was charged came home after `took`.
    pub(crate) fn settle(&mut self, class: ClassId, charge: Charge, took: Duration) {
        let Charge::Paid(paid) = charge else { return };
        let due = nanos(took.min(LONGEST));
        let clock = &mut self.clocks[class.index()];
        if due <= paid {
            clock.time = clock.time.saturating_sub((paid - due) / clock.weight);
        } else {
            let settled = clock.time + (due - paid) / clock.weight;
            clock.time = settled.min(self.present.saturating_add(DEBT).max(clock.time));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Grants one lease after another to whoever's turn it is; what each class got.
    fn serve(fair: &mut Fair, holds: &[Duration], expected: Duration, leases: u32) -> Vec<f64> {
        let mut got = vec![0.0; holds.len()];
        for _ in 0..leases {
            let next = (0..holds.len()).min_by_key(|k| fair.turn(class(*k))).unwrap();
            let charge = fair.charge(class(next), expected);
            fair.settle(class(next), charge, holds[next]);
            got[next] += holds[next].as_secs_f64();
        }
        got
    }

    fn class(k: usize) -> ClassId {
        ClassId(u8::try_from(k).unwrap())
    }

    #[test]
    fn connection_time_and_not_the_number_of_leases_is_shared_by_weight() {
        let mut fair = Fair::new([3, 1]);
        let got = serve(&mut fair, &[5 * MS, 200 * MS], 10 * MS, 100_000);
        let ratio = got[0] / got[1];
        assert!((ratio - 3.0).abs() < 0.03, "{ratio}");
    }

    #[test]
    fn a_class_that_did_not_wait_has_saved_up_next_to_nothing() {
        let mut fair = Fair::new([1, 1]);
        for _ in 0..1_000 {
            let charge = fair.charge(class(0), 50 * MS);
            fair.settle(class(0), charge, 50 * MS);
        }
        let got = serve(&mut fair, &[50 * MS, 50 * MS], 50 * MS, 100);
        assert!((got[0] - got[1]).abs() <= 0.25, "{got:?}");
    }

    #[test]
    fn a_class_that_held_far_longer_than_expected_is_not_shut_out_for_ever() {
        let mut fair = Fair::new([1, 1]);
        let charge = fair.charge(class(0), MS);
        fair.settle(class(0), charge, Duration::from_secs(3_000));
        let got = serve(&mut fair, &[MS, 100 * MS], MS, 200);
        assert!(got[0] > 0.0, "{got:?}");
    }

    proptest! {
        /// I10: over a backlogged interval the difference of two classes' time by weight is at
        /// most two quanta and the longest lease of each.
        #[test]
        fn backlogged_classes_differ_by_no_more_than_a_lease(
            weights in (1..5_u32, 1..5_u32),
            holds in prop::collection::vec((1..400_u64, 1..400_u64), 50..400),
        ) {
            let mut fair = Fair::new([weights.0, weights.1]);
            let mut got = [0.0, 0.0];
            for hold in holds {
                let next = usize::from(fair.turn(class(1)) < fair.turn(class(0)));
                let took = Duration::from_millis(if next == 0 { hold.0 } else { hold.1 });
                let charge = fair.charge(class(next), 50 * MS);
                fair.settle(class(next), charge, took);
                got[next] += took.as_secs_f64();
                let apart = got[0] / f64::from(weights.0) - got[1] / f64::from(weights.1);
                prop_assert!(apart.abs() <= 0.1 + 0.4 + 0.4, "{got:?}");
            }
        }
    }
}
