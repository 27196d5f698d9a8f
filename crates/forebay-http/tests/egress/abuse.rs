//! What HTTP/2 allows an agent to do to us, and how soon it is enough. Frames are written by
//! hand (RFC 9113, 4.1): no client library does such things.

use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::time;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Forebay, soon};
use crate::origin::Origin;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a call of `/tool/` that is `POST` or `GET`.
fn head(stream: u32, method: u8, flags: u8) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x44, 6];
    block.extend_from_slice(b"/tool/");
    block.extend_from_slice(&[0x41, 9]);
    block.extend_from_slice(b"localhost");
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

async fn connected(forebay: &Forebay) -> TcpStream {
    let mut socket = forebay.socket().await;
    socket.write_all(PREFACE).await.unwrap();
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    socket
}

/// Writes what `more` gives for the streams of an agent, until the gateway has had enough; at
/// most so many times.
async fn flood(forebay: &Forebay, times: u32, mut more: impl FnMut(u32) -> Vec<u8>) -> Enough {
    let socket = connected(forebay).await;
    let (mut reading, mut writing) = socket.into_split();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        let mut space = [0; 16 * 1024];
        while let Ok(read @ 1..) = reading.read(&mut space).await {
            heard.extend_from_slice(&space[..read]);
            let excess = heard.len().saturating_sub(256 * 1024);
            heard.drain(..excess);
        }
        heard
    });
    for n in 0..times {
        let bytes = more(2 * n + 1);
        let write = time::timeout(Duration::from_secs(20), writing.write_all(&bytes));
        if write.await.unwrap().is_err() {
            break;
        }
    }
    let Ok(heard) = time::timeout(Duration::from_secs(5), heard).await else {
        return Enough::Never;
    };
    let heard = heard.unwrap();
    // GOAWAY, in the clear: the last stream, and the reason.
    let said = |reason: u32| {
        heard.windows(17).any(|frame| {
            frame[3] == 7 && frame[4..9] == [0; 5] && frame[13..17] == reason.to_be_bytes()
        })
    };
    if said(11) { Enough::Calm } else { Enough::Closed }
}

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum Enough {
    /// With ENHANCE_YOUR_CALM.
    Calm,
    /// Otherwise.
    Closed,
    /// It did not.
    Never,
}

fn tool(origin: &Origin) -> Forebay {
    with(origin, "")
}

fn with(origin: &Origin, before: &str) -> Forebay {
    Forebay::start(&format!("{before}[destinations.tool]\nbudget = 4\n{}", origin.settings()))
}

/// Nothing of it is left, and others are served.
async fn is_well(forebay: &Forebay) {
    assert_eq!(forebay.get("/tool/").await.status, 200);
    soon("nothing is left", || {
        let snapshot = forebay.snapshot();
        let pool = &snapshot.pools[0];
        snapshot.clients == 0 && pool.leased + pool.classes[0].waiting == 0
    })
    .await;
}

#[tokio::test]
async fn streams_that_are_reset_as_they_are_opened_are_soon_enough() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let enough = flood(&forebay, 10_000, |stream| {
        let mut bytes = head(stream, GET, END_STREAM);
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        bytes
    })
    .await;
    assert_eq!(enough, Enough::Calm);
    is_well(&forebay).await;
}

#[tokio::test]
async fn streams_that_we_are_made_to_reset_are_soon_enough() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let tricks: [fn(u32) -> Vec<u8>; 4] = [
        |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
        |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]),
        |stream| frame(PRIORITY, 0, stream, &[0; 4]),
        |stream| frame(DATA, 0, stream, b"after the end"),
    ];
    for trick in tricks {
        let enough = flood(&forebay, 10_000, |stream| {
            let mut bytes = head(stream, GET, END_STREAM);
            bytes.extend(trick(stream));
            bytes
        })
        .await;
        assert_ne!(enough, Enough::Never);
        is_well(&forebay).await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_soon_enough() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let mut begun = false;
    let enough = flood(&forebay, 100_000, |_| {
        if !std::mem::replace(&mut begun, true) {
            return frame(HEADERS, 0, 1, &[GET, 0x86]);
        }
        // A field that is added to nothing.
        let mut block = vec![0x00, 1, b'x', 100];
        block.extend_from_slice(&[b'y'; 100]);
        frame(CONTINUATION, 0, 1, &block)
    })
    .await;
    assert_ne!(enough, Enough::Never);
    let mut begun = false;
    let empty = flood(&forebay, 100_000, |_| {
        if !std::mem::replace(&mut begun, true) {
            return frame(HEADERS, 0, 1, &[GET, 0x86]);
        }
        frame(CONTINUATION, 0, 1, &[])
    })
    .await;
    assert_ne!(empty, Enough::Never);
    assert!(origin.seen().is_empty());
    is_well(&forebay).await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_by_itself() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    let mut agent = forebay.agent2().await;
    let mut long = Request::get("http://localhost/tool/");
    for n in 0..90 {
        long = long.header(format!("x-{n}"), "y".repeat(1_000));
    }
    assert_eq!(agent.call(long, "").await.status, 431);
    let mut many = Request::get("http://localhost/tool/");
    for n in 0..200 {
        many = many.header(format!("x-{n}"), "y");
    }
    assert_eq!(agent.call(many, "").await.problem(), "head-too-large");
    assert_eq!(agent.call(Request::get("http://localhost/tool/"), "").await.status, 200);
}

#[tokio::test]
async fn control_frames_that_flood_take_no_memory_and_no_seats() {
    let origin = Origin::echo();
    let forebay = tool(&origin);
    for (kind, payload) in [(PING, [0; 8].as_slice()), (SETTINGS, &[0, 3, 0, 0, 0, 9])] {
        // Nobody reads the answers: they may not pile up.
        let mut socket = connected(&forebay).await;
        let many = frame(kind, 0, 0, payload).repeat(1_000);
        let mut written = 0;
        while written < 64 * 1024 * 1024 {
            let write = time::timeout(Duration::from_millis(500), socket.write_all(&many)).await;
            match write {
                Ok(Ok(())) => written += many.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        assert!(written < 64 * 1024 * 1024, "{kind}: all of it was taken");
        drop(socket);
        is_well(&forebay).await;
    }
}

#[tokio::test]
async fn more_streams_than_may_be_are_refused_and_the_others_served() {
    let origin = Origin::start(|_| std::future::pending());
    for (before, streams, most) in [("", 400_u32, 100), ("max_concurrent_streams = 5\n", 40, 5)] {
        let forebay = with(&origin, before);
        let mut socket = connected(&forebay).await;
        for n in 0..streams {
            drop(socket.write_all(&head(2 * n + 1, POST, 0)).await);
        }
        soon("calls have come", || forebay.snapshot().destinations[0].in_flight > 0).await;
        time::sleep(Duration::from_millis(50)).await;
        assert!(forebay.snapshot().destinations[0].in_flight <= most);
        drop(socket);
        soon("nothing is left", || {
            let snapshot = forebay.snapshot();
            snapshot.clients == 0 && snapshot.destinations[0].in_flight == 0
        })
        .await;
    }
}
