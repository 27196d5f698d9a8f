//! What was learnt about one quantity: its mean and how it is spread, the newer the heavier.
//!
//! A value counts half as much after five minutes or 50 later values, whichever is slower,
//! so that a quantity seen a thousand times a second forgets by time, and one seen twice a
//! day by number. Nothing is aged in place: each new value weighs a little more than the one
//! before, and only when the weights grow huge all are divided. Percentiles are read from 64
//! buckets, two to the octave, and kept until an eighth more was seen, so
//! [`Learnt::record`] costs a few additions.
//!
//! Values are whole numbers: microseconds (up to 71 minutes) or counts. Asks no clock.

use std::time::{Duration, Instant};

/// A value this old counts half, unless fewer than [`HALF_LIFE_VALUES`] came after it.
const HALF_LIFE: Duration = Duration::from_secs(300);
/// Values within so short a time weigh the same.
const STEP: Duration = Duration::from_millis(10);
/// A value that so many followed counts half, unless it is younger than [`HALF_LIFE`].
const HALF_LIFE_VALUES: f64 = 50.0;
/// Two to the octave.
pub(crate) const BUCKETS: usize = 64;
/// When the newest value weighs this, all are divided by it. A power of two, so dividing
/// rounds nothing.
const HEAVIEST: f64 = 1_099_511_627_776.0;
/// What weighs less than this part of a new value is forgotten: a single one after eight
/// half-lives.
const FORGOTTEN: f64 = 1.0 / 256.0;

/// Where values of this kind lie, in their unit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    /// The highest that is not forgotten.
    pub(crate) most: f64,
}

/// Mean and percentiles of one quantity.
#[derive(Debug, Clone)]
pub(crate) struct Learnt {
    /// Of the next value, if it came at once.
    weight: f64,
    total: f64,
    /// Weight times value, summed up.
    sum: f64,
    last: Instant,
    /// Values before this weigh as much as the last.
    ages_at: Instant,
    recorded: u64,
    /// The percentiles are computed anew with this many values.
    computed_at: u64,
    percentiles: Percentiles,
    buckets: [f64; BUCKETS],
}

impl Learnt {
    /// Nothing is known yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            weight: 1.0,
            total: 0.0,
            sum: 0.0,
            last: now,
            ages_at: now + STEP,
            recorded: 0,
            computed_at: 1,
            percentiles: Percentiles::default(),
            buckets: [0.0; BUCKETS],
        }
    }

    /// One more value was seen.
    #[inline]
    pub(crate) fn record(&mut self, value: u32, now: Instant) {
        if self.ages_at <= now {
            self.age(now);
        }
        let exact = f64::from(value);
        self.total += self.weight;
        self.sum += self.weight * exact;
        self.buckets[bucket(value)] += self.weight;
        self.recorded += 1;
        if self.recorded < self.computed_at {
            self.percentiles.most = self.percentiles.most.max(exact);
        } else {
            self.recompute();
        }
    }

    /// The next time is when an eighth of all values is newer, or 64 of them are.
    #[inline(never)]
    fn recompute(&mut self) {
        self.percentiles = self.compute();
        self.computed_at = self.recorded + self.recorded.div_ceil(7).clamp(1, 64);
    }

    /// What was seen before weighs less from now on.
    #[inline(never)]
    fn age(&mut self, now: Instant) {
        let aged = now.saturating_duration_since(self.last).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.last = now;
        self.ages_at = now + STEP;
        self.weight *= power_of_two(aged.min(1.0 / HALF_LIFE_VALUES));
        if self.weight > HEAVIEST {
            self.lighten();
        }
    }

    fn lighten(&mut self) {
        let numbers = [&mut self.weight, &mut self.total, &mut self.sum];
        for number in numbers.into_iter().chain(&mut self.buckets) {
            *number /= HEAVIEST;
        }
    }

    /// How many values this knowledge is worth: those seen, less what was forgotten.
    pub(crate) fn worth(&self) -> f64 {
        self.total / self.weight
    }

    /// Its part, 0 to 1, beside something that is worth `others` values.
    pub(crate) fn part_beside(&self, others: f64) -> f64 {
        self.total / (self.total + others * self.weight)
    }

    /// Were any values seen?
    pub(crate) fn is_empty(&self) -> bool {
        self.recorded == 0
    }

    /// The decayed mean; 0 before the first value.
    pub(crate) fn mean(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.sum / self.total }
    }

    /// Percentiles as of an eighth of the values (64 at the most) ago; zeros before the first.
    pub(crate) fn percentiles(&self) -> &Percentiles {
        &self.percentiles
    }

    /// One pass over the buckets. Within a bucket values are taken as spread evenly.
    fn compute(&self) -> Percentiles {
        let mut found = Percentiles::default();
        let wanted = [
            (0.50, &mut found.p50),
            (0.75, &mut found.p75),
            (0.95, &mut found.p95),
            (0.99, &mut found.p99),
        ];
        let mut wanted = wanted.into_iter().peekable();
        let mut below = 0.0;
        for (index, weight) in self.buckets.iter().copied().enumerate() {
            if weight <= 0.0 {
                continue;
            }
            let (low, high) = (lowest(index), lowest(index + 1) - 1.0);
            while let Some((part, place)) =
                wanted.next_if(|(part, _)| part * self.total <= below + weight)
            {
                *place = low + (high - low) * ((part * self.total - below) / weight).max(0.0);
            }
            below += weight;
            if weight >= FORGOTTEN * self.weight {
                found.most = high;
            }
        }
        // What rounding left above the sum of all buckets is in the last of them.
        for (_, place) in wanted {
            *place = found.most;
        }
        found
    }
}

/// A time as a value: whole microseconds, at most 71 minutes.
pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// A value as a time again.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds up to 2³², and a cast saturates"
)]
pub(crate) fn as_time(micros: f64) -> Duration {
    Duration::from_nanos((micros * 1e3 + 0.5) as u64)
}

/// The bucket that counts `value`: 0, 1, 2, 3, 4–5, 6–7, 8–11, 12–15, 16–23, …
pub(crate) fn bucket(value: u32) -> usize {
    let index = match value.checked_ilog2() {
        None | Some(0) => value,
        Some(octave) => 2 * octave + ((value >> (octave - 1)) & 1),
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The lowest value that `bucket` counts.
fn lowest(bucket: usize) -> f64 {
    let index = u32::try_from(bucket).unwrap_or(u32::MAX).min(64);
    match index {
        0 | 1 => f64::from(index),
        _ => f64::from(2 + index % 2) * f64::from(1_u32 << (index / 2 - 1)),
    }
}

/// `2^x` for small `x`: the series up to the third power is exact to 10⁻⁸ below 1/50.
fn power_of_two(x: f64) -> f64 {
    let y = x * std::f64::consts::LN_2;
    1.0 + y * (1.0 + y * (0.5 + y / 6.0))
}

#[cfg(test)]
mod tests {
    use forebay_seam::random::Dice;
    use forebay_seam::time;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_spans_it() {
        let edges = (0..32).flat_map(|bit| [(1_u32 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u32::MAX, 5, 6, 11, 12, 1_000_000]) {
            let index = bucket(value);
            assert!(index < BUCKETS);
            assert!(lowest(index) <= f64::from(value) && f64::from(value) < lowest(index + 1));
        }
    }

    #[test]
    fn small_counts_are_told_exactly() {
        let now = time::now();
        for count in [0, 1, 2, 3] {
            let mut learnt = Learnt::new(now);
            (0..30).for_each(|_| learnt.record(count, now));
            let told = learnt.percentiles();
            let count = f64::from(count);
            assert_eq!([told.p50, told.p95, told.p99, told.most], [count; 4]);
        }
    }

    #[test]
    fn a_change_is_learnt_within_a_few_half_lives() {
        let start = time::now();
        let mut rare = Learnt::new(start);
        // One an hour: five minutes are long over, so it forgets by number.
        for hour in 0..1_000_u32 {
            let now = start + Duration::from_secs(3600) * hour;
            rare.record(if hour < 500 { 1_000 } else { 9_000 }, now);
            if hour == 549 {
                assert!((rare.mean() - 5_000.0).abs() < 200.0, "{}", rare.mean());
            }
        }
        assert!((rare.mean() - 9_000.0).abs() < 20.0);

        // A thousand a second: 50 values are nothing, so it forgets by time.
        let mut frequent = Learnt::new(start);
        for n in 0..1_200_000_u32 {
            let now = start + Duration::from_millis(1) * n;
            frequent.record(if n < 900_000 { 1_000 } else { 9_000 }, now);
        }
        // 15 minutes of one, 5 of the other: (7/8)/2 of what is remembered to 1/2.
        let expected = (1_000.0 * 0.4375 + 9_000.0 * 0.5) / 0.9375;
        assert!((frequent.mean() - expected).abs() < 10.0, "{}", frequent.mean());
    }

    #[test]
    fn what_has_grown_huge_is_divided_and_nothing_changes() {
        let start = time::now();
        let mut learnt = Learnt::new(start);
        // 40 half-lives of 50 values each make one division; this is three.
        for n in 0..6_100_u32 {
            learnt.record(100 + n % 7, start + HALF_LIFE * n);
        }
        assert!(learnt.weight < HEAVIEST);
        assert!((learnt.mean() - 103.0).abs() < 0.2);
        let worth = HALF_LIFE_VALUES / std::f64::consts::LN_2;
        assert!((learnt.worth() - worth).abs() < 1.0, "{}", learnt.worth());
    }

    #[test]
    fn the_highest_is_forgotten_after_eight_half_lives() {
        let start = time::now();
        let mut learnt = Learnt::new(start);
        learnt.record(40, start);
        for n in 1..=380_u32 {
            learnt.record(2, start + HALF_LIFE * n);
            assert!(learnt.percentiles().most >= 40.0);
        }
        (381..700_u32).for_each(|n| learnt.record(2, start + HALF_LIFE * n));
        assert_eq!(learnt.percentiles().most, 2.0);
    }

    #[test]
    fn time_that_runs_backwards_is_time_that_stands_still() {
        let start = time::now() + Duration::from_secs(1_000);
        let mut learnt = Learnt::new(start);
        learnt.record(5, start - Duration::from_secs(500));
        learnt.record(5, start);
        assert!((learnt.worth() - 2.0).abs() < 1e-9);
    }

    /// The exact decayed mean and percentile, by the definition.
    fn exactly(values: &[(u32, f64)], part: f64) -> (f64, f64) {
        let mut weight = 1.0;
        let mut weighted: Vec<_> = values
            .iter()
            .map(|(value, gap)| {
                weight *= (gap / 300.0).min(1.0 / 50.0).exp2();
                (f64::from(*value), weight)
            })
            .collect();
        let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mean = weighted.iter().map(|(value, weight)| value * weight).sum::<f64>() / total;
        weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut below = 0.0;
        for (value, weight) in &weighted {
            below += weight;
            if below >= part * total - 1e-9 {
                return (mean, *value);
            }
        }
        (mean, weighted.last().unwrap().0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn mean_is_exact_and_percentiles_are_within_half_an_octave(
            seed in 0..u64::MAX, count in 1..600_usize, spread in 0.1..6.0_f64, gap in 0.0..20.0_f64,
        ) {
            let mut dice = Dice::new(seed);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let values: Vec<_> = (0..count)
                .map(|_| (10_f64.powf(spread * dice.unit()) as u32, gap * dice.unit()))
                .collect();
            let mut now = time::now();
            let mut learnt = Learnt::new(now);
            for (value, gap) in &values {
                now += Duration::from_secs_f64(*gap);
                learnt.record(*value, now);
            }
            // The first gap counts for nobody: weights are relative.
            let told = learnt.compute();
            for (part, told) in [(0.5, told.p50), (0.75, told.p75), (0.95, told.p95), (0.99, told.p99)] {
                let (mean, exact) = exactly(&values, part);
                prop_assert!((learnt.mean() - mean).abs() <= 1e-4 * mean.max(1.0));
                prop_assert!(told <= 1.5 * exact + 1.0 && exact <= 1.5 * told + 1.0,
                    "p{part}: {told} told, {exact} exact");
            }
        }
    }
}
