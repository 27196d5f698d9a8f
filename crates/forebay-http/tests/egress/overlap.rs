//! Connections to a database held while the same request calls out.

use std::sync::Arc;

use bytes::Bytes;
use forebay_pool::overlap::{HoldKind, IdleTransaction, Phase};
use forebay_pool::{ClassName, Request as AiRequest, TraceId};
use forebay_seam::time;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::bench::{Forebay, frame, soon};
use crate::origin::{Origin, frames, reply};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn idle() -> IdleTransaction {
    IdleTransaction {
        kind: HoldKind::Held,
        class: ClassName::new("ai-read"),
        feature: "answer".into(),
        statement: "SELECT ?".into(),
        database: "app".into(),
        user: "agent".into(),
        application: "worker".into(),
        client: 1,
        since: time::now(),
    }
}

fn request(tenant: &str) -> AiRequest {
    AiRequest::new(tenant.into(), TraceId::from_traceparent(TRACE).unwrap())
}

#[tokio::test]
async fn a_transaction_that_idles_during_a_call_of_its_request_is_counted() {
    let (tell, told) = mpsc::channel::<Bytes>(1);
    let told = Arc::new(forebay_seam::sync::Mutex::new(Some(told)));
    let origin = Origin::start(move |_| {
        let body = frames(told.lock().take().unwrap());
        async move { Response::new(body) }
    });
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let mut events = forebay.overlaps.events();
    let _idling = forebay.overlaps.transaction_idles(&request("default"), idle());
    let mut agent = forebay.agent().await;
    let call = Request::post("/llm/v1/threads/17").header("traceparent", TRACE);
    let mut answer = agent.send(call, "").await.into_body();
    let counts = forebay.overlaps.counts();
    assert_eq!((counts.len(), counts[0].begun, counts[0].ended), (1, 1, 0));
    assert_eq!(events.try_recv().unwrap().phase, Phase::Begins);
    assert!(events.try_recv().is_err(), "the answer is still coming");
    drop(tell);
    assert_eq!(frame(&mut answer).await, None);
    let overlap = events.recv().await.unwrap();
    assert_eq!(overlap.phase, Phase::Ends);
    assert_eq!((&*overlap.destination, &*overlap.feature), ("llm", "answer"));
    assert_eq!(&*overlap.operation, "POST /v1/threads/{id}");
}

#[tokio::test]
async fn an_agent_that_leaves_ends_the_overlap() {
    let origin = Origin::start(|_| std::future::pending());
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let _idling = forebay.overlaps.transaction_idles(&request("default"), idle());
    let mut agent = forebay.agent().await;
    let thinking = tokio::spawn(async move {
        agent.send(Request::get("/llm/").header("traceparent", TRACE), "").await
    });
    soon("it begins", || forebay.overlaps.counts().iter().any(|c| c.begun == 1)).await;
    thinking.abort();
    soon("it ends", || forebay.overlaps.counts().iter().any(|c| c.ended == 1)).await;
}

#[tokio::test]
async fn calls_of_another_tenant_or_without_a_trace_are_no_overlap() {
    let origin = Origin::start(|_| async { reply(200, "") });
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let _idling = forebay.overlaps.transaction_idles(&request("acme"), idle());
    for trace in [TRACE, "garbage", ""] {
        let call = Request::get("/llm/").header("traceparent", trace);
        assert_eq!(forebay.call(call).await.status, 200);
    }
    assert!(forebay.overlaps.counts().is_empty());
}

#[tokio::test]
async fn calls_are_told_apart_by_feature() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let baggage = "user=7, forebay.feature=search;ttl=1";
    for call in [
        Request::get("/llm/").header("x-forebay-feature", "summary"),
        Request::get("/llm/").header("baggage", baggage),
        Request::get("/llm/").header("baggage", baggage),
    ] {
        assert_eq!(forebay.call(call).await.status, 200);
    }
    let counts = || {
        let features = forebay.snapshot().destinations[0].features.clone();
        features.iter().map(|f| (f.feature.to_string(), f.calls)).collect::<Vec<_>>()
    };
    soon("all are counted", || counts() == [("search".to_owned(), 2), ("summary".to_owned(), 1)])
        .await;
    assert!(origin.seen().iter().all(|call| !call.headers.contains_key("x-forebay-feature")));
}

#[tokio::test]
async fn a_body_that_was_looked_at_arrives_as_it_was_sent() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let mut agent = forebay.agent().await;
    let json = || Request::post("/llm/").header("content-type", "application/json");
    let long = format!("{{\"messages\":[\"{}\"],\"model\":\"small\"}}", "x".repeat(300_000));
    for body in ["", "{}", "no json at all", &long] {
        assert_eq!(agent.call(json(), body).await.body, body);
    }
    // One that comes in chunks, and slower than anybody looks.
    let (tell, told) = mpsc::channel::<Bytes>(1);
    let sent = tokio::spawn(async move { agent.send_body(json(), frames(told)).await });
    for part in ["{\"mo", "del\":", "\"small\"}"] {
        tell.send(part.into()).await.unwrap();
        time::sleep(std::time::Duration::from_millis(150)).await;
    }
    drop(tell);
    let answer = sent.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, "{\"model\":\"small\"}");
}

#[tokio::test]
async fn a_call_names_its_request_model_and_tool_in_its_head_or_its_body() {
    let origin = Origin::start(|_| std::future::pending());
    let forebay = Forebay::start(&format!("[destinations.llm]\n{}", origin.settings()));
    let _idling = forebay.overlaps.transaction_idles(&request("default"), idle());
    let mcp = format!(
        "{{\"method\":\"tools/call\",\"params\":{{\"_meta\":{{\"traceparent\":\"{TRACE}\"}},\
         \"name\":\"find\"}}}}"
    );
    let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    let json = || Request::post("/llm/").header("content-type", "application/json");
    for (call, body, name) in [
        (json(), mcp.as_str(), "find"),
        (json().header("x-forebay-request", uuid), r#"{"model":"small"}"#, "small"),
        (json().header("traceparent", TRACE), r#"{"model":"large"}"#, "large"),
    ] {
        let (mut agent, body) = (forebay.agent().await, body.to_owned());
        let thinking = tokio::spawn(async move { agent.send(call, &body).await });
        let called = || -> Vec<String> {
            let holds = forebay.overlaps.holds();
            let calls = holds.iter().flat_map(|hold| &hold.calls);
            calls.filter_map(|call| Some(call.subject.as_ref()?.name().to_string())).collect()
        };
        soon("it is beside", || called() == [name]).await;
        thinking.abort();
        soon("it is over", || called().is_empty()).await;
    }
}
