//! What only PostgreSQL has: its pools by OpenTelemetry's names, and its clients' sessions.

use std::fmt;

use forebay_pool::Snapshot;
use forebay_postgres::gateway::Flow;
use forebay_postgres::{NotificationCounts, PostgresSnapshot};

use super::{Labels, Sheet};
use crate::metrics::sheet::Spread;

/// OpenTelemetry's label for the name of a pool.
const POOL: &str = "db_client_connection_pool_name";

/// OpenTelemetry, "Semantic conventions for database client metrics", connection pools.
pub(super) fn database_clients(pools: &[&Snapshot], sheet: &mut Sheet<'_>) -> fmt::Result {
    fn name(pool: &Snapshot) -> Labels<'_> {
        vec![(POOL, &*pool.destination)]
    }
    let state = |pool, state| [name(pool), vec![("db_client_connection_state", state)]].concat();
    sheet.gauge(
        "db_client_connection_count",
        "Connections to PostgreSQL; those being opened or cleaned count as neither",
        pools.iter().flat_map(|pool| {
            [(state(pool, "idle"), pool.idle), (state(pool, "used"), pool.leased)]
        }),
    )?;
    sheet.gauge(
        "db_client_connection_max",
        "Connections to PostgreSQL, at the most",
        pools.iter().map(|pool| (name(pool), pool.budget)),
    )?;
    sheet.gauge(
        "db_client_connection_pending_requests",
        "Callers that wait for a connection",
        pools.iter().map(|pool| (name(pool), pool.classes.iter().map(|c| c.waiting).sum())),
    )?;
    sheet.counter(
        "db_client_connection_timeouts",
        "Callers that waited for a connection until their deadline",
        pools.iter().map(|pool| (name(pool), pool.classes.iter().map(|c| c.timed_out).sum())),
    )?;
    sheet.spread(
        "db_client_connection_create_time",
        "How long it took to open a connection",
        pools.iter().map(|pool| (name(pool), Spread::of(&pool.connect))),
    )?;
    sheet.spread(
        "db_client_connection_wait_time",
        "How long callers waited for a connection, zero included",
        pools.iter().map(|pool| (name(pool), Spread::all(pool.classes.iter().map(|c| &c.wait)))),
    )?;
    sheet.spread(
        "db_client_connection_use_time",
        "How long connections were on lease",
        pools.iter().map(|pool| (name(pool), Spread::all(pool.classes.iter().map(|c| &c.hold)))),
    )
}

pub(super) fn sessions(postgres: &PostgresSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.count(
        "forebay_logins_refused",
        "Applications that were sent away before they had a session",
        postgres.refused,
    )?;
    sheet.count(
        "forebay_logins_throttled",
        "Logins that were turned away because too many like them failed",
        postgres.throttled,
    )?;
    sheet.count(
        "forebay_login_hash_iterations",
        "Iterations of hashing that clients' passwords have cost",
        postgres.hash_iterations,
    )?;
    sheet.count(
        "forebay_accept_failures",
        "Connections of applications that could not be accepted, usually for want of files",
        postgres.accept_failures,
    )?;
    sheet.count("forebay_cancel_requests", "Cancel requests received", postgres.cancels)?;
    sheet.count(
        "forebay_hints_ignored",
        "Tags of statements, and settings of ours, that cannot be read",
        postgres.hints_ignored,
    )?;
    let late = &postgres.timeouts;
    sheet.counter(
        "forebay_timeouts",
        "What was ended because it lasted too long, by the setting that limits it",
        [
            ("query_timeout", late.query),
            ("cancel_wait_timeout", late.disobeyed),
            ("transaction_timeout", late.transaction),
            ("idle_transaction_timeout", late.idle_transaction),
            ("client_idle_timeout", late.client_idle),
            ("login_timeout", late.login),
        ]
        .map(|(setting, count)| (vec![("setting", setting)], count)),
    )?;
    notifications(&postgres.notifications, sheet)?;
    sheet.gauge(
        "forebay_replication_connections",
        "Replication connections of clients; not part of the budget",
        postgres.replications.iter().map(|(server, count)| {
            (vec![("gateway", "postgres"), ("destination", &**server)], *count)
        }),
    )?;
    let all = (postgres.control.flow == Flow::Paused).then_some("*");
    let paused = postgres.control.paused.iter().map(|database| &**database);
    sheet.gauge(
        "forebay_paused",
        "Databases whose new work waits until RESUME; `*` is all of them",
        all.into_iter().chain(paused).map(|database| (vec![("database", database)], 1_u32)),
    )?;
    let disabled = postgres.control.disabled.iter();
    sheet.gauge(
        "forebay_disabled",
        "Databases that take no new clients until ENABLE",
        disabled.map(|database| (vec![("database", &**database)], 1_u32)),
    )?;
    sheet.counter(
        "forebay_pins",
        "Applications that kept a server connection beyond a transaction, by reason",
        postgres.pins.iter().map(|(reason, count)| (vec![("reason", *reason)], *count)),
    )
}

/// LISTEN in transaction pooling.
fn notifications(counts: &[NotificationCounts], sheet: &mut Sheet<'_>) -> fmt::Result {
    fn of(counts: &NotificationCounts) -> Labels<'_> {
        vec![("gateway", "postgres"), ("destination", &*counts.server)]
    }
    let ends = |counts, reason| [of(counts), vec![("reason", reason)]].concat();
    sheet.gauge(
        "forebay_notification_connections",
        "Connections that listen for clients, one for each database; not part of the budget",
        counts.iter().map(|c| (of(c), c.connections)),
    )?;
    sheet.gauge(
        "forebay_notification_channels",
        "Channels that clients listen to",
        counts.iter().map(|c| (of(c), c.channels)),
    )?;
    sheet.gauge(
        "forebay_notification_clients",
        "Clients that listen",
        counts.iter().map(|c| (of(c), c.clients)),
    )?;
    sheet.counter(
        "forebay_notifications",
        "Notifications told to clients",
        counts.iter().map(|c| (of(c), c.delivered)),
    )?;
    sheet.counter(
        "forebay_notification_ends",
        "Clients sent away because notifications were or may have been missed",
        counts
            .iter()
            .flat_map(|c| [(ends(c, "overflow"), c.overflowed), (ends(c, "lost"), c.lost)]),
    )
}
