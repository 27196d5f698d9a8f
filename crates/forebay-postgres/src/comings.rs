//! Comings and goings of clients and server connections, told to the log, a line each; and what
//! was done in a period.
//!
//! Each kind has a target of its own, so that a filter can ask for it; but for what went wrong
//! they are told at the level of debugging. Counts nothing and decides nothing.

use std::fmt;
use std::time::Duration;

use forebay_seam::net::Peer;
use forebay_seam::time;

use crate::census::{ClientCard, Place, ServerCard};
use crate::fault::Fault;
use crate::route::Who;
use crate::tally::{Figure, Figures, Tallies};
use crate::wire::startup::Startup;

/// Characters of a name that are told.
const LONGEST_NAME: usize = 63;

/// A client that has proved who it is.
pub(crate) struct Newcomer<'a> {
    pub(crate) id: u64,
    pub(crate) from: &'a Peer,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    pub(crate) tls: Tls,
    /// Whether it replicates.
    pub(crate) replication: &'a str,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Yes,
    No,
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("unix"),
            Self::V4(ip, port) => write!(f, "{ip}:{port}"),
            Self::V6(address) => address.fmt(f),
        }
    }
}

/// A client has logged in.
pub(crate) fn client_came(newcomer: &Newcomer<'_>) {
    let Newcomer { id, from, database, user, tls, replication } = newcomer;
    tracing::debug!(
        target: "forebay_postgres::logins",
        client = id, %from, database, user, %tls, replication, "client logged in"
    );
}

/// Who a client says it is, before it has proved anything.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    database: Option<Box<str>>,
    user: Option<Box<str>>,
}

impl Claim {
    /// What `startup` says, as far as PostgreSQL would look at it.
    pub(crate) fn of(startup: &Startup) -> Self {
        let said = |name| startup.get(name).filter(|said| !said.is_empty());
        let short = |said: &str| said.chars().take(LONGEST_NAME).collect();
        let (database, user) = (said("database").or(said("user")), said("user"));
        Self { database: database.map(short), user: user.map(short) }
    }

    /// It has proved it.
    pub(crate) fn proven(who: &Who) -> Self {
        Self { database: Some((*who.database).into()), user: Some((*who.user).into()) }
    }
}

/// A client got no session.
pub(crate) fn client_refused(from: &Peer, claim: &Claim, fault: &Fault) {
    let (database, user) = (claim.database.as_deref(), claim.user.as_deref());
    let reason = fault.reason();
    tracing::debug!(
        target: "forebay_postgres::departures",
        %from, database, user, age = 0, reason, "client left"
    );
    tracing::info!(
        target: "forebay_postgres::refusals",
        %from, database, user, reason, error = %fault, "client refused"
    );
}

/// A client was told that something is wrong, and has to go.
pub(crate) fn client_failed(client: &ClientCard, fault: &Fault) {
    tracing::info!(
        target: "forebay_postgres::refusals",
        client = client.id,
        from = %client.ends.theirs,
        database = %client.tally.database,
        user = %client.tally.user,
        reason = fault.reason(),
        error = %fault,
        "session ended"
    );
}

/// A client that was served is gone.
pub(crate) fn client_left(client: &ClientCard, reason: impl fmt::Display) {
    tracing::debug!(
        target: "forebay_postgres::departures",
        client = client.id,
        from = %client.ends.theirs,
        database = %client.tally.database,
        user = %client.tally.user,
        %reason,
        age = client.age(time::now()).as_secs(),
        "client left"
    );
}

/// A server connection has logged in.
pub(crate) fn server_came(server: &ServerCard) {
    let Some(known) = server.known() else { return };
    tracing::debug!(
        target: "forebay_postgres::logins",
        connection = server.id,
        to = %known.ends.theirs,
        database = %server.identity.name,
        user = %server.identity.user,
        local = %known.ends.ours,
        "connected to the server"
    );
}

/// A server connection that had logged in is gone.
pub(crate) fn server_left(server: &ServerCard, reason: &str, age: Duration) {
    let Some(known) = server.known() else { return };
    tracing::debug!(
        target: "forebay_postgres::departures",
        connection = server.id,
        to = %known.ends.theirs,
        database = %server.identity.name,
        user = %server.identity.user,
        reason,
        age = age.as_secs(),
        "server connection left"
    );
}

/// A period is over: what was done in it, in a second, or for one transaction or query.
pub(crate) fn period_over(tallies: &Tallies, period: Duration) {
    let all = tallies.all();
    let grown = all.iter().fold(Figures::default(), |sum, tally| sum.plus(&tally.grown()));
    let average = grown.average(period);
    let get = |figure| average.get(figure);
    tracing::debug!(
        target: "forebay_postgres::statistics",
        xacts = get(Figure::Transactions),
        queries = get(Figure::Queries),
        client_parses = get(Figure::ClientParses),
        server_parses = get(Figure::ServerParses),
        binds = get(Figure::Binds),
        received = get(Figure::Received),
        sent = get(Figure::Sent),
        xact_us = get(Figure::TransactionTime),
        query_us = get(Figure::QueryTime),
        wait_us = get(Figure::WaitTime),
        "a period is over"
    );
}
