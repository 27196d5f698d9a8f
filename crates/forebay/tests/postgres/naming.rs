//! Unnamed statements that get names (`name_unnamed`): nobody sees it but the server.

use forebay_pool::ClassName;

use crate::bench::Bench;
use crate::client::{Client, bind, close, describe, execute, flush, parse, query, run, show, sync};
use crate::statuses::{answers, exactly};

async fn bench(budget: u32) -> Bench {
    Bench::with(budget, |settings| {
        settings.servers.get_mut("main").unwrap().name_unnamed = vec![ClassName::new("core")];
    })
    .await
}

/// How many statements with `text` the server connection has.
async fn named(client: &mut Client, text: &str) -> String {
    let ask = format!("SELECT count(*) FROM pg_prepared_statements WHERE statement = '{text}'");
    client.value(&ask).await
}

/// Parse, Bind and Execute, as a client does it that wants to know the rows each time.
fn ask(sql: &str, values: &[&str]) -> Vec<u8> {
    [parse("", sql), bind("", "", values), describe(b'P', ""), execute("", 0)].concat()
}

#[tokio::test]
async fn a_text_that_comes_again_and_again_is_prepared_once() {
    let text = "SELECT $1::int + 1";
    let bench = bench(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for round in 0..4 {
        for client in [&mut a, &mut b] {
            let answer = client.ask(&[ask(text, &["1"]), sync()]).await;
            assert_eq!(answer, "1 2 T D[2] C[SELECT 1] Z[I]");
        }
        assert_eq!(named(&mut a, text).await, if round == 0 { "0" } else { "1" });
    }
    // Others are left alone: texts that come once, classes that nobody chose.
    a.ask(&[ask("SELECT 'once'", &[]), sync()]).await;
    a.query("SET forebay.class = 'ai-read'").await;
    for _ in 0..5 {
        a.ask(&[ask("SELECT 'slow'", &[]), sync()]).await;
    }
    assert_eq!(named(&mut a, "SELECT ''once''").await, "0");
    assert_eq!(named(&mut a, "SELECT ''slow''").await, "0");
    bench.all_home().await;
}

#[tokio::test]
async fn the_answers_to_named_unnamed_statements_are_those_of_postgres() {
    let bench = bench(2).await;
    bench.direct().await.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    let takes = "SELECT n FROM t WHERE n = $1";
    let batches: Vec<Vec<Vec<u8>>> = vec![
        vec![ask(takes, &["1"]), sync()],
        vec![parse("", takes), describe(b'S', ""), sync()],
        vec![bind("", "", &["1"]), execute("", 0), sync()],
        vec![bind("", "", &["1", "2"]), execute("", 0), sync()],
        vec![bind("", "", &["x"]), execute("", 0), sync()],
        vec![ask("SELECT 1/0", &[]), ask(takes, &["1"]), sync()],
        vec![ask("SELEC", &[]), sync()],
        vec![ask("SELECT * FROM nowhere", &[]), sync()],
        vec![bind("", "", &[]), sync()],
        vec![ask(takes, &["1"]), query("SELECT 2")],
        vec![bind("", "", &["1"]), sync()],
        vec![ask(takes, &["1"]), sync(), ask(takes, &["2"]), sync(), query("SELECT 3")],
        vec![ask(takes, &["1"]), close(b'S', ""), describe(b'S', ""), sync()],
        vec![run("SELECT 1/0"), parse("", takes), sync()],
        vec![describe(b'S', ""), sync()],
        vec![query("BEGIN")],
        vec![ask(takes, &["1"]), sync()],
        vec![run("SELECT 1/0"), sync()],
        vec![ask(takes, &["1"]), sync()],
        vec![parse("", takes), describe(b'S', ""), sync()],
        vec![run("ROLLBACK"), sync()],
        vec![parse("s", takes), bind("", "s", &["1"]), execute("", 0), sync()],
        vec![bind("", "s", &["1", "2"]), sync()],
        vec![query("DEALLOCATE ALL")],
        vec![run("INSERT INTO t VALUES (2)"), run("DELETE FROM t WHERE n = 2"), sync()],
        vec![
            parse("", "SELECT generate_series(1, 3)"),
            bind("p", "", &[]),
            execute("p", 2),
            execute("p", 2),
            sync(),
        ],
    ];
    for round in 0..5 {
        for (n, batch) in batches.iter().enumerate() {
            let (ours, real) =
                (answers(&mut client, batch).await, answers(&mut direct, batch).await);
            assert_eq!(exactly(&ours), exactly(&real), "round {round}, batch {n}: {}", show(&ours));
        }
    }
    assert_eq!(named(&mut client, takes).await, "1");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_16_a_named_unnamed_statement_is_never_out_of_date() {
    let bench = bench(2).await;
    let mut direct = bench.direct().await;
    direct.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
    let mut clients = [bench.client().await, bench.client().await, bench.client().await];
    let answer = async |clients: &mut [Client], row: &str| {
        for client in clients {
            for _ in 0..3 {
                let answer = client.ask(&[ask("SELECT * FROM t", &[]), sync()]).await;
                assert_eq!(answer, format!("1 2 T D[{row}] C[SELECT 1] Z[I]"));
                // With rows of an int, and then of a text: to know them is not to be told.
                let answer = client.ask(&[run("SELECT n FROM t"), sync()]).await;
                assert_eq!(answer, "1 2 D[1] C[SELECT 1] Z[I]");
                let prepare = [parse("", "SELECT * FROM t"), describe(b'S', ""), flush()];
                client.send(&prepare.concat()).await;
                assert_eq!(show(&client.until_tag(b'T').await), "1 t T");
                let answer = client.ask(&[bind("", "", &[]), execute("", 0), sync()]).await;
                assert_eq!(answer, format!("2 D[{row}] C[SELECT 1] Z[I]"));
            }
        }
    };
    answer(&mut clients, "1").await;
    direct.query("ALTER TABLE t ADD m int").await;
    answer(&mut clients, "1|NULL").await;
    direct.query("ALTER TABLE t ALTER n TYPE text").await;
    answer(&mut clients, "1|NULL").await;
    // What a client of ours changes is known before.
    clients[0].query("ALTER TABLE t DROP m").await;
    clients[1].query("BEGIN").await;
    for _ in 0..3 {
        let answer = clients[1].ask(&[ask("SELECT * FROM t", &[]), sync()]).await;
        assert_eq!(answer, "1 2 T D[1] C[SELECT 1] Z[T]");
    }
    clients[1].query("COMMIT").await;
    bench.all_home().await;
}

#[tokio::test]
async fn a_text_on_another_search_path_is_another_statement() {
    let bench = bench(1).await;
    let mut direct = bench.direct().await;
    direct.query("CREATE SCHEMA x; CREATE TABLE x.t AS SELECT 1 AS n").await;
    direct.query("CREATE SCHEMA y; CREATE TABLE y.t AS SELECT 'two' AS n, 3 AS m").await;
    let (mut a, mut b, mut c) = (bench.client().await, bench.client().await, bench.client().await);
    a.query("SET search_path = x").await;
    b.query("SET search_path = y").await;
    for round in 0..4 {
        let batch = [ask("SELECT * FROM t", &[]), sync()];
        assert_eq!(a.ask(&batch).await, "1 2 T D[1] C[SELECT 1] Z[I]");
        assert_eq!(b.ask(&batch).await, "1 2 T D[two|3] C[SELECT 1] Z[I]");
        // For a transaction only, as applications with many tenants do it.
        for (path, row) in [("x", "1"), ("y", "two|3")] {
            c.query("BEGIN").await;
            let set = format!("SET LOCAL search_path = {path}");
            if round % 2 == 0 {
                c.query(&set).await;
            } else {
                c.ask(&[run(&set), sync()]).await;
            }
            assert_eq!(c.ask(&batch).await, format!("1 2 T D[{row}] C[SELECT 1] Z[T]"));
            c.query("COMMIT").await;
        }
    }
    bench.all_home().await;
}
