//! The sockets of one destination, and the streams on those that speak HTTP/2.
//!
//! The engine deals in seats: with HTTP/1.1 a seat is a connection, with HTTP/2 a stream of
//! one. Here streams find their connections. More connections are opened before streams would
//! queue, a destination that is busy gets a second one early, and at most as many sockets are
//! open as the budget says, whatever the engine has seats for. Opens nothing itself. Always
//! true: a connection has at most as many streams as the service and the settings allow, and
//! all of them are of one identity.

use std::sync::Arc;

use forebay_seam::sync::Mutex;
use forebay_seam::time;
use hyper::client::conn::http2;

use crate::connection::{Addressee, Connection, Protocol};
use crate::link::{End, Link};
use crate::site::Site;
use crate::upload::Upload;
use crate::wallet::Identity;

/// A connection of HTTP/2 with the streams that were given away.
struct Moored {
    identity: Identity,
    link: Arc<Link>,
    sender: http2::SendRequest<Upload>,
    seats: u32,
}

#[derive(Default)]
struct Inner {
    moored: Vec<Moored>,
    /// All sockets.
    links: Vec<Arc<Link>>,
    /// Those on whose behalf sockets are being opened.
    opening: Vec<Identity>,
    /// Those who wait for a stream of a socket that is being opened.
    hoping: Vec<Identity>,
    /// What the last connection that could choose speaks.
    speaks: Option<Protocol>,
    /// Streams of a connection, as last known; 0: never.
    streams: u32,
    /// How often all of them were asked to leave.
    farewells: u64,
}

/// The sockets of one destination.
pub(crate) struct Berths {
    site: Arc<Site>,
    addressee: Arc<Addressee>,
    /// Streams on one connection at the most, by our own will.
    streams: u32,
    inner: Mutex<Inner>,
}

/// What one who wants a seat gets.
pub(crate) enum Place {
    /// A stream.
    Seat(Connection<Upload>),
    /// Leave to open a connection.
    Open(Opening),
    /// There will be a stream as soon as a connection is open.
    Wait(Hope),
    /// As many sockets are open as may be, and none has a stream to spare.
    Full,
}

impl Berths {
    /// Of the service at `site`, with `streams` on a connection at the most.
    pub(crate) fn new(site: Arc<Site>, addressee: Arc<Addressee>, streams: u32) -> Arc<Self> {
        Arc::new(Self { site, addressee, streams, inner: Mutex::default() })
    }

    /// A place for `identity`, where `most` sockets may be open.
    pub(crate) fn place(self: &Arc<Self>, identity: &Identity, most: u32) -> Place {
        let mut inner = self.inner.lock();
        let is_shared = inner.speaks == Some(Protocol::Http2);
        let sockets = inner.links.len() + inner.opening.len();
        let has_room = sockets < usize::try_from(most).unwrap_or(usize::MAX);
        // The engine itself counts connections of HTTP/1.1: they are its seats.
        if !is_shared || (identity.is_alone() && has_room) {
            return Place::Open(self.opens(&mut inner, identity));
        }
        if identity.is_alone() {
            return Place::Full;
        }
        let of_it = || {
            inner
                .moored
                .iter()
                .enumerate()
                .filter(|(_, moored)| moored.identity == *identity && moored.link.is_open())
        };
        // What streams a connection has is known a moment after it is open.
        let opening = inner.opening.iter().filter(|other| *other == identity).count()
            + of_it().filter(|(_, moored)| !moored.link.is_settled()).count();
        let free = of_it()
            .filter(|(_, moored)| moored.seats < self.capacity(&moored.link))
            .min_by_key(|(_, moored)| moored.seats)
            .map(|(place, moored)| (place, moored.seats, self.capacity(&moored.link)));
        if let Some((place, seats, capacity)) = free {
            // One connection alone is one point of failure, and one lost packet stops all of
            // its streams: who needs half of it gets a second one.
            let is_busy = seats >= capacity.div_ceil(2) && capacity > 1;
            if is_busy && opening == 0 && has_room && of_it().count() < 2 {
                return Place::Open(self.opens(&mut inner, identity));
            }
            return self.take(&mut inner, place);
        }
        let hoping = inner.hoping.iter().filter(|other| *other == identity).count();
        let expected = match inner.streams {
            0 => self.streams,
            known => known,
        };
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        // Those who open one take a stream of it, too.
        if opening > 0 && hoping + 1 < opening.saturating_mul(expected) {
            inner.hoping.push(identity.clone());
            return Place::Wait(Hope { berths: Arc::clone(self), identity: identity.clone() });
        }
        match has_room {
            true => Place::Open(self.opens(&mut inner, identity)),
            false => Place::Full,
        }
    }

    fn opens(self: &Arc<Self>, inner: &mut Inner, identity: &Identity) -> Opening {
        inner.opening.push(identity.clone());
        let (identity, farewells) = (identity.clone(), inner.farewells);
        Opening { berths: Arc::clone(self), identity, farewells }
    }

    fn take(self: &Arc<Self>, inner: &mut Inner, place: usize) -> Place {
        let Some(moored) = inner.moored.get_mut(place) else { return Place::Full };
        moored.seats += 1;
        let seat = Seat { berths: Arc::clone(self), link: Arc::clone(&moored.link) };
        Place::Seat(Connection::stream(moored.sender.clone(), seat, Arc::clone(&self.addressee)))
    }

    /// Streams that `link` may have.
    fn capacity(&self, link: &Link) -> u32 {
        link.streams().min(self.streams)
    }

    /// Seats of the engine that one socket stands for.
    pub(crate) fn factor(&self) -> u32 {
        let mut inner = self.inner.lock();
        if inner.speaks != Some(Protocol::Http2) {
            return 1;
        }
        let known =
            inner.moored.iter().filter(|moored| moored.link.is_open() && moored.link.is_settled());
        if let Some(streams) = known.map(|moored| self.capacity(&moored.link)).max() {
            inner.streams = streams;
        }
        inner.streams.max(1)
    }

    /// A connection is there: `link`, and it will be told when its socket is closed.
    pub(crate) fn arrived(self: &Arc<Self>, link: &Arc<Link>) -> Socket {
        self.inner.lock().links.push(Arc::clone(link));
        self.site.counts.opened(link.birth.protocol);
        Socket { berths: Arc::clone(self), link: Arc::clone(link) }
    }

    /// A connection of HTTP/2 that `opening` was for takes streams: the first of them.
    pub(crate) fn moor(
        self: &Arc<Self>,
        opening: Opening,
        link: &Arc<Link>,
        sender: http2::SendRequest<Upload>,
    ) -> Connection<Upload> {
        let seat = Seat { berths: Arc::clone(self), link: Arc::clone(link) };
        let connection = Connection::stream(sender.clone(), seat, Arc::clone(&self.addressee));
        let mut inner = self.inner.lock();
        inner.speaks = Some(Protocol::Http2);
        if opening.farewells != inner.farewells {
            link.leave(End::Ours);
        }
        let identity = opening.identity.clone();
        inner.moored.push(Moored { identity, link: Arc::clone(link), sender, seats: 1 });
        drop(inner);
        drop(opening);
        connection
    }

    /// A connection that could choose speaks HTTP/1.1.
    pub(crate) fn speaks_http1(&self) {
        let mut inner = self.inner.lock();
        if inner.moored.is_empty() {
            inner.speaks = Some(Protocol::Http1);
        }
    }

    /// Asks the connection of another identity that has rested longest to leave; says whether
    /// there is one.
    pub(crate) fn make_room(&self, identity: &Identity) -> bool {
        let (inner, now) = (self.inner.lock(), time::now());
        let of_it: Vec<_> =
            inner.moored.iter().filter(|moored| moored.identity == *identity).collect();
        let longest = inner
            .links
            .iter()
            .filter(|link| link.is_open() && link.in_flight() == 0)
            .filter(|link| !of_it.iter().any(|moored| Arc::ptr_eq(&moored.link, link)))
            .max_by_key(|link| link.rested(now));
        longest.is_some_and(|link| link.leave(End::Room))
    }

    /// No connection of now takes another call, nor one that is just being opened: what is on
    /// them ends there.
    pub(crate) fn leave_all(&self) {
        let mut inner = self.inner.lock();
        inner.farewells += 1;
        for link in &inner.links {
            link.leave(End::Ours);
        }
        drop(inner);
        self.site.bell.ring();
    }

    /// Sockets that are open now.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.inner.lock().links.clone()
    }

    /// How many connections of HTTP/2 are open, and how many streams of them were given away.
    pub(crate) fn shared(&self) -> (u32, u32) {
        let inner = self.inner.lock();
        let links = u32::try_from(inner.moored.len()).unwrap_or(u32::MAX);
        (links, inner.moored.iter().map(|moored| moored.seats).sum())
    }

    fn give_up(&self, link: &Arc<Link>) {
        let mut inner = self.inner.lock();
        let place = inner.moored.iter().position(|moored| Arc::ptr_eq(&moored.link, link));
        let last = place.and_then(|place| {
            let moored = inner.moored.get_mut(place)?;
            moored.seats -= 1;
            (moored.seats == 0).then(|| inner.moored.swap_remove(place))
        });
        drop(inner);
        if let Some(last) = last {
            // With the last sender the connection ends.
            last.link.leave(End::Ours);
            drop(last);
        }
        self.site.bell.ring();
    }
}

/// Leave to open one connection.
pub(crate) struct Opening {
    berths: Arc<Berths>,
    identity: Identity,
    /// How often all had been asked to leave when it was given.
    farewells: u64,
}

impl Drop for Opening {
    fn drop(&mut self) {
        forget(&mut self.berths.inner.lock().opening, &self.identity);
        self.berths.site.bell.ring();
    }
}

/// Somebody waits for a stream.
pub(crate) struct Hope {
    berths: Arc<Berths>,
    identity: Identity,
}

impl Drop for Hope {
    fn drop(&mut self) {
        forget(&mut self.berths.inner.lock().hoping, &self.identity);
    }
}

fn forget(all: &mut Vec<Identity>, one: &Identity) {
    if let Some(place) = all.iter().position(|other| other == one) {
        all.swap_remove(place);
    }
}

/// One stream of a connection.
pub(crate) struct Seat {
    berths: Arc<Berths>,
    link: Arc<Link>,
}

impl Seat {
    /// The connection that it is of.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.berths.give_up(&self.link);
    }
}

/// A socket is open. Held by whatever reads and writes it.
pub(crate) struct Socket {
    berths: Arc<Berths>,
    link: Arc<Link>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.link.has_ended();
        let mut inner = self.berths.inner.lock();
        inner.links.retain(|link| !Arc::ptr_eq(link, &self.link));
        drop(inner);
        self.berths.site.bell.ring();
    }
}
