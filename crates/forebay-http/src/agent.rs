//! An agent's connection, from its first byte to its end: HTTP/1.1 or HTTP/2, in the clear or
//! in TLS, over TCP or a Unix socket.
//!
//! Knows what an agent may take of us: how much it may say at once, how many calls it may have
//! under way, how long it may rest. Always true: a connection is one task; it ends with its
//! socket, with the rest between two calls at the latest, and when a drain is over.

mod beside;
mod patience;
mod tls;
mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_seam::net::{Peer, Socket};
use forebay_seam::task::{Spawner, Stop};
use forebay_seam::time;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use crate::answer::{Answer, CutShort};
use crate::call::Desk;
use crate::doorstep::{Doorstep, Open, Protocol, Understood};
use crate::tenant::Arrival;

use beside::Beside;
use patience::Patience;
pub(crate) use tls::{Certified, check_tls};
pub(crate) use wire::Wire;

/// Fields, and bytes, of a call's head. So many fields are hyper's own limit: one that is set,
/// though it be the same, makes it clear room for them in each head.
pub(crate) const HEAD_FIELDS: usize = 100;
const HEAD_BYTES: usize = 64 * 1024;
/// The same as HTTP/2 counts it (RFC 9113, 6.5.2).
const HEAD_LIST: u32 = 64 * 1024;
/// Read ahead of a call's reader, and written ahead of an answer's.
const BUFFER: usize = 128 * 1024;
/// How long an agent's connection may wait for the end of a head; also how long it may rest
/// between two calls. Longer than the keep-alive of the usual clients, so that they hang up
/// first and no call meets a connection that is just being closed.
const REST: Duration = Duration::from_secs(120);
/// How long one that has rested may take to close.
const PARTING: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Streams that an agent may reset before we have looked at them (CVE-2023-44487).
const RESETS_UNSEEN: usize = 20;
/// Streams that an agent may make us reset (CVE-2025-8671).
const RESETS_BY_US: usize = 100;
/// Bytes of a body that an agent may send ahead, in a stream and in all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait for the agent's window.
const SEND_BUFFER: usize = 128 * 1024;
/// How often an agent of HTTP/2 is asked whether it is there, and how long it has to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// How an agent is connected.
pub(crate) struct Line {
    /// How it came, and what its connection shows of it.
    pub(crate) arrival: Arrival,
    /// The agent's end, where that has an address.
    pub(crate) peer: Option<SocketAddr>,
    /// What it speaks.
    pub(crate) speaks: Protocol,
    /// Its place among the agents: taken until the last who shares the line is gone.
    _seat: OwnedSemaphorePermit,
    /// Told when what runs is cut off.
    pub(crate) cut: Stop,
    /// What it speaks is understood here.
    pub(crate) understood: Arc<Understood>,
    /// What it does not take is given up here.
    pub(crate) patience: Patience,
}

/// What a connection is served with.
pub(crate) struct Visit {
    /// The desk that is in force.
    pub(crate) desk: Arc<ArcSwap<Desk>>,
    /// TLS, where the listener has it.
    pub(crate) tls: Option<Arc<Certified>>,
    pub(crate) peer: Peer,
    pub(crate) seat: OwnedSemaphorePermit,
    pub(crate) stop: Stop,
    pub(crate) leave: Stop,
    pub(crate) cut: Stop,
}

impl Visit {
    /// Serves `socket` to its end.
    pub(crate) async fn run(self, socket: Socket) {
        let peer = self.peer;
        if let Err(error) = self.converse(socket).await {
            tracing::debug!(%peer, %error, "an agent's connection ended");
        }
    }

    async fn converse(mut self, socket: Socket) -> Result<(), Ended> {
        let local = socket.local()?;
        let understood = Arc::<Understood>::default();
        let opening = open(socket, self.peer, self.tls.take(), Arc::clone(&understood));
        let opened = tokio::select! {
            opened = time::timeout(REST, opening) => opened.map_err(|_| Ended::Silent)??,
            () = self.stop.told() => return Ok(()),
            () = self.leave.told() => return Ok(()),
        };
        let line = Arc::new(Line {
            arrival: Arrival::new(local, &self.peer, opened.certificate.as_ref()),
            peer: match self.peer {
                Peer::Tcp(address) => Some(address),
                Peer::Unix { .. } => None,
            },
            speaks: opened.protocol,
            _seat: self.seat,
            cut: self.cut.clone(),
            understood,
            patience: Patience::default(),
        });
        let desk = self.desk;
        let streams = desk.load().streams;
        let caller = Arc::clone(&line);
        let service = service_fn(move |call: Request<Incoming>| {
            let (open, clarity) = caller.understood.call(call.version());
            let (desk, caller) = (desk.load_full(), Arc::clone(&caller));
            async move {
                let answer = desk.answer(call, &caller, clarity).await;
                Ok::<_, Infallible>(answer.map(|answer| Spoken { answer, _open: open }))
            }
        });
        let io = TokioIo::new(opened.doorstep);
        let signals = Signals { stop: self.stop, leave: self.leave, cut: self.cut };
        match opened.protocol {
            Protocol::Http1 => {
                let connection = http1::Builder::new()
                    // Of its own it would arm a timer for each head; `watch` sees who rests.
                    .header_read_timeout(None)
                    .max_header_size(HEAD_BYTES)
                    .max_buf_size(BUFFER)
                    .serve_connection(io, service)
                    .with_upgrades();
                signals.attend(connection, &line).await
            }
            Protocol::Http2 => {
                let connection = http2::Builder::new(Hands(Spawner::current()))
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(streams)
                    .max_pending_accept_reset_streams(RESETS_UNSEEN)
                    .max_local_error_reset_streams(RESETS_BY_US)
                    .max_header_list_size(HEAD_LIST)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_send_buf_size(SEND_BUFFER)
                    .keep_alive_interval(PING)
                    .keep_alive_timeout(PONG)
                    .enable_connect_protocol()
                    .serve_connection(io, service);
                signals.attend(connection, &line).await
            }
        }
    }
}

/// A connection on which calls can be heard.
struct Opened {
    doorstep: Doorstep,
    protocol: Protocol,
    /// What the agent has shown and proven in TLS to be its own, if it was asked.
    certificate: Option<CertificateDer<'static>>,
}

async fn open(
    socket: Socket,
    peer: Peer,
    tls: Option<Arc<Certified>>,
    understood: Arc<Understood>,
) -> Result<Opened, Ended> {
    let Some(tls) = tls else {
        let (doorstep, protocol) =
            Doorstep::open(Wire::Plain(socket), peer, understood, None).await?;
        return Ok(Opened { doorstep, protocol, certificate: None });
    };
    let accepting = TlsAcceptor::from(tls.now()).accept(socket);
    let stream = time::timeout(HANDSHAKE, accepting).await.map_err(|_| Ended::Silent)??;
    let session = stream.get_ref().1;
    let known = match session.alpn_protocol() {
        Some(b"h2") => Some(Protocol::Http2),
        Some(_) => Some(Protocol::Http1),
        None => None,
    };
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.cloned().map(CertificateDer::into_owned);
    let wire = Wire::Tls(Box::new(stream));
    let (doorstep, protocol) = Doorstep::open(wire, peer, understood, known).await?;
    Ok(Opened { doorstep, protocol, certificate })
}

/// Watches what an agent takes; comes to its end when it has asked for nothing for so long,
/// whether it says nothing or does not come to the end of a head.
async fn watch(line: &Line) {
    let (mut before, mut since) = (line.understood.calls(), time::now());
    loop {
        line.patience.look().await;
        let calls = line.understood.calls();
        if calls != before || calls.1 > 0 {
            (before, since) = (calls, time::now());
        } else if time::now() >= since + REST {
            return;
        }
    }
}

/// Comes to its end when a connection that should have ended has no call under way: who has
/// begun a head and does not go on is not waited for.
async fn silence(line: &Line) {
    loop {
        time::sleep(PARTING).await;
        let (_, open) = line.understood.calls();
        if open == 0 {
            return;
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("it said nothing")]
    Silent,
}

/// Why a connection is to take no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// We are asked to come to an end.
    Told,
    /// It has rested for too long.
    Rested,
}

/// What ends a connection from our side.
struct Signals {
    stop: Stop,
    leave: Stop,
    cut: Stop,
}

impl Signals {
    /// Drives `connection`, which is `line`, to its end; told to stop, or when it has rested for
    /// too long, with the calls that are under way.
    async fn attend<C: Conversation>(self, connection: C, line: &Line) -> Result<(), Ended> {
        let Self { mut stop, mut leave, mut cut } = self;
        let mut connection = pin!(connection);
        let finish = Beside::new(async {
            tokio::select! {
                () = stop.told() => Finish::Told,
                () = leave.told() => Finish::Told,
                () = watch(line) => Finish::Rested,
            }
        });
        let finish = tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(Ended::from),
            finish = finish => finish,
        };
        connection.as_mut().finish();
        tokio::select! {
            ended = connection.as_mut() => ended.map_err(Ended::from),
            () = cut.told() => Ok(()),
            () = silence(line), if finish == Finish::Rested => Err(Ended::Silent),
        }
    }
}

/// A connection that can be asked to come to its end.
trait Conversation: Future<Output = hyper::Result<()>> {
    /// No call is taken any more; those under way are answered.
    fn finish(self: Pin<&mut Self>);
}

impl<S> Conversation for http1::UpgradeableConnection<TokioIo<Doorstep>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Spoken> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Conversation for http2::Connection<TokioIo<Doorstep>, S, Hands>
where
    S: hyper::service::HttpService<Incoming, ResBody = Spoken> + Unpin,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs the calls of an HTTP/2 connection. Each ends with its stream.
#[derive(Clone)]
struct Hands(Spawner);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Hands {
    fn execute(&self, call: F) {
        self.0.spawn(call);
    }
}

/// An answer on its way: the call is over with it.
struct Spoken {
    answer: Answer,
    _open: Open,
}

impl Body for Spoken {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        Pin::new(&mut self.get_mut().answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
