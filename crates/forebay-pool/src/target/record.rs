//! How connects ended in the last ten seconds, in slices of one second.
//!
//! Asks no clock. Always true: what is older than ten seconds counts no more.

use std::time::{Duration, Instant};

const SLICES: u32 = 10;
const SLICE: Duration = Duration::from_secs(1);
/// So many connects are needed for a verdict.
const ENOUGH: u32 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    connects: u32,
    failed: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    slices: [Slice; SLICES as usize],
    /// The newest slice, and when it began.
    newest: usize,
    since: Option<Instant>,
}

impl Record {
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.at(now).connects += 1;
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let slice = self.at(now);
        slice.connects += 1;
        slice.failed += 1;
    }

    /// Did half of at least ten connects fail?
    pub(super) fn is_bad(&mut self, now: Instant) -> bool {
        self.at(now);
        let connects: u32 = self.slices.iter().map(|slice| slice.connects).sum();
        let failed: u32 = self.slices.iter().map(|slice| slice.failed).sum();
        connects >= ENOUGH && failed * 2 >= connects
    }

    /// The slice of `now`; those that lie between it and the last are empty.
    fn at(&mut self, now: Instant) -> &mut Slice {
        let mut since = *self.since.get_or_insert(now);
        let mut passed = 0;
        while since + SLICE <= now {
            since += SLICE;
            passed += 1;
            if passed > SLICES {
                since = now;
            } else {
                self.newest = (self.newest + 1) % self.slices.len();
                self.slices[self.newest] = Slice::default();
            }
        }
        self.since = Some(since);
        &mut self.slices[self.newest]
    }
}
