//! The way back: what an agent is sent, frame by frame, and the connection it comes on.
//!
//! A streamed answer owns the lease. Always true: the connection serves again only if both
//! bodies were seen to end; whatever else happens to the answer, including that its agent
//! leaves, closes the connection in the same step.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_pool::overlap::Calling;
use forebay_pool::{Condition, Lease};
use forebay_seam::sync::Mutex;
use forebay_seam::time::{self, Sleep};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::connection::Connection;
use crate::hygiene;
use crate::limits::Passage;
use crate::meter::{Journey, Outcome};
use crate::upload::{Progress, Upload};
use crate::upstream::Opener;

/// A lease with an exchange on it. Dropped in the middle, it closes the connection.
pub(crate) struct Held {
    lease: Option<Lease<Opener>>,
    later: Later,
    /// What is sent on it. Given up with it.
    upload: Option<Arc<Progress>>,
}

/// What becomes of a connection when its exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    /// It serves again.
    Reuse,
    /// It is closed: what comes on it may be no HTTP.
    Close,
}

impl Held {
    /// Takes charge of `lease`.
    pub(crate) fn new(lease: Lease<Opener>) -> Self {
        Self { lease: Some(lease), later: Later::Reuse, upload: None }
    }

    /// `upload` is sent on it.
    pub(crate) fn sends(&mut self, upload: &Arc<Progress>) {
        self.upload = Some(Arc::clone(upload));
    }

    /// What was to be sent on it did not go, and may be sent elsewhere.
    pub(crate) fn sent_nothing(&mut self) {
        self.upload = None;
    }

    /// Did the upload break off on the agent's side?
    fn agent_broke_off(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.broke_off())
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut Connection<Upload> {
        self.lease.as_mut().expect("the lease is there until it is given back").connection()
    }

    /// The service failed at the call, whatever the connection is like.
    pub(crate) fn failed(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.failed();
        }
    }

    /// It was asked to become something else: this is the last exchange on it.
    pub(crate) fn never_again(&mut self) {
        self.later = Later::Close;
    }

    /// What was begun on it came to its end, and so does it.
    pub(crate) fn ends(mut self) {
        if let Some(lease) = &mut self.lease {
            lease.succeeded();
        }
    }

    /// The answer came to its end, the upload perhaps too.
    pub(crate) fn over(mut self) {
        let later = self.later;
        let has_ended = self.upload.as_ref().is_none_or(|upload| upload.has_ended());
        let connection = self.connection();
        let is_lost = !has_ended || connection.is_closed() || later == Later::Close;
        let is_ready = connection.is_ready();
        let Some(lease) = &mut self.lease else { return };
        if is_lost || !is_ready {
            lease.succeeded();
        }
        // On the wire it may not be quite over: then the engine waits for that.
        let condition = if is_ready { Condition::Clean } else { Condition::Unknown };
        if !is_lost && let Some(lease) = self.lease.take() {
            lease.give_back(condition);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.give_up();
        }
        if let Some(mut lease) = self.lease.take() {
            let condition = lease.connection().abandon();
            lease.give_back(condition);
        }
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutShort {
    #[error("the service's answer broke off: {0}")]
    Broken(hyper::Error),
    #[error("the request's body cannot be read: {0}")]
    BrokenUpload(hyper::Error),
    #[error("the service paused for more than {} s", .0.as_secs())]
    Paused(Duration),
    #[error("the agent has not taken what is there for {} s", .0.as_secs())]
    Untaken(Duration),
    #[error("the call took longer than {} s in all", .0.as_secs_f64())]
    Overdue(Duration),
}

impl CutShort {
    /// Whether the service is to blame.
    fn is_the_services(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Paused(_) | Self::Overdue(_) => true,
            Self::BrokenUpload(_) | Self::Untaken(_) => false,
        }
    }
}

/// What an agent is sent.
pub(crate) enum Answer {
    /// Forebay's own words.
    Whole(Full<Bytes>),
    /// The service's, as they come.
    Streamed(Arc<Mutex<Stream>>),
}

/// A service's answer on its way.
pub(crate) struct Stream {
    /// `None`: it was given up.
    body: Option<Incoming>,
    pause: Pause,
    /// When the call has to be over, and how long it was given.
    overdue: Option<(Pin<Box<Sleep>>, Duration)>,
    /// When the agent got its last piece, if it has not asked for the next one.
    given: Option<Instant>,
    /// Everything that lives as long as the exchange.
    exchange: Option<Box<Exchange>>,
}

/// What an exchange holds until its end, dropped in this order.
pub(crate) struct Exchange {
    pub(crate) destination: Arc<str>,
    pub(crate) held: Held,
    pub(crate) calling: Calling,
    pub(crate) passage: Passage,
    pub(crate) journey: Journey,
}

impl Exchange {
    /// It came to its end, and its connection with it.
    pub(crate) fn ends_for_good(self) {
        let Self { held, calling, passage, mut journey, .. } = self;
        held.ends();
        drop(calling);
        passage.over();
        journey.ends(Outcome::Answered);
    }
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Between two frames.
    pub(crate) chunk: Duration,
    /// In all, and when that is.
    pub(crate) total: Option<(Instant, Duration)>,
}

/// The time between two frames. Armed only when one has to be waited for.
struct Pause {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Answer {
    /// `body` as a whole.
    pub(crate) fn whole(body: Bytes) -> Self {
        Self::Whole(Full::new(body))
    }

    /// Streams `body`, and ends `exchange` with it, `times` at the latest.
    pub(crate) fn streamed(body: Incoming, exchange: Box<Exchange>, times: Times) -> Self {
        let pause = Pause { limit: times.chunk, timer: None };
        let overdue = times.total.map(|(at, total)| (Box::pin(time::sleep_until(at)), total));
        let (given, exchange) = (Some(time::now()), Some(exchange));
        let is_over = body.is_end_stream();
        let mut stream = Stream { body: Some(body), pause, overdue, given, exchange };
        if is_over {
            stream.end();
        }
        Self::Streamed(Arc::new(Mutex::new(stream)))
    }
}

impl Stream {
    /// Whether the agent takes what is there; what it has left lying for longer than `limit`
    /// is given up.
    pub(crate) fn is_taken_within(&mut self, limit: Duration, now: Instant) -> bool {
        let is_left = self.exchange.is_some()
            && self.given.is_some_and(|given| now.saturating_duration_since(given) >= limit);
        if is_left {
            drop(self.break_off(CutShort::Untaken(limit)));
            self.body = None;
        }
        self.exchange.is_some()
    }

    /// The last frame is through.
    fn end(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            let Exchange { held, calling, passage, mut journey, .. } = *exchange;
            held.over();
            drop(calling);
            passage.over();
            journey.ends(Outcome::Answered);
        }
    }

    fn break_off(&mut self, error: CutShort) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.journey.ends(Outcome::CutShort);
            if error.is_the_services() {
                exchange.held.failed();
            }
            let destination = &*exchange.destination;
            tracing::warn!(destination, %error, "an answer was cut short");
        }
        Poll::Ready(Some(Err(error)))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        self.given = None;
        if self.exchange.is_some()
            && let Some((timer, total)) = &mut self.overdue
            && timer.as_mut().poll(cx).is_ready()
        {
            let total = *total;
            return self.break_off(CutShort::Overdue(total));
        }
        let Some(body) = &mut self.body else {
            let limit = self.pause.limit;
            return self.break_off(CutShort::Untaken(limit));
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            if self.exchange.is_some() && self.pause.is_over(cx) {
                let limit = self.pause.limit;
                return self.break_off(CutShort::Paused(limit));
            }
            return Poll::Pending;
        };
        let is_over = body.is_end_stream();
        self.pause.timer = None;
        match frame {
            Some(Ok(mut frame)) => {
                if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
                    exchange.passage.read(data);
                }
                if let Some(fields) = frame.trailers_mut() {
                    hygiene::trailers(fields);
                }
                // Behind trailers comes nothing, and hyper does not ask.
                if is_over || frame.is_trailers() {
                    self.end();
                } else {
                    self.given = Some(time::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // What its agent breaks ends on the connection's both ways.
                let exchange = self.exchange.as_ref();
                let is_agents = exchange.is_some_and(|exchange| exchange.held.agent_broke_off());
                self.break_off(match is_agents {
                    true => CutShort::BrokenUpload(error),
                    false => CutShort::Broken(error),
                })
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        match self.get_mut() {
            Self::Whole(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(Err(never)) => match never {},
                None => Poll::Ready(None),
            },
            Self::Streamed(stream) => stream.lock().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(stream) => stream.lock().body.as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(stream) => {
                stream.lock().body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
            }
        }
    }
}
