//! Hostile and clumsy peers: they get an answer or a close, and nobody else is harmed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Forebay, soon};
use crate::origin::{Origin, reply};

fn tool(origin: &Origin) -> Forebay {
    Forebay::start(&format!("[destinations.tool]\n{}", origin.settings()))
}

/// Sends `bytes`, and reads until the gateway closes or has nothing more to say.
async fn say(forebay: &Forebay, bytes: &[u8]) -> String {
    let mut socket = forebay.socket().await;
    socket.write_all(bytes).await.unwrap();
    hear(&mut socket).await
}

async fn hear(socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let reading = socket.read_to_end(&mut heard);
    drop(time::timeout(Duration::from_secs(2), reading).await);
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn garbage_gets_a_problem_and_harms_nobody() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let mut bystander = forebay.agent().await;
    assert_eq!(bystander.call(Request::post("/tool/"), "before").await.body, "before");
    let cases: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"hello\r\n\r\n",
        b"GET /tool/ HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\n: empty\r\n\r\n",
        b"GET /tool/ HTTP/1.1\r\nhost : localhost\r\n\r\n",
        b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
        b"POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: +3\r\n\r\nabc",
        b"POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
    ];
    for bytes in cases {
        let heard = say(&forebay, bytes).await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{bytes:?}: {heard}");
        assert!(heard.contains("urn:forebay:problem:malformed-request"), "{bytes:?}: {heard}");
    }
    assert_eq!(bystander.call(Request::post("/tool/"), "after").await.body, "after");
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_never_reaches_the_service() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let smuggled = "GET /tool/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let length = smuggled.len() + 5;
    let cases = [
        "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n",
        "POST /tool/ HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /tool/ HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n\r\n",
        "POST /tool/ HTTP/1.1\r\n\r\n",
    ];
    for bytes in cases {
        let heard = say(&forebay, bytes.as_bytes()).await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{bytes}: {heard}");
    }
    assert!(origin.seen().is_empty());
    // hyper reads a length beside chunks as chunks alone; so does the service, which is told
    // chunks alone. What follows is a call of its own, of this same agent.
    let both = format!(
        "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\
         content-length: {length}\r\n\r\n0\r\n\r\n{smuggled}"
    );
    say(&forebay, both.as_bytes()).await;
    for seen in origin.seen() {
        assert!(!seen.headers.contains_key("content-length"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_flood_of_headers_is_bounded_and_told_so() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let mut flood = b"GET /tool/ HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    for n in 0..20_000 {
        flood.extend_from_slice(format!("x-{n}: {}\r\n", "v".repeat(40)).as_bytes());
    }
    let mut socket = forebay.socket().await;
    // The gateway stops reading, so the write may fail; its answer arrives all the same.
    drop(socket.write_all(&flood).await);
    let heard = hear(&mut socket).await;
    assert!(heard.starts_with("HTTP/1.1 431 "), "{heard}");
    assert!(heard.contains("urn:forebay:problem:head-too-large"), "{heard}");
    let many = "x: y\r\n".repeat(200);
    let heard =
        say(&forebay, format!("GET /tool/ HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 431 "), "{heard}");
    let long = format!("GET /tool/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100_000));
    let heard = say(&forebay, long.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 4"), "{heard}");
    assert!(origin.seen().is_empty());
    assert_eq!(forebay.get("/tool/").await.status, 200);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop_in_both_directions() {
    let origin = Origin::start(|_| async {
        let mut answer = reply(200, "ok");
        for (name, value) in [
            ("connection", "x-inner, keep-alive"),
            ("x-inner", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("set-cookie", "a=b"),
            ("x-end", "2"),
        ] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        answer
    });
    let forebay = tool(&origin);
    let call = Request::get("/tool/")
        .header("connection", "x-outer")
        .header("x-outer", "1")
        .header("te", "trailers")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic eDp5")
        .header("x-forebay-class", "core")
        .header("x-end", "2");
    let got = forebay.call(call).await;
    let mut back: Vec<_> = got.headers.keys().map(|name| name.as_str()).collect();
    back.sort_unstable();
    assert_eq!(back, ["content-length", "date", "set-cookie", "x-end"]);
    let seen = &origin.seen()[0];
    let mut forth: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    forth.sort_unstable();
    // `te` is said anew: trailers pass.
    assert_eq!(forth, ["connection", "host", "te", "x-end"]);
    assert_eq!(seen.headers["connection"], "te");
}

#[tokio::test]
async fn a_head_answer_keeps_its_length_and_the_connection_its_use() {
    let origin = Origin::start(|call| async move {
        drop(call);
        reply(200, "twelve bytes")
    });
    let forebay = tool(&origin);
    let mut agent = forebay.agent().await;
    for _ in 0..3 {
        let got = agent.call(Request::head("/tool/"), "").await;
        assert_eq!((got.header("content-length"), got.body.as_str()), ("12", ""));
        assert_eq!(agent.call(Request::get("/tool/"), "").await.body, "twelve bytes");
    }
}

/// A service that answers its first call with `bytes`.
async fn rude(bytes: &'static [u8]) -> Forebay {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    drop(stream.write_all(bytes).await);
                }
            });
        }
    });
    Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n"))
}

#[tokio::test]
async fn a_service_that_speaks_no_http_is_a_bad_gateway() {
    let cases: [&'static [u8]; 6] = [
        b"",
        b"hello there\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ];
    for bytes in cases {
        let forebay = rude(bytes).await;
        let mut agent = forebay.agent().await;
        let got = agent.call(Request::post("/tool/"), "pay").await;
        assert_eq!(
            (got.status.as_u16(), got.problem().as_str()),
            (502, "broken-answer"),
            "{bytes:?}"
        );
        assert_eq!(got.header("x-should-retry"), "false", "it may have been carried out");
        soon("the seat is free", || forebay.snapshot().pools[0].leased == 0).await;
    }
}

#[tokio::test]
async fn what_a_service_sends_beyond_its_answer_reaches_nobody() {
    let forebay = rude(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    )
    .await;
    for _ in 0..5 {
        assert_eq!(forebay.get("/tool/").await.body, "ok");
    }
}

#[tokio::test]
async fn endless_headers_of_a_service_are_bounded() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n").await);
        while stream.write_all(b"x-more: and more\r\n").await.is_ok() {}
    });
    let text = format!("[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n");
    let forebay = Forebay::start(&text);
    assert_eq!(forebay.get("/tool/").await.status, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_hangs_up_as_it_is_called_gets_no_call_twice() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let carried_out = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&carried_out);
    tokio::spawn(async move {
        let mut number = 0_u64;
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            number += 1;
            // Closes without a word, a different while after its last answer.
            let rest = Duration::from_micros(number % 10 * 50);
            tokio::spawn(async move {
                for _ in 0..8 {
                    let mut head = [0; 4096];
                    let read = stream.read(&mut head).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&head[..read]).into_owned();
                    let Some(line) = text.lines().next() else { return };
                    kept.lock().push(line.to_owned());
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
                time::sleep(rest).await;
            });
        }
    });
    let text = format!("[destinations.tool]\nbudget = 4\nurl = \"http://{address}\"\n");
    let forebay = Arc::new(Forebay::start(&text));
    let agents: Vec<_> = (0..4)
        .map(|agent| {
            let forebay = Arc::clone(&forebay);
            tokio::spawn(async move {
                let (mut agents, mut good) = (forebay.agent().await, 0);
                for n in 0..50 {
                    let call = Request::post(format!("/tool/{agent}-{n}"));
                    let got = agents.call(call, "").await;
                    assert!(got.status == 200 || got.status == 502, "{got:?}");
                    good += usize::from(got.status == 200);
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for agent in agents {
        good += agent.await.unwrap();
    }
    let carried_out = carried_out.lock();
    let different: BTreeSet<_> = carried_out.iter().collect();
    assert_eq!(different.len(), carried_out.len(), "a call was carried out twice");
    assert!(carried_out.len() >= good);
}
