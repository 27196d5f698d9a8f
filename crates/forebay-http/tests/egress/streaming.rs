//! Bytes on their way, and what happens when one side stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_seam::random::Dice;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::bench::{Forebay, frame, soon};
use crate::origin::{Origin, frames, reply};

fn tool(origin: &Origin, extra: &str) -> Forebay {
    Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{}{extra}", origin.settings()))
}

/// A service that streams what the test sends.
fn teller() -> (Origin, mpsc::Sender<Bytes>) {
    let (tell, told) = mpsc::channel(1);
    let told = Arc::new(Mutex::new(Some(told)));
    let origin = Origin::start(move |_| {
        let told = told.lock().take();
        async move { told.map_or_else(|| reply(200, "again"), |told| Response::new(frames(told))) }
    });
    (origin, tell)
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_sent() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    for n in 0..5 {
        let event = format!("data: {n}\n\n");
        tell.send(Bytes::from(event.clone())).await.unwrap();
        assert_eq!(frame(&mut events).await.as_deref(), Some(event.as_str()));
    }
    drop(tell);
    assert_eq!(frame(&mut events).await, None);
    assert_eq!(agent.call(Request::get("/tool/"), "").await.body, "again");
    assert_eq!(origin.opened(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream_at_once() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "budget = 1\n");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    tell.send(Bytes::from_static(b"data: 0\n\n")).await.unwrap();
    assert!(frame(&mut events).await.is_some());
    assert_eq!((forebay.snapshot().pools[0].leased, origin.open()), (1, 1));
    drop((agent, events));
    soon("the service sees the close", || origin.open() == 0).await;
    soon("the seat is free", || forebay.snapshot().pools[0].leased == 0).await;
    assert_eq!(forebay.get("/tool/").await.body, "again");
    let calls = &forebay.snapshot().destinations[0];
    assert_eq!((calls.abandoned, calls.cut_short), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_frees_the_upstream_at_once() {
    let origin = Origin::start(|call| async move {
        if call.uri().path() == "/think" {
            std::future::pending::<()>().await;
        }
        reply(200, "done")
    });
    let forebay = tool(&origin, "budget = 1\n");
    let mut agent = forebay.agent().await;
    let thinking = tokio::spawn(async move { agent.send(Request::get("/tool/think"), "").await });
    soon("the service thinks", || origin.seen().len() == 1).await;
    thinking.abort();
    soon("the service sees the close", || origin.open() == 0).await;
    assert_eq!(forebay.get("/tool/").await.body, "done");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_takes_no_connection() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "budget = 1\n");
    let mut first = forebay.agent().await;
    let mut events = first.send(Request::get("/tool/events"), "").await.into_body();
    let mut second = forebay.agent().await;
    let waiting = tokio::spawn(async move { second.send(Request::get("/tool/never"), "").await });
    soon("one waits", || forebay.snapshot().pools[0].classes[0].waiting == 1).await;
    waiting.abort();
    soon("nobody waits", || forebay.snapshot().pools[0].classes[0].waiting == 0).await;
    drop(tell);
    assert_eq!(frame(&mut events).await, None);
    assert_eq!(forebay.get("/tool/").await.body, "again");
    assert!(origin.seen().iter().all(|call| call.target != "/never"));
}

#[tokio::test]
async fn an_early_answer_is_delivered_and_its_connection_is_not_used_again() {
    let origin = Origin::start(|call| async move {
        // The body is left unread: the answer comes before its end.
        let status = if call.method() == "POST" { 413 } else { 200 };
        reply(status, "early")
    });
    let forebay = tool(&origin, "budget = 1\n");
    let mut agent = forebay.agent().await;
    let (piece, pieces) = mpsc::channel::<Bytes>(1);
    piece.send(Bytes::from_static(b"first")).await.unwrap();
    let answer = agent.send_body(Request::post("/tool/upload"), frames(pieces)).await;
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "early");
    // The second tenant of the seat gets a connection on which nothing is left over.
    assert_eq!(forebay.get("/tool/").await.status, 200);
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].connection, seen[1].connection);
    drop(piece);
}

#[tokio::test]
async fn a_body_of_unknown_length_streams_through_in_both_directions() {
    let origin = Origin::start(|call| async move {
        let (piece, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut body = call.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                piece.send(frame.into_data().unwrap()).await.unwrap();
            }
        });
        Response::new(frames(pieces))
    });
    let forebay = tool(&origin, "");
    for method in ["POST", "GET"] {
        let mut agent = forebay.agent().await;
        let (piece, pieces) = mpsc::channel::<Bytes>(1);
        let request = Request::builder()
            .method(method)
            .uri("/tool/echo")
            .header("transfer-encoding", "chunked");
        let mut echo = agent.send_body(request, frames(pieces)).await.into_body();
        for n in 0..3 {
            piece.send(Bytes::from(format!("piece {n}"))).await.unwrap();
            assert_eq!(frame(&mut echo).await, Some(format!("piece {n}")));
        }
        drop(piece);
        assert_eq!(frame(&mut echo).await, None);
    }
    assert_eq!(origin.opened(), 1);
}

#[tokio::test]
async fn a_large_body_passes_whole_and_is_not_stored() {
    let origin = Origin::echo();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent().await;
    let body = "0123456789abcdef".repeat(512 * 1024);
    let got = agent.call(Request::post("/tool/echo"), &body).await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, body.len()));
    assert!(got.body == body);
}

#[tokio::test]
async fn a_service_that_does_not_begin_to_answer_is_given_up() {
    let origin = Origin::start(|_| std::future::pending());
    let forebay = tool(&origin, "first_byte_timeout = \"100ms\"");
    let got = forebay.get("/tool/").await;
    assert_eq!((got.status.as_u16(), got.problem().as_str()), (504, "first-byte-timeout"));
    assert_eq!(got.header("x-should-retry"), "false");
    soon("the service sees the close", || origin.open() == 0).await;
}

#[tokio::test]
async fn an_answer_that_pauses_too_long_is_cut_short() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "chunk_timeout = \"100ms\"");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    tell.send(Bytes::from_static(b"data: 0\n\n")).await.unwrap();
    assert!(frame(&mut events).await.is_some());
    let end = time::timeout(Duration::from_secs(20), events.frame()).await.unwrap();
    assert!(end.unwrap().is_err(), "the agent can tell that the answer is not whole");
    soon("the service sees the close", || origin.open() == 0).await;
    assert_eq!(forebay.snapshot().destinations[0].cut_short, 1);
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up() {
    let origin = Origin::echo();
    let forebay = tool(&origin, "chunk_timeout = \"100ms\"");
    let mut agent = forebay.agent().await;
    let (piece, pieces) = mpsc::channel::<Bytes>(1);
    piece.send(Bytes::from_static(b"begun")).await.unwrap();
    let answer = agent.send_body(Request::post("/tool/"), frames(pieces)).await;
    assert_eq!(answer.status(), 408);
    soon("the service sees the close", || origin.open() == 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_agent() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    tell.send(Bytes::from_static(b"data: 0\n\n")).await.unwrap();
    assert!(frame(&mut events).await.is_some());
    origin.cut();
    let end = time::timeout(Duration::from_secs(20), events.frame()).await.unwrap();
    assert!(end.unwrap().is_err());
    soon("it is counted", || forebay.snapshot().destinations[0].cut_short == 1).await;
}

#[tokio::test]
async fn a_drain_lets_answers_end_and_takes_no_new_calls() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    forebay.stopper.stop();
    let (gateway, address) = (forebay.gateway, forebay.address);
    let drained = tokio::spawn(async move {
        gateway.drain(time::now() + Duration::from_secs(30)).await;
    });
    tell.send(Bytes::from_static(b"last words")).await.unwrap();
    assert_eq!(frame(&mut events).await.as_deref(), Some("last words"));
    assert!(!drained.is_finished());
    drop(tell);
    assert_eq!(frame(&mut events).await, None);
    time::timeout(Duration::from_secs(20), drained).await.unwrap().unwrap();
    assert!(forebay_seam::net::connect(&[address]).await.is_err());
    soon("connections are closed", || origin.open() == 0).await;
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent().await;
    let mut events = agent.send(Request::get("/tool/events"), "").await.into_body();
    forebay.stopper.stop();
    forebay.gateway.drain(time::now() + Duration::from_millis(100)).await;
    assert!(events.frame().await.unwrap().is_err());
    soon("connections are closed", || origin.open() == 0).await;
    drop(tell);
}

#[tokio::test]
async fn a_large_body_is_asked_for_only_when_there_is_a_connection_to_take_it() {
    let (origin, tell) = teller();
    let forebay = tool(&origin, "budget = 1\n");
    let mut first = forebay.agent().await;
    let mut events = first.send(Request::get("/tool/events"), "").await.into_body();
    let mut socket = forebay.socket().await;
    let head = "POST /tool/ HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                content-length: 3\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    soon("it waits", || forebay.snapshot().pools[0].classes[0].waiting == 1).await;
    let mut heard = [0; 64];
    assert!(socket.try_read(&mut heard).is_err(), "nothing was said yet");
    drop(tell);
    assert_eq!(frame(&mut events).await, None);
    let read = socket.read(&mut heard).await.unwrap();
    assert!(heard[..read].starts_with(b"HTTP/1.1 100 Continue\r\n"));
    socket.write_all(b"abc").await.unwrap();
    let read = socket.read(&mut heard).await.unwrap();
    assert!(heard[..read].starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let origin = Origin::start(|call| async move {
        let (piece, pieces) = mpsc::channel(1);
        let body = call.into_body().collect().await;
        tokio::spawn(async move {
            for n in 0..5_u64 {
                time::sleep(Duration::from_micros(n * 300)).await;
                if piece.send(Bytes::from_static(b"piece")).await.is_err() {
                    return;
                }
            }
            drop(body);
        });
        Response::new(frames(pieces))
    });
    let forebay = Arc::new(tool(&origin, "budget = 4\nclasses.ai-read = {}\n"));
    let mut dice = Dice::new(7);
    for _ in 0..20 {
        let leave = Vec::from_iter((0..10).map(|_| dice.between(0.0..0.03)));
        let agents: Vec<_> = leave
            .into_iter()
            .map(|leave| {
                let forebay = Arc::clone(&forebay);
                tokio::spawn(async move {
                    let mut agent = forebay.agent().await;
                    let call = agent.call(Request::post("/tool/"), "body");
                    drop(time::timeout(Duration::from_secs_f64(leave), call).await);
                })
            })
            .collect();
        for agent in agents {
            agent.await.unwrap();
        }
    }
    soon("nothing is left", || {
        let (snapshot, pool) = (forebay.snapshot(), &forebay.snapshot().pools[0]);
        let left = pool.leased + pool.cleaning + pool.classes[0].waiting;
        left == 0 && snapshot.clients == 0 && snapshot.destinations[0].in_flight == 0
    })
    .await;
    let calls = &forebay.snapshot().destinations[0];
    let refused: u64 = calls.refusals.iter().map(|r| r.count).sum();
    assert!(calls.abandoned > 0 && calls.answers.success > 0, "{calls:?}");
    assert!(calls.abandoned + calls.answers.success + refused >= calls.duration.count);
    assert_eq!(forebay.get("/tool/").await.body, "piece".repeat(5));
}

#[tokio::test]
async fn an_agent_that_does_not_read_slows_the_service_down_and_fills_no_memory() {
    const CHUNK: usize = 64 * 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::start(move |_| {
        let (piece, pieces) = mpsc::channel(1);
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            while piece.send(Bytes::from_static(&[0; CHUNK])).await.is_ok() {
                count.fetch_add(CHUNK, Ordering::SeqCst);
            }
        });
        async move { Response::new(frames(pieces)) }
    });
    let forebay = tool(&origin, "");
    let mut socket = forebay.socket().await;
    socket.write_all(b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) || before == 0 {
        before = sent.load(Ordering::SeqCst);
        time::sleep(Duration::from_millis(200)).await;
    }
    // What is out is in the kernel's buffers of four sockets.
    assert!(before < 32 * 1024 * 1024, "{before} bytes were taken from the service");
    drop(socket);
    soon("the service sees the close", || origin.open() == 0).await;
}
