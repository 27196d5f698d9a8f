//! Cancel requests: what a client runs or waits for ends, and nothing of anybody else's.

use std::time::Duration;

use forebay_seam::time;

use crate::bench::{Bench, until};
use crate::client::{Client, cancel_request, query, show};

pub(crate) async fn cancel(bench: &Bench, key: &[u8]) {
    let mut request = Client::bare(bench.address).await;
    request.send(&cancel_request(key)).await;
    assert!(request.is_sent_away().await);
}

pub(crate) const CANCELLED: &str = "E[57014 canceling statement due to user request] Z[I]";

async fn runs(bench: &Bench, what: &str) {
    let question = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '{what}%' AND pid <> pg_backend_pid()"
    );
    let mut direct = bench.direct().await;
    until("it runs", async || direct.value(&question).await == "1").await;
}

#[tokio::test]
async fn a_running_query_is_cancelled() {
    let bench = Bench::start(1).await;
    let mut a = bench.client().await;
    for _ in 0..3 {
        a.send(&query("SELECT pg_sleep(30)")).await;
        runs(&bench, "SELECT pg_sleep").await;
        cancel(&bench, &a.key.clone()).await;
        let answer = show(&a.until_ready(1).await);
        assert!(answer.ends_with(CANCELLED), "{answer}");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn a_client_that_waits_in_line_is_cancelled_and_the_next_wait_is_not() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for _ in 0..3 {
        a.query("BEGIN").await;
        a.query("SELECT 1").await;
        b.send(&query("SELECT 2")).await;
        until("it waits", async || bench.waiting() == 1).await;
        cancel(&bench, &b.key.clone()).await;
        assert_eq!(show(&b.until_ready(1).await), CANCELLED);
        b.send(&query("SELECT 2")).await;
        until("it waits", async || bench.waiting() == 1).await;
        a.query("COMMIT").await;
        assert_eq!(show(&b.until_ready(1).await), "T D[2] C[SELECT 1] Z[I]");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_27_a_wrong_key_and_an_idle_client_cancel_nothing() {
    let bench = Bench::start(1).await;
    let (mut a, b) = (bench.client().await, bench.client().await);
    let mut wrong = a.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    a.send(&query("SELECT pg_sleep(0.3)")).await;
    runs(&bench, "SELECT pg_sleep").await;
    cancel(&bench, &wrong).await;
    cancel(&bench, &b.key).await;
    assert!(show(&a.until_ready(1).await).ends_with("C[SELECT 1] Z[I]"));
}

#[tokio::test]
async fn trap_24_a_cancel_at_the_end_of_a_query_never_hits_the_next_clients() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let key = a.key.clone();
    b.query("SET work_mem = '5MB'").await;
    for round in 0..200_u64 {
        a.send(&query("SELECT pg_sleep(0.001)")).await;
        time::sleep(Duration::from_micros(round % 40 * 60)).await;
        let (answers, (), innocent) = tokio::join!(
            a.until_ready(1),
            cancel(&bench, &key),
            b.query("SELECT pg_sleep(0.002)"),
        );
        assert_eq!(answers.last().map(|m| m.tag), Some(b'Z'));
        assert!(!innocent.contains("57014"), "round {round}: {innocent}");
    }
    bench.all_home().await;
}
