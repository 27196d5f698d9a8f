//! What the policies of a class say to one who asks, and to one who waits: refused at once,
//! held back until something changes, or nothing.
//!
//! Always true: only what is new is refused; a request that holds a connection is held back
//! by nothing, and one that was admitted only by what it would do to others' guarantees.

use std::time::{Duration, Instant};

use crate::admission::{Fit, Need, Wait};
use crate::breaker::{Admits, Outcome, Pass, Phase};
use crate::class::ClassId;
use crate::cost::CostId;
use crate::event::Event;
use crate::freshness::Order;
use crate::mode::Mode;
use crate::nesting;
use crate::policy::{Consequence, Policy};
use crate::pool::Refusal;
use crate::queue::{Level, Rejection, Waiter};
use crate::retry::{self, Excess};
use crate::shed;
use crate::slot::{RequestId, WaiterId};

use super::line::Wanted;
use super::{Action, Actions, Ledger};

/// A continuation that waited longer than this waited long (the incident of DESIGN.md).
const LONG_WAIT: Duration = Duration::from_millis(50);
/// A retry that was refused waits at least so long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What is learnt of so many requests is believed.
pub(super) const BELIEVED: f64 = 10.0;

/// Why one who waits is passed over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Obstacle {
    Admission(Fit),
    Lending,
    Nesting,
}

impl Ledger {
    /// Who asks now for work that is expected to take so long, and is told at once that it is
    /// no use.
    pub(super) fn turn_away(
        &mut self,
        waiter: &mut Waiter,
        wanted: &Wanted<'_>,
        expected: Option<Duration>,
        now: Instant,
    ) -> Option<Rejection> {
        self.leave_idle(now);
        let refusal = self
            .is_retried_too_often(waiter, wanted, expected, now)
            .or_else(|| self.is_shed(waiter, expected, now))
            .or_else(|| self.is_broken(waiter, now));
        if let Some((why, retry_after)) = refusal {
            return Some(Rejection::Refused { why, retry_after });
        }
        // Who is held back is counted here, once; the dispatch only passes it over.
        let k = waiter.class.index();
        if self.policies[k].is_on(Policy::Lending) && self.is_too_long_to_lend(waiter) {
            self.policies[k].decide(Policy::Lending);
        }
        let is_new = waiter.level == Level::New;
        if is_new && self.policies[k].is_on(Policy::Admission) && self.fit(waiter) != Fit::Fits {
            self.policies[k].decide(Policy::Admission);
        }
        None
    }

    /// Retries stand in line as new work does, and may cost a share of first tries.
    fn is_retried_too_often(
        &mut self,
        waiter: &mut Waiter,
        wanted: &Wanted<'_>,
        expected: Option<Duration>,
        now: Instant,
    ) -> Option<(Refusal, Option<Duration>)> {
        let k = waiter.class.index();
        if !self.policies[k].is_on(Policy::Retries) {
            return None;
        }
        let who = wanted.request.zip(wanted.operation);
        match self.retries[k].verdict(who, wanted.attempt, expected, now) {
            retry::Verdict::FirstTry => None,
            retry::Verdict::Retry => {
                if waiter.level == Level::Continuation {
                    (waiter.level, waiter.age) = (Level::New, waiter.since);
                }
                None
            }
            retry::Verdict::TooMany(excess) => match self.policies[k].decide(Policy::Retries) {
                Consequence::Nothing => None,
                Consequence::Act => Some((
                    Refusal::Retries,
                    match excess {
                        Excess::Retries => Some(self.retry_after(waiter.class).max(RETRY_PAUSE)),
                        Excess::Tries => None,
                    },
                )),
            },
        }
    }

    /// New work that is expensive is shed while the class is busy.
    fn is_shed(
        &mut self,
        waiter: &Waiter,
        expected: Option<Duration>,
        now: Instant,
    ) -> Option<(Refusal, Option<Duration>)> {
        let k = waiter.class.index();
        if waiter.level != Level::New || !self.policies[k].is_on(Policy::Shedding) {
            return None;
        }
        let verdict = self.shedding[k].verdict(expected, waiter.cost, now, &mut self.dice);
        let shed::Verdict::Shed { utilisation } = verdict else { return None };
        match self.policies[k].decide(Policy::Shedding) {
            Consequence::Nothing => None,
            Consequence::Act => {
                Some((Refusal::Shed { utilisation }, Some(self.retry_after(waiter.class))))
            }
        }
    }

    /// Work of a class that keeps failing is refused, but for a trial now and then.
    fn is_broken(
        &mut self,
        waiter: &mut Waiter,
        now: Instant,
    ) -> Option<(Refusal, Option<Duration>)> {
        let k = waiter.class.index();
        if waiter.level == Level::Holder || !self.policies[k].is_on(Policy::Breaker) {
            return None;
        }
        match self.breakers[k].admits(now) {
            Admits::Yes(pass) => {
                waiter.pass = pass;
                None
            }
            Admits::No { retry_after } => match self.policies[k].decide(Policy::Breaker) {
                Consequence::Nothing => None,
                Consequence::Act => Some((Refusal::Broken, Some(retry_after))),
            },
        }
    }

    /// Work that was let in has ended.
    #[inline]
    pub(super) fn note_end(&mut self, class: ClassId, pass: Pass, outcome: Outcome, now: Instant) {
        if !self.policies[class.index()].is_on(Policy::Breaker) {
            return;
        }
        let breaker = &mut self.breakers[class.index()];
        if outcome == Outcome::Good && breaker.ended_well(now) {
            return;
        }
        let before = breaker.phase();
        breaker.ended(pass, outcome, now, &mut self.dice);
        match (before, breaker.phase()) {
            (Phase::Closed | Phase::HalfOpen, Phase::Open) if outcome == Outcome::Failed => {
                self.tell(Event::BreakerOpened { class: self.class_name(class) });
            }
            (Phase::Open | Phase::HalfOpen, Phase::Closed) => {
                self.tell(Event::BreakerClosed { class: self.class_name(class) });
            }
            _ => {}
        }
    }

    /// A try of a request's operation failed, so that the next one is a retry.
    pub(super) fn note_failure(
        &mut self,
        class: ClassId,
        request: Option<RequestId>,
        cost: CostId,
        now: Instant,
    ) {
        if !self.policies[class.index()].is_on(Policy::Retries) {
            return;
        }
        let request = request.and_then(|id| self.requests.known.get(id)).map(|known| &known.name);
        if let Some((request, operation)) = request.zip(self.costs.operation(cost)) {
            self.retries[class.index()].failed(request, operation, now);
        }
    }

    /// A try did not fail: the next one is something new.
    #[inline]
    pub(super) fn note_success(
        &mut self,
        class: ClassId,
        request: Option<RequestId>,
        cost: CostId,
        now: Instant,
    ) {
        let k = class.index();
        if self.retries[k].is_untroubled() || !self.policies[k].is_on(Policy::Retries) {
            return;
        }
        let request = request.and_then(|id| self.requests.known.get(id)).map(|known| &known.name);
        if let Some((request, operation)) = request.zip(self.costs.operation(cost)) {
            self.retries[k].succeeded(request, operation, now);
        }
    }

    /// Somebody who asked was told at once.
    pub(super) fn note_rejection(&mut self, waiter: &Waiter, wanted: &Wanted<'_>, now: Instant) {
        self.note_end(waiter.class, waiter.pass, Outcome::Unknown, now);
        if self.policies[waiter.class.index()].is_on(Policy::Retries)
            && let Some((request, operation)) = wanted.request.zip(wanted.operation)
        {
            self.retries[waiter.class.index()].failed(request, operation, now);
        }
    }

    /// A class uses one more connection, or one less.
    #[inline]
    pub(super) fn note_use(&mut self, class: ClassId, now: Instant) {
        let (taken, reach) = (self.seats.classes[class.index()].taken, self.seats.reach(class));
        self.shedding[class.index()].observe(taken, reach, now);
    }

    /// Who would wait beyond its deadline is told so.
    pub(super) fn too_late(
        &mut self,
        waiter: &Waiter,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Option<Rejection> {
        let class = waiter.class;
        if !self.policies[class.index()].is_on(Policy::Deadline) {
            return None;
        }
        if wanted.deadline.is_none() && self.is_early(class) {
            return None;
        }
        let wait = self.expected_wait(class)?;
        let latest = self.seats.deadline(class, waiter.since);
        let latest = wanted.deadline.map_or(latest, |own| own.min(latest));
        if now + wait <= latest {
            return None;
        }
        match self.policies[class.index()].decide(Policy::Deadline) {
            Consequence::Nothing => None,
            Consequence::Act => Some(Rejection::Refused {
                why: Refusal::Late { wait },
                retry_after: Some(self.retry_after(class)),
            }),
        }
    }

    /// Would a newcomer of `class` certainly wait for less than it may? Nearly all do, and it
    /// is said by two multiplications.
    fn is_early(&self, class: ClassId) -> bool {
        let Some(hold) = self.mean_hold(class) else { return true };
        let ahead = f64::from(self.crowd.of(class) + 1);
        hold * ahead <= 0.9 * self.seats.patience(class) * f64::from(self.seats.reach(class))
    }

    /// How long a newcomer of `class` would wait: the work ahead of it, by the connections
    /// that the class can get. `None` before anything is known.
    pub(crate) fn expected_wait(&self, class: ClassId) -> Option<Duration> {
        let hold = self.costs.mean(CostId::unnamed(class), None)?;
        let ahead = self.crowd.of(class);
        let reach = self.seats.reach(class);
        // Until all those seats are taken nobody waits for work ahead.
        if ahead == 0 && self.seats.may_take(class) {
            return Some(Duration::ZERO);
        }
        Some(hold * (ahead + 1) / reach)
    }

    /// Does nothing hold back work of `class`, whatever it is?
    pub(super) fn is_open(&self, class: ClassId) -> bool {
        !self.gated[class.index()] && self.requests.nesting.is_empty()
    }

    /// May one who asks now have a connection at once, if there is one?
    pub(super) fn may_take_now(&self, waiter: &Waiter) -> bool {
        if !self.may_take(waiter.identity, waiter.class) {
            return false;
        }
        if self.is_open(waiter.class) {
            return true;
        }
        let is_first = waiter.level != Level::New || self.new_waiting[waiter.class.index()] == 0;
        is_first && self.may_go(waiter)
    }

    /// Does nothing hold back this one?
    pub(super) fn may_go(&self, waiter: &Waiter) -> bool {
        self.obstacle(waiter).is_none()
    }

    /// What holds back `waiter`, of what is enforced.
    fn obstacle(&self, waiter: &Waiter) -> Option<Obstacle> {
        if waiter.level == Level::Holder {
            return None;
        }
        let policies = &self.policies[waiter.class.index()];
        if waiter.level == Level::New && policies.acts(Policy::Admission) {
            let fit = self.fit(waiter);
            if fit != Fit::Fits {
                return Some(Obstacle::Admission(fit));
            }
        }
        if policies.acts(Policy::Lending) && self.is_too_long_to_lend(waiter) {
            return Some(Obstacle::Lending);
        }
        if !self.leaves_enough(waiter) {
            return Some(Obstacle::Nesting);
        }
        None
    }

    /// Work that is known to hold long does not borrow: what it borrows could not be had
    /// back soon. One connection it may always have.
    fn is_too_long_to_lend(&self, waiter: &Waiter) -> bool {
        let class = self.seats.classes[waiter.class.index()];
        if waiter.level == Level::Holder || class.taken < class.limits.guarantee.max(1) {
            return false;
        }
        let known = self.costs.p95(waiter.cost, waiter.declared);
        known.is_some_and(|p95| p95 > self.settings.lend_max_hold)
    }

    /// Does the request of `waiter` fit in beside those under way?
    fn fit(&self, waiter: &Waiter) -> Fit {
        if waiter.request.is_some_and(|id| self.requests.known[id].counted.is_some()) {
            return Fit::Fits;
        }
        let class = waiter.class;
        let most = self.settings.classes[class.index()].1.max_requests;
        let need = match waiter.request {
            Some(_) => self.need(waiter.cost),
            None => Need::ONE,
        };
        self.admission.fit(class, need, self.seats.reach(class), most)
    }

    /// What a request needs that begins with such work.
    pub(super) fn need(&self, cost: CostId) -> Need {
        let learnt = self.features.expected(cost.feature()).filter(|e| e.worth >= BELIEVED);
        let Some(expected) = learnt else { return Need::ONE };
        // It is counted until it was idle for its patience, so over that time its connection
        // time is spread: the demands of all then sum to what they keep busy (Little's law).
        let counted = expected.residence + self.patience_of(cost.feature());
        let (used, stays) = (expected.used.as_secs_f64(), counted.as_secs_f64());
        let peak = expected.peak.max(1.0);
        let mean = if stays > 0.0 { (used / stays).min(peak) } else { peak };
        Need { mean, peak }
    }

    /// Connections that the request of `waiter` needs at the same time, declared or learnt.
    pub(super) fn needs(&self, declared: u32, cost: CostId) -> u32 {
        let learnt = self.features.expected(cost.feature()).filter(|e| e.worth >= BELIEVED);
        declared.max(learnt.map_or(1, |expected| expected.nested))
    }

    /// Can those who hold some and need more still finish, once `waiter` has one?
    fn leaves_enough(&self, waiter: &Waiter) -> bool {
        if self.requests.nesting.is_empty() {
            return true;
        }
        let needs = self.needs(waiter.needs, waiter.cost);
        if needs < 2 {
            return true;
        }
        let class = &self.seats.classes[waiter.class.index()];
        let all = (class.taken + self.seats.headroom(waiter.class)).min(class.limits.ceiling);
        let others = self.requests.nesting.iter().map(|id| self.requests.known[*id].needs);
        nesting::is_safe(all, others.chain([needs]))
    }

    /// Ends every event that may have closed a circle, or opened the gate for somebody.
    #[inline]
    pub(super) fn conclude(&mut self, now: Instant, actions: &mut Actions) {
        if self.requests.suspects > 0 {
            self.untangle(now, actions);
        }
        if self.idle > 0 && !self.queued.is_empty() {
            self.dispatch(now, actions);
        }
        self.recall_offered(actions);
    }

    /// In which order new requests of `class` are served.
    pub(super) fn order(&self, class: ClassId, now: Instant) -> Order {
        if self.policies[class.index()].acts(Policy::Freshness) {
            self.freshness[class.index()].order(now)
        } else {
            Order::OldestFirst
        }
    }

    /// Refuses the oldest of the classes whose queue has not emptied for long.
    pub(super) fn freshen(&mut self, now: Instant, actions: &mut Actions) {
        for class in self.class_ids() {
            // Who waits for a connection to be opened, with seats left, is behind nobody.
            if !self.policies[class.index()].is_on(Policy::Freshness) || self.seats.may_take(class)
            {
                continue;
            }
            while let Some((since, oldest)) = self.oldest_new(class) {
                let fresh = &mut self.freshness[class.index()];
                if !fresh.is_due(since, now) {
                    actions.ring(fresh.look_at(since).max(now + MOMENT));
                    break;
                }
                if self.policies[class.index()].decide(Policy::Freshness) == Consequence::Act {
                    self.refuse_waiter(oldest, Refusal::Stale, now, actions);
                }
            }
        }
    }

    /// A queue that has just begun is looked at again when its first may be too old.
    pub(super) fn watch_queue(&self, id: WaiterId, now: Instant, actions: &mut Actions) {
        let Waiter { class, level, .. } = self.waiters[id];
        let begins = level == Level::New && self.new_waiting[class.index()] == 1;
        if begins && self.policies[class.index()].is_on(Policy::Freshness) {
            actions.ring(self.freshness[class.index()].look_at(now));
        }
        if self.policies[class.index()].acts(Policy::Admission)
            && let Some(at) = self.next_leave()
        {
            actions.ring(at.max(now + MOMENT));
        }
    }

    fn oldest_new(&self, class: ClassId) -> Option<(Instant, WaiterId)> {
        let lanes = self.queued.iter().map(|identity| &self.identities[*identity].lanes);
        lanes
            .filter_map(|lanes| lanes.oldest(class, Level::New))
            .map(|id| (self.waiters[id].since, id))
            .min()
    }

    /// Whoever waits is told by a policy that it will not be served.
    fn refuse_waiter(&mut self, id: WaiterId, why: Refusal, now: Instant, actions: &mut Actions) {
        let Waiter { class, since, .. } = self.waiters[id];
        self.leave_line(id, now);
        let retry_after = Some(self.retry_after(class));
        let stats = &mut self.counters.classes[class.index()];
        stats.wait.record(now.saturating_duration_since(since));
        self.reject(id, Rejection::Refused { why, retry_after }, now);
        actions.push(Action::Wake(id));
    }

    /// What `waiter` is told whose deadline passed while a policy held it back.
    pub(super) fn held_back(&mut self, id: WaiterId) -> Option<Rejection> {
        let waiter = &self.waiters[id];
        let class = waiter.class;
        let Some(Obstacle::Admission(fit)) = self.obstacle(waiter) else { return None };
        let why = match fit {
            Fit::Fits => return None,
            Fit::Demand { demand } => Refusal::Demand { demand, reach: self.seats.reach(class) },
            Fit::Requests { limit } => Refusal::Requests { limit },
        };
        Some(Rejection::Refused { why, retry_after: Some(self.retry_after(class)) })
    }

    pub(super) fn note_continuation(
        &mut self,
        class: ClassId,
        level: Level,
        since: Instant,
        now: Instant,
    ) {
        if level == Level::Continuation {
            let long = since + LONG_WAIT < now;
            self.admission.continued(class, if long { Wait::Long } else { Wait::Short });
        }
    }

    /// Whether requests of `class` are counted while they are under way.
    pub(super) fn counts_requests(&self, class: ClassId) -> bool {
        self.policies[class.index()].mode(Policy::Admission) > Mode::Off
    }
}

/// A timer that rings at once would ring for ever.
pub(super) const MOMENT: Duration = Duration::from_millis(1);
