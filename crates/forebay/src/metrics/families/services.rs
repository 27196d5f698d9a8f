//! Connections to services: how many, how they were opened, and why they ended.

use std::fmt;

use forebay_http::HttpSnapshot;
use forebay_http::stats::ConnectionsSnapshot;

use super::{Labels, Sheet, with};

fn to(connections: &ConnectionsSnapshot) -> Labels<'_> {
    vec![("destination", &*connections.destination)]
}

fn busy(connections: &ConnectionsSnapshot) -> u32 {
    connections.open.saturating_sub(connections.resting)
}

/// OpenTelemetry, "Semantic conventions for HTTP metrics", HTTP client.
pub(super) fn open(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    sheet.gauge(
        "http_client_open_connections",
        "Connections to services; server_address is the name of the destination",
        http.connections.iter().flat_map(|c| {
            [("active", busy(c)), ("idle", c.resting)].map(|(state, count)| {
                let address = ("server_address", &*c.destination);
                (vec![("http_connection_state", state), address], count)
            })
        }),
    )
}

pub(super) fn connections(http: &HttpSnapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = &http.connections;
    sheet.gauge(
        "forebay_http_connections",
        "Connections to a service, with and without calls on them",
        all.iter().flat_map(|c| {
            [("busy", busy(c)), ("resting", c.resting)]
                .map(|(state, count)| (with(to(c), "state", state), count))
        }),
    )?;
    let mut gauge = |name: &str, help: &str, value: fn(&ConnectionsSnapshot) -> u32| {
        sheet.gauge(name, help, all.iter().map(|c| (to(c), value(c))))
    };
    gauge("forebay_http_shared_connections", "Connections that speak HTTP/2", |c| c.http2)?;
    gauge("forebay_http_streams", "Streams of these that the pool has", |c| c.streams)?;
    gauge("forebay_http_connection_seats", "Seats of the pool for each connection", |c| {
        c.seats_per_connection
    })?;
    sheet.counter(
        "forebay_http_connects",
        "Connections that were opened",
        all.iter().flat_map(|c| {
            [("http/1.1", c.opened_http1), ("http/2", c.opened_http2)]
                .map(|(protocol, count)| (with(to(c), "protocol", protocol), count))
        }),
    )?;
    sheet.counter(
        "forebay_http_handshakes",
        "TLS handshakes, in full or of a session that was resumed",
        all.iter().flat_map(|c| {
            [("full", c.tls_full), ("resumed", c.tls_resumed)]
                .map(|(kind, count)| (with(to(c), "kind", kind), count))
        }),
    )?;
    sheet.counter(
        "forebay_http_closes",
        "Connections that have ended, by reason",
        all.iter().flat_map(|c| {
            c.closed.iter().map(|(reason, count)| (with(to(c), "reason", reason), *count))
        }),
    )?;
    sheet.measure(
        "forebay_http_idle_learnt_seconds",
        "How long a service lets a connection rest, where that was learnt",
        all.iter().filter_map(|c| Some((to(c), c.idle_learnt?))),
    )?;
    sheet.gauge(
        "forebay_http_addresses",
        "Addresses that the name of a service leads to; ejected ones fail and are left out",
        all.iter().flat_map(|c| {
            let used = c.addresses.saturating_sub(c.ejected);
            [("used", used), ("ejected", c.ejected)]
                .map(|(state, count)| (with(to(c), "state", state), count))
        }),
    )?;
    sheet.counter(
        "forebay_http_ejections",
        "How often an address was left out",
        all.iter().map(|c| (to(c), c.ejections)),
    )?;
    sheet.counter(
        "forebay_http_resolves",
        "How often a name was resolved, could not be, or led to a forbidden address",
        all.iter().flat_map(|c| {
            [("resolved", c.resolved), ("failed", c.resolve_failures), ("forbidden", c.forbidden)]
                .map(|(outcome, count)| (with(to(c), "outcome", outcome), count))
        }),
    )
}
