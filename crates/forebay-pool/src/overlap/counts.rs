//! What overlaps add up to: since the start for metrics, of the last hour for advice.
//!
//! Asks no clock. Always true: features, destinations and places (a statement and a call) are
//! told apart up to a bound, and what comes after is summed up as `other`; what is counted of
//! a feature is connection time, so calls beside each other count once.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::hour::Hour;
use super::told::{HoldKind, Overlap};
use crate::stats::{HOLD_BUCKETS, Spread, SpreadSnapshot};

/// Families, features and places told apart up to here; what comes after is `other`.
pub(super) const APART: usize = 1_000;
/// The name of what is not told apart.
const OTHER: &str = "other";

/// Counters of one feature calling one destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverlapCount {
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// The destination called.
    pub destination: Arc<str>,
    /// What the transaction occupied.
    pub kind: HoldKind,
    /// Overlaps that were of this kind, at the beginning or later.
    pub begun: u64,
    /// Overlaps that ended so.
    pub ended: u64,
    /// Seconds that transactions were of this kind beside calls; calls beside each other count
    /// each.
    pub seconds: f64,
}

/// How long overlaps of one kind lasted.
#[derive(Debug, Clone, Serialize)]
pub struct OverlapSpread {
    /// What the transaction occupied at the end.
    pub kind: HoldKind,
    /// From the beginning to the end.
    pub lasted: SpreadSnapshot,
}

/// What the holds of one feature took, since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureHolds {
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// Transactions that idled beside a call.
    pub transactions: u64,
    /// Seconds for which they occupied a connection meanwhile.
    pub held: f64,
    /// Of these, seconds for which they could have been parked.
    pub parkable: f64,
    /// Seconds for which they were parked.
    pub parked: f64,
}

/// Feature, destination, kind.
type Family = (Arc<str>, Arc<str>, HoldKind);

#[derive(Default)]
struct Count {
    begun: u64,
    ended: u64,
    spent: Duration,
}

/// What holds of one feature took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// Transactions that idled beside at least one call.
    pub(super) transactions: u64,
    /// Overlaps that are over.
    pub(super) over: u64,
    pub(super) held: Duration,
    pub(super) parkable: Duration,
    pub(super) parked: Duration,
    /// Before and after the calls, of overlaps that are over.
    pub(super) before: Duration,
    pub(super) after: Duration,
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Self) {
        self.transactions += more.transactions;
        self.over += more.over;
        self.held += more.held;
        self.parkable += more.parkable;
        self.parked += more.parked;
        self.before += more.before;
        self.after += more.after;
    }
}

/// A statement and the call it waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) feature: Arc<str>,
    pub(super) statement: Arc<str>,
    pub(super) destination: Arc<str>,
    pub(super) operation: Arc<str>,
    pub(super) subject: Option<super::told::Subject>,
}

/// What was seen at a place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) overlaps: u64,
    pub(super) held: Duration,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.overlaps += more.overlaps;
        self.held += more.held;
    }
}

/// All that is counted.
pub(super) struct Counts {
    pub(super) start: Instant,
    families: HashMap<Family, Count>,
    spreads: [Spread; HoldKind::ALL.len()],
    features: HashMap<Arc<str>, (Taken, Box<Hour<Taken>>)>,
    places: HashMap<Place, Box<Hour<Seen>>>,
}

/// `key` itself if there is room for it, or what stands for all others.
fn bounded<K: Eq + Hash, V>(map: &HashMap<K, V>, key: K, other: impl FnOnce(K) -> K) -> K {
    if map.len() < APART || map.contains_key(&key) { key } else { other(key) }
}

fn other() -> Arc<str> {
    OTHER.into()
}

impl Counts {
    /// Nothing so far.
    pub(super) fn since(start: Instant) -> Self {
        Self {
            start,
            families: HashMap::new(),
            spreads: Default::default(),
            features: HashMap::new(),
            places: HashMap::new(),
        }
    }

    fn family(&mut self, overlap: &Overlap) -> &mut Count {
        let (feature, destination) = (&overlap.feature, &overlap.destination);
        let key = (Arc::clone(feature), Arc::clone(destination), overlap.kind);
        let key = bounded(&self.families, key, |(_, _, kind)| (other(), other(), kind));
        self.families.entry(key).or_default()
    }

    /// An overlap is of this kind from now on.
    pub(super) fn begins(&mut self, overlap: &Overlap) {
        self.family(overlap).begun += 1;
    }

    /// An overlap was of its kind for so long.
    pub(super) fn lasts(&mut self, overlap: &Overlap, spent: Duration) {
        self.family(overlap).spent += spent;
    }

    /// An overlap has ended.
    pub(super) fn ends(&mut self, overlap: &Overlap, now: Instant) {
        self.family(overlap).ended += 1;
        if let Some(spread) = self.spreads.get_mut(overlap.kind as usize) {
            spread.record(overlap.duration);
        }
        let place = Place {
            feature: Arc::clone(&overlap.feature),
            statement: Arc::clone(&overlap.statement),
            destination: Arc::clone(&overlap.destination),
            operation: Arc::clone(&overlap.operation),
            subject: overlap.subject.clone(),
        };
        let place = bounded(&self.places, place, |_| Place {
            feature: other(),
            statement: other(),
            destination: other(),
            operation: other(),
            subject: None,
        });
        let seen = Seen { overlaps: 1, held: overlap.held_during };
        self.places.entry(place).or_default().add(self.start, now, seen);
    }

    /// Transactions of `feature` took so much.
    pub(super) fn takes(&mut self, feature: &Arc<str>, now: Instant, taken: Taken) {
        let feature = bounded(&self.features, Arc::clone(feature), |_| other());
        let (all, hour) = self.features.entry(feature).or_default();
        *all += taken;
        hour.add(self.start, now, taken);
    }

    /// By feature, destination and kind.
    pub(super) fn families(&self) -> Vec<OverlapCount> {
        let counts = self.families.iter().map(|((feature, destination, kind), count)| {
            let (feature, destination) = (Arc::clone(feature), Arc::clone(destination));
            let seconds = count.spent.as_secs_f64();
            let (begun, ended) = (count.begun, count.ended);
            OverlapCount { feature, destination, kind: *kind, begun, ended, seconds }
        });
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by(|a, b| {
            (&a.feature, &a.destination, a.kind).cmp(&(&b.feature, &b.destination, b.kind))
        });
        counts
    }

    /// How long overlaps lasted, of the kinds that there were.
    pub(super) fn spreads(&self) -> Vec<OverlapSpread> {
        let spreads = HoldKind::ALL.into_iter().zip(&self.spreads);
        spreads
            .map(|(kind, spread)| OverlapSpread { kind, lasted: spread.snapshot(&HOLD_BUCKETS) })
            .filter(|spread| spread.lasted.count > 0)
            .collect()
    }

    /// By feature.
    pub(super) fn features(&self) -> Vec<FeatureHolds> {
        let features = self.features.iter().map(|(feature, (taken, _))| FeatureHolds {
            feature: Arc::clone(feature),
            transactions: taken.transactions,
            held: taken.held.as_secs_f64(),
            parkable: taken.parkable.as_secs_f64(),
            parked: taken.parked.as_secs_f64(),
        });
        let mut features: Vec<_> = features.collect();
        features.sort_by(|a, b| a.feature.cmp(&b.feature));
        features
    }

    /// What each feature took within the last hour.
    pub(super) fn last_hour(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, Taken)> {
        let features = self.features.iter();
        features.map(move |(feature, (_, hour))| (feature, hour.sum(self.start, now)))
    }

    /// What was seen at each place within the last hour.
    pub(super) fn places(&self, now: Instant) -> impl Iterator<Item = (&Place, Seen)> {
        self.places.iter().map(move |(place, hour)| (place, hour.sum(self.start, now)))
    }
}
