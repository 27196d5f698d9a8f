//! How much there is of what.

use std::collections::BTreeSet;

use super::{Scene, databases};
use crate::census::{ClientCard, ServerCard};
use crate::console::table::Row;
use crate::row;
use crate::session::Session;

pub(super) fn lists(scene: &Scene<'_>) -> Vec<Row> {
    let tallies = scene.census().tallies.all();
    let mut users: BTreeSet<&str> = tallies.iter().map(|tally| &*tally.user).collect();
    users.extend(scene.plan.settings.users.keys().map(String::as_str));
    let lists = [
        ("databases", databases::names(scene).len()),
        ("users", users.len()),
        ("peers", 0),
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

pub(super) fn state() -> Vec<Row> {
    [("active", "yes"), ("paused", "no"), ("suspended", "no")]
        .map(|(key, value)| row![key, value])
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

/// Names of servers: hosts that are no addresses.
fn names(scene: &Scene<'_>) -> BTreeSet<String> {
    let known = scene.servers.iter().filter_map(|server| {
        let settings = scene.plan.settings.servers.get(&*server.server)?;
        Some(settings.address.clone())
    });
    known
        .filter(|address| address.chars().any(char::is_alphabetic) && !address.contains("::"))
        .collect()
}

/// Each name with the addresses that connections of now lead to. The system resolves names, and
/// keeps them as it likes.
pub(super) fn dns_hosts(scene: &Scene<'_>) -> Vec<Row> {
    names(scene)
        .into_iter()
        .map(|name| {
            let of_it = scene.servers.iter().filter(|server| {
                let settings = scene.plan.settings.servers.get(&*server.server);
                settings.is_some_and(|settings| settings.address == name)
            });
            let addresses: BTreeSet<_> = of_it
                .filter_map(|server| server.known())
                .map(|known| known.ends.theirs.host())
                .collect();
            let addresses: Vec<_> = addresses.into_iter().collect();
            let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
            row![host, 0_u64, addresses.join(",")]
        })
        .collect()
}
