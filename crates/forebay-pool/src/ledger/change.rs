//! Other settings, while connections are lent and callers wait.
//!
//! A class keeps its place as long as the ledger lives, so whoever holds its number means the
//! same class for ever: a class that is left out loses its guarantee and its listing, and gets
//! its place back when it is configured again. Always true: nobody who waits or works is
//! forgotten, and nothing is taken from whom it was lent.

use std::time::Instant;

use crate::admission::Need;
use crate::breaker::Breaker;
use crate::class::{self, ClassId, ClassName, ClassSettings, Share};
use crate::evidence::Watch;
use crate::freshness::Freshness;
use crate::mode::Mode;
use crate::policy::Policies;
use crate::retry::Retries;
use crate::settings::PoolSettings;
use crate::shed::Shedding;
use crate::slot::{IdentityId, Slot};

use super::{Actions, ClassStats, Ledger, fresh, may_hold_back};

/// Every class of a ledger that has `classes`.
pub(super) fn all(classes: usize) -> Vec<ClassId> {
    (0..u8::try_from(classes).unwrap_or(u8::MAX)).map(ClassId).collect()
}

impl Ledger {
    /// Is there a place for each of these classes, beside those there were?
    pub(crate) fn has_places_for(&self, classes: &[(ClassName, ClassSettings)]) -> bool {
        let known = |name: &ClassName| self.settings.classes.iter().any(|(own, _)| own == name);
        let new = classes.iter().filter(|(name, _)| !known(name)).count();
        !classes.is_empty() && self.settings.classes.len() + new <= class::MOST
    }

    /// The classes that are configured now.
    pub(crate) fn listed(&self) -> &[ClassId] {
        &self.listed
    }

    /// Other settings count from now on; [`Ledger::has_places_for`] must hold. A shorter
    /// lifetime counts for connections that are open, a longer one for those to come.
    pub(crate) fn change(
        &mut self,
        mut settings: PoolSettings,
        now: Instant,
        actions: &mut Actions,
    ) {
        let classes = self.place(std::mem::take(&mut settings.classes));
        let count = classes.len();
        let of = |k: usize| &classes[k].1;
        self.fair.reweigh(classes.iter().map(|(_, class)| class.weight));
        let counted = self.counted_classes();
        for (k, policies) in self.policies.iter_mut().enumerate() {
            policies.follow(of(k));
        }
        self.recount(&counted);
        self.policies.extend((self.policies.len()..count).map(|k| Policies::new(of(k))));
        for (k, freshness) in self.freshness.iter_mut().enumerate() {
            freshness.aim_at(fresh(of(k)));
        }
        self.freshness.extend((self.freshness.len()..count).map(|k| Freshness::new(fresh(of(k)))));
        let shed_from = f64::from(settings.shed_from) / 100.0;
        self.shedding.iter_mut().for_each(|shedding| shedding.begin_at(shed_from));
        self.shedding.resize_with(count, || Shedding::new(shed_from, now));
        self.gated = classes.iter().map(|(_, class)| may_hold_back(class)).collect();
        self.retries.resize_with(count, || Retries::new(now));
        self.breakers.resize_with(count, || Breaker::new(now));
        self.costs.grow(count, now);
        self.admission.grow(count);
        self.identities.values_mut().for_each(|identity| identity.lanes.grow(count));
        self.new_waiting.resize(count, 0);
        self.counters.classes.resize_with(count, ClassStats::default);
        match (&self.watch, settings.evidence) {
            (Some(_), Mode::Off) => self.watch = None,
            (None, Mode::Observe | Mode::Enforce) => self.watch = Some(Box::new(Watch::new(now))),
            (None, Mode::Off) | (Some(_), Mode::Observe | Mode::Enforce) => {}
        }
        if settings.lifetime < self.settings.lifetime {
            let latest = now + settings.lifetime;
            self.conns.values_mut().for_each(|conn| conn.expires = conn.expires.min(latest));
        }
        let seats: Vec<_> = classes.iter().map(|(_, class)| class.clone()).collect();
        for identity in self.identities.values_mut() {
            if let (Some(own), Some(most)) = (&mut identity.own, identity.terms.most()) {
                own.change(seats.clone(), &self.listed);
                own.fit(settings.ai_share, most.max(1), None);
            }
        }
        self.seats.change(seats, &self.listed);
        self.configured = settings.budget;
        // A destination keeps its name, and the jitter goes on.
        settings.name = self.settings.name.clone();
        settings.seed = self.settings.seed;
        settings.classes = classes;
        self.settings = settings;
        self.believe_no_denial();
        self.refit(self.seats.capacity, now, actions);
        actions.ring(now);
    }

    /// The classes whose requests are counted for admission, among those there are.
    fn counted_classes(&self) -> Vec<ClassId> {
        self.class_ids().filter(|class| self.counts_requests(*class)).collect()
    }

    /// Leases of no request count as one each, from grant to return: also where counting begins
    /// or ends in between.
    fn recount(&mut self, before: &[ClassId]) {
        let now = self.counted_classes();
        for conn in self.conns.values() {
            let Slot::Leased(lent) = &conn.slot else { continue };
            if lent.request.is_some() {
                continue;
            }
            match (before.contains(&lent.class), now.contains(&lent.class)) {
                (false, true) => self.admission.enter(lent.class, Need::ONE),
                (true, false) => self.admission.leave(lent.class, Need::ONE),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// These identities are served no more: what rests of theirs is closed and not kept warm;
    /// what is lent or on its way is closed for idleness once it rests.
    pub(crate) fn serve_no_more(
        &mut self,
        identities: impl IntoIterator<Item = IdentityId>,
        now: Instant,
        actions: &mut Actions,
    ) {
        for id in identities {
            let Some(identity) = self.identities.get_mut(id) else { continue };
            identity.warm = false;
            for conn in std::mem::take(&mut identity.idle) {
                self.idle -= 1;
                self.counters.closed.surplus += 1;
                self.discard(conn, actions);
            }
        }
        self.keeps_warm = self.identities.values().any(|identity| identity.warm);
        self.dispatch(now, actions);
        self.open_more(now, actions);
        self.keep_warm(now, actions);
        self.conclude(now, actions);
    }

    /// `wanted` in the places that classes have already, behind them those that are new, and
    /// notes who is configured.
    fn place(
        &mut self,
        wanted: Vec<(ClassName, ClassSettings)>,
    ) -> Vec<(ClassName, ClassSettings)> {
        let mut classes = self.settings.classes.clone();
        for (_, class) in &mut classes {
            class.guarantee = Share::Seats(0);
        }
        self.listed.clear();
        for (name, class) in wanted {
            let at = classes.iter().position(|(own, _)| *own == name);
            let at = at.unwrap_or(classes.len());
            match classes.get_mut(at) {
                Some((_, own)) => *own = class,
                None => classes.push((name, class)),
            }
            self.listed.extend(u8::try_from(at).ok().map(ClassId));
        }
        classes
    }
}
