//! Cancel requests: a key stands for a client, and what is cancelled is what that client
//! runs or waits for at that moment, or nothing.
//!
//! A request goes to the server only while the statement is running, and the server
//! connection is given to nobody before the request's own connection has been closed by the
//! server ([`InFlight::settled`]), so a late one can never hit another client's query.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aws_lc_rs::constant_time;
use forebay_seam::sync::Mutex;
use forebay_seam::{net, random, time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, watch};

/// Requests to servers under way at once; more than these are dropped, as a storm is.
const AT_ONCE: usize = 64;
/// A server that does not close the request's connection within this has lost it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to reach one server connection for a cancel.
#[derive(Debug, Clone)]
pub(crate) struct ServerKey {
    pub(crate) addresses: Arc<[SocketAddr]>,
    pub(crate) pid: i32,
    pub(crate) secret: i32,
}

/// Cancel requests on their way to one server connection.
#[derive(Debug)]
pub(crate) struct InFlight(watch::Sender<u32>);

impl InFlight {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::channel(0).0))
    }

    fn begin(self: &Arc<Self>) -> Underway {
        self.0.send_modify(|n| *n += 1);
        Underway(Arc::clone(self))
    }

    pub(crate) fn is_settled(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until no request is on its way.
    pub(crate) async fn settled(&self) {
        let mut receiver = self.0.subscribe();
        // The sender is `self`, so it cannot be gone.
        drop(receiver.wait_for(|n| *n == 0).await);
    }
}

/// One request on its way, until dropped.
struct Underway(Arc<InFlight>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

/// What a client is doing, as far as a cancel is concerned.
#[derive(Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    /// Waiting for a connection: the cancel ends this wait, and wakes who waits.
    Waiting(Waker, Asked),
    /// What we send ahead of its statement runs: the cancel is for the statement.
    Preparing,
    Running {
        key: ServerKey,
        in_flight: Arc<InFlight>,
        asked: Asked,
    },
}

/// Whether the client asked for a cancel of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

/// One client's handle in the registry.
#[derive(Debug, Default)]
pub(crate) struct Cancelable {
    doing: Mutex<Doing>,
    started: Notify,
}

/// What a cancel request meets.
enum Aim {
    Nothing,
    /// In a moment the statement itself will run.
    Soon,
    At(ServerKey, Underway),
}

impl Cancelable {
    /// Waits in line; ready when that is cancelled.
    pub(crate) fn poll_wait(&self, cx: &Context<'_>) -> Poll<()> {
        let mut doing = self.doing.lock();
        match &*doing {
            Doing::Waiting(_, Asked::Yes) => return Poll::Ready(()),
            Doing::Waiting(waker, Asked::No) if waker.will_wake(cx.waker()) => {}
            Doing::Waiting(_, Asked::No)
            | Doing::Nothing
            | Doing::Preparing
            | Doing::Running { .. } => *doing = Doing::Waiting(cx.waker().clone(), Asked::No),
        }
        Poll::Pending
    }

    pub(crate) fn prepares(&self) {
        *self.doing.lock() = Doing::Preparing;
    }

    pub(crate) fn runs(&self, key: &ServerKey, in_flight: &Arc<InFlight>) {
        let (key, in_flight) = (key.clone(), Arc::clone(in_flight));
        self.turns_to(Doing::Running { key, in_flight, asked: Asked::No });
    }

    pub(crate) fn rests(&self) {
        self.turns_to(Doing::Nothing);
    }

    fn turns_to(&self, doing: Doing) {
        let before = std::mem::replace(&mut *self.doing.lock(), doing);
        // Nobody waits for the end of anything else.
        if matches!(before, Doing::Preparing) {
            self.started.notify_waiters();
        }
    }

    /// Did the client ask for what was cancelled just now to be cancelled? Told once.
    pub(crate) fn was_cancelled(&self) -> bool {
        match &mut *self.doing.lock() {
            Doing::Running { asked, .. } => std::mem::replace(asked, Asked::No) == Asked::Yes,
            Doing::Nothing | Doing::Waiting(..) | Doing::Preparing => false,
        }
    }

    /// Notes a request as under way while the statement still runs.
    fn aim(&self) -> Aim {
        match &mut *self.doing.lock() {
            Doing::Nothing => Aim::Nothing,
            Doing::Waiting(waker, asked) => {
                *asked = Asked::Yes;
                waker.wake_by_ref();
                Aim::Nothing
            }
            Doing::Preparing => Aim::Soon,
            Doing::Running { key, in_flight, asked } => {
                *asked = Asked::Yes;
                Aim::At(key.clone(), in_flight.begin())
            }
        }
    }

    /// As [`Cancelable::aim`], once what we send ahead has been answered.
    async fn aim_at_statement(&self) -> Option<(ServerKey, Underway)> {
        let mut started = std::pin::pin!(self.started.notified());
        started.as_mut().enable();
        if let Aim::At(key, underway) = match self.aim() {
            Aim::Soon => {
                drop(time::timeout(PATIENCE, started).await);
                self.aim()
            }
            aim @ (Aim::Nothing | Aim::At(..)) => aim,
        } {
            return Some((key, underway));
        }
        None
    }
}

/// All clients that may be cancelled.
pub(crate) struct Registry {
    clients: Mutex<HashMap<i32, (i32, Arc<Cancelable>)>>,
    slots: Semaphore,
}

impl Default for Registry {
    fn default() -> Self {
        Self { clients: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }
}

/// A client's key; dropped, the key dies.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    pub(crate) pid: i32,
    pub(crate) secret: i32,
    pub(crate) client: Arc<Cancelable>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.clients.lock().remove(&self.pid);
    }
}

impl Registry {
    /// A key for a new client, from the operating system's generator.
    pub(crate) fn register(self: &Arc<Self>) -> Registration {
        let client = Arc::new(Cancelable::default());
        let secret = i32::from_be_bytes(random::bytes());
        let mut clients = self.clients.lock();
        loop {
            let pid = i32::from_be_bytes(random::bytes()) & i32::MAX;
            if pid != 0 && !clients.contains_key(&pid) {
                clients.insert(pid, (secret, Arc::clone(&client)));
                drop(clients);
                return Registration { registry: Arc::clone(self), pid, secret, client };
            }
        }
    }

    /// Carries out a cancel request. Whether the key was right is told to nobody.
    pub(crate) async fn cancel(&self, pid: i32, secret: i32) {
        let client = match self.clients.lock().get(&pid) {
            Some((own, client)) if same(*own, secret) => Arc::clone(client),
            _ => return,
        };
        let Ok(_slot) = self.slots.try_acquire() else { return };
        if let Some((key, underway)) = client.aim_at_statement().await {
            if let Err(error) = send(&key).await {
                tracing::warn!(%error, "a cancel request did not reach the server");
            }
            drop(underway);
        }
    }
}

fn same(a: i32, b: i32) -> bool {
    constant_time::verify_slices_are_equal(&a.to_be_bytes(), &b.to_be_bytes()).is_ok()
}

/// Sends a CancelRequest and waits until the server has closed: then it has signalled.
pub(crate) async fn send(key: &ServerKey) -> std::io::Result<()> {
    let exchange = async {
        let mut stream = net::connect(&key.addresses).await?;
        let mut request = [0; 16];
        let words = [16, 80_877_102, key.pid, key.secret];
        for (place, word) in request.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        stream.write_all(&request).await?;
        let mut end = [0; 1];
        // Nothing comes; a reset is an end as well.
        drop(stream.read(&mut end).await);
        Ok(())
    };
    time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// As [`send`], counted in `in_flight`.
pub(crate) async fn send_counted(key: &ServerKey, in_flight: &Arc<InFlight>) {
    let _underway = in_flight.begin();
    drop(send(key).await);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn wait_is_over(client: &Cancelable) -> bool {
        poll_fn(|cx| Poll::Ready(client.poll_wait(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_key_dies_with_its_client() {
        let registry = Arc::new(Registry::default());
        let registration = registry.register();
        assert_eq!(registry.clients.lock().len(), 1);
        drop(registration);
        assert!(registry.clients.lock().is_empty());
    }

    #[tokio::test]
    async fn a_wrong_secret_cancels_nothing() {
        let registry = Arc::new(Registry::default());
        let one = registry.register();
        assert!(!wait_is_over(&one.client).await);
        registry.cancel(one.pid, one.secret ^ 1).await;
        assert!(!wait_is_over(&one.client).await);
        let client = Arc::clone(&one.client);
        let wait = tokio::spawn(async move { poll_fn(|cx| client.poll_wait(cx)).await });
        tokio::task::yield_now().await;
        registry.cancel(one.pid, one.secret).await;
        wait.await.unwrap();
    }

    #[tokio::test]
    async fn a_cancel_that_came_late_does_not_end_the_next_wait() {
        let registry = Arc::new(Registry::default());
        let one = registry.register();
        assert!(!wait_is_over(&one.client).await);
        registry.cancel(one.pid, one.secret).await;
        assert!(wait_is_over(&one.client).await);
        one.client.rests();
        assert!(!wait_is_over(&one.client).await);
    }

    #[tokio::test]
    async fn a_cancel_waits_for_what_is_sent_ahead() {
        let in_flight = InFlight::new();
        let client = Cancelable::default();
        let key = ServerKey { addresses: Arc::from([]), pid: 1, secret: 2 };
        client.prepares();
        let (aimed, ()) = tokio::join!(client.aim_at_statement(), async {
            client.runs(&key, &in_flight);
        });
        assert!(aimed.is_some());
    }

    #[tokio::test]
    async fn a_connection_is_settled_only_when_its_requests_are() {
        let in_flight = InFlight::new();
        let client = Cancelable::default();
        let key = ServerKey { addresses: Arc::from([]), pid: 1, secret: 2 };
        client.runs(&key, &in_flight);
        let Aim::At(_, underway) = client.aim() else { panic!("it runs") };
        client.rests();
        assert!(!in_flight.is_settled());
        assert!(matches!(client.aim(), Aim::Nothing), "what has ended cannot be cancelled");
        drop(underway);
        in_flight.settled().await;
    }
}
