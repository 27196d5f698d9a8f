//! What went wrong with statements and portals in other poolers (the traps of docs/traps.md):
//! here the answers are PostgreSQL's own.

use forebay_pool::ClassName;

use crate::bench::Bench;
use crate::client::{bind, close, describe, execute, flush, parse, query, run, show, sync};

/// Bind and Execute of a named statement.
fn again(name: &str) -> Vec<u8> {
    [bind("", name, &[]), execute("", 0)].concat()
}

#[tokio::test]
async fn trap_01_a_name_in_use_is_refused_and_its_batch_skipped() {
    let bench = Bench::start(1).await;
    bench
        .answers_like_postgres(&[
            vec![parse("s", "SELECT 'first'"), sync()],
            vec![parse("s", "SELECT 'second'"), again("s"), sync()],
            vec![parse("s", "SELECT 'first'"), parse("t", "SELECT 't'"), sync()],
            vec![again("s"), sync()],
            vec![again("t"), sync()],
            vec![close(b'S', "s"), parse("s", "SELECT 'third'"), again("s"), sync()],
            vec![query("BEGIN")],
            vec![parse("s", "SELECT 'fourth'"), sync()],
            vec![parse("s", "SELECT 'fifth'"), sync()],
            vec![query("ROLLBACK")],
            vec![again("s"), sync()],
        ])
        .await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_02_an_unknown_name_is_an_error_and_no_disconnect() {
    let bench = Bench::start(1).await;
    bench
        .answers_like_postgres(&[
            vec![again("nobody"), sync()],
            vec![describe(b'S', "nobody"), run("SELECT 1"), sync()],
            vec![describe(b'P', "nobody"), sync()],
            vec![execute("nobody", 0), sync()],
            vec![close(b'S', "nobody"), close(b'P', "nobody"), sync()],
            vec![query("BEGIN")],
            vec![again("nobody"), sync()],
            vec![again("nobody"), sync()],
            vec![close(b'S', "nobody"), sync()],
            vec![query("ROLLBACK")],
            vec![run("SELECT 1"), sync()],
        ])
        .await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_03_answers_of_ours_keep_their_turn_among_those_that_are_skipped() {
    let bench = Bench::start(1).await;
    let mut other = bench.client().await;
    // From now on the server has it, and who parses it gets an answer of ours.
    other.ask(&[parse("s", "SELECT 'shared'"), sync()]).await;
    for _ in 0..5 {
        let shared = |name: &str| parse(name, "SELECT 'shared'");
        bench
            .answers_like_postgres(&[
                vec![shared("x"), again("x"), run("SELECT 1/0"), shared("y"), sync()],
                vec![again("x"), shared("y"), close(b'S', "x"), again("y"), sync()],
                vec![run("SELECT 1/0"), close(b'S', "y"), shared("z"), sync()],
                vec![shared("z"), close(b'S', "z"), again("y"), sync(), again("z"), sync()],
            ])
            .await;
        assert_eq!(other.ask(&[again("s"), sync()]).await, "2 D[shared] C[SELECT 1] Z[I]");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_06_a_message_has_no_effect_before_it_is_whole() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let batch = [parse("s", "SELECT 'whole'"), again("s"), sync()].concat();
    for (n, byte) in batch.iter().enumerate() {
        a.send(&[*byte]).await;
        if n % 8 == 0 {
            assert_eq!(b.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
            bench.all_home().await;
        }
    }
    assert_eq!(show(&a.until_ready(1).await), "1 2 D[whole] C[SELECT 1] Z[I]");
    let taken = "E[42P05 prepared statement \"s\" already exists] Z[I]";
    assert_eq!(a.ask(&[parse("s", "SELECT 'whole'"), sync()]).await, taken);
}

#[tokio::test]
async fn trap_10_describes_anywhere_in_a_pipeline_block_nothing() {
    let bench = Bench::start(1).await;
    let many = (0..500).map(|n| run(&format!("SELECT {n}"))).collect::<Vec<_>>().concat();
    bench
        .answers_like_postgres(&[
            vec![
                parse("s", "SELECT 1"),
                describe(b'S', "s"),
                bind("", "s", &[]),
                describe(b'P', ""),
                execute("", 0),
                describe(b'S', "s"),
                sync(),
            ],
            vec![run("SELECT 1"), flush(), run("SELECT 2"), describe(b'P', ""), sync()],
            vec![many, describe(b'S', "s"), sync(), describe(b'S', "s"), sync()],
        ])
        .await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_11_a_portal_with_rows_left_keeps_its_connection() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let open = [parse("", "SELECT generate_series(1, 5)"), bind("p", "", &[])].concat();
    a.send(&[open, execute("p", 2), flush()].concat()).await;
    assert_eq!(show(&a.until_tag(b's').await), "1 2 D[1] D[2] s");
    for _ in 0..3 {
        assert_eq!(b.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    }
    assert_eq!(bench.leased(), 1);
    a.send(&[execute("p", 2), flush()].concat()).await;
    assert_eq!(show(&a.until_tag(b's').await), "D[3] D[4] s");
    let end = [execute("p", 2), close(b'P', "p"), sync()];
    assert_eq!(a.ask(&end).await, "D[5] C[SELECT 1] 3 Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_12_to_close_a_portal_is_not_to_close_a_statement() {
    let bench = Bench::start(1).await;
    bench
        .answers_like_postgres(&[
            vec![parse("s", "SELECT 's'"), bind("s", "s", &[]), close(b'P', "s"), sync()],
            vec![again("s"), close(b'P', ""), sync()],
            vec![bind("s", "s", &[]), close(b'S', "s"), execute("s", 0), sync()],
            vec![again("s"), sync()],
            // One-off statements, as drivers close them.
            vec![parse("t", "SELECT 't'"), again("t"), close(b'S', "t"), sync()],
            vec![parse("t", "SELECT 'u'"), again("t"), close(b'S', "t"), sync()],
        ])
        .await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_13_a_query_destroys_the_unnamed_statement_and_portal() {
    let bench = Bench::start(1).await;
    bench
        .answers_like_postgres(&[
            vec![query("BEGIN")],
            vec![parse("", "SELECT 'gone'"), bind("", "", &[]), bind("p", "", &[]), sync()],
            vec![query("SELECT 1")],
            vec![execute("p", 0), sync()],
            vec![execute("", 0), sync()],
            vec![query("ROLLBACK")],
            vec![again(""), sync()],
        ])
        .await;
}

#[tokio::test]
async fn trap_13_a_named_portal_outlives_a_query_and_what_it_sets_follows_its_client() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("BEGIN").await;
    a.ask(&[parse("s", "SET work_mem = '9MB'"), bind("p", "s", &[]), sync()]).await;
    a.query("SELECT 1").await;
    assert_eq!(a.ask(&[execute("p", 0), sync()]).await, "C[SET] Z[T]");
    a.query("COMMIT").await;
    assert_eq!(b.value("SHOW work_mem").await, "4MB");
    assert_eq!(a.value("SHOW work_mem").await, "9MB");
}

#[tokio::test]
async fn trap_15_a_batch_that_gets_no_server_is_answered_once_at_its_sync() {
    let bench = Bench::with(1, |settings| {
        let core =
            serde_json::from_str("{\"kind\": \"core\", \"checkout_timeout\": \"500ms\"}").unwrap();
        settings.servers.get_mut("main").unwrap().classes.insert(ClassName::new("core"), core);
    })
    .await;
    let (mut holder, mut a) = (bench.client().await, bench.client().await);
    holder.query("BEGIN").await;
    holder.query("SELECT 1").await;
    a.send(&[run("SELECT 1"), flush()].concat()).await;
    let told = show(&a.until_tag(b'E').await);
    assert!(told.starts_with("E[53300 "), "{told}");
    a.send(&[run("SELECT 2"), query("SELECT 3"), parse("s", "SELECT 4")].concat()).await;
    assert_eq!(a.ask(&[sync()]).await, "Z[I]");
    holder.query("COMMIT").await;
    let unknown = "E[26000 prepared statement \"s\" does not exist] Z[I]";
    assert_eq!(a.ask(&[again("s"), sync()]).await, unknown);
    assert_eq!(a.ask(&[run("SELECT 5"), sync()]).await, "1 2 D[5] C[SELECT 1] Z[I]");
    bench.all_home().await;
}
