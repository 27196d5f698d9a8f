//! Shedding: from 80 % utilisation on a class refuses expensive operations first (B3).
//!
//! A *kind* is an operation of the class; kinds are ordered by their estimated cost. The rank
//! `q` of one is the share of the connection time asked for in the last minute that comes
//! from cheaper kinds, so a class of a single kind has nothing to shed. A kind is admitted
//! while `q ≤ θ`, and over the next tenth of rank the part that is admitted falls to none, so
//! that what lies at the threshold is thinned out and not switched on and off:
//!
//! - by the curve: `θ(U) = 1` up to `shed_from`, then linear to 0.10 at `U = 1`, where `U` is
//!   the utilisation averaged over a second (exponentially), with a play of 0.03: θ falls
//!   with U at once, and rises only after U has fallen by more;
//! - by feed-forward, while the curve sheds: the cheapest kinds that are asked for at no more
//!   than 95 % of the class's reach pass, others do not, so that it does not take a full pool
//!   to notice that more is asked for than can be done.
//!
//! Ranks count what is asked for, not what was admitted: otherwise a kind, once shed, would
//! look ever dearer, and come back only when all is over. Unknown costs pass, and so does
//! each kind once in ten seconds, so that its cost can be learnt anew. Who is never shed
//! (holders, admitted requests, core) is the caller's to know.
//!
//! Asks no clock. Constant time but for a kind's first visit; memory of [`ENTRIES`] moments
//! at the most, taken when there is something to shed.

use std::time::{Duration, Instant};

use forebay_seam::random::Dice;

use crate::cost::{CostId, ENTRIES};
use crate::learnt::{BUCKETS, bucket, micros};

/// θ when all is in use: the cheapest tenth passes always.
const LEAST: f64 = 0.10;
/// Utilisation has to fall by more than this before θ rises.
const PLAY: f64 = 0.03;
/// Ranks over which a kind goes from admitted to shed.
const SOFTNESS: f64 = 0.10;
/// The part of its reach that a class may be asked for before feed-forward thins out.
const PLANNED: f64 = 0.95;
/// Utilisation below that of shedding at which pressure begins.
const FORETOLD: f64 = 0.20;
/// Utilisation is looked at this often, at the most.
const GRAIN: Duration = Duration::from_millis(1);
/// Utilisation is averaged over this.
const UTILISATION_OVER: Duration = Duration::from_secs(1);
/// Ranks are averaged over this.
const RANKS_OVER: Duration = Duration::from_secs(60);
/// What is asked for is averaged over this.
const ASKED_OVER: Duration = Duration::from_secs(5);
/// Both fade in steps of this, at the least.
const FADED_EVERY: Duration = Duration::from_millis(10);
/// One of each kind passes this often.
const LEAST_FLOW: Duration = Duration::from_secs(10);
/// When the newest weighs this, all are divided by it (a power of two: nothing is rounded).
const HEAVIEST: f64 = 1_099_511_627_776.0;

/// What sums may be off by.
const ROUNDING: f64 = 1e-9;

/// May it come in?
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Admit,
    Shed {
        /// How busy the class is, 0 to 1.
        utilisation: f64,
    },
}

/// A part of the whole that follows what is told, averaged exponentially over a time.
#[derive(Debug, Clone, Copy)]
struct Utilisation {
    average: f64,
    /// Since `since`.
    present: f64,
    since: Instant,
    /// The average is brought up to date at the first change after this.
    settles: Instant,
}

impl Utilisation {
    /// Exact for a quantity that is constant between changes that are a grain apart.
    fn at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since);
        self.present + (self.average - self.present) * faded(passed, UTILISATION_OVER)
    }

    /// What it cannot be above until the next change.
    fn most(&self) -> f64 {
        self.average.max(self.present)
    }

    /// Changes that follow each other within [`GRAIN`] count as the last of them: which one
    /// that is, is as likely as it lasted long.
    fn change(&mut self, present: f64, now: Instant) {
        if self.settles <= now {
            self.average = self.at(now);
            self.since = now;
            self.settles = now + GRAIN;
        }
        self.present = present;
    }
}

/// Connection time asked for by cost, the newer the heavier: sums of all cheaper in six
/// additions (Fenwick, "A new data structure for cumulative frequency tables", 1994).
#[derive(Debug, Clone)]
struct Ranks {
    sums: [f64; BUCKETS + 1],
    weight: f64,
}

impl Ranks {
    fn new() -> Self {
        Self { sums: [0.0; BUCKETS + 1], weight: 1.0 }
    }

    fn fade(&mut self, passed: Duration) {
        self.weight /= faded(passed, RANKS_OVER);
        if !self.weight.is_finite() {
            // A silence so long that nothing is left of before.
            *self = Self::new();
        } else if self.weight > HEAVIEST {
            self.sums.iter_mut().for_each(|sum| *sum /= HEAVIEST);
            self.weight /= HEAVIEST;
        }
    }

    fn add(&mut self, bucket: usize, cost: f64) {
        let mut index = bucket + 1;
        while let Some(sum) = self.sums.get_mut(index) {
            *sum += cost * self.weight;
            index += index & index.wrapping_neg();
        }
    }

    /// The share of what is cheaper than `bucket`.
    fn below(&self, bucket: usize) -> f64 {
        let total = self.sum(BUCKETS);
        if total > 0.0 { (self.sum(bucket) / total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Of the first `count` buckets.
    fn sum(&self, count: usize) -> f64 {
        let mut sum = 0.0;
        let mut index = count;
        while index > 0 {
            sum += self.sums[index];
            index &= index - 1;
        }
        sum
    }
}

/// The shedding of one class.
#[derive(Debug, Clone)]
pub(crate) struct Shedding {
    from: f64,
    utilisation: Utilisation,
    /// Utilisation with its play: what θ goes by.
    felt: f64,
    reach: f64,
    ranks: Ranks,
    /// Connection-seconds asked for, faded.
    asked: f64,
    /// Up to when ranks and what was asked for are faded, and when they are faded again.
    faded: Instant,
    fades: Instant,
    /// When one of each kind passed last while it was being shed, by its place; empty before
    /// anything was.
    passed: Vec<Option<(u32, Instant)>>,
}

impl Shedding {
    /// Sheds from another utilisation on, 0 to 1.
    pub(crate) fn begin_at(&mut self, from: f64) {
        self.from = from;
    }

    /// Nothing is in use, of nothing. `from` is a utilisation, 0 to 1.
    pub(crate) fn new(from: f64, now: Instant) -> Self {
        Self {
            from: from.clamp(0.0, 0.99),
            utilisation: Utilisation { average: 0.0, present: 0.0, since: now, settles: now },
            felt: 0.0,
            reach: 0.0,
            ranks: Ranks::new(),
            asked: 0.0,
            faded: now,
            fades: now + FADED_EVERY,
            passed: Vec::new(),
        }
    }

    /// From now on `leased` of the `reach` connections that the class can get are in use.
    #[inline]
    pub(crate) fn observe(&mut self, leased: u32, reach: u32, now: Instant) {
        self.reach = f64::from(reach);
        let part = if leased >= reach { 1.0 } else { f64::from(leased) / self.reach };
        // A class that can get nothing and has nothing is not busy.
        self.utilisation.change(if reach == 0 && leased == 0 { 0.0 } else { part }, now);
        self.felt = self.felt_by(self.utilisation.average);
    }

    /// How busy the class is, 0 to 1, averaged over a second.
    pub(crate) fn utilisation(&self, now: Instant) -> f64 {
        self.utilisation.at(now)
    }

    /// How close the class is to shedding, 0 to 1: 0 up to a utilisation 0.20 below
    /// `shed_from`, 0.5 where shedding begins, and from there
    /// `0.5 + 0.5 · (1 − θ) / 0.90`, so that it is 1 when all that can be shed is.
    pub(crate) fn pressure(&self, now: Instant) -> f64 {
        let felt = self.felt_by(self.utilisation.at(now));
        if felt <= self.from {
            return (0.5 * (felt - self.from + FORETOLD) / FORETOLD).clamp(0.0, 0.5);
        }
        let asked = self.asked * faded(now.saturating_duration_since(self.faded), ASKED_OVER);
        let threshold = self.curve(felt).min(self.planned(asked));
        (0.5 + 0.5 * (1.0 - threshold) / (1.0 - LEAST)).min(1.0)
    }

    /// May work of this `kind`, at this `cost`, come in? Asking counts as demand.
    pub(crate) fn verdict(
        &mut self,
        cost: Option<Duration>,
        kind: CostId,
        now: Instant,
        dice: &mut Dice,
    ) -> Verdict {
        let Some(cost) = cost else { return Verdict::Admit };
        self.fade(now);
        let micros = micros(cost);
        let (bucket, seconds) = (bucket(micros), f64::from(micros) * 1e-6);
        self.ranks.add(bucket, seconds);
        self.asked += seconds;

        // Below that it sheds nothing, whatever the average is by now.
        if self.felt <= self.from && self.utilisation.most() <= self.from {
            return Verdict::Admit;
        }
        let utilisation = self.utilisation.at(now);
        self.felt = self.felt_by(utilisation);
        if self.felt <= self.from {
            return Verdict::Admit;
        }
        let part = self.admitted_part(bucket);
        if part >= 1.0 {
            return Verdict::Admit;
        }
        if dice.unit() < part || self.is_due(kind, now) {
            self.has_passed(kind, now);
            return Verdict::Admit;
        }
        Verdict::Shed { utilisation }
    }

    /// Fades ranks and what was asked for, in steps that are long against a verdict and short
    /// against both.
    fn fade(&mut self, now: Instant) {
        if self.fades <= now {
            let passed = now.saturating_duration_since(self.faded);
            self.ranks.fade(passed);
            self.asked *= faded(passed, ASKED_OVER);
            self.faded = now;
            self.fades = now + FADED_EVERY;
        }
    }

    /// The part of the work in this bucket that comes in now.
    fn admitted_part(&self, bucket: usize) -> f64 {
        let rank = self.ranks.below(bucket);
        let curve = (self.curve(self.felt) + SOFTNESS - rank) / SOFTNESS;
        // What is planned ends within a bucket: of that one comes in what still fits.
        let planned = self.planned(self.asked);
        let fits = match self.ranks.below(bucket + 1) - rank {
            _ if planned >= 1.0 => 1.0,
            own if own > ROUNDING => (planned - rank) / own,
            _ if rank + ROUNDING < planned => 1.0,
            _ => 0.0,
        };
        curve.min(fits).clamp(0.0, 1.0)
    }

    /// θ by utilisation.
    fn curve(&self, utilisation: f64) -> f64 {
        let above = (utilisation - self.from) / (1.0 - self.from);
        (1.0 - (1.0 - LEAST) * above).clamp(LEAST, 1.0)
    }

    /// θ by what is asked for (faded connection-seconds): the share that 95 % of the reach
    /// can serve.
    fn planned(&self, asked: f64) -> f64 {
        let rate = asked / ASKED_OVER.as_secs_f64();
        if rate > 0.0 { (PLANNED * self.reach / rate).min(1.0) } else { 1.0 }
    }

    /// Follows utilisation up at once, and down once it is further away than the play.
    fn felt_by(&self, utilisation: f64) -> f64 {
        self.felt.clamp(utilisation, utilisation + PLAY)
    }

    fn is_due(&self, kind: CostId, now: Instant) -> bool {
        let (place, generation) = kind.place();
        match self.passed.get(place) {
            Some(Some((same, at))) if *same == generation => {
                now.saturating_duration_since(*at) >= LEAST_FLOW
            }
            _ => true,
        }
    }

    fn has_passed(&mut self, kind: CostId, now: Instant) {
        if self.passed.is_empty() {
            self.passed = vec![None; ENTRIES + 1];
        }
        let (place, generation) = kind.place();
        if let Some(passed) = self.passed.get_mut(place) {
            *passed = Some((generation, now));
        }
    }
}

/// What is left after `passed` of something that fades over `time`: `e^(−passed / time)`.
/// Most moments are close to the last one, where four terms of the series are exact to 10⁻⁹.
fn faded(passed: Duration, time: Duration) -> f64 {
    let x = passed.as_secs_f64() / time.as_secs_f64();
    if x < 0.01 { 1.0 - x * (1.0 - x * (0.5 - x / 6.0)) } else { (-x).exp() }
}

#[cfg(test)]
mod tests;
