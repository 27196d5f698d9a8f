//! Connections to the issuers of tokens: few, shared, and never a secret shown twice.

use std::sync::Arc;
use std::time::Duration;

use forebay_seam::net::TcpStream;
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::bench::{Forebay, soon};
use crate::origin::{Origin, Reply, reply};
use crate::raw::{self, Raw};

/// Connections that may be open to one issuer.
const OPEN: usize = 20;

fn token() -> Reply {
    reply(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#)
}

/// One that takes a moment for each token.
fn issuer() -> Origin {
    Origin::start(|call| async move {
        drop(call.into_body().collect().await);
        time::sleep(Duration::from_millis(20)).await;
        token()
    })
}

/// Destinations `t0`, `t1`, … whose tokens come from `url`, each by its own client.
fn tools(origin: &Origin, many: usize, url: &str, rest: &str) -> String {
    let tool = |n: usize| {
        format!(
            "[destinations.t{n}]\nwarm_up = 0\n{}auth = {{ type = \"oauth2-client-credentials\", \
             token_url = \"{url}\", client_id = \"c{n}\", client_secret = \"s\"{rest} }}\n",
            origin.settings()
        )
    };
    (0..many).map(tool).collect()
}

fn secure(origin: &Origin, many: usize, issuer: &Origin) -> String {
    let ca = format!(", ca_file = \"{}\"", issuer.ca().display());
    tools(origin, many, &format!("https://{}/token", issuer.address), &ca)
}

#[tokio::test]
async fn many_first_tokens_come_over_a_few_connections() {
    let (origin, issuer) = (Origin::echo(), issuer());
    let forebay = Arc::new(Forebay::start(&secure(&origin, 3 * OPEN, &issuer)));
    let callers: Vec<_> = (0..3 * OPEN)
        .map(|n| {
            let forebay = Arc::clone(&forebay);
            tokio::spawn(async move { forebay.get(&format!("/t{n}/")).await.status.as_u16() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 200);
    }
    assert_eq!(issuer.seen().len(), 3 * OPEN);
    assert!(issuer.opened() <= OPEN, "{}", issuer.opened());
}

#[tokio::test]
async fn the_next_exchange_uses_the_connection_of_the_one_before() {
    let (origin, issuer) = (Origin::echo(), issuer());
    let forebay = Forebay::start(&secure(&origin, 3, &issuer));
    for n in 0..3 {
        assert_eq!(forebay.get(&format!("/t{n}/")).await.status, 200);
    }
    assert_eq!((issuer.seen().len(), issuer.opened()), (3, 1));
}

#[tokio::test]
async fn who_trusts_other_certificates_has_connections_of_its_own() {
    let (origin, issuer) = (Origin::echo(), issuer());
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(issuer.ca(), copy.path()).unwrap();
    let both = secure(&origin, 2, &issuer);
    let (first, second) = both.split_once("[destinations.t1]").unwrap();
    let (file, copied) = (issuer.ca(), copy.path().display().to_string());
    let second = second.replace(&file.display().to_string(), &copied);
    let forebay = Forebay::start(&format!("{first}[destinations.t1]{second}"));
    assert_eq!(forebay.get("/t0/").await.status, 200);
    assert_eq!(forebay.get("/t1/").await.status, 200);
    assert_eq!((issuer.seen().len(), issuer.opened()), (2, 2));
}

#[tokio::test]
async fn an_issuer_that_says_how_long_connections_may_rest_is_heeded() {
    let origin = Origin::echo();
    let issuer = Origin::start(|_| async {
        let mut answer = token();
        answer.headers_mut().insert("keep-alive", "timeout=0".parse().unwrap());
        answer
    });
    let forebay = Forebay::start(&secure(&origin, 2, &issuer));
    assert_eq!(forebay.get("/t0/").await.status, 200);
    soon("it is closed though nobody comes", || issuer.open() == 0).await;
    assert_eq!(forebay.get("/t1/").await.status, 200);
    assert_eq!((issuer.seen().len(), issuer.opened()), (2, 2));
}

#[tokio::test]
async fn a_connection_that_the_issuer_closed_meanwhile_is_noticed() {
    let (origin, issuer) = (Origin::echo(), issuer());
    let forebay = Forebay::start(&secure(&origin, 2, &issuer));
    assert_eq!(forebay.get("/t0/").await.status, 200);
    issuer.cut();
    soon("it is closed", || issuer.open() == 0).await;
    assert_eq!(forebay.get("/t1/").await.status, 200);
    assert_eq!((issuer.seen().len(), issuer.opened()), (2, 2));
}

/// An issuer that answers the first call on each connection, and hangs up on the second. What
/// it heard goes to the list, with the number of the connection.
fn forgetful(heard: &Arc<Mutex<Vec<(usize, String)>>>) -> Raw {
    let heard = Arc::clone(heard);
    Raw::start(move |mut stream: TcpStream, number| {
        let heard = Arc::clone(&heard);
        async move {
            for place in 0..2 {
                let Some(mut call) = raw::head(&mut stream).await else { return };
                while !call.contains("grant_type") {
                    call += &raw::some(&mut stream).await;
                }
                heard.lock().push((number, call));
                let body = r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"refresh_token":"next"}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if place == 0 {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    })
}

#[tokio::test]
async fn an_exchange_that_met_a_close_is_asked_again_on_a_fresh_connection_once() {
    let heard = Arc::default();
    let (origin, issuer) = (Origin::echo(), forgetful(&heard));
    let url = format!("http://{}/token", issuer.address);
    let forebay = Forebay::start(&tools(&origin, 2, &url, ""));
    assert_eq!(forebay.get("/t0/").await.status, 200);
    assert_eq!(forebay.get("/t1/").await.status, 200);
    let heard: Vec<_> = heard.lock().iter().map(|(number, _)| *number).collect();
    assert_eq!(heard, [0, 0, 1]);
}

#[tokio::test]
async fn a_refresh_token_never_rides_on_a_connection_that_rested() {
    let heard = Arc::default();
    let (origin, issuer) = (Origin::echo(), forgetful(&heard));
    let url = format!("http://{}/token", issuer.address);
    let refresh = format!(
        "[destinations.r]\nwarm_up = 0\n{}auth = {{ type = \"oauth2-refresh-token\", \
         token_url = \"{url}\", client_id = \"r\", refresh_token = \"first\" }}\n",
        origin.settings()
    );
    let forebay = Forebay::start(&(tools(&origin, 1, &url, "") + &refresh));
    assert_eq!(forebay.get("/t0/").await.status, 200);
    assert_eq!(forebay.get("/r/").await.status, 200);
    let heard = heard.lock();
    assert_eq!(heard.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
    assert!(heard[1].1.contains("refresh_token=first"), "{}", heard[1].1);
}
