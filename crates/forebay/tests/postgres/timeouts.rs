//! What lasts too long is ended: a statement by a cancel, so that its client goes on; a
//! transaction or a silent client by its own SQLSTATE, and the server connection serves on.

use std::time::Duration;

use forebay_postgres::PostgresSettings;
use forebay_postgres::settings::{DatabaseSettings, UserSettings};
use forebay_seam::time;
use tokio::io::AsyncReadExt;

use crate::bench::{Bench, USER, until};
use crate::client::{Client, field, parse, query, run, show, sync};

/// Long enough that a statement which is no sleep is over by then.
const SHORT: Duration = Duration::from_millis(250);

async fn limited(change: impl FnOnce(&mut PostgresSettings)) -> Bench {
    Bench::with(1, change).await
}

/// The process behind the client's connection.
async fn backend(client: &mut Client) -> String {
    client.value("SELECT pg_backend_pid()").await
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled_and_its_session_goes_on() {
    let bench = limited(|settings| settings.query_timeout = SHORT).await;
    let mut client = bench.client().await;
    let before = backend(&mut client).await;
    client.send(&query("SELECT pg_sleep(60)")).await;
    let told = client.until_ready(1).await;
    let error = told.iter().find(|message| message.tag == b'E').unwrap();
    let of = |kind| field(error, kind);
    assert_eq!((of(b'S'), of(b'C')), ("ERROR".into(), "57014".into()));
    assert_eq!(of(b'M'), "canceling statement due to statement timeout");
    assert!(of(b'D').contains("`query_timeout`"), "{}", of(b'D'));
    assert_eq!(show(&told[told.len() - 1..]), "Z[I]");
    assert_eq!(backend(&mut client).await, before, "the connection serves on");
    assert_eq!(bench.gateway.snapshot().timeouts.query, 1);
    // In a transaction, it fails it as any error does.
    client.query("BEGIN").await;
    let told = client.query("SELECT pg_sleep(60)").await;
    assert!(told.ends_with("Z[E]"), "{told}");
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!(backend(&mut client).await, before);
}

/// Each statement has its own time, however many are sent at once.
#[tokio::test]
async fn statements_of_a_pipeline_that_are_short_each_are_not_too_long_together() {
    let bench = limited(|settings| settings.query_timeout = 2 * SHORT).await;
    let mut client = bench.client().await;
    let short = [run("SELECT pg_sleep(0.2)"), sync()].concat();
    client.send(&[short.repeat(5), run("SELECT pg_sleep(60)"), sync()].concat()).await;
    let told = show(&client.until_ready(6).await);
    assert_eq!(told.matches("C[SELECT 1] Z[I]").count(), 5, "{told}");
    assert!(told.ends_with("E[57014 canceling statement due to statement timeout] Z[I]"), "{told}");
    assert_eq!(bench.gateway.snapshot().timeouts.query, 1);
}

#[tokio::test]
async fn the_smallest_limit_of_gateway_database_and_user_counts() {
    let user = UserSettings { query_timeout: SHORT, ..UserSettings::default() };
    let bench = limited(|settings| {
        settings.query_timeout = Duration::from_secs(40);
        settings.users.insert(USER.into(), user);
    })
    .await;
    let told = bench.client().await.query("SELECT pg_sleep(30)").await;
    assert!(told.contains("E[57014 "), "{told}");
    let bench = limited(|settings| {
        let quick = DatabaseSettings { query_timeout: SHORT, ..DatabaseSettings::default() };
        let named = DatabaseSettings { database: Some("postgres".into()), ..quick };
        settings.databases.insert("quick".into(), named);
    })
    .await;
    let mut client = Client::connect(bench.address, "quick", &[]).await.unwrap();
    let told = client.query("SELECT pg_sleep(30)").await;
    assert!(told.contains("E[57014 "), "{told}");
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_rolled_back_and_its_connection_serves_on() {
    let bench = limited(|settings| settings.transaction_timeout = 2 * SHORT).await;
    let mut admin = bench.direct().await;
    admin.query("CREATE TABLE t (n int)").await;
    let before = backend(&mut bench.client().await).await;
    for last in ["SELECT 1", "SELECT pg_sleep(60)"] {
        let mut client = bench.client().await;
        client.query("BEGIN").await;
        client.query("INSERT INTO t VALUES (1)").await;
        client.send(&query(last)).await;
        let told = show(&client.until_tag(b'E').await);
        let reason = "E[25P04 terminating connection due to transaction timeout]";
        assert!(told.ends_with(reason), "{told}");
        assert!(client.is_sent_away().await);
        bench.all_home().await;
        assert_eq!(admin.value("SELECT count(*) FROM t").await, "0");
        assert_eq!(backend(&mut bench.client().await).await, before, "behind `{last}`");
    }
    assert_eq!(bench.gateway.snapshot().timeouts.transaction, 2);
    // A statement by itself is one, too; short ones in a row are not.
    let mut client = bench.client().await;
    for _ in 0..3 {
        client.query("SELECT pg_sleep(0.2)").await;
    }
    client.send(&query("SELECT pg_sleep(60)")).await;
    assert!(show(&client.until_ready(1).await).starts_with("E[25P04 "));
}

#[tokio::test]
async fn a_client_that_is_silent_in_a_transaction_is_sent_away_and_its_locks_are_free() {
    let bench = limited(|settings| settings.idle_transaction_timeout = SHORT).await;
    let before = backend(&mut bench.client().await).await;
    for last in ["SELECT pg_advisory_xact_lock(1)", "SELECT 1/0", ""] {
        let mut client = bench.client().await;
        client.query("BEGIN").await;
        client.query(last).await;
        let told = show(&client.until_ready(1).await);
        assert_eq!(told, "E[25P03 terminating connection due to idle-in-transaction timeout]");
        bench.all_home().await;
        assert_eq!(backend(&mut bench.client().await).await, before);
    }
    // What runs is not silent, and outside of transactions it may be.
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    assert!(client.query("SELECT pg_sleep(0.4)").await.ends_with("Z[T]"));
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    time::sleep(2 * SHORT).await;
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    assert_eq!(bench.gateway.snapshot().timeouts.idle_transaction, 3);
}

#[tokio::test]
async fn a_client_that_asks_nothing_is_sent_away_and_one_that_does_is_not() {
    let bench = limited(|settings| settings.client_idle_timeout = 3 * SHORT).await;
    let (mut silent, mut busy) = (bench.client().await, bench.client().await);
    for _ in 0..10 {
        time::sleep(SHORT / 2).await;
        assert_eq!(busy.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    }
    let told = show(&silent.until_ready(1).await);
    assert_eq!(told, "E[57P05 terminating connection due to idle-session timeout]");
    assert!(busy.query("BEGIN; SELECT pg_sleep(0.8)").await.ends_with("Z[T]"));
    assert_eq!(bench.gateway.snapshot().timeouts.client_idle, 1);
}

#[tokio::test]
async fn a_wait_in_line_ends_as_the_gateway_says_whatever_the_class_says() {
    let bench = limited(|settings| settings.query_wait_timeout = SHORT).await;
    let (mut holder, mut waits) = (bench.client().await, bench.client().await);
    holder.query("BEGIN; SELECT 1").await;
    let told = waits.query("SELECT 1").await;
    assert!(told.starts_with("E[53300 ") && told.ends_with("Z[I]"), "{told}");
    holder.query("COMMIT").await;
    assert_eq!(waits.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
}

/// A process of the server's that does not move obeys nobody.
#[tokio::test]
async fn a_server_that_does_not_obey_a_cancel_loses_the_connection() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let bench = Bench::with(2, |settings| {
        (settings.query_timeout, settings.cancel_wait_timeout) = (SHORT, SHORT);
    })
    .await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    let frozen = Pid::from_raw(backend(&mut client).await.parse().unwrap());
    kill(frozen, Signal::SIGSTOP).unwrap();
    client.send(&query("SELECT 1")).await;
    let told = client.until_ready(1).await;
    kill(frozen, Signal::SIGCONT).unwrap();
    let error = &told[0];
    assert_eq!((field(error, b'S'), field(error, b'C')), ("FATAL".into(), "57014".into()));
    assert!(field(error, b'D').contains("unknown"), "{}", field(error, b'D'));
    assert!(client.is_sent_away().await);
    assert_eq!(bench.gateway.snapshot().timeouts.disobeyed, 1);
    assert_eq!(bench.client().await.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

/// Bytes behind half a row would be read as its rest.
#[tokio::test]
async fn nothing_is_said_in_the_middle_of_a_row() {
    let bench = limited(|settings| settings.transaction_timeout = 8 * SHORT).await;
    let mut client = bench.client().await;
    client.send(&query("SELECT repeat('x', 50000000)")).await;
    let mut told = vec![0; 100_000];
    client.stream.read_exact(&mut told).await.unwrap();
    // It reads no more until the time is over.
    let over = async || bench.gateway.snapshot().timeouts.transaction == 1;
    until("the transaction has timed out", over).await;
    client.stream.read_to_end(&mut told).await.unwrap();
    assert!(told.len() < 50_000_000 && told.ends_with(b"x"), "{} bytes", told.len());
    bench.all_home().await;
}

#[tokio::test]
async fn an_unfinished_batch_does_not_run_for_ever() {
    let bench = limited(|settings| {
        (settings.query_timeout, settings.cancel_wait_timeout) = (SHORT, SHORT);
    })
    .await;
    let mut client = bench.client().await;
    client.send(&[run("SELECT 1"), crate::client::flush()].concat()).await;
    let told = show(&client.until_ready(1).await);
    assert!(told.starts_with("1 2 D[1] C[SELECT 1]") && told.contains("57014"), "{told}");
    bench.all_home().await;
    // What was never whole has not begun.
    let mut client = bench.client().await;
    client.send(&parse("", "SELECT 1")).await;
    time::sleep(3 * SHORT).await;
    client.send(&sync()).await;
    assert_eq!(show(&client.until_ready(1).await), "1 Z[I]");
}
