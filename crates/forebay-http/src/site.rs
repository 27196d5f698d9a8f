//! What all connections to one service share: where it is, how patient it is, and what was
//! counted of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use forebay_seam::time;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tokio::sync::Notify;

use crate::addresses::Addresses;
use crate::connection::Protocol;
use crate::idleness::Idleness;
use crate::link::{End, Link};

/// Wakes those who wait for a stream or for room, if there are any.
#[derive(Default)]
pub(crate) struct Bell {
    waiting: AtomicU32,
    notify: Notify,
}

impl Bell {
    /// Something has changed that somebody may wait for.
    pub(crate) fn ring(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_waiters();
        }
    }

    /// Whoever waits looks between this and the wait, so that nothing is missed.
    pub(crate) fn listen(&self) -> Listening<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Listening(self)
    }
}

/// Somebody waits.
pub(crate) struct Listening<'b>(&'b Bell);

impl Listening<'_> {
    /// Ends with the next ring after the call.
    pub(crate) fn heard(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.notify.notified()
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One service, as its connections see it.
pub(crate) struct Site {
    pub(crate) addresses: Addresses,
    pub(crate) idleness: Idleness,
    pub(crate) counts: Counts,
    pub(crate) bell: Bell,
    /// Calls that one connection may serve.
    pub(crate) max_calls: u32,
}

impl Site {
    /// A service at `addresses`.
    pub(crate) fn new(addresses: Addresses, max_calls: u32) -> Self {
        let (idleness, counts, bell) = Default::default();
        Self { addresses, idleness, counts, bell, max_calls }
    }

    /// An answer began on `link`.
    pub(crate) fn answered(&self, link: &Link, status: StatusCode, headers: &HeaderMap) {
        if link.birth.protocol == Protocol::Http1
            && let Some(said) = headers.get("keep-alive")
            && let Ok(said) = said.to_str()
        {
            self.idleness.announced(said);
        }
        let Some(address) = link.birth.address.filter(|_| self.addresses.are_several()) else {
            return;
        };
        let busy =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let pause = headers.get(RETRY_AFTER).filter(|_| busy).and_then(|value| {
            let now = time::unix_seconds();
            crate::announce::retry_after(value.to_str().ok()?, now)
        });
        match pause {
            Some(pause) => self.addresses.rests(address, pause),
            None if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                self.addresses.failed(address);
            }
            None => self.addresses.answered(address),
        }
    }

    /// A call on `link` got no answer.
    pub(crate) fn failed(&self, link: &Link) {
        if let Some(address) = link.birth.address {
            self.addresses.failed(address);
        }
    }
}

/// What was counted of the connections to one service.
#[derive(Default)]
pub(crate) struct Counts {
    /// Sockets open now.
    pub(crate) open: AtomicU32,
    /// Calls, or streams, on them now.
    pub(crate) calls: AtomicU32,
    http1: AtomicU64,
    http2: AtomicU64,
    pub(crate) tls_full: AtomicU64,
    pub(crate) tls_resumed: AtomicU64,
    ended: [AtomicU64; End::ALL.len()],
}

impl Counts {
    /// A connection was opened.
    pub(crate) fn opened(&self, protocol: Protocol) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let opened = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        opened.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended.
    pub(crate) fn ended(&self, end: End) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.ended[end.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were opened that speak `protocol`.
    pub(crate) fn all_opened(&self, protocol: Protocol) -> u64 {
        match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        }
        .load(Ordering::Relaxed)
    }

    /// How many have ended, by reason.
    pub(crate) fn all_ended(&self) -> impl Iterator<Item = (End, u64)> {
        End::ALL.iter().zip(&self.ended).map(|(end, count)| (*end, count.load(Ordering::Relaxed)))
    }
}
