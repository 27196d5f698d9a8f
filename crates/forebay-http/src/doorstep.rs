//! An agent's socket, with manners where hyper has none.
//!
//! What hyper cannot parse it answers by itself, with an empty body: the first bytes written
//! on a connection before any call was understood are such an answer, and a problem goes out
//! in its place. A socket that is closed while bytes of its peer are unread destroys the
//! last answer on its way, so we say that we are done, and read on for a moment. And an agent
//! that has said all it has to say may close its half and wait for the answer: that is no
//! leaving. Which of the two it was, something sent finds out, and `100 Continue` may be sent
//! at any time (RFC 9110, 15.2.1).

mod heads;

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use forebay_seam::net::Peer;
use forebay_seam::time::{self, Sleep};
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::agent::Wire;
use crate::problem::{Problem, Reason};
use heads::Heads;

/// How long, and how much, is read after the end.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Asks whether anybody is there: harmless to whoever waits for an answer.
const ANYBODY: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How soon, and then how often, is looked whether an agent that closed its half is there.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is understood of an agent's words, between who reads them and who answers.
pub(crate) struct Understood {
    calls: AtomicU64,
    /// Calls that are not yet over: their answers, and the tunnels that these began.
    open: AtomicU64,
    /// No byte of the answer to the last call has gone out.
    is_owed: AtomicBool,
    /// The agent knows of interim answers (HTTP/1.1).
    knows_interim: AtomicBool,
    /// The number of the first call that can be read in two ways.
    doubtful: AtomicU64,
    /// What comes now is no HTTP any more.
    is_tunnel: AtomicBool,
}

impl Default for Understood {
    fn default() -> Self {
        Self {
            calls: AtomicU64::new(0),
            open: AtomicU64::new(0),
            is_owed: AtomicBool::new(false),
            knows_interim: AtomicBool::new(false),
            doubtful: AtomicU64::new(u64::MAX),
            is_tunnel: AtomicBool::new(false),
        }
    }
}

/// A call that is not yet over. Dropped when it is.
pub(crate) struct Open(Arc<Understood>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

impl Understood {
    /// One more call was understood. Says whether it can be read in one way only.
    pub(crate) fn call(self: &Arc<Self>, version: Version) -> (Open, Clarity) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.knows_interim.store(version == Version::HTTP_11, Ordering::Relaxed);
        self.is_owed.store(true, Ordering::Release);
        let is_clear = number < self.doubtful.load(Ordering::Relaxed);
        (Open(Arc::clone(self)), if is_clear { Clarity::Clear } else { Clarity::Doubtful })
    }

    /// The bytes that follow are somebody else's: the call goes on until what is returned is
    /// dropped, although its answer is over.
    pub(crate) fn becomes_tunnel(self: &Arc<Self>) -> Open {
        self.is_tunnel.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// How many calls there were, and how many are not yet over.
    pub(crate) fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed))
    }

    fn has_any(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }
}

/// How many readings a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clarity {
    /// One.
    Clear,
    /// Perhaps two.
    Doubtful,
}

/// The socket.
pub(crate) struct Doorstep {
    wire: Wire,
    peer: Peer,
    understood: Arc<Understood>,
    /// Read to see what is spoken, and not yet handed on.
    ahead: BytesMut,
    /// `None`: HTTP/2, which has no such doubts.
    heads: Option<Heads>,
    refusal: Option<Refusal>,
    half_closed: Option<Box<HalfClosed>>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

/// A problem that goes out instead of hyper's own words.
struct Refusal {
    bytes: Vec<u8>,
    sent: usize,
}

/// An agent that will say no more, and whether it is still there.
struct HalfClosed {
    asked: usize,
    pause: Duration,
    look: Pin<Box<Sleep>>,
}

impl Doorstep {
    /// Opens on `wire`, and looks what is spoken there, where TLS has not said it.
    ///
    /// # Errors
    /// When the socket fails.
    pub(crate) async fn open(
        mut wire: Wire,
        peer: Peer,
        understood: Arc<Understood>,
        known: Option<Protocol>,
    ) -> io::Result<(Self, Protocol)> {
        let mut ahead = BytesMut::new();
        let protocol = match known {
            Some(protocol) => protocol,
            None => {
                while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
                    if wire.read_buf(&mut ahead).await? == 0 {
                        break;
                    }
                }
                if ahead.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 }
            }
        };
        let mut heads = match protocol {
            Protocol::Http1 => Some(Heads::new()),
            Protocol::Http2 => None,
        };
        if let Some(doubtful) = heads.as_mut().and_then(|heads| heads.read(&ahead)) {
            understood.doubtful.store(doubtful, Ordering::Relaxed);
        }
        let doorstep = Self {
            wire,
            peer,
            understood,
            ahead,
            heads,
            refusal: None,
            half_closed: None,
            linger: None,
        };
        Ok((doorstep, protocol))
    }

    /// Whether hyper speaks for us, and not for itself.
    fn speaks_for_us(&self) -> bool {
        self.heads.is_none() || self.understood.has_any()
    }

    /// Something goes out: perhaps the answer that was owed.
    fn answers(&self, bytes: &[u8]) {
        if !bytes.starts_with(b"HTTP/1.1 100") {
            self.understood.is_owed.store(false, Ordering::Relaxed);
        }
    }

    /// Finishes the question whether anybody is there, if it was begun.
    fn poll_ask(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(half_closed) = &mut self.half_closed else { return Poll::Ready(Ok(())) };
        while half_closed.asked > 0
            && let Some(rest @ [_, ..]) = ANYBODY.get(half_closed.asked..)
        {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => half_closed.asked += written,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the problem that stands for `words`, which hyper wants to send.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, words: &[u8]) -> Poll<io::Result<usize>> {
        let peer = self.peer;
        let refusal = self.refusal.get_or_insert_with(|| {
            let problem = problem(words);
            let (reason, detail) = (problem.reason.code(), &*problem.detail);
            tracing::warn!(reason, %peer, ?detail, "refused");
            Refusal { bytes: on_the_wire(problem), sent: 0 }
        });
        while let Some(rest @ [_, ..]) = refusal.bytes.get(refusal.sent..) {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => refusal.sent += written,
            }
        }
        Poll::Ready(Ok(words.len()))
    }

    /// The agent has closed its half. Ready when nobody is there any more, or nothing is owed.
    fn poll_half_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let understood = &self.understood;
        let (_, open) = understood.calls();
        let is_tunnel = understood.is_tunnel.load(Ordering::Relaxed);
        if open == 0 || is_tunnel || self.heads.is_none() {
            return Poll::Ready(Ok(()));
        }
        let half_closed = match &mut self.half_closed {
            Some(half_closed) => half_closed,
            // In the middle of an answer it is the usual way to leave.
            None if !understood.is_owed.load(Ordering::Acquire) => return Poll::Ready(Ok(())),
            none => none.insert(Box::new(HalfClosed {
                asked: 0,
                pause: FIRST_LOOK,
                look: Box::pin(time::sleep(FIRST_LOOK)),
            })),
        };
        let is_owed = understood.is_owed.load(Ordering::Acquire);
        if is_owed && understood.knows_interim.load(Ordering::Relaxed) {
            while let Some(rest @ [_, ..]) = ANYBODY.get(half_closed.asked..) {
                match Pin::new(&mut self.wire).poll_write(cx, rest) {
                    Poll::Ready(Ok(written)) if written > 0 => half_closed.asked += written,
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(Err(_)) = Pin::new(&mut self.wire).poll_flush(cx) {
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            if self.wire.is_refused() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            ready!(half_closed.look.as_mut().poll(cx));
            half_closed.pause = (half_closed.pause * 10).min(LAST_LOOK);
            half_closed.look = Box::pin(time::sleep(half_closed.pause));
        }
    }
}

/// The problem for an answer of hyper's own, told by its status.
fn problem(words: &[u8]) -> Problem {
    let status = words.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
    match status {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG) => {
            let detail = "at most 100 header fields and 64 KiB in all are read";
            Problem::new(Reason::HeadTooLarge, detail)
        }
        _ => Problem::new(Reason::Malformed, "this is no HTTP/1.1 request"),
    }
}

/// A problem as the last bytes of a connection.
pub(crate) fn on_the_wire(problem: Problem) -> Vec<u8> {
    let mut response = problem.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (status, body) = (response.status(), response.body());
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let end = format!("content-length: {}\r\n\r\n", body.len());
    bytes.extend_from_slice(end.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

impl AsyncRead for Doorstep {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let part = this.ahead.len().min(buf.remaining());
            buf.put_slice(this.ahead.get(..part).unwrap_or_default());
            this.ahead.advance(part);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if this.half_closed.is_none() {
            ready!(Pin::new(&mut this.wire).poll_read(cx, buf))?;
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return this.poll_half_closed(cx);
        }
        if let Some(heads) = &mut this.heads
            && !this.understood.is_tunnel.load(Ordering::Relaxed)
            && let Some(doubtful) = heads.read(read)
        {
            this.understood.doubtful.store(doubtful, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Doorstep {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.speaks_for_us() {
            ready!(self.poll_ask(cx))?;
            self.answers(buf);
            Pin::new(&mut self.wire).poll_write(cx, buf)
        } else {
            self.poll_refuse(cx, buf)
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first: &[u8] = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf);
        if self.speaks_for_us() {
            ready!(self.poll_ask(cx))?;
            self.answers(first);
            Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
        } else {
            self.poll_refuse(cx, first)
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.wire).poll_shutdown(cx))?;
        }
        let (timer, left) =
            this.linger.get_or_insert_with(|| (Box::pin(time::sleep(LINGER)), LINGER_BYTES));
        let mut space = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut this.wire).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() && *left > 0 => {
                    *left = left.saturating_sub(read.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
