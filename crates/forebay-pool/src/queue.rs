//! Callers waiting for a connection: holders first, then admitted requests, then new ones.
//!
//! Each identity has a lane for each class and level; within a lane the oldest is first.
//! Lanes are linked through the waiters themselves, so waiting allocates nothing once the
//! slots exist. Knows no clock and no capacity. Always true: a waiter is in exactly the lane
//! that it says, or in none when it was granted or rejected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::breaker::Pass;
use crate::class::ClassId;
use crate::connect::ConnectFailure;
use crate::cost::CostId;
use crate::crowd::Crowd;
use crate::pool::Refusal;
use crate::slot::{ConnId, IdentityId, RequestId, WaiterId};

/// Whose turn comes first. A request that already holds a connection can free it only by
/// going on; one that was admitted must not be starved by newcomers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Holder,
    Continuation,
    New,
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Holder, Self::Continuation, Self::New];

    fn index(self) -> usize {
        match self {
            Self::Holder => 0,
            Self::Continuation => 1,
            Self::New => 2,
        }
    }
}

/// Why a waiter gets nothing.
#[derive(Debug, Clone)]
pub(crate) enum Rejection {
    QueueFull { limit: u32 },
    TimedOut,
    Refused { why: Refusal, retry_after: Option<Duration> },
    Deadlock { feature: Option<Arc<str>>, held: u32 },
    Unreachable(ConnectFailure),
    Denied(ConnectFailure),
    Closed,
}

/// What became of a waiter.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    Waiting {
        prev: Option<WaiterId>,
        next: Option<WaiterId>,
    },
    /// Its connection is set aside for it until it is polled or dropped.
    Granted {
        conn: ConnId,
    },
    Rejected(Rejection),
}

/// A caller.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    pub(crate) identity: IdentityId,
    pub(crate) class: ClassId,
    pub(crate) request: Option<RequestId>,
    pub(crate) cost: CostId,
    /// The connection time that its caller declared.
    pub(crate) declared: Option<Duration>,
    /// Connections that its request needs at the same time, as far as declared.
    pub(crate) needs: u32,
    pub(crate) pass: Pass,
    pub(crate) level: Level,
    /// Its rank within its lane: when it came, or when its request was admitted.
    pub(crate) age: Instant,
    pub(crate) since: Instant,
    /// Its own deadline, where it counts in place of its class's.
    pub(crate) until: Option<Instant>,
    pub(crate) fate: Fate,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) class: ClassId,
    pub(crate) request: Option<RequestId>,
    pub(crate) cost: CostId,
    pub(crate) needs: u32,
    pub(crate) pass: Pass,
}

impl Waiter {
    /// What it waits for.
    pub(crate) fn work(&self) -> Work {
        let Self { class, request, cost, needs, pass, .. } = *self;
        Work { class, request, cost, needs, pass }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    head: Option<WaiterId>,
    tail: Option<WaiterId>,
}

/// The lanes of one identity.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    lanes: Vec<[Lane; 3]>,
    crowd: Crowd,
}

impl Lanes {
    pub(crate) fn new(classes: usize) -> Self {
        Self { lanes: vec![[Lane::default(); 3]; classes], crowd: Crowd::default() }
    }

    /// There are `classes` classes by now.
    pub(crate) fn grow(&mut self, classes: usize) {
        self.lanes.resize(classes, [Lane::default(); 3]);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.crowd.is_empty()
    }

    /// How many are in them, by class.
    pub(crate) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// The first of `class`: the oldest of the best level.
    pub(crate) fn first(&self, class: ClassId) -> Option<(Level, WaiterId)> {
        let lanes = &self.lanes[class.index()];
        Level::ALL.into_iter().find_map(|level| Some((level, lanes[level.index()].head?)))
    }

    /// Those of `class` at `level`, the oldest first.
    pub(crate) fn lane<'a>(
        &self,
        waiters: &'a SlotMap<WaiterId, Waiter>,
        class: ClassId,
        level: Level,
    ) -> impl Iterator<Item = WaiterId> + use<'a> {
        let head = self.lanes[class.index()][level.index()].head;
        std::iter::successors(head, |id| links(waiters, *id).1)
    }

    /// Those of `class` at `level`, the newest first.
    pub(crate) fn newest_first<'a>(
        &self,
        waiters: &'a SlotMap<WaiterId, Waiter>,
        class: ClassId,
        level: Level,
    ) -> impl Iterator<Item = WaiterId> + use<'a> {
        let tail = self.lanes[class.index()][level.index()].tail;
        std::iter::successors(tail, |id| links(waiters, *id).0)
    }

    /// The oldest of `class` at `level`.
    pub(crate) fn oldest(&self, class: ClassId, level: Level) -> Option<WaiterId> {
        self.lanes[class.index()][level.index()].head
    }

    /// Everybody, lane by lane.
    pub(crate) fn all(&self, waiters: &SlotMap<WaiterId, Waiter>) -> Vec<WaiterId> {
        let heads = self.lanes.iter().flatten().filter_map(|lane| lane.head);
        heads
            .flat_map(|head| std::iter::successors(Some(head), |id| links(waiters, *id).1))
            .collect()
    }

    /// Puts `id` into its lane, behind all that are older. Newcomers go to the end at once.
    pub(crate) fn insert(&mut self, waiters: &mut SlotMap<WaiterId, Waiter>, id: WaiterId) {
        let Waiter { class, level, age, .. } = waiters[id];
        let lane = &mut self.lanes[class.index()][level.index()];
        let mut prev = lane.tail;
        while let Some(before) = prev
            && waiters[before].age > age
        {
            prev = links(waiters, before).0;
        }
        let next = match prev {
            Some(before) => links(waiters, before).1,
            None => lane.head,
        };
        waiters[id].fate = Fate::Waiting { prev, next };
        match prev {
            Some(before) => set_next(waiters, before, Some(id)),
            None => lane.head = Some(id),
        }
        match next {
            Some(after) => set_prev(waiters, after, Some(id)),
            None => lane.tail = Some(id),
        }
        self.crowd.enters(class);
    }

    /// Takes `id` out of its lane; its fate is the caller's to write.
    pub(crate) fn remove(&mut self, waiters: &mut SlotMap<WaiterId, Waiter>, id: WaiterId) {
        let Waiter { class, level, .. } = waiters[id];
        let (prev, next) = links(waiters, id);
        let lane = &mut self.lanes[class.index()][level.index()];
        match prev {
            Some(before) => set_next(waiters, before, next),
            None => lane.head = next,
        }
        match next {
            Some(after) => set_prev(waiters, after, prev),
            None => lane.tail = prev,
        }
        self.crowd.leaves(class);
    }
}

fn links(
    waiters: &SlotMap<WaiterId, Waiter>,
    id: WaiterId,
) -> (Option<WaiterId>, Option<WaiterId>) {
    match waiters[id].fate {
        Fate::Waiting { prev, next } => (prev, next),
        Fate::Granted { .. } | Fate::Rejected(_) => {
            unreachable!("only waiting callers are linked")
        }
    }
}

fn set_next(waiters: &mut SlotMap<WaiterId, Waiter>, id: WaiterId, to: Option<WaiterId>) {
    if let Fate::Waiting { next, .. } = &mut waiters[id].fate {
        *next = to;
    }
}

fn set_prev(waiters: &mut SlotMap<WaiterId, Waiter>, id: WaiterId, to: Option<WaiterId>) {
    if let Fate::Waiting { prev, .. } = &mut waiters[id].fate {
        *prev = to;
    }
}
