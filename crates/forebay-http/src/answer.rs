//! The way back: what an agent is sent, frame by frame, and the connection it comes on.
//!
//! A streamed answer owns the lease. Always true: the connection serves again only if both
//! bodies were seen to end; whatever else happens to the answer, including that its agent
//! leaves, closes the connection in the same step.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_pool::overlap::Calling;
use forebay_pool::{Condition, Lease};
use forebay_seam::time::{self, Sleep};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::connection::Connection;
use crate::limits::Passage;
use crate::meter::{Journey, Outcome};
use crate::upload::{Progress, Upload};
use crate::upstream::Opener;

/// A lease with an exchange on it. Dropped in the middle, it closes the connection.
pub(crate) struct Held(Option<Lease<Opener>>);

impl Held {
    /// Takes charge of `lease`.
    pub(crate) fn new(lease: Lease<Opener>) -> Self {
        Self(Some(lease))
    }

    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut Connection<Upload> {
        self.0.as_mut().expect("the lease is there until it is given back").connection()
    }

    /// The service failed at the call, whatever the connection is like.
    pub(crate) fn failed(&mut self) {
        if let Some(lease) = &mut self.0 {
            lease.failed();
        }
    }

    /// The answer came to its end, the `upload` perhaps too.
    pub(crate) fn over(mut self, upload: &Progress) {
        let connection = self.connection();
        let is_lost = !upload.has_ended() || connection.is_closed();
        let is_ready = connection.is_ready();
        let Some(lease) = &mut self.0 else { return };
        if is_lost || !is_ready {
            lease.succeeded();
        }
        // On the wire it may not be quite over: then the engine waits for that.
        let condition = if is_ready { Condition::Clean } else { Condition::Unknown };
        if !is_lost && let Some(lease) = self.0.take() {
            lease.give_back(condition);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut lease) = self.0.take() {
            let condition = lease.connection().abandon();
            lease.give_back(condition);
        }
    }
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutShort {
    #[error("the service's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the service paused for more than {} s", .0.as_secs())]
    Paused(Duration),
}

/// What an agent is sent.
pub(crate) enum Answer {
    /// Forebay's own words.
    Whole(Full<Bytes>),
    /// The service's, as they come.
    Streamed(Box<Stream>),
}

/// A service's answer on its way.
pub(crate) struct Stream {
    body: Incoming,
    upload: Arc<Progress>,
    pause: Pause,
    /// Everything that lives as long as the exchange.
    exchange: Option<Exchange>,
}

/// What an exchange holds until its end, dropped in this order.
pub(crate) struct Exchange {
    pub(crate) destination: Arc<str>,
    pub(crate) held: Held,
    pub(crate) calling: Calling,
    pub(crate) passage: Passage,
    pub(crate) journey: Journey,
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

    /// Streams `body`, and ends `exchange` with it.
    pub(crate) fn streamed(
        body: Incoming,
        upload: Arc<Progress>,
        exchange: Exchange,
        chunk_timeout: Duration,
    ) -> Self {
        let pause = Pause { limit: chunk_timeout, timer: None };
        let mut stream = Box::new(Stream { body, upload, pause, exchange: Some(exchange) });
        if stream.body.is_end_stream() {
            stream.end();
        }
        Self::Streamed(stream)
    }
}

impl Stream {
    /// The last frame is through.
    fn end(&mut self) {
        if let Some(Exchange { held, calling, passage, mut journey, .. }) = self.exchange.take() {
            held.over(&self.upload);
            drop(calling);
            passage.over();
            journey.ends(Outcome::Answered);
        }
    }

    fn break_off(&mut self, error: CutShort) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.journey.ends(Outcome::CutShort);
            exchange.held.failed();
            let destination = &*exchange.destination;
            tracing::warn!(destination, %error, "an answer was cut short");
        }
        Poll::Ready(Some(Err(error)))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                if self.exchange.is_some() && self.pause.is_over(cx) {
                    let limit = self.pause.limit;
                    return self.break_off(CutShort::Paused(limit));
                }
                return Poll::Pending;
            };
            self.pause.timer = None;
            match frame {
                Some(Ok(frame)) => {
                    if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
                        exchange.passage.read(data);
                    }
                    if self.body.is_end_stream() {
                        self.end();
                    }
                    // Trailers may be dropped (RFC 9110, 6.5.1): agents were not promised any.
                    if frame.is_data() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => return self.break_off(error.into()),
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
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
            Self::Streamed(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(stream) => stream.body.size_hint(),
        }
    }
}
