//! Batches, scripts and function calls in every order: the answers are PostgreSQL's own.

use crate::bench::{Bench, until};
use crate::client::{
    Client, bind, close, copy_data, copy_done, describe, execute, flush, function_call, parse,
    query, run, show, sync, terminate,
};
use crate::statuses::{answers, exactly};

/// Sends each of `batches` through the gateway and to PostgreSQL itself: the answers must be
/// the same to the byte.
pub(crate) async fn alike(bench: &Bench, batches: &[Vec<Vec<u8>>]) {
    let (mut client, mut direct) = (bench.client().await, bench.direct().await);
    // Each has a table `t` of its own.
    for (client, side) in [(&mut client, "thru"), (&mut direct, "real")] {
        client.query(&format!("CREATE SCHEMA {side}; CREATE TABLE {side}.t (n int)")).await;
        client.query(&format!("SET search_path = {side}")).await;
    }
    for (n, batch) in batches.iter().enumerate() {
        let (ours, real) = (answers(&mut client, batch).await, answers(&mut direct, batch).await);
        let (shown, should) = (show(&ours), show(&real));
        assert!(exactly(&ours) == exactly(&real), "batch {n}:\n{shown}\nshould be\n{should}");
    }
    drop((client, direct));
    bench.all_home().await;
}

async fn table(bench: &Bench) {
    bench.direct().await.query("CREATE TABLE t (n int)").await;
}

#[tokio::test]
async fn function_calls_are_answered_in_every_status_whatever_their_size() {
    let bench = Bench::start(2).await;
    let oid = "SELECT 'octet_length(text)'::regprocedure::oid";
    let oid = bench.truth(oid).await.parse().unwrap();
    let long = "x".repeat(300_000);
    let calls = |path: &[&str]| {
        let mut calls = vec![
            vec![function_call(oid, &["abc"])],
            vec![function_call(oid, &[&long])],
            vec![function_call(oid, &[])],
            vec![function_call(1, &["abc"])],
            vec![query("SELECT 1"), function_call(oid, &["abc"]), run("SELECT 2"), sync()],
        ];
        if !path.contains(&"SELECT 1/0") {
            // Behind an error it would be skipped.
            calls.push(vec![run("SELECT 1"), function_call(oid, &["abc"])]);
        }
        calls
    };
    let mut batches = Vec::new();
    for path in [&[][..], &["BEGIN"], &["BEGIN", "SELECT 1"], &["BEGIN", "SELECT 1/0"]] {
        for call in calls(path) {
            batches.extend(path.iter().map(|sql| vec![query(sql)]));
            batches.push(call);
            batches.push(vec![query("ROLLBACK")]);
        }
    }
    alike(&bench, &batches).await;
}

#[tokio::test]
async fn scripts_of_several_statements_are_transactions_as_far_as_they_say() {
    let bench = Bench::start(2).await;
    let scripts = [
        "INSERT INTO t VALUES (1); SELECT 1/0; INSERT INTO t VALUES (2)",
        "BEGIN; INSERT INTO t VALUES (3); COMMIT; SELECT 1/0",
        "INSERT INTO t VALUES (4); COMMIT; INSERT INTO t VALUES (5); SELECT 1/0",
        "INSERT INTO t VALUES (6); BEGIN; INSERT INTO t VALUES (7); ROLLBACK; SELECT 1",
        "BEGIN; SELECT 1; BEGIN",
        "SELECT 2; COMMIT; SELECT 3",
        "COMMIT; COMMIT",
        "BEGIN; SELECT 1/0; COMMIT; SELECT 4",
        "ROLLBACK; SELECT 5",
        "BEGIN;; ;COMMIT;",
        "",
        ";",
        " ; -- nothing\n ;",
        "SELECT 6; SELEC 7",
        "SAVEPOINT a; SELECT 1",
        "BEGIN; SAVEPOINT a; SELECT 1/0",
        "ROLLBACK TO a; SELECT 8; COMMIT",
        "COMMIT AND CHAIN",
        "BEGIN; COMMIT AND CHAIN; SELECT 9",
        "ROLLBACK AND CHAIN",
        "COMMIT",
        "SET LOCAL work_mem = '2MB'",
        "VACUUM t; SELECT 1",
        "SELECT count(*), sum(n) FROM t",
    ];
    let mut batches: Vec<_> = scripts.iter().map(|sql| vec![query(sql)]).collect();
    batches.push(scripts.iter().map(|sql| query(sql)).collect());
    batches.push(scripts.iter().flat_map(|sql| [run(sql), sync()]).collect());
    alike(&bench, &batches).await;
}

#[tokio::test]
async fn pipelines_skip_to_their_sync_and_portals_outlive_it_in_a_transaction() {
    // Two statements at a time: a pipeline with five evicts what it has just used.
    let bench = Bench::with(2, |settings| settings.max_prepared_statements = 2).await;
    let rows = "SELECT generate_series(1, 5)";
    let again = |name: &str| [bind("", name, &[]), execute("", 0)].concat();
    let five = || (0..5).map(|n| parse(&format!("s{n}"), &format!("SELECT {n}")));
    let each = |order: &[usize]| order.iter().map(|n| again(&format!("s{n}"))).collect::<Vec<_>>();
    let batches = [
        five().chain(each(&[0, 1, 2, 3, 4, 0, 2, 4])).chain([sync()]).collect(),
        each(&[4, 3, 2, 1, 0]).into_iter().chain([sync()]).collect(),
        [vec![run("SELECT 1/0")], each(&[0, 1, 2]), vec![sync()], each(&[1, 3]), vec![sync()]]
            .concat(),
        [each(&[2, 0]), vec![close(b'S', "s2")], each(&[2, 0]), vec![sync()]].concat(),
        vec![parse("s2", "SELECT 'new'"), again("s2"), sync(), again("s2"), sync(), sync()],
        vec![query("BEGIN")],
        vec![parse("", rows), bind("p", "", &[]), execute("p", 2), sync()],
        vec![execute("p", 2), describe(b'P', "p"), sync()],
        vec![bind("p", "s0", &[]), sync()],
        vec![query("ROLLBACK")],
        vec![query("BEGIN"), parse("", rows), bind("p", "", &[]), bind("q", "", &[]), sync()],
        vec![execute("p", 3), execute("q", 1), sync(), execute("q", 1), execute("p", 0), sync()],
        vec![close(b'P', "p"), execute("q", 0), sync(), execute("p", 1), sync()],
        vec![query("COMMIT"), execute("q", 1), sync()],
        vec![run("BEGIN"), run("INSERT INTO t VALUES (1)"), sync(), run("COMMIT"), sync()],
        vec![run("BEGIN"), run("SELECT 1/0"), run("COMMIT"), sync(), run("COMMIT"), sync()],
        vec![run("INSERT INTO t VALUES (2)"), run("SELECT 1/0"), sync()],
        vec![run("INSERT INTO t VALUES (3)"), flush(), run("COMMIT"), run("SELECT 1/0"), sync()],
        vec![query("SELECT count(*), sum(n) FROM t")],
        vec![run(""), run(";"), run("SELECT 1; SELECT 2"), sync()],
        vec![sync(), flush(), sync()],
    ];
    alike(&bench, &batches).await;
}

#[tokio::test]
async fn flushes_without_a_sync_are_answered_one_by_one() {
    let bench = Bench::start(2).await;
    table(&bench).await;
    let steps = [
        (parse("", "INSERT INTO t VALUES (1) RETURNING n"), b'1'),
        (describe(b'S', ""), b'T'),
        (bind("", "", &[]), b'2'),
        (execute("", 0), b'C'),
        (parse("s", "SELECT count(*) FROM t"), b'1'),
        ([bind("", "s", &[]), execute("", 0)].concat(), b'C'),
        (run("SELECT 1/0"), b'E'),
    ];
    let mut seen = Vec::new();
    for mut client in [bench.client().await, bench.direct().await] {
        let mut answers = Vec::new();
        for (step, end) in &steps {
            client.send(&[step.clone(), flush()].concat()).await;
            answers.push(show(&client.until_tag(*end).await));
        }
        let end = [run("SELECT 'skipped'"), query("SELECT 'skipped'"), flush(), sync()];
        client.send(&end.concat()).await;
        answers.push(show(&client.until_ready(1).await));
        answers.push(client.query("SELECT count(*) FROM t").await);
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1]);
    bench.all_home().await;
}

#[tokio::test]
async fn trap_22_what_is_no_data_behind_a_copy_ends_it_as_in_postgres() {
    let bench = Bench::start(2).await;
    table(&bench).await;
    let copy = "COPY t FROM STDIN";
    let scripts: Vec<Vec<u8>> = vec![
        [query(copy), query("SELECT 1"), query("SELECT 2")].concat(),
        [query(copy), sync(), flush(), query("SELECT 1")].concat(),
        [query(copy), run("SELECT 1"), sync(), query("SELECT 2")].concat(),
        [query(copy), copy_data("1\n"), run("SELECT 1"), sync()].concat(),
        [query("SELECT 0; COPY t FROM STDIN; SELECT 1"), query("SELECT 2")].concat(),
        [run(copy), query("SELECT 1"), sync(), query("SELECT 2")].concat(),
        [run(copy), sync(), run("SELECT 1"), sync(), query("SELECT 2")].concat(),
        [query(copy), sync(), copy_data("1\n"), copy_done(), query("SELECT 1"), terminate()]
            .concat(),
    ];
    for (n, script) in scripts.iter().enumerate() {
        let mut seen = Vec::new();
        for mut client in [bench.client().await, bench.direct().await] {
            client.send(script).await;
            // To the end of the connection.
            seen.push(exactly(&client.until_ready(usize::MAX).await));
        }
        assert_eq!(seen[0], seen[1], "script {n}");
        bench.all_home().await;
    }
}

#[tokio::test]
async fn who_waits_with_an_answer_owed_keeps_the_connection() {
    let bench = Bench::start(2).await;
    let mut client = bench.client().await;
    let pipeline =
        [run("SELECT pg_sleep(0.2)"), sync(), run("SELECT 1"), sync(), query("SELECT 2")];
    client.send(&pipeline.concat()).await;
    until("it runs", async || bench.leased() == 1).await;
    let seen = show(&client.until_ready(1).await);
    assert!(seen.ends_with("Z[I]"), "{seen}");
    let rest = show(&client.until_ready(2).await);
    assert_eq!(rest, "1 2 D[1] C[SELECT 1] Z[I] T D[2] C[SELECT 1] Z[I]");
    bench.all_home().await;
    let _client: Client = client;
}
