//! Looks at idle transactions that go wrong: what each of them costs, and what not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_pool::Mode;
use forebay_postgres::PostgresSettings;
use forebay_seam::net::{self, TcpStream};
use forebay_seam::sync::Mutex;
use forebay_seam::time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, until};
use crate::client::{Client, cancel_request, show};
use crate::parking::{counts, forced, is_parked, parks};

/// What becomes of the questions that clients' own connections are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    Pass,
    Wait,
    /// Whatever the witness is asked waits.
    WitnessWaits,
    /// The end of the empty transaction does.
    EndWaits,
    /// The connection breaks.
    Break,
    /// They ask for something that is not there.
    AreWrong,
}

/// Stands between a gateway and its server.
#[derive(Clone)]
struct Wire(Arc<Mutex<Looks>>, Arc<AtomicBool>);

impl Wire {
    fn of(looks: Looks) -> Self {
        Self(Arc::new(Mutex::new(looks)), Arc::default())
    }

    fn set(&self, looks: Looks) {
        *self.0.lock() = looks;
    }

    fn looks(&self) -> Looks {
        *self.0.lock()
    }

    /// Waits until something waits.
    async fn holds(&self) {
        until("something waits", async || self.1.load(Ordering::Relaxed)).await;
    }

    async fn held_while(&self, looks: Looks) {
        while self.looks() == looks {
            self.1.store(true, Ordering::Relaxed);
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A gateway that parks whatever idles, with this wire to its server.
    async fn bench(&self) -> Bench {
        self.bench_with(forced).await
    }

    async fn bench_with(&self, change: impl FnOnce(&mut PostgresSettings)) -> Bench {
        let wire = self.clone();
        Bench::with(2, |settings| {
            change(settings);
            let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let here = listener.local_addr().unwrap().to_string();
            let address = &mut settings.servers.get_mut("main").unwrap().address;
            let server = std::mem::replace(address, here).parse().unwrap();
            drop(tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    drop(tokio::spawn(wire.clone().carry(client, server)));
                }
            }));
        })
        .await
    }

    async fn carry(self, client: TcpStream, server: SocketAddr) {
        let server = net::connect(&[server]).await.unwrap();
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let back = async { tokio::io::copy(&mut from_server, &mut to_client).await };
        let forth = async {
            let (mut buffer, mut is_witness) = (vec![0; 64 * 1024], false);
            while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                let bytes = &mut buffer[..n];
                is_witness |= find(bytes, b"forebay parking").is_some();
                let is_look = find(bytes, b"__forebay_proof").is_some();
                if is_look && !is_witness {
                    self.held_while(Looks::Wait).await;
                    match self.looks() {
                        Looks::Break => break,
                        Looks::AreWrong => {
                            let name = find(bytes, b"pg_show_all_settings").unwrap();
                            bytes[name] = b'q';
                        }
                        Looks::Pass | Looks::Wait | Looks::WitnessWaits | Looks::EndWaits => {}
                    }
                }
                if is_witness {
                    self.held_while(Looks::WitnessWaits).await;
                } else if find(bytes, b"ROLLBACK").is_some() {
                    self.held_while(Looks::EndWaits).await;
                }
                to_server.write_all(bytes).await.unwrap();
            }
        };
        tokio::select! { _ = back => {}, () = forth => {} }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A client in a transaction that has read.
async fn reader(bench: &Bench) -> Client {
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[T]");
    client
}

async fn is_refused(bench: &Bench, reason: &str) {
    until(reason, async || counts(bench).refusals.contains_key(reason)).await;
}

fn closed(bench: &Bench) -> Option<String> {
    bench.gateway.snapshot().parking["main"].closed.clone()
}

#[tokio::test]
async fn a_look_that_is_not_answered_in_time_costs_nothing() {
    let wire = Wire::of(Looks::Wait);
    let bench = wire.bench().await;
    let mut client = reader(&bench).await;
    is_refused(&bench, "no_witness").await;
    client.send(&crate::client::query("SELECT 2")).await;
    assert!(client.is_silent().await, "it waits until it is certain what was answered");
    wire.set(Looks::Pass);
    assert_eq!(show(&client.until_ready(1).await), "T D[2] C[SELECT 1] Z[T]");
    is_parked(&bench).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!((closed(&bench), counts(&bench).lost), (None, 0));
}

#[tokio::test]
async fn a_look_that_fails_late_costs_its_transaction_which_is_told() {
    let wire = Wire::of(Looks::Wait);
    let bench = wire.bench().await;
    let mut client = reader(&bench).await;
    is_refused(&bench, "no_witness").await;
    wire.set(Looks::AreWrong);
    let told = client.query("SELECT 2").await;
    assert!(told.starts_with("E[40001 ") && told.ends_with("Z[E]"), "{told}");
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!(client.query("SELECT 3").await, "T D[3] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn a_connection_lost_during_a_look_costs_its_transaction_and_not_parking() {
    let wire = Wire::of(Looks::Break);
    let bench = wire.bench().await;
    let mut client = reader(&bench).await;
    bench.all_home().await;
    wire.set(Looks::Pass);
    let told = client.query("SELECT 2").await;
    assert!(told.starts_with("E[40001 ") && told.ends_with("Z[E]"), "{told}");
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!((closed(&bench), counts(&bench).lost), (None, 1));
    let mut client = reader(&bench).await;
    is_parked(&bench).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn a_look_that_the_server_refuses_closes_parking() {
    let bench = Wire::of(Looks::AreWrong).bench().await;
    let _client = reader(&bench).await;
    until("it is closed", async || closed(&bench).is_some()).await;
    assert!(closed(&bench).unwrap().contains("qg_show_all_settings"), "{:?}", closed(&bench));
}

#[tokio::test]
async fn who_gives_its_statements_less_time_than_a_look_may_take_stays() {
    let bench = Bench::with(2, forced).await;
    let mut client = reader(&bench).await;
    is_parked(&bench).await;
    client.query("ROLLBACK").await;
    client.query("SET statement_timeout = '900ms'").await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_refused(&bench, "setting").await;
    client.query("ROLLBACK").await;
    client.query("SET statement_timeout = '1min'").await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
}

#[tokio::test]
async fn a_statement_does_not_wait_for_a_look_from_outside() {
    for mode in [Mode::Observe, Mode::Enforce] {
        let wire = Wire::of(Looks::WitnessWaits);
        let bench = wire.bench_with(|settings| parks(settings, |class| class.parking = mode)).await;
        let mut client = reader(&bench).await;
        wire.holds().await;
        assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
        assert_eq!(counts(&bench).refusals.len(), 0, "the look was given up, not waited for");
        assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    }
}

#[tokio::test]
async fn a_cancel_during_a_look_is_for_the_statement_that_was_sent_meanwhile() {
    for moment in [Looks::Wait, Looks::EndWaits] {
        let wire = Wire::of(moment);
        let bench = wire.bench().await;
        let mut client = reader(&bench).await;
        wire.holds().await;
        client.send(&crate::client::query("SELECT pg_sleep(60)")).await;
        let mut stream = net::connect(&[bench.address]).await.unwrap();
        stream.write_all(&cancel_request(&client.key)).await.unwrap();
        time::sleep(Duration::from_millis(50)).await;
        wire.set(Looks::Pass);
        let told = show(&client.until_ready(1).await);
        assert!(told.contains("E[57014 ") && told.ends_with("Z[E]"), "{moment:?}: {told}");
        assert_eq!(client.query("COMMIT").await, "C[ROLLBACK] Z[I]");
        assert_eq!((closed(&bench), counts(&bench).parks), (None, 0));
    }
}
