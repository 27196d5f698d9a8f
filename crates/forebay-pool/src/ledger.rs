//! Decides who gets which connection of one destination, and touches none.
//!
//! Plain arithmetic: no await, no lock, no clock, no socket. Events come in as method calls
//! with `now`; what must be done goes out as [`Actions`]. The shell ([`crate::pool`]), the
//! property tests and the simulator drive the same lines.
//!
//! Its rooms: `line` (asking, waiting, leaving), `dispatch` (who is next), `gate` (what policies
//! say to one who asks), `circle` (requests that wait for each other), `home` (what
//! becomes of a connection that comes home, or never came), `opening` (when one more is
//! opened, and for whom), `requests` (what is known of each request), `sizing` (another
//! budget while it is used), `terms` (what one identity may have), `beside` (connections of the pool's owner), `upkeep` (what is done without being asked), `renewal` (connections
//! that died with their server), `recall` (leases that can be done without), `picture` (the snapshot), `actions` (what comes out).
//!
//! Always true after each event:
//! - a connection is in exactly one state, and there are never more than the budget allowed;
//! - no grant lifts a class above its ceiling or touches another's unused guarantee;
//! - nobody who may have a connection waits while one of its identity is idle;
//! - a waiter is granted once or rejected once, and a granted one is never rejected.

mod actions;
mod beside;
mod change;
mod circle;
mod dispatch;
mod gate;
mod home;
mod line;
mod opening;
mod picture;
mod recall;
mod renewal;
mod requests;
mod sizing;
mod terms;
mod upkeep;

#[cfg(test)]
mod tests;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_seam::random::{self, Dice};
use slotmap::SlotMap;

use crate::admission::Admission;
use crate::breaker::Breaker;
use crate::budget::Seats;
use crate::class::{ClassId, ClassName, ClassSettings, Kind};
use crate::connect::ConnectFailure;
use crate::cost::{CostId, Costs};
use crate::crowd::Crowd;
use crate::event::{self, Event};
use crate::evidence::Watch;
use crate::fair::Fair;
use crate::feature::Features;
use crate::freshness::Freshness;
use crate::generation::Generations;
use crate::mode::Mode;
use crate::policy::{Policies, Policy};
use crate::queue::{Lanes, Waiter};
use crate::retry::Retries;
use crate::settings::{Budget, PoolSettings};
use crate::shed::Shedding;
use crate::slot::{Conn, ConnId, IdentityId, Slot, WaiterId};
use crate::stats::{Closed, Spread};
use crate::target::Opener;
use crate::terms::{Access, Terms};

pub(crate) use actions::{Action, Actions};
pub use home::Fitness;
pub(crate) use line::{Asked, Came, Wanted};
use requests::Requests;
pub use terms::Count;

/// Connections, waiters and warmth of one identity.
#[derive(Debug, Clone)]
struct Identity {
    /// Coldest first; the next to lend is the last.
    idle: Vec<ConnId>,
    lanes: Lanes,
    opening: u32,
    /// All of its connections, in whatever state but opening.
    live: u32,
    /// On their way out.
    parting: u32,
    /// Connections of it that stand beside the pool.
    beside: u32,
    /// Connections that make room for it and are on their way out.
    coming: u32,
    warm: bool,
    terms: Terms,
    /// Its seats, where it has a size of its own.
    own: Option<Box<Seats>>,
    /// The server would not have it: what it said, and until when that is believed.
    denied: Option<(ConnectFailure, Instant)>,
}

impl Identity {
    /// Does nobody of it get anything, whatever comes?
    fn is_paused(&self) -> bool {
        self.terms.access == Access::Paused
    }

    /// All of its connections, in whatever state.
    fn all(&self) -> u32 {
        self.live + self.opening + self.parting + self.beside
    }

    fn denied(&self, now: Instant) -> Option<(&ConnectFailure, Instant)> {
        self.denied.as_ref().map(|(failure, until)| (failure, *until)).filter(|(_, at)| *at > now)
    }
}

#[derive(Default, Clone)]
struct ClassStats {
    checkouts: u64,
    waited: u64,
    timed_out: u64,
    queue_full: u64,
    failed: u64,
    abandoned: u64,
    deadlocks: u64,
    wait: Spread,
    hold: Spread,
    /// Leases that lasted longer than the hold limit.
    long_holds: u64,
}

fn may_hold_back(class: &ClassSettings) -> bool {
    let policies = Policies::new(class);
    [Policy::Admission, Policy::Lending, Policy::Freshness].iter().any(|p| policies.acts(*p))
}

/// What a new request may wait without harm: for core 50 ms are long; agents wait until their
/// deadline.
fn fresh(class: &ClassSettings) -> Duration {
    match class.kind {
        Kind::Core => Duration::from_millis(50),
        Kind::Ai => class.checkout_timeout,
    }
}

#[derive(Default, Clone)]
struct Counters {
    classes: Vec<ClassStats>,
    opened: u64,
    open_failures: u64,
    closed: Closed,
    connect: Spread,
}

#[derive(Clone)]
pub(crate) struct Ledger {
    /// With the budget that counts now. Classes keep their places: those that settings of
    /// later leave out stay, without a guarantee.
    settings: PoolSettings,
    /// The classes that are configured, in the order in which guarantees are met.
    listed: Vec<ClassId>,
    configured: Budget,
    /// Counts in place of the configured budget.
    wanted: Option<u32>,
    seats: Seats,
    fair: Fair,
    policies: Vec<Policies>,
    costs: Costs,
    features: Features,
    admission: Admission,
    freshness: Vec<Freshness>,
    shedding: Vec<Shedding>,
    retries: Vec<Retries>,
    breakers: Vec<Breaker>,
    generations: Generations,
    /// What the cheapest frequent work takes, where evidence is gathered.
    watch: Option<Box<Watch>>,
    /// Classes in which a policy may hold back who waits.
    gated: Vec<bool>,
    opener: Opener,
    dice: Dice,
    conns: SlotMap<ConnId, Conn>,
    identities: SlotMap<IdentityId, Identity>,
    waiters: SlotMap<WaiterId, Waiter>,
    /// Identities that have waiters, for a dispatch that looks at nobody else.
    queued: Vec<IdentityId>,
    requests: Requests,
    /// All who wait, of whatever identity.
    crowd: Crowd,
    /// Distinct new requests waiting, by class: the unit of the queue's bound.
    new_waiting: Vec<u32>,
    idle: u32,
    opening: u32,
    cleaning: u32,
    probing: u32,
    parting: u32,
    /// Connections that stand beside the pool.
    beside: u32,
    /// Identities of which some connections are kept open.
    keepers: u32,
    /// Identities that share limits.
    capped: u32,
    /// Tells this ledger from others under the same cap.
    number: NonZeroU64,
    /// When the slow part of looking around is due again.
    next_round: Instant,
    /// Some identity is to be kept warm.
    keeps_warm: bool,
    warmed: bool,
    closing: bool,
    /// Leases that may be called home.
    offers: Vec<recall::Offer>,
    counters: Counters,
    /// What happened and was not told yet.
    events: Vec<Event>,
}

impl Ledger {
    pub(crate) fn new(settings: PoolSettings, now: Instant) -> Self {
        let seats = Seats::new(&settings);
        let classes = settings.classes.len();
        let shed_from = f64::from(settings.shed_from) / 100.0;
        Self {
            configured: settings.budget,
            listed: change::all(classes),
            wanted: None,
            opener: Opener::new(&settings, seats.budget, now),
            dice: Dice::new(settings.seed),
            seats,
            fair: Fair::new(settings.classes.iter().map(|(_, class)| class.weight)),
            policies: settings.classes.iter().map(|(_, class)| Policies::new(class)).collect(),
            costs: Costs::new(classes, now),
            features: Features::new(now),
            admission: Admission::new(classes),
            gated: settings.classes.iter().map(|(_, class)| may_hold_back(class)).collect(),
            shedding: vec![Shedding::new(shed_from, now); classes],
            retries: vec![Retries::new(now); classes],
            breakers: vec![Breaker::new(now); classes],
            generations: Generations::default(),
            watch: (settings.evidence != Mode::Off).then(|| Box::new(Watch::new(now))),
            freshness: settings
                .classes
                .iter()
                .map(|(_, class)| Freshness::new(fresh(class)))
                .collect(),
            conns: SlotMap::with_key(),
            identities: SlotMap::with_key(),
            waiters: SlotMap::with_key(),
            queued: Vec::new(),
            requests: Requests::default(),
            crowd: Crowd::default(),
            new_waiting: vec![0; classes],
            idle: 0,
            opening: 0,
            cleaning: 0,
            probing: 0,
            parting: 0,
            beside: 0,
            keepers: 0,
            capped: 0,
            number: NonZeroU64::new(random::seed()).unwrap_or(NonZeroU64::MIN),
            next_round: now,
            keeps_warm: false,
            warmed: false,
            closing: false,
            offers: Vec::new(),
            counters: Counters {
                classes: (0..classes).map(|_| ClassStats::default()).collect(),
                ..Counters::default()
            },
            events: Vec::new(),
            settings,
        }
    }

    /// Makes room for an identity that was not known and may have what `terms` say.
    pub(crate) fn introduce(&mut self, terms: Terms) -> IdentityId {
        let own = terms.most().map(|most| Box::new(Seats::of_its_own(&self.settings, most)));
        self.keepers += u32::from(terms.keep > 0);
        self.capped += u32::from(!terms.caps.is_empty());
        self.identities.insert(Identity {
            idle: Vec::new(),
            lanes: Lanes::new(self.settings.classes.len()),
            opening: 0,
            live: 0,
            parting: 0,
            beside: 0,
            coming: 0,
            warm: false,
            terms,
            own,
            denied: None,
        })
    }

    /// No more leases. What is idle is closed, what is lent when it comes home.
    pub(crate) fn close(&mut self, now: Instant, actions: &mut Actions) {
        self.closing = true;
        self.reject_all_closing(now, actions);
        let idle: Vec<_> =
            self.identities.values_mut().flat_map(|i| std::mem::take(&mut i.idle)).collect();
        for id in idle {
            self.idle -= 1;
            self.counters.closed.surplus += 1;
            self.discard(id, actions);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// How long until a seat of `class` is likely free: a hint, not a promise.
    pub(crate) fn retry_after(&mut self, class: ClassId) -> Duration {
        let drain = self.drain_time(class) * self.dice.between(0.5..1.5);
        Duration::from_secs_f64(drain.clamp(0.02, 30.0))
    }

    /// How long the connections of `class` take for the work that waits and one more, seconds.
    fn drain_time(&self, class: ClassId) -> f64 {
        let hold = self.mean_hold(class).unwrap_or(0.1);
        let ahead = f64::from(self.new_waiting[class.index()] + 1);
        hold * ahead / f64::from(self.seats.reach(class))
    }

    /// When a destination that is down is tried again.
    pub(crate) fn next_attempt(&self, now: Instant) -> Duration {
        let at = self.opener.not_before().unwrap_or(now);
        at.saturating_duration_since(now).max(Duration::from_millis(20))
    }

    /// Does the destination not answer, and is no connection to it left?
    pub(crate) fn is_away(&self) -> bool {
        let here = u32::try_from(self.conns.len()).unwrap_or(u32::MAX);
        self.opener.outage().is_some() && here == self.opening + self.parting
    }

    pub(crate) fn deadline(&self, class: ClassId, since: Instant) -> Instant {
        self.seats.deadline(class, since)
    }

    /// Since when a connection is lent; `None` if it is not.
    pub(crate) fn lent_since(&self, id: ConnId) -> Option<Instant> {
        match self.conns.get(id)?.slot {
            Slot::Leased(lent) => Some(lent.since),
            Slot::Opening { .. }
            | Slot::Idle { .. }
            | Slot::Cleaning { .. }
            | Slot::Probing { .. }
            | Slot::Parting { .. } => None,
        }
    }

    /// What a lease of `class` takes on average, seconds; `None` before the first return.
    fn mean_hold(&self, class: ClassId) -> Option<f64> {
        self.costs.class_mean(class)
    }

    /// The feature that work belongs to, if it named one.
    fn feature_name(&self, cost: CostId) -> Option<Arc<str>> {
        let operation = self.costs.operation(cost)?;
        Some(Arc::clone(operation.feature()))
    }

    /// What its classes are called, in their places.
    pub(crate) fn class_names(&self) -> impl Iterator<Item = &ClassName> {
        self.settings.classes.iter().map(|(name, _)| name)
    }

    fn class_name(&self, class: ClassId) -> ClassName {
        self.settings.classes[class.index()].0.clone()
    }

    /// Keeps `event` for those who listen.
    pub(crate) fn tell(&mut self, event: Event) {
        if self.events.len() < event::KEPT {
            self.events.push(event);
        }
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What happened since the last question.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What counts as the pool's: its own connections, and those beside it that may not be
    /// there any more.
    fn total(&self) -> u32 {
        let own = u32::try_from(self.conns.len()).unwrap_or(u32::MAX);
        own.saturating_add(self.beside.saturating_sub(self.seats.beside))
    }

    pub(crate) fn class_ids(&self) -> impl Iterator<Item = ClassId> + use<> {
        let count = u8::try_from(self.settings.classes.len()).unwrap_or(u8::MAX);
        (0..count).map(ClassId)
    }
}
