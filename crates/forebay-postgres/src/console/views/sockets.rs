//! Every client and server connection in a row of its own.

use super::Scene;
use crate::census::{ClientCard, ClientState, Ends, Place, ServerCard, ServerState};
use crate::console::table::{Cell, Row};
use crate::row;

/// Which connections are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that are linked, or wait for a link.
    Active,
}

pub(super) fn clients(scene: &Scene<'_>) -> Vec<Row> {
    scene.clients.iter().map(|client| client_row(scene, client, "")).collect()
}

pub(super) fn servers(scene: &Scene<'_>) -> Vec<Row> {
    scene.servers.iter().map(|server| server_row(scene, server, "")).collect()
}

/// Clients and servers, with what is in their buffers: PgBouncer's figures of buffers that it
/// has and we have not.
pub(super) fn sockets(scene: &Scene<'_>, which: Which) -> Vec<Row> {
    let all = which == Which::All;
    let clients = scene.clients.iter().filter(|c| all || c.state() != ClientState::Idle);
    let servers = scene.servers.iter().filter(|s| all || s.state() != ServerState::Idle);
    clients
        .map(|client| client_row(scene, client, "cl_"))
        .chain(servers.map(|server| server_row(scene, server, "sv_")))
        .map(|mut row| {
            row.extend([0_u32; 7].map(Cell::from));
            row
        })
        .collect()
}

/// A name of the connection, as PgBouncer shows its address in memory.
fn ptr(id: u64) -> String {
    if id == 0 { String::new() } else { format!("0x{id:x}") }
}

fn client_row(scene: &Scene<'_>, client: &ClientCard, prefix: &str) -> Row {
    let state = match client.state() {
        ClientState::Idle => "idle",
        ClientState::Waiting => "waiting",
        ClientState::Active => "active",
    };
    let (wait, wait_us) = scene.since(client.waits_since());
    let ends = &client.ends;
    row![
        "C",
        &client.tally.user,
        &client.tally.database,
        client.replication.name(),
        format!("{prefix}{state}"),
        ends.theirs.host(),
        ends.theirs.port(),
        ends.ours.host(),
        ends.ours.port(),
        scene.shown(client.connected),
        scene.shown(client.asked().unwrap_or(client.connected)),
        wait,
        wait_us,
        0_u32,
        ptr(client.id),
        ptr(client.link()),
        0_u32,
        tls(Some(ends)),
        &client.application(),
        client.statements(),
        client.id,
    ]
}

fn server_row(scene: &Scene<'_>, server: &ServerCard, prefix: &str) -> Row {
    let state = match server.state() {
        ServerState::New => "new",
        ServerState::Idle => "idle",
        ServerState::Active => "active",
        ServerState::Tested => "tested",
    };
    let known = server.known();
    let ends = known.as_ref().map(|known| &known.ends);
    let place = |of: fn(&Ends) -> &Place| ends.map(of);
    let (theirs, ours) = (place(|ends| &ends.theirs), place(|ends| &ends.ours));
    let client = scene.client(server.link());
    let asked = client.and_then(ClientCard::asked).unwrap_or(server.opened);
    let (database, user) = scene.pair_of(server);
    let application = client.map(ClientCard::application);
    row![
        "S",
        &user,
        &database,
        server.replication.name(),
        format!("{prefix}{state}"),
        theirs.map(Place::host).unwrap_or_default(),
        theirs.map_or(0, Place::port),
        ours.map(Place::host).unwrap_or_default(),
        ours.map_or(0, Place::port),
        scene.shown(server.opened),
        scene.shown(asked),
        0_u32,
        0_u32,
        0_u32,
        ptr(server.id),
        ptr(server.link()),
        known.as_ref().map_or(0, |known| known.pid),
        tls(ends),
        application.as_deref().unwrap_or("forebay"),
        server.statements(),
        server.id,
    ]
}

fn tls(ends: Option<&Ends>) -> String {
    ends.and_then(|ends| ends.tls).map(crate::census::Cipher::shown).unwrap_or_default()
}

/// File descriptors; what is secret, PgBouncer shows here and we do not.
pub(super) fn fds(scene: &Scene<'_>) -> Vec<Row> {
    let fd_of = |id| {
        let server = scene.servers.iter().find(|server| server.id == id);
        let of_server = server.and_then(|server| server.known()).map(|known| known.ends.fd);
        of_server.or_else(|| scene.client(id).map(|client| client.ends.fd)).unwrap_or(0)
    };
    let clients = scene.clients.iter().map(|client| {
        let pair = (client.tally.database.clone(), client.tally.user.clone());
        fd_row(&client.ends, "client", pair, fd_of(client.link()))
    });
    let servers = scene.servers.iter().filter_map(|server| {
        let ends = server.known()?.ends;
        Some(fd_row(&ends, "server", scene.pair_of(server), fd_of(server.link())))
    });
    clients.chain(servers).collect()
}

fn fd_row(
    ends: &Ends,
    task: &str,
    (database, user): (std::sync::Arc<str>, std::sync::Arc<str>),
    link: i32,
) -> Row {
    let mut row =
        row![ends.fd, task, &user, &database, ends.theirs.host(), ends.theirs.port(), 0_u32, link];
    row.extend([const { Cell::Null }; 7]);
    row
}
