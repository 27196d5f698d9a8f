//! One call and its answer on a leased connection.
//!
//! A call is sent once. It is sent again only when hyper gives it back untouched, which
//! proves that nothing of it left; whatever may have been carried out is the agent's to
//! decide on (an LLM call is billed twice otherwise).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_pool::overlap::{Calling, OutboundCall, Overlaps};
use forebay_pool::{Ask, Request as AiRequest};
use forebay_seam::time;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Exchange, Held};
use crate::destination::Destination;
use crate::limits::Passage;
use crate::meter::Journey;
use crate::problem::{Problem, Reason, Retry};
use crate::upload::{Progress, Upload};
use crate::wallet::Identity;

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
}

/// An answer that has begun.
pub(crate) struct Begun {
    pub(crate) response: Response<Incoming>,
    pub(crate) upload: Arc<Progress>,
    pub(crate) exchange: Exchange,
}

/// A call that got no answer: the problem, and the journey to count it on.
pub(crate) struct Unanswered {
    pub(crate) problem: Problem,
    pub(crate) journey: Journey,
}

/// Why no head of an answer came.
enum NoHead {
    FirstByte,
    UploadStalled,
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
            Ok((mut response, upload, held, calling)) => {
                passage.answered(response.status(), response.headers_mut());
                let destination = Arc::clone(&self.destination.name);
                let exchange = Exchange { destination, held, calling, passage, journey };
                Ok(Begun { response, upload, exchange })
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
        let upload = call.body().progress();
        // Who waits in our line waits for the service, as far as its transaction goes.
        let calling = self.overlaps.call_begins(self.request.as_ref(), self.call.clone());
        let mut held = self.checkout().await?;
        // A connection may have been closed by the service while the call was on its way to
        // it. Then the call comes back unsent, and goes out once more.
        for last in [false, true] {
            passage.sent();
            let sent_at = time::now();
            let sending = held.connection().send(call);
            let mut failed = match self.head(sending, &upload, sent_at).await {
                Ok(Ok(response)) => {
                    let took = time::now().saturating_duration_since(sent_at);
                    journey.answered(response.status(), took);
                    if response.status().is_server_error() {
                        held.failed();
                    }
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        let detail = "the service switches protocols, which nobody asked for";
                        return Err(Problem::new(Reason::BrokenAnswer, detail));
                    }
                    return Ok((response, upload, held, calling));
                }
                Ok(Err(failed)) => failed,
                Err(none) => {
                    // A stalled upload is the agent's failure, not the service's.
                    if let NoHead::FirstByte = none {
                        held.failed();
                    }
                    return Err(self.no_head(&none));
                }
            };
            let unsent = failed.take_message();
            if unsent.is_some() {
                passage.came_back();
            }
            match unsent {
                Some(unsent) if !last => {
                    drop(held);
                    journey.resent();
                    call = unsent;
                    held = self.checkout().await?;
                }
                unsent => {
                    held.failed();
                    return Err(broken(failed.error(), &method, unsent.is_some()));
                }
            }
        }
        Err(Problem::new(Reason::BrokenAnswer, "the service hung up twice"))
    }

    async fn checkout(&self) -> Result<Held, Problem> {
        Ok(Held::new(self.destination.pool.checkout(self.ask.clone()).await?))
    }

    /// Waits for what `sending` gives, as long as the upload moves and the service may think.
    async fn head<F: Future>(
        &self,
        sending: F,
        upload: &Progress,
        sent_at: Instant,
    ) -> Result<F::Output, NoHead> {
        let mut sending = pin!(sending);
        loop {
            let (limit, none) = match upload.has_ended() {
                true => (self.destination.first_byte_timeout, NoHead::FirstByte),
                false => (self.destination.chunk_timeout, NoHead::UploadStalled),
            };
            let deadline = upload.last_moved().max(sent_at) + limit;
            if time::now() >= deadline {
                return Err(none);
            }
            tokio::select! {
                biased;
                sent = &mut sending => return Ok(sent),
                () = time::sleep_until(deadline) => {}
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
        }
    }
}

type Sent = (Response<Incoming>, Arc<Progress>, Held, Calling);

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
