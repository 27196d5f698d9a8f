//! Where a service is: the addresses of its name, which of them work, and which may be used.
//!
//! The name is resolved again after a while; what it does not lead to any more is told, so
//! that connections there are drained. An address that fails again and again, or asks to be
//! left alone (`Retry-After`), is ejected for a while, and never more than half of them, so
//! never the last. Opens nothing. Always true: an address that is given out is one that
//! calls may reach ([`Allowed`]), however the name came to lead to it.

mod allowed;
mod book;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::net;
use forebay_seam::sync::Mutex;
use forebay_seam::time;

pub(crate) use allowed::{Allowed, Network, NoNetwork, Private};
use book::Book;

/// The addresses of one service.
pub(crate) struct Addresses {
    host: String,
    port: u16,
    allowed: Allowed,
    /// How often the name is resolved.
    interval: Duration,
    book: Mutex<Book>,
    several: AtomicBool,
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("it cannot be resolved: {0}")]
    Unknown(#[from] io::Error),
    #[error("it has no address")]
    Nowhere,
    /// Which ones it leads to is said in the log, not to agents.
    #[error(
        "it leads to addresses that only this network reaches, which is not allowed here: \
         `connections.allow_private` or `connections.allow_networks` allows it"
    )]
    Forbidden,
}

/// What is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Addresses that may be used.
    pub(crate) addresses: u32,
    /// Of these, ejected now.
    pub(crate) ejected: u32,
    /// Ejections so far.
    pub(crate) ejections: u64,
    /// How often the name was resolved, and could not be.
    pub(crate) resolved: u64,
    pub(crate) failures: u64,
    /// How often it led to an address that may not be used.
    pub(crate) forbidden: u64,
}

impl Addresses {
    /// Those of `host`, as far as `allowed`; resolved each `interval`. An address is ejected
    /// after `eject_after` failures in a row (0: never).
    pub(crate) fn new(
        host: &str,
        port: u16,
        allowed: Allowed,
        interval: Duration,
        eject_after: u32,
    ) -> Self {
        let book = Mutex::new(Book::new(eject_after));
        Self {
            host: host.to_owned(),
            port,
            allowed,
            interval,
            book,
            several: AtomicBool::new(false),
        }
    }

    /// Those to try, the best first.
    ///
    /// # Errors
    /// When there is none. What was known before stays in force if the name cannot be resolved.
    ///
    /// # Cancel safety
    /// Dropped, nothing has changed.
    pub(crate) async fn to_try(&self) -> Result<Vec<SocketAddr>, NoAddress> {
        let now = time::now();
        if self.book.lock().is_due(now) {
            // Whoever connects needs an answer, and what the end of an address means for
            // connections is told to who looks after them.
            self.resolve().await?;
        }
        let addresses = self.book.lock().in_order(time::now());
        if addresses.is_empty() { Err(NoAddress::Nowhere) } else { Ok(addresses) }
    }

    /// Resolves the name, if that is due.
    ///
    /// # Errors
    /// When there is no address, and none that was known before.
    ///
    /// # Cancel safety
    /// Dropped, nothing has changed.
    pub(crate) async fn resolve(&self) -> Result<(), NoAddress> {
        let now = time::now();
        if !self.book.lock().begins(now, self.interval) {
            return Ok(());
        }
        match net::resolve(&self.host, self.port).await {
            Ok(found) => self.learn(found),
            Err(error) => {
                let mut book = self.book.lock();
                book.was_not_resolved(time::now());
                match book.is_empty() {
                    true => Err(NoAddress::Unknown(error)),
                    false => {
                        let host = &*self.host;
                        tracing::debug!(host, %error, "a name cannot be resolved; going on");
                        Ok(())
                    }
                }
            }
        }
    }

    /// The name leads to `found`.
    ///
    /// # Errors
    /// When there is no address left that may be used.
    pub(crate) fn learn(&self, found: Vec<SocketAddr>) -> Result<(), NoAddress> {
        let (good, bad): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| self.allowed.permits(address.ip()));
        if let Some(address) = bad.first() {
            let host = &*self.host;
            tracing::warn!(host, %address, "a name leads to an address that may not be used");
        }
        let none = if bad.is_empty() { NoAddress::Nowhere } else { NoAddress::Forbidden };
        let mut book = self.book.lock();
        book.learn(good, bad.len());
        self.several.store(book.are_several(), Ordering::Relaxed);
        // That it is gone from one answer says little; that it is forbidden is an order.
        if book.is_empty() { Err(none) } else { Ok(()) }
    }

    /// Is there more than one, so that it matters which?
    pub(crate) fn are_several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// Is the name to be resolved again?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.book.lock().is_due(now)
    }

    /// May connections to `address` go on? Not if the name has not led there for a while, nor
    /// if it is ejected.
    pub(crate) fn verdict(&self, address: SocketAddr, now: Instant) -> Verdict {
        self.book.lock().verdict(address, now)
    }

    /// A connect, or a call, failed at `address`.
    pub(crate) fn failed(&self, address: SocketAddr) {
        if self.book.lock().failed(address, time::now()) {
            tracing::warn!(host = &*self.host, %address, "an address is ejected: it fails");
        }
    }

    /// `address` answered.
    pub(crate) fn answered(&self, address: SocketAddr) {
        self.book.lock().answered(address);
    }

    /// `address` asks not to be asked for `pause`.
    pub(crate) fn rests(&self, address: SocketAddr, pause: Duration) {
        if self.book.lock().rests(address, pause, time::now()) {
            let host = &*self.host;
            tracing::info!(host, %address, ?pause, "an address asks to be left alone");
        }
    }

    /// What is known of them now.
    pub(crate) fn known(&self) -> Known {
        self.book.lock().known(time::now())
    }
}

/// What becomes of connections to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They go on.
    Stays,
    /// The name does not lead there any more.
    Vanished,
    /// It is ejected.
    Ejected,
}
