//! What holds cost, feature by feature, and what would save it.
//!
//! Pure arithmetic on the sums of the last hour. Always true: what splitting or parking is
//! said to save was seen to be held beside calls; nothing is extrapolated but to the hour.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::counts::{Counts, Place, Seen, Taken};
use super::hour;
use super::told::Subject;

/// Places that are shown of a feature.
const SHOWN: usize = 3;
const HOUR: f64 = 3_600.0;

/// Connections occupied on average: L = λ × W (Little's law; J. D. C. Little, "A Proof for the
/// Queuing Formula: L = λW", Operations Research 9(3), 1961). `rate` per second; `hold` is how
/// long each takes.
pub fn connections_occupied(rate: f64, hold: Duration) -> f64 {
    rate * hold.as_secs_f64()
}

/// What the holds of all features cost, the worst first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldReport {
    /// What the figures are of, seconds: the last 55 to 60 minutes, or all since the start.
    pub covered: f64,
    /// Features whose transactions idled beside calls of their requests.
    pub features: Vec<FeatureAdvice>,
}

/// What the holds of one feature cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureAdvice {
    /// The endpoint, agent or tool.
    pub feature: Arc<str>,
    /// Transactions that idled beside a call, in an hour.
    pub transactions_per_hour: f64,
    /// How long one of them held a connection beside calls, seconds, on average.
    pub hold: f64,
    /// How long it had held one before, seconds, on average.
    pub before: f64,
    /// And after, seconds, on average.
    pub after: f64,
    /// What that costs.
    pub cost: Occupied,
    /// What it costs no more if each transaction ends before the call.
    pub splitting_saves: Occupied,
    /// What parking would save: of what is held, that for which a transaction was proven to be
    /// parkable. Nothing where parking is off, or no transaction was parkable.
    pub parking_saves: Occupied,
    /// What parking has saved.
    pub parking_saved: Occupied,
    /// Where it holds most, the worst first.
    pub worst: Vec<WorstPlace>,
}

/// Connections that serve nobody.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Occupied {
    /// Seconds of connections, in an hour.
    pub connection_seconds_per_hour: f64,
    /// Connections, on average.
    pub connections: f64,
}

/// A statement, and the call that its transaction waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstPlace {
    /// The last statement before the call, without literals.
    pub statement: Arc<str>,
    /// The destination called.
    pub destination: Arc<str>,
    /// What is called there.
    pub operation: Arc<str>,
    /// The model or tool, where it is known.
    #[serde(flatten)]
    pub subject: Option<Subject>,
    /// Overlaps in an hour.
    pub overlaps_per_hour: f64,
    /// Seconds of connections in an hour; calls beside each other count each.
    pub connection_seconds_per_hour: f64,
}

/// What `counts` of the hour before `now` come to.
pub(super) fn report(counts: &Counts, now: Instant) -> HoldReport {
    let covered = hour::covered(counts.start, now).as_secs_f64();
    let mut places: Vec<_> = counts.places(now).filter(|(_, seen)| seen.overlaps > 0).collect();
    places.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.held));
    let mut features: Vec<_> = counts
        .last_hour(now)
        .filter(|(_, taken)| taken.transactions > 0 || !taken.held.is_zero())
        .map(|(feature, taken)| advise(feature, taken, &places, covered))
        .collect();
    features.sort_by(|a, b| {
        let cost = |one: &FeatureAdvice| one.cost.connection_seconds_per_hour;
        cost(b).total_cmp(&cost(a)).then_with(|| a.feature.cmp(&b.feature))
    });
    HoldReport { covered, features }
}

/// `count` as a number with fractions; of more than 2^32 it is that.
fn number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

fn rate(count: f64, covered: f64) -> f64 {
    if covered > 0.0 { count / covered } else { 0.0 }
}

fn mean(total: Duration, count: u64) -> Duration {
    total.div_f64(number(count.max(1)))
}

fn advise(
    feature: &Arc<str>,
    taken: Taken,
    places: &[(&Place, Seen)],
    covered: f64,
) -> FeatureAdvice {
    // One that has idled since before the hour began is one all the same.
    let transactions = taken.transactions.max(1);
    let arrivals = rate(number(transactions), covered);
    let occupied = |total: Duration| Occupied {
        connection_seconds_per_hour: rate(total.as_secs_f64(), covered) * HOUR,
        connections: connections_occupied(arrivals, mean(total, transactions)),
    };
    let worst = places.iter().filter(|(place, _)| place.feature == *feature).take(SHOWN);
    FeatureAdvice {
        feature: Arc::clone(feature),
        transactions_per_hour: arrivals * HOUR,
        hold: mean(taken.held, transactions).as_secs_f64(),
        before: mean(taken.before, taken.over).as_secs_f64(),
        after: mean(taken.after, taken.over).as_secs_f64(),
        cost: occupied(taken.held),
        splitting_saves: occupied(taken.held),
        parking_saves: occupied(taken.parkable),
        parking_saved: occupied(taken.parked),
        worst: worst
            .map(|(place, seen)| WorstPlace {
                statement: Arc::clone(&place.statement),
                destination: Arc::clone(&place.destination),
                operation: Arc::clone(&place.operation),
                subject: place.subject.clone(),
                overlaps_per_hour: rate(number(seen.overlaps), covered) * HOUR,
                connection_seconds_per_hour: rate(seen.held.as_secs_f64(), covered) * HOUR,
            })
            .collect(),
    }
}
