//! What operators and their tools look at, by HTTP: metrics, health, state.
//!
//! Runs on a thread and a runtime of its own, so that it answers while the gateways are
//! busy. Every page renders one [`ProgramSnapshot`]; what changes something is in `by_hand`,
//! what has no end in `streams`. Always true: at most `CONNECTIONS` connections at once, and
//! none that says nothing, or takes nothing, keeps its place.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use forebay_seam::net::{self, TcpListener, TcpStream};
use forebay_seam::task::{Spawner, Stop, Stopper};
use forebay_seam::time;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::AdminSettings;
use crate::events::Events;
use crate::handover::inherited_tcp;
use crate::holds::HoldsPage;
use crate::metrics;
use crate::reload::Reloader;
use crate::view::ProgramSnapshot;

mod by_hand;
mod hosts;
mod patience;
mod streams;

pub use by_hand::ByHand;
use hosts::Hosts;
use patience::Impatient;
use streams::Streams;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send the head of its next call.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a call, bytes.
const HEAD: usize = 16 << 10;
/// Rest after an accept that failed: most often there are no file descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

type Look = Arc<dyn Fn() -> ProgramSnapshot + Send + Sync>;
type LookAtHolds = Arc<dyn Fn() -> HoldsPage + Send + Sync>;

/// How long clients may take for the rest of what they are told when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A bound admin server that does not answer yet.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    hosts: Hosts,
}

/// A running admin server.
pub struct Running {
    stopper: Stopper,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens as `settings` say, with the socket that was `inherited` if there is one.
    /// Outside of any runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(settings: &AdminSettings, inherited: Option<OwnedFd>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async {
            match inherited {
                Some(socket) => inherited_tcp(socket),
                None => net::bind(settings.listen),
            }
        })?;
        Ok(Self { runtime, listener, hosts: Hosts::new(&settings.hosts) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers with what `look` and `holds` show, tells of `events`, and changes `pools` when it is told
    /// to.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        self,
        look: impl Fn() -> ProgramSnapshot + Send + Sync + 'static,
        holds: impl Fn() -> HoldsPage + Send + Sync + 'static,
        events: Events,
        pools: ByHand,
        reloader: Reloader,
    ) -> io::Result<Running> {
        let (stopper, stop) = Stopper::new();
        let look: Look = Arc::new(look);
        let streams = Streams::new(Arc::clone(&look), events, stop.clone());
        let holds: LookAtHolds = Arc::new(holds);
        let router = router(look, holds, streams.clone(), pools, reloader, self.hosts);
        let (runtime, listener) = (self.runtime, self.listener);
        let thread =
            std::thread::Builder::new().name("forebay-admin".to_owned()).spawn(move || {
                runtime.block_on(async {
                    Spawner::current().spawn(streams.watch_pressure());
                    serve(listener, router, stop).await;
                });
            })?;
        Ok(Running { stopper, thread })
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Running {
    /// Ends it, and what it was answering.
    pub fn stop(self) {
        self.stopper.stop();
        if self.thread.join().is_err() {
            tracing::error!("the admin thread had panicked");
        }
    }
}

async fn serve(listener: TcpListener, router: Router, mut stop: Stop) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let spawner = Spawner::current();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stop.told() => break,
        };
        let Some((stream, place)) = accepted else {
            time::sleep(ACCEPT_REST).await;
            continue;
        };
        spawner.spawn(converse(stream, router.clone(), stop.clone(), place));
    }
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if time::timeout(LAST_WORDS, places.acquire_many(all)).await.is_err() {
        tracing::debug!("admin clients did not take what was left for them");
    }
}

/// Answers one client until it leaves, or, once the stop is told, until its call is answered.
async fn converse(stream: TcpStream, router: Router, mut stop: Stop, _place: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Impatient::new(stream)), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.told() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept an admin connection");
            None
        }
    }
}

fn router(
    look: Look,
    look_at_holds: LookAtHolds,
    streams: Streams,
    pools: ByHand,
    reloader: Reloader,
    hosts: Hosts,
) -> Router {
    let holds = Router::new().route("/api/v1/holds", get(holds)).with_state(look_at_holds);
    let reload = Router::new()
        .route("/api/v1/reload", post(by_hand::reload))
        .layer(DefaultBodyLimit::max(by_hand::BODY))
        .with_state(reloader);
    let by_hand = Router::new()
        .route("/api/v1/pools/{gateway}/{destination}/budget", put(by_hand::set_budget))
        .route("/api/v1/pools/{gateway}/{destination}/renew", post(by_hand::renew))
        .layer(DefaultBodyLimit::max(by_hand::BODY))
        .with_state(pools);
    let endless = Router::new()
        .route("/api/v1/events", get(async |State(streams): State<Streams>| streams.events()))
        .route("/api/v1/pressure", get(pressure_now))
        .route(
            "/api/v1/pressure/stream",
            get(async |State(streams): State<Streams>| streams.pressure()),
        )
        .with_state(streams);
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/api/v1/snapshot", get(snapshot))
        .fallback(unknown)
        .with_state(look)
        .merge(holds)
        .merge(by_hand)
        .merge(reload)
        .merge(endless)
        .layer(middleware::from_fn_with_state(Arc::new(hosts), hosts::guard))
}

const PAGES: &str = "/metrics                  for Prometheus\n\
                     /healthz                  is the program alive?\n\
                     /readyz                   may new work come? 503 and the reasons if not\n\
                     /api/v1/snapshot          the same figures as JSON\n\
                     /api/v1/pressure          how close each class is to shedding\n\
                     /api/v1/pressure/stream   the same as it moves (server-sent events)\n\
                     /api/v1/holds             transactions that idle beside calls, what may be\n\
                     \x20                         one, and what they cost\n\
                     /api/v1/events            what happens, as it happens (the same)\n\
                     \n\
                     with `content-type: application/json`\n\
                     PUT  /api/v1/pools/GATEWAY/DESTINATION/budget   sets a budget by hand:\n\
                     {\"budget\": 80}, or null for the configured one\n\
                     POST /api/v1/pools/GATEWAY/DESTINATION/renew    replaces all connections:\n\
                     {}\n\
                     POST /api/v1/reload                             reads the configuration\n\
                     again: {}\n";

async fn index() -> String {
    format!("Forebay {}\n\n{PAGES}", crate::view::VERSION)
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, format!("there is no such page; there are\n\n{PAGES}")).into_response()
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(look): State<Look>) -> Response {
    let reasons = look().not_ready;
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn snapshot(State(look): State<Look>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(look())).into_response()
}

async fn holds(State(look): State<LookAtHolds>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(look())).into_response()
}

/// The pressure now; as it moves, for who asks for events.
async fn pressure_now(State(streams): State<Streams>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|kinds| kinds.contains("text/event-stream")) {
        return streams.pressure();
    }
    let body = json!({ "classes": streams.pressures_now() });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn metrics_page(State(look): State<Look>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::accepted(accept.unwrap_or_default());
    let text = metrics::render(&look(), format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}
