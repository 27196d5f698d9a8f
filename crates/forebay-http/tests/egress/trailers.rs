//! Trailers, and gRPC, which cannot do without them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::time;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::bench::{Forebay, Got, soon};
use crate::destinations::service::{Service, Speaks};
use crate::origin::{Origin, frames, reply};
use crate::raw::{self, Raw};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `data`, then `fields`.
fn with_trailers(
    data: &str,
    fields: &[(&'static str, &'static str)],
) -> BoxBody<Bytes, Infallible> {
    let mut trailers = HeaderMap::new();
    for (name, value) in fields {
        trailers.insert(*name, HeaderValue::from_static(value));
    }
    let frames = [Frame::data(Bytes::from(data.to_owned())), Frame::trailers(trailers)];
    StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed()
}

/// A service that answers with what came, in its body and its trailers.
fn mirror() -> Origin {
    Origin::start(|call| async move {
        let collected = call.into_body().collect().await.unwrap();
        let came = collected.trailers().cloned().unwrap_or_default();
        let named = |name| came.contains_key(name).to_string();
        let body = format!("{} {}", named("x-sum"), named("authorization"));
        let mut reply = Response::new(with_trailers(
            &body,
            &[("grpc-status", "0"), ("set-cookie", "a=b"), ("content-length", "7")],
        ));
        let declared = HeaderValue::from_static("grpc-status, set-cookie, content-length");
        reply.headers_mut().insert("trailer", declared);
        reply
    })
}

fn tool(origin: &Origin) -> Forebay {
    Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{}", origin.settings()))
}

#[tokio::test]
async fn trailers_pass_both_ways_and_bring_nothing_that_belongs_into_a_head() {
    let origin = mirror();
    let forebay = tool(&origin);
    for _ in 0..2 {
        let mut agent = forebay.agent().await;
        let call = Request::post("/tool/")
            .header("te", "trailers")
            .header("trailer", "x-sum, authorization")
            .header("transfer-encoding", "chunked");
        let body = with_trailers("data", &[("x-sum", "1"), ("authorization", "Bearer x")]);
        let got = Got::read(agent.send_body(call, body).await).await;
        assert_eq!(got.body, "true false");
        assert_eq!(got.trailers.len(), 1, "{:?}", got.trailers);
        assert_eq!(got.trailers["grpc-status"], "0");
    }
    assert_eq!(origin.opened(), 1, "the connection serves again");
}

#[tokio::test]
async fn an_agent_that_takes_no_trailers_gets_none() {
    let origin = mirror();
    let forebay = tool(&origin);
    let got = forebay.agent().await.call(Request::post("/tool/"), "data").await;
    assert_eq!((got.body.as_str(), got.trailers.len()), ("false false", 0));
    assert!(!origin.seen()[0].headers.contains_key("te"));
}

#[tokio::test]
async fn a_grpc_call_over_http_2_gets_its_status_behind_the_answer() {
    let origin = mirror();
    let forebay = tool(&origin);
    let mut agent = forebay.agent2().await;
    let call = Request::post("http://localhost/tool/pkg.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "10S");
    let got = agent.call(call, "\0\0\0\0\0").await;
    assert_eq!(got.trailers["grpc-status"], "0");
    let seen = &origin.seen()[0];
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["grpc-timeout"], "10S");
}

#[tokio::test]
async fn a_grpc_answer_may_be_its_trailers_alone() {
    let origin = Origin::start(|_| async {
        let mut answer = reply(200, "");
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "12")] {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    });
    let forebay = tool(&origin);
    let mut agent = forebay.agent2().await;
    let call = Request::post("http://localhost/tool/pkg.Service/Method").header("te", "trailers");
    let answer = agent.send(call, Full::new(Bytes::from_static(b"x")).boxed()).await;
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert!(hyper::body::Body::is_end_stream(answer.body()));
}

/// A service of gRPC: `/whole` sends back what comes as it comes, and then its status; anything
/// else is answered by a status alone.
fn grpc() -> Service {
    Service::start(Speaks::Http2(100), |call: Request<Incoming>| async move {
        let mut answer = reply(200, "");
        let fields = answer.headers_mut();
        fields.insert("content-type", HeaderValue::from_static("application/grpc"));
        if call.uri().path() != "/whole" {
            fields.insert("grpc-status", HeaderValue::from_static("12"));
            return answer;
        }
        let status =
            async { Some(Ok(HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]))) };
        let came = call.into_body().map_err(|error| panic!("it broke: {error}"));
        *answer.body_mut() = came.with_trailers(status).boxed();
        answer
    })
}

#[tokio::test]
async fn grpc_passes_from_http_2_to_http_2_in_both_directions_at_once() {
    let service = grpc();
    let settings = format!("[destinations.tool]\nwarm_up = 0\n{}", service.settings());
    let forebay = Forebay::start(&settings);
    let mut agent = forebay.agent2().await;
    let call = |path: &str| {
        Request::post(format!("http://localhost/tool/{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
    };
    let refused = agent.send(call("unknown"), Full::new(Bytes::from_static(b"x")).boxed()).await;
    assert_eq!(refused.headers()[STATUS], "12");
    assert!(hyper::body::Body::is_end_stream(refused.body()));
    // More than all windows on the way together: it is sent while it comes back.
    let (piece, pieces) = mpsc::channel(1);
    let answer = agent.send(call("whole"), frames(pieces)).await;
    let sent = tokio::spawn(async move {
        for n in 0..=255 {
            piece.send(Bytes::from(vec![n; 64 * 1024])).await.unwrap();
        }
    });
    let (mut body, mut came, mut next) = (answer.into_body(), 0_usize, 0);
    let mut status = None;
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => {
                for byte in data {
                    next = came / (64 * 1024);
                    assert_eq!(usize::from(byte), next);
                    came += 1;
                }
            }
            Err(trailers) => status = trailers.into_trailers().ok(),
        }
    }
    sent.await.unwrap();
    assert_eq!((came, next), (256 * 64 * 1024, 255));
    assert_eq!(status.unwrap()[STATUS], "0");
    assert_eq!(service.opened(), 1);
}

#[tokio::test]
async fn endless_trailers_are_bounded() {
    let service = Raw::start(|mut stream, _| async move {
        raw::head(&mut stream).await;
        let begun = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n0\r\n";
        drop(stream.write_all(begun.as_bytes()).await);
        let more = "x: and more\r\n".repeat(1_000);
        while stream.write_all(more.as_bytes()).await.is_ok() {}
    });
    let forebay = service.gateway("");
    let mut socket = forebay.socket().await;
    let call = b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n\r\n";
    socket.write_all(call).await.unwrap();
    let mut heard = Vec::new();
    let ended = time::timeout(Duration::from_secs(20), socket.read_to_end(&mut heard)).await;
    assert!(ended.is_ok() && heard.len() < 64 * 1024, "{}", heard.len());
    soon("it is free", || forebay.snapshot().pools[0].leased == 0).await;
}
