//! Servers that are none, or not ours: what they say before and during a login is bounded, and
//! a lie is an error.

use std::time::Duration;

use forebay_seam::net::{self, TcpStream};
use forebay_seam::time;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{SCRAM, before, server, with_scram};
use crate::bench::Bench;
use crate::client::{Client, startup};

/// A server that reads the first packet of each connection and says `lines`, one after each
/// message that it gets.
async fn says(lines: Vec<Vec<u8>>) -> String {
    let listener = net::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(tokio::spawn(converse(stream, lines.clone())));
        }
    }));
    format!("127.0.0.1:{port}")
}

async fn converse(mut stream: TcpStream, lines: Vec<Vec<u8>>) -> std::io::Result<()> {
    let mut heard = [0; 4096];
    for line in lines {
        let n = stream.read(&mut heard).await?;
        // The client's nonce, where the line wants it.
        let said = String::from_utf8_lossy(&heard[..n]).into_owned();
        let nonce = said.split("r=").nth(1).unwrap_or_default().as_bytes();
        let mark = line.windows(5).position(|part| part == b"NONCE");
        let mut line = line;
        if let Some(at) = mark {
            line.splice(at..at + 5, nonce.iter().copied());
            let length = u32::try_from(line.len() - 1).unwrap().to_be_bytes();
            line[1..5].copy_from_slice(&length);
        }
        stream.write_all(&line).await?;
    }
    // Whether the client goes, is its business.
    drop(time::timeout(Duration::from_secs(5), stream.read(&mut heard)).await);
    Ok(())
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn authentication(code: u8, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&[0, 0, 0, code][..], data].concat())
}

async fn refused(bench: &Bench, user: &str) -> String {
    let first = startup(&[("user", user), ("database", "postgres")]);
    let client = time::timeout(Duration::from_secs(20), Client::start(bench.address, &first));
    client.await.expect("it hangs").err().expect("it was believed")
}

#[tokio::test]
async fn trap_46_plaintext_behind_a_servers_yes_to_tls_is_refused() {
    let forged = [authentication(0, &[]), message(b'Z', b"I")].concat();
    for yes in [[b"S".as_slice(), &forged].concat(), forged, b"E".to_vec(), b"G".to_vec()] {
        let address = says(vec![yes]).await;
        for mode in ["prefer", "require"] {
            let bench = before(server(&address, json!({"sslmode": mode})), |_| {});
            let said = refused(&bench, "forebay").await;
            assert!(said.contains("TLS"), "{said}");
        }
    }
}

#[tokio::test]
async fn trap_49_a_servers_broken_scram_is_an_error_and_not_the_end() {
    let offer = authentication(10, b"SCRAM-SHA-256\0\0");
    let challenge = |text: &str| authentication(11, text.as_bytes());
    let good = challenge("r=NONCEserver,s=c2FsdA==,i=4096");
    let long = format!("r=NONCE{},s=c2FsdA==,i=4096", "x".repeat(100_000));
    for lines in [
        vec![offer.clone(), challenge("r=NONCE,s=c2FsdA==,i=4096")],
        vec![offer.clone(), challenge("r=other,s=c2FsdA==,i=4096")],
        vec![offer.clone(), challenge("r=NONCEx,s=,i=4096")],
        vec![offer.clone(), challenge("r=NONCEx,s=c2FsdA==,i=2000000000")],
        vec![offer.clone(), challenge("r=NONCEx")],
        vec![offer.clone(), challenge("")],
        vec![offer.clone(), challenge(&long)],
        // It skips its own proof, or gives a wrong one.
        vec![offer.clone(), good.clone(), authentication(0, &[])],
        vec![offer.clone(), good.clone(), authentication(12, b"v=AAAA")],
        vec![offer.clone(), good, authentication(12, b"")],
        vec![authentication(10, b"")],
        vec![authentication(10, b"SCRAM-SHA-256-PLUS\0\0")],
        vec![authentication(5, b"")],
        vec![authentication(3, b"")],
        vec![authentication(7, b"")],
        vec![message(b'R', b"\0")],
        vec![message(b'v', b"\0\x03\0\0\0\0\0\0")],
        // An error without a SQLSTATE, without text, without end.
        vec![message(b'E', b"\0")],
        vec![message(b'E', b"SFATAL\0\0")],
        vec![message(b'E', b"")],
        vec![message(b'E', b"Mno end")],
        // Keys that are none.
        vec![[authentication(0, &[]), message(b'K', b"\0\0\0\x01")].concat()],
        vec![[authentication(0, &[]), message(b'K', &[7; 4 + 257])].concat()],
        vec![b"R\x7f\xff\xff\xff".to_vec()],
    ] {
        let shown: Vec<_> = lines
            .iter()
            .map(|l| l.get(..60.min(l.len())).unwrap().escape_ascii().to_string())
            .collect();
        let bench = before(server(&says(lines).await, json!({})), with_scram);
        let said = refused(&bench, SCRAM.0).await;
        assert!(said.starts_with("E["), "{shown:?}: {said}");
    }
}

#[tokio::test]
async fn trap_47_a_server_says_once_that_it_has_no_newer_protocol() {
    let older = |minor: u8| message(b'v', &[0, 3, 0, minor, 0, 0, 0, 0]);
    let rest = [
        authentication(0, &[]),
        message(b'K', &[[0, 0, 0, 9].as_slice(), &[5; 32]].concat()),
        message(b'Z', b"I"),
    ]
    .concat();
    let newest = json!({"max_protocol_version": "3.2"});
    for (said, works) in [
        (rest.clone(), true),
        ([older(0), rest.clone()].concat(), true),
        ([older(1), rest.clone()].concat(), true),
        ([older(2), rest.clone()].concat(), false),
        ([older(0), older(0), rest.clone()].concat(), false),
        ([message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0"), rest.clone()].concat(), false),
    ] {
        let bench = before(server(&says(vec![said.clone()]).await, newest.clone()), |_| {});
        // What comes after the login, this server does not answer.
        let first = startup(&[("user", "forebay"), ("database", "postgres")]);
        let tried = Client::start(bench.address, &first);
        let told = time::timeout(Duration::from_millis(700), tried).await;
        let refused = matches!(&told, Ok(Err(said)) if said.contains("unexpected message `v`"));
        assert_eq!(refused, !works, "{}", said.escape_ascii());
    }
}
