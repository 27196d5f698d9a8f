//! One connection to a service, from its handshake to its end: what is known of it, whoever
//! holds it or a stream of it.
//!
//! Knows no bytes. Always true: a link that is leaving takes no new call and lets those that
//! run end; of why it went, the first reason counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_seam::net::{Lies, TcpStream, look};
use forebay_seam::sync::Mutex;
use forebay_seam::time;

use crate::connection::Protocol;
use crate::piping::Piping;
use crate::secrets::Digest;
use crate::site::Site;
use crate::wallet::Identity;

/// A connection that rested for less is taken to be open still: what happened to it before,
/// its task has seen.
const JUST_NOW: Duration = Duration::from_millis(20);

macro_rules! ends {
    ($($(#[$doc:meta])* $end:ident = $code:literal;)*) => {
        /// Why a connection came to its end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum End { $($(#[$doc])* $end,)* }

        impl End {
            /// Every reason, in the order of its place.
            pub(crate) const ALL: &[Self] = &[$(Self::$end,)*];

            /// Its name in metrics.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$end => $code,)* }
            }

            /// Its place among all.
            pub(crate) fn place(self) -> usize {
                Self::ALL.iter().position(|end| *end == self).unwrap_or(0)
            }
        }
    };
}

ends! {
    /// We closed it: it was not needed, too old, or its call was given up.
    Ours = "ours";
    /// The service closed it while it rested.
    ServiceIdle = "service_idle";
    /// It broke, or the service closed it, with a call on it.
    ServiceBusy = "service_busy";
    /// The service said that it would go (GOAWAY).
    GoAway = "goaway";
    /// It rested for so long that the service would have closed it soon.
    Stale = "stale";
    /// It has served as many calls as one may.
    Spent = "spent";
    /// It was older than its lifetime.
    Lifetime = "lifetime";
    /// The name does not lead to its address any more.
    Vanished = "address_gone";
    /// Its address was ejected.
    Ejected = "address_ejected";
    /// Its client certificate was replaced.
    Certificate = "certificate";
    /// It made room for another identity.
    Room = "room";
}

/// A link is open.
const OPEN: u8 = 0;

/// What a link was opened with.
pub(crate) struct Birth {
    pub(crate) protocol: Protocol,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) socket: Option<Arc<Mutex<TcpStream>>>,
    /// On whose behalf, where it is for more than one call.
    pub(crate) identity: Option<Identity>,
    pub(crate) certificate: Option<Digest>,
    /// Until when it takes calls.
    pub(crate) expires: Option<Instant>,
}

/// One connection.
pub(crate) struct Link {
    pub(crate) site: Arc<Site>,
    pub(crate) birth: Birth,
    /// What is sent on it, if it speaks HTTP/2.
    pub(crate) piping: Arc<Piping>,
    opened: Instant,
    /// 0: open; else one more than the place of the reason why it leaves.
    course: AtomicU8,
    /// Streams that the service lets us have at the same time; 0: it has not said yet.
    streams: AtomicU32,
    /// Calls so far.
    calls: AtomicU32,
    /// Calls on it now.
    in_flight: AtomicU32,
    /// Since when it rests, in microseconds since it was opened.
    rests: AtomicU64,
}

impl Link {
    /// One that was just opened. Of a connection of HTTP/2 one stream can be used until the
    /// service has said how many.
    pub(crate) fn new(site: Arc<Site>, birth: Birth) -> Arc<Self> {
        Arc::new(Self {
            site,
            birth,
            piping: Arc::default(),
            opened: time::now(),
            course: AtomicU8::new(OPEN),
            streams: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            rests: AtomicU64::new(0),
        })
    }

    /// Whether it takes calls.
    pub(crate) fn is_open(&self) -> bool {
        self.course.load(Ordering::Acquire) == OPEN
    }

    /// It takes no calls from now on, because of `why`; says whether it did before.
    pub(crate) fn leave(&self, why: End) -> bool {
        let course = u8::try_from(why.place() + 1).unwrap_or(u8::MAX);
        self.course.compare_exchange(OPEN, course, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why it leaves, if it does.
    fn reason(&self) -> Option<End> {
        let course = usize::from(self.course.load(Ordering::Acquire));
        End::ALL.get(course.checked_sub(1)?).copied()
    }

    /// Its socket is closed. Whoever closed it without a word was the service.
    pub(crate) fn has_ended(&self) {
        let busy = self.in_flight() > 0;
        let end = if busy { End::ServiceBusy } else { End::ServiceIdle };
        if self.leave(end) && !busy {
            self.site.idleness.closed_after(self.rested(time::now()), time::now());
        }
        self.site.counts.ended(self.reason().unwrap_or(end));
    }

    /// How many streams it can have at the same time, as the service says; one until then.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed).max(1)
    }

    /// Whether the service has said how many streams it can have.
    pub(crate) fn is_settled(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// The service lets us have `streams`; `None`: as many as we like.
    pub(crate) fn allows(&self, streams: Option<u32>) {
        self.streams.store(streams.unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
        self.site.bell.ring();
    }

    /// Calls on it now.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// For how long it has rested; nothing while a call is on it.
    pub(crate) fn rested(&self, now: Instant) -> Duration {
        if self.in_flight() > 0 {
            return Duration::ZERO;
        }
        let since = self.opened + Duration::from_micros(self.rests.load(Ordering::Relaxed));
        now.saturating_duration_since(since)
    }

    /// May it take a call now? It may not if it leaves, has served its calls, or has rested
    /// for so long that the service may be closing it just now.
    pub(crate) fn is_current(&self) -> bool {
        if !self.is_open() {
            return false;
        }
        if self.calls.load(Ordering::Relaxed) >= self.site.max_calls {
            self.leave(End::Spent);
            return false;
        }
        match self.site.idleness.most() {
            Some(most) if self.rested(time::now()) >= most => {
                self.leave(End::Stale);
                false
            }
            Some(_) | None => true,
        }
    }

    /// Is its socket open still? A connection that has just served a call is not looked at;
    /// for one that rested, one look tells a close that nobody has noticed yet.
    pub(crate) fn is_whole(&self) -> bool {
        let Some(socket) = &self.birth.socket else { return true };
        if self.rested(time::now()) < JUST_NOW {
            return true;
        }
        match (look(&socket.lock()), self.birth.protocol) {
            (Lies::Nothing, _) => true,
            // What a connection of HTTP/2 may be told at any time, its task will read.
            (Lies::Bytes, Protocol::Http2) => true,
            // Nobody asked for anything: it is the farewell of TLS, or none of ours.
            (Lies::Bytes, Protocol::Http1) | (Lies::End, _) => false,
        }
    }

    /// A call is on it until what is returned is dropped.
    pub(crate) fn call(self: &Arc<Self>) -> Calling {
        let rested = self.rested(time::now());
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.site.counts.calls.fetch_add(1, Ordering::Relaxed);
        Calling { link: Arc::clone(self), rested: (before > 0).then_some(rested) }
    }
}

/// A call is on a link. Dropped, the link rests again, if it was the only one.
pub(crate) struct Calling {
    link: Arc<Link>,
    /// For how long the link had rested before, if it had served already.
    rested: Option<Duration>,
}

impl Calling {
    /// It got no answer, which is the service's doing. On HTTP/1.1 that may have closed the
    /// link just then.
    pub(crate) fn failed(&self) {
        let link = &self.link;
        link.site.failed(link);
        if let Some(rested) = self.rested.filter(|_| link.birth.protocol == Protocol::Http1) {
            link.site.idleness.closed_after(rested, time::now());
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        let link = &self.link;
        let age = time::now().saturating_duration_since(link.opened).as_micros();
        link.rests.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        link.in_flight.fetch_sub(1, Ordering::AcqRel);
        link.site.counts.calls.fetch_sub(1, Ordering::Relaxed);
        link.site.bell.ring();
    }
}
