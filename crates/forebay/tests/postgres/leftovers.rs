//! What clients leave in a session reaches nobody else: state of every kind, set by every
//! means, by clients that stay, leave or are cut off, looked for by the next client on the
//! same server connection.

use std::time::Duration;

use forebay_seam::time;
use tokio::sync::OnceCell;

use crate::bench::{Bench, until};
use crate::client::{Client, bind, execute, parse, sync, terminate};

/// All that a session holds, as its owner can see it; empty in a new one.
const HOLDS: &str = "SELECT concat_ws(' ', \
    (SELECT string_agg(name || '=' || setting, ',') FROM pg_settings WHERE source = 'session' \
     AND name <> 'application_name'), \
    (SELECT 'role ' || current_user WHERE current_user <> 'forebay'), \
    (SELECT 'session ' || session_user WHERE session_user <> 'forebay'), \
    nullif(current_setting('app.rest', true), ''), \
    (SELECT 'locks' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() LIMIT 1), \
    (SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable), \
    (SELECT 'prepared ' || name FROM pg_prepared_statements WHERE from_sql LIMIT 1), \
    (SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() LIMIT 1), \
    (SELECT 'listens ' || c FROM pg_listening_channels() c LIMIT 1))";

/// What the statements below find in the database.
const SCENE: &[&str] = &[
    "CREATE FUNCTION sets() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('work_mem', '9MB', false); SET app.rest = 'set'; RETURN 1; END $$",
    "CREATE FUNCTION calls() RETURNS int LANGUAGE sql AS 'SELECT sets()'",
    "CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT set_config('work_mem', '9MB', false); SELECT 1; END",
    "CREATE FUNCTION dynamic(what text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; RETURN 1; END $$",
    "CREATE FUNCTION defaults(n int DEFAULT sets()) RETURNS int LANGUAGE sql AS 'SELECT n'",
    "CREATE FUNCTION is_set(n int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); RETURN true; END'",
    "CREATE FUNCTION pure(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); RETURN n; END'",
    "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); RETURN NEW; END'",
    "CREATE FUNCTION fires_at_end() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); RETURN OLD; END'",
    "CREATE FUNCTION locks() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(5)'",
    "CREATE FUNCTION makes() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE IF NOT EXISTS made (n int); END'",
    "CREATE PROCEDURE proceeds() LANGUAGE plpgsql AS 'BEGIN PERFORM sets(); COMMIT; END'",
    "CREATE FUNCTION clean(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE plain SET n = n; RETURN n; END'",
    "CREATE TABLE plain (n int)",
    "CREATE VIEW seen AS SELECT sets() AS n",
    "CREATE VIEW \"Seen Twice\" AS SELECT * FROM seen",
    "CREATE TABLE fired (n int); CREATE TRIGGER x BEFORE INSERT ON fired FOR EACH ROW EXECUTE FUNCTION fires()",
    "CREATE TABLE late (n int); CREATE CONSTRAINT TRIGGER x AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fires()",
    "CREATE TABLE whole (n int) PARTITION BY LIST (n); CREATE TABLE part PARTITION OF whole FOR VALUES IN (1); CREATE TRIGGER x BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION fires()",
    "CREATE TABLE parent (n int PRIMARY KEY); CREATE TABLE child (n int REFERENCES parent ON DELETE CASCADE); CREATE TRIGGER x BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION fires_at_end()",
    "CREATE TABLE given (n int DEFAULT sets(), m int)",
    "CREATE TABLE checked (n int CHECK (is_set(n)))",
    "CREATE TABLE indexed (n int); CREATE INDEX ON indexed (pure(n))",
    "CREATE TABLE made_of (n int, m int GENERATED ALWAYS AS (pure(n)) STORED)",
    "CREATE TABLE ruled (n int); CREATE RULE x AS ON INSERT TO ruled DO ALSO SELECT sets()",
    "CREATE TABLE guarded (n int); INSERT INTO guarded VALUES (1); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY x ON guarded USING (is_set(n)); GRANT SELECT ON guarded TO left_role",
    "CREATE AGGREGATE gathers (int) (SFUNC = int4pl, STYPE = int, FINALFUNC = pure)",
];

/// Statements of one client, each a query of its own, and whether it may keep the connection.
const LEAVES: &[(&str, &[&str])] = &[
    ("SET", &["SET work_mem = '9MB'"]),
    ("SET of what the server reports", &["SET TimeZone = 'Asia/Tokyo'"]),
    (
        "several",
        &["SET DateStyle = german; SET client_encoding = latin1; SET extra_float_digits = 0"],
    ),
    ("set_config", &["SELECT set_config('work_mem', '9MB', false)"]),
    ("set_config of an expression", &["SELECT set_config('app.rest', 'x' || 'y', false)"]),
    (
        "set_config of many",
        &["SELECT set_config('work_mem', '9MB', false), set_config('app.rest', 'x', false)"],
    ),
    ("set_config of no name", &["SELECT set_config('work' || '_mem', '9MB', false)"]),
    ("a custom setting", &["SET app.rest = 'x'"]),
    ("search_path", &["SET search_path = pg_catalog, public"]),
    ("role", &["SET ROLE left_role"]),
    ("session authorization", &["SET SESSION AUTHORIZATION left_role"]),
    ("session_authorization", &["SET session_authorization = left_role"]),
    (
        "characteristics",
        &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
    ),
    (
        "an update of pg_settings",
        &["UPDATE pg_settings SET setting = '9MB' WHERE name = 'work_mem'"],
    ),
    ("a temporary table", &["CREATE TEMP TABLE x (n int)"]),
    ("a temporary view", &["CREATE TEMP VIEW x AS SELECT 1"]),
    ("a temporary table of a function", &["SELECT makes()"]),
    ("an advisory lock", &["SELECT pg_advisory_lock(1), pg_advisory_lock(1)"]),
    ("a shared one", &["SELECT pg_try_advisory_lock_shared(1, 2)"]),
    ("a lock within a function", &["SELECT locks()"]),
    ("a cursor", &["DECLARE c CURSOR WITH HOLD FOR SELECT 1"]),
    ("a cursor of a transaction", &["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"]),
    ("LISTEN", &["LISTEN x"]),
    ("LISTEN in a DO block", &["DO 'BEGIN LISTEN x; END'"]),
    ("PREPARE", &["PREPARE x AS SELECT 1"]),
    ("PREPARE, and more by it", &["PREPARE x AS SELECT sets()", "EXECUTE x"]),
    ("a function", &["SELECT sets()"]),
    ("a function that calls one", &["SELECT * FROM calls()"]),
    ("an atomic function", &["SELECT atomic()"]),
    ("a function of any text", &["SELECT dynamic('SET work_mem = ''9MB''')"]),
    ("an argument's default", &["SELECT defaults()"]),
    ("an aggregate", &["SELECT gathers(n) FROM plain"]),
    ("a DO block", &["DO $$ BEGIN SET work_mem = '9MB'; END $$"]),
    ("a procedure", &["CALL proceeds()"]),
    ("a view", &["SELECT * FROM seen"]),
    ("a view of a view", &["TABLE \"Seen Twice\""]),
    ("a trigger", &["INSERT INTO fired VALUES (1)"]),
    ("a trigger at the commit", &["BEGIN", "INSERT INTO late VALUES (1)", "SELECT 1", "COMMIT"]),
    ("a partition's trigger", &["INSERT INTO whole VALUES (1)"]),
    (
        "a cascade",
        &[
            "INSERT INTO parent VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO child VALUES (1)",
            "DELETE FROM parent",
        ],
    ),
    ("a default", &["INSERT INTO given (m) VALUES (1)"]),
    ("a check", &["INSERT INTO checked VALUES (1)"]),
    ("an index", &["INSERT INTO indexed VALUES (1)"]),
    ("a generated column", &["INSERT INTO made_of VALUES (1)"]),
    ("a rule", &["INSERT INTO ruled VALUES (1)"]),
    ("a policy", &["SET ROLE left_role", "SELECT * FROM guarded"]),
    ("COPY", &["COPY (SELECT * FROM seen) TO STDOUT"]),
    ("EXPLAIN ANALYZE", &["EXPLAIN ANALYZE SELECT * FROM seen"]),
    (
        "a cursor on a view",
        &["BEGIN", "DECLARE c CURSOR FOR SELECT * FROM seen", "FETCH c", "COMMIT"],
    ),
    (
        "a transaction that is rolled back",
        &["BEGIN", "SET work_mem = '9MB'", "SELECT sets()", "ROLLBACK"],
    ),
    (
        "a savepoint",
        &[
            "BEGIN",
            "SET work_mem = '8MB'",
            "SAVEPOINT s",
            "SET work_mem = '9MB'",
            "ROLLBACK TO s",
            "COMMIT",
        ],
    ),
    ("SET LOCAL", &["BEGIN", "SET LOCAL work_mem = '9MB'", "SET LOCAL app.rest = 'x'", "COMMIT"]),
    (
        "a function that is just made",
        &[
            "BEGIN",
            "CREATE FUNCTION news() RETURNS int LANGUAGE sql AS 'SELECT sets()'",
            "SELECT news()",
            "COMMIT",
            "DROP FUNCTION news()",
        ],
    ),
    (
        "a trigger that is just made",
        &[
            "CREATE TRIGGER x BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION fires()",
            "INSERT INTO plain VALUES (1)",
            "DROP TRIGGER x ON plain",
        ],
    ),
    (
        "a table that is just made",
        &[
            "CREATE TABLE newly (n int DEFAULT sets(), m int)",
            "INSERT INTO newly (m) VALUES (1)",
            "DROP TABLE newly",
        ],
    ),
    (
        "a transaction left open",
        &[
            "BEGIN",
            "SET work_mem = '9MB'",
            "CREATE TEMP TABLE x (n int)",
            "SELECT pg_advisory_lock(1)",
        ],
    ),
    ("a failed transaction", &["BEGIN", "SET work_mem = '9MB'", "SELECT 1/0"]),
    (
        "a failed statement",
        &["SELECT sets(), 1/0", "SELECT pg_advisory_lock(1), 1/(n-1) FROM generate_series(1, 2) n"],
    ),
];

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Goes {
    /// It does not, unless it keeps the connection.
    Stays,
    Leaves,
    IsCutOff,
    IsCutOffAtWork,
}

/// Roles are all databases', so there is one for all tests.
static ROLE: OnceCell<()> = OnceCell::const_new();

async fn set_scene(bench: &Bench) -> Client {
    let mut direct = bench.direct().await;
    ROLE.get_or_init(async || {
        let made = direct.query("CREATE ROLE left_role; GRANT left_role TO forebay").await;
        assert!(!made.contains("E["), "{made}");
    })
    .await;
    for sql in SCENE {
        let answer = direct.query(sql).await;
        assert!(!answer.contains("E["), "{sql}: {answer}");
    }
    direct
}

#[tokio::test]
async fn nothing_of_a_session_reaches_the_next_client() {
    let bench = Bench::start(1).await;
    drop(set_scene(&bench).await);
    let mut fresh = bench.client().await;
    for (what, statements) in LEAVES {
        for goes in [Goes::Stays, Goes::Leaves, Goes::IsCutOff, Goes::IsCutOffAtWork] {
            let mut a = bench.client().await;
            for statement in *statements {
                let answer = a.query(statement).await;
                let meant = statement.contains("1/");
                assert!(meant || !answer.contains("E["), "{what}: {statement}: {answer}");
            }
            match goes {
                Goes::Stays => {
                    a.query("SELECT 1").await;
                    // The question what holds may be under way.
                    for _ in 0..20 {
                        if bench.leased() == 0 {
                            break;
                        }
                        time::sleep(Duration::from_millis(5)).await;
                    }
                    if bench.leased() == 1 {
                        continue;
                    }
                }
                Goes::Leaves => a.send(&terminate()).await,
                Goes::IsCutOff => drop(a.stream.set_zero_linger()),
                Goes::IsCutOffAtWork => {
                    a.send(&crate::client::query("SELECT pg_sleep(60)")).await;
                    drop(a.stream.set_zero_linger());
                }
            }
            let kept = matches!(goes, Goes::Stays).then_some(a);
            assert_eq!(fresh.value(HOLDS).await, "", "{what}, {goes:?}");
            drop(kept);
        }
    }
    let mut drawn = Vec::new();
    for seed in ["SELECT setseed(0.5)", "SET seed = 0.5"] {
        bench.client().await.query(seed).await;
        drawn.push(fresh.value("SELECT random()").await);
    }
    assert_ne!(drawn[0], drawn[1]);
    bench.all_home().await;
    assert_eq!(bench.truth("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await, "0");
}

#[tokio::test]
async fn a_function_that_is_known_to_change_nothing_costs_no_reset() {
    let bench = Bench::start(1).await;
    let mut direct = set_scene(&bench).await;
    let (mut a, mut b) = (bench.client().await, bench.client().await);
    a.query("SELECT clean(1)").await;
    bench.all_home().await;
    let last = async || {
        bench.all_home().await;
        let ours = "SELECT query FROM pg_stat_activity WHERE datname = current_database() \
                    AND application_name = 'forebay'";
        bench.truth(ours).await
    };
    for statement in
        ["INSERT INTO plain VALUES (1)", "SELECT clean(1)", "CREATE TABLE IF NOT EXISTS x (n int)"]
    {
        a.query(statement).await;
        b.query("SELECT 1").await;
        a.ask(&[parse("", "SELECT clean($1)"), bind("", "", &["1"]), execute("", 0), sync()]).await;
        assert_eq!(last().await, "SELECT clean($1)", "{statement}");
        b.query(statement).await;
        assert_eq!(last().await, statement);
    }
    // Somebody makes it dirty, through us: it is known at once.
    b.query("CREATE OR REPLACE FUNCTION clean(n int) RETURNS int LANGUAGE sql AS 'SELECT sets()'")
        .await;
    a.query("SELECT clean(1)").await;
    assert_eq!(b.value(HOLDS).await, "");
    // And by others: within seconds.
    direct
        .query("CREATE TRIGGER x BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION fires()")
        .await;
    until("it is known", async || {
        a.query("INSERT INTO plain VALUES (1)").await;
        b.value(HOLDS).await.is_empty()
    })
    .await;
}
