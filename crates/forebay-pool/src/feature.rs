//! Features: the endpoints, agents and tools that work is told apart by, what their requests
//! take, and what they waited and held.
//!
//! At most [`NAMED`] have a place of their own, for ever; those named later share `other`, so
//! that a client that invents names costs nothing but detail. Figures are learnt when a
//! request is over. Decides nothing, but notices when the fan-out of a feature jumps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::learnt::{Learnt, as_time, micros};
use crate::stats::{HOLD_BUCKETS, WAIT_BUCKETS};

/// Features with a place of their own.
const NAMED: usize = 1_000;
/// Requests whose fan-out counts as the present.
const RECENT: usize = 8;
/// The present needs so many requests to be believed, and the past so many to be compared.
const PRESENT: usize = 5;
const PAST: f64 = 20.0;
/// Requests longer ago than this are not the present.
const PRESENT_LASTS: Duration = Duration::from_secs(600);

/// A feature's place in the table of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FeatureId(u16);

impl FeatureId {
    /// All that found no place of their own.
    pub(crate) const OTHER: Self = Self(0);
    /// Work that names no feature.
    pub(crate) const UNTAGGED: Self = Self(1);

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What one request took from this destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestFigures {
    /// Leases (F, fan-out).
    pub(crate) leases: u32,
    /// Connection time, all leases together (S).
    pub(crate) used: Duration,
    /// From the first lease to the last return (T).
    pub(crate) residence: Duration,
    /// Leases at the same time, at the most (P).
    pub(crate) peak: u32,
    /// Connections it held while it asked for another, and that one (C): 1 if it never held
    /// one while it asked.
    pub(crate) nested: u32,
}

/// What a request of a feature will probably take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Expected {
    /// Connection time, mean (S).
    pub(crate) used: Duration,
    /// The same, 95th percentile.
    pub(crate) used_p95: Duration,
    /// From the first lease to the last return, mean (T).
    pub(crate) residence: Duration,
    /// Leases, mean (F).
    pub(crate) leases: f64,
    /// Leases at the same time, mean (P).
    pub(crate) peak: f64,
    /// Connections that it needs at the same time, at the most of those not forgotten (C).
    pub(crate) nested: u32,
    /// How many requests this knowledge is worth.
    pub(crate) worth: f64,
}

/// Requests of a feature take many more leases than they used to: an N+1, or an agent that
/// lost its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FanOutJump {
    pub(crate) feature: Arc<str>,
    /// Leases of a request before, on average.
    pub(crate) before: f64,
    /// Leases of one of the last requests (five to eight), on average.
    pub(crate) now: f64,
}

/// Times counted by upper bounds.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    counts: [u64; 13],
    count: u64,
    sum: Duration,
}

impl Times {
    fn record(&mut self, time: Duration, bounds: &[f64; 13]) {
        self.count += 1;
        if time.is_zero() {
            // As most waits are.
            self.counts[0] += 1;
            return;
        }
        let seconds = time.as_secs_f64();
        if let Some(count) = bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[count] += 1;
        }
        self.sum += time;
    }

    fn snapshot(&self, bounds: &[f64; 13]) -> Buckets {
        let mut below = 0;
        let cumulate = |(bound, count): (&f64, &u64)| {
            below += count;
            (*bound, below)
        };
        Buckets {
            count: self.count,
            sum: self.sum.as_secs_f64(),
            buckets: bounds.iter().zip(&self.counts).map(cumulate).collect(),
        }
    }
}

/// Times of a feature, in seconds since start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Buckets {
    /// How many.
    pub count: u64,
    /// Their sum, seconds.
    pub sum: f64,
    /// Cumulative counts: (upper bound in seconds, count at or below).
    pub buckets: Vec<(f64, u64)>,
}

/// One figure of a feature's requests, the newer ones the heavier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// On average.
    pub mean: f64,
    /// 95th percentile.
    pub p95: f64,
    /// The most that is remembered (for eight half-lives of 5 min or 50 requests).
    pub most: f64,
}

/// One feature at one destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureSnapshot {
    /// Its name; `other` is all that found no place, `untagged` what names no feature.
    pub feature: Arc<str>,
    /// Leases given.
    pub checkouts: u64,
    /// Requests that are over.
    pub requests: u64,
    /// Jumps of its fan-out.
    pub fan_out_jumps: u64,
    /// From asking to lease, of those that got one.
    pub wait: Buckets,
    /// From lease to return.
    pub hold: Buckets,
    /// Leases of a request.
    pub leases: Figure,
    /// Connection time of a request, seconds.
    pub used: Figure,
    /// From the first lease of a request to its last return, seconds.
    pub residence: Figure,
    /// Leases of a request at the same time.
    pub peak: Figure,
    /// Connections a request needed at the same time to go on.
    pub nested: Figure,
}

/// Whether the present fan-out is what it used to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FanOut {
    Usual,
    /// A jump was told; the next one is, once the present is usual again.
    Jumped,
}

/// The last requests' leases, oldest overwritten, and what came before them.
#[derive(Debug, Clone)]
struct Course {
    recent: [u32; RECENT],
    filled: usize,
    next: usize,
    last: Instant,
    before: Learnt,
    state: FanOut,
}

impl Course {
    fn new(now: Instant) -> Self {
        Self {
            recent: [0; RECENT],
            filled: 0,
            next: 0,
            last: now,
            before: Learnt::new(now),
            state: FanOut::Usual,
        }
    }

    /// A request took so many leases. Says (before, now) when that is a jump: the last 5 to 8
    /// requests take on average more than twice the 95th percentile of those before them, and
    /// so do at least three of them, so that one outlier is none. It is over when the average
    /// is below 1.25 times the percentile: because requests are as they were, or because the
    /// new manner has become the usual one.
    fn request(&mut self, leases: u32, now: Instant) -> Option<(f64, f64)> {
        if now.saturating_duration_since(self.last) > PRESENT_LASTS {
            self.age_all();
        }
        self.last = now;
        if self.filled == RECENT {
            self.before.record(self.recent[self.next], now);
        } else {
            self.filled += 1;
        }
        self.recent[self.next] = leases;
        self.next = (self.next + 1) % RECENT;

        let present = self.present();
        if present.len() < PRESENT || self.before.worth() < PAST {
            return None;
        }
        let usual = self.before.percentiles().p95.max(1.0);
        let above = present.iter().filter(|leases| f64::from(**leases) > 2.0 * usual).count();
        let sum: f64 = present.iter().copied().map(f64::from).sum();
        let mean = sum / f64::from(u32::try_from(present.len()).unwrap_or(1));
        match self.state {
            FanOut::Usual if mean > 2.0 * usual && above >= 3 => {
                self.state = FanOut::Jumped;
                Some((self.before.mean(), mean))
            }
            FanOut::Jumped if mean < 1.25 * usual => {
                self.state = FanOut::Usual;
                None
            }
            FanOut::Usual | FanOut::Jumped => None,
        }
    }

    /// In no order.
    fn present(&self) -> &[u32] {
        &self.recent[..self.filled]
    }

    /// What was the present is the past, all at once.
    fn age_all(&mut self) {
        for leases in &self.recent[..self.filled] {
            self.before.record(*leases, self.last);
        }
        self.filled = 0;
        self.next = 0;
    }
}

#[derive(Debug, Clone)]
struct Feature {
    name: Arc<str>,
    checkouts: u64,
    requests: u64,
    jumps: u64,
    wait: Times,
    hold: Times,
    leases: Learnt,
    used: Learnt,
    residence: Learnt,
    peak: Learnt,
    nested: Learnt,
    /// The longest that a request idled that was taken to be over.
    pause: Duration,
    course: Course,
}

impl Feature {
    fn new(name: Arc<str>, now: Instant) -> Box<Self> {
        let nothing = Learnt::new(now);
        Box::new(Self {
            name,
            checkouts: 0,
            requests: 0,
            jumps: 0,
            wait: Times::default(),
            hold: Times::default(),
            leases: nothing.clone(),
            used: nothing.clone(),
            residence: nothing.clone(),
            peak: nothing.clone(),
            nested: nothing,
            pause: Duration::ZERO,
            course: Course::new(now),
        })
    }
}

/// All features of one destination.
#[derive(Debug, Clone)]
pub(crate) struct Features {
    ids: HashMap<Arc<str>, FeatureId>,
    features: Vec<Box<Feature>>,
}

impl Features {
    pub(crate) fn new(now: Instant) -> Self {
        let names: [Arc<str>; 2] = ["other".into(), "untagged".into()];
        let ids = [FeatureId::OTHER, FeatureId::UNTAGGED];
        Self {
            ids: names.iter().cloned().zip(ids).collect(),
            features: names.into_iter().map(|name| Feature::new(name, now)).collect(),
        }
    }

    /// The place of the feature `name`, or that of `other`. Hashes the name: an operation is
    /// asked for its feature once ([`crate::cost::CostId::feature`]).
    pub(crate) fn find(&mut self, name: &Arc<str>, now: Instant) -> FeatureId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        if name.is_empty() {
            return FeatureId::UNTAGGED;
        }
        match u16::try_from(self.features.len()) {
            Ok(next) if self.ids.len() < NAMED + 2 => {
                self.features.push(Feature::new(Arc::clone(name), now));
                self.ids.insert(Arc::clone(name), FeatureId(next));
                FeatureId(next)
            }
            _ => FeatureId::OTHER,
        }
    }

    /// It got a lease after `waited`.
    pub(crate) fn lent(&mut self, id: FeatureId, waited: Duration) {
        let feature = &mut self.features[id.index()];
        feature.checkouts += 1;
        feature.wait.record(waited, &WAIT_BUCKETS);
    }

    /// It gave a lease back after `held`.
    pub(crate) fn returned(&mut self, id: FeatureId, held: Duration) {
        self.features[id.index()].hold.record(held, &HOLD_BUCKETS);
    }

    /// A request that was taken to be over went on after `pause`.
    pub(crate) fn paused(&mut self, id: FeatureId, pause: Duration) {
        let feature = &mut self.features[id.index()];
        feature.pause = feature.pause.max(pause);
    }

    /// The longest of such pauses.
    pub(crate) fn longest_pause(&self, id: FeatureId) -> Duration {
        self.features[id.index()].pause
    }

    /// A request is over. Says so if that makes the feature's fan-out jump; `other` and
    /// `untagged` are many features, so theirs cannot.
    pub(crate) fn request_over(
        &mut self,
        id: FeatureId,
        figures: &RequestFigures,
        now: Instant,
    ) -> Option<FanOutJump> {
        let feature = &mut self.features[id.index()];
        feature.requests += 1;
        feature.leases.record(figures.leases, now);
        feature.used.record(micros(figures.used), now);
        feature.residence.record(micros(figures.residence), now);
        feature.peak.record(figures.peak, now);
        feature.nested.record(figures.nested, now);
        if id == FeatureId::OTHER || id == FeatureId::UNTAGGED {
            return None;
        }
        let (before, present) = feature.course.request(figures.leases, now)?;
        feature.jumps += 1;
        Some(FanOutJump { feature: Arc::clone(&feature.name), before, now: present })
    }

    /// What its next request will probably take; `None` before the first was over.
    pub(crate) fn expected(&self, id: FeatureId) -> Option<Expected> {
        let feature = &self.features[id.index()];
        (!feature.leases.is_empty()).then(|| Expected {
            used: as_time(feature.used.mean()),
            used_p95: as_time(feature.used.percentiles().p95),
            residence: as_time(feature.residence.mean()),
            leases: feature.leases.mean(),
            peak: feature.peak.mean(),
            nested: whole(feature.nested.percentiles().most),
            worth: feature.leases.worth(),
        })
    }

    /// All that ever had a lease or a request.
    pub(crate) fn snapshot(&self) -> Vec<FeatureSnapshot> {
        let all = self.features.iter().map(|feature| &**feature);
        all.filter(|feature| feature.checkouts > 0 || feature.requests > 0)
            .map(Feature::snapshot)
            .collect()
    }
}

impl Feature {
    fn snapshot(&self) -> FeatureSnapshot {
        let seconds = |learnt: &Learnt| figure(learnt, 1e-6);
        let counts = |learnt: &Learnt| figure(learnt, 1.0);
        FeatureSnapshot {
            feature: Arc::clone(&self.name),
            checkouts: self.checkouts,
            requests: self.requests,
            fan_out_jumps: self.jumps,
            wait: self.wait.snapshot(&WAIT_BUCKETS),
            hold: self.hold.snapshot(&HOLD_BUCKETS),
            leases: counts(&self.leases),
            used: seconds(&self.used),
            residence: seconds(&self.residence),
            peak: counts(&self.peak),
            nested: counts(&self.nested),
        }
    }
}

fn figure(learnt: &Learnt, unit: f64) -> Figure {
    let percentiles = learnt.percentiles();
    Figure {
        mean: learnt.mean() * unit,
        p95: percentiles.p95 * unit,
        most: percentiles.most * unit,
    }
}

/// A small number of connections, rounded up.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 2³² by construction, and a cast saturates"
)]
fn whole(count: f64) -> u32 {
    count.ceil() as u32
}

#[cfg(test)]
mod tests;
