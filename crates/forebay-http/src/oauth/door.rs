//! The way to one token issuer: a few connections, which exchanges take turns on.
//!
//! The first burst of many credentials would otherwise be as many TLS handshakes at one
//! issuer. Knows no tokens and no forms. Always true: at most [`OPEN`] connections are open
//! to an issuer, those at rest included; who waits for one is served in order; a connection
//! rests only after a whole answer, and serves only exchanges that trust the same
//! certificates. An exchange whose secret may be used once never rides on a connection that
//! rested: whether it arrived could not be told if that turned out to be closed.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_seam::sync::Mutex;
use forebay_seam::task::Spawner;
use forebay_seam::time;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;

use super::ExchangeError;
use crate::addresses::{Addresses, Allowed, Private};
use crate::connection::Connection;
use crate::site::Site;
use crate::target::Target;
use crate::upstream;

/// Connections open to one issuer at the most: fifty first tokens of 100 ms each take three
/// turns (with four connections thirteen, which is longer than the handshakes saved).
pub(super) const OPEN: usize = 20;
/// How long a connection rests at the most; less where the issuer says so, or closes earlier.
const REST: Duration = Duration::from_secs(5);
/// How long a connection may take to be ready for the next call after a whole answer: one
/// that has not sent all of the last one never is.
const READY: Duration = Duration::from_millis(100);
/// The largest answer of an issuer.
const ANSWER: usize = 64 * 1024;

type Call = Request<Full<Bytes>>;

/// Whether a question may be asked twice where it cannot be told if the first one arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// It may: what it shows stays good.
    Repeatable,
    /// It may not: what it shows may be good for one use.
    Once,
}

/// What an issuer said.
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty where nobody needs it.
    pub(super) body: Bytes,
}

/// The way to one issuer.
pub(crate) struct Door {
    target: Target,
    site: Arc<Site>,
    spawner: Spawner,
    seats: Semaphore,
    bench: Mutex<Bench>,
}

/// The connections of a door.
#[derive(Default)]
struct Bench {
    /// Seats that are taken: each has a connection, or will.
    taken: usize,
    /// Those at rest, the latest last.
    resting: Vec<Resting>,
    sweeper: Sweeper,
}

/// Who closes connections that have rested for long enough.
#[derive(Default, PartialEq, Eq)]
enum Sweeper {
    #[default]
    Away,
    AtWork,
}

struct Resting {
    connection: Connection<Full<Bytes>>,
    /// Whose certificates were believed.
    trust: Arc<ClientConfig>,
    until: Instant,
}

/// A turn at the door. Dropped, the next one has it.
struct Seat<'d> {
    door: &'d Arc<Door>,
    /// What the connection becomes when the turn is over, if it is not to be closed.
    later: Option<Resting>,
    /// Given back last: who gets it finds what it left.
    _turn: SemaphorePermit<'d>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut bench = self.door.bench.lock();
        bench.taken -= 1;
        let Some(resting) = self.later.take() else { return };
        let until = resting.until;
        bench.resting.push(resting);
        if bench.sweeper == Sweeper::Away {
            bench.sweeper = Sweeper::AtWork;
            self.door.spawner.spawn(sweep(Arc::downgrade(self.door), until));
        }
    }
}

/// Every door in use.
#[derive(Default)]
pub(crate) struct Doors(Mutex<Vec<Weak<Door>>>);

impl Doors {
    /// The door to the issuer at `target`. Inside a runtime.
    pub(crate) fn find(&self, target: &Target) -> Arc<Door> {
        let mut doors = self.0.lock();
        doors.retain(|door| door.strong_count() > 0);
        let known = doors.iter().filter_map(Weak::upgrade).find(|door| door.leads_to(target));
        known.unwrap_or_else(|| {
            let door = Arc::new(Door::new(target));
            doors.push(Arc::downgrade(&door));
            door
        })
    }
}

impl Door {
    /// The issuer's name may lead anywhere but to where no service is: who the issuer is, the
    /// operator says and TLS proves. It is resolved for each connection.
    fn new(target: &Target) -> Self {
        let allowed = Allowed::of(&target.host, Private::Allowed, &[]);
        let addresses = Addresses::new(&target.host, target.port, allowed, Duration::ZERO, 0);
        Self {
            target: target.clone(),
            site: Arc::new(Site::new(addresses, u32::MAX)),
            spawner: Spawner::current(),
            seats: Semaphore::new(OPEN),
            bench: Mutex::default(),
        }
    }

    fn leads_to(&self, target: &Target) -> bool {
        let ours = (&self.target.scheme, &self.target.host, self.target.port);
        ours == (&target.scheme, &target.host, target.port)
    }

    /// Asks what `call` makes, and reads the answer to its end. Waits its turn first.
    ///
    /// # Errors
    /// When the issuer cannot be reached, or its answer breaks off.
    ///
    /// # Cancel safety
    /// Dropped, the place in line is given up, or the connection closed.
    pub(super) async fn ask(
        self: &Arc<Self>,
        tls: &TlsConnector,
        question: Question,
        call: impl Fn() -> Call,
    ) -> Result<Said, ExchangeError> {
        let mut seat = self.seat().await?;
        let rested = match question {
            Question::Repeatable => self.rested(tls.config()).await,
            Question::Once => None,
        };
        if let Some(mut connection) = rested {
            match connection.send(call()).await {
                Ok(answer) => return seat.read(connection, answer, tls).await,
                // The issuer may have closed it while the call was on its way.
                Err(_) => connection.failed(),
            }
        }
        self.make_room();
        let mut connection = self.open(tls).await?;
        match connection.send(call()).await {
            Ok(answer) => seat.read(connection, answer, tls).await,
            Err(failed) => {
                connection.failed();
                Err(ExchangeError::broken(failed.into_error()))
            }
        }
    }

    async fn seat(self: &Arc<Self>) -> Result<Seat<'_>, ExchangeError> {
        // Closed never: it is ours.
        let turn = self.seats.acquire().await.map_err(|_| ExchangeError::TimedOut)?;
        self.bench.lock().taken += 1;
        Ok(Seat { door: self, later: None, _turn: turn })
    }

    async fn open(&self, tls: &TlsConnector) -> Result<Connection<Full<Bytes>>, ExchangeError> {
        Ok(upstream::open(&self.target, &self.site, tls, &self.spawner).await?)
    }

    /// A connection at rest that is open still, the one that served last.
    async fn rested(&self, trust: &Arc<ClientConfig>) -> Option<Connection<Full<Bytes>>> {
        self.site.idleness.doubt(time::now());
        while let Some(mut connection) = self.latest(trust) {
            let ready = time::timeout(READY, connection.ready()).await;
            if matches!(ready, Ok(Ok(()))) && connection.is_current() && connection.is_whole() {
                return Some(connection);
            }
        }
        None
    }

    fn latest(&self, trust: &Arc<ClientConfig>) -> Option<Connection<Full<Bytes>>> {
        let now = time::now();
        let mut bench = self.bench.lock();
        let serves = |at: &Resting| Arc::ptr_eq(&at.trust, trust) && now < at.until;
        let place = bench.resting.iter().rposition(serves)?;
        Some(bench.resting.remove(place).connection)
    }

    /// Closes those at rest that would be too many beside the seats that are taken.
    fn make_room(&self) {
        let mut bench = self.bench.lock();
        let surplus = (bench.taken + bench.resting.len()).saturating_sub(OPEN);
        let surplus = surplus.min(bench.resting.len());
        bench.resting.drain(..surplus);
    }

    /// Closes those that have rested for long enough; says when to come again, if at all.
    fn close_rested(&self) -> Option<Instant> {
        let now = time::now();
        let mut bench = self.bench.lock();
        bench.resting.retain(|resting| now < resting.until && !resting.connection.is_closed());
        let next = bench.resting.iter().map(|resting| resting.until).min();
        if next.is_none() {
            bench.sweeper = Sweeper::Away;
        }
        next
    }
}

impl Seat<'_> {
    /// Reads `answer`, which came on `connection`, to its end. Then the connection rests.
    async fn read(
        &mut self,
        mut connection: Connection<Full<Bytes>>,
        answer: Response<Incoming>,
        tls: &TlsConnector,
    ) -> Result<Said, ExchangeError> {
        let (parts, body) = answer.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        if status.is_redirection() || status.is_server_error() {
            return Ok(Said { status, headers, body: Bytes::new() });
        }
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(ExchangeError::Broken)?.to_bytes();
        // From now on it rests.
        if !connection.is_closed() && connection.is_current() {
            let patience = self.door.site.idleness.most().unwrap_or(REST).min(REST);
            let (trust, until) = (Arc::clone(tls.config()), time::now() + patience);
            self.later = Some(Resting { connection, trust, until });
        }
        Ok(Said { status, headers, body })
    }
}

/// Closes what has rested at `door`, until nothing does.
async fn sweep(door: Weak<Door>, first: Instant) {
    let mut next = Some(first);
    while let Some(at) = next {
        time::sleep_until(at).await;
        next = door.upgrade().and_then(|door| door.close_rested());
    }
}
