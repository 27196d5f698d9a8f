//! Replication connections, where the pool mode is `session`.
//!
//! A walsender speaks a protocol of its own (streaming replication, COPY both ways), of which
//! nothing can be shared: each client gets a connection that was opened for it, with the
//! startup parameters it sent, and that ends with it. Bytes go through as they come. These
//! connections are part of no budget, since the server counts them by `max_wal_senders` and
//! not by `max_connections` (PostgreSQL 12 and later); they have a limit of their own.
//!
//! Always true: what is held for either side is bounded, and whoever reads slowly slows down
//! nobody but the other end of its own stream.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use forebay_seam::task::Stop;
use forebay_seam::time;

use crate::cancel::fleet::Fleet;
use crate::cancel::{Cancelable, Linked, Registration};
use crate::census::{Newcomer, Replication};
use crate::comings;
use crate::fault::Fault;
use crate::greeting::Arrival;
use crate::route::Who;
use crate::server::{Server, ServerFailure};
use crate::session::Session;
use crate::stream::Stream;
use crate::wire::backend::{self, Severity};
use crate::wire::{HEADER, TxStatus};

/// Bytes held for one direction before the other side is no longer read.
const HIGH_WATER: usize = 64 * 1024;

/// Startup parameters of a client that replicates, as it sent them.
pub(crate) type Parameters = Vec<(String, String)>;

/// Replication connections to one server.
pub(crate) struct Replications {
    open: Arc<AtomicU32>,
    limit: u32,
    connect_timeout: Duration,
}

/// One of them, until dropped.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Replications {
    pub(crate) fn new(limit: u32, connect_timeout: Duration) -> Self {
        Self { open: Arc::default(), limit, connect_timeout }
    }

    /// The same connections under another limit.
    pub(crate) fn under(&self, limit: u32, connect_timeout: Duration) -> Self {
        Self { open: Arc::clone(&self.open), limit, connect_timeout }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// One more, if the limit allows.
    fn admit(&self) -> Option<Counted> {
        let one_more = |open| (open < self.limit).then(|| open + 1);
        let admitted = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        admitted.ok().map(|_| Counted(Arc::clone(&self.open)))
    }

    async fn open(
        &self,
        who: &Who,
        parameters: &Parameters,
        kind: Replication,
    ) -> Result<(Server, Counted), Fault> {
        let Some(counted) = self.admit() else {
            return Err(Fault::TooManyReplications { limit: self.limit });
        };
        let opening = who.backend.pool.connector().replicate(&who.identity, parameters, kind);
        match time::timeout(self.connect_timeout, opening).await {
            Ok(Ok(server)) => Ok((server, counted)),
            Ok(Err(ServerFailure::Refused(said))) => Err(Fault::Refused(said)),
            Ok(Err(
                failure @ (ServerFailure::Io(_)
                | ServerFailure::Protocol(_)
                | ServerFailure::Tls(_)
                | ServerFailure::Unfit(_)
                | ServerFailure::Moving(_)
                | ServerFailure::Auth(_)),
            )) => Err(Fault::NoReplication(failure.to_string())),
            Err(_) => Err(Fault::NoReplication("it did not answer in time".into())),
        }
    }
}

/// Serves a client that replicates to its end.
pub(crate) async fn serve(
    arrival: Arrival,
    parameters: &Parameters,
    registration: Registration,
    mut stop: Stop,
) {
    let Arrival { client, inbox, plan, who, .. } = arrival;
    // It may read nothing for long: it writes what it got to a disk.
    client.set_user_timeout(None);
    let (user, database) = (Arc::clone(&who.user), Arc::clone(&who.database));
    let mut outbox = BytesMut::new();
    let kind = kind(parameters);
    let census = &who.backend.pool.connector().listed.census;
    let card = census.enters(Newcomer {
        id: registration.number(census),
        database: &database,
        user: &user,
        application: &who.application,
        ends: client.ends(),
        replication: kind,
    });
    let (server, _counted) = match who.backend.replications.open(&who, parameters, kind).await {
        Ok(opened) => opened,
        Err(fault) => {
            tracing::info!(%user, %database, error = %fault, "replication refused");
            fault.write_at_login(&mut outbox);
            return Session::send_away(client, outbox).await;
        }
    };
    tracing::info!(%user, %database, "a replication connection begins");
    welcome(&server, &registration, &plan.fleet, &mut outbox);
    // The connection is this client's alone: a cancel can hit nothing else.
    let linked = registration.client.links(&server.key, &server.in_flight);
    debug_assert_eq!(linked, Linked::Yes, "it waited in no line");
    registration.client.goes_on();
    card.links(server.card.as_deref(), card.connected);
    let mut relay =
        Relay { client, server, to_client: outbox, to_server: inbox, frames: Frames::default() };
    registration.client.is_never_still();
    let ended = relay.run(&mut stop, &registration.client).await;
    registration.client.rests();
    let reason = match &ended {
        Ok(Ended::Client) => "its client left",
        Ok(Ended::Server) => "the server ended it",
        Ok(Ended::Stopped) => "Forebay stops",
        Ok(Ended::Killed) => "an operator ended it",
        Err(_) => "it was lost",
    };
    tracing::info!(%user, %database, reason, "a replication connection ends");
    comings::client_left(&card, reason);
    let Relay { client, server, mut to_client, frames, .. } = relay;
    if let (Some(card), Ok(Ended::Client | Ended::Stopped | Ended::Killed)) = (&server.card, &ended)
    {
        card.is_closed("replication client was closed");
    }
    drop(server);
    let fault = match ended {
        Ok(Ended::Stopped) => Some(Fault::Stopping),
        Ok(Ended::Killed) => Some(Fault::Killed),
        Ok(Ended::Client | Ended::Server) | Err(_) => None,
    };
    if let Some(fault) = fault.filter(|_| frames.is_between()) {
        fault.write(&mut to_client, Severity::Fatal);
    }
    Session::send_away(client, to_client).await;
}

/// `replication=database` asks for logical replication, every other value for physical one.
fn kind(parameters: &Parameters) -> Replication {
    let value = parameters.iter().find(|(name, _)| name == "replication");
    match value {
        Some((_, value)) if value == "database" => Replication::Logical,
        _ => Replication::Physical,
    }
}

/// As a login ends: what the server reported, the client's own key, ReadyForQuery.
fn welcome(server: &Server, registration: &Registration, fleet: &Fleet, out: &mut BytesMut) {
    backend::authentication(out, 0, &[]);
    for (name, value) in server.settings.now.iter() {
        backend::parameter_status(out, name, value);
    }
    let (pid, secret) = registration.key(fleet);
    backend::backend_key_data(out, pid, &secret);
    backend::ready_for_query(out, TxStatus::Idle);
}

/// Why a relay ended.
enum Ended {
    Client,
    Server,
    Stopped,
    Killed,
}

/// Two streams and what is on its way between them.
struct Relay {
    client: Stream,
    server: Server,
    to_client: BytesMut,
    to_server: BytesMut,
    /// Of what came from the server.
    frames: Frames,
}

impl Relay {
    async fn run(&mut self, stop: &mut Stop, handle: &Cancelable) -> io::Result<Ended> {
        let mut told = std::pin::pin!(stop.told());
        let ended = poll_fn(|cx| {
            handle.is_served_by(cx);
            if handle.is_ended() {
                return Poll::Ready(Ok(Ended::Killed));
            }
            let moved = self.poll_move(cx);
            if moved.is_pending() && told.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Ended::Stopped));
            }
            moved
        })
        .await?;
        if let Ended::Server = ended {
            // All that it said is the client's, however slowly that reads.
            poll_fn(|cx| {
                let drained = self.client.poll_drain(cx, &mut self.to_client);
                match told.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Ok(())),
                    Poll::Pending => drained,
                }
            })
            .await?;
        }
        Ok(ended)
    }

    /// Moves bytes both ways until one side ends.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            let mut moved = false;
            let to_client = self.client.poll_drain(cx, &mut self.to_client)?;
            // What the server said last may still be in its socket: reading tells.
            if let Poll::Ready(Err(_)) = self.server.stream.poll_drain(cx, &mut self.to_server) {
                self.to_server.clear();
            }
            if self.to_client.len() < HIGH_WATER {
                let before = self.to_client.len();
                match self.server.stream.poll_fill(cx, &mut self.to_client) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Ended::Server)),
                    Poll::Ready(Ok(_)) => {
                        self.frames.pass(self.to_client.get(before..).unwrap_or_default());
                        moved = true;
                    }
                    Poll::Pending => {}
                }
            }
            if self.to_server.len() < HIGH_WATER {
                match self.client.poll_fill(cx, &mut self.to_server)? {
                    Poll::Ready(0) => return Poll::Ready(Ok(Ended::Client)),
                    Poll::Ready(_) => moved = true,
                    Poll::Pending => {}
                }
            }
            if !moved {
                if to_client.is_ready() && self.to_client.is_empty() {
                    // An idle stream keeps no memory.
                    self.to_client = BytesMut::new();
                }
                return Poll::Pending;
            }
        }
    }
}

/// Where messages begin and end, so that nothing of ours is put into the middle of one.
#[derive(Debug, Default)]
struct Frames {
    /// The header that is being read.
    header: [u8; HEADER],
    /// Bytes of it that have come.
    have: usize,
    /// Bytes of the message that have not come.
    left: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEADER {
                let [_, a, b, c, d] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4);
                self.left = usize::try_from(length).unwrap_or(usize::MAX);
                self.have = 0;
            }
        }
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_length_says_however_they_come() {
        let mut bytes = BytesMut::new();
        backend::command_complete(&mut bytes, "SELECT 1");
        backend::ready_for_query(&mut bytes, TxStatus::Idle);
        let between = |at: usize| at == 0 || at == 14 || at == bytes.len();
        for step in [1, 2, 3, 7, bytes.len()] {
            let (mut frames, mut at) = (Frames::default(), 0);
            for part in bytes.chunks(step) {
                frames.pass(part);
                at += part.len();
                assert_eq!(frames.is_between(), between(at), "{step} {at}");
            }
        }
    }
}
