//! The name of a host and its addresses, asked for again when the answer is old.
//!
//! Knows no servers: it gives a socket. Always true: at most one question about a name is under
//! way, in a task of its own, so that a name server which does not answer holds up nobody who
//! could use the last good answer, and takes one thread at most; an answer that fails or is
//! empty changes nothing.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use forebay_seam::net::{self, Address, Socket};
use forebay_seam::random::Dice;
use forebay_seam::time::{self, Instant};
use forebay_seam::{random, sync::Mutex};
use tokio::sync::{Notify, watch};

use super::place::Place;
use crate::settings::LoadBalance;

/// Addresses of one name that are kept, and that one attempt tries.
const MOST_KEPT: usize = 64;
const MOST_TRIED: usize = 8;
/// The least that an address gets of the time for all.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// How long somebody who could do with the last answer waits for a new one.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<Address>>> + Send>>;
/// Asks for the addresses of a place.
pub(crate) type Lookup = fn(Place) -> Answer;

/// Asks the system.
pub(crate) fn system(place: Place) -> Answer {
    Box::pin(async move { place.addresses().await })
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Arc<[Address]>,
    /// When the last question was answered, well or not.
    at: Option<Instant>,
    error: Option<Arc<str>>,
}

/// One name with its port.
pub(crate) struct Name {
    place: Place,
    ttl: Duration,
    lookup: Lookup,
    known: watch::Sender<Known>,
    asking: Mutex<Asking>,
    /// Where the next attempt begins.
    turn: AtomicUsize,
    changes: AtomicU64,
    vanishings: AtomicU32,
    /// Told when an address has vanished.
    news: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Nobody,
    UnderWay,
}

impl Name {
    /// Its addresses are good for `ttl`; `news` is told when one of them has vanished.
    pub(crate) fn new(place: Place, ttl: Duration, lookup: Lookup, news: Arc<Notify>) -> Arc<Self> {
        let mut known = Known::default();
        if let Some(address) = literal(&place) {
            known.addresses = [address].into();
        }
        Arc::new(Self {
            place,
            ttl,
            lookup,
            known: watch::Sender::new(known),
            asking: Mutex::new(Asking::Nobody),
            turn: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            vanishings: AtomicU32::new(0),
            news,
        })
    }

    /// For how long an answer is good.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// An address needs no answer.
    pub(crate) fn is_literal(&self) -> bool {
        literal(&self.place).is_some()
    }

    /// The addresses known now.
    pub(crate) fn known(&self) -> Arc<[Address]> {
        Arc::clone(&self.known.borrow().addresses)
    }

    /// May attempts begin with other addresses than `address`? Name servers turn the addresses of
    /// one family; which family comes first is the system's choice, and stays (RFC 6724).
    pub(crate) fn may_turn_from(&self, address: &Address) -> bool {
        let Address::Tcp(here) = address else { return false };
        self.known().iter().any(|other| {
            let Address::Tcp(there) = other else { return false };
            there != here && there.is_ipv4() == here.is_ipv4()
        })
    }

    /// How often an answer differed from the one before.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// How often an address has vanished.
    pub(crate) fn vanishings(&self) -> u32 {
        self.vanishings.load(Ordering::Acquire)
    }

    /// The addresses: those of the last good answer, where a newer one does not come within
    /// a second.
    ///
    /// # Errors
    /// The name has never had an address, and the last question failed.
    ///
    /// # Cancel safety
    /// The question goes on, for others.
    pub(crate) async fn addresses(self: &Arc<Self>) -> io::Result<Arc<[Address]>> {
        let mut told = self.known.subscribe();
        if self.is_literal() || self.is_fresh() {
            return Ok(self.known());
        }
        self.ask();
        let answered = told.changed();
        if self.known().is_empty() {
            answered.await.map_err(io::Error::other)?;
        } else {
            drop(time::timeout(ANSWER_PATIENCE, answered).await);
        }
        let known = self.known.borrow();
        match &known.error {
            Some(error) if known.addresses.is_empty() => Err(io::Error::other(error.to_string())),
            Some(_) | None => Ok(Arc::clone(&known.addresses)),
        }
    }

    fn is_fresh(&self) -> bool {
        let known = self.known.borrow();
        !known.addresses.is_empty() && known.at.is_some_and(|at| time::now() < at + self.ttl)
    }

    /// Asks, unless somebody does.
    fn ask(self: &Arc<Self>) {
        let mut asking = self.asking.lock();
        if *asking == Asking::UnderWay {
            return;
        }
        *asking = Asking::UnderWay;
        drop(asking);
        let name = Arc::clone(self);
        drop(tokio::spawn(async move {
            let answer = (name.lookup)(name.place.clone()).await;
            *name.asking.lock() = Asking::Nobody;
            name.take(answer);
        }));
    }

    fn take(&self, answer: io::Result<Vec<Address>>) {
        let now = time::now();
        let answer = answer.and_then(|mut addresses| {
            addresses.truncate(MOST_KEPT);
            match addresses.is_empty() {
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                false => Ok(addresses),
            }
        });
        let before = self.known();
        match answer {
            Ok(addresses) => {
                let vanished = before.iter().any(|address| !addresses.contains(address));
                let appeared = addresses.iter().any(|address| !before.contains(address));
                let addresses = addresses.into();
                self.known.send_replace(Known { addresses, at: Some(now), error: None });
                if !before.is_empty() && (vanished || appeared) {
                    self.changes.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(host = %self.place, "the name leads to other addresses");
                }
                if vanished {
                    self.vanishings.fetch_add(1, Ordering::Release);
                    self.news.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(host = %self.place, %error, "the name cannot be resolved");
                self.known.send_modify(|known| {
                    known.at = Some(now);
                    known.error = Some(error.to_string().into());
                });
            }
        }
    }

    /// A connection to one of its addresses, and to which; all together get `patience`.
    ///
    /// # Errors
    /// The name has no address, or what the last address said.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        spread: LoadBalance,
        patience: Duration,
    ) -> io::Result<(Socket, Address)> {
        let addresses = self.addresses().await?;
        let order = self.order(&addresses, spread);
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX).max(1);
        let each = (patience / count).max(LEAST_PATIENCE);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in &order {
            match time::timeout(each, net::reach(std::slice::from_ref(address))).await {
                Ok(Ok((socket, _))) => return Ok((socket, address.clone())),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            }
        }
        // Where there are more than one attempt tries, the next begins with others.
        self.turn.fetch_add(order.len(), Ordering::Relaxed);
        Err(last)
    }

    fn order(&self, addresses: &[Address], spread: LoadBalance) -> Vec<Address> {
        let Some(last) = addresses.len().checked_sub(1) else { return Vec::new() };
        let mut order = addresses.to_vec();
        match spread {
            LoadBalance::Random => shuffle(&mut order),
            LoadBalance::RoundRobin => {
                order.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len());
            }
            LoadBalance::Disable if last >= MOST_TRIED => {
                order.rotate_left(self.turn.load(Ordering::Relaxed) % addresses.len());
            }
            LoadBalance::Disable => {}
        }
        order.truncate(MOST_TRIED);
        order
    }
}

/// The address of a place that is one.
fn literal(place: &Place) -> Option<Address> {
    match place {
        Place::Host { host, port } => {
            let address = host.parse::<IpAddr>().ok()?;
            Some(Address::Tcp((address, *port).into()))
        }
        Place::Socket(path) => Some(Address::Unix(Arc::clone(path))),
    }
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    let mut dice = Dice::new(random::seed());
    for end in (1..items.len()).rev() {
        let range = u64::try_from(end + 1).unwrap_or(u64::MAX);
        let chosen = usize::try_from(dice.next_u64() % range).unwrap_or(end);
        items.swap(end, chosen);
    }
}

#[cfg(test)]
mod tests;
