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
async fn a_cancel_that_comes_together_with_the_connection_is_not_lost() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for _ in 0..60 {
        a.query("BEGIN").await;
        a.query("SELECT 1").await;
        b.send(&query("SELECT pg_sleep(30)")).await;
        until("it waits", async || bench.waiting() == 1).await;
        let mut request = Client::bare(bench.address).await;
        let (ask, commit) = (cancel_request(&b.key), query("COMMIT"));
        tokio::join!(request.send(&ask), a.send(&commit));
        a.until_ready(1).await;
        let answer = show(&b.until_ready(1).await);
        assert!(answer.ends_with(CANCELLED), "{answer}");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn a_cancel_request_is_heard_where_no_client_has_room() {
    let bench = Bench::with(1, |settings| settings.max_clients = 1).await;
    let mut a = bench.client().await;
    // Who says nothing beyond the limit has no client's place, and cannot hold one.
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(Client::bare(bench.address).await);
    }
    until("they are told", async || bench.gateway.snapshot().refused >= 6).await;
    silent.clear();
    let refused = async || Client::connect(bench.address, &bench.database, &[]).await.err();
    assert_eq!(refused().await.unwrap(), "E[53300 sorry, too many clients already]");
    a.send(&query("SELECT pg_sleep(30)")).await;
    runs(&bench, "SELECT pg_sleep").await;
    cancel(&bench, &a.key.clone()).await;
    assert!(show(&a.until_ready(1).await).ends_with(CANCELLED));
    drop(a);
    until("there is room again", async || refused().await.is_none()).await;
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

/// What `pid` runs, if it is one of ours that sleeps for `n`.
fn sleeper(n: usize) -> String {
    format!("SELECT pg_sleep(20) /* sleeper {n} */")
}

#[tokio::test]
async fn a_cancel_at_any_moment_hits_its_clients_statement_and_no_other() {
    const CLIENTS: usize = 12;
    const ROUNDS: usize = 16;
    let bench = std::sync::Arc::new(Bench::start(3).await);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        // Settings that differ, so that most statements have one of ours ahead of them.
        let path = format!("a{n}");
        let start = [("search_path", &*path), ("work_mem", "9MB")];
        clients.push(Client::connect(bench.address, &bench.database, &start).await.unwrap());
    }
    let tasks = clients.into_iter().enumerate().map(|(n, mut client)| {
        let bench = std::sync::Arc::clone(&bench);
        tokio::spawn(async move {
            let key = client.key.clone();
            for round in 0..ROUNDS {
                let moment =
                    Duration::from_micros(u64::try_from(n * 331 + round * 197).unwrap() % 4000);
                match (n + round) % 4 {
                    // Nobody cancels it.
                    0 | 1 => {
                        let answer = client.query("BEGIN; SELECT pg_sleep(0.001); COMMIT").await;
                        assert!(answer.ends_with("C[COMMIT] Z[I]"), "{n} {round}: {answer}");
                        assert_eq!(client.value("SHOW search_path").await, format!("a{n}"));
                    }
                    // At any moment of its life, and it must end. Before that moment, it is
                    // the request that comes first, and is for nothing.
                    2 => {
                        client.send(&query(&sleeper(n))).await;
                        time::sleep(moment).await;
                        cancel(&bench, &key).await;
                        let pause = Duration::from_millis(700);
                        while time::timeout(pause, client.stream.readable()).await.is_err() {
                            cancel(&bench, &key).await;
                        }
                        let answer = show(&client.until_ready(1).await);
                        assert!(answer.ends_with(CANCELLED), "{n} {round}: {answer}");
                    }
                    // When it has perhaps ended: the one behind it was not meant.
                    _ => {
                        client.query("BEGIN").await;
                        client.send(&query("SELECT pg_sleep(0.002)")).await;
                        let cancelling = async {
                            time::sleep(moment).await;
                            cancel(&bench, &key).await;
                        };
                        let (first, ()) = tokio::join!(client.until_ready(1), cancelling);
                        let ready = first.last().unwrap().clone();
                        let next = client.query("SELECT 2").await;
                        if ready.body == b"T" {
                            assert_eq!(next, "T D[2] C[SELECT 1] Z[T]", "{n} {round}");
                        }
                        client.query("ROLLBACK").await;
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_25_a_cancel_that_comes_while_start_settings_are_put_back_does_no_harm() {
    let bench = Bench::with(1, |settings| {
        settings.pool_mode = forebay_postgres::settings::PoolMode::Session;
    })
    .await;
    let start = [("search_path", "elsewhere"), ("work_mem", "9MB")];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    let key = a.key.clone();
    for round in 0..100_u64 {
        // Behind it we put the start value back.
        a.send(&query("RESET work_mem; SELECT pg_sleep(0.001)")).await;
        let cancelling = async {
            time::sleep(Duration::from_micros(round % 25 * 100)).await;
            cancel(&bench, &key).await;
        };
        let (answer, ()) = tokio::join!(a.until_ready(1), cancelling);
        let answer = show(&answer);
        assert!(answer.ends_with("Z[I]"), "{answer}");
        assert_eq!(a.value("SHOW work_mem").await, "9MB", "round {round} {answer}");
    }
}
