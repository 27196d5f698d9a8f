//! The agent's body on its way to the service.
//!
//! Streams through, a frame at a time, never stored but for the beginning of one that is
//! looked at first. Tells whoever watches whether it has
//! ended and when it last moved: a connection may serve again only if the whole body went
//! out, and a service cannot answer a call that has not fully arrived.

use std::collections::VecDeque;
use std::future::poll_fn;
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
    /// What was looked at and is still to be sent.
    ahead: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    body: Option<Incoming>,
    progress: Arc<Progress>,
}

impl Upload {
    /// Sends `body` on.
    pub(crate) fn of(body: Incoming) -> Self {
        let (ahead, progress) = (VecDeque::new(), Arc::new(Progress::new()));
        let upload = Self { ahead, body: Some(body), progress };
        if upload.is_end_stream() {
            upload.progress.end();
        }
        upload
    }

    /// Nothing to send: it has ended before it began.
    pub(crate) fn empty() -> Self {
        let progress = Progress::new();
        progress.end();
        Self { ahead: VecDeque::new(), body: None, progress: Arc::new(progress) }
    }

    /// The beginning of the body: `most` bytes, or what is there within `patience`. It will be
    /// sent all the same.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nothing of the body is lost.
    pub(crate) async fn beginning(&mut self, most: usize, patience: Duration) -> Vec<u8> {
        let deadline = time::now() + patience;
        let mut beginning = Vec::new();
        while beginning.len() < most
            && let Some(body) = self.body.as_mut().filter(|body| !body.is_end_stream())
        {
            let left = deadline.saturating_duration_since(time::now());
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            let Ok(Some(frame)) = time::timeout(left, frame).await else { break };
            if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                let room = most - beginning.len();
                beginning.extend_from_slice(data.get(..room).unwrap_or(data));
            }
            let has_failed = frame.is_err();
            self.ahead.push_back(frame);
            if has_failed {
                break;
            }
        }
        beginning
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
        let frame = match (self.ahead.pop_front(), &mut self.body) {
            (Some(frame), _) => Some(frame),
            (None, None) => return Poll::Ready(None),
            (None, Some(body)) => std::task::ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(_)) if !self.is_end_stream() => self.progress.move_on(),
            Some(Ok(_)) | None => self.progress.end(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let ahead = self.ahead.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let ahead = ahead.map(|data| u64::try_from(data.len()).unwrap_or(u64::MAX)).sum::<u64>();
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper.saturating_add(ahead));
        }
        whole
    }
}
