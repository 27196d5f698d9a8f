//! What Forebay itself answers: problem details (RFC 9457) with the headers by which SDKs
//! decide whether and when to try again.
//!
//! Always true: every refusal has a reason with a status of its own, and says in so many
//! words whether trying again makes sense; a problem carries no secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_pool::{CheckoutError, Refusal};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// Milliseconds to wait before trying again; the OpenAI and Anthropic SDKs obey it.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Whether to try again at all; the OpenAI and Anthropic SDKs obey it.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Whoever the deadlock was broken for needs a moment to finish.
const AFTER_DEADLOCK: Duration = Duration::from_secs(1);

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Why Forebay answers instead of the service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Reason { $($(#[$doc])* $reason,)* }

        impl Reason {
            /// Every reason, in the order of its place.
            pub(crate) const ALL: &[Self] = &[$(Self::$reason,)*];

            /// Its name in problems, logs and metrics.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$reason => $code,)* }
            }

            /// Its HTTP status.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$reason => StatusCode::$status,)* }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$reason => $title,)* }
            }
        }
    };
}

reasons! {
    /// The call is no proper HTTP, or more than one reading of it is possible.
    Malformed = "malformed-request", BAD_REQUEST, "The request is malformed";
    /// The head of the call is larger than any call needs.
    HeadTooLarge = "head-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large";
    /// No key, or a wrong one.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A tenant key is required";
    /// Too many wrong keys came from there.
    Throttled = "too-many-wrong-keys", TOO_MANY_REQUESTS, "Too many wrong keys";
    /// A web page calls, and nothing proves that it may.
    ForeignOrigin = "foreign-origin", FORBIDDEN, "Web pages may not call without a tenant key";
    /// The call is meant for another host.
    Misdirected = "misdirected-request", MISDIRECTED_REQUEST, "The request is meant for another host";
    /// No destination has that name.
    UnknownDestination = "unknown-destination", NOT_FOUND, "No such destination";
    /// A way of calling that Forebay does not offer.
    Unsupported = "not-supported", NOT_IMPLEMENTED, "Not supported";
    /// The agent stopped sending in the middle.
    UploadStalled = "upload-stalled", REQUEST_TIMEOUT, "The request did not arrive in time";
    /// Too many wait already.
    QueueFull = "queue-full", TOO_MANY_REQUESTS, "Too many calls wait for this destination";
    /// A rate limit of ours is reached.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "A rate limit is reached";
    /// The service announced that it would refuse.
    ServiceLimited = "service-rate-limited", TOO_MANY_REQUESTS, "The destination's own rate limit is reached";
    /// Expensive work is shed.
    Shed = "shed", TOO_MANY_REQUESTS, "The destination is busy and expensive work is refused";
    /// The requests under way need all there is.
    Demand = "demand", TOO_MANY_REQUESTS, "The requests under way need every connection";
    /// As many requests are under way as may be.
    Requests = "max-requests", TOO_MANY_REQUESTS, "Too many requests are under way";
    /// It would wait beyond its deadline.
    Late = "deadline", TOO_MANY_REQUESTS, "The call could not be served by its deadline";
    /// Newer work goes first.
    Stale = "stale", TOO_MANY_REQUESTS, "The call waited too long behind newer ones";
    /// Retries have used up their budget.
    Retries = "retry-budget", TOO_MANY_REQUESTS, "Too many calls are retries";
    /// The work of its class fails.
    Broken = "class-broken", SERVICE_UNAVAILABLE, "Calls of this class keep failing";
    /// Those who hold the connections wait for each other.
    Deadlock = "deadlock", SERVICE_UNAVAILABLE, "The calls of a request wait for each other";
    /// No connection came free in time.
    TimedOut = "checkout-timeout", SERVICE_UNAVAILABLE, "No connection came free in time";
    /// Nobody answers there.
    Unreachable = "unreachable", BAD_GATEWAY, "The destination cannot be reached";
    /// The service turned the connection away.
    Denied = "denied", BAD_GATEWAY, "The destination refuses connections";
    /// There is no credential to send.
    NoCredential = "credential-unavailable", BAD_GATEWAY, "The credential for this destination is not available";
    /// The service took the call and did not begin to answer in time.
    FirstByteTimeout = "first-byte-timeout", GATEWAY_TIMEOUT, "The destination did not answer in time";
    /// The call was not over in the time that it was given.
    TotalTimeout = "total-timeout", GATEWAY_TIMEOUT, "The call took too long in all";
    /// The connection broke, or what came is no HTTP.
    BrokenAnswer = "broken-answer", BAD_GATEWAY, "The destination's answer broke off";
    /// As many agents are connected as may be.
    TooManyClients = "too-many-clients", SERVICE_UNAVAILABLE, "Too many clients are connected";
    /// Forebay is on its way down.
    Closing = "closing", SERVICE_UNAVAILABLE, "Forebay is shutting down";
}

/// Whether trying the same call again makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail alike, or may have been carried out already.
    Never,
    /// Nothing was sent: not before this time.
    After(Duration),
}

/// One refusal.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) reason: Reason,
    pub(crate) detail: Box<str>,
    retry: Retry,
    destination: Option<Arc<str>>,
    /// Fields that say more.
    fields: Box<[(HeaderName, HeaderValue)]>,
}

impl Problem {
    /// A refusal for `reason`, explained by `detail`; trying again makes no sense.
    pub(crate) fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        let (detail, fields) = (detail.to_string().into(), Box::default());
        Self { reason, detail, retry: Retry::Never, destination: None, fields }
    }

    /// The same, with `fields` in the answer's head.
    pub(crate) fn with_fields(self, fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { fields: fields.into(), ..self }
    }

    /// The same, saying when to come again with something else: this would fail alike.
    pub(crate) fn not_before(self, wait: Duration) -> Self {
        self.with_fields(vec![(RETRY_AFTER, seconds(wait).into())])
    }

    /// The same, with advice on trying again.
    pub(crate) fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The same, naming the destination.
    pub(crate) fn at(self, destination: &Arc<str>) -> Self {
        Self { destination: Some(Arc::clone(destination)), ..self }
    }

    /// Whether load is the reason: such problems come by the thousand.
    pub(crate) fn is_load(&self) -> bool {
        matches!(self.reason.status(), StatusCode::TOO_MANY_REQUESTS)
            || matches!(self.reason, Reason::TimedOut | Reason::Broken)
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.reason.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.reason == Reason::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer realm=\"forebay\"");
            headers.insert(WWW_AUTHENTICATE, scheme);
        }
        if self.reason == Reason::Malformed {
            // Where one call ends and the next begins is in doubt from here on.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self.retry {
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::After(wait) => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
                headers.insert(RETRY_AFTER, seconds(wait).into());
                headers.insert(RETRY_AFTER_MS, millis(wait).into());
            }
        }
        headers.extend(self.fields);
        response
    }

    fn body(&self) -> Bytes {
        let mut body = serde_json::json!({
            "type": format!("urn:forebay:problem:{}", self.reason.code()),
            "title": self.reason.title(),
            "status": self.reason.status().as_u16(),
            "detail": self.detail,
        });
        if let Some(destination) = &self.destination {
            body["destination"] = destination.as_ref().into();
        }
        if let Retry::After(wait) = self.retry {
            body["retry_after_ms"] = millis(wait).into();
        }
        body.to_string().into()
    }
}

/// Whole seconds, rounded up, at least one: `Retry-After` knows nothing finer.
fn seconds(wait: Duration) -> u64 {
    millis(wait).div_ceil(1000)
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl From<CheckoutError> for Problem {
    /// No lease, so nothing was sent: but for a refusal, trying again is safe.
    fn from(error: CheckoutError) -> Self {
        let (reason, retry) = match &error {
            CheckoutError::QueueFull { retry_after, .. } => {
                (Reason::QueueFull, Retry::After(*retry_after))
            }
            CheckoutError::TimedOut { retry_after, .. } => {
                (Reason::TimedOut, Retry::After(*retry_after))
            }
            CheckoutError::Unreachable { retry_after, .. } => {
                (Reason::Unreachable, Retry::After(*retry_after))
            }
            // SDKs that were told a time would only try again: this is what is too much.
            CheckoutError::Refused { why: Refusal::Retries, .. } => (Reason::Retries, Retry::Never),
            CheckoutError::Refused { why, retry_after, .. } => {
                (refusal(*why), retry_after.map_or(Retry::Never, Retry::After))
            }
            CheckoutError::Deadlock { .. } => (Reason::Deadlock, Retry::After(AFTER_DEADLOCK)),
            CheckoutError::Denied { .. } => (Reason::Denied, Retry::Never),
            CheckoutError::Closed { .. } => (Reason::Closing, Retry::After(Duration::from_secs(1))),
            // The engine may learn new reasons; none of them sent anything.
            _ => (Reason::TimedOut, Retry::After(Duration::from_secs(1))),
        };
        Self::new(reason, error).with_retry(retry)
    }
}

fn refusal(why: Refusal) -> Reason {
    match why {
        Refusal::Shed { .. } => Reason::Shed,
        Refusal::Demand { .. } => Reason::Demand,
        Refusal::Requests { .. } => Reason::Requests,
        Refusal::Late { .. } => Reason::Late,
        Refusal::Stale => Reason::Stale,
        Refusal::Retries => Reason::Retries,
        Refusal::Broken => Reason::Broken,
        // The engine may learn new reasons; they all mean that there is too much of something.
        _ => Reason::QueueFull,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let wait = Duration::from_millis(1_200);
        let problem = Problem::new(Reason::QueueFull, "12 wait").with_retry(Retry::After(wait));
        let response = problem.at(&"llm".into()).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        assert_eq!(response.headers()["x-should-retry"], "true");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["type"], "urn:forebay:problem:queue-full");
        assert_eq!((&body["status"], &body["destination"]), (&429.into(), &"llm".into()));
    }

    #[test]
    fn a_wait_is_never_rounded_down_to_nothing() {
        let problem =
            Problem::new(Reason::Closing, "").with_retry(Retry::After(Duration::from_micros(3)));
        let response = problem.into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["retry-after-ms"], "1");
    }

    #[test]
    fn what_may_have_been_carried_out_is_not_to_be_tried_again() {
        let response = Problem::new(Reason::FirstByteTimeout, "5 min").into_response();
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert!(!response.headers().contains_key("retry-after"));
    }

    #[test]
    fn every_checkout_error_has_its_status() {
        let wait = Duration::from_secs(1);
        let full = CheckoutError::QueueFull {
            destination: "llm".into(),
            class: forebay_pool::ClassName::new("core"),
            limit: 100,
            retry_after: wait,
        };
        let refused = |why, retry_after| CheckoutError::Refused {
            destination: "llm".into(),
            class: forebay_pool::ClassName::new("core"),
            why,
            retry_after,
        };
        let shed = Problem::from(refused(Refusal::Shed { utilisation: 0.9 }, Some(wait)));
        let shed = shed.into_response();
        assert_eq!(
            (shed.status().as_u16(), &shed.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        let retries = Problem::from(refused(Refusal::Retries, Some(wait))).into_response();
        assert_eq!(
            (retries.status().as_u16(), &retries.headers()["x-should-retry"]),
            (429, &"false".parse().unwrap())
        );
        let broken = Problem::from(refused(Refusal::Broken, Some(wait)));
        assert_eq!(broken.reason.status(), 503);
        let closed = CheckoutError::Closed { destination: "llm".into() };
        assert_eq!(Problem::from(full).reason.status(), 429);
        assert_eq!(Problem::from(closed).reason.status(), 503);
    }
}
