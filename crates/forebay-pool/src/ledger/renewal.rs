//! Connections that died with the server they led to, and the recovery after an outage: what
//! is older than a restart is not lent, and what may be lent grows in steps.

use std::time::Instant;

use crate::event::Event;
use crate::generation::{Generation, Suspicion};
use crate::slot::{ConnId, Slot};

use super::{Action, Actions, IdentityId, Ledger};

impl Ledger {
    /// By hand: all connections of now are replaced, those on lease when they come home.
    pub(crate) fn renew(&mut self, now: Instant, actions: &mut Actions) {
        self.generations.renew();
        self.tell(Event::Renewed);
        self.part_with_the_old(actions);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.conclude(now, actions);
    }

    /// The destination is another one: as [`Ledger::renew`], and what failed before says
    /// nothing any more.
    pub(crate) fn start_over(&mut self, now: Instant, actions: &mut Actions) {
        self.opener.start_over(now);
        self.believe_no_denial();
        self.recover(now, actions);
        self.renew(now, actions);
    }

    /// Whatever identity was refused may be tried again.
    pub(super) fn believe_no_denial(&mut self) {
        self.identities.values_mut().for_each(|identity| identity.denied = None);
    }

    /// `id` may be tried again, though it was refused.
    pub(crate) fn forgive(&mut self, id: IdentityId) {
        if let Some(identity) = self.identities.get_mut(id) {
            identity.denied = None;
        }
    }

    /// A connection of `generation` was found dead: has the server been restarted?
    pub(super) fn found_dead(
        &mut self,
        generation: Generation,
        now: Instant,
        actions: &mut Actions,
    ) {
        match self.generations.found_dead(generation, now) {
            Suspicion::Nothing => {}
            Suspicion::ProbeOne(generation) => match self.resting_of(generation) {
                Some((id, idle_since)) => self.ask_whether_it_lives(id, idle_since, actions),
                None => self.generations.nobody_to_ask(),
            },
            Suspicion::AllOlderAreDead(_) => {
                self.tell(Event::Renewed);
                self.part_with_the_old(actions);
            }
        }
    }

    fn resting_of(&self, generation: Generation) -> Option<(ConnId, Instant)> {
        let of_it = self.conns.iter().filter(|(_, conn)| conn.generation == generation);
        of_it.filter_map(|(id, conn)| Some((id, conn.idle_since()?))).next()
    }

    /// Takes a connection out of the idle ones and has it probed.
    pub(super) fn ask_whether_it_lives(
        &mut self,
        id: ConnId,
        idle_since: Instant,
        actions: &mut Actions,
    ) {
        self.take_idle(id);
        self.conns[id].slot = Slot::Probing { idle_since };
        self.probing += 1;
        actions.push(Action::Probe(id));
    }

    /// A connection does not lead where it should: it is not lent again, and its end says
    /// nothing about others.
    pub(crate) fn outdate(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.generation = Generation::OUTDATED;
        }
    }

    /// Connections that rest.
    pub(crate) fn resting(&self) -> Vec<ConnId> {
        let resting = self.conns.iter().filter(|(_, conn)| conn.idle_since().is_some());
        resting.map(|(id, _)| id).collect()
    }

    /// Closes those that rest and were found outdated, and opens others where they are needed.
    pub(crate) fn replace_outdated(&mut self, now: Instant, actions: &mut Actions) {
        self.part_with_the_old(actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.conclude(now, actions);
    }

    /// Closes what rests and is of an older generation.
    fn part_with_the_old(&mut self, actions: &mut Actions) {
        let old: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| !self.generations.is_current(conn.generation))
            .filter(|(_, conn)| conn.idle_since().is_some())
            .map(|(id, _)| id)
            .collect();
        for id in old {
            self.counters.closed.renewed += 1;
            self.take_idle(id);
            self.discard(id, actions);
        }
    }

    /// After an outage what may be lent grows in steps.
    pub(super) fn recover(&mut self, now: Instant, actions: &mut Actions) {
        self.seats.lendable_now = self.opener.ramp(self.seats.budget, now);
        if let Some(at) = self.opener.next_ramp(now) {
            actions.ring(at);
        }
    }
}
