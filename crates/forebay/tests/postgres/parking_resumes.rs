//! What a parked transaction has got when it goes on: what it had.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use forebay_pool::{ClassName, Share};
use forebay_postgres::settings::{Otherwise, ReplicaSettings};
use forebay_seam::net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, until};
use crate::client::{bind, execute, parse, query, run, sync};
use crate::parking::{counts, forced, is_parked, parks};

#[tokio::test]
async fn options_that_are_too_late_stay_too_late() {
    let bench = Bench::with(1, forced).await;
    bench.direct().await.query("CREATE TABLE t (n int)").await;
    let mut client = bench.client().await;
    for options in [
        "SET TRANSACTION READ WRITE",
        "SET LOCAL transaction_read_only = off",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET TRANSACTION DEFERRABLE",
    ] {
        client.query("BEGIN READ ONLY").await;
        client.query("SELECT 2").await;
        is_parked(&bench).await;
        let told = client.query(options).await;
        assert!(told.starts_with("E[25001 ") && told.ends_with("Z[E]"), "{options}: {told}");
        assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    }
    // By the extended protocol too, behind a statement that only prepares, and parked twice.
    client.query("BEGIN READ ONLY").await;
    assert_eq!(client.ask(&[run("SELECT 2"), sync()]).await, "1 2 D[2] C[SELECT 1] Z[T]");
    is_parked(&bench).await;
    assert_eq!(client.ask(&[parse("", "SET TRANSACTION READ WRITE"), sync()]).await, "1 Z[T]");
    is_parked(&bench).await;
    let told = client.ask(&[bind("", "", &[]), execute("", 0), sync()]).await;
    let too_late = "transaction read-write mode must be set before any query";
    assert_eq!(told, format!("2 E[25001 {too_late}] Z[E]"));
    assert_eq!(client.ask(&[run("ROLLBACK"), sync()]).await, "1 2 C[ROLLBACK] Z[I]");
}

#[tokio::test]
async fn options_that_come_before_any_query_are_taken() {
    let bench = Bench::with(1, forced).await;
    let mut client = bench.client().await;
    client.ask(&[query("SELECT 2"), query("BEGIN READ ONLY")]).await;
    let told = client.query("SET TRANSACTION READ WRITE").await;
    assert_eq!(told, "C[SET] Z[T]");
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    // The next one of a client that was parked begins anew.
    for _ in 0..2 {
        client.query("BEGIN READ ONLY").await;
        assert_eq!(client.query("SET TRANSACTION READ WRITE").await, "C[SET] Z[T]");
        client.query("ROLLBACK").await;
        client.query("BEGIN READ ONLY").await;
        client.query("SELECT 2").await;
        is_parked(&bench).await;
        client.query("SELECT 3").await;
        client.query("ROLLBACK").await;
    }
}

#[tokio::test]
async fn what_the_batch_prepares_without_a_name_is_there_for_it() {
    let bench = Bench::with(1, forced).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.ask(&[parse("", "SELECT 4"), bind("", "", &[]), execute("", 0), sync()]).await;
    is_parked(&bench).await;
    let again = [bind("", "", &[]), execute("", 0), sync()];
    assert_eq!(client.ask(&again).await, "2 D[4] C[SELECT 1] Z[T]");
    is_parked(&bench).await;
    let anew = [parse("", "SELECT 5"), sync(), bind("", "", &[]), execute("", 0), sync()];
    assert_eq!(client.ask(&anew).await, "1 Z[T] 2 D[5] C[SELECT 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

/// A way to `server` on which `SELECT 1` becomes what fails.
async fn way_that_garbles(server: SocketAddr) -> SocketAddr {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move {
        while let Ok((gateway, _)) = listener.accept().await {
            let server = net::connect(&[server]).await.unwrap();
            let (mut from_gateway, mut to_gateway) = gateway.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            drop(tokio::spawn(
                async move { tokio::io::copy(&mut from_server, &mut to_gateway).await },
            ));
            drop(tokio::spawn(async move {
                let mut bytes = vec![0; 8_192];
                while let Ok(n @ 1..) = from_gateway.read(&mut bytes).await {
                    let said = &mut bytes[..n];
                    if let Some(at) = said.windows(9).position(|part| part == b"SELECT 1\0") {
                        said[at + 7] = b'x';
                    }
                    if to_server.write_all(said).await.is_err() {
                        return;
                    }
                }
            }));
        }
    }));
    address
}

#[tokio::test]
async fn who_cannot_be_brought_back_to_where_it_was_is_told_so_and_begins_again() {
    let bench = Bench::start(1).await;
    let (address, database) = (way_that_garbles(bench.server).await, bench.database.clone());
    let behind = Bench::before(address, &database, 1, forced);
    let mut client = behind.client().await;
    let failed = "E[40001 the parked transaction could not be begun again: \
                  column \"x\" does not exist]";
    let select = vec![query("SELECT 3")];
    let extended = vec![run("SELECT 3"), sync()];
    for next in [select, extended] {
        client.query("BEGIN").await;
        client.query("SELECT 2").await;
        is_parked(&behind).await;
        client.send(&next.concat()).await;
        let told = crate::client::show(&client.until_ready(1).await);
        assert_eq!(told, format!("{failed} Z[E]"));
        assert!(client.query("SELECT 3").await.starts_with("E[25P02 "));
        assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
        assert_eq!(client.query("SELECT 3").await, "T D[3] C[SELECT 1] Z[I]");
    }
    // Whose transaction ended with it is told of its own errors only.
    client.query("BEGIN").await;
    client.query("SELECT 2").await;
    is_parked(&behind).await;
    let told = client.ask(&[query("ROLLBACK /* */; BEGIN"), query("SELECT y")]).await;
    assert!(told.contains("C[ROLLBACK] C[BEGIN] Z[T] E[42703 "), "{told}");
}

#[tokio::test]
async fn what_a_pipeline_has_done_is_not_forgotten_when_another_batch_of_it_ends() {
    let bench = Bench::with(2, forced).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 2").await;
    let pipeline = ["COMMIT", "BEGIN", "SELECT set_config('app.tenant', '7', true)"].map(query);
    client.ask(&pipeline).await;
    // It is begun already, as the server warns.
    client.query("BEGIN").await;
    until("it stays", async || counts(&bench).refusals.contains_key("no_begin")).await;
    assert_eq!(client.value("SELECT current_setting('app.tenant', true)").await, "7");
    client.query("COMMIT").await;
    // What begins after all of that is parked as ever.
    let parks = counts(&bench).parks;
    client.query("BEGIN").await;
    client.query("SELECT 2").await;
    is_parked(&bench).await;
    assert_eq!(counts(&bench).parks, parks + 1);
}

#[tokio::test]
async fn a_transaction_goes_on_in_its_own_class_whatever_its_next_statement_says() {
    let bench = Bench::with(3, |settings| {
        parks(settings, |class| class.unpark_timeout = Duration::from_secs(10));
        let classes = &mut settings.servers.get_mut("main").unwrap().classes;
        for class in classes.values_mut() {
            class.guarantee = Share::Seats(0);
            class.ceiling = Some(Share::Seats(1));
        }
    })
    .await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 2 /*forebay_class='ai-read'*/").await;
    until("it is parked", async || parked(&bench, "main", "ai-read") == (1, 0)).await;
    // Another class is full.
    let mut other = bench.client().await;
    other.query("BEGIN").await;
    other.query("CREATE TABLE x ()").await;
    let next = client.query("SELECT 3 /*forebay_class='core'*/").await;
    assert_eq!(next, "T D[3] C[SELECT 1] Z[T]");
    until("it is parked again", async || parked(&bench, "main", "ai-read") == (1, 1)).await;
    let next = client.query("SELECT 4 /*forebay_class='core'*/").await;
    assert_eq!(next, "T D[4] C[SELECT 1] Z[T]");
}

/// How many transactions of `class` are parked now, and how many went on.
fn parked(bench: &Bench, server: &str, class: &str) -> (u32, u64) {
    let snapshot = bench.gateway.snapshot();
    let classes = &snapshot.parking[server].classes;
    let counts = classes.iter().find(|counts| counts.class.as_str() == class).unwrap();
    (counts.parked, counts.resumed)
}

#[tokio::test]
async fn a_transaction_that_was_parked_at_a_replica_goes_on_there() {
    let bench = Bench::with(2, |settings| {
        forced(settings);
        // The same server, by another name.
        let replicas = settings.servers["main"].clone();
        settings.servers.insert("replicas".into(), replicas);
        settings.servers.get_mut("main").unwrap().replicas = Some(ReplicaSettings {
            server: "replicas".into(),
            classes: vec![ClassName::new("ai-read")],
            otherwise: Otherwise::Primary,
        });
    })
    .await;
    let checkouts = || {
        let pools = bench.gateway.snapshot().pools;
        let of = |pool: &forebay_pool::Snapshot| {
            pool.classes.iter().map(|class| class.checkouts).sum::<u64>()
        };
        pools
            .iter()
            .map(|pool| (pool.destination.to_string(), of(pool)))
            .collect::<BTreeMap<_, _>>()
    };
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 2 /*forebay_class='ai-read'*/").await;
    until("it is parked", async || parked(&bench, "replicas", "ai-read") == (1, 0)).await;
    let before = checkouts();
    assert_eq!(client.query("SELECT 3 /*forebay_class='core'*/").await, "T D[3] C[SELECT 1] Z[T]");
    let now = checkouts();
    assert_eq!((now["main"], now["replicas"]), (before["main"], before["replicas"] + 1));
    until("it is parked again", async || parked(&bench, "replicas", "ai-read") == (1, 1)).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}
