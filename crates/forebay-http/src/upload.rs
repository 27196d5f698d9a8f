//! The agent's body on its way to the service.
//!
//! Streams through, a frame at a time, never stored. Tells whoever watches whether it has
//! ended and when it last moved: a connection may serve again only if the whole body went
//! out, and a service cannot answer a call that has not fully arrived.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_seam::time;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How far an upload has come. Shared with the one who waits for the answer.
pub(crate) struct Progress {
    began: Instant,
    ended: AtomicBool,
    /// When a frame last moved, in milliseconds since `began`.
    moved: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        Self { began: time::now(), ended: AtomicBool::new(false), moved: AtomicU64::new(0) }
    }

    /// Did the whole body go out?
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// When a frame last moved; the beginning, if none did.
    pub(crate) fn last_moved(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    fn move_on(&self) {
        let elapsed = time::now().saturating_duration_since(self.began).as_millis();
        self.moved.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn end(&self) {
        self.move_on();
        self.ended.store(true, Ordering::Release);
    }
}

/// A body on its way out.
pub(crate) struct Upload {
    body: Option<Incoming>,
    progress: Arc<Progress>,
}

impl Upload {
    /// Sends `body` on.
    pub(crate) fn of(body: Incoming) -> Self {
        let upload = Self { body: Some(body), progress: Arc::new(Progress::new()) };
        if upload.is_end_stream() {
            upload.progress.end();
        }
        upload
    }

    /// Nothing to send: it has ended before it began.
    pub(crate) fn empty() -> Self {
        let progress = Progress::new();
        progress.end();
        Self { body: None, progress: Arc::new(progress) }
    }

    /// How far it has come, now and later.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }
}

impl Default for Upload {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.is_end_stream() => self.progress.move_on(),
            Some(Ok(_)) | None => self.progress.end(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
