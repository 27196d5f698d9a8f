//! Databases and users: what is configured, and what of it is in use.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Scene, mode};
use crate::console::Door;
use crate::console::table::{Cell, Row};
use crate::gateway::Flow;
use crate::row;
use crate::server::place::Place;
use crate::settings::ServerSettings;

/// Names of databases: those configured, else those that were asked for.
pub(super) fn names(scene: &Scene<'_>) -> BTreeSet<Arc<str>> {
    let configured: BTreeSet<Arc<str>> =
        scene.plan.settings.databases.keys().map(|name| Arc::from(name.as_str())).collect();
    if !configured.is_empty() {
        return configured;
    }
    let seen = scene.census().tallies.all();
    seen.iter()
        .map(|tally| Arc::clone(&tally.database))
        .filter(|name| Door::of(name).is_none())
        .collect()
}

pub(super) fn databases(scene: &Scene<'_>) -> Vec<Row> {
    let pairs: Vec<_> = scene.servers.iter().map(|server| scene.pair_of(server)).collect();
    let mut rows: Vec<_> = names(scene)
        .iter()
        .filter_map(|name| {
            let (server_name, on_server) = scene.plan.behind(name)?;
            let server = scene.plan.settings.servers.get(&server_name)?;
            let (host, port) = host_and_port(server);
            let budget =
                server.budget.or_else(|| scene.plan.budget(&server_name)).unwrap_or_default();
            let servers = pairs.iter().filter(|(database, _)| database == name).count();
            let sizes = scene.inner.pairs.sizes_of_database(name);
            let forced = scene.plan.settings.database(name).and_then(|own| own.force_user.clone());
            Some(row![
                name,
                host,
                port,
                &on_server,
                forced,
                sizes.pool.unwrap_or(budget),
                sizes.kept,
                sizes.reserve,
                server.lifetime.as_secs(),
                scene.mode_of(name),
                Cell::Null,
                sizes.connections,
                servers,
                sizes.clients,
                clients_of(scene, name),
                u32::from(is_paused(scene, name)),
                u32::from(scene.control.disabled.contains(name)),
            ])
        })
        .collect();
    for door in [Door::PgBouncer, Door::Forebay] {
        let listens = scene.plan.settings.listen.port();
        rows.push(row![
            door.name(),
            Cell::Null,
            listens,
            door.name(),
            door.name(),
            2_u32,
            0_u32,
            0_u32,
            0_u32,
            "statement",
            Cell::Null,
            0_u32,
            0_u32,
            0_u32,
            clients_of(scene, door.name()),
            0_u32,
            0_u32,
        ]);
    }
    rows
}

fn is_paused(scene: &Scene<'_>, database: &Arc<str>) -> bool {
    scene.control.flow == Flow::Paused || scene.control.paused.contains(database)
}

fn clients_of(scene: &Scene<'_>, database: &str) -> usize {
    scene.clients.iter().filter(|client| &*client.tally.database == database).count()
}

/// Where a server may be, as people wrote it.
pub(super) fn written(server: &ServerSettings) -> &[String] {
    if server.hosts.is_empty() { std::slice::from_ref(&server.address) } else { &server.hosts }
}

/// Several hosts stand behind each other, as PgBouncer shows them, with the port of the first.
fn host_and_port(server: &ServerSettings) -> (String, u16) {
    let places = written(server).iter().map(|text| match Place::parse(text) {
        Ok(Place::Host { host, port }) => (host, port),
        Ok(Place::Socket(path)) => (path.display().to_string(), 0),
        Err(_) => (text.clone(), 0),
    });
    let (hosts, ports): (Vec<_>, Vec<_>) = places.unzip();
    (hosts.join(","), ports.first().copied().unwrap_or(0))
}

pub(super) fn users(scene: &Scene<'_>) -> Vec<Row> {
    let settings = &scene.plan.settings;
    let mut names: BTreeSet<Arc<str>> =
        settings.users.keys().map(|user| Arc::from(user.as_str())).collect();
    names.extend(scene.census().tallies.all().iter().map(|tally| Arc::clone(&tally.user)));
    let pairs: Vec<_> = scene.servers.iter().map(|server| scene.pair_of(server)).collect();
    names
        .iter()
        .map(|name| {
            let servers = pairs.iter().filter(|(_, user)| user == name).count();
            let clients = scene.clients.iter().filter(|client| client.tally.user == *name).count();
            let own = settings.users.get(&**name);
            let sizes = scene.inner.pairs.sizes_of_user(name);
            row![
                name,
                own.and_then(|own| own.pool_size),
                own.and_then(|own| own.reserve_pool_size),
                own.and_then(|own| own.pool_mode).map(mode),
                sizes.connections,
                servers,
                sizes.clients,
                clients
            ]
        })
        .collect()
}
