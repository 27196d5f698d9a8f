//! What becomes of a connection that comes home: it was opened, given back, reset or probed,
//! or it never came. Each way ends in the same three steps: rest or close it, give what is
//! free to those who wait, open what is still missing.

use std::time::{Duration, Instant};

use crate::breaker::Outcome;
use crate::class::ClassId;
use crate::connect::{ConnectFailure, FailureKind};
use crate::lease::Condition;
use crate::operation::Operation;
use crate::queue::Rejection;
use crate::settings::Parting;
use crate::slot::{Conn, ConnId, IdentityId, Lent, Slot, Told};

use super::opening::SPARE_PAUSE;
use super::{Action, Actions, Ledger};

/// How long a server's refusal of an identity is believed.
const DENIAL: Duration = Duration::from_secs(1);

/// What came out of looking after a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// As good as fresh.
    Fit,
    /// It did not answer and was closed.
    Dead,
    /// It could not be brought to a known state and was closed.
    Unclean,
}

/// How long a lease was, beside what those of its class take on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// No longer than that.
    Usual,
    /// Longer, or nobody knows.
    Unusual,
}

/// Those who wait, all of one identity and class: how many, and since when the first.
struct Line {
    identity: IdentityId,
    class: ClassId,
    since: Instant,
    waiting: u32,
}

impl Ledger {
    /// A connection is given back by its owner.
    pub(crate) fn give_back(
        &mut self,
        id: ConnId,
        condition: Condition,
        now: Instant,
        actions: &mut Actions,
    ) {
        let (lent, held) = self.end_lease(id, now);
        let length = self.length(lent.class, held);
        self.fair.settle(lent.class, lent.charge, held);
        self.counters.classes[lent.class.index()].hold.record(held);
        self.costs.learn(lent.cost, held, now);
        if let (Some(watch), Some(number)) = (&mut self.watch, lent.cost.number()) {
            watch.returned(number, held);
        }
        self.features.returned(lent.cost.feature(), held);
        self.watch_return(&lent, held);
        self.note_outcome(&lent, condition, now);
        self.come_home(id, lent.class, (condition, length), now, actions);
        self.conclude(now, actions);
    }

    /// How it went, as far as anybody knows: an owner that dropped its lease said nothing.
    fn note_outcome(&mut self, lent: &Lent, condition: Condition, now: Instant) {
        let outcome = match (lent.outcome, condition) {
            (Told::Failed, _) | (Told::Nothing, Condition::Broken) => Outcome::Failed,
            (Told::Good, _) | (Told::Nothing, Condition::Clean) => Outcome::Good,
            (Told::Nothing, Condition::Unknown) => Outcome::Unknown,
        };
        self.note_end(lent.class, lent.pass, outcome, now);
        match outcome {
            Outcome::Failed => self.note_failure(lent.class, lent.request, lent.cost, now),
            Outcome::Good => self.note_success(lent.class, lent.request, lent.cost, now),
            Outcome::Unknown => {}
        }
    }

    /// The owner of a lease says that what it does with it failed: a timeout, an error of the
    /// server's.
    pub(crate) fn went_wrong(&mut self, id: ConnId) {
        if let Slot::Leased(ref mut lent) = self.conns[id].slot {
            lent.outcome = Told::Failed;
        }
    }

    /// The owner of a lease says that what it did with it is done, whatever the connection is
    /// like by now. What failed before has failed.
    pub(crate) fn went_well(&mut self, id: ConnId) {
        if let Slot::Leased(ref mut lent) = self.conns[id].slot
            && lent.outcome == Told::Nothing
        {
            lent.outcome = Told::Good;
        }
    }

    /// The owner of a lease says what it does with it now.
    pub(crate) fn does(&mut self, id: ConnId, operation: &Operation, now: Instant) {
        let Slot::Leased(lent) = self.conns[id].slot else { return };
        let does = self.costs.find(lent.class, operation, &mut self.features, now);
        if let Slot::Leased(ref mut lent) = self.conns[id].slot {
            lent.does = Some(does);
        }
    }

    /// The request that a lease belonged to holds one less. The seat is still taken. Says for
    /// how long it was lent.
    fn end_lease(&mut self, id: ConnId, now: Instant) -> (Lent, Duration) {
        let Slot::Leased(lent) = self.conns[id].slot else {
            unreachable!("only what was lent is given back");
        };
        let held = now.saturating_duration_since(lent.since);
        self.forget_offer(id);
        self.let_go(&lent, held, now);
        (lent, held)
    }

    /// A lease ended before its owner had it: it never was.
    pub(super) fn undo_lease(&mut self, id: ConnId, now: Instant) -> ClassId {
        let (lent, _) = self.end_lease(id, now);
        self.note_end(lent.class, lent.pass, Outcome::Unknown, now);
        self.fair.settle(lent.class, lent.charge, Duration::ZERO);
        self.counters.classes[lent.class.index()].checkouts -= 1;
        lent.class
    }

    #[inline]
    pub(super) fn come_home(
        &mut self,
        id: ConnId,
        class: ClassId,
        (condition, length): (Condition, Length),
        now: Instant,
        actions: &mut Actions,
    ) {
        match condition {
            Condition::Clean => {
                self.free_seat(self.conns[id].identity, class, now);
                self.rest(id, now, now, actions);
            }
            // The seat stays taken, so a storm of cancellations cannot exceed a ceiling.
            Condition::Unknown => {
                self.conns[id].slot = Slot::Cleaning { class };
                self.cleaning += 1;
                actions.push(Action::Reset(id));
            }
            Condition::Broken => {
                self.free_seat(self.conns[id].identity, class, now);
                self.counters.closed.broken += 1;
                let generation = self.conns[id].generation;
                self.drop_dead(id, actions);
                self.found_dead(generation, now, actions);
            }
        }
        if self.queued.is_empty() {
            return;
        }
        let line = match (condition, length) {
            (Condition::Clean, Length::Usual) => self.plain_line(class),
            (Condition::Clean, Length::Unusual) => None,
            (Condition::Unknown | Condition::Broken, _) => None,
        };
        self.dispatch(now, actions);
        if line.is_none_or(|before| !self.has_moved_up(&before)) {
            self.open_more(now, actions);
        }
    }

    /// To be asked before anything is learnt of it. Nobody wants to know where nobody waits.
    #[inline]
    fn length(&self, class: ClassId, held: Duration) -> Length {
        if self.queued.is_empty() {
            return Length::Unusual;
        }
        match self.mean_hold(class) {
            Some(usual) if held.as_secs_f64() <= usual => Length::Usual,
            Some(_) | None => Length::Unusual,
        }
    }

    /// The line as it is, where all who wait are of one identity and of `class`, and nothing
    /// holds them back.
    fn plain_line(&self, class: ClassId) -> Option<Line> {
        let [identity] = self.queued[..] else { return None };
        if !self.seats.are_left_beside(1) {
            return None;
        }
        let lanes = &self.identities[identity].lanes;
        let is_plain = lanes.crowd().only() == Some(class) && self.is_open(class);
        let (_, first) = lanes.first(class).filter(|_| is_plain)?;
        let since = self.waiters[first].since;
        Some(Line { identity, class, since, waiting: lanes.crowd().of(class) })
    }

    /// Was the first of the line served with what came home, and nothing else changed? Then
    /// there is no more reason to open one more connection than before: as many are lent,
    /// fewer wait, and the alarm is set for the one who waited longest.
    fn has_moved_up(&self, before: &Line) -> bool {
        let lanes = &self.identities[before.identity].lanes;
        let Some((_, first)) = lanes.first(before.class) else { return true };
        lanes.crowd().of(before.class) + 1 == before.waiting
            && self.waiters[first].since >= before.since
    }

    /// A connection that was just lent turned out to be dead before its owner used it.
    pub(crate) fn was_dead(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        let class = self.undo_lease(id, now);
        self.free_seat(self.conns[id].identity, class, now);
        let generation = self.conns[id].generation;
        if self.generations.is_current(generation) {
            self.counters.closed.broken += 1;
            self.drop_dead(id, actions);
        } else {
            self.counters.closed.renewed += 1;
            self.discard(id, actions);
        }
        self.found_dead(generation, now, actions);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.conclude(now, actions);
    }

    /// A connect succeeded.
    pub(crate) fn opened(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        let Slot::Opening { since } = self.conns[id].slot else {
            unreachable!("only what is opening can be opened");
        };
        let took = now.saturating_duration_since(since);
        self.opener.succeeded(took, now);
        self.counters.opened += 1;
        self.counters.connect.record(took);
        self.opening -= 1;
        let identity = &mut self.identities[self.conns[id].identity];
        identity.opening -= 1;
        identity.live += 1;
        identity.denied = None;
        self.recover(now, actions);
        self.rest(id, now, now, actions);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.keep_some(now, actions);
        self.recall_offered(actions);
    }

    /// A connect failed.
    pub(crate) fn open_failed(
        &mut self,
        id: ConnId,
        failure: ConnectFailure,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Some(conn) = self.conns.remove(id) else { return };
        self.opener.failed(&failure, now, &mut self.dice);
        self.counters.open_failures += 1;
        self.opening -= 1;
        let identity = &mut self.identities[conn.identity];
        identity.opening -= 1;
        let is_paused = identity.is_paused();
        match failure.kind {
            FailureKind::Denied => {
                identity.denied = Some((failure.clone(), now + DENIAL));
                if identity.live == 0 && identity.opening == 0 && !is_paused {
                    self.reject_all(conn.identity, &Rejection::Denied(failure), now, actions);
                }
            }
            FailureKind::Unreachable if self.opener.gave_up() => {
                let lost: Vec<_> = self
                    .queued
                    .iter()
                    .copied()
                    .filter(|identity| {
                        let identity = &self.identities[*identity];
                        identity.live == 0 && !identity.is_paused()
                    })
                    .collect();
                let rejection = Rejection::Unreachable(failure);
                for identity in lost {
                    self.reject_all(identity, &rejection, now, actions);
                }
            }
            FailureKind::Unreachable | FailureKind::Moving | FailureKind::Busy => {}
        }
        if let Some(at) = self.opener.not_before() {
            actions.ring(at);
        }
        self.open_more(now, actions);
        self.conclude(now, actions);
    }

    /// A reset has ended: well, or with the connection closed.
    pub(crate) fn cleaned(
        &mut self,
        id: ConnId,
        fit: Fitness,
        now: Instant,
        actions: &mut Actions,
    ) {
        let Slot::Cleaning { class } = self.conns[id].slot else {
            unreachable!("only what is being cleaned can be clean");
        };
        self.cleaning -= 1;
        self.free_seat(self.conns[id].identity, class, now);
        self.back_from_upkeep(id, fit, now, now, actions);
    }

    /// A probe has ended: well, or with the connection closed.
    pub(crate) fn probed(&mut self, id: ConnId, fit: Fitness, now: Instant, actions: &mut Actions) {
        let Slot::Probing { idle_since } = self.conns[id].slot else {
            unreachable!("only what is being probed can be probed");
        };
        self.probing -= 1;
        if fit == Fitness::Fit {
            self.generations.answered(self.conns[id].generation, now);
        }
        self.back_from_upkeep(id, fit, idle_since, now, actions);
    }

    fn back_from_upkeep(
        &mut self,
        id: ConnId,
        fit: Fitness,
        idle_since: Instant,
        now: Instant,
        actions: &mut Actions,
    ) {
        match fit {
            Fitness::Fit => self.rest(id, idle_since, now, actions),
            Fitness::Dead => {
                self.counters.closed.broken += 1;
                let generation = self.conns[id].generation;
                self.forget(id);
                self.found_dead(generation, now, actions);
            }
            Fitness::Unclean => {
                self.counters.closed.unclean += 1;
                self.forget(id);
            }
        }
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.recall_offered(actions);
    }

    /// A connection that is fit rests, unless there is a reason to part with it. One that
    /// was only probed keeps its place among the idle ones, so that probes do not keep alive
    /// what nobody uses.
    #[inline]
    fn rest(&mut self, id: ConnId, since: Instant, now: Instant, actions: &mut Actions) {
        if self.closing || self.total() > self.seats.budget {
            self.counters.closed.surplus += 1;
            return self.discard(id, actions);
        }
        let Conn { expires, generation, .. } = self.conns[id];
        if expires <= now {
            self.counters.closed.lifetime += 1;
            return self.discard(id, actions);
        }
        if !self.generations.is_current(generation) {
            self.counters.closed.renewed += 1;
            return self.discard(id, actions);
        }
        if !self.may_rest(self.conns[id].identity) {
            self.counters.closed.surplus += 1;
            return self.discard(id, actions);
        }
        if self.gives_up(id) {
            self.counters.closed.evicted += 1;
            return self.discard(id, actions);
        }
        if self.capped > 0 && !self.has_places(self.conns[id].identity) {
            // Another pool may come to lack what rests here.
            actions.ring(now + SPARE_PAUSE);
        }
        let conn = &mut self.conns[id];
        conn.slot = Slot::Idle { since, checked: now };
        let idle = &mut self.identities[conn.identity].idle;
        if since == now {
            idle.push(id);
        } else {
            let older = |other: &ConnId| self.conns[*other].idle_since() <= Some(since);
            idle.insert(idle.partition_point(older), id);
        }
        self.idle += 1;
    }

    /// The connection is closed, and counts no more when that is done.
    pub(super) fn discard(&mut self, id: ConnId, actions: &mut Actions) {
        self.make_room(id, None, actions);
    }

    /// As [`Ledger::discard`]; it makes room for `heir`.
    pub(super) fn make_room(
        &mut self,
        id: ConnId,
        heir: Option<IdentityId>,
        actions: &mut Actions,
    ) {
        if self.settings.parting == Parting::AtOnce {
            return self.drop_dead(id, actions);
        }
        self.conns[id].slot = Slot::Parting { heir };
        let identity = &mut self.identities[self.conns[id].identity];
        identity.live -= 1;
        identity.parting += 1;
        self.parting += 1;
        if let Some(heir) = heir {
            self.identities[heir].coming += 1;
        }
        actions.push(Action::Part(id));
    }

    /// A connection that was on its way out is closed.
    pub(crate) fn parted(&mut self, id: ConnId, now: Instant, actions: &mut Actions) {
        let Some(conn) = self.conns.remove(id) else { return };
        let Slot::Parting { heir } = conn.slot else {
            unreachable!("only what is on its way out can be gone");
        };
        self.parting -= 1;
        self.identities[conn.identity].parting -= 1;
        if let Some(heir) = heir.and_then(|heir| self.identities.get_mut(heir)) {
            heir.coming -= 1;
        }
        drop(conn);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
    }

    /// The connection leaves the ledger at once, and the shell closes it.
    pub(super) fn drop_dead(&mut self, id: ConnId, actions: &mut Actions) {
        self.forget(id);
        actions.push(Action::Close(id));
    }

    /// The connection leaves the ledger; the shell has closed it already.
    fn forget(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(id) {
            self.identities[conn.identity].live -= 1;
        }
    }
}
