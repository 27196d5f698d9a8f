//! The connections of each pool, whatever the protocol.

use std::fmt;

use forebay_pool::stats::{Closed, Health};

use super::{Pools, Sheet, of, with};
use crate::metrics::sheet::Spread;

pub(super) fn connections(pools: &Pools<'_>, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.gauge(
        "forebay_budget",
        "Connections we may hold to a destination",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.budget)),
    )?;
    sheet.gauge(
        "forebay_budget_wanted",
        "Connections that the configuration, a hand, the timetable or demand asks for, or that \
         the destination bears, by whom",
        pools.iter().flat_map(|(gateway, pool)| {
            let wanted = &pool.wanted;
            [
                ("configuration", Some(wanted.configured)),
                ("hand", wanted.by_hand),
                ("timetable", wanted.window),
                ("demand", wanted.advice.map(|advice| advice.budget)),
                ("evidence", wanted.borne),
            ]
            .into_iter()
            .filter_map(|(by, budget)| Some((with(of(gateway, pool), "by", by), budget?)))
        }),
    )?;
    sheet.gauge(
        "forebay_capacity",
        "Connections a destination says it can take, once that is known",
        pools.iter().filter_map(|(gateway, pool)| Some((of(gateway, pool), pool.capacity?))),
    )?;
    sheet.gauge(
        "forebay_ai_ceiling",
        "Connections that all AI classes may have together",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.ai_ceiling)),
    )?;
    sheet.gauge(
        "forebay_connections",
        "Connections to a destination by state",
        pools.iter().flat_map(|(gateway, pool)| {
            [
                ("leased", pool.leased),
                ("idle", pool.idle),
                ("opening", pool.opening),
                ("cleaning", pool.cleaning),
            ]
            .map(|(state, count)| (with(of(gateway, pool), "state", state), count))
        }),
    )?;
    sheet.gauge(
        "forebay_warm",
        "Whether the warm-up of a destination is done",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), u32::from(pool.warm))),
    )?;
    sheet.gauge(
        "forebay_health",
        "1 for the state a destination is in: unknown, up, busy or down",
        pools.iter().flat_map(|(gateway, pool)| {
            [
                ("unknown", Health::Unknown),
                ("up", Health::Up),
                ("busy", Health::Busy),
                ("down", Health::Down),
            ]
            .map(|(name, health)| {
                (with(of(gateway, pool), "health", name), u32::from(pool.health == health))
            })
        }),
    )?;
    sheet.counter(
        "forebay_connections_opened",
        "Connections opened to a destination",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.opened)),
    )?;
    sheet.counter(
        "forebay_connection_failures",
        "Attempts to open a connection that failed",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), pool.open_failures)),
    )?;
    sheet.counter(
        "forebay_connections_closed",
        "Connections closed, by reason",
        pools.iter().flat_map(|(gateway, pool)| {
            closed(pool.closed)
                .map(|(reason, count)| (with(of(gateway, pool), "reason", reason), count))
        }),
    )?;
    sheet.spread(
        "forebay_connect",
        "How long it took to open a connection",
        pools.iter().map(|(gateway, pool)| (of(gateway, pool), Spread::of(&pool.connect))),
    )
}

fn closed(closed: Closed) -> [(&'static str, u64); 7] {
    let Closed { idle, lifetime, broken, unclean, evicted, renewed, surplus } = closed;
    [
        ("idle", idle),
        ("lifetime", lifetime),
        ("broken", broken),
        ("unclean", unclean),
        ("evicted", evicted),
        ("renewed", renewed),
        ("surplus", surplus),
    ]
}
