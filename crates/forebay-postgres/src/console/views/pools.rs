//! Clients and server connections by database and user.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Scene;
use super::databases::balance;
use crate::census::{ClientState, ServerCard, ServerState};
use crate::console::table::Row;
use crate::row;

/// How many of what a pair has.
#[derive(Default)]
struct Pool {
    cl_active: u32,
    cl_waiting: u32,
    /// Cancel requests that no server has been told of yet, and those on their way to one, for
    /// each of which there is a connection to the server.
    cancels_waiting: u32,
    cancels_sent: u32,
    sv_active: u32,
    /// Kept back until the requests on their way to it have arrived.
    sv_being_canceled: u32,
    sv_idle: u32,
    sv_tested: u32,
    sv_login: u32,
    /// Since when the client that waits longest has waited.
    waits_since: Option<u64>,
}

pub(super) fn pools(scene: &Scene<'_>) -> Vec<Row> {
    let mut pools = BTreeMap::<(Arc<str>, Arc<str>), Pool>::new();
    for tally in scene.census().tallies.all() {
        pools.entry((Arc::clone(&tally.database), Arc::clone(&tally.user))).or_default();
    }
    for client in &scene.clients {
        let tally = &client.tally;
        let key = (Arc::clone(&tally.database), Arc::clone(&tally.user));
        let pool = pools.entry(key).or_default();
        match client.state() {
            ClientState::Waiting => {
                pool.cl_waiting += 1;
                let since = client.waits_since();
                pool.waits_since = pool.waits_since.min(since).or(since).or(pool.waits_since);
            }
            ClientState::Idle | ClientState::Active => pool.cl_active += 1,
        }
    }
    for server in &scene.servers {
        let pool = pools.entry(scene.pair_of(server)).or_default();
        match server.state() {
            ServerState::New => pool.sv_login += 1,
            ServerState::Idle => pool.sv_idle += 1,
            ServerState::Active => pool.sv_active += 1,
            ServerState::Tested if is_being_cancelled(server) => pool.sv_being_canceled += 1,
            ServerState::Tested => pool.sv_tested += 1,
        }
    }
    for (identity, waiting, sent) in scene.inner.pairs.roll.cancel_requests() {
        let pool = pools.entry((identity.name, identity.user)).or_default();
        pool.cancels_waiting += u32::from(waiting);
        pool.cancels_sent += u32::from(sent);
    }
    pools.iter().map(|((database, user), pool)| row(scene, database, user, pool)).collect()
}

/// Would it be idle, if no cancel request were on its way to it?
fn is_being_cancelled(server: &ServerCard) -> bool {
    server.known().is_some_and(|known| !known.in_flight.is_settled())
}

fn row(scene: &Scene<'_>, database: &Arc<str>, user: &Arc<str>, pool: &Pool) -> Row {
    let (seconds, micros) = scene.since(pool.waits_since);
    // No connection waits to be looked at before it is used: that is done while it is idle.
    let used = 0_u32;
    row![
        database,
        user,
        pool.cl_active,
        pool.cl_waiting,
        pool.cancels_sent,
        pool.cancels_waiting,
        pool.sv_active,
        pool.cancels_sent,
        pool.sv_being_canceled,
        pool.sv_idle,
        used,
        pool.sv_tested,
        pool.sv_login,
        seconds,
        micros,
        scene.mode_of_pair(database, user),
        balance(scene, database),
    ]
}
