//! Prepared statements that SQL names and those that the protocol names are the same to
//! PostgreSQL, and so they are here.

use crate::bench::Bench;
use crate::client::{bind, close, describe, execute, parse, query, run, sync};
use crate::pipelines::alike;

fn again(name: &str, values: &[&str]) -> Vec<u8> {
    [bind("", name, values), execute("", 0)].concat()
}

fn batches() -> Vec<Vec<Vec<u8>>> {
    vec![
        vec![parse("s", "SELECT $1::int + 1"), parse("S 2", "SELECT 'two'"), sync()],
        vec![query("EXECUTE s(1)")],
        vec![query("execute \"S 2\"; SELECT 1; EXECUTE S (2); SELECT 3")],
        vec![query("EXPLAIN (COSTS OFF) EXECUTE s(3)")],
        vec![query("EXECUTE nobody")],
        vec![query("EXECUTE s(1, 2)")],
        vec![query("PREPARE s AS SELECT 2")],
        vec![query("BEGIN"), query("EXECUTE s(4)"), query("COMMIT"), query("EXECUTE s(5)")],
        vec![query("BEGIN; SELECT 1/0"), query("EXECUTE s(4)"), query("ROLLBACK")],
        vec![query("SELECT 1/0; DEALLOCATE s"), query("EXECUTE s(6)")],
        vec![query("DEALLOCATE s; EXECUTE s(1)"), again("s", &["1"]), sync()],
        vec![parse("s", "SELECT $1::int + 1"), sync(), again("s", &["1"]), sync()],
        vec![query("CREATE TABLE gone (n int)"), parse("g", "SELECT * FROM gone"), sync()],
        vec![query("DROP TABLE gone"), query("SELECT 1"), query("DEALLOCATE g")],
        vec![again("g", &[]), sync()],
        // What SQL names, the protocol has.
        vec![query("PREPARE p (int) AS SELECT $1 * 2")],
        vec![query("EXECUTE p(1)"), again("p", &["4"]), describe(b'S', "p"), sync()],
        vec![parse("p", "SELECT 1"), sync()],
        vec![parse("new", "SELECT 'new'"), again("new", &[]), again("s", &["1"]), sync()],
        vec![query("EXECUTE new; EXECUTE s(1)"), query("DEALLOCATE new")],
        vec![again("new", &[]), sync()],
        vec![query("BEGIN; SELECT 1/0"), parse("p", "ROLLBACK"), sync(), query("ROLLBACK")],
        vec![close(b'S', "p"), sync(), query("EXECUTE p(1)"), again("s", &["2"]), sync()],
        vec![query("DEALLOCATE ALL"), again("s", &["1"]), sync(), query("EXECUTE p(1)")],
        // DISCARD in all its forms.
        vec![parse("s", "SELECT 's'"), sync(), query("PREPARE q AS SELECT 'q'")],
        vec![query("DISCARD PLANS"), query("EXECUTE q"), again("s", &[]), sync()],
        vec![query("DISCARD SEQUENCES"), query("EXECUTE q"), query("EXECUTE s")],
        vec![query("DISCARD TEMP"), query("EXECUTE q"), again("q", &[]), sync()],
        vec![query("DISCARD ALL"), query("EXECUTE q"), again("s", &[]), sync(), query("EXECUTE s")],
        vec![parse("q", "SELECT 'again'"), again("q", &[]), run("DEALLOCATE q"), sync()],
        vec![again("q", &[]), sync()],
    ]
}

#[tokio::test]
async fn sql_and_protocol_share_the_names_of_prepared_statements() {
    let bench = Bench::start(2).await;
    alike(&bench, &batches()).await;
}

#[tokio::test]
async fn sql_finds_statements_that_the_server_at_hand_had_not_got() {
    let bench = Bench::with(2, |settings| settings.max_prepared_statements = 2).await;
    alike(&bench, &batches()).await;
}

#[tokio::test]
async fn a_statement_of_the_protocol_is_executed_by_sql_on_any_connection() {
    let bench = Bench::start(2).await;
    let mut client = bench.client().await;
    client.query("CREATE TABLE t (n int)").await;
    client.ask(&[parse("s", "SELECT 'mine'"), parse("g", "SELECT n FROM t"), sync()]).await;
    // The connection on which they are prepared is somebody else's for now.
    let mut holder = bench.client().await;
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    assert_eq!(client.query("EXECUTE s").await, "T D[mine] C[SELECT 1] Z[I]");
    bench.direct().await.query("DROP TABLE t").await;
    // What cannot be prepared any more is told once, and the client goes on.
    let missing = "E[42P01 relation \"t\" does not exist] Z[I]";
    assert_eq!(client.query("EXECUTE g").await, missing);
    assert_eq!(
        client.query("SELECT 1; DEALLOCATE g").await,
        "T D[1] C[SELECT 1] C[DEALLOCATE] Z[I]"
    );
    let unknown = "E[26000 prepared statement \"g\" does not exist] Z[I]";
    assert_eq!(client.query("EXECUTE g").await, unknown);
    holder.query("COMMIT").await;
    bench.all_home().await;
}
