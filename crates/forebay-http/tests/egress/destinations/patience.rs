//! How long connections rest: what a service says of it, and what it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forebay_seam::net;
use forebay_seam::time;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::service::{Service, Speaks};
use crate::bench::{Forebay, soon};
use crate::origin::{Origin, reply};
use crate::raw;

fn closed(forebay: &Forebay, why: &str) -> u64 {
    let connections = forebay.snapshot().connections.remove(0);
    connections.closed.iter().filter(|(code, _)| *code == why).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn a_connection_is_not_used_for_longer_than_the_service_says() {
    let service = Service::start(Speaks::Http1, |_| async {
        let mut reply = reply(200, "");
        reply.headers_mut().insert("keep-alive", "timeout=1".parse().unwrap());
        reply
    });
    let settings = service.settings();
    let forebay = Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{settings}"));
    let got = forebay.get("/tool/").await;
    assert!(!got.headers.contains_key("keep-alive"), "that is between the service and us");
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(service.opened(), 1);
    assert_eq!(forebay.snapshot().connections[0].idle_learnt, Some(1.0));
    soon("the connection is given up", || service.open() == 0).await;
    assert_eq!(closed(&forebay, "stale"), 1);
    assert_eq!(forebay.get("/tool/").await.status, 200);
    assert_eq!(service.opened(), 2);
}

/// A service that closes a connection that has rested for `patience`, and counts calls.
fn impatient(patience: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let (address, served) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                // Each call comes in one piece.
                while let Ok(Ok(1..)) = time::timeout(patience, stream.read(&mut buffer)).await {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, served)
}

#[tokio::test]
async fn what_a_service_does_is_learnt_and_posts_survive_it() {
    const PATIENCE: Duration = Duration::from_millis(120);
    let (address, served) = impatient(PATIENCE);
    let forebay =
        Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n"));
    let mut agent = forebay.agent().await;
    let learnt = || forebay.snapshot().connections[0].idle_learnt;
    let (mut sent, mut answered) = (0, 0);
    while sent < 8 || learnt().is_none() || closed(&forebay, "stale") == 0 {
        assert!(sent < 100, "{:?}", forebay.snapshot().connections);
        let knew = learnt().is_some();
        let got = agent.call(Request::post("/tool/"), "{}").await;
        match got.status.as_u16() {
            200 => answered += 1,
            // Before anything is known, one may meet the close on the wire.
            status => assert_eq!((status, knew), (502, false), "{got:?}"),
        }
        // The worst moment: just as the service closes.
        time::sleep(PATIENCE - Duration::from_millis(2) + Duration::from_millis(sent % 4)).await;
        sent += 1;
    }
    let served = u64::try_from(served.load(Ordering::SeqCst)).unwrap();
    assert!((answered..=sent).contains(&served), "none was carried out twice");
}

#[tokio::test]
async fn a_connection_serves_as_many_calls_as_it_may() {
    for speaks in [Speaks::Http1, Speaks::Http2(10)] {
        let service = Service::start(speaks, |_| async { reply(200, "") });
        let settings = service.settings();
        let forebay = Forebay::start(&format!(
            "[destinations.tool]\nwarm_up = 0\nconnections.max_calls = 3\n{settings}"
        ));
        for _ in 0..9 {
            assert_eq!(forebay.get("/tool/").await.status, 200);
        }
        assert_eq!(service.calls(), [0, 0, 0, 1, 1, 1, 2, 2, 2], "{speaks:?}");
    }
}

#[tokio::test]
async fn uploads_that_agents_break_teach_nothing_about_the_service() {
    let origin = Origin::echo();
    let settings = origin.settings();
    let forebay = Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\n{settings}"));
    let begun = b"POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
                  5\r\nhello\r\n";
    for (n, breaks) in [(0, "no chunk\r\n"), (1, "")] {
        assert_eq!(forebay.get("/tool/").await.status, 200);
        // So long that a close would tell what the service allows.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        let mut socket = forebay.socket().await;
        socket.write_all(begun).await.unwrap();
        soon("it has begun", || origin.seen().len() == 2 * (n + 1)).await;
        if !breaks.is_empty() {
            socket.write_all(breaks.as_bytes()).await.unwrap();
            let answer = raw::head(&mut socket).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        drop(socket);
        soon("it is over", || forebay.snapshot().pools[0].leased == 0).await;
        assert_eq!(forebay.snapshot().connections[0].idle_learnt, None);
        assert_eq!(origin.opened(), n + 1);
    }
}
