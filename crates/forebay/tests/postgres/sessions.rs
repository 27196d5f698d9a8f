//! Sessions over shared connections: what a client set follows it, and reaches nobody else.

use crate::bench::{Bench, until};
use crate::client::{Client, bind, execute, parse, query, run, show, sync, terminate};

/// Two clients that take turns on one connection.
async fn two(bench: &Bench) -> (Client, Client) {
    (bench.client().await, bench.client().await)
}

#[tokio::test]
async fn trap_32_what_a_client_sets_follows_it_and_nobody_else() {
    let bench = Bench::start(1).await;
    bench
        .direct()
        .await
        .query("CREATE ROLE guest; CREATE SCHEMA \"My Schema\"; GRANT guest TO forebay")
        .await;
    for (set, show, own) in [
        ("SET search_path = ''", "SHOW search_path", "\"\""),
        (
            "SET search_path TO \"My Schema\", Public, 'pg_catalog'",
            "SHOW search_path",
            "\"My Schema\", public, pg_catalog",
        ),
        (
            "SET app.tenant = 'o''brien \\ \"x\"'",
            "SELECT current_setting('app.tenant', true)",
            "o'brien \\ \"x\"",
        ),
        ("SET ROLE Guest", "SELECT current_user", "guest"),
        ("SET TimeZone = 'Asia/Tokyo'", "SHOW TimeZone", "Asia/Tokyo"),
        ("SET datestyle TO german", "SHOW DateStyle", "German, DMY"),
        ("SET DateStyle = 'SQL', 'DMY'", "SHOW DateStyle", "SQL, DMY"),
        (
            "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE",
            "SELECT extract(timezone from now())::int",
            "7200",
        ),
        ("SET work_mem = '9MB'", "SHOW work_mem", "9MB"),
        ("SET statement_timeout TO 4000", "SHOW statement_timeout", "4s"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SHOW transaction_read_only",
            "on",
        ),
        ("SET SESSION AUTHORIZATION guest", "SELECT session_user", "guest"),
        ("SET app.odd = E'a\\nb'", "SELECT current_setting('app.odd', true)", "a\nb"),
        (
            "SELECT pg_catalog.set_config('app.x', 'y', false)",
            "SELECT current_setting('app.x', true)",
            "y",
        ),
        (
            "SELECT set_config('app.z', 'y' || 'z', false)",
            "SELECT current_setting('app.z', true)",
            "yz",
        ),
    ] {
        let (mut a, mut b) = two(&bench).await;
        let others = b.value(show).await;
        a.query(set).await;
        for _ in 0..2 {
            assert_eq!(a.value(show).await, own, "{set}");
            // A client that keeps its connection leaves none for others here.
            if bench.leased() == 0 {
                assert!([&*others, ""].contains(&&*b.value(show).await), "{set}");
            }
        }
        drop(a);
        bench.all_home().await;
        let after = b.value(show).await;
        assert!(after == others || after.is_empty() || after == "NULL", "{set}: {after}");
    }
}

#[tokio::test]
async fn a_set_by_the_extended_protocol_follows_too() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = two(&bench).await;
    assert_eq!(a.ask(&[run("SET work_mem = '9MB'"), sync()]).await, "1 2 C[SET] Z[I]");
    assert_eq!(b.value("SHOW work_mem").await, "4MB");
    assert_eq!(a.value("SHOW work_mem").await, "9MB");
}

#[tokio::test]
async fn trap_31_what_is_rolled_back_or_local_was_never_set() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = two(&bench).await;
    for script in [
        vec!["BEGIN", "SET work_mem = '9MB'", "ROLLBACK"],
        vec!["BEGIN", "SET LOCAL work_mem = '9MB'", "COMMIT"],
        vec!["BEGIN", "SET work_mem = '9MB'", "SELECT 1/0", "COMMIT"],
        vec!["SET work_mem = '9MB'; SELECT 1/0"],
        vec!["BEGIN; SET work_mem = '9MB'; ROLLBACK"],
        vec!["BEGIN", "SAVEPOINT s", "SET work_mem = '9MB'", "ROLLBACK TO s", "COMMIT"],
        vec!["BEGIN", "SET TimeZone = 'Asia/Tokyo'", "ROLLBACK"],
        vec!["BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT"],
    ] {
        for statement in &script {
            a.query(statement).await;
        }
        assert_eq!(b.value("SHOW work_mem").await, "4MB", "{script:?}");
        assert_eq!(a.value("SHOW work_mem").await, "4MB", "{script:?}");
        assert_eq!(a.value("SHOW TimeZone").await, b.value("SHOW TimeZone").await, "{script:?}");
    }
    // What was set before the savepoint stays.
    for statement in [
        "BEGIN",
        "SET work_mem = '9MB'",
        "SAVEPOINT s",
        "SET work_mem = '8MB'",
        "ROLLBACK TO s",
        "COMMIT",
    ] {
        a.query(statement).await;
    }
    b.query("SELECT 1").await;
    assert_eq!(a.value("SHOW work_mem").await, "9MB");
}

#[tokio::test]
async fn reset_goes_back_to_what_the_client_started_with() {
    let bench = Bench::start(1).await;
    let start = [("options", "-c work_mem=9MB -c app.note=start"), ("TimeZone", "Asia/Tokyo")];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    let mut b = bench.client().await;
    for reset in [
        "RESET work_mem",
        "RESET ALL",
        "SET work_mem TO DEFAULT",
        "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
        "DISCARD ALL",
    ] {
        a.query("SET work_mem = '7MB'").await;
        assert_eq!(b.value("SHOW work_mem").await, "4MB");
        assert_eq!(a.value("SHOW work_mem").await, "7MB");
        a.query(reset).await;
        assert_eq!(b.value("SHOW work_mem").await, "4MB", "{reset}");
        assert_eq!(a.value("SHOW work_mem").await, "9MB", "{reset}");
        assert_eq!(a.value("SHOW TimeZone").await, "Asia/Tokyo", "{reset}");
        assert_eq!(a.value("SELECT current_setting('app.note')").await, "start", "{reset}");
    }
}

#[tokio::test]
async fn what_discard_all_put_back_no_rollback_of_the_same_batch_takes_back() {
    let bench = Bench::start(1).await;
    let start = [("application_name", "mine"), ("options", "-c work_mem=9MB")];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    for then in ["ROLLBACK", "SELECT 1/0"] {
        a.query("SET application_name = 'another'; SET work_mem = '7MB'").await;
        assert_eq!(a.parameters["application_name"], "another");
        a.ask(&[run("DISCARD ALL"), run(then), sync()]).await;
        assert_eq!(a.parameters["application_name"], "mine", "{then}");
        assert_eq!(a.value("SHOW application_name").await, "mine", "{then}");
        assert_eq!(a.value("SHOW work_mem").await, "9MB", "{then}");
    }
}

#[tokio::test]
async fn trap_30_settings_made_where_no_text_tells_do_not_leak() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = two(&bench).await;
    a.query("CREATE FUNCTION sets() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$").await;
    a.query(
        "CREATE PROCEDURE sets_too() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '9MB'; END $$",
    )
    .await;
    for hidden in [
        "SELECT sets()",
        "DO $$ BEGIN SET work_mem = '9MB'; END $$",
        "CALL sets_too()",
        "EXPLAIN ANALYZE SELECT sets()",
        "WITH x AS (SELECT sets()) SELECT * FROM x",
    ] {
        a.query(hidden).await;
        assert_eq!(b.value("SHOW work_mem").await, "4MB", "{hidden}");
    }
    a.query("DO $$ BEGIN CREATE TEMP TABLE hidden (n int); PERFORM pg_advisory_lock(7); LISTEN x; END $$").await;
    // As without us they are the client's, who keeps its connection for them.
    assert_eq!(a.value("SELECT to_regclass('hidden') IS NULL").await, "f");
    a.send(&terminate()).await;
    assert_eq!(b.value("SELECT to_regclass('hidden') IS NULL").await, "t");
    assert_eq!(b.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, "0");
    let mut a = bench.client().await;
    // The end of a long text is not looked at.
    let long = format!("SELECT '{}'; SET work_mem = '9MB'", "x".repeat(200_000));
    a.query(&long).await;
    assert_eq!(b.value("SHOW work_mem").await, "4MB");
}

#[tokio::test]
async fn what_lives_in_the_session_stays_with_its_client_and_ends_with_it() {
    let bench = Bench::start(2).await;
    for (make, check) in [
        ("CREATE TEMP TABLE mine AS SELECT 'mine'::text AS t", "SELECT t FROM mine"),
        ("CREATE TABLE pg_temp.mine AS SELECT 'mine'::text AS t", "SELECT t FROM mine"),
        ("SELECT 'mine'::text AS t INTO TEMP mine", "SELECT t FROM mine"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 'mine' FROM generate_series(1, 9)", "FETCH c"),
        ("PREPARE p AS SELECT 'mine'", "EXECUTE p"),
    ] {
        let (mut a, mut b) = two(&bench).await;
        a.query(make).await;
        for _ in 0..3 {
            assert_eq!(a.value(check).await, "mine", "{make}");
            assert!(b.query(check).await.starts_with("E["), "{make}");
        }
        drop(a);
        bench.all_home().await;
        for _ in 0..3 {
            assert!(b.query(check).await.starts_with("E["), "{make}");
        }
    }
    let (mut a, mut b) = two(&bench).await;
    a.query("SELECT pg_advisory_lock(42)").await;
    assert_eq!(b.value("SELECT pg_try_advisory_lock(42)").await, "f");
    a.query("LISTEN news").await;
    b.query("NOTIFY news").await;
    assert_eq!(show(&a.until_tag(b'A').await), "A");
    drop((a, b));
    bench.all_home().await;
    assert_eq!(bench.truth("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, "0");
    let pins = bench.gateway.snapshot().pins;
    assert!(pins["temporary_table"] == 3 && pins["advisory_lock"] == 1, "{pins:?}");
    // DISCARD ALL leaves nothing to keep the connection for.
    let mut c = bench.client().await;
    c.query("CREATE TEMP TABLE mine (n int)").await;
    assert_eq!(bench.leased(), 1);
    c.query("DISCARD ALL").await;
    bench.all_home().await;
}

#[tokio::test]
async fn trap_33_start_options_are_read_as_postgres_reads_them() {
    let bench = Bench::start(1).await;
    let options = "-c search_path=a,\"b\\ c\" --work-mem=9MB -cgeqo=off";
    for address in [bench.address, bench.server] {
        let mut client =
            Client::connect(address, &bench.database, &[("options", options)]).await.unwrap();
        assert_eq!(client.value("SHOW work_mem").await, "9MB");
        assert_eq!(client.value("SHOW geqo").await, "off");
    }
    for wrong in
        [("work_mem", "lots"), ("no_such", "1"), ("TimeZone", "Nowhere"), ("options", "-c geqo=7")]
    {
        let through = Client::connect(bench.address, &bench.database, &[wrong]).await.err();
        let direct = Client::connect(bench.server, &bench.database, &[wrong]).await.err();
        assert!(direct.is_some());
        assert_eq!(through, direct, "{wrong:?}");
    }
    bench.all_home().await;
}

#[tokio::test]
async fn a_client_is_told_what_it_set_in_the_servers_spelling() {
    let bench = Bench::start(1).await;
    let start = [("client_encoding", "utf-8"), ("TimeZone", "utc"), ("application_name", "me")];
    let (mut a, mut direct) = (
        Client::connect(bench.address, &bench.database, &start).await.unwrap(),
        Client::connect(bench.server, &bench.database, &start).await.unwrap(),
    );
    assert_eq!(a.parameters, direct.parameters);
    for set in [
        "SET TimeZone = 'asia/tokyo'",
        "SET DateStyle = german",
        "SET client_encoding = 'latin1'",
        "SET application_name = 'you'",
    ] {
        a.query(set).await;
        direct.query(set).await;
        assert_eq!(a.parameters, direct.parameters, "{set}");
    }
    let mut b = bench.client().await;
    b.query("SELECT 1").await;
    a.query("SELECT 1").await;
    assert_eq!(a.parameters, direct.parameters);
}

#[tokio::test]
async fn trap_29_a_client_alone_is_not_replayed_to() {
    let bench = Bench::start(1).await;
    let start = [
        ("client_encoding", "utf-8"),
        ("TimeZone", "utc"),
        ("application_name", "me"),
        ("extra_float_digits", "2"),
    ];
    let mut a = Client::connect(bench.address, &bench.database, &start).await.unwrap();
    a.query("SET search_path = public, pg_catalog").await;
    a.query("SET statement_timeout = '10s'").await;
    // Whatever we send of our own replaces the unnamed statement's text in pg_stat_activity;
    // so the count of transactions tells.
    let transactions =
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    a.query("SELECT pg_stat_force_next_flush()").await;
    a.query("SELECT 1").await;
    let before: u64 = bench.truth(transactions).await.parse().unwrap();
    for _ in 0..50 {
        a.query("SELECT 1").await;
    }
    a.query("SELECT pg_stat_force_next_flush()").await;
    a.query("SELECT 1").await;
    let after: u64 = bench.truth(transactions).await.parse().unwrap();
    assert!(after - before < 75, "{} transactions for 50 statements", after - before);
}

#[tokio::test]
async fn a_statement_waits_until_its_settings_are_certain() {
    let bench = Bench::start(1).await;
    let (mut a, mut b) = two(&bench).await;
    let mut direct = bench.direct().await;
    direct.query("CREATE ROLE passing; GRANT passing TO forebay; CREATE TABLE t (n int)").await;
    a.query("SET ROLE passing").await;
    b.query("SELECT 1").await;
    direct.query("DROP ROLE passing").await;
    // As the role that logs in it could: it must not.
    let answer = a.query("INSERT INTO t VALUES (1)").await;
    assert!(answer.contains("role \"passing\" does not exist"), "{answer}");
    assert_eq!(bench.truth("SELECT count(*) FROM t").await, "0");
    bench.all_home().await;
}

#[tokio::test]
async fn an_empty_transaction_touches_no_server() {
    let bench = Bench::start(1).await;
    let mut a = bench.client().await;
    let checkouts =
        || bench.gateway.snapshot().pools[0].classes.iter().map(|c| c.checkouts).sum::<u64>();
    let before = checkouts();
    assert_eq!(a.query("BEGIN").await, "C[BEGIN] Z[T]");
    assert_eq!(a.query("COMMIT").await, "C[COMMIT] Z[I]");
    assert_eq!(a.query("START TRANSACTION").await, "C[START TRANSACTION] Z[T]");
    assert_eq!(a.query("ROLLBACK").await, "C[ROLLBACK] Z[I]");
    assert_eq!(checkouts(), before);
    assert_eq!(a.query("BEGIN").await, "C[BEGIN] Z[T]");
    assert_eq!(bench.leased(), 0);
    assert_eq!(a.query("SELECT 1").await, "T D[1] C[SELECT 1] Z[T]");
    assert_eq!(bench.leased(), 1);
    assert_eq!(a.query("COMMIT").await, "C[COMMIT] Z[I]");
    bench.all_home().await;
}

#[tokio::test]
async fn a_transaction_that_gets_no_server_fails_and_can_be_ended() {
    let bench = Bench::with(1, |settings| {
        let core =
            serde_json::from_str("{\"kind\": \"core\", \"checkout_timeout\": \"400ms\"}").unwrap();
        let main = settings.servers.get_mut("main").unwrap();
        main.classes.insert(forebay_pool::ClassName::new("core"), core);
    })
    .await;
    let (mut a, mut b) = two(&bench).await;
    b.ask(&[parse("end", "ROLLBACK"), sync()]).await;
    a.query("BEGIN").await;
    a.query("SELECT 1").await;
    let aborted =
        "E[25P02 current transaction is aborted, commands ignored until end of transaction block]";
    for end in [
        query("ROLLBACK"),
        query("COMMIT"),
        [bind("", "end", &[]), execute("", 0), sync()].concat(),
    ] {
        b.query("BEGIN").await;
        let answer = b.query("SELECT 1").await;
        assert!(answer.starts_with("E[53300 ") && answer.ends_with(" Z[E]"), "{answer}");
        assert_eq!(b.query("SELECT 1").await, format!("{aborted} Z[E]"));
        assert_eq!(b.ask(&[run("SELECT 1"), sync()]).await, format!("{aborted} Z[E]"));
        if end.first() == Some(&b'B') {
            a.query("COMMIT").await;
        }
        b.send(&end).await;
        let ended = show(&b.until_ready(1).await);
        assert!(ended.ends_with("C[ROLLBACK] Z[I]"), "{ended}");
    }
    until("all is home", async || bench.leased() == 0).await;
}

#[tokio::test]
async fn a_connection_whose_settings_are_restored_is_lent_once_for_each_statement() {
    let bench = Bench::start(1).await;
    let mut clients = Vec::new();
    for zone in ["Asia/Tokyo", "America/Lima"] {
        let start = [("TimeZone", zone)];
        clients.push(Client::connect(bench.address, &bench.database, &start).await.unwrap());
    }
    let lent = || -> u64 {
        let pools = bench.gateway.snapshot().pools;
        pools.iter().flat_map(|pool| &pool.classes).map(|class| class.checkouts).sum()
    };
    let before = lent();
    for _ in 0..5 {
        assert_eq!(clients[0].value("SHOW TimeZone").await, "Asia/Tokyo");
        assert_eq!(clients[1].value("SHOW TimeZone").await, "America/Lima");
    }
    assert_eq!(lent() - before, 10);
}
