//! What fills PgBouncer's views: one scene of the gateway, looked at from each side.
//!
//! Counts nothing itself; the cards of the census and the tallies have it all.

mod databases;
mod lists;
mod pools;
mod sockets;
mod stats;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_seam::time;
use humantime_serde::re::humantime::format_rfc3339_seconds;

use super::Door;
use super::table::Row;
use crate::census::{Census, ClientCard, ServerCard};
use crate::gateway::{ControlSnapshot, Inner, Plan};
use crate::settings::PoolMode;

/// The gateway at one moment.
struct Scene<'a> {
    inner: &'a Inner,
    plan: Arc<Plan>,
    control: ControlSnapshot,
    clients: Vec<Arc<ClientCard>>,
    servers: Vec<Arc<ServerCard>>,
    /// Places in `clients`, by id.
    by_id: HashMap<u64, usize>,
    /// On the clock of the cards.
    now: u64,
}

impl<'a> Scene<'a> {
    fn of(inner: &'a Inner) -> Self {
        let clients = inner.census.clients();
        let by_id = clients.iter().enumerate().map(|(place, client)| (client.id, place)).collect();
        Self {
            inner,
            plan: inner.plan(),
            control: inner.control(),
            clients,
            by_id,
            servers: inner.census.servers(),
            now: inner.census.moment(time::now()),
        }
    }

    fn census(&self) -> &Census {
        &self.inner.census
    }

    fn client(&self, id: u64) -> Option<&ClientCard> {
        self.by_id.get(&id).and_then(|place| self.clients.get(*place)).map(|client| &**client)
    }

    /// The database, as clients call it, and the user that a server connection is for.
    fn pair_of(&self, server: &ServerCard) -> (Arc<str>, Arc<str>) {
        if let Some(client) = self.client(server.link()) {
            return (Arc::clone(&client.tally.database), Arc::clone(&client.tally.user));
        }
        (Arc::clone(&server.identity.name), Arc::clone(&server.identity.user))
    }

    /// How a database pools.
    fn mode_of(&self, database: &str) -> &'static str {
        if Door::of(database).is_some() {
            return "statement";
        }
        mode(self.plan.mode_of(database))
    }

    /// How a user pools in a database.
    fn mode_of_pair(&self, database: &str, user: &str) -> &'static str {
        if Door::of(database).is_some() {
            return "statement";
        }
        let own = self.plan.settings.users.get(user).and_then(|user| user.pool_mode);
        own.map_or_else(|| self.mode_of(database), mode)
    }

    /// A moment by the wall, as PgBouncer writes it.
    fn shown(&self, moment: u64) -> String {
        wall(self.census().wall(moment))
    }

    /// Seconds and microseconds since `moment`.
    fn since(&self, moment: Option<u64>) -> (u64, u64) {
        let micros = moment.map_or(0, |moment| self.now.saturating_sub(moment) / 1_000);
        (micros / 1_000_000, micros % 1_000_000)
    }
}

fn wall(at: SystemTime) -> String {
    let text = format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

/// The rows of one of PgBouncer's views; `None`: it is none of them.
pub(super) fn rows(inner: &Inner, view: &str) -> Option<Vec<Row>> {
    let scene = Scene::of(inner);
    Some(match view {
        "stats" => stats::stats(&scene),
        "stats_totals" => stats::totals_of_each(&scene),
        "stats_averages" => stats::averages_of_each(&scene),
        "totals" => stats::totals(&scene),
        "pools" => pools::pools(&scene),
        "clients" => sockets::clients(&scene),
        "servers" => sockets::servers(&scene),
        "sockets" => sockets::sockets(&scene, sockets::Which::All),
        "active_sockets" => sockets::sockets(&scene, sockets::Which::Active),
        "fds" => sockets::fds(&scene),
        "databases" => databases::databases(&scene),
        "users" => databases::users(&scene),
        "lists" => lists::lists(&scene),
        "state" => lists::state(&scene),
        "mem" => lists::mem(&scene),
        "dns_hosts" => lists::dns_hosts(&scene),
        "peers" => lists::peers(&scene),
        // There is nothing of these kinds.
        "dns_zones" | "peer_pools" => Vec::new(),
        _ => return None,
    })
}
