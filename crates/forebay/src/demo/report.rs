//! What was measured, as a table, in words and for machines. Everything said here is
//! computed from the figures of this run, also where Forebay is the slower one.

use std::time::Duration;

use serde::Serialize;

use self::cancellation_storm::CancellationStormFigures;
use self::fan_out::FanOutFigures;
use self::generation_hold::GenerationHoldFigures;
use self::retry_storm::RetryStormFigures;
use self::shown::Row;
use self::write_storm::WriteStormFigures;
use super::logins::Logins;
use super::neighbour::Neighbour;
use super::services::Counted;
use super::storm::Storm;
use super::workload::Tries;

pub(crate) mod cancellation_storm;
pub(crate) mod fan_out;
pub(crate) mod generation_hold;
pub(crate) mod retry_storm;
mod shown;
pub(crate) mod table;
mod words;
pub(crate) mod write_storm;

pub(crate) use shown::Played;

/// All scenarios, as far as they were run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The connection storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storm: Option<Sides<Figures<StormMore>>>,
    /// The noisy neighbour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neighbour: Option<Sides<Figures<NeighbourMore>>>,
    /// Questions of many queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fan_out: Option<Sides<Played<FanOutFigures>>>,
    /// Checkpoints of many agents at the same moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) write_storm: Option<Sides<Played<WriteStormFigures>>>,
    /// Overload, and clients that try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_storm: Option<Sides<Played<RetryStormFigures>>>,
    /// Tasks that are cancelled half way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancellation_storm: Option<Sides<Played<CancellationStormFigures>>>,
    /// Transactions that wait for a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation_hold: Option<GenerationHoldFigures>,
}

impl Report {
    /// Whether it has scenarios that are told without and with Forebay.
    fn has_two_sides(&self) -> bool {
        self.storm.is_some()
            || self.neighbour.is_some()
            || self.fan_out.is_some()
            || self.write_storm.is_some()
            || self.retry_storm.is_some()
            || self.cancellation_storm.is_some()
    }
}

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Sides<F> {
    /// Without Forebay.
    pub(crate) without: F,
    /// With it.
    pub(crate) with: F,
}

/// One side of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures<M> {
    /// How long calls (storm) or logins (neighbour) took.
    #[serde(flatten)]
    pub(crate) times: Times,
    /// Everything that failed.
    pub(crate) errors: u64,
    /// Counted by the services and by PostgreSQL.
    pub(crate) connections_opened: u64,
    /// Counted by the issuer.
    pub(crate) token_exchanges: u64,
    /// Agents' tasks that ended well.
    pub(crate) tasks_a_minute: f64,
    /// Transactions found open and idle beside a call of the same request.
    pub(crate) holds_found: u64,
    /// What only this scenario has.
    #[serde(flatten)]
    pub(crate) more: M,
    /// What the first kinds of errors said.
    pub(crate) error_samples: Vec<String>,
    /// How this side was set up.
    pub(crate) configuration: Vec<String>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Times {
    /// Median.
    pub(crate) p50_ms: f64,
    /// 95th percentile.
    pub(crate) p95_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
}

/// What only the storm has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StormMore {
    /// Calls that ended well.
    pub(crate) calls: u64,
    /// TLS handshakes, counted by the services.
    pub(crate) tls_handshakes: u64,
    /// Distinct pairs of tenant and service for which tokens were exchanged.
    pub(crate) token_keys: u64,
    /// Calls that arrived with another tenant's token, counted by the services.
    pub(crate) wrong_tenant_calls: u64,
}

/// What only the noisy neighbour has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NeighbourMore {
    /// Logins that were answered beside the others.
    pub(crate) logins: u64,
    /// 99th percentile of the logins alone, milliseconds.
    pub(crate) unloaded_p99_ms: f64,
    /// Of the 99th percentiles, loaded to unloaded.
    pub(crate) p99_to_unloaded: f64,
    /// 99th percentile of how late this machine woke a timer meanwhile, milliseconds: what
    /// no program on it can be better than.
    pub(crate) machine_late_p99_ms: f64,
    /// Median of a whole retrieval, milliseconds.
    pub(crate) retrieval_p50_ms: f64,
    /// 99th percentile of a whole retrieval, milliseconds.
    pub(crate) retrieval_p99_ms: f64,
    /// Connections opened to PostgreSQL, counted there.
    pub(crate) database_connections_opened: u64,
    /// Transactions that agents held open beside a call, as the agents themselves know.
    pub(crate) transactions_held: u64,
}

/// Logins beside something else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct LoginFigures {
    /// Logins that were answered.
    pub(crate) logins: u64,
    /// Logins that failed.
    pub(crate) logins_failed: u64,
    /// Median, milliseconds.
    pub(crate) login_p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub(crate) login_p99_ms: f64,
    /// 99th percentile of how late this machine woke a timer meanwhile, milliseconds.
    pub(crate) machine_late_p99_ms: f64,
}

impl LoginFigures {
    /// Of what was seen.
    fn of(logins: &Logins) -> Self {
        let times = Times::of(&logins.tries);
        Self {
            logins: logins.tries.good(),
            logins_failed: logins.tries.failed(),
            login_p50_ms: times.p50_ms,
            login_p99_ms: times.p99_ms,
            machine_late_p99_ms: Times::of(&logins.late).p99_ms,
        }
    }

    fn rows(sides: [&Self; 2]) -> [Row; 4] {
        [
            Row::times("a login beside them, p50", sides.map(|side| side.login_p50_ms)),
            Row::times("a login beside them, p99", sides.map(|side| side.login_p99_ms)),
            Row::counts("logins failed", sides.map(|side| side.logins_failed)),
            Row::times(
                "how late this machine wakes a timer, p99",
                sides.map(|side| side.machine_late_p99_ms),
            ),
        ]
    }
}

/// What was counted outside of the workload.
pub(crate) struct Counts {
    /// By the services.
    pub(crate) services: Counted,
    /// By the issuer, for each pair of tenant and service.
    pub(crate) exchanges: Vec<u64>,
    /// By PostgreSQL, where it took part.
    pub(crate) sessions: u64,
    /// By Forebay, where there was one.
    pub(crate) holds: u64,
}

impl Times {
    fn of(tries: &Tries) -> Self {
        let at = |quantile| ms(tries.quantile(quantile));
        Self { p50_ms: at(0.50), p95_ms: at(0.95), p99_ms: at(0.99) }
    }
}

impl Figures<StormMore> {
    /// One side of the storm.
    pub(crate) fn of_storm(storm: &Storm, counts: &Counts, configuration: Vec<String>) -> Self {
        Self {
            times: Times::of(&storm.calls),
            errors: storm.calls.failed(),
            connections_opened: counts.services.connections + counts.sessions,
            token_exchanges: counts.exchanges.iter().sum(),
            tasks_a_minute: a_minute(storm.tasks_done, storm.took),
            holds_found: counts.holds,
            more: StormMore {
                calls: storm.calls.good(),
                tls_handshakes: counts.services.handshakes,
                token_keys: counts.exchanges.len() as u64,
                wrong_tenant_calls: counts.services.wrong_tenant,
            },
            error_samples: storm.calls.errors(),
            configuration,
        }
    }
}

impl Figures<NeighbourMore> {
    /// One side of the noisy neighbour, in which logins were measured for `length`.
    pub(crate) fn of_neighbour(
        seen: &Neighbour,
        counts: &Counts,
        length: Duration,
        configuration: Vec<String>,
    ) -> Self {
        let (logins, alone) = (&seen.beside.tries, &seen.alone.tries);
        let kinds = [alone, logins, &seen.retrievals, &seen.tasks];
        let (times, alone) = (Times::of(logins), Times::of(alone));
        let retrievals = Times::of(&seen.retrievals);
        Self {
            times,
            errors: kinds.iter().map(|tries| tries.failed()).sum(),
            connections_opened: counts.services.connections + counts.sessions,
            token_exchanges: counts.exchanges.iter().sum(),
            tasks_a_minute: a_minute(seen.tasks_in_time, length),
            holds_found: counts.holds,
            more: NeighbourMore {
                logins: logins.good(),
                unloaded_p99_ms: alone.p99_ms,
                p99_to_unloaded: round(ratio(times.p99_ms, alone.p99_ms)),
                machine_late_p99_ms: Times::of(&seen.beside.late).p99_ms,
                retrieval_p50_ms: retrievals.p50_ms,
                retrieval_p99_ms: retrievals.p99_ms,
                database_connections_opened: counts.sessions,
                transactions_held: seen.held,
            },
            error_samples: kinds.iter().flat_map(|tries| tries.errors()).collect(),
            configuration,
        }
    }
}

/// In milliseconds, to the hundredth.
fn ms(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1_000.0)
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// `part` of `whole`; 0 of nothing is 0.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a demo are exact in an f64")]
fn float(count: u64) -> f64 {
    count as f64
}

fn a_minute(count: u64, took: Duration) -> f64 {
    round(ratio(float(count) * 60.0, took.as_secs_f64()))
}

#[cfg(test)]
mod tests;
