//! A connection to a service as a call sees it: it takes one call at a time, and says whether
//! it can take another.
//!
//! HTTP/1.1: the connection is the call's alone. HTTP/2: the call has one of its streams, and
//! others go on beside it. Which of the two it is matters here and where connections are
//! opened, nowhere else: calls come and go in the form of HTTP/1.1 (`Host`, and the path as
//! the target), and are rewritten for HTTP/2 on their way out. Always true: a call that
//! failed is given back only if the service provably did nothing with it.

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use forebay_pool::Condition;
use forebay_seam::time::Sleep;
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::sync::oneshot;

use crate::berths::Seat;
use crate::link::{Calling, End, Link};
use crate::upload::Upload;

/// What the connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One call at a time.
    Http1,
    /// Many, as streams.
    Http2,
}

/// Whom the calls of a connection are addressed to.
#[derive(Debug)]
pub(crate) struct Addressee {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
}

impl Addressee {
    /// The service at `authority`, by `scheme`, which are of a URL that was checked.
    pub(crate) fn new(scheme: Scheme, authority: Authority, host: HeaderValue) -> Self {
        Self { scheme, authority, host }
    }

    /// Makes a call what `protocol` wants: `Host` and a path, or the whole URL.
    fn address<B>(&self, call: &mut Request<B>, protocol: Protocol) {
        let path = call.uri().path_and_query();
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        match protocol {
            Protocol::Http1 => {
                *call.uri_mut() = Uri::from(path);
                *call.version_mut() = Version::HTTP_11;
                call.headers_mut().entry(HOST).or_insert_with(|| self.host.clone());
            }
            Protocol::Http2 => {
                let mut parts = http::uri::Parts::default();
                parts.scheme = Some(self.scheme.clone());
                parts.authority = Some(self.authority.clone());
                parts.path_and_query = Some(path);
                // All three parts are there, which is all that can be missing.
                if let Ok(whole) = Uri::from_parts(parts) {
                    *call.uri_mut() = whole;
                }
                *call.version_mut() = Version::HTTP_2;
                call.headers_mut().remove(HOST);
                // It names `te`, which is to stay: gRPC asks for trailers by it.
                call.headers_mut().remove(CONNECTION);
            }
        }
    }
}

/// hyper's handle.
enum Sender<B> {
    One {
        sender: http1::SendRequest<B>,
        /// Dropped, it ends the connection's task.
        life: Option<oneshot::Sender<()>>,
        link: Arc<Link>,
    },
    Many {
        sender: http2::SendRequest<B>,
        seat: Seat,
    },
}

/// A connection, or one stream of it: given up when dropped.
pub(crate) struct Connection<B> {
    sender: Sender<B>,
    addressee: Arc<Addressee>,
    /// Since a call was sent, until it rests again.
    calling: Option<Calling>,
    /// Of the call before, for the next one: to put a timer off is cheap, to make one is not.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Drop for Connection<B> {
    fn drop(&mut self) {
        if let Sender::One { link, .. } = &self.sender {
            link.leave(End::Ours);
        }
    }
}

/// A call that got no answer.
#[derive(Debug)]
pub(crate) struct Failed<B> {
    error: hyper::Error,
    /// In a box: most calls do not fail, and what they give is as large as this.
    call: Option<Box<Request<B>>>,
}

impl<B> Failed<B> {
    /// The call, if the service did nothing with it: it may be sent again, once.
    pub(crate) fn take_message(&mut self) -> Option<Request<B>> {
        self.call.take().map(|call| *call)
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> &hyper::Error {
        &self.error
    }

    /// The same, for good.
    pub(crate) fn into_error(self) -> hyper::Error {
        self.error
    }
}

impl<B> From<TrySendError<Request<B>>> for Failed<B> {
    fn from(mut failed: TrySendError<Request<B>>) -> Self {
        let call = failed.take_message().map(Box::new);
        Self { error: failed.into_error(), call }
    }
}

impl<B> Connection<B> {
    /// A connection that speaks HTTP/1.1; `life` ends its task when dropped.
    pub(crate) fn alone(
        sender: http1::SendRequest<B>,
        life: oneshot::Sender<()>,
        link: Arc<Link>,
        addressee: Arc<Addressee>,
    ) -> Self {
        let sender = Sender::One { sender, life: Some(life), link };
        Self { sender, addressee, calling: None, timer: None }
    }

    /// One stream of a connection that speaks HTTP/2.
    pub(crate) fn stream(
        sender: http2::SendRequest<B>,
        seat: Seat,
        addressee: Arc<Addressee>,
    ) -> Self {
        let sender = Sender::Many { sender, seat };
        Self { sender, addressee, calling: None, timer: None }
    }

    fn link(&self) -> &Arc<Link> {
        match &self.sender {
            Sender::One { link, .. } => link,
            Sender::Many { seat, .. } => seat.link(),
        }
    }

    /// Does it lead where it should, and will it for the next call? Whatever call was on it is
    /// over.
    pub(crate) fn is_current(&mut self) -> bool {
        self.calling = None;
        self.link().is_current()
    }

    /// Is it open still, as far as one look can tell?
    pub(crate) fn is_whole(&self) -> bool {
        self.is_ready() && self.link().is_whole()
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::One { .. } => Protocol::Http1,
            Sender::Many { .. } => Protocol::Http2,
        }
    }

    /// Lets go of whatever is on it, and says what it is like afterwards. HTTP/1.1: the socket
    /// is closed. HTTP/2: the call's stream is reset when its future and its answer's body are
    /// dropped and its upload is given up; others go on.
    pub(crate) fn abandon(&mut self) -> Condition {
        match &mut self.sender {
            Sender::One { life, link, .. } => {
                link.leave(End::Ours);
                drop(life.take());
                Condition::Broken
            }
            Sender::Many { .. } => Condition::Unknown,
        }
    }

    /// The call that was sent last got no answer, and that is the service's doing.
    pub(crate) fn failed(&self) {
        if let Some(calling) = &self.calling {
            calling.failed();
        }
    }

    /// Takes the timer of the call before, if there is one.
    pub(crate) fn take_timer(&mut self) -> Option<Pin<Box<Sleep>>> {
        self.timer.take()
    }

    /// Keeps `timer` for the next call. It may still end in between, and wake the task that
    /// polled it last.
    pub(crate) fn keep_timer(&mut self, timer: Option<Pin<Box<Sleep>>>) {
        self.timer = timer;
    }

    /// Whether a call can be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::One { sender, life, .. } => {
                life.is_some() && sender.is_ready() && !sender.is_closed()
            }
            Sender::Many { sender, .. } => sender.is_ready() && !sender.is_closed(),
        }
    }

    /// Whether it has come to its end.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One { sender, life, .. } => life.is_none() || sender.is_closed(),
            Sender::Many { sender, .. } => sender.is_closed(),
        }
    }

    /// Waits until a call can be sent.
    ///
    /// # Errors
    /// When the connection has come to its end.
    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::One { sender, .. } => sender.ready().await,
            Sender::Many { sender, .. } => sender.ready().await,
        }
    }
}

impl Connection<Upload> {
    /// Lets `upload`, which is about to be sent, be given up however far it has come. On
    /// HTTP/1.1 it ends with its connection.
    pub(crate) fn accompany(&self, upload: &mut Upload) {
        if let Sender::Many { seat, .. } = &self.sender {
            upload.is_sent_by(&seat.link().piping);
        }
    }
}

impl<B: Body + Default + 'static> Connection<B> {
    /// Sends `call`, and waits for the head of its answer. If there is none, whoever knows why
    /// says whether [the service failed](Self::failed).
    ///
    /// # Errors
    /// Why there is none, and the call itself where the service did nothing with it: it was
    /// never sent, or had no body and the service says that it was not processed
    /// (RFC 9113, 8.7).
    ///
    /// # Cancel safety
    /// Dropped, the stream is reset (HTTP/2), or the connection is to be closed (HTTP/1.1).
    pub(crate) fn send(
        &mut self,
        mut call: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, Failed<B>>> + use<B> {
        self.addressee.address(&mut call, self.protocol());
        let link = Arc::clone(self.link());
        self.calling = Some(link.call());
        let sending = match &mut self.sender {
            Sender::One { sender, .. } => Sending::One(sender.try_send_request(call)),
            Sender::Many { sender, .. } => {
                let spare = call.body().is_end_stream().then(|| copy_of(&call));
                let sending = sender.try_send_request(call);
                // In a box, so that those who speak HTTP/1.1 do not carry the room for it.
                Sending::Many(Box::pin(async move {
                    sending.await.map_err(|failed| {
                        let mut failed = Failed::from(failed);
                        if failed.call.is_none() && was_not_processed(&failed.error) {
                            failed.call = spare.map(Box::new);
                        }
                        failed
                    })
                }))
            }
        };
        async move {
            let outcome = match sending {
                Sending::One(sending) => sending.await.map_err(Failed::from),
                Sending::Many(sending) => sending.await,
            };
            if let Ok(answer) = &outcome {
                link.site.answered(&link, answer.status(), answer.headers());
            }
            outcome
        }
    }
}

/// A call that waits for the head of its answer.
enum Sending<One, Many> {
    One(One),
    Many(Pin<Box<Many>>),
}

/// The same call again; its body is empty.
fn copy_of<B: Default>(call: &Request<B>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = call.method().clone();
    *copy.uri_mut() = call.uri().clone();
    *copy.version_mut() = call.version();
    *copy.headers_mut() = call.headers().clone();
    copy
}

/// Does the service say that it did nothing with the call: a stream that it refused, or one
/// above the last that it will answer (RFC 9113, 6.8 and 8.7)?
pub(crate) fn was_not_processed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
