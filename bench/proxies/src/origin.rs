//! The origins: five services and the issuer of their tokens, with TLS and the cost of a distance.
//!
//! A socket that was accepted is left alone for 100 ms before the TLS handshake, which stands for
//! the round trips to a service far away. Counters, certificate checks and tenants are real: what
//! the table says of connections and tokens is counted here, not by who is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub const DESTINATIONS: usize = 5;
pub const TENANTS: usize = 10;
/// From accept to the TLS handshake.
pub const DISTANCE: Duration = Duration::from_millis(100);
/// How long a token takes.
pub const EXCHANGE: Duration = Duration::from_millis(100);
/// How long a call takes.
pub const WORK: Duration = Duration::from_millis(50);
/// Connections that a limited origin lets in.
pub const LIMIT: u64 = 50;
/// A closing origin closes what is idle for so long.
pub const IDLE: Duration = Duration::from_millis(400);
/// Events of a stream, and their distance.
pub const EVENTS: u32 = 25;
pub const EVENT_EVERY: Duration = Duration::from_millis(20);

/// What is odd about the origins of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Usual,
    /// Resets connections beyond [`LIMIT`] for each service.
    Limited,
    /// Closes connections that were idle for [`IDLE`].
    Closing,
}

#[derive(Default)]
struct Tally {
    accepted: AtomicU64,
    reset: AtomicU64,
    open: AtomicU64,
    mixed: AtomicU64,
    wrong_tenant: AtomicU64,
    exchanges: Mutex<BTreeMap<(usize, usize), u64>>,
}

/// What the origins counted in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Connections to the services and to the issuer.
    pub connections: u64,
    pub exchanges: u64,
    pub token_keys: u64,
    pub mixed: u64,
    pub wrong_tenant: u64,
}

/// All services of one run.
pub struct Origins {
    pub services: Vec<SocketAddr>,
    pub issuer: SocketAddr,
    tallies: Vec<Arc<Tally>>,
    started: Instant,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy)]
enum Role {
    Service(usize),
    Issuer,
}

impl Origins {
    pub async fn start(acceptor: &TlsAcceptor, manner: Manner) -> Result<Self> {
        let started = Instant::now();
        let (mut tasks, mut tallies, mut addresses) = (JoinSet::new(), Vec::new(), Vec::new());
        let roles = (0..DESTINATIONS).map(Role::Service).chain([Role::Issuer]);
        for role in roles {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            let tally = Arc::new(Tally::default());
            tallies.push(Arc::clone(&tally));
            let manner = if matches!(role, Role::Issuer) { Manner::Usual } else { manner };
            let place = Place { role, manner, tally, started };
            tasks.spawn(accept(listener, acceptor.clone(), place));
        }
        let issuer = addresses.pop().expect("the issuer came last");
        Ok(Self { services: addresses, issuer, tallies, started, _tasks: tasks })
    }

    pub fn counted(&self) -> Counted {
        let mut sum = Counted::default();
        for tally in &self.tallies {
            sum.connections += tally.accepted.load(Relaxed);
            sum.mixed += tally.mixed.load(Relaxed);
            sum.wrong_tenant += tally.wrong_tenant.load(Relaxed);
            let exchanges = tally.exchanges.lock().expect("nobody panics with it");
            sum.exchanges += exchanges.values().sum::<u64>();
            sum.token_keys += exchanges.len() as u64;
        }
        sum
    }

    /// How long after an event was stamped `now` is.
    pub fn since_stamp(&self, stamp: u64) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_nanos(stamp))
    }
}

#[derive(Clone)]
struct Place {
    role: Role,
    manner: Manner,
    tally: Arc<Tally>,
    started: Instant,
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, place: Place) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                place.tally.accepted.fetch_add(1, Relaxed);
                if place.manner == Manner::Limited && place.tally.open.load(Relaxed) >= LIMIT {
                    place.tally.reset.fetch_add(1, Relaxed);
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok();
                    continue;
                }
                place.tally.open.fetch_add(1, Relaxed);
                let (tls, place) = (tls.clone(), place.clone());
                connections.spawn(async move {
                    let tally = Arc::clone(&place.tally);
                    serve(stream, tls, place).await;
                    tally.open.fetch_sub(1, Relaxed);
                });
            }
        }
    }
}

/// What a connection knows of itself.
struct Connection {
    tenants: Mutex<BTreeSet<usize>>,
    busy: AtomicBool,
    since: Mutex<Instant>,
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, place: Place) {
    stream.set_nodelay(true).ok();
    tokio::time::sleep(DISTANCE).await;
    let Ok(stream) = tls.accept(stream).await else { return };
    let connection = Arc::new(Connection {
        tenants: Mutex::default(),
        busy: AtomicBool::new(false),
        since: Mutex::new(Instant::now()),
    });
    let closing = place.manner == Manner::Closing;
    let service = service_fn(|request| {
        let (place, connection) = (place.clone(), Arc::clone(&connection));
        async move {
            connection.busy.store(true, Relaxed);
            let answer = answer(request, &place, &connection).await;
            *connection.since.lock().expect("nobody panics with it") = Instant::now();
            connection.busy.store(false, Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let idle = async {
        loop {
            let since = *connection.since.lock().expect("nobody panics with it");
            if closing && !connection.busy.load(Relaxed) && since.elapsed() >= IDLE {
                return;
            }
            tokio::time::sleep(Duration::from_millis(if closing { 2 } else { 1000 })).await;
        }
    };
    // Dropped, the connection is closed without a word, as the worst servers do it.
    tokio::select! {
        _ = serving => {}
        () = idle => {}
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    place: &Place,
    connection: &Connection,
) -> Response<Body> {
    match place.role {
        Role::Issuer => exchange(request, place).await,
        Role::Service(service) => call(request, service, place, connection).await,
    }
}

/// `POST /token` with `client_id=tenant-N&client_secret=…&audience=service-N`, in the body or as
/// basic credentials.
async fn exchange(request: Request<Incoming>, place: &Place) -> Response<Body> {
    let basic = request.headers().get(AUTHORIZATION).cloned();
    let Ok(body) = request.into_body().collect().await else { return said(400, "no body") };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let field = |name: &str| {
        body.split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let client = field("client_id").or_else(|| basic_user(basic.as_ref()?.to_str().ok()?));
    let tenant = client.and_then(|client| number(&client, "tenant-"));
    let service = field("audience").and_then(|audience| number(&audience, "service-"));
    let (Some(tenant), Some(service)) = (tenant, service) else { return said(400, "who?") };
    tokio::time::sleep(EXCHANGE).await;
    let mut exchanges = place.tally.exchanges.lock().expect("nobody panics with it");
    *exchanges.entry((tenant, service)).or_default() += 1;
    let token = format!("token-{tenant}-{service}");
    let text = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#);
    said(200, &text)
}

/// The user of `Basic …`; everything the bench makes is plain letters.
fn basic_user(header: &str) -> Option<String> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut text) = (0_u32, 0, Vec::new());
    for byte in header.strip_prefix("Basic ")?.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | LETTERS.iter().position(|letter| *letter == byte)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            text.push((bits >> count & 0xff) as u8);
        }
    }
    Some(String::from_utf8(text).ok()?.split(':').next()?.to_owned())
}

fn number(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.parse().ok()
}

async fn call(
    request: Request<Incoming>,
    service: usize,
    place: &Place,
    connection: &Connection,
) -> Response<Body> {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer token-"));
    let holder = token.and_then(|token| token.split_once('-'));
    let holder = holder.and_then(|(tenant, audience)| {
        (audience == service.to_string()).then(|| tenant.parse::<usize>().ok()).flatten()
    });
    let Some(tenant) = holder else { return said(401, "a token of this service is needed") };
    {
        let mut tenants = connection.tenants.lock().expect("nobody panics with it");
        tenants.insert(tenant);
        if tenants.len() == 2 {
            place.tally.mixed.fetch_add(1, Relaxed);
        }
    }
    let meant = request.headers().get("x-tenant").and_then(|value| value.to_str().ok());
    if meant != Some(&tenant.to_string()) {
        place.tally.wrong_tenant.fetch_add(1, Relaxed);
    }
    let path = request.uri().path().to_owned();
    if request.into_body().collect().await.is_err() {
        return said(400, "no body");
    }
    match path.as_str() {
        "/events" => events(place.started),
        "/fast" => said(200, r#"{"items":[1,2,3]}"#),
        _ => {
            tokio::time::sleep(WORK).await;
            said(200, r#"{"items":[1,2,3]}"#)
        }
    }
}

/// Each event says when it was made, in nanoseconds since the origins' start.
fn events(started: Instant) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        for _ in 0..EVENTS {
            tokio::time::sleep(EVENT_EVERY).await;
            let event = format!("data: {} {}\n\n", started.elapsed().as_nanos(), "x".repeat(200));
            if sender.send(Bytes::from(event)).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Events(receiver).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, "text/event-stream".parse().expect("a valid value"));
    response
}

struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

fn said(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).expect("a valid status");
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a valid value"));
    response
}
