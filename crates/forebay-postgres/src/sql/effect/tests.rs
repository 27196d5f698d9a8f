use super::*;

fn one(text: &str) -> Effect {
    let mut effects = of(text.as_bytes());
    assert_eq!(effects.len(), 1, "{text}");
    effects.remove(0)
}

#[test]
fn everyday_statements_are_clean() {
    for text in [
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        "UPDATE t SET a = a + 1 WHERE b IN (1, 2) AND (c OR d)",
        "INSERT INTO pgbench_history (tid, bid) VALUES ($1, $2) ON CONFLICT (tid) DO NOTHING",
        "INSERT INTO s.t (a) SELECT count(*) FROM u",
        "WITH x (a) AS (SELECT 1) SELECT pg_catalog.upper(a), coalesce(b, 1) FROM x",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "COPY t (a, b) FROM STDIN",
        "SET TRANSACTION READ ONLY",
        "SELECT pg_advisory_xact_lock(1)",
        "FETCH 10 FROM c",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "ROLLBACK",
        "SELECT a, sum(b) OVER (PARTITION BY (a)) FROM t GROUP BY GROUPING SETS ((a), (b))",
        "COPY (SELECT 1) TO STDOUT",
    ] {
        assert_eq!(one(text), Effect::Clean, "{text}");
    }
}

#[test]
fn what_may_hide_a_setting_is_dirt() {
    for text in [
        "SELECT my_function(1)",
        "SELECT app.count(1)",
        "SELECT \"set_config\"('a', 'b', false)",
        "DO $$ BEGIN SET x = 1; END $$",
        "CALL p()",
        "LOAD 'x'",
        "SELECT query_to_xml('set x = 1', true, true, '')",
        "nonsense",
        "SELECT sets(1)",
        "SELECT a, key(1) FROM t",
        "SELECT 1 FROM a JOIN b ON my_function(a)",
    ] {
        assert_eq!(one(text), Effect::Dirty, "{text}");
    }
}

#[test]
fn what_lives_in_the_session_pins() {
    for (text, reason) in [
        ("LISTEN U&\"\\0061\"", PinReason::Listen),
        ("CREATE TEMP TABLE t (a int)", PinReason::TemporaryTable),
        ("CREATE LOCAL TEMPORARY TABLE t AS SELECT 1", PinReason::TemporaryTable),
        ("SELECT 1 INTO TEMP t", PinReason::TemporaryTable),
        ("SELECT pg_advisory_lock(1)", PinReason::AdvisoryLock),
        ("select Pg_Try_Advisory_Lock_Shared(1)", PinReason::AdvisoryLock),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", PinReason::HoldCursor),
        ("PREPARE p AS SELECT 1", PinReason::SqlPrepare),
        ("CREATE TABLE pg_temp.t (a int)", PinReason::TemporaryTable),
        ("SELECT set_config(name, '1', true) FROM t", PinReason::Setting),
        ("SELECT set_config('a.b', my_function(), false)", PinReason::Setting),
        ("SET session_authorization = bob", PinReason::SessionAuthorization),
        ("SET SESSION AUTHORIZATION bob", PinReason::SessionAuthorization),
    ] {
        assert_eq!(one(text), Effect::Pin(reason), "{text}");
    }
}

#[test]
fn what_ends_by_itself_or_ends_something_is_told_apart() {
    for (text, effect) in [
        ("SET LOCAL search_path = 'x'", Effect::Local),
        ("SET transaction_isolation = serializable", Effect::Local),
        ("SELECT set_config('app.tenant', $1::text, true)", Effect::Local),
        ("SELECT set_config('a', $1, true), set_config('b', lower($2), true)", Effect::Local),
        ("SELECT pg_advisory_unlock_all()", Effect::MayEnd),
        ("DROP TABLE t", Effect::MayEnd),
        ("CLOSE c", Effect::MayEnd),
        ("SET seed = 0.5", Effect::Dirty),
    ] {
        assert_eq!(one(text), effect, "{text}");
    }
}

#[test]
fn what_is_defined_is_told_by_what_it_may_mean_for_others() {
    for (text, definition) in [
        ("CREATE TABLE t (a int PRIMARY KEY)", Definition::Data),
        ("CREATE UNIQUE INDEX i ON t (a)", Definition::Data),
        ("ALTER TABLE t ADD COLUMN b int DEFAULT 1", Definition::Data),
        ("ALTER FUNCTION f() RENAME TO g", Definition::Data),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", Definition::Code),
        ("CREATE VIEW v AS SELECT f()", Definition::Code),
        ("CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION f()", Definition::Code),
        ("CREATE CAST (a AS b) WITH FUNCTION f(a)", Definition::Code),
        ("CREATE TABLE t AS SELECT f()", Definition::Script),
        ("ALTER TABLE t ADD COLUMN b int DEFAULT f()", Definition::Script),
        ("CREATE EXTENSION e", Definition::Script),
        ("IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", Definition::Script),
    ] {
        assert_eq!(one(text), Effect::Defines(definition), "{text}");
    }
    let known = |name: &[u8]| name == b"f";
    let effects = of_known(b"CREATE TABLE t AS SELECT f(); SELECT s.f(g(1)); CALL f()", &known);
    assert_eq!(
        effects.as_slice(),
        [Effect::Defines(Definition::Data), Effect::Dirty, Effect::Clean]
    );
}

#[test]
fn a_value_that_only_the_server_knows_is_asked_for_by_name() {
    let characteristics: &[&str] = &[
        "default_transaction_isolation",
        "default_transaction_read_only",
        "default_transaction_deferrable",
    ];
    for (text, names) in [
        ("SELECT set_config('A.b', $1, false)", &["a.b"][..]),
        ("SELECT set_config('a', 'x', true), set_config('b', $1, false) FROM t", &["b"]),
        ("SELECT set_config('a', 'x' || 'y', $1), set_config('b', $1, false)", &["a", "b"]),
        ("SET x = 1 + 1", &["x"]),
        ("SET \"X\".\"y\" = E'1'", &["x.y"]),
        ("SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE", &["timezone"]),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", characteristics),
    ] {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(one(text), Effect::Learn { names }, "{text}");
    }
}

#[test]
fn settings_are_read_as_set_config_takes_them() {
    for (text, name, value) in [
        ("SET a.b TO 'it''s'", "a.b", "it's"),
        ("SET SESSION Work_Mem = 64", "work_mem", "64"),
        ("set time zone 'UTC'", "timezone", "UTC"),
        ("SET ROLE \"Some One\"", "role", "Some One"),
        ("SET ROLE Bob", "role", "bob"),
        ("SET SCHEMA 'A b'", "search_path", "\"A b\""),
        ("SELECT pg_catalog.set_config('search_path', '', false);", "search_path", ""),
        ("SET search_path TO a, \"B\", 'c d'", "search_path", "a, \"B\", \"c d\""),
        ("SET search_path = ''", "search_path", "\"\""),
        ("SET extra_float_digits = -3", "extra_float_digits", "-3"),
        ("SET NAMES 'UTF8'", "client_encoding", "UTF8"),
    ] {
        let expected = Effect::Set { name: name.into(), value: value.into() };
        assert_eq!(one(text), expected, "{text}");
    }
    assert_eq!(one("SET x TO DEFAULT"), Effect::Reset { name: "x".into() });
    let zone = Effect::Reset { name: "timezone".into() };
    assert_eq!((one("SET TIME ZONE LOCAL"), one("RESET TIME ZONE")), (zone.clone(), zone));
    assert_eq!(one("RESET a.b"), Effect::Reset { name: "a.b".into() });
    assert_eq!(one("RESET ALL"), Effect::ResetAll);
    assert_eq!(one("SAVEPOINT A"), Effect::Savepoint { name: "a".into() });
    assert_eq!(one("RELEASE SAVEPOINT a"), Effect::Release { name: "a".into() });
    assert_eq!(one("ROLLBACK TO a"), Effect::RollbackTo { name: "a".into() });
}

#[test]
fn each_statement_of_a_string_has_its_effect() {
    let text = b"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;";
    let effects = of(text);
    assert_eq!(effects.len(), 4);
    assert_eq!(effects.last(), Some(&Effect::ResetAll));
    assert!(of(b" ;; /* ; */ ").is_empty());
}

#[test]
fn the_table_of_harmless_functions_is_sorted_and_has_no_trap() {
    let names: Vec<&str> = HARMLESS.lines().collect();
    assert!(names.is_sorted());
    assert!(names.iter().all(|name| has_line(HARMLESS, name.as_bytes())), "every line is found");
    for absent in ["", "ab", "abt", "zzz", "abbrev\nabs"] {
        assert!(!has_line(HARMLESS, absent.as_bytes()), "{absent}");
    }
    for trap in ["set_config", "pg_advisory_lock", "query_to_xml", "setseed", "pg_export_snapshot"]
    {
        assert!(!has_line(HARMLESS, trap.as_bytes()), "{trap}");
    }
    assert!(is_harmless(b"COUNT") && is_harmless(b"now") && is_harmless(b"jsonb_build_object"));
}
