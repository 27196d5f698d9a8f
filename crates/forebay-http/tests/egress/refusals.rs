//! Every refusal has its status, its reason, and advice on trying again.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_http::Gateway;
use forebay_seam::net;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Forebay, settings, soon};
use crate::origin::{Origin, reply};

#[tokio::test]
async fn a_full_queue_is_told_at_once_with_the_time_to_come_again() {
    let origin = Origin::start(|_| std::future::pending());
    let class = "classes.ai-read = {}\n";
    let text = format!("[destinations.tool]\nbudget = 1\n{class}{}", origin.settings());
    let forebay = Arc::new(Forebay::start(&text));
    let mut agents = Vec::new();
    // One on the only connection, two in the queue.
    for n in 0..3_u32 {
        let mut agent = forebay.agent().await;
        agents.push(tokio::spawn(async move { agent.send(Request::get("/tool/"), "").await }));
        soon("it is in its place", || {
            let pool = &forebay.snapshot().pools[0];
            pool.leased + pool.classes[0].waiting == n + 1 && pool.leased == 1
        })
        .await;
    }
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (429, "queue-full"));
    assert_eq!(got.header("x-should-retry"), "true");
    assert!(got.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(got.header("retry-after-ms").parse::<u64>().unwrap() >= 1);
    assert!(got.body.contains("\"destination\":\"tool\""), "{}", got.body);
    assert_eq!(forebay.refused("queue-full"), 1);
    agents.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_wait_that_is_too_long_ends_with_the_reason() {
    let origin = Origin::start(|_| std::future::pending());
    let text = format!(
        "[destinations.tool]\nbudget = 1\ncheckout_timeout = \"50ms\"\n{}",
        origin.settings()
    );
    let forebay = Forebay::start(&text);
    let mut first = forebay.agent().await;
    let held = tokio::spawn(async move { first.send(Request::get("/tool/"), "").await });
    soon("the connection is taken", || origin.seen().len() == 1).await;
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (503, "checkout-timeout"));
    assert_eq!(got.header("x-should-retry"), "true");
    held.abort();
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_a_bad_gateway() {
    let nobody = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let forebay = Forebay::start(&format!("[destinations.tool]\nurl = \"http://{address}\"\n"));
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (502, "unreachable"));
    assert_eq!(got.header("x-should-retry"), "true");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_a_bad_gateway() {
    let (origin, other) = (Origin::echo(), Origin::echo());
    let text = origin
        .settings()
        .replace(&origin.ca().display().to_string(), &other.ca().display().to_string());
    let forebay = Forebay::start(&format!("[destinations.tool]\n{text}"));
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (502, "unreachable"));
    assert!(got.body.contains("certificate"), "{}", got.body);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_plain_destination_works_too() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"GET /base/x?y=1 HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain").await.unwrap();
    });
    let forebay = Forebay::start(&format!(
        "[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}/base\"\n"
    ));
    let got = forebay.get("/tool/x?y=1").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "plain"));
}

#[tokio::test]
async fn unknown_destinations_and_wrong_keys_are_told_so() {
    let origin = Origin::echo();
    let open = Forebay::start(&format!("[destinations.tool]\n{}", origin.settings()));
    for path in ["/", "/nobody/x", "/Tool/x", "/tool%2fx"] {
        let got = open.get(path).await;
        assert_eq!((got.status.as_u16(), got.problem().as_str()), (404, "unknown-destination"));
    }
    let got = open.get("/tool/../x").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (400, "malformed-request"));
    let locked = Forebay::start(&format!(
        "[tenants.acme]\nkey = \"key-a\"\n[destinations.tool]\n{}",
        origin.settings()
    ));
    for path in ["/tool/", "/nobody/"] {
        let got = locked.call(Request::get(path).header("x-forebay-key", "key-b")).await;
        assert_eq!((got.status.as_u16(), got.problem().as_str()), (401, "unauthorized"));
        assert_eq!(got.header("www-authenticate"), "Bearer realm=\"forebay\"");
    }
    assert_eq!(locked.refused("unauthorized"), 2);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn tunnels_to_hosts_are_refused() {
    let origin = Origin::echo();
    let forebay = Forebay::start(&format!("[destinations.tool]\n{}", origin.settings()));
    let tunnel = Request::connect("api.test:443").header("host", "localhost");
    assert_eq!(forebay.call(tunnel).await.status, 501);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn more_clients_than_may_be_are_turned_away_with_the_reason() {
    let origin = Origin::echo();
    let text = format!("max_clients = 1\n[destinations.tool]\n{}", origin.settings());
    let forebay = Forebay::start(&text);
    let mut first = forebay.agent().await;
    assert_eq!(first.call(Request::get("/tool/"), "").await.status, 200);
    let mut second = forebay.socket().await;
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("too-many-clients") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!((forebay.snapshot().clients, forebay.snapshot().clients_refused), (1, 1));
    drop(first);
    soon("there is room again", || forebay.snapshot().clients == 0).await;
    assert_eq!(forebay.get("/tool/").await.status, 200);
}

#[test]
fn settings_that_cannot_be_carried_out_name_their_key() {
    let cases = [
        ("max_clients = 0\n", "http.max_clients"),
        ("max_concurrent_streams = 0\n", "http.max_concurrent_streams"),
        ("[destinations.a]\nurl = \"a.test\"\n", "http.destinations.a.url"),
        ("[destinations.a]\nurl = \"ftp://a.test\"\n", "http.destinations.a.url"),
        ("[destinations.\"a b\"]\nurl = \"https://a.test\"\n", "http.destinations.a b"),
        (
            "[destinations.a]\nurl = \"https://a.test\"\nca_file = \"/no/such/file\"\n",
            "http.destinations.a.ca_file",
        ),
        ("[destinations.a]\nurl = \"https://a.test\"\nbudget = 0\n", "http.destinations.a.budget"),
        (
            "[destinations.a]\nurl = \"https://a.test\"\nbudget = 9\ndocumented_limit = 8\n",
            "http.destinations.a.budget",
        ),
        (
            "[destinations.a]\nurl = \"https://a.test\"\nchunk_timeout = \"0s\"\n",
            "http.destinations.a.chunk_timeout",
        ),
        (
            "[destinations.a]\nurl = \"https://a.test\"\nauth = { type = \"header\", name = \"a b\", secret = \"x\" }\n",
            "http.destinations.a.auth.name",
        ),
        (
            "[destinations.a]\nurl = \"https://a.test\"\nauth = { type = \"oauth2-client-credentials\", token_url = \"http://a.test\", client_id = \"x\", client_secret = \"x\" }\n",
            "http.destinations.a.auth.token_url",
        ),
        (
            "[destinations.a]\nurl = \"https://a.test\"\ntenants.acme = { type = \"bearer\", secret = \"x\" }\n",
            "http.destinations.a.tenants.acme",
        ),
    ];
    for (text, at) in cases {
        assert_eq!(Gateway::check(&settings(text)).unwrap_err().at, at, "{text}");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_an_error_at_the_start() {
    let text = "[destinations.a]\nurl = \"https://a.test\"\n\
                auth = { type = \"bearer\", secret = \"env:FOREBAY_NO_SUCH_VARIABLE\" }\n";
    assert!(Gateway::check(&settings(text)).is_ok());
    let Err(error) = Gateway::new(settings(text), Arc::default(), Arc::default()) else {
        panic!("an error")
    };
    assert_eq!(error.at, "http.destinations.a.auth.secret");
    assert!(error.reason.contains("FOREBAY_NO_SUCH_VARIABLE"));
}

/// A gateway with one class whose policies act.
fn enforced(origin: &Origin, class: &str) -> Forebay {
    let class = format!("classes.ai-read = {{ mode = \"enforce\", {class} }}\n");
    Forebay::start(&format!("[destinations.tool]\nbudget = 5\n{class}{}", origin.settings()))
}

fn of_trace(n: u32) -> http::request::Builder {
    let trace = format!("00-4bf92f3577b34da6a3ce929d{n:08x}-00f067aa0ba902b7-01");
    Request::get("/tool/").header("traceparent", trace)
}

#[tokio::test]
async fn a_request_beyond_those_that_may_be_under_way_is_told_when_to_come_back() {
    let origin = Origin::start(|_| std::future::pending());
    let forebay = enforced(&origin, "max_requests = 1");
    let mut first = forebay.agent().await;
    let held = tokio::spawn(async move { first.send(of_trace(1), "").await });
    soon("the first is under way", || origin.seen().len() == 1).await;
    let got = forebay.call(of_trace(2)).await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (429, "max-requests"));
    assert!(got.header("retry-after").parse::<u64>().unwrap() >= 1);
    held.abort();
}

#[tokio::test]
async fn retries_beyond_their_budget_are_told_not_to_be_tried_again() {
    let origin = Origin::echo();
    let forebay = enforced(&origin, "max_parallel = 32");
    let mut agent = forebay.agent().await;
    for n in 0..100 {
        let got = agent.call(of_trace(n).header("x-stainless-retry-count", "1"), "").await;
        if got.status == 429 {
            assert_eq!(
                (got.problem().as_str(), got.header("x-should-retry")),
                ("retry-budget", "false")
            );
            assert!(!got.headers.contains_key("retry-after"));
            return;
        }
    }
    panic!("a hundred retries and no first try are within the budget");
}

#[tokio::test]
async fn a_class_whose_calls_keep_failing_is_refused_for_a_while() {
    let origin = Origin::start(|_| async { reply(500, "no") });
    let forebay = enforced(&origin, "max_parallel = 32");
    let mut agent = forebay.agent().await;
    for n in 0..100 {
        let got = agent.call(of_trace(n), "").await;
        if got.status == 503 {
            assert_eq!(got.problem(), "class-broken");
            assert!(got.header("retry-after-ms").parse::<u64>().unwrap() >= 1);
            return;
        }
        assert_eq!((got.status.as_u16(), got.body.as_str()), (500, "no"));
    }
    panic!("a hundred failures in a row are no reason for the breaker");
}
