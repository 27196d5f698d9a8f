//! When transactions are parked and when not, and what stays as it was.

use std::time::Duration;

use forebay_pool::overlap::OutboundCall;
use forebay_pool::{Mode, ParkWhen};
use forebay_seam::{net, time};
use tokio::io::AsyncWriteExt;

use crate::bench::{Bench, until};
use crate::client::{Client, bind, cancel_request, execute, parse, sync};
use crate::parking::{counts, forced, is_parked, parks};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn contended(budget: u32) -> Bench {
    Bench::with(budget, |settings| {
        parks(settings, |class| class.park_when = ParkWhen::Contended);
    })
    .await
}

/// A client in a transaction that has read.
async fn reader(bench: &Bench) -> Client {
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    client
}

#[tokio::test]
async fn a_transaction_is_parked_when_somebody_waits_and_not_before() {
    let bench = contended(1).await;
    let mut client = reader(&bench).await;
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!((counts(&bench).parks, bench.leased()), (0, 1));
    assert_eq!(bench.client().await.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    assert_eq!(counts(&bench).parks, 1);
    assert_eq!(client.query("SELECT 3").await, "T D[3] C[SELECT 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn of_many_that_idle_only_as_many_are_parked_as_wait() {
    let bench = contended(4).await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(reader(&bench).await);
    }
    bench.client().await.query("SELECT 2").await;
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!((counts(&bench).parks, bench.leased()), (1, 3));
}

#[tokio::test]
async fn a_transaction_that_cannot_be_parked_passes_the_call_on() {
    let bench = contended(2).await;
    let mut writer = bench.client().await;
    writer.query("BEGIN").await;
    writer.query("CREATE TABLE w ()").await;
    let _reader = reader(&bench).await;
    assert_eq!(bench.client().await.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[I]");
    assert_eq!(counts(&bench).refusals.get("not_a_select"), Some(&1));
    assert_eq!(writer.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn a_transaction_is_parked_when_a_call_of_its_request_begins() {
    let bench = Bench::with(2, |settings| {
        parks(settings, |class| {
            class.park_when = ParkWhen::Contended;
            class.park_after = Duration::from_secs(600);
        });
    })
    .await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query(&format!("SELECT 1 /*traceparent='{TRACE}'*/")).await;
    until("it idles", async || !bench.overlaps.holds().is_empty()).await;
    let request = bench.overlaps.holds()[0].request.clone();
    let call = OutboundCall {
        tenant: "default".into(),
        feature: "".into(),
        peer: None,
        destination: "llm".into(),
        operation: "POST /v1/chat".into(),
        subject: None,
    };
    let calling = bench.overlaps.call_begins(Some(&request), call);
    is_parked(&bench).await;
    drop(calling);
    let kinds: Vec<_> = bench.overlaps.counts().iter().map(|c| c.kind.name()).collect();
    assert!(kinds.contains(&"parked"), "{kinds:?}");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn who_only_observes_counts_what_it_could_have_parked() {
    let bench = Bench::with(2, |settings| {
        parks(settings, |class| class.parking = Mode::Observe);
    })
    .await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.ask(&[parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), sync()]).await;
    until("it could be parked", async || counts(&bench).could_park == 1).await;
    assert_eq!((bench.leased(), counts(&bench).parks), (1, 0));
    client.query("CREATE TABLE w ()").await;
    until("it could not", async || !counts(&bench).refusals.is_empty()).await;
    assert!(counts(&bench).could_seconds > 0.0);
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn transaction_options_are_kept() {
    let bench = Bench::with(1, forced).await;
    let mut client = bench.client().await;
    client.query("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY, DEFERRABLE").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    assert_eq!(client.value("SELECT current_setting('transaction_read_only')").await, "on");
    is_parked(&bench).await;
    assert_eq!(client.value("SELECT current_setting('transaction_deferrable')").await, "on");
    assert!(client.query("CREATE TABLE x ()").await.starts_with("E[25006 "));
}

#[tokio::test]
async fn settings_of_the_session_follow_it_to_another_connection() {
    let bench = Bench::with(1, forced).await;
    let (mut client, mut other) = (bench.client().await, bench.client().await);
    client.query("SET TimeZone = 'Asia/Tokyo'; SET app.tenant = 'a'").await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    other.query("SET TimeZone = 'Europe/Paris'; SET app.tenant = 'b'").await;
    assert_eq!(client.value("SELECT current_setting('timezone')").await, "Asia/Tokyo");
    is_parked(&bench).await;
    other.query("SELECT 1").await;
    assert_eq!(client.value("SELECT current_setting('app.tenant')").await, "a");
    assert_eq!(client.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn what_may_hold_something_stays_and_says_why() {
    let bench = Bench::with(2, |settings| {
        forced(settings);
        let server = settings.servers.get_mut("main").unwrap();
        server.parking.relations = vec!["public.known".into()];
    })
    .await;
    bench
        .direct()
        .await
        .query(
            "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2); \
             CREATE VIEW v AS SELECT set_config('app.x', 'y', false); \
             CREATE TABLE p (n int); ALTER TABLE p ENABLE ROW LEVEL SECURITY; \
             CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
        )
        .await;
    let mut client = bench.client().await;
    for (statement, reason) in [
        ("SELECT n FROM t FOR UPDATE", "row_locks"),
        ("SELECT pg_advisory_xact_lock(1)", "volatile_function"),
        ("SELECT set_config('app.x', 'y', true)", "volatile_function"),
        ("SELECT f()", "own_function"),
        ("DECLARE c CURSOR FOR SELECT 1", "not_a_select"),
        ("SAVEPOINT s", "not_a_select"),
        ("SET LOCAL app.x = 'y'", "not_a_select"),
        ("LISTEN c", "not_a_select"),
        ("SELECT 1; SELECT 2", "several_statements"),
        ("SELECT * FROM v", "not_a_table"),
        ("SELECT * FROM p", "names_row_security"),
    ] {
        let before = counts(&bench);
        client.query("BEGIN").await;
        let answer = client.query(statement).await;
        assert!(answer.ends_with("Z[T]"), "{answer}");
        until(statement, async || {
            counts(&bench).refusals.values().sum::<u64>() > before.refusals.values().sum()
        })
        .await;
        let now = counts(&bench);
        let of = |counts: &forebay_postgres::ParkingCounts| counts.refusals.get(reason).copied();
        assert_ne!(of(&now), of(&before), "{statement}: {:?}", now.refusals);
        assert_eq!(now.parks, 0, "{statement}");
        client.query("ROLLBACK").await;
        client.query("UNLISTEN *").await;
    }
    let told = bench.gateway.snapshot().parking["main"].unparkable.clone();
    assert!(told.iter().any(|one| one.reason == "own_function" && one.statement.contains("f()")));
}

#[tokio::test]
async fn a_portal_with_rows_left_and_a_higher_isolation_stay() {
    let bench = Bench::with(2, forced).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    let some = [parse("", "SELECT 1 UNION SELECT 2"), bind("", "", &[]), execute("", 1), sync()];
    client.ask(&some).await;
    until("a portal", async || counts(&bench).refusals.contains_key("open_portal")).await;
    let rest = client.ask(&[execute("", 0), sync()]).await;
    assert_eq!(rest, "D[2] C[SELECT 1] Z[T]");
    is_parked(&bench).await;
    client.query("COMMIT").await;
    client.query("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    client.query("SELECT 1").await;
    until("isolation", async || counts(&bench).refusals.contains_key("isolation")).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn the_servers_idle_timeout_counts_while_a_transaction_is_parked() {
    let bench = Bench::with(1, forced).await;
    let timeout = [("options", "-c idle_in_transaction_session_timeout=200")];
    let mut client = Client::connect(bench.address, &bench.database, &timeout).await.unwrap();
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    let told = client.receive().await.unwrap();
    assert_eq!(crate::client::field(&told, b'C'), "25P03");
    assert!(client.is_sent_away().await);
    until("nothing is left", async || counts(&bench).parked == 0).await;
}

#[tokio::test]
async fn a_transaction_that_goes_on_may_change_the_servers_idle_timeout() {
    let bench = Bench::with(1, forced).await;
    let timeout = [("options", "-c idle_in_transaction_session_timeout=1000")];
    let mut client = Client::connect(bench.address, &bench.database, &timeout).await.unwrap();
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    is_parked(&bench).await;
    let unlimited = "SET LOCAL idle_in_transaction_session_timeout = 0";
    assert_eq!(client.query(unlimited).await, "C[SET] Z[T]");
    time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}

#[tokio::test]
async fn a_cancel_hits_nothing_while_parked_and_ends_the_wait_of_who_goes_on() {
    let bench = Bench::with(1, forced).await;
    let mut client = reader(&bench).await;
    is_parked(&bench).await;
    let cancel = async || {
        let mut stream = net::connect(&[bench.address]).await.unwrap();
        stream.write_all(&cancel_request(&client.key)).await.unwrap();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
    };
    cancel().await;
    assert_eq!(counts(&bench).parked, 1);
    let mut other = bench.client().await;
    other.query("BEGIN").await;
    other.query("CREATE TABLE x ()").await;
    client.send(&crate::client::query("SELECT 1")).await;
    until("it waits", async || bench.waiting() == 1).await;
    let cancel = cancel_request(&client.key);
    let mut stream = net::connect(&[bench.address]).await.unwrap();
    stream.write_all(&cancel).await.unwrap();
    let told = crate::client::show(&client.until_ready(1).await);
    assert!(told.starts_with("E[57014 ") && told.ends_with("Z[E]"), "{told}");
    assert_eq!(client.query("COMMIT").await, "C[ROLLBACK] Z[I]");
    assert_eq!(counts(&bench).lost, 0);
}

#[tokio::test]
async fn a_server_that_does_not_show_locks_parks_nothing_and_says_so() {
    let bench = Bench::with(2, forced).await;
    bench
        .direct()
        .await
        .query(
            "CREATE ROLE blind LOGIN; REVOKE ALL ON pg_catalog.pg_locks FROM PUBLIC; \
             REVOKE ALL ON FUNCTION pg_catalog.pg_lock_status() FROM PUBLIC",
        )
        .await;
    let first = crate::client::startup(&[("user", "blind"), ("database", &bench.database)]);
    let mut client = Client::start(bench.address, &first).await.unwrap();
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    let closed = || bench.gateway.snapshot().parking["main"].closed.clone();
    until("it is closed", async || closed().is_some()).await;
    assert!(closed().unwrap().contains("pg_lock"), "{:?}", closed());
    assert_eq!(client.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    until("refused", async || counts(&bench).refusals.contains_key("closed")).await;
    bench.direct().await.query("DROP ROLE blind").await;
}

#[tokio::test]
async fn many_that_think_between_their_statements_share_few_connections() {
    let bench = Bench::with(2, |settings| {
        parks(settings, |class| class.unpark_timeout = Duration::from_secs(30));
    })
    .await;
    bench.direct().await.query("CREATE TABLE done (n int)").await;
    let mut agents = Vec::new();
    for n in 0..12_u64 {
        let mut client = bench.client().await;
        agents.push(tokio::spawn(async move {
            for step in 0..6_u64 {
                assert_eq!(client.query("BEGIN").await, "C[BEGIN] Z[T]");
                for read in 0..3_u64 {
                    let sql = format!("SELECT {n} + {step}");
                    let answer = client.query(&sql).await;
                    assert_eq!(answer, format!("T D[{}] C[SELECT 1] Z[T]", n + step));
                    // Sometimes while it is being proved that it holds nothing.
                    time::sleep(Duration::from_micros((n * 7 + step * 13 + read * 29) % 40 * 100))
                        .await;
                }
                let told = client.query(&format!("INSERT INTO done VALUES ({n})")).await;
                assert_eq!(told, "C[INSERT 0 1] Z[T]");
                assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
            }
        }));
    }
    for agent in agents {
        agent.await.unwrap();
    }
    assert_eq!(bench.truth("SELECT count(*) FROM done").await, "72");
    let counts = counts(&bench);
    assert!(counts.parks > 0 && counts.lost == 0 && counts.parked == 0, "{counts:?}");
    assert_eq!(counts.parks, counts.resumed);
}

#[tokio::test]
async fn a_view_is_read_by_what_is_parked_only_where_the_operator_lists_it() {
    let bench = Bench::with(2, |settings| {
        forced(settings);
        let server = settings.servers.get_mut("main").unwrap();
        server.parking.relations = vec!["public.listed".to_owned()];
    })
    .await;
    let definitions = "CREATE TABLE t (n int); CREATE VIEW listed AS SELECT n FROM t; \
                       CREATE VIEW other AS SELECT n FROM t";
    bench.direct().await.query(definitions).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    client.query("SELECT n FROM other").await;
    until("it stays", async || counts(&bench).refusals.get("not_a_table") == Some(&1)).await;
    client.query("ROLLBACK").await;
    client.query("BEGIN").await;
    client.query("SELECT n FROM listed").await;
    is_parked(&bench).await;
    assert_eq!(client.query("COMMIT").await, "C[COMMIT] Z[I]");
}
