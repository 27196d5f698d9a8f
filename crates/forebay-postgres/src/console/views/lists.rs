//! How much there is of what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Scene, databases};
use crate::census::{ClientCard, ServerCard};
use crate::console::table::{Cell, Row};
use crate::gateway::Flow;
use crate::row;
use crate::server::place::Place;
use crate::session::Session;

pub(super) fn lists(scene: &Scene<'_>) -> Vec<Row> {
    let tallies = scene.census().tallies.all();
    let mut users: BTreeSet<&str> = tallies.iter().map(|tally| &*tally.user).collect();
    users.extend(scene.plan.settings.users.keys().map(String::as_str));
    let lists = [
        ("databases", databases::names(scene).len()),
        ("users", users.len()),
        ("peers", peers(scene).len()),
        ("pools", tallies.len()),
        ("peer_pools", 0),
        // Nothing is kept for clients and servers to come.
        ("free_clients", 0),
        ("used_clients", scene.clients.len()),
        ("login_clients", scene.inner.greeting(scene.clients.len())),
        ("free_servers", 0),
        ("used_servers", scene.servers.len()),
        ("dns_names", names(scene).len()),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    lists.into_iter().map(|(list, items)| row![list, items]).collect()
}

pub(super) fn state(scene: &Scene<'_>) -> Vec<Row> {
    let flow = scene.control.flow;
    [("active", Flow::Running), ("paused", Flow::Paused), ("suspended", Flow::Suspended)]
        .map(|(key, meant)| row![key, if flow == meant { "yes" } else { "no" }])
        .into()
}

/// What there may be many of. Buffers are not kept: who holds bytes has them counted beside.
pub(super) fn mem(scene: &Scene<'_>) -> Vec<Row> {
    let (clients, servers) = (scene.clients.len(), scene.servers.len());
    let kinds = [
        ("client_cache", size_of::<Session>() + size_of::<ClientCard>(), clients),
        ("server_cache", size_of::<crate::server::Server>() + size_of::<ServerCard>(), servers),
        ("pool_cache", size_of::<crate::tally::Tally>(), scene.census().tallies.all().len()),
        ("message_memory", 1, scene.inner.held.held()),
    ];
    kinds.into_iter().map(|(name, size, used)| row![name, size, used, 0_u32, size * used]).collect()
}

/// The other instances of the fleet.
pub(super) fn peers(scene: &Scene<'_>) -> Vec<Row> {
    let peers = scene.plan.settings.fleet.iter().flat_map(|fleet| &fleet.peers);
    peers
        .map(|peer| {
            let (host, port) = match Place::parse(&peer.address) {
                Ok(Place::Host { host, port }) => (host, port),
                Ok(Place::Socket(path)) => (path.display().to_string(), 0),
                Err(_) => (peer.address.clone(), 0),
            };
            row![peer.id, host, port, Cell::Null]
        })
        .collect()
}

/// Names of hosts, and the servers that they are of.
fn names<'s>(scene: &'s Scene<'_>) -> BTreeMap<String, BTreeSet<&'s str>> {
    let mut names = BTreeMap::<_, BTreeSet<_>>::new();
    for (server, settings) in &scene.plan.settings.servers {
        for text in databases::written(settings) {
            if let Ok(Place::Host { host, .. }) = Place::parse(text)
                && host.parse::<IpAddr>().is_err()
            {
                names.entry(host).or_default().insert(server.as_str());
            }
        }
    }
    names
}

/// Each name with the addresses that connections of now lead to. The system resolves names, and
/// keeps them as it likes.
pub(super) fn dns_hosts(scene: &Scene<'_>) -> Vec<Row> {
    names(scene)
        .into_iter()
        .map(|(name, servers)| {
            let of_it = scene.servers.iter().filter(|server| servers.contains(&*server.server));
            let known = of_it.filter_map(|server| server.known());
            let addresses: BTreeSet<_> = known.map(|known| known.ends.theirs.host()).collect();
            row![name, 0_u64, addresses.into_iter().collect::<Vec<_>>().join(",")]
        })
        .collect()
}
