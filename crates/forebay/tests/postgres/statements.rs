//! Prepared statements and pipelines: what the extended protocol promises, over connections
//! that clients share.

use crate::bench::Bench;
use crate::client::{
    bind, close, copy_data, copy_done, describe, execute, flush, function_call, parse, query, run,
    show, sync,
};

#[tokio::test]
async fn one_name_may_mean_two_statements_to_two_clients() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    assert_eq!(a.ask(&[parse("s", "SELECT 'a'"), sync()]).await, "1 Z[I]");
    assert_eq!(b.ask(&[parse("s", "SELECT 'b'"), sync()]).await, "1 Z[I]");
    for _ in 0..3 {
        let batch = [bind("", "s", &[]), execute("", 0), sync()];
        assert_eq!(a.ask(&batch).await, "2 D[a] C[SELECT 1] Z[I]");
        assert_eq!(b.ask(&batch).await, "2 D[b] C[SELECT 1] Z[I]");
    }
}

#[tokio::test]
async fn a_hundred_clients_share_two_connections_and_one_statement() {
    let bench = Bench::start(2).await;
    let mut clients = Vec::new();
    for n in 0..100 {
        let driver = bench.driver().await;
        clients.push(tokio::spawn(async move {
            let sum = driver.prepare("SELECT $1::int + $2::int").await.unwrap();
            for m in 0..20 {
                let row = driver.query_one(&sum, &[&n, &m]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), n + m);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let mut client = bench.client().await;
    let known =
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int +%'";
    assert_eq!(client.value(known).await, "1");
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(bench.truth(connections).await.parse::<u32>().unwrap() <= 2);
}

#[tokio::test]
async fn trap_14_the_unnamed_statement_survives_other_clients_in_between() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    assert_eq!(
        a.ask(&[parse("", "SELECT 'mine'"), describe(b'S', ""), sync()]).await,
        "1 t T Z[I]"
    );
    assert_eq!(b.ask(&[run("SELECT 'other'"), sync()]).await, "1 2 D[other] C[SELECT 1] Z[I]");
    let batch = [bind("", "", &[]), execute("", 0), sync()];
    assert_eq!(a.ask(&batch).await, "2 D[mine] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn nobody_reaches_another_clients_unnamed_statement() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let missing = "E[26000 unnamed prepared statement does not exist] Z[I]";
    for probe in [bind("", "", &[]), describe(b'S', "")] {
        assert_eq!(
            a.ask(&[run("SELECT 'secret'"), sync()]).await,
            "1 2 D[secret] C[SELECT 1] Z[I]"
        );
        assert_eq!(b.ask(&[probe, sync()]).await, missing);
    }
    // A simple query destroys one's own.
    assert_eq!(b.ask(&[parse("", "SELECT 1"), sync()]).await, "1 Z[I]");
    b.query("SELECT 2").await;
    assert_eq!(b.ask(&[bind("", "", &[]), sync()]).await, missing);
}

#[tokio::test]
async fn a_parse_that_is_skipped_leaves_the_unnamed_statement_that_was_there() {
    let bench = Bench::start(1).await;
    let skips = || {
        let first = [parse("", "SELECT 1 / $1::int"), bind("", "", &["0"]), execute("", 0)];
        let skipped = [parse("", "SELECT 2"), bind("", "", &[]), sync()];
        [&first[..], &skipped[..]].concat()
    };
    bench
        .answers_like_postgres(&[
            skips(),
            vec![bind("", "", &["1"]), execute("", 0), sync()],
            vec![query("BEGIN")],
            skips(),
            vec![bind("", "", &[]), sync()],
            vec![bind("", "", &["1"]), sync()],
            vec![query("ROLLBACK")],
            // One that was made since then stays.
            [skips(), vec![parse("", "SELECT 3"), bind("", "", &[]), execute("", 0), sync()]]
                .concat(),
            vec![bind("", "", &[]), execute("", 0), sync()],
        ])
        .await;
}

#[tokio::test]
async fn trap_04_a_known_statement_in_a_failed_transaction_is_refused() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.ask(&[parse("s", "SELECT 1"), sync()]).await;
    b.query("BEGIN").await;
    b.query("SELECT 1/0").await;
    let refused = "E[25P02 current transaction is aborted, commands ignored until end of transaction block] Z[E]";
    assert_eq!(b.ask(&[parse("mine", "SELECT 1"), sync()]).await, refused);
    assert_eq!(b.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    // Neither side lost it.
    let again = [parse("mine", "SELECT 1"), bind("", "mine", &[]), execute("", 0), sync()];
    assert_eq!(b.ask(&again).await, "1 2 D[1] C[SELECT 1] Z[I]");
    let batch = [bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(a.ask(&batch).await, "2 D[1] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn the_end_of_a_failed_transaction_may_be_a_known_statement() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.ask(&[parse("end", "ROLLBACK"), sync()]).await;
    b.query("BEGIN").await;
    b.query("SELECT 1/0").await;
    let end = [parse("x", "ROLLBACK"), bind("", "x", &[]), execute("", 0), sync()];
    assert_eq!(b.ask(&end).await, "1 2 C[ROLLBACK] Z[I]");
}

#[tokio::test]
async fn names_taken_or_unknown_are_refused_in_the_servers_words() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let mut direct = bench.direct().await;
    for batch in [
        vec![parse("s", "SELECT 1"), sync()],
        vec![parse("s", "SELECT 2"), sync()],
        vec![parse("s", "SELEC"), sync()],
        vec![bind("", "nobody", &[]), sync()],
        vec![describe(b'S', "nobody"), sync()],
        vec![describe(b'P', "nobody"), sync()],
        vec![execute("nobody", 0), sync()],
        vec![close(b'S', "nobody"), sync()],
        vec![bind("", "s", &["1"]), sync()],
        vec![bind("", "s", &[]), execute("", 0), sync()],
    ] {
        assert_eq!(client.ask(&batch).await, direct.ask(&batch).await);
    }
    let ours = client.ask(&[bind("", "__forebay_0", &[]), sync()]).await;
    assert!(ours.starts_with("E[26000 "), "{ours}");
}

#[tokio::test]
async fn trap_07_after_an_error_everything_up_to_sync_is_skipped_even_a_query() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let pipeline = [
        run("SELECT 1/0"),
        query("SELECT 'skipped'"),
        run("SELECT 'skipped'"),
        sync(),
        query("SELECT 'seen'"),
    ];
    client.send(&pipeline.concat()).await;
    let answers = show(&client.until_ready(2).await);
    assert_eq!(answers, "1 E[22012 division by zero] Z[I] T D[seen] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_08_several_syncs_of_one_write_are_answered_one_by_one() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let batch =
        [run("SELECT 1"), sync(), run("SELECT 1/0"), sync(), sync(), run("SELECT 3"), sync()];
    assert_eq!(
        client.ask(&batch).await,
        "1 2 D[1] C[SELECT 1] Z[I] 1 E[22012 division by zero] Z[I] Z[I] 1 2 D[3] C[SELECT 1] Z[I]"
    );
    bench.all_home().await;
}

#[tokio::test]
async fn trap_09_a_flush_is_answered_before_its_sync_and_a_lone_one_links_nothing() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.send(&[run("SELECT 1"), flush()].concat()).await;
    assert_eq!(show(&client.until_tag(b'C').await), "1 2 D[1] C[SELECT 1]");
    assert_eq!(bench.leased(), 1);
    assert_eq!(client.ask(&[sync()]).await, "Z[I]");
    bench.all_home().await;
    client.send(&flush()).await;
    assert!(client.is_silent().await);
    assert_eq!(bench.leased(), 0);
}

#[tokio::test]
async fn a_query_ends_a_batch_that_had_no_sync() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let answers = client.ask(&[run("SELECT 1"), query("SELECT 2")]).await;
    assert_eq!(answers, "1 2 D[1] C[SELECT 1] T D[2] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn portals_give_their_rows_in_parts() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("BEGIN").await;
    let open =
        [parse("s", "SELECT generate_series(1, 3)"), bind("p", "s", &[]), execute("p", 2), sync()];
    assert_eq!(client.ask(&open).await, "1 2 D[1] D[2] s Z[T]");
    assert_eq!(client.ask(&[close(b'S', "s"), sync()]).await, "3 Z[T]");
    assert_eq!(client.ask(&[execute("p", 2), sync()]).await, "D[3] C[SELECT 1] Z[T]");
    assert_eq!(client.ask(&[close(b'P', "p"), sync()]).await, "3 Z[T]");
    assert_eq!(
        client.ask(&[execute("p", 0), sync()]).await,
        "E[34000 portal \"p\" does not exist] Z[E]"
    );
    assert_eq!(client.query("COMMIT").await, "C[ROLLBACK] Z[I]");
}

#[tokio::test]
async fn trap_05_evicted_statements_come_back_whatever_fails_around_them() {
    let bench = Bench::with(1, |settings| settings.max_prepared_statements = 2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for n in 0..5 {
        let name = format!("s{n}");
        let sql = format!("SELECT {n} / $1::int");
        assert_eq!(a.ask(&[parse(&name, &sql), sync()]).await, "1 Z[I]");
        assert_eq!(b.ask(&[parse(&name, &sql), sync()]).await, "1 Z[I]");
    }
    let each = |n: usize, by: &str| [bind("", &format!("s{n}"), &[by]), execute("", 0)].concat();
    for round in 0..40_usize {
        let (one, two, three) = (round % 5, (round * 2 + 1) % 5, (round * 3 + 2) % 5);
        let client = if round % 3 == 0 { &mut a } else { &mut b };
        // The middle one fails, so the third one's Parse and the Close before it are skipped.
        let answers = client.ask(&[each(one, "1"), each(two, "0"), each(three, "1"), sync()]).await;
        assert_eq!(answers, format!("2 D[{one}] C[SELECT 1] E[22012 division by zero] Z[I]"));
        let answers = client.ask(&[each(three, "1"), each(one, "1"), sync()]).await;
        assert_eq!(answers, format!("2 D[{three}] C[SELECT 1] 2 D[{one}] C[SELECT 1] Z[I]"));
    }
    let known = "SELECT count(*) FROM pg_prepared_statements";
    assert_eq!(a.value(known).await, "2");
}

#[tokio::test]
async fn a_statement_whose_parse_was_skipped_is_unknown() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    assert_eq!(
        client.ask(&[run("SELECT 1/0"), parse("s", "SELECT 1"), sync()]).await,
        "1 E[22012 division by zero] Z[I]"
    );
    assert_eq!(
        client.ask(&[bind("", "s", &[]), sync()]).await,
        "E[26000 prepared statement \"s\" does not exist] Z[I]"
    );
    // Skipped replacements leave the old one.
    client.ask(&[parse("s", "SELECT 'old'"), sync()]).await;
    client.ask(&[run("SELECT 1/0"), close(b'S', "s"), parse("s", "SELECT 'new'"), sync()]).await;
    let batch = [bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(client.ask(&batch).await, "2 D[old] C[SELECT 1] Z[I]");
}

#[tokio::test]
async fn copy_goes_both_ways() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("CREATE TABLE t (n int)").await;
    client.send(&query("COPY t FROM STDIN")).await;
    assert_eq!(show(&client.until_tag(b'G').await), "G");
    client.send(&[copy_data("1\n2\n"), copy_data("3\n"), copy_done()].concat()).await;
    assert_eq!(show(&client.until_ready(1).await), "C[COPY 3] Z[I]");
    assert_eq!(client.query("COPY t TO STDOUT").await, "H d d d c C[COPY 3] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_21_data_behind_a_copy_that_failed_is_eaten() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("CREATE TABLE t (n int)").await;
    client.send(&query("COPY t FROM STDIN")).await;
    client.until_tag(b'G').await;
    client.send(&copy_data("x\n")).await;
    assert_eq!(
        show(&client.until_ready(1).await),
        "E[22P02 invalid input syntax for type integer: \"x\"] Z[I]"
    );
    client
        .send(&[copy_data("1\n"), copy_data("2\n"), copy_done(), query("SELECT 'fine'")].concat())
        .await;
    assert_eq!(show(&client.until_ready(1).await), "T D[fine] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_22_a_copy_of_the_extended_protocol_may_have_its_sync_early() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    client.query("CREATE TABLE t (n int)").await;
    client.send(&[run("COPY t FROM STDIN"), sync()].concat()).await;
    assert_eq!(show(&client.until_tag(b'G').await), "1 2 G");
    client.send(&[copy_data("1\n"), copy_done(), sync()].concat()).await;
    assert_eq!(show(&client.until_ready(1).await), "C[COPY 1] Z[I]");
    bench.all_home().await;
    client.send(&[run("COPY t FROM STDIN"), sync()].concat()).await;
    client.until_tag(b'G').await;
    client.send(&copy_data("x\n")).await;
    assert_eq!(
        show(&client.until_tag(b'E').await),
        "E[22P02 invalid input syntax for type integer: \"x\"]"
    );
    client.send(&[copy_data("1\n"), copy_done(), sync()].concat()).await;
    assert_eq!(show(&client.until_ready(1).await), "Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_20_a_function_call_is_answered_like_a_query() {
    let bench = Bench::start(1).await;
    let oid = bench.truth("SELECT 'int4pl(int,int)'::regprocedure::oid").await.parse().unwrap();
    let mut client = bench.client().await;
    assert_eq!(client.ask(&[function_call(oid, &["1", "2"])]).await, "V Z[I]");
    assert!(client.ask(&[function_call(1, &[])]).await.ends_with(" Z[I]"));
    assert_eq!(client.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_43_several_statements_of_one_query_are_one_transaction() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    let sql = "CREATE TABLE t (n int); INSERT INTO t VALUES (1); SELECT 1/0";
    assert_eq!(
        client.query(sql).await,
        "C[CREATE TABLE] C[INSERT 0 1] E[22012 division by zero] Z[I]"
    );
    assert_eq!(client.value("SELECT to_regclass('t') IS NULL").await, "t");
    assert_eq!(client.query("").await, "I Z[I]");
    assert_eq!(client.query(";;").await, "I Z[I]");
    assert_eq!(client.query(" -- nothing").await, "I Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn trap_19_comments_with_tags_do_not_multiply_statements() {
    let bench = Bench::start(1).await;
    let mut client = bench.client().await;
    for n in 0..50 {
        let sql = format!("SELECT 'tagged' /*traceparent='00-{n:032x}-0000000000000001-01'*/");
        let name = format!("s{n}");
        let batch = [
            parse(&name, &sql),
            describe(b'S', &name),
            bind("", &name, &[]),
            execute("", 0),
            sync(),
        ];
        assert_eq!(client.ask(&batch).await, "1 t T 2 D[tagged] C[SELECT 1] Z[I]");
    }
    let known = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%tagged%'";
    assert_eq!(client.value(known).await, "1");
}

#[tokio::test]
async fn trap_18_a_deallocate_of_a_driver_forgets_its_statement_only() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for client in [&mut a, &mut b] {
        client.ask(&[parse("s", "SELECT 1"), sync()]).await;
    }
    let unknown = "E[26000 prepared statement \"s\" does not exist] Z[I]";
    let use_it = [bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(a.query("DEALLOCATE s").await, "C[DEALLOCATE] Z[I]");
    assert_eq!(a.ask(&use_it).await, unknown);
    assert_eq!(a.query("DEALLOCATE s").await, unknown);
    assert_eq!(b.ask(&use_it).await, "2 D[1] C[SELECT 1] Z[I]");
    // In a transaction too, and by the extended protocol.
    for deallocate in [query("DEALLOCATE s"), [run("DEALLOCATE s"), sync()].concat()] {
        a.ask(&[parse("s", "SELECT 1"), sync()]).await;
        a.query("BEGIN").await;
        a.query("SELECT 1").await;
        a.send(&deallocate).await;
        let answer = show(&a.until_ready(1).await);
        assert!(answer.ends_with("C[DEALLOCATE] Z[T]"), "{answer}");
        assert_eq!(a.query("COMMIT").await, "C[COMMIT] Z[I]");
        assert_eq!(a.ask(&use_it).await, unknown);
        assert_eq!(b.ask(&use_it).await, "2 D[1] C[SELECT 1] Z[I]");
    }
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        a.ask(&[parse("s", "SELECT 1"), sync()]).await;
        assert_eq!(a.query(all).await, format!("C[{all}] Z[I]"));
        assert_eq!(a.ask(&use_it).await, unknown);
        assert_eq!(b.ask(&use_it).await, "2 D[1] C[SELECT 1] Z[I]");
    }
}

#[tokio::test]
async fn trap_17_statements_of_sql_stay_with_their_client() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    assert_eq!(a.query("PREPARE p AS SELECT 'mine'").await, "C[PREPARE] Z[I]");
    for _ in 0..3 {
        assert_eq!(
            b.query("EXECUTE p").await,
            "E[26000 prepared statement \"p\" does not exist] Z[I]"
        );
        assert_eq!(a.query("EXECUTE p").await, "T D[mine] C[SELECT 1] Z[I]");
    }
    drop(a);
    bench.all_home().await;
    for _ in 0..3 {
        assert_eq!(
            b.query("EXECUTE p").await,
            "E[26000 prepared statement \"p\" does not exist] Z[I]"
        );
    }
}

#[tokio::test]
async fn one_text_on_two_search_paths_is_two_statements() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("CREATE SCHEMA x; CREATE TABLE x.t AS SELECT 1 AS n; CREATE SCHEMA y; CREATE TABLE y.t AS SELECT 'two' AS n").await;
    a.query("SET search_path = x").await;
    b.query("SET search_path = y").await;
    let batch = [parse("s", "SELECT * FROM t"), bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(a.ask(&batch).await, "1 2 D[1] C[SELECT 1] Z[I]");
    assert_eq!(b.ask(&batch).await, "1 2 D[two] C[SELECT 1] Z[I]");
}
