//! How often a call is carried out whose connection breaks: at most once, unless twice does no
//! harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_seam::random::Dice;
use forebay_seam::sync::Mutex;
use http::Request;
use tokio::io::AsyncWriteExt;

use crate::bench::Forebay;
use crate::raw::{self, Raw};

/// A service that carries out what it hears, by its target, and then hangs up without a word:
/// the first so many times.
fn dropping(times: usize) -> (Raw, Arc<Mutex<HashMap<String, usize>>>) {
    let carried_out = Arc::<Mutex<HashMap<String, usize>>>::default();
    let (kept, left) = (Arc::clone(&carried_out), Arc::new(AtomicUsize::new(times)));
    let raw = Raw::start(move |mut stream, _| {
        let (kept, left) = (Arc::clone(&kept), Arc::clone(&left));
        async move {
            while let Some(head) = raw::head(&mut stream).await {
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                *kept.lock().entry(target).or_default() += 1;
                let drops = left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if drops.is_ok() {
                    return;
                }
                let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(ok).await.is_err() {
                    return;
                }
            }
        }
    });
    (raw, carried_out)
}

async fn status(forebay: &Forebay, call: http::request::Builder, body: &str) -> u16 {
    forebay.agent().await.call(call, body).await.status.as_u16()
}

#[tokio::test]
async fn what_is_sent_twice_is_what_the_policy_allows() {
    let key = ("idempotency-key", "7f3a");
    for (policy, method, key, expected) in [
        ("", "GET", None, 200),
        ("", "PUT", None, 200),
        ("", "POST", None, 502),
        ("", "POST", Some(key), 502),
        ("retry = \"unsent\"\n", "GET", None, 502),
        ("retry = \"idempotency-key\"\n", "POST", None, 502),
        ("retry = \"idempotency-key\"\n", "POST", Some(key), 200),
        ("retry = \"idempotency-key\"\n", "GET", None, 200),
    ] {
        let (service, carried_out) = dropping(1);
        let forebay = service.gateway(policy);
        let mut call = Request::builder().method(method).uri("/tool/x");
        if let Some((name, value)) = key {
            call = call.header(name, value);
        }
        let body = if method == "GET" { "" } else { "the body" };
        assert_eq!(status(&forebay, call, body).await, expected, "{policy}{method}");
        let times = if expected == 200 { 2 } else { 1 };
        assert_eq!(carried_out.lock()["/x"], times, "{policy}{method}");
    }
}

#[tokio::test]
async fn a_call_is_sent_twice_at_the_most_and_a_long_body_once() {
    let (service, carried_out) = dropping(5);
    let forebay = service.gateway("");
    assert_eq!(status(&forebay, Request::get("/tool/a"), "").await, 502);
    assert_eq!(carried_out.lock()["/a"], 2);
    let long = "x".repeat(100_000);
    assert_eq!(status(&forebay, Request::put("/tool/b"), &long).await, 502);
    assert_eq!(carried_out.lock()["/b"], 1);
}

#[tokio::test]
async fn the_second_sending_is_the_same_call() {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&heard);
    let service = Raw::start(move |mut stream, number| {
        let kept = Arc::clone(&kept);
        async move {
            let mut text = raw::head(&mut stream).await.unwrap_or_default();
            while !text.contains("tail") {
                let more = raw::some(&mut stream).await;
                assert!(!more.is_empty(), "{text}");
                text += &more;
            }
            kept.lock().push(text);
            if number > 0 {
                let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                drop(stream.write_all(ok).await);
            }
        }
    });
    let forebay = service.gateway("retry = \"idempotency-key\"\n");
    let call = Request::post("/tool/x").header("idempotency-key", "1");
    assert_eq!(status(&forebay, call, "head and tail").await, 200);
    let heard = heard.lock();
    assert_eq!((heard.len(), &heard[0]), (2, &heard[1]));
    assert!(heard[0].contains("content-length: 13"), "{}", heard[0]);
    assert_eq!(forebay.snapshot().destinations[0].resent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_through_a_service_that_drops_connections_at_random_run_at_most_once() {
    let carried_out = Arc::<Mutex<HashMap<String, usize>>>::default();
    let (kept, dice) = (Arc::clone(&carried_out), Arc::new(Mutex::new(Dice::new(11))));
    let service = Raw::start(move |mut stream, _| {
        let (kept, dice) = (Arc::clone(&kept), Arc::clone(&dice));
        async move {
            loop {
                // Before, in the middle of, or after any call.
                let fate = dice.lock().between(0.0..1.0);
                if fate < 0.1 {
                    return;
                }
                let Some(head) = raw::head(&mut stream).await else { return };
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                *kept.lock().entry(target).or_default() += 1;
                let answer: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let part = match fate {
                    ..0.15 => 0,
                    ..0.2 => 20,
                    ..0.25 => answer.len() - 1,
                    _ => answer.len(),
                };
                if stream.write_all(&answer[..part]).await.is_err() || part < answer.len() {
                    return;
                }
            }
        }
    });
    let forebay = Arc::new(service.gateway("budget = 8\n"));
    let agents: Vec<_> = (0..8)
        .map(|agent| {
            let forebay = Arc::clone(&forebay);
            tokio::spawn(async move {
                let mut good = Vec::new();
                for n in 0..60 {
                    let target = format!("/{agent}-{n}");
                    let mut agent = forebay.agent().await;
                    let call = Request::post(format!("/tool{target}"));
                    // An answer that breaks off may not even begin for the agent.
                    if agent.is_answered(call, "pay").await {
                        good.push(target);
                    }
                }
                good
            })
        })
        .collect();
    let mut good = Vec::new();
    for agent in agents {
        good.extend(agent.await.unwrap());
    }
    let carried_out = carried_out.lock();
    assert!(carried_out.values().all(|times| *times == 1), "{carried_out:?}");
    assert!(good.iter().all(|target| carried_out.contains_key(target)));
    assert!(good.len() > 300, "{}", good.len());
}
