//! Connections to one service: the HTTP side of the engine.
//!
//! The engine asks for a seat; here is decided whether that is a stream of a connection that
//! is open or a connection to be opened, and what the engine's settings are worth in seats.
//! `upkeep` does what is due whether anybody asks or not.

mod upkeep;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use forebay_pool::{ConnectFailure, Connector, FailureKind, PoolSettings, WeakPool};
use forebay_seam::random::{self, Dice};
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::Request;
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;

use crate::berths::{Berths, Place};
use crate::connection::{Connection, Protocol};
use crate::credential::ClientCertificate;
use crate::dial::{self, Line};
pub(crate) use crate::dial::{OpenError, open};
use crate::link::Link;
use crate::settings::ProtocolSetting;
use crate::site::Site;
use crate::stats::ConnectionsSnapshot;
use crate::target::Target;
use crate::tls::{Offer, Outfit};
use crate::upload::Upload;
use crate::wallet::{Identity, Wallet};

/// How long somebody waits for room before the destination is told to be busy.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
/// How long a service may take to say how many streams it allows.
const SETTLED: Duration = Duration::from_secs(10);
/// What is read of the answer to a probe.
const PROBE_BODY: usize = 64 * 1024;
/// By how much lifetimes differ.
const JITTER: std::ops::Range<f64> = 0.9..1.1;

/// The engine's settings, where each connection is worth so many seats.
pub(crate) type InSeats = Box<dyn Fn(u32) -> PoolSettings + Send + Sync>;

/// What may change while connections are open.
pub(crate) struct Terms {
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) habits: Habits,
    pub(crate) in_seats: InSeats,
}

/// How connections are opened and kept.
pub(crate) struct Habits {
    pub(crate) protocol: ProtocolSetting,
    /// Streams on a connection at the most.
    pub(crate) streams: u32,
    /// Connects and handshakes at the same time.
    pub(crate) concurrent_connects: u32,
    /// Sockets at the most.
    pub(crate) budget: u32,
    pub(crate) lifetime: Duration,
    pub(crate) resolve_interval: Duration,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_path: Option<http::Uri>,
}

/// Opens connections to one destination.
pub(crate) struct Opener {
    desk: Arc<Desk>,
}

/// What connecting and the upkeep share.
struct Desk {
    target: Arc<Target>,
    site: Arc<Site>,
    berths: Arc<Berths>,
    outfit: Arc<Outfit>,
    terms: ArcSwap<Terms>,
    handshakes: Semaphore,
    /// Seats that a socket stands for, as the engine was told.
    factor: AtomicU32,
    /// Sockets at the most, where that was set by hand; else 0.
    by_hand: AtomicU32,
    dice: Mutex<Dice>,
    spawner: Spawner,
    pool: OnceLock<WeakPool<Opener>>,
    /// Connections that had ended when it was last looked.
    ended: AtomicU64,
}

impl Opener {
    /// Opens connections to `target`, which is `site`. Inside a runtime.
    pub(crate) fn new(
        (target, site): (Arc<Target>, Site),
        outfit: Arc<Outfit>,
        terms: Terms,
    ) -> Self {
        let site = Arc::new(site);
        let habits = &terms.habits;
        let berths = Berths::new(Arc::clone(&site), target.addressee(), habits.streams);
        let connects = usize::try_from(habits.concurrent_connects).unwrap_or(usize::MAX);
        let desk = Desk {
            target,
            site,
            berths,
            outfit,
            handshakes: Semaphore::new(connects.min(Semaphore::MAX_PERMITS)),
            terms: ArcSwap::from_pointee(terms),
            factor: AtomicU32::new(1),
            by_hand: AtomicU32::new(0),
            dice: Mutex::new(Dice::new(random::seed())),
            spawner: Spawner::current(),
            pool: OnceLock::new(),
            ended: AtomicU64::new(0),
        };
        Self { desk: Arc::new(desk) }
    }

    /// From now on what is due is done, for `pool`, as long as somebody has it.
    pub(crate) fn serve(&self, pool: WeakPool<Self>) {
        let spawner = self.desk.spawner.clone();
        if self.desk.pool.set(pool).is_ok() {
            spawner.spawn(upkeep::look_after(Arc::downgrade(&self.desk)));
        }
    }

    /// Goes by other terms from now on. Gives the engine's settings by them.
    pub(crate) fn follow(&self, terms: Terms) -> PoolSettings {
        let settings = (terms.in_seats)(self.desk.factor.load(Ordering::Relaxed));
        self.desk.terms.store(Arc::new(terms));
        settings
    }

    /// As many sockets may be open as was set by hand; `None`: as is configured. Says how many
    /// seats that is.
    pub(crate) fn set_budget(&self, budget: Option<u32>) -> Option<u32> {
        self.desk.by_hand.store(budget.unwrap_or(0), Ordering::Relaxed);
        let factor = self.desk.factor.load(Ordering::Relaxed);
        budget.map(|budget| budget.saturating_mul(factor))
    }

    /// No connection of now takes another call. Of HTTP/2 the engine knows the seats alone:
    /// one that it replaces would get another stream of the same connection.
    pub(crate) fn leave_all(&self) {
        self.desk.berths.leave_all();
    }

    /// The connections, now.
    pub(crate) fn snapshot(&self, destination: Arc<str>) -> ConnectionsSnapshot {
        let Desk { site, berths, .. } = &*self.desk;
        let (known, counts) = (site.addresses.known(), &site.counts);
        let (shared, streams) = berths.shared();
        let resting = berths.links().iter().filter(|link| link.in_flight() == 0).count();
        ConnectionsSnapshot {
            destination,
            open: counts.open.load(Ordering::Relaxed),
            resting: u32::try_from(resting).unwrap_or(u32::MAX),
            in_use: counts.calls.load(Ordering::Relaxed),
            http2: shared,
            streams,
            seats_per_connection: self.desk.factor.load(Ordering::Relaxed),
            opened_http1: counts.all_opened(Protocol::Http1),
            opened_http2: counts.all_opened(Protocol::Http2),
            tls_full: counts.tls_full.load(Ordering::Relaxed),
            tls_resumed: counts.tls_resumed.load(Ordering::Relaxed),
            closed: counts.all_ended().map(|(end, count)| (end.code(), count)).collect(),
            idle_learnt: site.idleness.learnt().map(|learnt| learnt.as_secs_f64()),
            addresses: known.addresses,
            ejected: known.ejected,
            ejections: known.ejections,
            resolved: known.resolved,
            resolve_failures: known.failures,
            forbidden: known.forbidden,
        }
    }
}

impl Desk {
    /// A seat for `identity`: a stream that is free, or a connection that is opened.
    async fn seat(
        self: &Arc<Self>,
        identity: &Identity,
    ) -> Result<Connection<Upload>, ConnectFailure> {
        let until = time::now() + ROOM_PATIENCE;
        let opening = loop {
            let listening = self.site.bell.listen();
            let heard = listening.heard();
            match self.berths.place(identity, self.most()) {
                Place::Seat(connection) => return Ok(connection),
                Place::Open(opening) => break opening,
                Place::Wait(_hope) => heard.await,
                Place::Full => {
                    if self.berths.make_room(identity) {
                        self.replace_outdated();
                    }
                    let left = until.saturating_duration_since(time::now());
                    if time::timeout(left, heard).await.is_err() {
                        let host = self.target.host.clone();
                        let full = OpenError::Full { host };
                        return Err(ConnectFailure::new(FailureKind::Busy, full));
                    }
                }
            }
        };
        // Closed never: it is ours.
        let _handshake = self.handshakes.acquire().await;
        let unreachable = |error| ConnectFailure::new(FailureKind::Unreachable, error);
        let certificate = self.terms.load().wallet.certificate(identity);
        let line = self.dial(identity, certificate.as_deref()).await.map_err(unreachable)?;
        let link = self.link(&line, identity, certificate.as_deref());
        let socket = self.berths.arrived(&link);
        let (target, spawner) = (&*self.target, &self.spawner);
        let connection = match line.protocol {
            Protocol::Http1 => {
                let spoken = dial::speak_http1(line, link, Some(socket), target, spawner).await;
                let mut connection = spoken.map_err(unreachable)?;
                connection.ready().await.map_err(|source| {
                    let host = self.target.host.clone();
                    unreachable(OpenError::Http { host, source })
                })?;
                if !identity.is_alone() {
                    self.berths.speaks_http1();
                }
                connection
            }
            Protocol::Http2 => {
                let ping = self.terms.load().habits.probe_interval;
                let heard = Arc::clone(&link);
                let spoken = dial::speak_http2(line, heard, socket, ping, (target, spawner)).await;
                let seat = self.berths.moor(opening, &link, spoken.map_err(unreachable)?);
                self.spawner.spawn(Arc::clone(self).settle(link));
                seat
            }
        };
        self.reconsider();
        Ok(connection)
    }

    /// Tells the engine what a connection is worth as soon as the service has said so.
    async fn settle(self: Arc<Self>, link: Arc<Link>) {
        let said = async {
            let listening = self.site.bell.listen();
            loop {
                let heard = listening.heard();
                if link.is_settled() || !link.is_open() {
                    return;
                }
                heard.await;
            }
        };
        if time::timeout(SETTLED, said).await.is_ok() {
            self.reconsider();
        }
    }

    async fn dial(
        &self,
        identity: &Identity,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Line, OpenError> {
        let (offer, plain) = match (identity.is_alone(), self.terms.load().habits.protocol) {
            (true, _) | (false, ProtocolSetting::Http1) => (Offer::Http1, Protocol::Http1),
            (false, ProtocolSetting::Auto) => (Offer::Either, Protocol::Http1),
            (false, ProtocolSetting::Http2) => (Offer::Http2, Protocol::Http2),
        };
        let tls = self.outfit.connector(offer, certificate).map_err(OpenError::Setup)?;
        let line = dial::dial(&self.target, &self.site, &tls, plain).await?;
        if offer == Offer::Http2 && line.protocol != Protocol::Http2 {
            return Err(OpenError::NoHttp2 { host: self.target.host.clone() });
        }
        Ok(line)
    }

    fn link(
        &self,
        line: &Line,
        identity: &Identity,
        certificate: Option<&ClientCertificate>,
    ) -> Arc<Link> {
        let mut birth = line.birth();
        birth.identity = Some(identity.clone());
        birth.certificate = certificate.map(ClientCertificate::id);
        // Of a connection of HTTP/1.1 the engine knows the age.
        birth.expires = (line.protocol == Protocol::Http2).then(|| self.expires());
        Link::new(Arc::clone(&self.site), birth)
    }

    fn expires(&self) -> Instant {
        time::now() + self.terms.load().habits.lifetime.mul_f64(self.dice.lock().between(JITTER))
    }

    /// Sockets that may be open.
    fn most(&self) -> u32 {
        match self.by_hand.load(Ordering::Relaxed) {
            0 => self.terms.load().habits.budget,
            by_hand => by_hand,
        }
    }

    /// Tells the engine what a socket is worth, if that has changed.
    fn reconsider(&self) {
        let factor = self.berths.factor();
        if self.factor.swap(factor, Ordering::AcqRel) == factor {
            return;
        }
        let Some(pool) = self.pool.get().and_then(WeakPool::upgrade) else { return };
        if let Err(error) = pool.apply((self.terms.load().in_seats)(factor)) {
            tracing::error!(%error, "a pool cannot be resized");
        }
        if let by_hand @ 1.. = self.by_hand.load(Ordering::Relaxed) {
            pool.set_budget(Some(by_hand.saturating_mul(factor)));
        }
    }

    /// Has the engine part with connections at rest that are leaving.
    fn replace_outdated(&self) {
        if let Some(pool) = self.pool.get().and_then(WeakPool::upgrade) {
            pool.replace_outdated();
        }
    }

    /// Whether `connection` answers a call that asks for nothing.
    async fn answers(&self, connection: &mut Connection<Upload>, path: &http::Uri) -> bool {
        let mut question = Request::new(Upload::empty());
        *question.uri_mut() = path.clone();
        let Ok(answer) = connection.send(question).await else {
            connection.failed();
            return false;
        };
        let is_well = !answer.status().is_server_error();
        let rest = Limited::new(answer.into_body(), PROBE_BODY).collect().await;
        is_well && rest.is_ok() && connection.ready().await.is_ok()
    }
}

impl Connector for Opener {
    type Identity = Identity;
    type Connection = Connection<Upload>;

    async fn connect(&self, identity: &Identity) -> Result<Connection<Upload>, ConnectFailure> {
        self.desk.seat(identity).await
    }

    /// A connection that rested is looked at, so that a close which nobody has heard of yet
    /// harms no call: one system call that waits for nothing, and none for a connection that
    /// has just served.
    fn is_open(&self, connection: &mut Connection<Upload>) -> bool {
        connection.is_whole()
    }

    fn is_current(&self, connection: &mut Connection<Upload>) -> bool {
        connection.is_current()
    }

    /// HTTP/1.1 has no question that is not a call, so there must be a path to ask for. HTTP/2
    /// is pinged by the connection's own task. Either task reads the socket all the time, so a
    /// close by the service is known without asking.
    async fn probe(&self, mut connection: Connection<Upload>) -> Option<Connection<Upload>> {
        if !connection.is_whole() {
            return None;
        }
        let terms = self.desk.terms.load_full();
        if let Some(path) = &terms.habits.probe_path
            && !self.desk.answers(&mut connection, path).await
        {
            return None;
        }
        Some(connection)
    }

    /// Waits until the last exchange is over on the wire. A connection on which an answer or
    /// a body is unfinished never gets there: the engine closes it at its deadline. A stream
    /// that was given up was reset.
    async fn reset(&self, mut connection: Connection<Upload>) -> Option<Connection<Upload>> {
        connection.ready().await.ok()?;
        Some(connection)
    }
}

#[cfg(test)]
mod tests;
