//! Clients that idle in a transaction and keep a server connection by that.
//!
//! Found by looking over the cards of server connections, of which there are as many as
//! budgets allow: nothing is done for it when a statement ends but one store. Knows no requests
//! and judges nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::census::Census;

/// A client that idles in a transaction, with a server connection.
#[derive(Debug, Clone)]
pub struct IdleClient {
    /// Its number, as the console shows it.
    pub client: u64,
    /// The database as the client calls it.
    pub database: Arc<str>,
    /// The user as the client calls itself.
    pub user: Arc<str>,
    /// What it calls itself (`application_name`).
    pub application: Arc<str>,
    /// The statement that its transaction began with, without literals; `None` where the client
    /// keeps its connection from one transaction to the next.
    pub statement: Option<Arc<str>>,
    /// The server's name in the configuration.
    pub server: Arc<str>,
    /// When its last answer was complete.
    pub since: Instant,
    /// Where it comes from; none on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The process at the other end of a Unix socket.
    pub process: Option<u32>,
}

/// Clients that have idled in a transaction for `beyond` at `now`.
pub(crate) fn of(census: &Census, beyond: Duration, now: Instant) -> Vec<IdleClient> {
    let limit = now.checked_sub(beyond).map_or(0, |limit| census.moment(limit));
    let idle = census.linked().into_iter().filter_map(|(server, client)| {
        let since = client.idles_since().filter(|since| *since <= limit)?;
        Some(IdleClient {
            client: client.id,
            database: Arc::clone(&client.tally.database),
            user: Arc::clone(&client.tally.user),
            application: client.application(),
            statement: client.began(),
            server: Arc::clone(&server.server),
            since: census.instant(since),
            peer: client.ends.theirs.address(),
            process: client.ends.process,
        })
    });
    idle.collect()
}
