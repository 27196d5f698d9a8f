//! Every metric family, in the order in which it is shown. Their names are part of what we
//! promise to users.

use std::fmt;

use forebay_pool::Snapshot;
use forebay_pool::overlap::{OverlapCount, OverlapSpread};
use prometheus_client::encoding::DescriptorEncoder;

use super::sheet::{Labels, Sheet, Spread};
use crate::reload::ConfigurationSnapshot;
use crate::view::{Phase, ProgramSnapshot};

mod classes;
mod features;
mod hosts;
mod http;
mod limits;
mod parking;
mod pools;
mod postgres;
mod services;

pub(super) fn encode(program: &ProgramSnapshot, encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut sheet = Sheet(encoder);
    let databases: Vec<_> = program.postgres.iter().flat_map(|p| &p.pools).collect();
    let services: Vec<_> = program.http.iter().flat_map(|h| &h.pools).collect();
    let pools: Vec<_> = databases
        .iter()
        .map(|pool| ("postgres", *pool))
        .chain(services.iter().map(|pool| ("http", *pool)))
        .collect();
    whole(program, &mut sheet)?;
    postgres::database_clients(&databases, &mut sheet)?;
    if let Some(postgres) = &program.postgres {
        postgres::sessions(postgres, &mut sheet)?;
        hosts::hosts(&postgres.hosts, &mut sheet)?;
        parking::encode(postgres, &mut sheet)?;
    }
    pools::connections(&pools, &mut sheet)?;
    classes::classes(&pools, &mut sheet)?;
    features::features(&pools, &mut sheet)?;
    if let Some(http) = &program.http {
        http::service_clients(http, &mut sheet)?;
        http::calls(http, &mut sheet)?;
        services::connections(http, &mut sheet)?;
        limits::limits(http, &mut sheet)?;
    }
    sheet.count(
        "forebay_log_lines_lost",
        "Log lines that were not written: nobody reads them, or the output is closed",
        program.log_lines_lost,
    )?;
    overlaps(&program.overlaps, &program.overlaps_lasted, &mut sheet)?;
    holds(program, &mut sheet)
}

fn configuration(now: &ConfigurationSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let outcomes = [("reloaded", now.reloaded), ("failed", now.failed)];
    sheet.counter(
        "forebay_config_reloads",
        "Reloads of the configuration; one that failed has changed nothing",
        outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count)),
    )?;
    sheet.seconds_now(
        "forebay_config_last_success_timestamp",
        "When the configuration in force was read, since 1970",
        now.since,
    )?;
    // 48 bits: exact as a float.
    let hash = f64::from(u32::try_from(now.hash >> 24).unwrap_or(0)) * 16_777_216.0
        + f64::from(u32::try_from(now.hash & 0xff_ffff).unwrap_or(0));
    sheet.measure(
        "forebay_config_hash",
        "The same on instances that run the same configuration",
        [(Vec::new(), hash)],
    )?;
    sheet.number(
        "forebay_config_needs_restart",
        "Settings that were changed and count after a restart only",
        u32::try_from(now.needs_restart.len()).unwrap_or(u32::MAX),
    )
}

fn whole(program: &ProgramSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let version = vec![("version", program.version)];
    sheet.gauge("forebay_build_info", "The version of Forebay", [(version, 1)])?;
    sheet.seconds_now("forebay_uptime", "How long Forebay has run", program.uptime)?;
    sheet.number(
        "forebay_ready",
        "Whether new work may come, as /readyz says",
        u32::from(program.not_ready.is_empty()),
    )?;
    sheet.number(
        "forebay_draining",
        "Whether Forebay was told to stop and finishes what runs",
        u32::from(program.phase == Phase::Draining),
    )?;
    configuration(&program.configuration, sheet)?;
    let clients = [
        program.postgres.as_ref().map(|p| (vec![("gateway", "postgres")], p.clients)),
        program.http.as_ref().map(|h| (vec![("gateway", "http")], h.clients)),
    ];
    sheet.gauge("forebay_clients", "Connections from clients", clients.into_iter().flatten())
}

fn overlaps(
    counts: &[OverlapCount],
    lasted: &[OverlapSpread],
    sheet: &mut Sheet<'_>,
) -> fmt::Result {
    fn labels(count: &OverlapCount) -> Labels<'_> {
        vec![
            ("feature", &*count.feature),
            ("destination", &*count.destination),
            ("kind", count.kind.name()),
        ]
    }
    sheet.counter(
        "forebay_overlaps",
        "Transactions that were open and idle during an outbound call of their request",
        counts.iter().map(|count| (labels(count), count.begun)),
    )?;
    sheet.seconds_total(
        "forebay_overlap",
        "Time that transactions were open and idle during outbound calls that ended",
        counts.iter().map(|count| (labels(count), count.seconds)),
    )?;
    sheet.spread(
        "forebay_overlap_duration",
        "From the beginning to the end of overlaps, by what the transaction occupied at the end",
        lasted.iter().map(|one| (vec![("kind", one.kind.name())], Spread::of(&one.lasted))),
    )
}

/// What holds take of connections, and what may be one.
fn holds(program: &ProgramSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let features = program.holds.iter();
    let feature = |name| vec![("feature", name)];
    sheet.counter(
        "forebay_hold_transactions",
        "Transactions that idled beside one or more outbound calls of their request",
        features.clone().map(|one| (feature(&*one.feature), one.transactions)),
    )?;
    sheet.seconds_total(
        "forebay_hold_connection",
        "Connection time of transactions that idled beside calls, up to now",
        features.clone().map(|one| (feature(&*one.feature), one.held)),
    )?;
    sheet.seconds_total(
        "forebay_hold_parkable",
        "Of forebay_hold_connection_seconds_total, what parking would have saved",
        features.clone().map(|one| (feature(&*one.feature), one.parkable)),
    )?;
    sheet.seconds_total(
        "forebay_hold_parked",
        "Time that transactions were parked beside calls, up to now",
        features.map(|one| (feature(&*one.feature), one.parked)),
    )?;
    let suspected = program.suspected_holds.iter().map(|one| {
        let labels = vec![("application", &*one.application), ("destination", &*one.destination)];
        (labels, one)
    });
    sheet.counter(
        "forebay_suspected_holds",
        "Suspected, not proven: clients that idled in a transaction and may have waited for a call",
        suspected.clone().map(|(labels, one)| (labels, one.count)),
    )?;
    sheet.seconds_total(
        "forebay_suspected_hold",
        "Suspected, not proven: time that these clients had idled",
        suspected.map(|(labels, one)| (labels, one.seconds)),
    )
}

/// Pools with the names of their gateways.
type Pools<'s> = [(&'static str, &'s Snapshot)];

fn of<'s>(gateway: &'static str, pool: &'s Snapshot) -> Labels<'s> {
    vec![("gateway", gateway), ("destination", &*pool.destination)]
}

fn with<'s>(mut labels: Labels<'s>, name: &'static str, value: &'s str) -> Labels<'s> {
    labels.push((name, value));
    labels
}
