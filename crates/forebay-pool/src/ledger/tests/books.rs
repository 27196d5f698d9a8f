//! What holds between two events, by arithmetic of its own: the ledger's books and the
//! world's are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::class::{ClassId, Kind};
use crate::deadlock::{self, Activity};
use crate::queue::{Fate, Level};
use crate::slot::{Conn, ConnId, IdentityId, Slot};

use super::world::{Told, World};

impl World {
    /// Everything that holds between two events.
    pub(super) fn assert_consistent(&self) {
        let ledger = &self.ledger;
        self.assert_conservation();
        for (id, waiter) in &ledger.waiters {
            let caller = &self.callers[&id];
            match &waiter.fate {
                Fate::Waiting { .. } => assert_eq!(caller.told, Told::Nothing, "asleep for ever"),
                Fate::Granted { conn } => assert_eq!(caller.told, Told::Granted(*conn)),
                Fate::Rejected(_) => assert!(matches!(caller.told, Told::Rejected(_))),
            }
        }
        assert_eq!(ledger.waiters.len(), self.callers.len());
        self.assert_queues();
        self.assert_requests();
        // I13: whoever closes a circle breaks it in the same step.
        assert_eq!(deadlock::find(&[ledger.census()]), None, "they wait for each other for ever");
        assert!(!self.is_at_a_standstill(), "every connection is kept by one who waits");
        if !ledger.closing {
            self.assert_recalls();
            self.assert_nobody_waits_for_what_is_there();
        }
    }

    /// I13, by arithmetic of its own: is all that can be lent kept at rest by requests that
    /// wait?
    fn is_at_a_standstill(&self) -> bool {
        let ledger = &self.ledger;
        let is_kept = |conn: &Conn| match conn.slot {
            Slot::Leased(lent) => lent.request.is_some_and(|request| {
                lent.activity == Activity::AtRest && !ledger.requests.waiting(request).is_empty()
            }),
            Slot::Opening { .. } | Slot::Idle { .. } => false,
            Slot::Cleaning { .. } | Slot::Probing { .. } => false,
            Slot::Parting { .. } => false,
        };
        // One that has to leave from beside the pool makes room.
        let own = u32::try_from(ledger.conns.len()).unwrap();
        own > 0 && own >= ledger.seats.budget && ledger.conns.values().all(is_kept)
    }

    /// I4: each connection is in one place, and both books name the same place.
    fn assert_conservation(&self) {
        let ledger = &self.ledger;
        let mut idle = BTreeSet::new();
        let mut live: BTreeMap<IdentityId, u32> = BTreeMap::new();
        let mut coming: BTreeMap<IdentityId, u32> = BTreeMap::new();
        let (mut leased, mut cleaning, mut probing, mut opening) = (0, 0, 0, 0);
        let mut parting = 0;
        for (id, conn) in &ledger.conns {
            let place = match &conn.slot {
                Slot::Opening { .. } => {
                    opening += 1;
                    self.opens.iter().any(|(c, _)| *c == id)
                }
                Slot::Idle { .. } => idle.insert(id),
                Slot::Leased(lent) => {
                    leased += 1;
                    self.leases.get(&id) == Some(&lent.class)
                }
                Slot::Cleaning { class } => {
                    cleaning += 1;
                    self.resets.contains(&(id, *class))
                }
                Slot::Probing { .. } => {
                    probing += 1;
                    self.probes.contains(&id)
                }
                Slot::Parting { heir } => {
                    parting += 1;
                    if let Some(heir) = heir {
                        *coming.entry(*heir).or_default() += 1;
                    }
                    self.parting.contains(&id)
                }
            };
            assert!(place, "{id:?} is lost: {conn:?}");
            let is_live = !matches!(conn.slot, Slot::Opening { .. } | Slot::Parting { .. });
            assert_eq!(self.live.contains(&id), is_live);
            *live.entry(conn.identity).or_default() += u32::from(is_live);
        }
        let count = |n: usize| u32::try_from(n).unwrap();
        let capped = ledger.conns.values().filter(|conn| conn.is_under(&self.cap));
        let beside = self.besides.iter().flat_map(|(_, places)| places.iter());
        let beside = beside.filter(|place| place.is_of(&self.cap)).count();
        assert_eq!(ledger.beside, count(self.besides.len()));
        assert_eq!(
            self.cap.taken(),
            count(capped.count() + beside),
            "places under a cap are conserved"
        );
        assert_eq!(count(self.leases.len()), leased);
        assert_eq!((count(self.opens.len()), ledger.opening), (opening, opening));
        assert_eq!((count(self.resets.len()), ledger.cleaning), (cleaning, cleaning));
        assert_eq!((count(self.probes.len()), ledger.probing), (probing, probing));
        assert_eq!((count(self.parting.len()), ledger.parting), (parting, parting));
        assert_eq!(count(idle.len()), ledger.idle);
        let listed: Vec<_> = ledger.identities.values().flat_map(|i| &i.idle).copied().collect();
        assert_eq!((listed.len(), listed.into_iter().collect()), (idle.len(), idle));
        for k in 0..self.classes {
            let class = ClassId(k);
            let lent = self.leases.values().filter(|c| **c == class).count();
            let reset = self.resets.iter().filter(|(_, c)| *c == class).count();
            assert_eq!(ledger.seats.classes[class.index()].taken, count(lent + reset));
        }
        assert_eq!(ledger.seats.taken, leased + cleaning);
        for (id, identity) in &ledger.identities {
            assert_eq!(identity.live, live.get(&id).copied().unwrap_or(0));
            let opening = self.opens.iter().filter(|(_, i)| *i == id).count();
            assert_eq!(identity.opening, count(opening));
            assert_eq!(identity.coming, coming.get(&id).copied().unwrap_or(0));
            let own = ledger.conns.values().filter(|conn| conn.identity == id);
            let parting = own.clone().filter(|c| matches!(c.slot, Slot::Parting { .. })).count();
            assert_eq!(identity.parting, count(parting));
            if let Some(seats) = &identity.own {
                let lent = |slot| matches!(slot, Slot::Leased(_) | Slot::Cleaning { .. });
                assert_eq!(seats.taken, count(own.filter(|conn| lent(conn.slot)).count()));
            }
            assert!(!identity.is_paused() || identity.idle.is_empty(), "nothing rests in a pause");
            assert!(identity.idle.is_sorted_by_key(|c| self.idle_since(*c)), "coldest first");
        }
    }

    pub(super) fn idle_since(&self, id: ConnId) -> Instant {
        let Slot::Idle { since, .. } = self.ledger.conns[id].slot else { panic!("it is not idle") };
        since
    }

    fn assert_queues(&self) {
        let ledger = &self.ledger;
        let waiting = ledger.waiters.values().filter(|w| matches!(w.fate, Fate::Waiting { .. }));
        assert_eq!(usize::try_from(ledger.crowd.all()).unwrap(), waiting.count());
        for (id, identity) in &ledger.identities {
            let here: Vec<_> = ledger
                .waiters
                .iter()
                .filter(|(_, w)| w.identity == id && matches!(w.fate, Fate::Waiting { .. }))
                .collect();
            assert_eq!(identity.lanes.is_empty(), here.is_empty());
            assert_eq!(
                ledger.queued.iter().filter(|i| **i == id).count(),
                usize::from(!here.is_empty())
            );
            for k in 0..self.classes {
                let class = ClassId(k);
                let waiting = here.iter().filter(|(_, w)| w.class == class).count();
                assert_eq!(usize::try_from(identity.lanes.crowd().of(class)).unwrap(), waiting);
                let first = here
                    .iter()
                    .filter(|(_, w)| w.class == class)
                    .map(|(_, w)| (w.level, w.age))
                    .min();
                let head = identity.lanes.first(class).map(|(_, w)| &ledger.waiters[w]);
                assert_eq!(head.map(|w| (w.level, w.age)), first, "the oldest is first");
            }
        }
    }

    fn assert_requests(&self) {
        let ledger = &self.ledger;
        for (request, held, waiting) in ledger.requests.all() {
            let leases: Vec<_> = ledger
                .conns
                .values()
                .filter_map(|conn| match conn.slot {
                    Slot::Leased(lent) if lent.request == Some(request) => Some(lent.activity),
                    Slot::Opening { .. }
                    | Slot::Idle { .. }
                    | Slot::Leased(_)
                    | Slot::Cleaning { .. }
                    | Slot::Probing { .. }
                    | Slot::Parting { .. } => None,
                })
                .collect();
            assert_eq!(usize::try_from(held).unwrap(), leases.len());
            let at_rest = leases.iter().filter(|activity| **activity == Activity::AtRest).count();
            let known = &ledger.requests.known[request];
            assert_eq!(usize::try_from(known.at_rest).unwrap(), at_rest);
            assert_eq!(waiting.iter().collect::<BTreeSet<_>>().len(), waiting.len());
            for id in waiting {
                let waiter = &ledger.waiters[*id];
                assert_eq!(waiter.request, Some(request));
                if waiter.level != Level::New {
                    assert_eq!(Some(waiter.age), ledger.requests.admitted(request));
                }
                let has_priority = held > 0 && ledger.requests.has_priority(request, self.now);
                let waits_as_holder = waiter.level == Level::Holder;
                assert!(!has_priority || waits_as_holder, "who holds one waits before others");
            }
        }
        let mut fresh = vec![(BTreeSet::new(), 0_u32); self.classes.into()];
        for (id, waiter) in &ledger.waiters {
            if !matches!(waiter.fate, Fate::Waiting { .. }) {
                continue;
            }
            let (requests, anonymous) = &mut fresh[waiter.class.index()];
            let is_new = waiter.level == Level::New;
            match waiter.request {
                Some(request) => {
                    assert!(ledger.requests.waiting(request).contains(&id));
                    if is_new {
                        requests.insert(request);
                    }
                }
                None => *anonymous += u32::from(is_new),
            }
        }
        for ((requests, anonymous), counted) in fresh.iter().zip(&ledger.new_waiting) {
            assert_eq!(u32::try_from(requests.len()).unwrap() + anonymous, *counted);
        }
    }

    /// Whom nothing holds back any more is served when the ledger looks around.
    pub(super) fn assert_nobody_is_held_back_for_nothing(&self) {
        for id in
            self.ledger.queued.iter().filter(|id| !self.ledger.identities[**id].idle.is_empty())
        {
            assert_eq!(self.ledger.first_in_line(*id, self.now), None);
        }
    }

    /// I5, by arithmetic of its own.
    fn assert_nobody_waits_for_what_is_there(&self) {
        let seats = &self.ledger.seats;
        let taken: u32 = seats.classes.iter().map(|c| c.taken).sum();
        let ai: u32 =
            seats.classes.iter().filter(|c| c.limits.kind == Kind::Ai).map(|c| c.taken).sum();
        for caller in self.callers.values().filter(|c| c.told == Told::Nothing) {
            if self.ledger.identities[caller.identity].idle.is_empty() {
                continue;
            }
            let pair = &self.ledger.identities[caller.identity].own;
            if pair.as_ref().is_some_and(|pair| !pair.may_take(caller.class)) {
                continue;
            }
            let own = seats.classes[caller.class.index()];
            let unmet: u32 = seats
                .classes
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != caller.class.index())
                .map(|(_, c)| c.limits.guarantee.saturating_sub(c.taken))
                .sum();
            let eligible = taken + unmet < seats.budget
                && taken < seats.lendable_now
                && own.taken < own.limits.ceiling
                && (own.limits.kind == Kind::Core || ai < seats.ai_ceiling);
            // What a policy holds back may be free to go by the passing of time alone.
            let open = self.ledger.is_open(caller.class);
            assert!(!open || !eligible, "{caller:?} waits beside an idle connection");
        }
    }
}
