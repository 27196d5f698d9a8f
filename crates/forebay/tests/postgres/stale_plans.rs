//! Plans that DDL has made useless (trap 16): healed where the client need not know, told in
//! the server's words where it must.

use crate::bench::Bench;
use crate::client::{Client, bind, close, describe, execute, flush, parse, query, run, show, sync};

const STALE: &str = "E[0A000 cached plan must not change result type]";
const ASK: &str = "SELECT * FROM t";

/// Bind and Execute of a named statement.
fn again(name: &str) -> Vec<u8> {
    [bind("", name, &[]), execute("", 0)].concat()
}

/// The same, as a client does it that wants to know the rows each time.
fn again_described(name: &str) -> Vec<u8> {
    [bind("", name, &[]), describe(b'P', ""), execute("", 0)].concat()
}

/// A table with one row, and a way to change it that the gateway does not see.
async fn table(bench: &Bench) -> Client {
    let mut direct = bench.direct().await;
    direct.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
    direct
}

#[tokio::test]
async fn trap_16_a_plan_that_is_out_of_date_is_made_anew_for_all_clients() {
    let bench = Bench::start(2).await;
    let mut direct = table(&bench).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..6 {
        let mut client = bench.client().await;
        assert_eq!(client.ask(&[parse("s", ASK), sync()]).await, "1 Z[I]");
        clients.push(client);
    }
    // Both server connections have the statement.
    let (mut one, mut other) = (clients.remove(0), clients.remove(0));
    for client in [&mut one, &mut other] {
        client.query("BEGIN").await;
        assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1] C[SELECT 1] Z[T]");
    }
    one.query("COMMIT").await;
    other.query("COMMIT").await;
    clients.extend([one, other]);
    for (round, row) in ["1|NULL", "1|NULL|NULL"].into_iter().enumerate() {
        direct.query(&format!("ALTER TABLE t ADD m{round} int")).await;
        for client in &mut clients {
            // Who has never asked what the rows look like knows nothing wrong.
            let answer = format!("2 D[{row}] C[SELECT 1] Z[I]");
            assert_eq!(client.ask(&[again("s"), sync()]).await, answer);
            assert_eq!(client.ask(&[again("s"), sync()]).await, answer);
        }
    }
    for (round, row) in ["1|NULL", "1"].into_iter().enumerate() {
        direct.query(&format!("ALTER TABLE t DROP m{round}")).await;
        for client in &mut clients {
            // Who asks each time is told anew.
            let answer = format!("2 T D[{row}] C[SELECT 1] Z[I]");
            assert_eq!(client.ask(&[again_described("s"), sync()]).await, answer);
        }
    }
    // The text was prepared anew once on each connection, not once for each client.
    let known = "SELECT max(n) <= 5 FROM (SELECT count(*) AS n FROM pg_prepared_statements) x";
    assert_eq!(clients[0].value(known).await, "t");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_who_was_told_of_the_rows_is_told_that_they_are_others() {
    let bench = Bench::start(1).await;
    let mut direct = table(&bench).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..2 {
        let mut client = bench.client().await;
        let prepare = [parse("s", ASK), describe(b'S', "s"), sync()];
        assert_eq!(client.ask(&prepare).await, "1 t T Z[I]");
        clients.push(client);
    }
    direct.query("ALTER TABLE t ADD m int").await;
    for client in &mut clients {
        assert_eq!(client.ask(&[again("s"), sync()]).await, format!("{STALE} Z[I]"));
        assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1|NULL] C[SELECT 1] Z[I]");
    }
    // To ask anew is to want to know.
    direct.query("ALTER TABLE t ADD o int").await;
    for client in &mut clients {
        assert_eq!(client.ask(&[describe(b'S', "s"), sync()]).await, "t T Z[I]");
        assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1|NULL|NULL] C[SELECT 1] Z[I]");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_in_a_transaction_an_outdated_plan_fails_it_as_in_postgres() {
    let bench = Bench::start(1).await;
    let mut direct = table(&bench).await;
    let mut client = bench.client().await;
    client.ask(&[parse("s", ASK), sync()]).await;
    direct.query("ALTER TABLE t ADD m int").await;
    client.query("BEGIN").await;
    client.query("SELECT 1").await;
    assert_eq!(client.ask(&[again("s"), sync()]).await, format!("{STALE} Z[E]"));
    client.query("ROLLBACK").await;
    assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1|NULL] C[SELECT 1] Z[I]");
    // A BEGIN that waited has begun a transaction, too.
    direct.query("ALTER TABLE t ADD o int").await;
    client.query("BEGIN").await;
    assert_eq!(client.ask(&[again("s"), sync()]).await, format!("{STALE} Z[E]"));
    client.query("ROLLBACK").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_what_is_prepared_behind_the_change_is_never_out_of_date() {
    let bench = Bench::start(1).await;
    let mut direct = table(&bench).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.ask(&[parse("s", ASK), describe(b'S', "s"), sync()]).await;
    // The name is new to this client, and the server has the text under its old shape.
    direct.query("ALTER TABLE t ADD m int").await;
    let batch = [parse("s", ASK), again_described("s"), close(b'S', "s"), sync()];
    assert_eq!(b.ask(&batch).await, "1 2 T D[1|NULL] C[SELECT 1] 3 Z[I]");
    direct.query("ALTER TABLE t ADD o int").await;
    let batch = [parse("s", ASK), again("s"), sync()];
    assert_eq!(b.ask(&batch).await, "1 2 D[1|NULL|NULL] C[SELECT 1] Z[I]");
    // By steps, with a Flush, and with a Close before.
    direct.query("ALTER TABLE t DROP m").await;
    a.send(&[close(b'S', "s"), parse("s", ASK), describe(b'S', "s"), flush()].concat()).await;
    assert_eq!(show(&a.until_tag(b'T').await), "3 1 t T");
    assert_eq!(a.ask(&[again("s"), sync()]).await, "2 D[1|NULL] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn an_outdated_plan_is_healed_before_its_sync_and_with_what_follows_it() {
    let bench = Bench::start(1).await;
    let mut direct = table(&bench).await;
    let mut client = bench.client().await;
    client.ask(&[parse("s", ASK), sync()]).await;
    direct.query("ALTER TABLE t ADD m int").await;
    client.send(&[again("s"), flush()].concat()).await;
    assert_eq!(show(&client.until_tag(b'C').await), "2 D[1|NULL] C[SELECT 1]");
    assert_eq!(client.ask(&[run("SELECT 2"), sync()]).await, "1 2 D[2] C[SELECT 1] Z[I]");
    // The whole batch is sent again, and its changes are made once.
    direct.query("ALTER TABLE t ADD o int").await;
    let batch =
        [again("s"), run("INSERT INTO t (n) VALUES (2)"), parse("new", "SELECT 'n'"), sync()];
    let answer = "2 D[1|NULL|NULL] C[SELECT 1] 1 2 C[INSERT 0 1] 1 Z[I]";
    assert_eq!(client.ask(&batch).await, answer);
    assert_eq!(client.ask(&[again("new"), sync()]).await, "2 D[n] C[SELECT 1] Z[I]");
    assert_eq!(client.value("SELECT count(*) FROM t").await, "2");
    bench.all_home().await;
}

#[tokio::test]
async fn an_outdated_plan_behind_answers_that_were_given_is_told() {
    let bench = Bench::start(1).await;
    let mut direct = table(&bench).await;
    let mut client = bench.client().await;
    client.ask(&[parse("s", ASK), sync()]).await;
    direct.query("ALTER TABLE t ADD m int").await;
    let batch = [run("SELECT 1"), again("s"), sync()];
    let answer = format!("1 2 D[1] C[SELECT 1] {STALE} Z[I]");
    assert_eq!(client.ask(&batch).await, answer);
    assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1|NULL] C[SELECT 1] Z[I]");
    // What was sent behind it must not run before it: so it is told there, too.
    direct.query("ALTER TABLE t ADD o int").await;
    let batch = [again("s"), sync(), query("SELECT 2"), again("s"), sync()];
    let answer = client.ask(&batch).await;
    assert!(
        answer.ends_with("T D[2] C[SELECT 1] Z[I] 2 D[1|NULL|NULL] C[SELECT 1] Z[I]"),
        "{answer}"
    );
    bench.all_home().await;
}

/// Keeps the connection that served last, so that the next client gets another.
async fn keeps(bench: &Bench) -> Client {
    let mut keeper = bench.client().await;
    keeper.query("BEGIN").await;
    keeper.query("SELECT 1").await;
    keeper
}

#[tokio::test]
async fn trap_16_a_connection_that_never_had_the_statement_knows_no_other_rows_than_its_client() {
    let bench = Bench::start(2).await;
    let mut direct = table(&bench).await;
    let mut client = bench.client().await;
    let prepare = [parse("s", ASK), describe(b'S', "s"), sync()];
    assert_eq!(client.ask(&prepare).await, "1 t T Z[I]");
    let mut keeper = keeps(&bench).await;
    // Nothing has changed: a second connection costs the client nothing that it sees.
    assert_eq!(client.ask(&[again("s"), again("s"), sync()]).await.matches("D[1]").count(), 2);
    direct.query("ALTER TABLE t ALTER n TYPE text").await;
    keeper.query("COMMIT").await;
    bench.all_home().await;
    // Both connections go, and with them all that was prepared.
    direct
        .query(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    assert_eq!(client.ask(&[again("s"), sync()]).await, format!("{STALE} Z[I]"));
    // It has been told.
    assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

/// Two connections, and a client that was told by a Describe of `what` what the rows of `s` are;
/// they are others now, and the connection that it gets next has never had the statement.
async fn told_elsewhere(what: &[Vec<u8>]) -> (Bench, Client, Client) {
    let bench = Bench::start(2).await;
    let mut direct = table(&bench).await;
    let mut client = bench.client().await;
    client.ask(what).await;
    let keeper = keeps(&bench).await;
    direct.query("ALTER TABLE t ADD m int").await;
    (bench, client, keeper)
}

#[tokio::test]
async fn trap_16_in_a_transaction_rows_that_are_others_fail_it() {
    let told = [parse("s", ASK), describe(b'S', "s"), sync()];
    let (bench, mut client, mut keeper) = told_elsewhere(&told).await;
    assert_eq!(client.query("BEGIN").await, "C[BEGIN] Z[T]");
    let batch = [parse("", "INSERT INTO t VALUES (7)"), again(""), again("s"), again(""), sync()];
    let answer = format!("1 2 C[INSERT 0 1] {STALE} Z[E]");
    assert_eq!(client.ask(&batch).await, answer);
    client.query("ROLLBACK").await;
    // Nor is anything kept of a batch without a BEGIN.
    let mut other = bench.client().await;
    assert_eq!(other.value("SELECT count(*) FROM t WHERE n = 7").await, "0");
    keeper.query("COMMIT").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_what_came_before_in_the_batch_is_undone_when_rows_are_others() {
    let told = [parse("s", ASK), describe(b'S', "s"), sync()];
    let (bench, mut client, mut keeper) = told_elsewhere(&told).await;
    let batch = [parse("", "INSERT INTO t VALUES (7)"), again(""), again("s"), sync()];
    assert_eq!(client.ask(&batch).await, format!("1 2 C[INSERT 0 1] {STALE} Z[I]"));
    assert_eq!(client.value("SELECT count(*) FROM t WHERE n = 7").await, "0");
    keeper.query("COMMIT").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_who_was_told_of_a_portal_is_told_of_other_rows() {
    let told = [parse("s", ASK), again_described("s"), sync()];
    let (bench, mut client, mut keeper) = told_elsewhere(&told).await;
    assert_eq!(client.ask(&[again("s"), sync()]).await, format!("{STALE} Z[I]"));
    keeper.query("COMMIT").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_who_asks_in_the_same_batch_gets_the_other_rows() {
    let told = [parse("s", ASK), again_described("s"), sync()];
    let (bench, mut client, mut keeper) = told_elsewhere(&told).await;
    let answer = "2 T D[1|NULL] C[SELECT 1] Z[I]";
    assert_eq!(client.ask(&[again_described("s"), sync()]).await, answer);
    // It knows now what others may still expect to be as before.
    assert_eq!(client.ask(&[again("s"), sync()]).await, "2 D[1|NULL] C[SELECT 1] Z[I]");
    keeper.query("COMMIT").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_a_portal_that_is_described_tells_nothing_of_another_ones_statement() {
    let bench = Bench::start(2).await;
    let mut client = bench.client().await;
    client.ask(&[parse("s", "SELECT 1, 'a'"), parse("o", "SELECT 2"), sync()]).await;
    let batch =
        [bind("c", "s", &[]), bind("", "o", &[]), describe(b'P', "c"), execute("", 0), sync()];
    assert_eq!(client.ask(&batch).await, "2 2 T D[2] C[SELECT 1] Z[I]");
    let mut keeper = keeps(&bench).await;
    assert_eq!(client.ask(&[again("o"), sync()]).await, "2 D[2] C[SELECT 1] Z[I]");
    keeper.query("COMMIT").await;
    bench.all_home().await;
}
