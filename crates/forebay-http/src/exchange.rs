//! One call and its answer on a leased connection.
//!
//! A call is sent once. It is sent once more when hyper gives it back untouched, which
//! proves that nothing of it left; and, where no byte of an answer came, when carrying it out
//! twice does no harm: its method says so, or a key by which the service knows it again.
//! Whatever else may have been carried out is the agent's to decide on (an LLM call is billed
//! twice otherwise).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_pool::overlap::{Calling, OutboundCall, Overlaps};
use forebay_pool::{Ask, Attempt, Request as AiRequest};
use forebay_seam::time::{self, Sleep};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Exchange, Held};
use crate::connection::{Protocol, was_not_processed};
use crate::destination::Destination;
use crate::limits::Passage;
use crate::meter::Journey;
use crate::problem::{Problem, Reason, Retry};
use crate::settings::RetrySettings;
use crate::upload::{Keepsake, Progress, Upload};
use crate::wallet::Identity;

/// By which services know a call again (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// When a destination that hung up may be tried again.
const AFTER_BREAK: Duration = Duration::from_secs(1);

/// Everything about a call but its bytes.
pub(crate) struct Errand<'a> {
    pub(crate) destination: &'a Destination,
    pub(crate) overlaps: &'a Arc<Overlaps>,
    pub(crate) ask: Ask<Identity>,
    pub(crate) request: Option<AiRequest>,
    /// What overlaps are told with.
    pub(crate) call: OutboundCall,
    pub(crate) repeat: Repeat,
    pub(crate) purpose: Purpose,
    /// When it has to be over, counted from its first sending.
    pub(crate) total: Option<Duration>,
}

/// Whether a call may be sent again although it may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It may not.
    Never,
    /// It may, once.
    Once,
}

impl Repeat {
    /// What `policy` says of a call with this head.
    pub(crate) fn of(policy: RetrySettings, method: &Method, headers: &HeaderMap) -> Self {
        let has_key = || headers.get_all(IDEMPOTENCY_KEY).iter().count() == 1;
        let may = match policy {
            RetrySettings::Unsent => false,
            RetrySettings::Idempotent => method.is_idempotent(),
            RetrySettings::IdempotencyKey => method.is_idempotent() || has_key(),
        };
        if may { Self::Once } else { Self::Never }
    }
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An answer.
    Answer,
    /// That its connection speaks something else afterwards.
    Upgrade,
}

/// An answer that has begun.
pub(crate) struct Begun {
    pub(crate) response: Response<Incoming>,
    /// In a box, since it goes from hand to hand until the answer has it.
    pub(crate) exchange: Box<Exchange>,
    /// When it has to be over.
    pub(crate) until: Option<Instant>,
}

/// A call that got no answer: the problem, and the journey to count it on.
pub(crate) struct Unanswered {
    pub(crate) problem: Problem,
    pub(crate) journey: Journey,
}

/// Why no head of an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoHead {
    FirstByte,
    UploadStalled,
    Overdue,
}

impl Errand<'_> {
    /// Waits for a connection, sends `call`, which was let through with `passage`, and waits
    /// for the head of its answer.
    ///
    /// # Cancel safety
    /// Dropped while waiting, the place in line is given up; dropped while the call is out,
    /// its connection is closed and what it reserved is paid.
    pub(crate) async fn run(
        &self,
        call: Request<Upload>,
        mut passage: Passage,
        journey: Journey,
    ) -> Result<Begun, Unanswered> {
        match self.send(call, &mut passage, &journey).await {
            Ok(Sent { mut response, held, calling, until }) => {
                passage.answered(response.status(), response.headers_mut());
                let destination = Arc::clone(&self.destination.name);
                let exchange = Exchange { destination, held, calling, passage, journey };
                let exchange = Box::new(exchange);
                Ok(Begun { response, exchange, until })
            }
            Err(problem) => Err(Unanswered { problem, journey }),
        }
    }

    async fn send(
        &self,
        mut call: Request<Upload>,
        passage: &mut Passage,
        journey: &Journey,
    ) -> Result<Sent, Problem> {
        let method = call.method().clone();
        // Who waits in our line waits for the service, as far as its transaction goes.
        let calling = self.overlaps.call_begins(self.request.as_ref(), self.call.clone());
        let mut held = self.checkout(self.ask.attempt).await?;
        let until = self.total.map(|total| time::now() + total);
        // A connection may have been closed by the service while the call was on its way to
        // it. Then the call goes out once more, if that does no harm.
        for last in [false, true] {
            // A service that speaks HTTP/2 can say that it did nothing with a call.
            let keeps =
                self.repeat == Repeat::Once || held.connection().protocol() == Protocol::Http2;
            let spare = (!last && keeps).then(|| Spare::of(&mut call));
            let upload = call.body().progress();
            held.sends(&upload);
            held.connection().accompany(call.body_mut());
            passage.sent();
            let sent_at = time::now();
            if self.purpose == Purpose::Upgrade {
                held.never_again();
            }
            let sending = held.connection().send(call);
            let mut timer = held.connection().take_timer();
            let times = (sent_at, until);
            let mut failed = match self.head(sending, &upload, times, &mut timer).await {
                Ok(Ok(response)) => {
                    held.connection().keep_timer(timer);
                    let took = time::now().saturating_duration_since(sent_at);
                    journey.answered(response.status(), took);
                    if response.status().is_server_error() {
                        held.failed();
                    }
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS
                        && self.purpose == Purpose::Answer
                    {
                        let detail = "the service switches protocols, which nobody asked for";
                        return Err(Problem::new(Reason::BrokenAnswer, detail));
                    }
                    return Ok(Sent { response, held, calling, until });
                }
                Ok(Err(failed)) => failed,
                Err(none) => {
                    // A stalled upload is the agent's failure, not the service's.
                    if none != NoHead::UploadStalled {
                        held.failed();
                    }
                    return Err(self.no_head(&none));
                }
            };
            if upload.broke_off() {
                // The agent's failure, not the service's.
                let detail = format!("the request's body cannot be read: {}", failed.error());
                return Err(Problem::new(Reason::Malformed, detail));
            }
            held.connection().failed();
            let unsent = failed.take_message();
            if unsent.is_some() {
                held.sent_nothing();
            }
            let is_untouched = unsent.is_some() || was_not_processed(failed.error());
            if is_untouched {
                passage.came_back();
            }
            let error = failed.error();
            let again = match unsent {
                Some(unsent) if !last => Some((unsent, self.ask.attempt)),
                None if is_untouched => {
                    let again = spare.and_then(|spare| spare.call(&upload));
                    again.map(|again| (again, self.ask.attempt))
                }
                None if self.repeat == Repeat::Once && hung_up(error) => {
                    let again = spare.and_then(|spare| spare.call(&upload));
                    again.map(|again| (again, Attempt::Retry))
                }
                unsent => {
                    held.failed();
                    return Err(broken(error, &method, unsent.is_some()));
                }
            };
            held.failed();
            let Some((again, attempt)) = again else {
                return Err(broken(error, &method, false));
            };
            drop(held);
            held = match self.checkout(attempt).await {
                Ok(held) => held,
                // What is known of the first try says more than why there was no second.
                Err(_) if attempt == Attempt::Retry => return Err(broken(error, &method, false)),
                Err(problem) => return Err(problem),
            };
            journey.resent();
            call = again;
        }
        Err(Problem::new(Reason::BrokenAnswer, "the service hung up twice"))
    }

    async fn checkout(&self, attempt: Attempt) -> Result<Held, Problem> {
        let pool = &self.destination.pool;
        let lease = match attempt == self.ask.attempt {
            true => pool.checkout(&self.ask).await?,
            false => Box::pin(pool.checkout(Ask { attempt, ..self.ask.clone() })).await?,
        };
        Ok(Held::new(lease))
    }

    /// Waits for what `sending` gives, sent at the first of the times, as long as the upload
    /// moves and the service may think; until the second at the most, if there is one.
    async fn head<F: Future>(
        &self,
        sending: F,
        upload: &Progress,
        (sent_at, until): (Instant, Option<Instant>),
        timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Result<F::Output, NoHead> {
        let mut sending = pin!(sending);
        loop {
            let (limit, none) = match upload.has_ended() {
                true => (self.destination.first_byte_timeout, NoHead::FirstByte),
                false => (self.destination.chunk_timeout, NoHead::UploadStalled),
            };
            let deadline = upload.last_moved().max(sent_at) + limit;
            let (deadline, none) = match until {
                Some(until) if until < deadline => (until, NoHead::Overdue),
                Some(_) | None => (deadline, none),
            };
            if time::now() >= deadline {
                return Err(none);
            }
            let timer = match &mut *timer {
                Some(timer) => {
                    time::reset(timer.as_mut(), deadline);
                    timer
                }
                none => none.insert(Box::pin(time::sleep_until(deadline))),
            };
            tokio::select! {
                biased;
                sent = &mut sending => return Ok(sent),
                () = timer.as_mut() => {}
            }
        }
    }

    fn no_head(&self, none: &NoHead) -> Problem {
        match none {
            NoHead::FirstByte => {
                let waited = self.destination.first_byte_timeout.as_secs_f64();
                let detail = format!("no answer began within {waited} s");
                Problem::new(Reason::FirstByteTimeout, detail)
            }
            NoHead::UploadStalled => {
                let waited = self.destination.chunk_timeout.as_secs_f64();
                let detail = format!("the request's body paused for more than {waited} s");
                Problem::new(Reason::UploadStalled, detail)
            }
            NoHead::Overdue => {
                let total = self.total.unwrap_or_default().as_secs_f64();
                let detail = format!("the call was not answered within {total} s in all");
                Problem::new(Reason::TotalTimeout, detail)
            }
        }
    }
}

/// What [`Errand::send`] gives.
struct Sent {
    response: Response<Incoming>,
    held: Held,
    calling: Calling,
    until: Option<Instant>,
}

/// What a call is made of again.
struct Spare {
    head: Request<()>,
    body: Keepsake,
}

impl Spare {
    fn of(call: &mut Request<Upload>) -> Self {
        let body = call.body_mut().keep();
        let mut head = Request::new(());
        *head.method_mut() = call.method().clone();
        *head.uri_mut() = call.uri().clone();
        *head.headers_mut() = call.headers().clone();
        Self { head, body }
    }

    /// The call, if its body can be had again.
    fn call(self, upload: &Progress) -> Option<Request<Upload>> {
        let body = self.body.again(upload)?;
        Some(self.head.map(|()| body))
    }
}

/// Did the connection end before a byte of the answer came? What came and is no answer says
/// that somebody was there.
fn hung_up(error: &hyper::Error) -> bool {
    let broke = || {
        let source = std::error::Error::source(error)?;
        let kind = source.downcast_ref::<io::Error>()?.kind();
        Some(matches!(
            kind,
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        ))
    };
    // A connection of HTTP/2 that was reset before its GOAWAY was read.
    let was_cut = || {
        let source = std::error::Error::source(error)?;
        Some(source.downcast_ref::<h2::Error>()?.is_io())
    };
    error.is_incomplete_message()
        || error.is_canceled()
        || broke().unwrap_or(false)
        || was_cut().unwrap_or(false)
}

fn broken(error: &hyper::Error, method: &Method, unsent: bool) -> Problem {
    let again = Retry::After(AFTER_BREAK);
    if unsent {
        let detail = format!("the destination closes connections as they are used: {error}");
        return Problem::new(Reason::Unreachable, detail).with_retry(again);
    }
    let detail = format!("the connection broke after the call was sent: {error}");
    let retry = if method.is_idempotent() { again } else { Retry::Never };
    Problem::new(Reason::BrokenAnswer, detail).with_retry(retry)
}
