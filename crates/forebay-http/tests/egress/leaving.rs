//! Agents that leave, half leave, or stay and do not listen.

use std::time::Duration;

use bytes::Bytes;
use forebay_seam::net::TcpStream;
use forebay_seam::time;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::bench::{Forebay, soon};
use crate::origin::{Origin, frames, reply};

const CALL: &[u8] = b"GET /tool/think HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A service that answers when it is told to.
fn thinker() -> (Origin, watch::Sender<bool>) {
    let (tell, told) = watch::channel(false);
    let origin = Origin::start(move |_| {
        let mut told = told.clone();
        async move {
            drop(told.wait_for(|told| *told).await);
            reply(200, "thought")
        }
    });
    (origin, tell)
}

fn tool(origin: &Origin, extra: &str) -> Forebay {
    Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{}{extra}", origin.settings()))
}

async fn asking(forebay: &Forebay, origin: &Origin, call: &[u8]) -> TcpStream {
    let mut socket = forebay.socket().await;
    socket.write_all(call).await.unwrap();
    soon("the service thinks", || origin.seen().len() == 1).await;
    socket
}

#[tokio::test]
async fn an_agent_that_has_said_all_may_close_its_half_and_wait() {
    for call in [CALL, b"GET /tool/think HTTP/1.0\r\n\r\n"] {
        let (origin, tell) = thinker();
        let forebay = tool(&origin, "");
        let mut socket = asking(&forebay, &origin, call).await;
        socket.shutdown().await.unwrap();
        time::sleep(Duration::from_millis(50)).await;
        assert_eq!(forebay.snapshot().pools[0].leased, 1, "the call goes on");
        tell.send(true).unwrap();
        let mut heard = String::new();
        let reading = time::timeout(Duration::from_secs(20), socket.read_to_string(&mut heard));
        reading.await.unwrap().unwrap();
        assert!(heard.ends_with("thought"), "{heard}");
        let asked = heard.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n");
        assert_eq!(asked, call == CALL, "HTTP/1.0 knows no interim answers: {heard}");
        soon("it is gone", || forebay.snapshot().clients == 0).await;
    }
}

#[tokio::test]
async fn an_agent_that_is_gone_is_told_from_one_that_waits() {
    let (origin, tell) = thinker();
    let forebay = tool(&origin, "");
    let mut socket = asking(&forebay, &origin, CALL).await;
    // First the one, then the other.
    socket.shutdown().await.unwrap();
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!(forebay.snapshot().pools[0].leased, 1);
    drop(socket);
    // Nothing is sent that could find out now, but in a second it would be noticed.
    let socket = asking_again(&forebay, &origin).await;
    drop(socket);
    soon("the second is given up at once", || origin.open() <= 1).await;
    tell.send(true).unwrap();
    soon("nothing is left", || {
        let snapshot = forebay.snapshot();
        snapshot.pools[0].leased == 0 && snapshot.clients == 0
    })
    .await;
}

async fn asking_again(forebay: &Forebay, origin: &Origin) -> TcpStream {
    let mut socket = forebay.socket().await;
    socket.write_all(CALL).await.unwrap();
    soon("the service thinks twice", || origin.seen().len() == 2).await;
    socket
}

#[tokio::test]
async fn a_stream_that_is_reset_frees_the_upstream_and_no_other_call() {
    let (origin, tell) = thinker();
    let forebay = tool(&origin, "");
    let mut agent = forebay.agent2().await;
    let ask = |agent: &mut crate::bench::Agent2| {
        let call = Request::get("http://localhost/tool/").body(Empty::new().boxed()).unwrap();
        agent.sender.send_request(call)
    };
    agent.sender.ready().await.unwrap();
    let first = ask(&mut agent);
    agent.sender.ready().await.unwrap();
    let second = ask(&mut agent);
    let (first, second) = (tokio::spawn(first), tokio::spawn(second));
    soon("both are there", || origin.seen().len() == 2).await;
    first.abort();
    soon("one is freed", || origin.open() == 1).await;
    assert_eq!(forebay.snapshot().pools[0].leased, 1);
    tell.send(true).unwrap();
    let answer = second.await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "thought");
    assert_eq!(forebay.snapshot().destinations[0].abandoned, 1);
}

#[tokio::test]
async fn an_agent_that_does_not_take_its_answer_is_given_up() {
    let origin = Origin::start(|_| {
        let (piece, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            while piece.send(Bytes::from_static(&[0; 64 * 1024])).await.is_ok() {}
        });
        async move { Response::new(frames(pieces)) }
    });
    let forebay = tool(&origin, "chunk_timeout = \"300ms\"\n");
    // Over HTTP/2 the window is closed after 64 KiB, and the socket is as alive as can be.
    let mut agent = forebay.agent2().await;
    let call = Request::get("http://localhost/tool/");
    let answer = agent.send(call, Empty::new().boxed()).await;
    soon("the service is freed", || origin.open() == 0 && forebay.snapshot().pools[0].leased == 0)
        .await;
    assert!(answer.into_body().collect().await.is_err(), "it can tell that it is not whole");
    assert_eq!(forebay.snapshot().destinations[0].cut_short, 1);
    let mut socket = forebay.socket().await;
    socket.write_all(CALL).await.unwrap();
    soon("the next one begins", || forebay.snapshot().pools[0].leased == 1).await;
    soon("it is freed, too", || forebay.snapshot().pools[0].leased == 0).await;
}

#[tokio::test]
async fn a_call_that_takes_too_long_in_all_is_over_unless_it_streams() {
    let origin = Origin::start(|call| async move {
        if call.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        let (piece, pieces) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..40 {
                time::sleep(Duration::from_millis(20)).await;
                if piece.send(Bytes::from_static(b"data: x\n\n")).await.is_err() {
                    return;
                }
            }
        });
        let mut answer = Response::new(frames(pieces));
        if call.uri().path() == "/events" {
            let content = "text/event-stream; charset=utf-8".parse().unwrap();
            answer.headers_mut().insert("content-type", content);
        }
        answer
    });
    let forebay = tool(&origin, "total_timeout = \"300ms\"\n");
    let silent = forebay.get("/tool/silent").await;
    assert_eq!((silent.status.as_u16(), silent.problem().as_str()), (504, "total-timeout"));
    let mut agent = forebay.agent().await;
    let slow = agent.send(Request::get("/tool/slow"), "").await;
    assert!(slow.into_body().collect().await.is_err());
    let events = forebay.get("/tool/events").await;
    assert_eq!(events.body.len(), 40 * 9);
}

#[tokio::test]
async fn an_agent_that_rests_or_stops_in_a_head_is_let_go() {
    const HALF: &[u8] = b"GET /tool/think HTTP/1.1\r\nhost: loc";
    let (origin, tell) = thinker();
    tell.send(true).unwrap();
    let forebay = tool(&origin, "");
    let mut sockets = Vec::new();
    for words in [CALL, HALF, &[CALL, HALF].concat()] {
        let mut socket = forebay.socket().await;
        socket.write_all(words).await.unwrap();
        let mut heard = vec![0; 1024];
        while words.starts_with(CALL) && !heard.windows(7).any(|part| part == b"thought") {
            let read = socket.read(&mut heard).await.unwrap();
            assert!(read > 0, "it was answered");
        }
        sockets.push(socket);
    }
    assert_eq!(forebay.snapshot().clients, 3);
    // From here on the clock goes as fast as everybody waits.
    tokio::time::pause();
    for mut socket in sockets {
        let mut rest = Vec::new();
        let reading = time::timeout(Duration::from_secs(3_600), socket.read_to_end(&mut rest));
        drop(reading.await.expect("it is let go"));
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}
