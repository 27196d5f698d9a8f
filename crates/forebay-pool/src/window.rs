//! What happened within the last ten seconds, counted in slots of one second.
//!
//! A sum covers the slot of the moment and the ten before it, so everything of the last ten
//! seconds, and nothing that is older than eleven. Whole numbers: sums are exact however
//! often they are added to. Asks no clock; constant memory and, but for the slots that
//! passed, constant time.

use std::time::{Duration, Instant};

const SLOT: Duration = Duration::from_secs(1);
const SLOTS: usize = 11;

/// `K` quantities, counted together.
#[derive(Debug, Clone)]
pub(crate) struct Window<const K: usize> {
    slots: [[u64; K]; SLOTS],
    sums: [u64; K],
    current: usize,
    /// When the current slot began, and when it ends.
    began: Instant,
    ends: Instant,
}

impl<const K: usize> Window<K> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: [[0; K]; SLOTS], sums: [0; K], current: 0, began: now, ends: now + SLOT }
    }

    /// Counts `amount` of the quantity `which` at this moment.
    #[inline]
    pub(crate) fn add(&mut self, which: usize, amount: u64, now: Instant) {
        if self.ends <= now {
            self.pass(now);
        }
        let (sum, held) = (&mut self.sums[which], &mut self.slots[self.current][which]);
        // A slot never holds more than fits, so that what leaves is what came.
        let fits = amount.min(u64::MAX - *sum);
        *sum += fits;
        *held += fits;
    }

    /// What was counted within the window.
    pub(crate) fn sums(&mut self, now: Instant) -> [u64; K] {
        if self.ends <= now {
            self.pass(now);
        }
        self.sums
    }

    /// Nothing was counted.
    pub(crate) fn clear(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The current slot is over.
    #[inline(never)]
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed >= SLOT * 11 {
            return self.clear(now);
        }
        for _ in 0..passed.as_secs() {
            self.current = (self.current + 1) % SLOTS;
            self.began += SLOT;
            self.ends += SLOT;
            let left = std::mem::replace(&mut self.slots[self.current], [0; K]);
            for (sum, left) in self.sums.iter_mut().zip(left) {
                *sum -= left;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_has_all_of_the_last_ten_seconds_and_nothing_older_than_eleven(
            steps in prop::collection::vec((0..2_500_u64, 0..100_u64), 1..200),
        ) {
            let start = time::now();
            let mut window = Window::<1>::new(start);
            let mut at = 0;
            let mut told = Vec::new();
            for (gap, amount) in steps {
                at += gap;
                let now = start + Duration::from_millis(at);
                window.add(0, amount, now);
                told.push((at, amount));
                let since = |age: u64| -> u64 {
                    told.iter().filter(|(then, _)| then + age >= at).map(|(_, amount)| amount).sum()
                };
                let [sum] = window.sums(now);
                prop_assert!(since(10_000) <= sum && sum <= since(11_000));
            }
        }
    }

    #[test]
    fn a_long_silence_empties_it() {
        let start = time::now();
        let mut window = Window::<2>::new(start);
        for amount in [u64::MAX, 1] {
            window.add(0, 3, start);
            window.add(1, amount, start);
        }
        assert_eq!(window.sums(start + SLOT * 10), [6, u64::MAX]);
        assert_eq!(window.sums(start + Duration::from_secs(86_400)), [0, 0]);
    }
}
