//! Protocol 3.2 with its keys, and cancel requests that come to another instance.

use std::net::SocketAddr;

use forebay_postgres::settings::FleetSettings;
use forebay_seam::net;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, USER, until};
use crate::cancelling::CANCELLED;
use crate::client::{Client, cancel_request, packet, query, show};

fn first(version: u32, database: &str, options: &str) -> Vec<u8> {
    let named = format!("user\0{USER}\0database\0{database}\0{options}\0");
    packet(&[&version.to_be_bytes()[..], named.as_bytes()].concat())
}

fn asks_for(version: u32, bench: &Bench) -> Vec<u8> {
    first(version, &bench.database, "")
}

async fn sleeps(bench: &Bench, client: &mut Client) {
    client.send(&query("SELECT pg_sleep(30)")).await;
    let active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND state = 'active' AND query = 'SELECT pg_sleep(30)'";
    let mut direct = bench.direct().await;
    until("it runs", async || direct.value(active).await == "1").await;
}

async fn cancel(address: SocketAddr, key: &[u8]) {
    let mut request = Client::bare(address).await;
    request.send(&cancel_request(key)).await;
    assert!(request.is_sent_away().await);
}

#[tokio::test]
async fn trap_47_the_protocol_is_negotiated_once_and_its_keys_are_long() {
    let bench = Bench::start(1).await;
    for (version, told, key) in [
        (0x0003_0000, None, 8),
        (0x0003_0001, None, 8),
        (0x0003_0002, None, 4 + 19),
        (0x0003_270f, Some(0x0003_0002_u32), 4 + 19),
    ] {
        let mut client = Client::bare(bench.address).await;
        client.send(&asks_for(version, &bench)).await;
        let messages = client.until_ready(1).await;
        let negotiated: Vec<_> = messages.iter().filter(|m| m.tag == b'v').collect();
        let expected: Vec<_> = told.iter().map(|v| [v.to_be_bytes(), [0; 4]].concat()).collect();
        assert_eq!(negotiated.iter().map(|m| m.body.clone()).collect::<Vec<_>>(), expected);
        let given = messages.iter().find(|m| m.tag == b'K').unwrap();
        assert_eq!(given.body.len(), key, "{version:x}");
    }
    let options = first(0x0003_0002, &bench.database, "_pq_.b\0on\0_pq_.a\0off\0");
    let mut client = Client::bare(bench.address).await;
    client.send(&options).await;
    let told = client.until_tag(b'v').await.pop().unwrap();
    assert_eq!(told.body, b"\0\x03\0\x02\0\0\0\x02_pq_.b\0_pq_.a\0");
}

#[tokio::test]
async fn who_speaks_an_older_protocol_is_told_so_in_its_own_words() {
    let bench = Bench::start(1).await;
    for version in [0x0002_0000_u32, 0x0001_0000, 0x0004_0000] {
        let mut said = Vec::new();
        for address in [bench.address, bench.server] {
            let mut stream = net::connect(&[address]).await.unwrap();
            stream.write_all(&asks_for(version, &bench)).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            said.push(String::from_utf8_lossy(&all).into_owned());
        }
        let [ours, real] = [&said[0], &said[1]];
        // PostgreSQL says besides where in its source.
        let words = |text: &str| {
            let text = text.replace("3.0 to 3.2", "3.0 to 3.0");
            let start = text.find("unsupported").unwrap();
            let end = text.find("3.0 to 3.0").unwrap();
            text[start..end].to_owned()
        };
        assert_eq!(words(ours), words(real));
        if version < 0x0003_0000 {
            assert_eq!(&ours.replace("3.0 to 3.2", "3.0 to 3.0"), real);
        } else {
            assert!(ours.contains("C0A000"), "{ours:?}");
        }
    }
}

#[tokio::test]
async fn a_long_key_cancels_and_none_that_is_like_it() {
    let bench = Bench::start(1).await;
    let mut client = Client::start(bench.address, &asks_for(0x0003_0002, &bench)).await.unwrap();
    let key = client.key.clone();
    sleeps(&bench, &mut client).await;
    let mut wrong = vec![key[..8].to_vec(), key[..22].to_vec(), [&key[..], &[0]].concat()];
    // The process id, the version, the proof.
    wrong.extend([0, 3, 4, 7, 22].map(|at| {
        let mut other = key.clone();
        other[at] ^= 1;
        other
    }));
    for wrong in wrong {
        cancel(bench.address, &wrong).await;
    }
    assert!(client.is_silent().await);
    cancel(bench.address, &key).await;
    let answer = show(&client.until_ready(1).await);
    assert!(answer.ends_with(CANCELLED), "{answer}");
    bench.all_home().await;
}

fn fleet(id: u16, secret: Option<&str>, peers: Value) -> FleetSettings {
    serde_json::from_value(json!({"id": id, "secret": secret, "peers": peers})).unwrap()
}

#[tokio::test]
async fn a_cancel_request_finds_its_instance_from_any_other() {
    const SECRET: &str = "a secret of the fleet";
    for secret in [None, Some(SECRET)] {
        let home = Bench::with(1, |s| s.fleet = Some(fleet(7, secret, json!([])))).await;
        let peers = json!([{"id": 7, "address": home.address.to_string()}]);
        let other = Bench::with(1, |s| s.fleet = Some(fleet(8, secret, peers.clone()))).await;
        let stranger =
            Bench::with(1, |s| s.fleet = Some(fleet(9, Some("another fleet's secret"), peers)))
                .await;
        for version in [0x0003_0000, 0x0003_0002] {
            let mut client = Client::start(home.address, &asks_for(version, &home)).await.unwrap();
            let key = client.key.clone();
            sleeps(&home, &mut client).await;
            if version == 0x0003_0002 {
                cancel(stranger.address, &key).await;
                assert!(client.is_silent().await, "a key without the fleet's MAC was sent on");
                let mut forged = key.clone();
                *forged.last_mut().unwrap() ^= 1;
                cancel(other.address, &forged).await;
                assert!(client.is_silent().await);
            }
            cancel(other.address, &key).await;
            let answer = show(&client.until_ready(1).await);
            assert!(answer.ends_with(CANCELLED), "{secret:?} {version:x} {answer}");
        }
        assert_eq!(
            home.gateway.snapshot().cancels,
            other.gateway.snapshot().cancels - u64::from(secret.is_some())
        );
    }
}

/// Each of two instances believes that the other one is a third: a request must not go round.
#[tokio::test]
async fn a_cancel_request_is_sent_on_once_and_then_no_more() {
    let listeners = [1, 2].map(|_| net::bind(([127, 0, 0, 1], 0).into()).unwrap());
    let addresses = [0, 1].map(|n: usize| listeners[n].local_addr().unwrap());
    let peers = |n: usize| json!([{"id": 3, "address": addresses[1 - n].to_string()}]);
    let one = Bench::with(1, |s| s.fleet = Some(fleet(1, None, peers(0)))).await;
    let two = Bench::with(1, |s| s.fleet = Some(fleet(2, None, peers(1)))).await;
    let (_stopper, stop) = forebay_seam::task::Stopper::new();
    for (listener, bench) in listeners.into_iter().zip([&one, &two]) {
        let (gateway, stop) = (bench.gateway.clone(), stop.clone());
        drop(tokio::spawn(async move { gateway.serve(listener, stop).await }));
    }
    let of_three = (3_i32 << 17 | 5).to_be_bytes();
    cancel(addresses[0], &[of_three, [1, 2, 3, 4]].concat()).await;
    assert_eq!(one.gateway.snapshot().cancels, 1);
    assert_eq!(two.gateway.snapshot().cancels, 1);
}
