//! One client, from accept to end: counted, greeted, and handed to what serves it.
//!
//! What only the beginning and the end need is boxed. Always true: a client is counted as long
//! as it is here, whichever way it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;
use forebay_seam::net::{Peer, Socket};
use forebay_seam::task::Stop;

use super::Inner;
use super::roll::{Entry, Newcomer};
use crate::cancel::Registration;
use crate::comings::{self, Claim, Tls};
use crate::console::Visit;
use crate::fault::Fault;
use crate::greeting::{self, Arrival, Greeted, Room};
use crate::replication::{self, Parameters};
use crate::route::Who;
use crate::session::Session;
use crate::stream::Stream;

/// Connections beyond the limit of clients that are listened to, since they may be cancel
/// requests.
const FOR_CANCELS: u32 = 64;

/// One client from accept to end. What only the beginning and the end need is boxed, so that
/// it takes no memory while thousands of clients are there and ask nothing.
pub(super) async fn serve(inner: Arc<Inner>, client: Socket, from: Peer, stop: Stop) {
    let counted = Counted::admit(&inner);
    let room = counted.as_ref().map(|counted| counted.room);
    match Box::pin(receive(&inner, room, client, from)).await {
        Some(Received::Asks(session)) => {
            drop(stop);
            session.run(inner.bell.listen()).await;
        }
        Some(Received::Other(other)) => Box::pin(other.serve(stop)).await,
        None => {}
    }
    drop(counted);
}

/// A client that has logged in.
enum Received {
    Asks(Box<Session>),
    Other(Other),
}

/// A client that is no session.
enum Other {
    Replicates(Box<Replica>),
    Visits(Box<Visit>),
}

impl Other {
    async fn serve(self, stop: Stop) {
        match self {
            Self::Replicates(replica) => replica.serve(stop).await,
            Self::Visits(visit) => visit.serve(stop).await,
        }
    }
}

/// A client that replicates.
struct Replica {
    arrival: Arrival,
    parameters: Parameters,
    registration: Registration,
}

impl Replica {
    async fn serve(self: Box<Self>, stop: Stop) {
        let Self { arrival, parameters, registration } = *self;
        replication::serve(arrival, &parameters, registration, stop).await;
    }
}

/// Receives a client; nothing if it gets no session.
async fn receive(
    inner: &Arc<Inner>,
    room: Option<Room>,
    client: Socket,
    from: Peer,
) -> Option<Received> {
    let greeted = match room {
        Some(room) => greeting::greet(inner, client, from, room).await,
        None => refuse(client, Fault::TooManyClients),
    };
    match greeted {
        Greeted::In(arrival) => {
            let mut arrival = *arrival;
            let mut registration = inner.registry.register(arrival.keys, &arrival.plan.fleet);
            match enter(inner, &arrival.who, &registration) {
                Ok(entry) => {
                    logged_in(&from, &arrival, entry.id());
                    registration.entry = Some(entry);
                }
                Err(fault) => {
                    let mut outbox = BytesMut::new();
                    fault.write_at_login(&mut outbox);
                    refused(inner, &from, &Claim::proven(&arrival.who), &fault);
                    Session::send_away(arrival.client, outbox).await;
                    return None;
                }
            }
            if let Some(parameters) = arrival.replicates.take() {
                let replica = Replica { arrival, parameters, registration };
                return Some(Received::Other(Other::Replicates(Box::new(replica))));
            }
            let session = Session::new(Arc::clone(inner), arrival, registration);
            return Some(Received::Asks(Box::new(session)));
        }
        Greeted::Visits(visitor) => {
            let registration = inner.registry.register(visitor.keys, &inner.plan().fleet);
            let (user, tls) = (Arc::clone(&visitor.user), encrypted(&visitor.client));
            let database = visitor.door.name();
            let visit = Visit::new(Arc::clone(inner), *visitor, registration);
            comings::client_came(&comings::Newcomer {
                id: visit.id(),
                from: &from,
                database,
                user: &user,
                tls,
                replication: "no",
            });
            return Some(Received::Other(Other::Visits(Box::new(visit))));
        }
        Greeted::Cancel { client, request } => {
            inner.cancels.fetch_add(1, Ordering::Relaxed);
            let early = inner.registry.cancel(&request, &inner.plan().fleet).await;
            let repeat = async {
                if let Some(early) = early {
                    inner.registry.repeat(early).await;
                }
            };
            tokio::join!(Session::send_away(client, BytesMut::new()), repeat);
        }
        Greeted::Refused { client, outbox, claim, fault } => {
            refused(inner, &from, &claim, &fault);
            Session::send_away(client, outbox).await;
        }
        Greeted::Gone => {}
    }
    None
}

fn logged_in(from: &Peer, arrival: &Arrival, id: u64) {
    let Who { identity, database, .. } = &arrival.who;
    comings::client_came(&comings::Newcomer {
        id,
        from,
        database,
        user: &identity.user,
        tls: encrypted(&arrival.client),
        replication: if arrival.replicates.is_some() { "yes" } else { "no" },
    });
}

fn encrypted(client: &Stream) -> Tls {
    if let Stream::Plain(_) = client { Tls::No } else { Tls::Yes }
}

fn refused(inner: &Inner, from: &Peer, claim: &Claim, fault: &Fault) {
    inner.refused.fetch_add(1, Ordering::Relaxed);
    comings::client_refused(from, claim, fault);
}

/// A place on the roll for one that has proved who it is.
fn enter(inner: &Inner, who: &Who, registration: &Registration) -> Result<Entry, Fault> {
    let pairs = &inner.pairs;
    if pairs.doors.is_disabled(&who.database) {
        return Err(Fault::Disabled(who.database.to_string()));
    }
    let newcomer = Newcomer {
        id: inner.census.number(),
        user: &who.user,
        identity: &who.identity,
        handle: &registration.client,
    };
    let entry = pairs.roll.enter(&newcomer, pairs.client_limits(&who.database, &who.user))?;
    tracing::debug!(client = entry.id(), user = %who.user, database = %who.database, "logged in");
    if pairs.keeps_any(&who.database) {
        who.backend.pool.review_one(&who.identity);
    }
    Ok(entry)
}

fn refuse(client: Socket, fault: Fault) -> Greeted {
    let mut outbox = BytesMut::new();
    fault.write_at_login(&mut outbox);
    Greeted::Refused { client: Stream::Plain(client), outbox, claim: Claim::default(), fault }
}

/// A client that is counted until it is dropped.
struct Counted {
    inner: Arc<Inner>,
    room: Room,
}

impl Counted {
    /// One more client, if there is room for it.
    fn admit(inner: &Arc<Inner>) -> Option<Self> {
        let most = inner.plan().settings.max_clients.min(inner.room.load(Ordering::Relaxed));
        [(Room::ForAll, most), (Room::ForCancels, FOR_CANCELS)].into_iter().find_map(
            |(room, most)| {
                let before = inner.here(room).fetch_add(1, Ordering::AcqRel);
                let counted = Self { inner: Arc::clone(inner), room };
                (before < most).then_some(counted)
            },
        )
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inner.here(self.room).fetch_sub(1, Ordering::AcqRel);
        self.inner.left.notify_waiters();
    }
}

impl Inner {
    fn here(&self, room: Room) -> &AtomicU32 {
        match room {
            Room::ForAll => &self.clients,
            Room::ForCancels => &self.beyond,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Besides, the kernel has its socket, the runtime 384 bytes to wake it, and the registry
    /// of cancel requests its key. 2.5 KiB in all is what was measured.
    #[test]
    fn a_client_that_asks_nothing_takes_little_memory() {
        fn future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let (task, session) = (future(serve), size_of::<Session>());
        assert!(task <= 528 && session <= 904, "task {task}, session {session}");
    }
}
