//! How a life ends: from here on nothing fails, and then everybody who waits is served, nothing
//! is left, nobody is shut out, and a closed pool is empty (I15).

use std::time::Duration;

use crate::class::ClassId;
use crate::lease::Condition;
use crate::ledger::{Action, Asked};
use crate::slot::{ConnId, IdentityId};
use crate::terms::Terms;

use super::world::{Told, World};

impl World {
    fn finish_callers(&mut self) {
        let decided: Vec<_> = self
            .callers
            .iter()
            .filter(|(_, c)| c.told != Told::Nothing)
            .map(|(id, c)| (*id, c.told.clone()))
            .collect();
        for (id, told) in decided {
            match told {
                Told::Granted(_) => drop(self.take(id)),
                Told::Nothing => {}
                Told::Rejected(_) => {
                    self.callers.remove(&id);
                    self.step(|ledger, _, _| ledger.heard(id));
                }
            }
        }
        for conn in self.in_use() {
            self.give_back(conn, Condition::Clean);
        }
    }

    /// From here on nothing fails: then everybody who waits is served, promptly, and in the
    /// end nothing is left (I15).
    pub(super) fn settle(&mut self) {
        let patience = self.now + Duration::from_secs(60);
        while !self.besides.is_empty() {
            self.leave_beside(0);
        }
        for n in 0..self.identities.len() {
            self.review(n, Terms::default());
        }
        self.expire_hopeless();
        loop {
            self.finish_work();
            self.finish_callers();
            if self.callers.is_empty() && self.leases.is_empty() {
                break;
            }
            if !self.opens.is_empty() || self.callers.values().any(|c| c.told != Told::Nothing) {
                continue;
            }
            assert!(self.now < patience, "{} callers wait for ever", self.callers.len());
            self.pass_until_the_alarm();
            self.assert_prompt();
        }
        self.finish_work();
        let seats = &self.ledger.seats;
        assert_eq!((seats.taken, self.ledger.opening, self.ledger.cleaning), (0, 0, 0));
        assert!(seats.classes.iter().all(|class| class.taken == 0));
        assert!(self.ledger.waiters.is_empty() && self.ledger.queued.is_empty());
        assert!(self.ledger.new_waiting.iter().all(|n| *n == 0));
        self.advance(Duration::from_secs(61));
        self.tick();
        assert!(self.ledger.requests.is_empty(), "requests that are over are forgotten");
        for k in 0..self.classes {
            let class = ClassId(k);
            let admission = &self.ledger.admission;
            assert_eq!((admission.requests(class), admission.demand(class)), (0, 0.0));
        }
        self.finish_work();
    }

    /// Closed while nothing is under way it is empty.
    pub(super) fn end(&mut self) {
        self.close();
        self.finish_work();
        assert!(self.ledger.is_empty() && self.live.is_empty(), "a closed pool is empty");
    }

    /// Nothing that happened shuts a class out for ever.
    pub(super) fn assert_everybody_is_welcome_again(&mut self) {
        if self.ledger.closing {
            return;
        }
        let classes = 0..self.classes;
        let open: Vec<_> = classes.filter(|k| !self.is_hopeless(ClassId(*k))).collect();
        for k in open {
            // A policy may still hold what happened against the first.
            let served = (0..3).any(|_| {
                self.advance(Duration::from_secs(100));
                self.tick();
                self.finish_work();
                // What upkeep opened has used up the pace.
                self.advance(Duration::from_millis(1_500));
                let lease = self.gets_in_the_end(k);
                lease.inspect(|conn| self.give_back(*conn, Condition::Clean)).is_some()
            });
            assert!(served, "class {k} is shut out");
        }
        self.finish_work();
    }

    /// A connection of `class`, if nobody refuses.
    fn gets_in_the_end(&mut self, class: u8) -> Option<ConnId> {
        let id = match self.ask(0, class, None) {
            Asked::Granted(conn) => return Some(conn),
            Asked::Rejected(_) => return None,
            Asked::Waiting(id) => id,
        };
        let patience = self.now + Duration::from_secs(60);
        loop {
            self.finish_work();
            match self.callers[&id].told {
                Told::Granted(_) => return Some(self.take(id)),
                Told::Rejected(_) => {
                    self.abandon(id);
                    return None;
                }
                Told::Nothing => assert!(self.now < patience, "it waits for ever"),
            }
            self.pass_until_the_alarm();
        }
    }

    fn pass_until_the_alarm(&mut self) {
        let round = self.round.expect("the ledger always wants to look around again");
        let alarm = self.alarm.map_or(round, |alarm| alarm.min(round));
        self.advance(alarm.saturating_duration_since(self.now));
        self.tick();
    }

    /// A round that nobody asked for finds nothing to do for those who wait, unless it parted
    /// with a connection itself: whoever waits was served, or an alarm was set.
    fn assert_prompt(&self) {
        let waits = |identity: &IdentityId| !self.ledger.identities[*identity].lanes.is_empty();
        let is_for_waiters = |action: &Action| match action {
            Action::Wake(_) => true,
            Action::Open(_, identity) => waits(identity),
            Action::Close(_) | Action::Part(_) | Action::Reset(_) | Action::Probe(_) => false,
            Action::Forget(_) | Action::Recall(_) => false,
        };
        let parted = |action: &Action| {
            matches!(action, Action::Close(_) | Action::Part(_) | Action::Probe(_))
        };
        let idle_round = !self.rung && !self.last.list().iter().any(parted);
        // What a policy holds back may be free to go by the passing of time alone.
        let gated = self.ledger.gated.iter().any(|gated| *gated);
        let late = idle_round && !gated && self.last.list().iter().any(is_for_waiters);
        assert!(!late, "nobody rang for {:?}", self.last);
    }

    /// Where others are guaranteed the whole budget a class waits for its deadline only.
    fn is_hopeless(&self, class: ClassId) -> bool {
        let seats = &self.ledger.seats;
        let promised: u32 = seats.classes.iter().map(|c| c.limits.guarantee).sum();
        promised - seats.classes[class.index()].limits.guarantee >= seats.budget
    }

    fn expire_hopeless(&mut self) {
        let waiting = self.callers.iter().filter(|(_, c)| c.told == Told::Nothing);
        let lost: Vec<_> =
            waiting.filter(|(_, c)| self.is_hopeless(c.class)).map(|(id, _)| *id).collect();
        for id in lost {
            self.expire(id);
        }
    }
}
