//! WebSocket and its kin: bytes of another protocol, once the service has agreed.

use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::task::Stopper;
use forebay_seam::time;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Forebay, soon};
use crate::origin::{Origin, reply};
use crate::raw::{self, Raw};
use crate::ways;

const WISH: &str = "GET /tool/chat HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\n\
                    upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    sec-websocket-version: 13\r\n";

/// A service that agrees to a WebSocket, says `hello`, and then what it hears, louder.
fn talker() -> Raw {
    Raw::start(|mut stream, _| async move {
        let Some(head) = raw::head(&mut stream).await else { return };
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"));
        let accept = accepting(key);
        let agreed = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             x-inner: 1\r\nsec-websocket-accept: {accept}\r\n\r\nhello"
        );
        stream.write_all(agreed.as_bytes()).await.unwrap();
        let mut space = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut space).await {
            let louder = space[..read].to_ascii_uppercase();
            if stream.write_all(&louder).await.is_err() {
                return;
            }
        }
    })
}

fn accepting(key: &str) -> String {
    use aws_lc_rs::digest;
    use base64::Engine;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

async fn expect(stream: &mut TcpStream, what: &str) {
    let mut heard = vec![0; what.len()];
    let reading = time::timeout(Duration::from_secs(20), stream.read_exact(&mut heard));
    reading.await.unwrap().unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), what);
}

async fn upgraded(forebay: &Forebay) -> TcpStream {
    let mut socket = forebay.socket().await;
    socket.write_all(format!("{WISH}\r\n").as_bytes()).await.unwrap();
    let head = raw::head(&mut socket).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let (_, behind) = head.split_once("\r\n\r\n").unwrap();
    let rest = "hello".strip_prefix(behind).unwrap();
    expect(&mut socket, rest).await;
    socket
}

#[tokio::test]
async fn a_websocket_passes_and_holds_its_connection_to_its_end() {
    let service = talker();
    let forebay = service.gateway("");
    let mut socket = upgraded(&forebay).await;
    for n in 0..3 {
        socket.write_all(format!("word {n}").as_bytes()).await.unwrap();
        expect(&mut socket, &format!("WORD {n}")).await;
    }
    let snapshot = forebay.snapshot();
    assert_eq!((snapshot.pools[0].leased, snapshot.clients), (1, 1));
    assert_eq!(snapshot.destinations[0].in_flight, 1);
    drop(socket);
    soon("both come home", || {
        let snapshot = forebay.snapshot();
        snapshot.pools[0].leased == 0 && snapshot.clients == 0 && snapshot.pools[0].idle == 0
    })
    .await;
    let calls = &forebay.snapshot().destinations[0];
    assert_eq!((calls.answers.success, calls.abandoned, calls.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn a_websocket_passes_from_tls_to_tls() {
    let origin = Origin::start(|mut call| async move {
        let key = call.headers()["sec-websocket-key"].to_str().unwrap().to_owned();
        let agreed = hyper::upgrade::on(&mut call);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(agreed.await.unwrap());
            let mut space = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut space).await {
                stream.write_all(&space[..read].to_ascii_uppercase()).await.unwrap();
            }
        });
        let mut answer = reply(101, "");
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", &accepting(&key)),
        ] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        answer
    });
    let folder = tempfile::tempdir().unwrap();
    let tls = ways::certificate(folder.path());
    let settings = format!("{tls}[destinations.tool]\nwarm_up = 0\n{}", origin.settings());
    let forebay = Forebay::start(&settings);
    let mut agent = ways::in_tls(&forebay, folder.path(), &[b"http/1.1"]).await;
    agent.write_all(format!("{WISH}\r\nword").as_bytes()).await.unwrap();
    let mut heard = String::new();
    let hears = async {
        let mut space = [0; 1024];
        while !heard.ends_with("WORD") {
            let read = agent.read(&mut space).await.unwrap();
            assert!(read > 0, "{heard}");
            heard += &String::from_utf8_lossy(&space[..read]);
        }
    };
    time::timeout(Duration::from_secs(20), hears).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    drop(agent);
    soon("both come home", || {
        let snapshot = forebay.snapshot();
        snapshot.pools[0].leased == 0 && snapshot.clients == 0
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_http_2_speaks_with_a_service_of_http_1() {
    let service = talker();
    let forebay = service.gateway("");
    let mut agent = forebay.agent2().await;
    // Until it is said that there may be protocols, nobody may ask for one.
    let got = agent.call(Request::get("http://localhost/nothing/"), "").await;
    assert_eq!(got.status, 404);
    let call = Request::connect("http://localhost/tool/chat")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"));
    let answer = agent.send(call, Empty::new().boxed()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut heard = [0; 5];
    tunnel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    tunnel.write_all(b"quiet").await.unwrap();
    tunnel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"QUIET");
    drop(tunnel);
    soon("it comes home", || forebay.snapshot().pools[0].leased == 0).await;
    assert_eq!(forebay.snapshot().clients, 1);
}

#[tokio::test]
async fn a_websocket_of_http_2_lasts_as_long_as_it_is_used() {
    let service = talker();
    let forebay = service.gateway("");
    let mut agent = forebay.agent2().await;
    assert_eq!(agent.call(Request::get("http://localhost/nothing/"), "").await.status, 404);
    let call = Request::connect("http://localhost/tool/chat")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"));
    let answer = agent.send(call, Empty::new().boxed()).await;
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut heard = [0; 5];
    tunnel.read_exact(&mut heard).await.unwrap();
    for minute in 0..10 {
        // Twice: the second one comes behind the answer to our ping.
        for _ in 0..2 {
            tunnel.write_all(b"quiet").await.unwrap();
            let reading = time::timeout(Duration::from_secs(20), tunnel.read_exact(&mut heard));
            assert!(reading.await.unwrap().is_ok(), "it was cut after {minute} minutes");
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
    }
    drop(tunnel);
    soon("it comes home", || forebay.snapshot().pools[0].leased == 0).await;
    // From here on the clock goes as fast as everybody waits.
    tokio::time::pause();
    let begun = time::now();
    while forebay.snapshot().clients > 0 {
        assert!(time::now() < begun + Duration::from_secs(3_600), "it is let go");
        time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn nothing_passes_before_the_service_has_agreed() {
    // The service takes it for a call, and answers that.
    let service = Raw::printing();
    let forebay = service.gateway("budget = 1\n");
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: evil.test\r\n\r\n";
    let mut socket = forebay.socket().await;
    socket.write_all(format!("{WISH}\r\n{smuggled}").as_bytes()).await.unwrap();
    let heard = raw::head(&mut socket).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
    assert!(!heard.to_lowercase().contains("upgrade"), "{heard}");
    // What followed was meant for somebody else, perhaps.
    assert!(heard.contains("connection: close"), "{heard}");
    assert_eq!(raw::head(&mut socket).await, None);
    assert!(!service.heard().contains("smuggled"), "{}", service.heard());
    // And the connection that it was asked on serves nobody any more.
    assert_eq!(forebay.get("/tool/").await.status, 200);
    soon("the first is closed", || forebay.snapshot().pools[0].leased == 0).await;
    assert_eq!(service.heard().matches("HTTP/1.1").count(), 2);
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    let service = Raw::printing();
    let forebay = service.gateway("");
    for body in ["content-length: 5\r\n\r\nGET /", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let mut socket = forebay.socket().await;
        socket.write_all(format!("{WISH}{body}").as_bytes()).await.unwrap();
        let heard = raw::head(&mut socket).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
    }
    assert_eq!(service.heard(), "");
}

#[tokio::test]
async fn an_offer_of_http_2_is_not_taken_and_harms_no_call() {
    let service = Raw::printing();
    let forebay = service.gateway("");
    let call = Request::post("/tool/")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__");
    let mut agent = forebay.agent().await;
    assert_eq!(agent.call(call, "body").await.body, "ok");
    assert_eq!(agent.call(Request::get("/tool/"), "").await.body, "ok");
    let heard = service.heard().to_lowercase();
    assert!(!heard.contains("h2c") && !heard.contains("http2-settings"), "{heard}");
}

#[tokio::test]
async fn a_service_that_switches_to_something_else_is_a_bad_gateway() {
    let service = Raw::start(|mut stream, _| async move {
        raw::head(&mut stream).await;
        let other = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: irc\r\n\r\nNICK";
        drop(stream.write_all(other).await);
    });
    let forebay = service.gateway("");
    let mut socket = forebay.socket().await;
    socket.write_all(format!("{WISH}\r\n").as_bytes()).await.unwrap();
    let heard = raw::head(&mut socket).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 502 ") && !heard.contains("NICK"), "{heard}");
    soon("it is free", || forebay.snapshot().pools[0].leased == 0).await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let service = talker();
    let forebay = service.gateway("chunk_timeout = \"200ms\"\n");
    let mut socket = upgraded(&forebay).await;
    socket.write_all(b"word").await.unwrap();
    expect(&mut socket, "WORD").await;
    let mut rest = Vec::new();
    let end = time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty());
    soon("it is free", || forebay.snapshot().pools[0].leased == 0).await;
}

#[tokio::test]
async fn a_drain_cuts_tunnels_that_do_not_end() {
    let service = talker();
    let forebay = service.gateway("");
    let mut socket = upgraded(&forebay).await;
    let Forebay { gateway, stopper, .. } = forebay;
    Stopper::stop(stopper);
    gateway.drain(time::now() + Duration::from_millis(100)).await;
    let mut rest = Vec::new();
    let end = time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    assert!(end.is_ok());
}
