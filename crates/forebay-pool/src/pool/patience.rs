//! Who waits: the task to wake for each of them, and since when it waits.
//!
//! Callers of a class all wait equally long, so those of one class stand in the order in
//! which they came, linked through their records: the pool's own clock looks at the first of
//! each class, and nobody who waits needs a timer. Knows no fate: who is woken looks it up in
//! the ledger. Always true: whoever has a record here waits, and is woken at its end.

use std::task::Waker;
use std::time::Instant;

use slotmap::SecondaryMap;

use crate::class::ClassId;
use crate::slot::WaiterId;

struct Record {
    waker: Waker,
    class: ClassId,
    since: Instant,
    before: Option<WaiterId>,
    after: Option<WaiterId>,
}

#[derive(Clone, Copy, Default)]
struct Line {
    first: Option<WaiterId>,
    last: Option<WaiterId>,
}

/// Those who wait.
pub(super) struct Waiting {
    records: SecondaryMap<WaiterId, Record>,
    /// By class; the one who waits longest is the first.
    lines: Vec<Line>,
}

impl Waiting {
    pub(super) fn new(classes: usize) -> Self {
        Self { records: SecondaryMap::new(), lines: vec![Line::default(); classes] }
    }

    /// There are `classes` classes by now.
    pub(super) fn grow(&mut self, classes: usize) {
        self.lines.resize(classes, Line::default());
    }

    /// `id` waits from now on: `waker` is to be woken. Newcomers go to the end at once.
    pub(super) fn enter(&mut self, id: WaiterId, class: ClassId, since: Instant, waker: Waker) {
        let line = &mut self.lines[class.index()];
        let mut before = line.last;
        while let Some(older) = before
            && self.records[older].since > since
        {
            before = self.records[older].before;
        }
        let after = match before {
            Some(older) => self.records[older].after.replace(id),
            None => line.first.replace(id),
        };
        match after {
            Some(younger) => self.records[younger].before = Some(id),
            None => line.last = Some(id),
        }
        self.records.insert(id, Record { waker, class, since, before, after });
    }

    /// `id` waits no more; returns the task that waited.
    pub(super) fn leave(&mut self, id: WaiterId) -> Option<Waker> {
        let Record { waker, class, before, after, .. } = self.records.remove(id)?;
        let line = &mut self.lines[class.index()];
        match before {
            Some(older) => self.records[older].after = after,
            None => line.first = after,
        }
        match after {
            Some(younger) => self.records[younger].before = before,
            None => line.last = before,
        }
        Some(waker)
    }

    /// The task to be woken for `id` if it still waits; returns the one it replaces.
    pub(super) fn is_polled_by(&mut self, id: WaiterId, waker: &Waker) -> Option<Waker> {
        let record = self.records.get_mut(id)?;
        if record.waker.will_wake(waker) {
            return None;
        }
        Some(std::mem::replace(&mut record.waker, waker.clone()))
    }

    /// Those of `class`, with the moment at which they came, the longest waiting first.
    pub(super) fn longest(&self, class: ClassId) -> impl Iterator<Item = (WaiterId, Instant)> {
        std::iter::successors(self.lines[class.index()].first, |id| self.records[*id].after)
            .map(|id| (id, self.records[id].since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slotmap::SlotMap;

    use super::*;

    fn order(waiting: &Waiting, class: ClassId) -> Vec<WaiterId> {
        waiting.longest(class).map(|(id, _)| id).collect()
    }

    #[test]
    fn whoever_came_first_is_first_whenever_it_was_noted() {
        let (one, other) = (ClassId(0), ClassId(1));
        let start = forebay_seam::time::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut ids = SlotMap::<WaiterId, ()>::with_key();
        let mut waiting = Waiting::new(2);
        let mut enter = |class, since| {
            let id = ids.insert(());
            waiting.enter(id, class, since, Waker::noop().clone());
            id
        };
        let (second, fourth) = (enter(one, at(2)), enter(one, at(4)));
        let (third, first) = (enter(one, at(3)), enter(one, at(1)));
        let elsewhere = enter(other, at(0));
        assert_eq!(order(&waiting, one), [first, second, third, fourth]);
        assert!(waiting.leave(third).is_some());
        assert!(waiting.leave(third).is_none());
        assert!(waiting.leave(first).is_some());
        assert_eq!(order(&waiting, one), [second, fourth]);
        assert!(waiting.leave(fourth).is_some());
        assert!(waiting.leave(second).is_some());
        assert_eq!(order(&waiting, one), []);
        assert_eq!(order(&waiting, other), [elsewhere]);
    }
}
