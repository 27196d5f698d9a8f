//! A tool call: what its head says, once, and its journey through the gateway.
//!
//! screen → tenant → destination → request, class, work → rate limits (before anything is
//! waited for) → credential (before the checkout: nobody holds a connection while waiting for
//! a token) → checkout → exchange → answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_pool::overlap::{OutboundCall, Overlaps};
use forebay_pool::{Ask, ClassId, Roster, TraceId};
use forebay_seam::time;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};

use crate::agent::Line;
use crate::answer::{Answer, Exchange, Times};
use crate::credential::{Another, Proof};
use crate::destination::Destination;
use crate::doorstep::{Clarity, Protocol};
use crate::exchange::{Begun, Errand, Purpose, Repeat, Unanswered};
use crate::hints::{Hints, Words};
use crate::hygiene::{self, Framing};
use crate::limits::{Passage, Plan};
use crate::meter::{Journey, Outcome, Refusals};
use crate::operation::Work;
use crate::prefix::{self, Said};
use crate::problem::{Problem, Reason, SHOULD_RETRY};
use crate::routes::{Route, Routes};
use crate::tenant::{Caller, Host, Tenants};
use crate::tunnel::Tunnel;
use crate::upgrade::{self, Wish};
use crate::upload::Upload;

/// What of a refused answer is read to save its connection, and for how long.
const DISCARD: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Media types of answers that go on for as long as they like.
const STREAMS: [&str; 7] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/json-seq",
    "application/vnd.amazon.eventstream",
    "multipart/x-mixed-replace",
];
/// What the media types of gRPC begin with.
const GRPC: &str = "application/grpc";

/// How long the beginning of a body is waited for, which may say more of its call.
const BEGINNING: Duration = Duration::from_millis(250);

/// What calls need of the gateway.
pub(crate) struct Desk {
    pub(crate) tenants: Tenants,
    pub(crate) routes: Routes,
    pub(crate) overlaps: Arc<Overlaps>,
    pub(crate) roster: Arc<Roster>,
    /// Calls refused before they had a destination.
    pub(crate) refusals: Arc<Refusals>,
    /// Calls that one connection of HTTP/2 may have under way.
    pub(crate) streams: u32,
}

/// The head of a call, but for its credential.
#[derive(Clone)]
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    /// The call with this head. The credential comes last.
    fn into_call(self, proof: Option<&Proof>, body: Upload) -> Request<Upload> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        if let Some(proof) = proof {
            let mut uri = std::mem::take(request.uri_mut());
            proof.add_to(request.headers_mut(), &mut uri);
            *request.uri_mut() = uri;
        }
        request
    }
}

/// What an agent wants, as the head of its call says it.
struct Intent {
    work: Arc<Work>,
    hints: Hints,
    trace: Option<TraceId>,
    class: ClassId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tries {
    First,
    Second,
}

impl Desk {
    /// Answers `request`, which came on `line` and may have more than one reading. Never
    /// fails: what goes wrong is an answer.
    ///
    /// # Cancel safety
    /// Dropped at any point, the call is over: its place in line is given up, its connection
    /// closed.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        line: &Arc<Line>,
        clarity: Clarity,
    ) -> Response<Answer> {
        let (caller, route) = match self.receive(&request, line, clarity) {
            Ok(known) => known,
            Err(problem) => {
                self.refusals.count(problem.reason);
                return refuse(problem, "-", request.version());
            }
        };
        let version = request.version();
        let destination = Arc::clone(&route.destination);
        let words = Words::of(request.headers());
        let feature = words.feature(request.headers());
        let rest = route.rest(request.uri().path());
        let intent = Intent {
            work: destination.works.look_up(&feature, request.method(), rest),
            hints: words.hints(),
            trace: words.trace(),
            class: destination.class(words.class()),
        };
        destination.meter.hints_ignored(intent.hints.ignored);
        let journey = destination.meter.begin(Arc::clone(intent.work.operation.feature()));
        // In a box: hyper moves the call's future about, which is small without this one.
        match Box::pin(self.journey(request, &caller, &route, intent, journey, line)).await {
            Ok(response) => response,
            Err(Unanswered { problem, mut journey }) => {
                journey.ends(Outcome::Refused(problem.reason));
                refuse(problem.at(&destination.name), caller.tenant(), version)
            }
        }
    }

    /// Who calls, and whom.
    fn receive(
        &self,
        request: &Request<Incoming>,
        line: &Line,
        clarity: Clarity,
    ) -> Result<(Caller, Route), Problem> {
        hygiene::screen(request, clarity)?;
        let authority = hygiene::authority(request);
        let by_host = authority.and_then(|authority| self.routes.by_host(authority));
        let host = match &by_host {
            Some(_) => Host::Configured,
            None => authority.map_or(Host::None, Host::Other),
        };
        let caller = self.tenants.admit(request.headers(), &line.arrival, host)?;
        if let Some(route) = by_host {
            return Ok((caller, route));
        }
        if request.version() != Version::HTTP_2 && request.uri().authority().is_some() {
            let detail = "Forebay is a forward proxy only for the `hosts` of its destinations: \
                          call `http://HOST:PORT/DESTINATION/…` as the base URL";
            return Err(Problem::new(Reason::Unsupported, detail));
        }
        let route = self.routes.by_path(request.uri().path()).ok_or_else(|| {
            let detail = "the path begins with the destination's name: `/DESTINATION/…`";
            Problem::new(Reason::UnknownDestination, detail)
        })?;
        Ok((caller, route))
    }

    async fn journey(
        &self,
        mut request: Request<Incoming>,
        caller: &Caller,
        route: &Route,
        intent: Intent,
        journey: Journey,
        line: &Arc<Line>,
    ) -> Result<Response<Answer>, Unanswered> {
        let destination = &*route.destination;
        let Intent { work, hints, trace, class } = intent;
        let wish = match upgrade::wish(&mut request) {
            Ok(wish) => wish,
            Err(problem) => return Err(Unanswered { problem, journey }),
        };
        let (mut parts, body) = request.into_parts();
        let rest = route.rest(parts.uri.path());
        let target = match destination.target.join(rest, parts.uri.query()) {
            Ok(target) => target,
            Err(error) => {
                return Err(Unanswered {
                    problem: Problem::new(Reason::Malformed, error),
                    journey,
                });
            }
        };
        let mut upload = Upload::of(body);
        let said = match prefix::may_say(&parts.method, &parts.headers) {
            true => prefix::read(&upload.beginning(prefix::MOST, BEGINNING).await),
            false => Said::default(),
        };
        let trace = trace.or(said.trace);
        let ai_request = trace.map(|trace| self.roster.request(caller.tenant(), trace));
        let framing = match upload.size_hint().exact() {
            None => Framing::Chunked,
            Some(_) => Framing::AsSaid,
        };
        let authority = &destination.target.authority;
        hygiene::for_service(&mut parts.headers, &mut parts.uri, target, authority, framing);
        let entitled = match destination.wallet.entitle(caller, &mut parts.headers) {
            Ok(entitled) => entitled,
            Err(problem) => return Err(Unanswered { problem, journey }),
        };
        // What is to become another protocol needs the whole of a connection.
        let identity = match wish.is_some() {
            true => entitled.identity.clone().alone(),
            false => entitled.identity.clone(),
        };
        destination.toll.prepare(&mut parts.headers);
        let purpose = match &wish {
            Some(wish) => {
                wish.ask(&mut parts.method, &mut parts.headers);
                Purpose::Upgrade
            }
            None => Purpose::Answer,
        };
        let repeat = Repeat::of(destination.retry, &parts.method, &parts.headers);
        let head = Head { method: parts.method, uri: parts.uri, headers: parts.headers };
        let errand = Errand {
            destination,
            overlaps: &self.overlaps,
            ask: Ask {
                request: ai_request.clone(),
                operation: Some(work.operation.clone()),
                cost: hints.cost,
                attempt: hints.attempt,
                deadline: hints.patience.map(|patience| time::now() + patience),
                ..Ask::new(identity, class)
            },
            request: ai_request,
            repeat,
            purpose,
            total: destination.total_timeout,
            call: OutboundCall {
                tenant: Arc::clone(caller.tenant()),
                feature: Arc::clone(work.operation.feature()),
                destination: Arc::clone(&destination.name),
                operation: Arc::clone(work.operation.name()),
                subject: said.subject,
                peer: line.peer,
            },
        };
        let plan = Plan {
            tenant: Arc::clone(caller.tenant()),
            account: entitled.account.clone(),
            work,
            declared: hints.tokens,
            length: upload.size_hint().exact(),
        };
        let mut passage = match destination.toll.pass(plan) {
            Ok(passage) => passage,
            Err(problem) => return Err(Unanswered { problem, journey }),
        };

        let repeatable = upload.is_end_stream();
        let (mut head, mut journey) = (head, journey);
        let mut tries = Tries::First;
        loop {
            let proof = match entitled.proof(&destination.meter).await {
                Ok(Some(proof)) => proof,
                Ok(None) => {
                    let begun = errand.run(head.into_call(None, upload), passage, journey).await?;
                    return deliver(begun, destination, wish, line).map_err(|none| *none);
                }
                Err(problem) => return Err(Unanswered { problem, journey }),
            };
            // The service may refuse a token that it withdrew. That proves that the call was
            // not carried out; without a body it can be sent again as it was.
            let spare =
                (repeatable && tries == Tries::First && proof.is_renewable()).then(|| head.clone());
            let call = head.into_call(Some(&proof), upload);
            let mut begun = errand.run(call, passage, journey).await?;
            proof.take_out_of(begun.response.headers_mut());
            let another = match begun.response.status() {
                StatusCode::UNAUTHORIZED => proof.refused(),
                _ => Another::None,
            };
            match spare {
                Some(spare) if another == Another::Ready => {
                    (passage, journey) = Box::pin(discard(begun)).await;
                    (head, upload, tries) = (spare, Upload::empty(), Tries::Second);
                }
                Some(_) | None => {
                    if another != Another::None {
                        let again = HeaderValue::from_static("true");
                        begun.response.headers_mut().insert(SHOULD_RETRY, again);
                    }
                    return deliver(begun, destination, wish, line).map_err(|none| *none);
                }
            }
        }
    }
}

/// Sends what has begun on to the agent on `line`, or begins to speak what it wished for.
fn deliver(
    mut begun: Begun,
    destination: &Destination,
    wish: Option<Wish>,
    line: &Arc<Line>,
) -> Result<Response<Answer>, Box<Unanswered>> {
    let service = match begun.response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Some(hyper::upgrade::on(&mut begun.response)),
        _ => None,
    };
    let (mut parts, body) = begun.response.into_parts();
    parts.extensions.clear();
    let chunk = destination.chunk_timeout;
    let is_unfulfilled = wish.is_some() && service.is_none();
    if let (Some(wish), Some(service)) = (wish, service) {
        return match wish.granted(&mut parts) {
            Ok(agent) => {
                let tunnel = Tunnel { agent, service, exchange: begun.exchange, pause: chunk };
                tunnel.begin(Arc::clone(line));
                Ok(Response::from_parts(parts, Answer::whole(Bytes::new())))
            }
            Err(problem) => Err(Box::new(Unanswered { problem, journey: begun.exchange.journey })),
        };
    }
    let total = begun.until.zip(destination.total_timeout).filter(|_| !is_stream(&parts.headers));
    hygiene::for_agent(&mut parts.headers);
    if is_unfulfilled && line.speaks == Protocol::Http1 {
        // What the agent has sent behind its wish may be no HTTP.
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    parts.version = Version::HTTP_11;
    let answer = Answer::streamed(body, begun.exchange, Times { chunk, total });
    if let Answer::Streamed(stream) = &answer {
        line.patience.with(stream, chunk);
    }
    Ok(Response::from_parts(parts, answer))
}

/// Whether an answer is meant to go on for as long as it likes.
fn is_stream(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content = content.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let begins = content.get(..GRPC.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(GRPC));
    begins || STREAMS.iter().any(|stream| content.eq_ignore_ascii_case(stream))
}

/// Reads an answer that nobody will see to its end, if that is near, so that its connection
/// can serve again. The call goes on: what it reserved stays reserved.
async fn discard(begun: Begun) -> (Passage, Journey) {
    let Begun { response, exchange, .. } = begun;
    let Exchange { held, calling, passage, journey, .. } = *exchange;
    let rest = Limited::new(response.into_body(), DISCARD).collect();
    if let Ok(Ok(_)) = time::timeout(DISCARD_TIME, rest).await {
        held.over();
    }
    drop(calling);
    (passage, journey)
}

fn refuse(problem: Problem, tenant: &str, version: Version) -> Response<Answer> {
    let (reason, detail) = (problem.reason.code(), &*problem.detail);
    if problem.is_load() {
        // Under load these come by the thousand; the counters have them.
        tracing::debug!(reason, tenant, ?detail, "refused");
    } else {
        tracing::warn!(reason, tenant, ?detail, "refused");
    }
    let mut response = problem.into_response();
    if version == Version::HTTP_2 {
        // There, streams end and connections go on.
        response.headers_mut().remove(CONNECTION);
    }
    response.map(Answer::whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any<T>() -> T {
        unreachable!("only types are looked at")
    }

    fn size<F>(_: impl FnOnce() -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_call_is_moved_as_little_and_takes_little_while_it_is_under_way() {
        let moved = size(|| any::<&Desk>().answer(any(), any(), any()));
        let taken = size(|| any::<&Desk>().journey(any(), any(), any(), any(), any(), any()));
        assert!(moved <= 1_024, "{moved}");
        assert!(taken <= 7_168, "{taken}");
    }
}
