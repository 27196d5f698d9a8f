//! Cancel requests: a key stands for a client, and what is cancelled is the statement that it
//! runs at that moment or waits to run, or nothing.
//!
//! A request goes to the server only while that statement is running; before the server has
//! closed the request's own connection ([`InFlight::settled`]), neither another statement of
//! the client nor anything of ours is sent, and the server connection is given to nobody. So a
//! late request can hit nothing else. What we send ahead of a statement is not cancelled: the
//! request waits for the statement. One that may have come before the server had begun is
//! sent again.

pub(crate) mod fleet;
pub(crate) mod key;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use forebay_seam::net::Address;
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time::Instant;
use forebay_seam::{net, random, time};
use tokio::sync::{Notify, Semaphore};

use crate::census::Census;
use crate::gateway::Entry;
use crate::server::entrance::{Encrypt, Entrance};
use crate::stream::Stream;
use fleet::Fleet;
use key::{ClientKey, Form, Keys, Request, Secret};

/// Requests to servers under way at once; more than these wait.
const AT_ONCE: usize = 64;
/// A server that does not close the request's connection within this has lost it.
const PATIENCE: Duration = Duration::from_secs(5);
/// A statement that was sent longer ago has begun.
const HAS_BEGUN: Duration = Duration::from_millis(100);
/// When a request that may have been too early is repeated.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// Where a server connection leads, and how its cancel requests get there.
#[derive(Clone)]
pub(crate) struct Door {
    /// Another address of the same name may be another server.
    pub(crate) address: Address,
    /// Set where the connection is encrypted: then its cancel requests are, in the same way
    /// (as with `PQcancelBlocking` of PostgreSQL 17), or none is sent.
    pub(crate) encrypted: Option<Arc<Entrance>>,
}

impl Door {
    async fn enter(&self) -> io::Result<Stream> {
        let (socket, _) = net::reach(std::slice::from_ref(&self.address)).await?;
        match &self.encrypted {
            None => Ok(Stream::Plain(socket)),
            Some(entrance) => entrance.open(socket, Encrypt::Must).await.map_err(io::Error::other),
        }
    }
}

/// How to reach one server connection for a cancel.
pub(crate) struct ServerKey {
    pub(crate) door: Door,
    pub(crate) pid: i32,
    /// Four bytes; up to 256 since protocol 3.2.
    pub(crate) secret: Box<[u8]>,
}

impl ServerKey {
    /// Before the server has given one.
    pub(crate) fn none(door: Door) -> Arc<Self> {
        Arc::new(Self { door, pid: 0, secret: Box::default() })
    }
}

/// CancelRequest ("Message Formats").
fn request(pid: i32, secret: &[u8]) -> BytesMut {
    let length = 12 + secret.len();
    let mut request = BytesMut::with_capacity(length);
    // Never so long that the conversion fails.
    for word in [i32::try_from(length).unwrap_or(i32::MAX), 80_877_102, pid] {
        request.extend_from_slice(&word.to_be_bytes());
    }
    request.extend_from_slice(secret);
    request
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} at {}", self.pid, self.door.address)
    }
}

/// Cancel requests on their way to one server connection.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    under_way: AtomicU32,
    /// One was sent, and whether it has arrived is not known: it may still come.
    lost: AtomicBool,
    settled: Notify,
}

impl InFlight {
    fn begin(self: &Arc<Self>) -> Underway {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Underway { in_flight: Arc::clone(self), arrival: Arrival::NotSent }
    }

    /// Is none on its way?
    pub(crate) fn is_settled(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Can none come any more, so that others may have the connection?
    pub(crate) fn is_over(&self) -> bool {
        self.is_settled() && !self.lost.load(Ordering::Acquire)
    }

    /// Waits until no request is on its way.
    pub(crate) async fn settled(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.is_settled() {
                return;
            }
            settled.await;
        }
    }
}

/// One request on its way, until dropped.
struct Underway {
    in_flight: Arc<InFlight>,
    arrival: Arrival,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    NotSent,
    Unknown,
    Certain,
}

impl Underway {
    /// Sends a CancelRequest and waits until the server has closed: then it has signalled.
    ///
    /// # Cancel safety
    /// Dropped, the request counts as lost.
    async fn send(&mut self, key: &ServerKey) -> io::Result<()> {
        let arrival = &mut self.arrival;
        let exchange = async {
            let mut stream = key.door.enter().await?;
            *arrival = Arrival::Unknown;
            stream.drain(&mut request(key.pid, &key.secret)).await?;
            // Nothing comes; a reset is an end as well.
            drop(stream.fill(&mut BytesMut::new()).await);
            *arrival = Arrival::Certain;
            Ok(())
        };
        time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let in_flight = &self.in_flight;
        if self.arrival == Arrival::Unknown {
            in_flight.lost.store(true, Ordering::Release);
        }
        if in_flight.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            in_flight.settled.notify_waiters();
        }
    }
}

/// Sends a CancelRequest for what runs, whoever's it is; counted in `in_flight`.
pub(crate) async fn send_counted(key: &ServerKey, in_flight: &Arc<InFlight>) {
    drop(in_flight.begin().send(key).await);
}

/// What a client is doing, as far as a cancel is concerned.
#[derive(Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    /// Waiting for a connection: the cancel ends this wait, and wakes who waits.
    Waiting(Waker, Asked),
    Linked {
        key: Arc<ServerKey>,
        in_flight: Arc<InFlight>,
        now: Now,
    },
}

/// What a linked server connection runs.
#[derive(Debug)]
enum Now {
    /// What we send of our own: the cancel is for the statement that follows.
    Ours,
    /// Nothing.
    Between,
    Statement {
        ticket: u64,
        since: Instant,
        asked: Asked,
    },
}

/// Whether the client asked for a cancel of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

/// Whether a statement may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    Yes,
    /// A request for an earlier one is on its way.
    Held,
}

/// Whether a connection that came is the client's.
#[must_use = "a connection that came too late goes home"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    Yes,
    /// The wait for it had been cancelled.
    Cancelled,
}

/// One client's handle in the registry.
#[derive(Default)]
pub(crate) struct Cancelable {
    key: ClientKey,
    state: Mutex<State>,
    changed: Notify,
    /// The client is to be sent away.
    ended: AtomicBool,
    /// The task that serves it.
    task: Mutex<Option<Waker>>,
    /// The last round of stillness in which its buffers were empty.
    still: AtomicU64,
    /// Requests for it that no server has been told of yet.
    waiting: AtomicU16,
    /// Requests for it that are on their way to a server.
    sent: AtomicU16,
}

/// A request that is counted until dropped.
struct Counted<'c>(&'c AtomicU16);

impl<'c> Counted<'c> {
    fn among(count: &'c AtomicU16) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    doing: Doing,
    /// Tells statements apart.
    tickets: u64,
}

impl State {
    fn begin(&mut self, since: Instant) {
        self.tickets += 1;
        let statement = Now::Statement { ticket: self.tickets, since, asked: Asked::No };
        if let Doing::Linked { now, .. } = &mut self.doing {
            *now = statement;
        }
    }
}

/// What a cancel request meets.
enum Aim {
    Nothing,
    /// In a moment the statement itself will run.
    Soon,
    At {
        ticket: u64,
        is_young: bool,
    },
}

impl Cancelable {
    /// Requests for it that no server has been told of yet, and those on their way to one.
    pub(crate) fn requests(&self) -> (u16, u16) {
        (self.waiting.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// The task of `cx` serves the client from now on, and is woken at its end.
    pub(crate) fn is_served_by(&self, cx: &Context<'_>) {
        *self.task.lock() = Some(cx.waker().clone());
    }

    /// The client is to be sent away, whatever it does.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    /// Its task looks around.
    pub(crate) fn wake(&self) {
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Its buffers are empty in this round of stillness.
    pub(crate) fn is_still(&self, round: NonZeroU64) {
        self.still.store(round.get(), Ordering::Release);
    }

    /// It takes part in no round of stillness.
    pub(crate) fn is_never_still(&self) {
        self.still.store(u64::MAX, Ordering::Release);
    }

    /// Were its buffers empty in `round`, or need they not be?
    pub(crate) fn was_still_in(&self, round: u64) -> bool {
        self.still.load(Ordering::Acquire) >= round
    }

    /// Is it?
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits in line; ready when that is cancelled.
    pub(crate) fn poll_wait(&self, cx: &Context<'_>) -> Poll<()> {
        let doing = &mut self.state.lock().doing;
        match doing {
            Doing::Waiting(_, Asked::Yes) => return Poll::Ready(()),
            Doing::Waiting(waker, Asked::No) if waker.will_wake(cx.waker()) => {}
            Doing::Waiting(_, Asked::No) | Doing::Nothing | Doing::Linked { .. } => {
                *doing = Doing::Waiting(cx.waker().clone(), Asked::No);
            }
        }
        Poll::Pending
    }

    /// Has a connection, which runs what is ours until the statement [begins](Self::begins);
    /// or has none, since the wait for it was cancelled.
    ///
    /// One moment decides: a request that came before it ends the wait, one that comes after it
    /// is for the statement.
    pub(crate) fn links(&self, key: &Arc<ServerKey>, in_flight: &Arc<InFlight>) -> Linked {
        let doing = &mut self.state.lock().doing;
        if matches!(doing, Doing::Waiting(_, Asked::Yes)) {
            *doing = Doing::Nothing;
            return Linked::Cancelled;
        }
        let (key, in_flight) = (Arc::clone(key), Arc::clone(in_flight));
        *doing = Doing::Linked { key, in_flight, now: Now::Ours };
        Linked::Yes
    }

    /// Something of ours is sent, for the statement that may come.
    pub(crate) fn prepares(&self) {
        if let Doing::Linked { now, .. } = &mut self.state.lock().doing {
            *now = Now::Ours;
        }
    }

    /// A statement is to be sent: it runs from `now` on, unless it has to wait.
    pub(crate) fn begins(&self, now: Instant) -> Begun {
        let mut state = self.state.lock();
        let awaited = match &state.doing {
            Doing::Linked { in_flight, .. } if !in_flight.is_settled() => return Begun::Held,
            Doing::Linked { now: Now::Ours, .. } => true,
            Doing::Linked { .. } | Doing::Nothing | Doing::Waiting(..) => false,
        };
        state.begin(now);
        drop(state);
        if awaited {
            self.changed.notify_waiters();
        }
        Begun::Yes
    }

    /// The one before has ended, and the next was sent already.
    pub(crate) fn goes_on(&self) {
        self.state.lock().begin(time::now());
        self.changed.notify_waiters();
    }

    /// No statement runs, and none was sent.
    pub(crate) fn pauses(&self) {
        let mut state = self.state.lock();
        if let Doing::Linked { now, .. } = &mut state.doing {
            let awaited = matches!(std::mem::replace(now, Now::Between), Now::Ours);
            drop(state);
            if awaited {
                self.changed.notify_waiters();
            }
        }
    }

    /// Has no connection, and waits for none.
    pub(crate) fn rests(&self) {
        let before = std::mem::take(&mut self.state.lock().doing);
        if matches!(before, Doing::Linked { now: Now::Ours, .. }) {
            self.changed.notify_waiters();
        }
    }

    /// Did the client ask for what was cancelled just now to be cancelled? Told once.
    pub(crate) fn was_cancelled(&self) -> bool {
        match &mut self.state.lock().doing {
            Doing::Linked { now: Now::Statement { asked, .. }, .. } => {
                std::mem::replace(asked, Asked::No) == Asked::Yes
            }
            Doing::Linked { .. } | Doing::Nothing | Doing::Waiting(..) => false,
        }
    }

    /// What a request of this moment is for. Who waits in line is told.
    fn aim(&self) -> Aim {
        match &mut self.state.lock().doing {
            Doing::Nothing | Doing::Linked { now: Now::Between, .. } => Aim::Nothing,
            Doing::Waiting(waker, asked) => {
                *asked = Asked::Yes;
                waker.wake_by_ref();
                Aim::Nothing
            }
            Doing::Linked { now: Now::Ours, .. } => Aim::Soon,
            Doing::Linked { now: Now::Statement { ticket, since, .. }, .. } => {
                Aim::At { ticket: *ticket, is_young: since.elapsed() < HAS_BEGUN }
            }
        }
    }

    /// As [`Cancelable::aim`], once what is ours has been answered.
    async fn aim_at_statement(&self) -> Option<(u64, bool)> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.aim() {
                Aim::Nothing => return None,
                Aim::Soon => changed.await,
                Aim::At { ticket, is_young } => return Some((ticket, is_young)),
            }
        }
    }

    /// Notes a request as under way, while the statement still runs and has none.
    fn shoot(&self, wanted: u64) -> Option<(Arc<ServerKey>, Underway)> {
        match &mut self.state.lock().doing {
            Doing::Linked { key, in_flight, now: Now::Statement { ticket, asked, .. } }
                if *ticket == wanted && in_flight.is_settled() =>
            {
                *asked = Asked::Yes;
                Some((Arc::clone(key), in_flight.begin()))
            }
            Doing::Linked { .. } | Doing::Nothing | Doing::Waiting(..) => None,
        }
    }
}

/// All clients that may be cancelled.
pub(crate) struct Registry {
    clients: Mutex<HashMap<i32, Arc<Cancelable>>>,
    keys: Keys,
    slots: Semaphore,
    /// The process that was here before, as long as it has clients.
    before: Mutex<Option<Address>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            clients: Mutex::default(),
            keys: Keys::new(),
            slots: Semaphore::new(AT_ONCE),
            before: Mutex::default(),
        }
    }
}

/// A request that may have come before the server had begun what it is for.
pub(crate) struct Early {
    client: Arc<Cancelable>,
    ticket: u64,
}

/// A client's key; dropped, the key dies.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    pub(crate) client: Arc<Cancelable>,
    /// Its place on the roll, once it has logged in.
    pub(crate) entry: Option<Entry>,
}

impl Registration {
    /// The process id and the secret part of the client's key.
    pub(crate) fn key(&self, fleet: &Fleet) -> (i32, Secret) {
        let key = self.client.key;
        (key.pid, self.registry.keys.secret(key, fleet))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.clients.lock().remove(&self.client.key.pid);
        self.client.rests();
    }
}

impl Registration {
    /// The client's number: that on the roll, where it has one.
    pub(crate) fn number(&self, census: &Census) -> u64 {
        self.entry.as_ref().map_or_else(|| census.number(), Entry::id)
    }

    /// Cancels what the client runs now, on our own account.
    pub(crate) fn cancel_late(&self) {
        let (registry, client) = (Arc::clone(&self.registry), Arc::clone(&self.client));
        Spawner::current().spawn(async move {
            if let Some(early) = registry.strike(client).await {
                registry.repeat(early).await;
            }
        });
    }
}

impl Registry {
    /// A key for a new client, from the operating system's generator.
    pub(crate) fn register(self: &Arc<Self>, form: Form, fleet: &Fleet) -> Registration {
        let random = random::bytes();
        let mut clients = self.clients.lock();
        loop {
            let pid = fleet.id().pid(i32::from_be_bytes(random::bytes()));
            if pid != 0 && !clients.contains_key(&pid) {
                let key = ClientKey { pid, random, form };
                let client = Arc::new(Cancelable { key, ..Cancelable::default() });
                clients.insert(pid, Arc::clone(&client));
                drop(clients);
                let registry = Arc::clone(self);
                return Registration { registry, client, entry: None };
            }
        }
    }

    /// Carries out a cancel request, or sends it on to the instance of `fleet` that it is for.
    /// Whether the key was right is told to nobody.
    ///
    /// # Cancel safety
    /// Dropped, the request may be lost, and hits nothing else.
    pub(crate) async fn cancel(&self, asked: &Request, fleet: &Fleet) -> Option<Early> {
        let found = self.clients.lock().get(&asked.pid).map(Arc::clone);
        let Some(client) = found.filter(|of| self.keys.fits(of.key, &asked.secret)) else {
            // The semaphore is never closed.
            let _slot = self.slots.acquire().await.ok()?;
            if let Some(place) = fleet.place_of(asked) {
                fleet::forward(asked, place).await;
            } else if let Some(before) = { self.before.lock().clone() } {
                fleet::pass_on(asked, before).await;
            }
            return None;
        };
        self.strike(client).await
    }

    /// Requests with keys that nobody here has, and no other instance, go on to the process that
    /// listens at `before`.
    pub(crate) fn send_on(&self, before: Option<Address>) {
        *self.before.lock() = before;
    }

    /// Cancels what `client` runs now, or waits to run.
    async fn strike(&self, client: Arc<Cancelable>) -> Option<Early> {
        let waiting = Counted::among(&client.waiting);
        let (ticket, is_young) = client.aim_at_statement().await?;
        self.shoot(&client, ticket, Some(waiting)).await;
        is_young.then_some(Early { client, ticket })
    }

    /// Repeats a request while what it is for still runs.
    pub(crate) async fn repeat(&self, early: Early) {
        for pause in AGAIN {
            time::sleep(pause).await;
            self.shoot(&early.client, early.ticket, None).await;
        }
    }

    async fn shoot(&self, client: &Cancelable, ticket: u64, waiting: Option<Counted<'_>>) {
        // The semaphore is never closed.
        let Ok(_slot) = self.slots.acquire().await else { return };
        drop(waiting);
        let Some((key, mut underway)) = client.shoot(ticket) else { return };
        let _sent = Counted::among(&client.sent);
        if let Err(error) = underway.send(&key).await {
            tracing::warn!(%error, "a cancel request did not reach the server");
        }
    }
}

#[cfg(test)]
mod tests;
