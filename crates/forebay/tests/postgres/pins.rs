//! Connections that clients keep: for each reason, until what caused it has ended.

use crate::bench::{Bench, until};
use crate::client::{Client, bind, execute, parse, query, run, show, sync};

/// The reasons that the gateway shows.
fn reasons(bench: &Bench) -> Vec<&'static str> {
    let pinned = bench.gateway.snapshot().pinned;
    pinned.into_iter().flat_map(|pinned| pinned.reasons).collect()
}

#[tokio::test]
async fn a_pin_ends_with_what_caused_it() {
    let bench = Bench::start(2).await;
    let mut direct = bench.direct().await;
    for sql in [
        "CREATE FUNCTION lock_it(n int) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(n)'",
        "CREATE FUNCTION unlock_it(n int) RETURNS bool LANGUAGE sql AS 'SELECT pg_advisory_unlock(n)'",
    ] {
        direct.query(sql).await;
    }
    let mut a = bench.client().await;
    for (steps, reason) in [
        (
            &["CREATE TEMP TABLE t (n int)", "INSERT INTO t VALUES (1)", "DROP TABLE t"][..],
            "temporary_table",
        ),
        (&["CREATE TEMP TABLE t (n int)", "DISCARD TEMP"], "temporary_table"),
        (
            &["BEGIN; CREATE TEMP TABLE t (n int); COMMIT", "DROP TABLE IF EXISTS t"],
            "temporary_table",
        ),
        (&["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH c", "CLOSE c"], "hold_cursor"),
        (&["BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE ALL"], "hold_cursor"),
        (&["PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p"], "sql_prepare"),
        (&["PREPARE p AS SELECT 1", "DEALLOCATE ALL"], "sql_prepare"),
        (
            &[
                "SELECT pg_advisory_lock(1)",
                "SELECT pg_advisory_lock(1)",
                "SELECT pg_advisory_unlock(1)",
                "SELECT pg_advisory_unlock(1)",
            ],
            "advisory_lock",
        ),
        (
            &[
                "SELECT pg_advisory_lock_shared(1, 2)",
                "SELECT pg_try_advisory_lock(3)",
                "SELECT pg_advisory_unlock(3)",
                "SELECT pg_advisory_unlock_shared(1, 2)",
            ],
            "advisory_lock",
        ),
        (
            &[
                "SELECT pg_advisory_lock(n) FROM generate_series(1, 5) n",
                "SELECT pg_advisory_unlock_all()",
            ],
            "advisory_lock",
        ),
        (&["SELECT lock_it(7)", "SELECT 1", "SELECT unlock_it(7)"], "advisory_lock"),
        (
            &["SET SESSION AUTHORIZATION pg_monitor", "SELECT 1", "RESET SESSION AUTHORIZATION"],
            "session_authorization",
        ),
    ] {
        let (last, first) = steps.split_last().unwrap();
        for step in first {
            let answer = a.query(step).await;
            assert!(answer.ends_with("Z[I]") && !answer.contains("E["), "{step}: {answer}");
            until(step, async || reasons(&bench) == [reason] && bench.leased() == 1).await;
        }
        let answer = a.query(last).await;
        assert!(!answer.contains("E["), "{last}: {answer}");
        until(last, async || bench.leased() == 0).await;
        assert!(reasons(&bench).is_empty(), "{last}");
    }
    // Two reasons, of which one ends.
    a.query("CREATE TEMP TABLE t (n int)").await;
    a.query("SELECT pg_advisory_lock(1)").await;
    until("two", async || reasons(&bench) == ["temporary_table", "advisory_lock"]).await;
    a.query("DROP TABLE t").await;
    until("one", async || reasons(&bench) == ["advisory_lock"]).await;
    let pinned = bench.gateway.snapshot().pinned.remove(0);
    assert_eq!((&*pinned.user, &*pinned.database), (crate::bench::USER, &*bench.database));
    a.query("SELECT pg_advisory_unlock(1)").await;
    bench.all_home().await;
    let pins = bench.gateway.snapshot().pins;
    assert!(pins["temporary_table"] == 4 && pins["advisory_lock"] == 5, "{pins:?}");
}

#[tokio::test]
async fn what_never_came_to_be_pins_nothing() {
    let bench = Bench::start(2).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    b.query("SELECT pg_advisory_lock(1)").await;
    for steps in [
        "SELECT pg_try_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock(2)",
        "BEGIN; SELECT pg_advisory_lock(3); SELECT pg_advisory_unlock(3); COMMIT",
        "CREATE TEMP TABLE t (n int) ON COMMIT DROP",
        "BEGIN; CREATE TEMP TABLE t (n int); ROLLBACK",
        "CREATE TEMP TABLE no_such_type (n nonsense)",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        "BEGIN; LISTEN x; ROLLBACK",
        "PREPARE p AS nonsense",
        "SET SESSION AUTHORIZATION nobody_at_all",
        "BEGIN; SET SESSION AUTHORIZATION pg_monitor; ROLLBACK",
    ] {
        a.query(steps).await;
        until(steps, async || bench.leased() == 1).await;
        // By the extended protocol, too.
        a.ask(&[parse("", steps), bind("", "", &[]), execute("", 0), sync()]).await;
        until(steps, async || bench.leased() == 1).await;
    }
    assert_eq!(reasons(&bench), ["advisory_lock"]);
    // What comes behind the statement, before we have asked, is answered in turn.
    a.send(
        &[
            query("CREATE TEMP TABLE t (n int)"),
            query("INSERT INTO t VALUES (5)"),
            run("SELECT n FROM t"),
            sync(),
            query("DROP TABLE t"),
        ]
        .concat(),
    )
    .await;
    let answer = show(&a.until_ready(4).await);
    assert!(answer.contains("D[5]") && answer.ends_with("C[DROP TABLE] Z[I]"), "{answer}");
    until("it is home", async || bench.leased() == 1).await;
    // Its value is the server's to tell; then it follows the client, who keeps nothing for it.
    let tenant = "SELECT current_setting('app.tenant', true)";
    let set = |value| {
        [
            parse("", "SELECT set_config('app.tenant', $1, false)"),
            bind("", "", &[value]),
            execute("", 0),
            sync(),
        ]
    };
    for value in ["42", "o'brien \\"] {
        a.ask(&set(value)).await;
        until("it is home", async || bench.leased() == 1).await;
        let mut other = bench.client().await;
        assert!(["", "NULL"].contains(&&*other.value(tenant).await));
        assert_eq!(a.value(tenant).await, value);
    }
    a.query("BEGIN").await;
    a.ask(&set("lost")).await;
    a.query("ROLLBACK").await;
    assert_eq!(a.value(tenant).await, "o'brien \\");
    let mut c =
        Client::connect(bench.address, &bench.database, &[("work_mem", "9MB")]).await.unwrap();
    c.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await;
    until("it is home", async || bench.leased() == 1).await;
    assert_eq!(a.value("SHOW transaction_read_only").await, "off");
    assert_eq!(c.value("SHOW transaction_read_only").await, "on");
    assert_eq!(reasons(&bench), ["advisory_lock"]);
}
