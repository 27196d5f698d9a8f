//! The agent's body on its way to the service.
//!
//! Streams through, a frame at a time, never stored but for the beginning of one that is
//! looked at first. Tells whoever watches whether it has
//! ended and when it last moved: a connection may serve again only if the whole body went
//! out, and a service cannot answer a call that has not fully arrived. Where a call may be sent
//! once more, its first bytes are kept, as many as are few: a longer body is sent once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;

use crate::hygiene;
use crate::piping::Piping;

/// Bytes of a body that are kept for a second try.
const KEPT: usize = 64 * 1024;

/// How far an upload has come. Shared with the one who waits for the answer.
pub(crate) struct Progress {
    began: Instant,
    ended: AtomicBool,
    broke: AtomicBool,
    given_up: Notify,
    /// When a frame last moved, in milliseconds since `began`.
    moved: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        let (ended, broke) = (AtomicBool::new(false), AtomicBool::new(false));
        let (given_up, moved) = (Notify::const_new(), AtomicU64::new(0));
        Self { began: time::now(), ended, broke, given_up, moved }
    }

    /// Did the whole body go out?
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Did it break off on the agent's side, or was it no body?
    pub(crate) fn broke_off(&self) -> bool {
        self.broke.load(Ordering::Acquire)
    }

    /// Its call is over: nobody wants what of it has not gone out.
    pub(crate) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until it is given up, for the one who sends it.
    pub(crate) async fn is_given_up(&self) {
        self.given_up.notified().await;
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
    /// What was looked at, or kept of an earlier try, and is still to be sent.
    ahead: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    body: Option<Incoming>,
    progress: Arc<Progress>,
    kept: Option<Keepsake>,
    /// Where it is told that it begins to be sent, until it does.
    piping: Option<Arc<Piping>>,
}

/// What of a body has gone out, for a second try.
#[derive(Clone, Default)]
pub(crate) struct Keepsake(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
    is_too_much: bool,
}

impl Keepsake {
    fn keep(&self, frame: &Frame<Bytes>) {
        let mut kept = self.0.lock();
        if let Some(data) = frame.data_ref() {
            kept.bytes += data.len();
            kept.is_too_much |= kept.bytes > KEPT;
            match kept.is_too_much {
                true => kept.frames.clear(),
                false => kept.frames.push(data.clone()),
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
        }
    }

    /// The same body once more, if `progress` says that it was sent whole, and it was short.
    pub(crate) fn again(&self, progress: &Progress) -> Option<Upload> {
        let kept = self.0.lock();
        if kept.is_too_much || !progress.has_ended() {
            return None;
        }
        let frames = kept.frames.iter().cloned().map(Frame::data);
        let trailers = kept.trailers.clone().map(Frame::trailers);
        Some(Upload::new(frames.chain(trailers).map(Ok).collect(), None))
    }
}

impl Upload {
    /// Sends `body` on.
    pub(crate) fn of(body: Incoming) -> Self {
        Self::new(VecDeque::new(), Some(body))
    }

    /// Nothing to send: it has ended before it began.
    pub(crate) fn empty() -> Self {
        Self::new(VecDeque::new(), None)
    }

    fn new(ahead: VecDeque<Result<Frame<Bytes>, hyper::Error>>, body: Option<Incoming>) -> Self {
        let progress = Arc::new(Progress::new());
        let upload = Self { ahead, body, progress, kept: None, piping: None };
        if upload.is_end_stream() {
            upload.progress.end();
        }
        upload
    }

    /// Keeps what goes out from here on.
    pub(crate) fn keep(&mut self) -> Keepsake {
        self.kept.get_or_insert_default().clone()
    }

    /// It will be sent by `piping`.
    pub(crate) fn is_sent_by(&mut self, piping: &Arc<Piping>) {
        self.piping = Some(Arc::clone(piping));
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

impl Upload {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = match (self.ahead.pop_front(), &mut self.body) {
            (Some(frame), _) => Some(frame),
            (None, None) => return Poll::Ready(None),
            (None, Some(body)) => ready!(Pin::new(body).poll_frame(cx)),
        };
        if let Some(Ok(frame)) = &mut frame {
            if let Some(fields) = frame.trailers_mut() {
                hygiene::trailers(fields);
            }
            if let Some(kept) = &self.kept {
                kept.keep(frame);
            }
        }
        match &frame {
            // Behind trailers comes nothing, and hyper does not ask.
            Some(Ok(frame)) if frame.is_data() && !self.is_end_stream() => self.progress.move_on(),
            Some(Ok(_)) | None => self.progress.end(),
            Some(Err(_)) => self.progress.broke.store(true, Ordering::Release),
        }
        Poll::Ready(frame)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = self.poll_next(cx);
        if let Some(piping) = self.piping.take()
            && !self.progress.has_ended()
            && !self.progress.broke_off()
        {
            piping.begins(&self.progress);
        }
        frame
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(keepsake: &Keepsake, pieces: &[&'static [u8]]) -> Progress {
        for piece in pieces {
            keepsake.keep(&Frame::data(Bytes::from_static(piece)));
        }
        let progress = Progress::new();
        progress.end();
        progress
    }

    #[test]
    fn a_short_body_can_be_sent_again_once_it_was_sent_whole() {
        let keepsake = Keepsake::default();
        let progress = sent(&keepsake, &[b"one", b"two"]);
        let again = keepsake.again(&progress).unwrap();
        assert_eq!(again.size_hint().exact(), Some(6));
        assert!(!again.is_end_stream() && !again.progress().has_ended());
        assert!(keepsake.again(&Progress::new()).is_none());
    }

    #[test]
    fn of_a_long_body_nothing_is_kept() {
        static LONG: [u8; KEPT] = [0; KEPT];
        let keepsake = Keepsake::default();
        let progress = sent(&keepsake, &[&LONG, b"one more"]);
        assert!(keepsake.again(&progress).is_none());
        assert!(keepsake.0.lock().frames.is_empty());
    }
}
