//! An agent's socket, with manners for the two moments when hyper has none.
//!
//! What hyper cannot parse it answers by itself, with an empty body: the first bytes written
//! on a connection before any call was understood are such an answer, and a problem goes out
//! in its place. And a socket that is closed while bytes of its peer are unread destroys the
//! last answer on its way, so we say that we are done, and read on for a moment.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::time::{self, Sleep};
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::problem::{Problem, Reason};

/// How long, and how much, is read after the end.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Whether a call was understood on this connection.
#[derive(Clone, Default)]
pub(crate) struct Understood(Arc<AtomicBool>);

impl Understood {
    /// One was.
    pub(crate) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The socket.
pub(crate) struct Doorstep {
    stream: TcpStream,
    peer: SocketAddr,
    understood: Understood,
    refusal: Option<Refusal>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

/// A problem that goes out instead of hyper's own words.
struct Refusal {
    bytes: Vec<u8>,
    sent: usize,
}

impl Doorstep {
    /// Opens on `stream`.
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, understood: Understood) -> Self {
        Self { stream, peer, understood, refusal: None, linger: None }
    }

    /// Sends the problem that stands for `words`, which hyper wants to send.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, words: &[u8]) -> Poll<io::Result<usize>> {
        let peer = self.peer;
        let refusal = self.refusal.get_or_insert_with(|| {
            let problem = problem(words);
            let (reason, detail) = (problem.reason.code(), problem.detail.as_str());
            tracing::warn!(reason, %peer, ?detail, "refused");
            Refusal { bytes: on_the_wire(problem), sent: 0 }
        });
        while let Some(rest @ [_, ..]) = refusal.bytes.get(refusal.sent..) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => refusal.sent += written,
            }
        }
        Poll::Ready(Ok(words.len()))
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Doorstep {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.understood.is_told() {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        } else {
            self.poll_refuse(cx, buf)
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.understood.is_told() {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        } else {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            self.poll_refuse(cx, first.map_or(&[], |buf| buf))
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let (timer, left) =
            this.linger.get_or_insert_with(|| (Box::pin(time::sleep(LINGER)), LINGER_BYTES));
        let mut space = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
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
