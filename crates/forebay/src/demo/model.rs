//! A stand-in for a large language model: streams a short answer for two seconds, as
//! server-sent events of the shape that OpenAI's clients read; or thinks for two seconds and
//! says it in one piece, where `"stream": false` was asked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::time::Sleep;
use forebay_seam::{random, time};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

use super::issuer::hex;
use super::services::{Answer, Body, Tally, bearer, json};

/// How long an answer takes.
pub(crate) const THINKING: Duration = Duration::from_secs(2);
/// Events of one answer, evenly spread; the last one says `[DONE]`.
const EVENTS: u32 = 20;

/// The stand-in.
pub(crate) struct Model {
    key: String,
}

impl Model {
    /// One with a new API key.
    pub(crate) fn new() -> Self {
        Self { key: hex(random::bytes()) }
    }

    /// Its API key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl Answer for Model {
    async fn answer(&self, request: Request<Incoming>, tally: &Tally) -> Response<Body> {
        if bearer(&request) != Some(self.key()) {
            tally.refusal();
            let why = serde_json::json!({"error": "a valid API key is needed"});
            return json(StatusCode::UNAUTHORIZED, &why);
        }
        let Ok(body) = request.into_body().collect().await else {
            return json(StatusCode::BAD_REQUEST, &serde_json::json!({"error": "no body"}));
        };
        let asked: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        tally.call();
        if asked.get("stream") == Some(&serde_json::Value::Bool(false)) {
            time::sleep(THINKING).await;
            return json(StatusCode::OK, &serde_json::json!({"text": "so"}));
        }
        let mut response = Response::new(Answering::new().boxed_unsync());
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// An answer being thought out.
struct Answering {
    left: u32,
    next: Pin<Box<Sleep>>,
}

impl Answering {
    fn new() -> Self {
        Self { left: EVENTS, next: Box::pin(time::sleep(THINKING / EVENTS)) }
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.next.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.left -= 1;
        if self.left == 0 {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: [DONE]\n\n")))));
        }
        self.next.set(time::sleep(THINKING / EVENTS));
        let word = "data: {\"choices\":[{\"delta\":{\"content\":\"so \"}}]}\n\n";
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(word.as_bytes())))))
    }
}
