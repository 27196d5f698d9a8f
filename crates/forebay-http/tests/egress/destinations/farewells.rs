//! Services of HTTP/2 that refuse, reset or leave in the middle: what they did nothing with is
//! sent again, what they may have begun is not. Their frames are written by hand (RFC 9113,
//! 4.1) where no client library says such things.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::bench::{Forebay, Got, frame, soon};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `:status: 413`, a literal that is not indexed (RFC 7541, 6.2.2).
const TOO_LARGE: &[u8] = b"\x08\x03413";
/// Bytes of a body that may come before the first WINDOW_UPDATE (RFC 9113, 6.9.2).
const WINDOW: usize = 65_535;
/// `:status: 200` of the static table (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    framed(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    framed(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A connection of an agent's side that has said its preface.
struct Spoken(TcpStream);

impl Spoken {
    async fn on(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&framed(SETTINGS, 0, 0, &[])).await.unwrap();
        stream.write_all(&framed(SETTINGS, ACK, 0, &[])).await.unwrap();
        Self(stream)
    }

    /// The next frame: its kind, flags, stream and payload; `None` at the end.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// The next call that has come whole; `None` at the end.
    async fn call(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, _) = self.frame().await?;
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Some(stream);
            }
        }
    }

    async fn say(&mut self, frames: &[Vec<u8>]) {
        drop(self.0.write_all(&frames.concat()).await);
    }
}

/// What happens to a first call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Its stream is reset with this code.
    Reset(u32),
    /// The connection says that it goes, having looked at this stream last, and is closed.
    Left(u32, u32),
    /// The same, but it is answered before the close.
    AnsweredAndLeft,
}

/// A service that treats the first call by `fate` and answers all others. Counts calls.
fn service(fate: Fate) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut spoken = Spoken::on(stream).await;
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                while let Some(stream) = spoken.call().await {
                    let answer = framed(HEADERS, END_HEADERS | END_STREAM, stream, OK);
                    if count.fetch_add(1, Ordering::SeqCst) > 0 {
                        spoken.say(&[answer]).await;
                        continue;
                    }
                    match fate {
                        Fate::Reset(code) => spoken.say(&[reset(stream, code)]).await,
                        Fate::Left(last, code) => return spoken.say(&[goaway(last, code)]).await,
                        Fate::AnsweredAndLeft => {
                            return spoken.say(&[goaway(stream, NO_ERROR), answer]).await;
                        }
                    }
                }
            });
        }
    });
    (address, calls)
}

fn cold(address: SocketAddr) -> Forebay {
    Forebay::start(&format!(
        "[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n\
         connections.protocol = \"http2\"\n"
    ))
}

#[tokio::test]
async fn what_a_service_did_nothing_with_is_sent_again_and_nothing_else() {
    for (fate, post, get) in [
        (Fate::Reset(REFUSED_STREAM), (200, 2), (200, 2)),
        (Fate::Reset(CANCEL), (502, 1), (502, 1)),
        (Fate::Reset(INTERNAL_ERROR), (502, 1), (502, 1)),
        (Fate::Reset(ENHANCE_YOUR_CALM), (502, 1), (502, 1)),
        // It will look at no stream: it has not looked at ours.
        (Fate::Left(0, NO_ERROR), (200, 2), (200, 2)),
        (Fate::Left(0, INTERNAL_ERROR), (200, 2), (200, 2)),
        // It may have looked at ours; a GET does no harm twice.
        (Fate::Left(1, NO_ERROR), (502, 1), (200, 2)),
        (Fate::Left(1, INTERNAL_ERROR), (502, 1), (200, 2)),
        (Fate::AnsweredAndLeft, (200, 1), (200, 1)),
    ] {
        for (call, body, expected) in
            [(Request::post("/tool/"), "pay", post), (Request::get("/tool/"), "", get)]
        {
            let (address, calls) = service(fate);
            let forebay = cold(address);
            let got = forebay.agent().await.call(call, body).await;
            let came = (got.status.as_u16(), calls.load(Ordering::SeqCst));
            assert_eq!(came, expected, "{fate:?} {body:?} {got:?}");
            if got.status == 502 && body == "pay" {
                assert_eq!(got.header("x-should-retry"), "false");
            }
            soon("nothing is held", || forebay.snapshot().pools[0].leased == 0).await;
        }
    }
}

#[tokio::test]
async fn an_upload_is_given_up_with_the_early_answer_though_the_service_says_no_more() {
    // So much of the body comes before the answer: then the agent pauses, or the service takes
    // no more.
    for enough in [1_000, WINDOW] {
        let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let resets = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&resets);
        tokio::spawn(async move {
            let mut spoken = Spoken::on(listener.accept().await.unwrap().0).await;
            let mut came = 0;
            while let Some((kind, flags, stream, payload)) = spoken.frame().await {
                let (is_data, whole) = (kind == DATA, flags & END_STREAM != 0);
                came += if is_data { payload.len() } else { 0 };
                if is_data && came >= enough {
                    came = 0;
                    let head = END_HEADERS | END_STREAM;
                    spoken.say(&[framed(HEADERS, head, stream, TOO_LARGE)]).await;
                } else if kind == HEADERS && whole {
                    spoken.say(&[framed(HEADERS, END_HEADERS | END_STREAM, stream, OK)]).await;
                } else if kind == RST_STREAM {
                    seen.lock().push((stream, payload));
                }
            }
        });
        let forebay = cold(address);
        let mut agent = forebay.socket().await;
        let head = "POST /tool/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
        agent.write_all(head.as_bytes()).await.unwrap();
        let (mut hears, mut says) = agent.into_split();
        let most = if enough == WINDOW { 1_000_000 } else { enough };
        tokio::spawn(async move {
            for piece in vec![b'x'; most].chunks(500) {
                if says.write_all(piece).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let mut answer = [0; 12];
        hears.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        soon("the stream is reset", || *resets.lock() == [(1, CANCEL.to_be_bytes().to_vec())])
            .await;
        soon("the agent is let go", || forebay.snapshot().clients == 0).await;
        // The connection goes on.
        assert_eq!(forebay.get("/tool/").await.status, 200);
        assert_eq!(forebay.snapshot().connections[0].opened_http2, 1);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_off_for_its_agent_alone() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut whole = None;
        while let Some(Ok((call, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"begun"), false).unwrap();
            if call.uri().path() == "/whole" {
                whole = Some(body);
                continue;
            }
            let (mut whole, gate) = (whole.take(), Arc::clone(&opened));
            tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                body.send_reset(h2::Reason::INTERNAL_ERROR);
                gate.acquire().await.unwrap().forget();
                if let Some(whole) = &mut whole {
                    drop(whole.send_data(Bytes::from_static(b"ended"), true));
                }
            });
        }
    });
    let forebay = Arc::new(cold(address));
    let mut first = forebay.agent().await;
    let whole = first.send(Request::get("/tool/whole"), "").await;
    let mut second = forebay.agent().await;
    let mut broken = second.send(Request::post("/tool/broken"), "pay").await.into_body();
    assert_eq!(frame(&mut broken).await.as_deref(), Some("begun"));
    gate.add_permits(1);
    assert_eq!(frame(&mut broken).await, None);
    gate.add_permits(1);
    assert_eq!(Got::read(whole).await.body, "begunended");
    assert_eq!(forebay.snapshot().connections[0].opened_http2, 1);
}

#[tokio::test]
async fn a_socket_that_is_reset_in_the_middle_of_an_answer_breaks_it_off() {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut space = [0; 16];
            drop(stream.read_exact(&mut space).await);
            let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun";
            stream.write_all(begun).await.unwrap();
            // Closed with bytes unread, a socket is reset.
        }
    });
    let forebay =
        Forebay::start(&format!("[destinations.tool]\nwarm_up = 0\nurl = \"http://{address}\"\n"));
    let mut agent = forebay.agent().await;
    let body = Full::new(Bytes::from(vec![b'x'; 100_000])).boxed();
    let answer = agent.send_body(Request::post("/tool/"), body).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.into_body().collect().await.is_err());
    soon("nothing is held", || forebay.snapshot().pools[0].leased == 0).await;
}
