//! The hosts behind each server: what they are, and what became of them.

use std::fmt;

use forebay_postgres::{HostSnapshot, HostsSnapshot};

use super::{Labels, Sheet};

pub(super) fn hosts(servers: &[HostsSnapshot], sheet: &mut Sheet<'_>) -> fmt::Result {
    fn of(server: &HostsSnapshot) -> Labels<'_> {
        vec![("gateway", "postgres"), ("destination", &*server.server)]
    }
    let all = || {
        servers.iter().flat_map(|server| {
            let labelled = |host| ([of(server), vec![("host", name(host))]].concat(), host);
            server.hosts.iter().map(labelled).collect::<Vec<_>>()
        })
    };
    sheet.gauge(
        "forebay_host_info",
        "What a host says it is, and whether it is used",
        all().map(|(labels, host)| {
            ([labels, vec![("role", host.role), ("state", host.state)]].concat(), 1)
        }),
    )?;
    sheet.gauge(
        "forebay_host_connections",
        "Connections to a host",
        all().map(|(labels, host)| (labels, host.connections)),
    )?;
    sheet.measure(
        "forebay_host_lag_seconds",
        "How far a standby is behind, where `max_lag` asks for it",
        all().filter_map(|(labels, host)| Some((labels, host.lag_seconds?))),
    )?;
    sheet.counter(
        "forebay_host_dns_changes",
        "How often the name of a host came to lead elsewhere",
        all().map(|(labels, host)| (labels, host.dns_changes)),
    )?;
    sheet.counter(
        "forebay_failovers",
        "How often another host became the primary",
        servers.iter().map(|server| (of(server), server.failovers)),
    )?;
    sheet.counter(
        "forebay_fenced_primaries",
        "How often a primary was fenced because another had replaced it",
        servers.iter().map(|server| (of(server), server.fenced)),
    )
}

fn name(host: &HostSnapshot) -> &str {
    &host.host
}
