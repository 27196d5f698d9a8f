//! What happens to the calls of one destination, counted where it happens.
//!
//! A [`Journey`] is one call, from its arrival to the end of its answer. It is counted once,
//! when it is dropped, as what was last said of it; nothing said means that its client left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_pool::rate::RateSnapshot;
use forebay_pool::stats::{HOLD_BUCKETS, Spread};
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::StatusCode;

use crate::problem::Reason;
use crate::stats::{AnswerCounts, DestinationSnapshot, FeatureCount, RefusalCount};

/// Features told apart for each destination; what comes after is counted as `other`.
const FEATURES: usize = 100;

/// How often Forebay itself answered, by reason.
pub(crate) struct Refusals(Vec<AtomicU64>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, reason: Reason) {
        let place = Reason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that happened.
    pub(crate) fn snapshot(&self) -> Vec<RefusalCount> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let all = Reason::ALL.iter().zip(counts);
        all.filter(|(_, count)| *count > 0)
            .map(|(reason, count)| RefusalCount { reason: reason.code(), count })
            .collect()
    }
}

#[derive(Default)]
struct Times {
    first_byte: Spread,
    duration: Spread,
    features: HashMap<Arc<str>, (u64, Duration)>,
}

impl Times {
    fn spend(&mut self, feature: &Arc<str>, duration: Duration) {
        self.duration.record(duration);
        let spent = match self.features.get_mut(feature) {
            Some(spent) => spent,
            None => {
                let has_room = self.features.len() < FEATURES;
                let feature = if has_room { Arc::clone(feature) } else { "other".into() };
                self.features.entry(feature).or_default()
            }
        };
        spent.0 += 1;
        spent.1 += duration;
    }
}

/// The counters of one destination.
#[derive(Default)]
pub(crate) struct Meter {
    in_flight: AtomicU32,
    answers: [AtomicU64; 4],
    refusals: Refusals,
    abandoned: AtomicU64,
    cut_short: AtomicU64,
    resent: AtomicU64,
    token_exchanges: AtomicU64,
    token_failures: AtomicU64,
    throttled: AtomicU64,
    hints_ignored: AtomicU64,
    times: Mutex<Times>,
}

/// How a journey ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client left.
    Abandoned,
    /// The service answered, whatever.
    Answered,
    /// The answer broke off.
    CutShort,
    /// Forebay answered.
    Refused(Reason),
}

/// One call on its way.
pub(crate) struct Journey {
    meter: Arc<Meter>,
    began: Instant,
    feature: Arc<str>,
    outcome: Outcome,
}

impl Journey {
    /// What is known of its end so far.
    pub(crate) fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The service began to answer with `status`, `after` the call was sent.
    pub(crate) fn answered(&self, status: StatusCode, after: Duration) {
        let place = match status.as_u16() {
            100..=299 => 0,
            300..=399 => 1,
            400..=499 => 2,
            _ => 3,
        };
        if let Some(count) = self.meter.answers.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.meter.throttled.fetch_add(1, Ordering::Relaxed);
        }
        self.meter.times.lock().first_byte.record(after);
    }

    /// The call is sent once more, since nothing of it had been sent.
    pub(crate) fn resent(&self) {
        self.meter.resent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let duration = time::now().saturating_duration_since(self.began);
        let meter = &self.meter;
        meter.in_flight.fetch_sub(1, Ordering::Relaxed);
        match self.outcome {
            Outcome::Abandoned => drop(meter.abandoned.fetch_add(1, Ordering::Relaxed)),
            Outcome::CutShort => drop(meter.cut_short.fetch_add(1, Ordering::Relaxed)),
            Outcome::Refused(reason) => meter.refusals.count(reason),
            Outcome::Answered => {}
        }
        meter.times.lock().spend(&self.feature, duration);
    }
}

impl Meter {
    /// A call of `feature` has arrived.
    pub(crate) fn begin(self: &Arc<Self>, feature: Arc<str>) -> Journey {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let meter = Arc::clone(self);
        Journey { meter, began: time::now(), feature, outcome: Outcome::Abandoned }
    }

    /// A token exchange gave a token.
    pub(crate) fn token_exchanged(&self) {
        self.token_exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// A token exchange failed.
    pub(crate) fn token_failed(&self) {
        self.token_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// An agent gave so many hints that cannot be meant.
    pub(crate) fn hints_ignored(&self, count: u64) {
        if count > 0 {
            self.hints_ignored.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// One picture of `destination`'s calls, within their `limits`.
    pub(crate) fn snapshot(
        &self,
        destination: Arc<str>,
        limits: RateSnapshot,
    ) -> DestinationSnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [success, redirect, client_error, server_error] = self.answers.each_ref().map(read);
        let times = self.times.lock();
        let mut features: Vec<_> = times
            .features
            .iter()
            .map(|(feature, (calls, spent))| FeatureCount {
                feature: Arc::clone(feature),
                calls: *calls,
                seconds: spent.as_secs_f64(),
            })
            .collect();
        features.sort_by(|a, b| a.feature.cmp(&b.feature));
        DestinationSnapshot {
            destination,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            answers: AnswerCounts { success, redirect, client_error, server_error },
            refusals: self.refusals.snapshot(),
            abandoned: read(&self.abandoned),
            cut_short: read(&self.cut_short),
            resent: read(&self.resent),
            token_exchanges: read(&self.token_exchanges),
            token_failures: read(&self.token_failures),
            throttled: read(&self.throttled),
            hints_ignored: read(&self.hints_ignored),
            limits,
            first_byte: times.first_byte.snapshot(&HOLD_BUCKETS),
            duration: times.duration.snapshot(&HOLD_BUCKETS),
            features,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_pool::rate::{RateLimits, RateSettings};

    fn seen(meter: &Meter) -> DestinationSnapshot {
        meter.snapshot("llm".into(), RateLimits::new(RateSettings::default()).snapshot())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_dropped_on_its_way_was_abandoned() {
        let meter = Arc::new(Meter::default());
        let journey = meter.begin("search".into());
        assert_eq!(seen(&meter).in_flight, 1);
        time::sleep(Duration::from_secs(2)).await;
        drop(journey);
        let seen = seen(&meter);
        assert_eq!((seen.in_flight, seen.abandoned, seen.duration.count), (0, 1, 1));
        assert_eq!(seen.features[0].seconds, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_new_features_are_counted_together() {
        let meter = Arc::new(Meter::default());
        for n in 0..1_000 {
            meter.begin(n.to_string().into()).ends(Outcome::Answered);
        }
        let seen = seen(&meter);
        assert_eq!(seen.features.len(), FEATURES + 1);
        assert_eq!(seen.features.iter().map(|f| f.calls).sum::<u64>(), 1_000);
    }
}
