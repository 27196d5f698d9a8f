//! What went wrong with settings, asynchronous messages and transactions in other poolers
//! (the traps of docs/traps.md): nothing of one client's reaches another, and what the server
//! says reaches the right one.

use crate::bench::{Bench, until};
use crate::client::{
    Client, Message, bind, describe, execute, flush, parse, query, run, show, sync,
};
use crate::failures::{KILL_OURS, OURS};

/// Process, channel and payload of a NotificationResponse, without the process.
fn notification(message: &Message) -> String {
    String::from_utf8_lossy(&message.body[4..]).trim_end_matches('\0').replace('\0', " ")
}

#[tokio::test]
async fn trap_28_a_client_that_waits_for_nothing_is_notified() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("LISTEN news").await;
    for n in 0..3 {
        b.query(&format!("SELECT pg_notify('news', '{n}')")).await;
        let heard = a.receive().await.unwrap();
        assert_eq!((heard.tag, notification(&heard)), (b'A', format!("news {n}")));
    }
    // In a transaction it comes at the end, as from the server.
    a.query("BEGIN").await;
    a.query("SELECT 1").await;
    b.query("NOTIFY news, 'late'").await;
    assert_eq!(a.query("SELECT 2").await, "T D[2] C[SELECT 1] Z[T]");
    a.send(&query("COMMIT")).await;
    // Before the ReadyForQuery or behind it.
    let heard = a.until_tag(b'A').await.pop().unwrap();
    assert_eq!(notification(&heard), "news late");
}

#[tokio::test]
async fn trap_28_no_notification_is_lost_while_settings_are_restored() {
    let bench = Bench::start(2).await;
    let start = [("work_mem", "9MB")];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    let mut b = bench.client().await;
    a.query("LISTEN news").await;
    let notes = 300;
    let notify = async {
        for n in 0..notes {
            b.query(&format!("SELECT pg_notify('news', '{n}')")).await;
        }
    };
    let hear = async {
        let (mut heard, mut rounds) = (Vec::new(), 0);
        // Each RESET has us send a statement of our own behind it.
        while heard.len() < notes && rounds < 10 * notes {
            a.send(&query("RESET work_mem")).await;
            let messages = a.until_ready(1).await;
            heard.extend(messages.iter().filter(|m| m.tag == b'A').map(notification));
            rounds += 1;
        }
        while heard.len() < notes {
            heard.push(notification(&a.receive().await.unwrap()));
        }
        heard
    };
    let ((), heard) = tokio::join!(notify, hear);
    let expected: Vec<_> = (0..notes).map(|n| format!("news {n}")).collect();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn trap_30_settings_that_the_server_does_not_report_leak_to_nobody() {
    let bench = Bench::start(1).await;
    let start = [
        ("statement_timeout", "7s"),
        ("extra_float_digits", "3"),
        ("options", "-c lock_timeout=5s -c search_path=pg_catalog"),
    ];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    let mut b = bench.client().await;
    for _ in 0..3 {
        for (name, own, default) in [
            ("statement_timeout", "7s", "0"),
            ("extra_float_digits", "3", "1"),
            ("lock_timeout", "5s", "0"),
            ("search_path", "pg_catalog", "\"$user\", public"),
        ] {
            assert_eq!(a.value(&format!("SHOW {name}")).await, own);
            assert_eq!(b.value(&format!("SHOW {name}")).await, default);
        }
    }
}

#[tokio::test]
async fn trap_30_what_a_portal_sets_behind_the_answers_of_an_earlier_batch_is_known() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let set = [parse("s", "SET work_mem = '9MB'"), bind("p", "s", &[])].concat();
    a.send(&[run("SELECT 1"), sync(), set, flush()].concat()).await;
    assert_eq!(show(&a.until_ready(1).await), "1 2 D[1] C[SELECT 1] Z[I]");
    assert_eq!(show(&a.until_tag(b'2').await), "1 2");
    assert_eq!(a.ask(&[execute("p", 0), sync()]).await, "C[SET] Z[I]");
    assert_eq!(b.value("SHOW work_mem").await, "4MB");
    assert_eq!(a.value("SHOW work_mem").await, "9MB");
}

#[tokio::test]
async fn trap_31_what_holds_for_a_transaction_is_no_setting_of_the_session() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for (set, ask) in [
        ("SET TRANSACTION READ ONLY", "SHOW transaction_read_only"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation"),
        ("SET LOCAL ROLE pg_monitor", "SELECT current_user"),
        ("SET LOCAL search_path = pg_catalog", "SHOW search_path"),
        ("SELECT set_config('work_mem', '9MB', true)", "SHOW work_mem"),
    ] {
        let before = a.value(ask).await;
        a.query("BEGIN").await;
        a.query(set).await;
        assert_ne!(a.value(ask).await, before, "{set}");
        assert_eq!(a.query("COMMIT").await, "C[COMMIT] Z[I]");
        for client in [&mut b, &mut a] {
            assert_eq!(client.value(ask).await, before, "{set}");
        }
    }
    // A batch is one transaction: what fails behind the SET takes it back.
    a.ask(&[run("SET work_mem = '9MB'"), run("SELECT 1/0"), sync()]).await;
    for client in [&mut b, &mut a] {
        assert_eq!(client.value("SHOW work_mem").await, "4MB");
    }
}

#[tokio::test]
async fn trap_32_a_value_that_looks_like_sql_is_a_value() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    for value in ["'); SELECT 1/0; --", "\\', false); SELECT 1/0; --", "\\", "''", "$1", "a\tb"] {
        let quoted = value.replace('\'', "''");
        a.query(&format!("SET app.value = '{quoted}'")).await;
        a.query(&format!("SET search_path = 'plain', '{quoted}'")).await;
        let path = a.value("SHOW search_path").await;
        for _ in 0..2 {
            b.query("SET standard_conforming_strings = off").await;
            assert_eq!(a.value("SELECT current_setting('app.value')").await, value);
            assert_eq!(a.value("SHOW search_path").await, path);
        }
    }
    let mut direct = bench.direct().await;
    for set in ["SET search_path = ''", "SET search_path = 'a, b', \"C d\", e"] {
        a.query(set).await;
        direct.query(set).await;
        b.query("SELECT 1").await;
        assert_eq!(a.value("SHOW search_path").await, direct.value("SHOW search_path").await);
    }
}

#[tokio::test]
async fn trap_34_a_client_is_told_where_its_next_server_connection_differs() {
    let bench = Bench::start(1).await;
    let mut a = bench.client().await;
    let mut direct = bench.direct().await;
    a.query("SELECT 1").await;
    assert_ne!(a.parameters.get("DateStyle").map(String::as_str), Some("German, DMY"));
    let alter = format!("ALTER DATABASE {} SET DateStyle = 'German'", bench.database);
    direct.query(&alter).await;
    direct.query(KILL_OURS).await;
    until("it is dead", async || direct.value(OURS).await == "0").await;
    assert_eq!(a.value("SELECT '2026-01-02'::date").await, "02.01.2026");
    assert_eq!(a.parameters.get("DateStyle").map(String::as_str), Some("German, DMY"));
}

#[tokio::test]
async fn trap_35_a_setting_of_an_extension_keeps_no_value_of_anothers() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    let tenant = "SELECT coalesce(current_setting('app.tenant', true), '')";
    for set in [
        "SET app.tenant = '42'",
        "SELECT set_config('app.tenant', '42', false)",
        "DO $$ BEGIN PERFORM set_config('app.tenant', '42', false); END $$",
        "BEGIN; SET LOCAL app.tenant = '42'; COMMIT",
    ] {
        a.query(set).await;
        assert_eq!(b.value(tenant).await, "", "{set}");
        a.query("RESET app.tenant").await;
        assert_eq!(a.value(tenant).await, "", "{set}");
    }
}

#[tokio::test]
async fn trap_40_advisory_locks_nest_and_those_of_a_transaction_pin_nothing() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("SELECT pg_advisory_xact_lock(6)").await;
    bench.all_home().await;
    assert!(bench.gateway.snapshot().pins.get("advisory_lock").is_none_or(|pins| *pins == 0));
    let taken = "SELECT pg_try_advisory_xact_lock(7)";
    a.query("SELECT pg_advisory_lock(7)").await;
    a.query("SELECT pg_advisory_lock(7)").await;
    assert_eq!(b.value(taken).await, "f");
    assert_eq!(a.value("SELECT pg_advisory_unlock(7)").await, "t");
    a.query("SELECT 1").await;
    assert_eq!(b.value(taken).await, "f");
    assert_eq!(a.value("SELECT pg_advisory_unlock(7)").await, "t");
    assert_eq!(b.value(taken).await, "t");
    assert_eq!(a.value("SELECT pg_advisory_unlock(7)").await, "f");
    a.query("SELECT pg_advisory_lock(7)").await;
    drop(a);
    bench.all_home().await;
    assert_eq!(b.value(taken).await, "t");
}

#[tokio::test]
async fn trap_41_a_notification_stays_in_its_database() {
    let bench = Bench::start(3).await;
    let mut a = bench.client().await;
    a.query("LISTEN news").await;
    let mut elsewhere = Client::connect(bench.address, "postgres", &[]).await.unwrap();
    assert_eq!(elsewhere.query("NOTIFY news, 'other'").await, "C[NOTIFY] Z[I]");
    let mut b = bench.client().await;
    assert_eq!(b.query("NOTIFY news, 'own'").await, "C[NOTIFY] Z[I]");
    let heard = a.receive().await.unwrap();
    assert_eq!((heard.tag, notification(&heard)), (b'A', "news own".to_owned()));
}

#[tokio::test]
async fn trap_42_a_begin_is_answered_as_by_the_server_however_it_is_sent() {
    let bench = Bench::start(1).await;
    let shows = ["SHOW transaction_isolation", "SHOW transaction_read_only", "SHOW TimeZone"];
    for begin in [
        "BEGIN",
        "begin work;",
        "START TRANSACTION /* a comment */",
        "START TRANSACTION READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
        "BEGIN; SELECT 1",
    ] {
        for end in ["COMMIT", "ROLLBACK", "END", "COMMIT AND CHAIN", "ABORT"] {
            let mut batches = vec![vec![query(begin)], vec![query("BEGIN")], vec![sync()]];
            batches.extend(shows.map(|show| vec![query(show)]));
            batches.extend([vec![query(end)], vec![query("ROLLBACK")]]);
            if !begin.contains("SELECT") {
                let whole = [parse("b", begin), describe(b'S', "b"), bind("", "b", &[])].concat();
                let described = [describe(b'P', ""), execute("", 0), sync()].concat();
                batches.push(vec![[whole, described].concat(), sync()]);
                batches.push(vec![run(shows[0]), sync()]);
                batches.push(vec![run(end), sync(), query("ROLLBACK")]);
                // Answered by us, and a batch behind it.
                batches.push(vec![query(begin), parse("", shows[0]), describe(b'S', ""), sync()]);
                batches.push(vec![bind("", "", &[]), execute("", 0), sync(), query(end)]);
                batches.push(vec![query("ROLLBACK")]);
            }
            bench.answers_like_postgres(&batches).await;
        }
    }
    bench.all_home().await;
}

#[tokio::test]
async fn trap_43_a_failed_transaction_is_still_a_transaction() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("BEGIN").await;
    a.query("SELECT 1/0").await;
    for _ in 0..3 {
        assert_eq!(b.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[I]");
        until("only the failed one holds", async || bench.leased() == 1).await;
        let refused = a.query("SELECT 1").await;
        assert!(refused.starts_with("E[25P02 ") && refused.ends_with(" Z[E]"), "{refused}");
    }
    assert_eq!(a.query("COMMIT").await, "C[ROLLBACK] Z[I]");
    bench.all_home().await;
    bench
        .answers_like_postgres(&[
            vec![query("SELECT 1; BEGIN; SELECT 1/0; SELECT 2")],
            vec![query("SELECT 3")],
            vec![query("ROLLBACK; SELECT 4; BEGIN; SELECT 5")],
            vec![query("COMMIT; SELECT 6")],
            vec![query("BEGIN; SELECT 1; COMMIT; SELECT 1/0")],
        ])
        .await;
    bench.all_home().await;
}
