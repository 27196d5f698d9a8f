//! Rate limits: ours, those that services announce, and what calls pay in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use forebay_pool::rate::RateSnapshot;
use forebay_seam::sync::Mutex;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};
use tokio::sync::mpsc;

use crate::bench::{Forebay, frame, soon};
use crate::origin::{Origin, Reply, frames, reply};

fn json(body: &'static str) -> Reply {
    let mut reply = reply(200, body);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn with(mut reply: Reply, fields: &[(&'static str, &'static str)]) -> Reply {
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// A gateway before `origin`, with `limits` and perhaps tenants.
fn limited(origin: &Origin, limits: &str, more: &str) -> Forebay {
    let settings = origin.settings();
    Forebay::start(&format!(
        "{more}\n[destinations.llm]\nwarm_up = 0\n{settings}\n[destinations.llm.limits]\n{limits}"
    ))
}

fn rates(forebay: &Forebay) -> RateSnapshot {
    forebay.snapshot().destinations.remove(0).limits
}

fn left(forebay: &Forebay) -> u64 {
    rates(forebay).limits[0].remaining
}

/// Two tenants in the file's own words.
fn tenants(dir: &tempfile::TempDir) -> String {
    let key = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("key-of-{name}")).unwrap();
        format!("[tenants.{name}]\nkey = \"file:{}\"\n", path.display())
    };
    key("acme") + &key("globex")
}

fn of(tenant: &str) -> http::request::Builder {
    Request::get("/llm/").header("x-forebay-key", format!("key-of-{tenant}"))
}

#[tokio::test]
async fn a_call_beyond_the_limit_is_refused_with_everything_an_sdk_obeys() {
    let origin = Origin::start(|_| async { json("{}") });
    let forebay = limited(&origin, "mode = \"enforce\"\nrequests = 2\nper = \"1h\"", "");
    let first = forebay.get("/llm/").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"requests\";q=2;w=3600");
    assert_eq!(first.header("ratelimit"), "\"requests\";r=1;t=1800");
    forebay.get("/llm/").await;
    let got = forebay.get("/llm/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (429, "rate-limited"));
    let seconds: u64 = got.header("retry-after").parse().unwrap();
    assert!((1_700..=2_250).contains(&seconds), "{seconds}");
    assert!(got.header("retry-after-ms").parse::<u64>().unwrap() > 1_000_000);
    assert_eq!(got.header("x-should-retry"), "true");
    assert_eq!(got.header("ratelimit-policy"), "\"requests\";q=2;w=3600");
    assert!(got.header("ratelimit").starts_with("\"requests\";r=0;t="), "{got:?}");
    // It held nothing and waited for nothing.
    assert_eq!((origin.seen().len(), forebay.refused("rate-limited")), (2, 1));
    assert_eq!(rates(&forebay).refused[0].count, 1);
}

#[tokio::test]
async fn two_tenants_do_not_share_what_each_may_ask() {
    let origin = Origin::start(|_| async { json("{}") });
    let dir = tempfile::tempdir().unwrap();
    let limits = "mode = \"enforce\"\nper = \"1h\"\neach_tenant.requests = 1\n\
                  tenants.globex.requests = 2";
    let forebay = limited(&origin, limits, &tenants(&dir));
    assert_eq!(forebay.call(of("acme")).await.status, 200);
    let got = forebay.call(of("acme")).await;
    assert_eq!(got.problem(), "rate-limited");
    assert!(got.header("ratelimit").starts_with("\"tenant-requests\";r=0"), "{got:?}");
    assert_eq!(forebay.call(of("globex")).await.status, 200);
    assert_eq!(forebay.call(of("globex")).await.status, 200);
    assert_eq!(forebay.call(of("globex")).await.status, 429);
}

#[tokio::test]
async fn an_answer_pays_the_tokens_it_says_and_the_rest_comes_back() {
    let origin = Origin::start(|call| async move {
        match call.uri().path() {
            "/events" => {
                let (tell, told) = mpsc::channel(4);
                for event in [
                    "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tok",
                    "ens\":30,\"output_tokens\":1}}}\n\n",
                    "event: message_delta\ndata: {\"usage\":{\"output_tokens\":12}}\n\n",
                ] {
                    tell.send(Bytes::from(event)).await.unwrap();
                }
                let mut reply = Response::new(frames(told));
                let events = HeaderValue::from_static("text/event-stream");
                reply.headers_mut().insert(CONTENT_TYPE, events);
                reply
            }
            "/broken" => reply(500, "sorry"),
            _ => json("{\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":50}}"),
        }
    });
    let forebay = limited(&origin, "mode = \"enforce\"\ntokens = 10000\nper = \"10h\"", "");
    let mut agent = forebay.agent().await;
    let body = "x".repeat(8_000);
    agent.call(Request::post("/llm/chat").header("accept-encoding", "gzip"), &body).await;
    soon("150 are paid", || left(&forebay) == 9_850).await;
    // Only what is not compressed can be read.
    assert!(!origin.seen()[0].headers.contains_key("accept-encoding"));
    agent.call(Request::post("/llm/events").header("x-forebay-tokens", "5000"), "?").await;
    soon("42 are paid", || left(&forebay) == 9_808).await;
    agent.call(Request::post("/llm/broken"), &body).await;
    soon("a failure costs no tokens", || left(&forebay) == 9_808).await;
    let seen = rates(&forebay);
    assert_eq!((seen.limits[0].reserved, seen.tokens_used), (0, 192));
}

#[tokio::test]
async fn a_departed_clients_reservation_is_settled() {
    let (tell, told) = mpsc::channel(1);
    let told = Arc::new(Mutex::new(Some(told)));
    let origin = Origin::start(move |_| {
        let told = told.lock().take();
        async move {
            let mut reply = told.map_or_else(|| reply(200, ""), |t| Response::new(frames(t)));
            let events = HeaderValue::from_static("text/event-stream");
            reply.headers_mut().insert(CONTENT_TYPE, events);
            reply
        }
    });
    let forebay = limited(&origin, "mode = \"enforce\"\ntokens = 10000\nper = \"10h\"", "");
    let mut agent = forebay.agent().await;
    let call = Request::post("/llm/chat").header("x-forebay-tokens", "1000");
    let mut events = agent.send(call, "?").await.into_body();
    assert_eq!(rates(&forebay).limits[0].reserved, 1_000);
    let start = "data: {\"message\":{\"usage\":{\"input_tokens\":3000}}}\n\n";
    tell.send(Bytes::from(start)).await.unwrap();
    assert!(frame(&mut events).await.is_some());
    drop((agent, events));
    // What was seen is more than what was reserved.
    soon("it is settled", || rates(&forebay).limits[0].reserved == 0).await;
    assert_eq!(left(&forebay), 7_000);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_call_went_out_gets_everything_back() {
    let origin = Origin::start(|_| std::future::pending());
    let settings = origin.settings();
    let forebay = Forebay::start(&format!(
        "[destinations.llm]\nwarm_up = 0\nbudget = 1\nclasses.ai-read = {{ checkout_timeout = \"10s\" }}\n\
         {settings}\nlimits = {{ mode = \"enforce\", requests = 10, per = \"10h\" }}\n"
    ));
    let mut first = forebay.agent().await;
    let held = tokio::spawn(async move { first.send(Request::get("/llm/"), "").await });
    soon("the connection is taken", || origin.seen().len() == 1).await;
    let mut second = forebay.agent().await;
    let waiting = tokio::spawn(async move { second.send(Request::get("/llm/"), "").await });
    soon("one waits", || forebay.snapshot().pools[0].classes[0].waiting == 1).await;
    assert_eq!(left(&forebay), 8);
    waiting.abort();
    soon("its place is given back", || left(&forebay) == 9).await;
    held.abort();
    soon("nothing is reserved", || rates(&forebay).limits[0].reserved == 0).await;
    assert_eq!(left(&forebay), 9);
}

#[tokio::test]
async fn what_a_service_announces_is_heeded() {
    let origin = Origin::start(|_| async {
        let fields = [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "5m0s"),
        ];
        with(json("{}"), &fields)
    });
    let forebay = limited(&origin, "mode = \"enforce\"\nrequests = 1000", "");
    let first = forebay.get("/llm/").await;
    // The service's own words go through, and ours do not contradict them.
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "0");
    assert_eq!(first.header("ratelimit"), "");
    let got = forebay.get("/llm/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (429, "service-rate-limited"));
    let millis: u64 = got.header("retry-after-ms").parse().unwrap();
    // 60 in 5 min: one in 5 s.
    assert!((3_000..=6_250).contains(&millis), "{millis}");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_service_that_says_too_many_is_left_alone_by_whom_it_meant() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let origin = Origin::start(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match first {
                true => with(reply(429, "slow down"), &[("retry-after", "30")]),
                false => json("{}"),
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let forebay = limited(&origin, "mode = \"enforce\"", &tenants(&dir));
    let theirs = forebay.call(of("acme")).await;
    assert_eq!((theirs.status.as_u16(), theirs.body.as_str()), (429, "slow down"));
    let ours = forebay.call(of("acme")).await;
    assert_eq!(ours.problem(), "service-rate-limited");
    assert!(ours.header("retry-after").parse::<u64>().unwrap() >= 29);
    // Each tenant's own credential passes through here, so the other is another account.
    assert_eq!(forebay.call(of("globex")).await.status, 200);
    let seen = forebay.snapshot().destinations.remove(0);
    assert_eq!((seen.throttled, seen.limits.tenants_limited), (1, 1));
}

#[tokio::test]
async fn observing_refuses_nobody_and_says_what_it_would_have_refused() {
    let origin = Origin::start(|_| async { with(reply(429, ""), &[("retry-after", "30")]) });
    let forebay = limited(&origin, "requests = 2\nper = \"1h\"", "");
    for _ in 0..5 {
        let got = forebay.get("/llm/").await;
        assert_eq!((got.status.as_u16(), got.header("ratelimit")), (429, ""));
    }
    assert_eq!(origin.seen().len(), 5);
    let seen = rates(&forebay);
    assert_eq!(seen.admitted, 1);
    assert_eq!(seen.refused.iter().map(|refused| refused.count).sum::<u64>(), 4);
    assert_eq!(forebay.refused("rate-limited"), 0);
}

#[tokio::test]
async fn a_wrong_hint_fails_no_call_and_is_counted() {
    let origin = Origin::start(|_| async { json("{}") });
    let forebay = limited(&origin, "", "");
    let call = Request::get("/llm/").header("x-forebay-cost", "lots").header("grpc-timeout", "2S");
    assert_eq!(forebay.call(call).await.status, 200);
    assert_eq!(forebay.snapshot().destinations[0].hints_ignored, 1);
    let seen = origin.seen();
    assert!(!seen[0].headers.contains_key("x-forebay-cost"));
    assert_eq!(seen[0].headers["grpc-timeout"], "2S");
}
