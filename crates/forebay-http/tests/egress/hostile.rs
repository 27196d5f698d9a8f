//! Services that answer in half, too early, too much, too slowly, or not in HTTP: their agents
//! get an error or what was meant, never somebody else's answer, and nothing hangs or grows.

use std::time::Duration;

use bytes::Bytes;
use forebay_seam::net::TcpStream;
use forebay_seam::time;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Forebay, Got, soon};
use crate::raw::{self, Raw};

/// A service whose connections begin with the answer to `/odd` in `parts`, each written by
/// itself, and then hang up; any other call gets its own target back.
fn odd(parts: &'static [&'static str]) -> Raw {
    Raw::start(move |mut stream, _| async move {
        while let Some(head) = raw::head(&mut stream).await {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if target != "/odd" {
                let length = target.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{target}");
                drop(stream.write_all(answer.as_bytes()).await);
                continue;
            }
            for part in parts {
                if stream.write_all(part.as_bytes()).await.is_err() {
                    return;
                }
                time::sleep(Duration::from_millis(2)).await;
            }
            return;
        }
    })
}

/// What an agent of its own hears of a call, to the end; the gateway closes behind.
async fn heard(forebay: &Forebay, target: &str) -> String {
    let mut socket = forebay.socket().await;
    let call = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(call.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let reading = time::timeout(Duration::from_secs(20), socket.read_to_end(&mut heard));
    assert!(reading.await.is_ok(), "it hangs");
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn an_odd_answer_harms_its_own_call_alone() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let cases: [(&'static [&'static str], &str); 22] = [
        (&[], "502"),
        (&["H"], "502"),
        (&["HTTP/1.1 200"], "502"),
        (&[OK], "502"),
        (&[OK, "content-length: 5\r\n"], "502"),
        (&[OK, "content-length: 5\r\n\r\n"], "cut"),
        (&[OK, "content-length: 5\r\n\r\n", "abc"], "cut"),
        (&[OK, "content-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\nevil"], "abc"),
        (&[OK, "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"], "cut"),
        (&[OK, "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"], "cut"),
        (&[OK, "transfer-encoding: chunked\r\n\r\nzz\r\nabc"], "cut"),
        (
            &[OK, "transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
            "abc",
        ),
        (&[OK, "content-length: 1\r\ncontent-length: 2\r\n\r\nab"], "502"),
        (&[OK, "content-length: -1\r\n\r\n"], "502"),
        (&[OK, "x: a\r\n b\r\ncontent-length: 0\r\n\r\n"], "502"),
        (&[OK, "x : a\r\ncontent-length: 0\r\n\r\n"], "502"),
        (&["\x15\x03\x01\x00\x02\x02\x28"], "502"),
        (&["HTTP/1.1 99 No\r\n\r\n"], "502"),
        (&["HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"], "502"),
        (
            &["HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK, "content-length: 3\r\n\r\nabc"],
            "abc",
        ),
        (
            &[
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
                OK,
                "content-length: 3\r\n\r\nabc",
            ],
            "abc",
        ),
        (&[OK, "connection: close\r\n\r\nabc"], "abc"),
    ];
    for (parts, expected) in cases {
        let service = odd(parts);
        let forebay = service.gateway("budget = 1\n");
        assert!(heard(&forebay, "/tool/before").await.ends_with("\r\n\r\n/before"));
        let odd = heard(&forebay, "/tool/odd").await;
        assert!(!odd.contains("evil") && !odd.contains("Early"), "{parts:?}: {odd}");
        match expected {
            "502" => assert!(odd.starts_with("HTTP/1.1 502 "), "{parts:?}: {odd}"),
            "cut" => {
                let is_whole = odd.ends_with("0\r\n\r\n") || odd.contains("content-length: 3");
                assert!(!is_whole, "{parts:?}: {odd}");
            }
            body => assert!(odd.starts_with(OK) && odd.contains(body), "{parts:?}: {odd}"),
        }
        let after = heard(&forebay, "/tool/after").await;
        assert!(after.ends_with("\r\n\r\n/after"), "{parts:?}: {after}");
        soon("nothing is held", || forebay.snapshot().pools[0].leased == 0).await;
    }
}

/// A service that writes `begun` after the head of a call, and then `more` for ever.
fn endless(begun: &'static str, more: &'static str) -> Raw {
    Raw::start(move |mut stream: TcpStream, _| async move {
        raw::head(&mut stream).await;
        drop(stream.write_all(begun.as_bytes()).await);
        let more = more.repeat(200);
        while stream.write_all(more.as_bytes()).await.is_ok() {}
    })
}

#[tokio::test]
async fn what_never_ends_is_bounded_in_room_and_time() {
    for (begun, more) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n"),
        ("HTTP/1.1 200 OK\r\nx-long: ", "and more "),
        ("HTTP/1.1 200 ", "and more "),
        ("", "\r\n"),
    ] {
        let service = endless(begun, more);
        let forebay = service.gateway("first_byte_timeout = \"500ms\"\n");
        let answer = heard(&forebay, "/tool/").await;
        let is_error = answer.starts_with("HTTP/1.1 502 ") || answer.starts_with("HTTP/1.1 504 ");
        assert!(is_error, "{begun:?} {more:?}: {answer}");
        soon("nothing is held", || forebay.snapshot().pools[0].leased == 0).await;
    }
}

/// Who answers an upload before it has read it, and how it hangs up.
#[derive(Clone, Copy, Debug)]
enum Hurry {
    /// At once: the rest of the upload meets a reset.
    AtOnce,
    /// A moment later.
    Later,
}

#[tokio::test]
async fn an_early_answer_is_heard_although_the_upload_breaks() {
    let body = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
    for hurry in [Hurry::AtOnce, Hurry::Later] {
        let service = Raw::start(move |mut stream, _| async move {
            let mut space = [0; 64];
            drop(stream.read(&mut space).await);
            let no = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!";
            drop(stream.write_all(no).await);
            if let Hurry::Later = hurry {
                time::sleep(Duration::from_millis(10)).await;
            }
        });
        let forebay = service.gateway("");
        for turn in 0..25 {
            for framing in ["content-length", "chunked"] {
                let whole = Full::new(body.clone());
                let body = match framing {
                    "chunked" => whole.with_trailers(std::future::ready(None)).boxed(),
                    _ => whole.boxed(),
                };
                let mut agent = forebay.agent().await;
                let answer = agent.send_body(Request::post("/tool/"), body).await;
                let got = Got::read(answer).await;
                assert_eq!(
                    (got.status.as_u16(), &*got.body),
                    (413, "no!"),
                    "{hurry:?} {framing} {turn}: {got:?}"
                );
            }
        }
        soon("nothing is held", || forebay.snapshot().pools[0].leased == 0).await;
    }
}

#[tokio::test]
async fn slow_bytes_are_an_answer_as_long_as_they_come() {
    let service = Raw::start(|mut stream, _| async move {
        raw::head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for byte in answer {
            drop(stream.write_all(&[*byte]).await);
            time::sleep(Duration::from_millis(3)).await;
        }
    });
    let forebay = service.gateway("");
    assert_eq!(forebay.get("/tool/").await.body, "hello");
}

#[tokio::test]
async fn a_service_that_speaks_no_tls_where_it_should_is_unreachable() {
    for garbage in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x01\0\x02\x02\x28", "\0\0\0\0", ""]
    {
        let service = Raw::start(move |mut stream, _| async move {
            drop(stream.write_all(garbage.as_bytes()).await);
            let mut space = [0; 512];
            drop(stream.read(&mut space).await);
        });
        let address = service.address;
        let forebay = Forebay::start(&format!(
            "[destinations.tool]\nwarm_up = 0\ncheckout_timeout = \"2s\"\nurl = \"https://{address}\"\n"
        ));
        let got = forebay.get("/tool/").await;
        assert_eq!(
            (got.status.as_u16(), got.problem().as_str()),
            (502, "unreachable"),
            "{garbage:?}"
        );
    }
}
