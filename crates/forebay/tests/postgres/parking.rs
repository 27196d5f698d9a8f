//! Parking: an open transaction that idles and holds nothing gives its connection back, and its
//! client notices nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_pool::class::ParkWhen;
use forebay_pool::{ClassName, ClassSettings, Mode, Share};
use forebay_postgres::{ParkingCounts, PostgresSettings};

use forebay_seam::time;

use crate::bench::{Bench, until};
use crate::client::{bind, describe, execute, parse, run, sync};

/// Parks whatever idles.
pub(crate) fn forced(settings: &mut PostgresSettings) {
    parks(settings, |_| {});
}

/// As [`forced`], with this change of each class. Classes have the connections that the budget
/// says, besides the one that transactions are looked at from.
pub(crate) fn parks(settings: &mut PostgresSettings, change: impl Fn(&mut ClassSettings)) {
    let server = settings.servers.get_mut("main").unwrap();
    let lanes = server.budget.unwrap();
    server.budget = Some(lanes.max(2) + 1);
    server.classes = ClassSettings::defaults()
        .into_iter()
        .map(|(name, mut class)| {
            class.parking = Mode::Enforce;
            class.park_after = Duration::ZERO;
            class.park_when = ParkWhen::Idle;
            if lanes == 1 {
                class.guarantee = Share::Seats(0);
                class.ceiling = Some(Share::Seats(1));
            }
            change(&mut class);
            (name, class)
        })
        .collect::<BTreeMap<ClassName, ClassSettings>>();
    server.parking.proofs_per_second = 100_000;
}

/// What parking came to in the class `core`.
pub(crate) fn counts(bench: &Bench) -> ParkingCounts {
    let snapshot = bench.gateway.snapshot();
    let classes = &snapshot.parking["main"].classes;
    classes.iter().find(|class| class.class.as_str() == "core").unwrap().clone()
}

/// Waits until `client`'s transaction is parked, or is said to stay.
pub(crate) async fn is_parked(bench: &Bench) {
    for _ in 0..300 {
        if counts(bench).parked > 0 {
            return bench.all_home().await;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it stays: {:?}", bench.gateway.snapshot().parking);
}

async fn tables(bench: &Bench) {
    bench.direct().await.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)").await;
}

#[tokio::test]
async fn a_transaction_that_has_only_read_is_parked_and_goes_on() {
    let bench = Bench::with(1, forced).await;
    tables(&bench).await;
    let mut client = bench.client().await;
    assert_eq!(client.query("BEGIN").await, "C[BEGIN] Z[T]");
    assert_eq!(client.query("SELECT n FROM t ORDER BY n").await, "T D[1] D[2] C[SELECT 2] Z[T]");
    is_parked(&bench).await;
    // Its connection serves somebody else meanwhile.
    assert_eq!(bench.client().await.query("INSERT INTO t VALUES (3)").await, "C[INSERT 0 1] Z[I]");
    assert_eq!(
        client.query("SELECT n FROM t ORDER BY n").await,
        "T D[1] D[2] D[3] C[SELECT 3] Z[T]"
    );
    assert_eq!(client.query("DELETE FROM t WHERE n = 1").await, "C[DELETE 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(bench.truth("SELECT count(*) FROM t").await, "2");
    let counts = counts(&bench);
    assert_eq!((counts.parks, counts.resumed, counts.lost, counts.parked), (1, 1, 0, 0));
}

#[tokio::test]
async fn statements_of_the_extended_protocol_are_parked_behind_and_stay_prepared() {
    let bench = Bench::with(1, forced).await;
    tables(&bench).await;
    let mut client = bench.client().await;
    let first = [run("BEGIN"), parse("s", "SELECT n FROM t WHERE n = $1"), bind("", "s", &["2"])];
    let first = [first.concat(), execute("", 0), sync()].concat();
    assert_eq!(client.ask(&[first.clone(), sync()][..1]).await, "");
    drop(client.until_ready(1).await);
    is_parked(&bench).await;
    assert_eq!(
        client.ask(&[bind("", "s", &["1"]), describe(b'P', ""), execute("", 0), sync()]).await,
        "2 T D[1] C[SELECT 1] Z[T]"
    );
    is_parked(&bench).await;
    assert_eq!(client.ask(&[run("COMMIT"), sync()]).await, "1 2 C[COMMIT] Z[I]");
    assert_eq!(counts(&bench).parked, 0);
}

#[tokio::test]
async fn a_transaction_that_has_written_stays() {
    let bench = Bench::with(2, forced).await;
    tables(&bench).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT n FROM t").await;
    is_parked(&bench).await;
    client.query("UPDATE t SET n = 5 WHERE n = 1").await;
    until("it was refused", async || counts(&bench).refusals.get("not_a_select") == Some(&1)).await;
    assert_eq!((bench.leased(), counts(&bench).parked), (1, 0));
    client.query("SELECT n FROM t").await;
    until("again", async || counts(&bench).refusals.get("not_a_select") == Some(&2)).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(bench.truth("SELECT count(*) FROM t WHERE n = 5").await, "1");
}

#[tokio::test]
async fn a_parked_client_that_disappears_leaves_nothing() {
    let bench = Bench::with(1, forced).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    crate::client::vanish(client);
    until("nobody is parked", async || counts(&bench).parked == 0).await;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' \
                AND datname = current_database()";
    assert_eq!(bench.truth(idle).await, "0");
    assert_eq!((bench.leased(), bench.waiting()), (0, 0));
}

#[tokio::test]
async fn the_end_of_a_parked_transaction_needs_no_server() {
    let bench = Bench::with(1, forced).await;
    let (mut client, mut other) = (bench.client().await, bench.client().await);
    for end in ["COMMIT", "ROLLBACK"] {
        client.query("BEGIN").await;
        client.query("SELECT 1").await;
        is_parked(&bench).await;
        other.query("BEGIN").await;
        other.query("CREATE TABLE IF NOT EXISTS x ()").await;
        assert_eq!(client.query(end).await, format!("C[{end}] Z[I]"));
        other.query("ROLLBACK").await;
    }
    assert_eq!(counts(&bench).resumed, 0);
}

#[tokio::test]
async fn who_gets_no_connection_in_its_time_is_told_to_begin_again() {
    let bench = Bench::with(1, |settings| {
        parks(settings, |class| class.unpark_timeout = Duration::from_millis(50));
    })
    .await;
    let (mut client, mut other) = (bench.client().await, bench.client().await);
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    other.query("BEGIN").await;
    other.query("CREATE TABLE x ()").await;
    let told = client.query("SELECT 1").await;
    assert!(told.starts_with("E[40001 ") && told.ends_with("Z[E]"), "{told}");
    assert!(client.query("SELECT 1").await.starts_with("E[25P02 "));
    assert_eq!(client.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    other.query("ROLLBACK").await;
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    assert_eq!(counts(&bench).lost, 1);
}
