//! Requests with more than one reading, before a service that prints its bytes: none of them
//! causes a call that nobody made, or a field that nobody sent.

use std::time::Duration;

use forebay_seam::time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::Forebay;
use crate::raw::Raw;

/// What must not be seen as a call of its own.
const HIDDEN: &str = "GET /tool/hidden HTTP/1.1\r\nhost: localhost\r\nx-stray: 1\r\n\r\n";

/// Heads, or beginnings of them, in which something is wrong; what follows is hidden behind.
const WRONG: [&str; 62] = [
    // Two lengths, or a length and chunks.
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\ncontent-length: 69\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0, 69\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0 0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: +0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0x0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: \r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 18446744073709551616\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0;\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length : 0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent_length: 69\r\ncontent-length: x\r\n\r\n",
    // Codings other than one `chunked`.
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    // Chunks that are none.
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n-0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0;x=\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nG\r\n\r\n",
    "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1 \r\na\r\n0\n\r\n",
    // Line ends that are none, folded lines, names that are none.
    "GET /tool/ HTTP/1.1\nhost: localhost\n\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx: a\rb: c\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx: a\n\nGET /tool/x HTTP/1.1\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\n x: a\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\n host: localhost\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\n: a\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx : a\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx\t: a\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx(y): a\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
    // Hosts.
    "GET /tool/ HTTP/1.1\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\n\r\n",
    "GET http://evil.test/tool/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "GET http://localhost@evil.test/tool/ HTTP/1.1\r\nhost: localhost@evil.test\r\n\r\n",
    // Request lines.
    "GET /tool/ HTTP/1.1 \r\nhost: localhost\r\n\r\n",
    "GET /tool/ x HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "GET /tool/\r\nhost: localhost\r\n\r\n",
    "GET /tool/ HTTP/2.0\r\nhost: localhost\r\n\r\n",
    "GET /tool/ HTTP/1.2\r\nhost: localhost\r\n\r\n",
    "GET /tool/ http/1.1\r\nhost: localhost\r\n\r\n",
    "G\0T /tool/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "GET /tool/\x01 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    // A wish with a body.
    "GET /tool/ HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n",
];

/// Sends `text`, and gives the status of each answer until there is no more.
async fn statuses(forebay: &Forebay, text: &str) -> Vec<String> {
    let mut socket = forebay.socket().await;
    drop(socket.write_all(text.as_bytes()).await);
    drop(socket.shutdown().await);
    let mut heard = Vec::new();
    drop(time::timeout(Duration::from_secs(20), socket.read_to_end(&mut heard)).await);
    let heard = String::from_utf8_lossy(&heard).into_owned();
    let answers = heard.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned());
    // Not what was said to find out whether anybody is there, nor what a problem says.
    let is_final = |status: &String| status != "100" && status.parse::<u16>().is_ok();
    answers.filter(is_final).collect()
}

#[tokio::test]
async fn what_has_two_readings_causes_no_call_that_nobody_made() {
    let service = Raw::printing();
    let forebay = service.gateway("");
    for wrong in WRONG {
        service.forget();
        let statuses = statuses(&forebay, &format!("{wrong}{HIDDEN}")).await;
        let heard = service.heard();
        assert!(!heard.contains("hidden") && !heard.contains("x-stray"), "{wrong:?}: {heard}");
        assert!(heard.matches(" HTTP/1.").count() <= 1, "{wrong:?}: {heard}");
        assert!(statuses.len() <= 1, "{wrong:?}: {statuses:?}");
        if heard.is_empty() {
            assert!(statuses.iter().all(|status| status.starts_with('4')), "{wrong:?}");
        }
    }
    // And everybody else is served.
    service.forget();
    assert_eq!(forebay.get("/tool/").await.body, "ok");
    assert_eq!(service.heard().matches(" HTTP/1.").count(), 1);
}

#[tokio::test]
async fn calls_that_follow_each_other_at_once_are_each_answered_as_they_came() {
    let service = Raw::printing();
    let forebay = service.gateway("");
    let chunked = "POST /tool/b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
                   6\r\nGET /x\r\n0\r\n\r\n";
    let length = "POST /tool/c HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\nGET /y";
    let text = [chunked, length, HIDDEN].concat();
    assert_eq!(statuses(&forebay, &text).await, ["200", "200", "200"]);
    let wrong = "POST /tool/d HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\
                 content-length: 1\r\n\r\nx";
    let text = [chunked, wrong, HIDDEN].concat();
    service.forget();
    assert_eq!(statuses(&forebay, &text).await, ["200", "400"]);
    assert!(!service.heard().contains("hidden"), "{}", service.heard());
}

#[tokio::test]
async fn what_http_2_can_say_and_http_1_cannot_is_refused() {
    let service = Raw::printing();
    let forebay = service.gateway("");
    // Field blocks, uncompressed: `:method GET`, `:scheme http`, a path, an authority, a field.
    let field = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let mut block = vec![0x00, length(name)];
        block.extend_from_slice(name.as_bytes());
        block.push(length(value));
        block.extend_from_slice(value.as_bytes());
        block
    };
    let cases: [&[(&str, &str)]; 14] = [
        &[(":path", "/tool/ HTTP/1.1\r\nx-stray: 1\r\n\r\nGET /hidden")],
        &[(":path", "/tool/"), ("x", "a\r\nx-stray: 1")],
        &[(":path", "/tool/"), ("x", "a\nx-stray: 1")],
        &[(":path", "/tool/"), ("x", "a\0")],
        &[(":path", "/tool/"), ("x\r\nx-stray", "1")],
        &[(":path", "/tool/"), ("x stray", "1")],
        &[(":path", "/tool/"), ("X-Stray", "1")],
        &[(":path", "/tool/"), ("transfer-encoding", "chunked"), ("x-stray", "1")],
        &[(":path", "/tool/"), ("connection", "x-stray"), ("x-stray", "1")],
        &[(":path", "/tool/"), ("content-length", "5"), ("x-stray", "1")],
        &[(":path", "/tool/"), ("host", "evil.test"), ("x-stray", "1")],
        &[(":path", "/tool/"), (":path", "/tool/hidden"), ("x-stray", "1")],
        &[("x-stray", "1"), (":path", "/tool/")],
        &[(":path", "tool/hidden"), ("x-stray", "1")],
    ];
    for fields in cases {
        let mut block = vec![0x82, 0x86];
        block.extend(field(":authority", "localhost"));
        fields.iter().for_each(|(name, value)| block.extend(field(name, value)));
        let length = u8::try_from(block.len()).unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(&[0, 0, length, 1, 0x05, 0, 0, 0, 1]);
        bytes.extend_from_slice(&block);
        let mut socket = forebay.socket().await;
        socket.write_all(&bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut heard = Vec::new();
        drop(time::timeout(Duration::from_secs(20), socket.read_to_end(&mut heard)).await);
        let heard = service.heard();
        assert!(!heard.contains("stray") && !heard.contains("hidden"), "{fields:?}: {heard}");
    }
    assert_eq!(forebay.get("/tool/").await.body, "ok");
}
