//! What demand will be soon, from what it was: in the same hour of the weeks before, and in
//! the last minutes.
//!
//! Demand is in erlangs, connections that are lent or waited for, averaged over time. Plain
//! arithmetic: the moment and the hour are arguments. Memory is bounded: one hour's buckets,
//! and four numbers for each hour of the week.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Demand is averaged over this.
const BUCKET: Duration = Duration::from_secs(300);
/// Weeks that are remembered.
const WEEKS: usize = 4;
const HOURS: usize = 7 * 24;
/// Buckets an hour needs to be remembered: half of it.
const ENOUGH: usize = 6;
/// Buckets before anything is said of where demand goes.
const SETTLED: u32 = 3;
/// Room above what is foreseen: connections that are busy all the time make a queue.
const HEADROOM: f64 = 1.2;
/// Weights of the newest bucket in level and trend (Holt 1957, "Forecasting seasonals and
/// trends by exponentially weighted moving averages").
const LEVEL: f64 = 0.5;
const TREND: f64 = 0.3;
/// Buckets to look ahead: the one under way, and the next.
const AHEAD: f64 = 2.0;

/// An hour of the week, 0 to 167, from Monday midnight on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HourOfWeek(u8);

impl HourOfWeek {
    /// Hour `hour` of day `day`, both from 0, Monday first; larger ones start over.
    pub(crate) fn new(day: u8, hour: u8) -> Self {
        Self((day % 7) * 24 + hour % 24)
    }

    fn index(self) -> usize {
        usize::from(self.0) % HOURS
    }
}

/// The budget that demand asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Connections.
    pub budget: u32,
    /// From what it follows.
    pub because: Because,
}

/// From what an advice follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// The busiest of the same hours in up to four weeks before.
    SameHour,
    /// Where the last minutes lead.
    Trend,
}

/// The bucket that is being filled.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    since: Instant,
    hour: HourOfWeek,
    /// Until when it is filled, and what demand has been since.
    until: Instant,
    demand: f64,
    /// Connection-seconds.
    area: f64,
}

#[derive(Debug, Clone, Copy)]
struct Holt {
    level: f64,
    trend: f64,
    buckets: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    bucket: Option<Bucket>,
    /// The averages of the hour under way.
    this_hour: Vec<f64>,
    /// 95th percentiles of the buckets of each hour of the week, newest last.
    weeks: Box<[VecDeque<f64>]>,
    holt: Option<Holt>,
}

impl Default for Forecast {
    fn default() -> Self {
        Self {
            bucket: None,
            this_hour: Vec::new(),
            weeks: vec![VecDeque::new(); HOURS].into_boxed_slice(),
            holt: None,
        }
    }
}

impl Forecast {
    /// Demand is `demand` from `now` on; it is `hour`.
    pub(crate) fn observe(&mut self, demand: f64, hour: HourOfWeek, now: Instant) {
        let fresh = Bucket { since: now, hour, until: now, demand, area: 0.0 };
        let Some(mut bucket) = self.bucket.filter(|b| now < b.until + BUCKET) else {
            // Nobody looked for long: what was between is not known, and not made up.
            self.holt = None;
            self.this_hour.clear();
            self.bucket = Some(fresh);
            return;
        };
        let end = bucket.since + BUCKET;
        if now >= end {
            let rest = end.saturating_duration_since(bucket.until);
            let area = bucket.area + bucket.demand * rest.as_secs_f64();
            self.close(area / BUCKET.as_secs_f64(), bucket.hour, hour);
            bucket = Bucket { since: end, hour, until: end, area: 0.0, ..bucket };
        }
        let passed = now.saturating_duration_since(bucket.until);
        bucket.area += bucket.demand * passed.as_secs_f64();
        self.bucket = Some(Bucket { until: now, demand, ..bucket });
    }

    fn close(&mut self, average: f64, hour: HourOfWeek, next: HourOfWeek) {
        if self.this_hour.len() < 2 * ENOUGH {
            self.this_hour.push(average);
        }
        if next != hour {
            let mut buckets = std::mem::take(&mut self.this_hour);
            if buckets.len() >= ENOUGH {
                buckets.sort_by(f64::total_cmp);
                let weeks = &mut self.weeks[hour.index()];
                if weeks.len() == WEEKS {
                    weeks.pop_front();
                }
                weeks.push_back(percentile_95(&buckets));
            }
        }
        self.holt = Some(match self.holt {
            None => Holt { level: average, trend: 0.0, buckets: 1 },
            Some(Holt { level: before, trend, buckets }) => {
                let level = LEVEL * average + (1.0 - LEVEL) * (before + trend);
                let trend = TREND * (level - before) + (1.0 - TREND) * trend;
                Holt { level, trend, buckets: buckets.saturating_add(1) }
            }
        });
    }

    /// The budget for `hour`, within `bounds` (what is kept warm, and the limit): 1.2 times
    /// the larger of what the same hour took in up to four weeks before and where the last
    /// minutes lead. `None` while too little was seen.
    pub(crate) fn advice(&self, hour: HourOfWeek, bounds: &RangeInclusive<u32>) -> Option<Advice> {
        let same_hour = self.weeks[hour.index()].iter().copied().reduce(f64::max);
        let trend = self
            .holt
            .filter(|holt| holt.buckets >= SETTLED)
            .map(|holt| (holt.level + AHEAD * holt.trend).max(0.0));
        let (erlangs, because) = match (same_hour, trend) {
            (Some(hour), Some(trend)) if trend > hour => (trend, Because::Trend),
            (Some(hour), _) => (hour, Because::SameHour),
            (None, Some(trend)) => (trend, Because::Trend),
            (None, None) => return None,
        };
        let budget = seats(erlangs * HEADROOM).max(*bounds.start()).min(*bounds.end());
        Some(Advice { budget, because })
    }
}

/// The nearest rank, of values in order.
fn percentile_95(sorted: &[f64]) -> f64 {
    let rank = (sorted.len() * 95).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Whole connections that carry `erlangs`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the largest number of connections"
)]
fn seats(erlangs: f64) -> u32 {
    // What is a hair above a whole number comes from adding up.
    (erlangs - 1e-6).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
