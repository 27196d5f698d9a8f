//! The order of new requests under overload: newest first, and the oldest refused in time.
//!
//! While the queue of a class has not been empty for [`STANDING`], whoever waits longest has
//! most likely given up already: serving the newest keeps the waits of those served short
//! ("adaptive LIFO", Maurer, "Fail at Scale", ACM Queue 2015). The oldest is refused when all
//! who were served in the last [`INTERVAL`] had waited for more than the target, then again
//! after `INTERVAL / √n` (CoDel, RFC 8289). Requests under way are never part of this.

use std::time::{Duration, Instant};

/// A queue that has not been empty for so long is overloaded.
const STANDING: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_millis(100);

/// In which order new requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// The queue of new requests of one class.
#[derive(Debug, Clone)]
pub(crate) struct Freshness {
    /// What a new request may wait without harm.
    target: Duration,
    busy_since: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Waits are below the target.
    Below,
    /// They are above it, since before `until - INTERVAL`.
    Above { until: Instant },
    /// The oldest is refused at `next`; `count` were.
    Dropping { next: Instant, count: u32 },
}

impl Freshness {
    pub(crate) fn new(target: Duration) -> Self {
        Self { target, busy_since: None, state: State::Below }
    }

    /// A new request may wait so long without harm from now on.
    pub(crate) fn aim_at(&mut self, target: Duration) {
        self.target = target;
    }

    /// Somebody waits now, or nobody does.
    pub(crate) fn queue(&mut self, waiting: u32, now: Instant) {
        if waiting == 0 {
            self.busy_since = None;
            self.state = State::Below;
        } else {
            self.busy_since.get_or_insert(now);
        }
    }

    /// Who is next.
    pub(crate) fn order(&self, now: Instant) -> Order {
        match self.busy_since {
            Some(since) if since + STANDING <= now => Order::NewestFirst,
            Some(_) | None => Order::OldestFirst,
        }
    }

    /// Is the oldest, which came at `since`, to be refused now?
    pub(crate) fn is_due(&mut self, since: Instant, now: Instant) -> bool {
        if since + self.target > now {
            self.state = State::Below;
            return false;
        }
        match self.state {
            State::Below => {
                self.state = State::Above { until: now + INTERVAL };
                false
            }
            State::Above { until } if until > now => false,
            State::Above { .. } => {
                self.state = State::Dropping { next: now + INTERVAL, count: 1 };
                true
            }
            State::Dropping { next, .. } if next > now => false,
            State::Dropping { count, .. } => {
                let count = count.saturating_add(1);
                let pause = INTERVAL.div_f64(f64::from(count).sqrt());
                self.state = State::Dropping { next: now + pause, count };
                true
            }
        }
    }

    /// When to look again, where the oldest came at `since`.
    pub(crate) fn look_at(&self, since: Instant) -> Instant {
        match self.state {
            State::Below => since + self.target,
            State::Above { until } => until,
            State::Dropping { next, .. } => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_seam::time;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_newest_goes_first_once_the_queue_has_not_been_empty_for_a_while() {
        let start = time::now();
        let mut fresh = Freshness::new(50 * MS);
        fresh.queue(1, start);
        assert_eq!(fresh.order(start + 99 * MS), Order::OldestFirst);
        assert_eq!(fresh.order(start + 100 * MS), Order::NewestFirst);
        fresh.queue(0, start + 150 * MS);
        fresh.queue(1, start + 150 * MS);
        assert_eq!(fresh.order(start + 200 * MS), Order::OldestFirst);
    }

    #[test]
    fn a_burst_that_is_over_in_time_refuses_nobody() {
        let start = time::now();
        let mut fresh = Freshness::new(50 * MS);
        for ms in 0..140 {
            let oldest = start + MS * ms.min(130) / 10;
            assert!(!fresh.is_due(oldest, start + MS * ms), "{ms}");
        }
        assert!(!fresh.is_due(start + 139 * MS, start + 140 * MS));
    }

    #[test]
    fn a_standing_queue_loses_its_oldest_faster_and_faster() {
        let start = time::now();
        let mut fresh = Freshness::new(50 * MS);
        let dropped: Vec<u32> =
            (0..2_000).filter(|ms| fresh.is_due(start, start + MS * *ms)).collect();
        assert_eq!(dropped.first(), Some(&150), "target and interval");
        let gaps: Vec<_> = dropped.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0]), "{gaps:?}");
        assert!(gaps[0] == 100 && gaps[10] < 40, "{gaps:?}");
    }
}
