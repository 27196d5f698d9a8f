//! Statements of scripts. `{t}` and its kin are told in [`super::message::Names`].

/// Statements of all kinds, for simple queries and Parse alike.
pub(super) const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT n, t FROM {t} ORDER BY n, t",
    "SELECT count(*) FROM {t}",
    "SELECT count(*) FROM {u}",
    "INSERT INTO {t} VALUES (1, 'one')",
    "INSERT INTO {t} SELECT g, 'x' FROM generate_series(1, 5) g",
    "INSERT INTO {t}_once VALUES (1)",
    "UPDATE {t} SET n = n + 1",
    "DELETE FROM {t} WHERE n > 3 RETURNING n",
    "SELECT 1/0",
    "SELECT * FROM missing",
    "SELEC",
    "",
    ";",
    "SELECT generate_series(1, 4)",
    "SELECT generate_series(1, 4), '{c}'",
    "SELECT 1 /*route='x'*/",
    "SELECT n FROM {t} /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/",
    "INSERT INTO {t} VALUES (2, 'tagged') /*action='y',application='z'*/;",
    "SELECT '/*a=''b''*/'",
    "SELECT 'ä€', t FROM {t}",
    "SELECT current_user",
    "DO $$ BEGIN RAISE NOTICE 'seen'; END $$",
    "DO $$ BEGIN RAISE WARNING 'seen' USING DETAIL = 'd', HINT = 'h'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = 'ZZ123'; END $$",
    "DROP TABLE IF EXISTS {t}_missing",
    "CREATE TABLE {t}_more (n int)",
    "DROP TABLE {t}_more",
    "VALUES (1, 'a'), (2, NULL), (3, '')",
    "EXPLAIN (COSTS OFF) SELECT 1",
    "SELECT pg_advisory_xact_lock(hashtext('{s}'), {c})",
    "TABLE {t}",
];

/// What begins and ends transactions, and what only works within.
pub(super) const TRANSACTIONS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "begin work;",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "START TRANSACTION READ WRITE, NOT DEFERRABLE;",
    "SET TRANSACTION READ ONLY",
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    "COMMIT",
    "COMMIT",
    "COMMIT",
    "END",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "ROLLBACK",
    "ROLLBACK",
    "ABORT",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT s",
    "SAVEPOINT s",
    "SAVEPOINT r",
    "ROLLBACK TO s",
    "ROLLBACK TO SAVEPOINT r",
    "RELEASE s",
    "PREPARE TRANSACTION 'x'",
    "LOCK TABLE {t}",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 5)",
    "DECLARE c SCROLL CURSOR FOR SELECT n FROM {t} ORDER BY n",
    "FETCH 2 FROM c",
    "FETCH BACKWARD 1 FROM c",
    "MOVE 1 IN c",
    "CLOSE c",
];

/// Settings of the session, and what shows them.
pub(super) const SETTINGS: &[&str] = &[
    "SET TimeZone = 'Asia/Tokyo'",
    "SET TIME ZONE 'Europe/Paris'",
    "SET TimeZone = 'UTC'",
    "SET LOCAL TimeZone = 'Europe/Paris'",
    "SET app.note = 'kept'",
    "SET app.note = 'o''ther \\ {c}'",
    "SET SESSION app.note TO 'session'",
    "SET LOCAL app.note = 'local'",
    "SET DateStyle = 'German'",
    "SET IntervalStyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -1",
    "SET work_mem = '1MB'",
    "SET client_min_messages = 'error'",
    "SET standard_conforming_strings = off",
    "SET client_encoding = 'LATIN1'",
    "SET client_encoding = 'UTF8'",
    "SET application_name = 'me {c}'",
    "SET no_such_setting = 1",
    "SET work_mem = 'nonsense'",
    "SET ROLE forebay_scripted",
    "RESET ROLE",
    "RESET app.note",
    "RESET TimeZone",
    "RESET ALL",
    "SET app.note TO DEFAULT",
    "SET search_path = pg_catalog",
    "SET search_path = ''",
    "SET search_path = {s}",
    "SET search_path = {s}, public",
    "SET search_path = \"$user\", public",
    "SELECT set_config('app.note', 'called', false)",
    "SELECT set_config('app.note', 'called locally', true)",
    "SELECT pg_catalog.set_config('TimeZone', 'America/Lima', false)",
    "SELECT set_config('work_mem', '2MB', false)",
    "SELECT coalesce(current_setting('app.note', true), ''), current_setting('search_path')",
    "SELECT coalesce(current_setting('app.note', true), '')",
    "SELECT current_setting('work_mem'), current_setting('bytea_output')",
    "SHOW TimeZone",
    "SHOW search_path",
    "SHOW work_mem",
    "SELECT '2026-01-02'::date, '1 day'::interval, '\\x00ff'::bytea, 0.1::float8",
    "SELECT 'a\\b', current_user",
];

/// Statements that prepared statements go with.
pub(super) const FORGETTING: &[&str] =
    &["DEALLOCATE a", "DEALLOCATE PREPARE b", "DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS"];

/// Several statements in one query.
pub(super) const SEVERAL: &[&str] = &[
    "INSERT INTO {t} VALUES (7, 'a'); SELECT 1/0",
    "SELECT 1; SELECT 2",
    "SELECT 1;; ;SELECT generate_series(1, 3); ",
    "BEGIN; INSERT INTO {t} VALUES (8, 'b'); COMMIT",
    "BEGIN; SELECT 1/0; COMMIT",
    "BEGIN; SELECT 1",
    "COMMIT; SELECT 1",
    // Behind a Parse that the server has seen it would be refused; ours may not have had to.
    "ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY; SHOW transaction_isolation",
    "ROLLBACK; BEGIN; SET app.note = 'after'",
    "SET app.note = 'lost'; SELECT 1/0",
    "SET app.note = 'two'; SELECT 1",
    "BEGIN; SET app.note = 'in'; ROLLBACK; SELECT coalesce(current_setting('app.note', true), '')",
    "BEGIN; SET app.note = 'out'; SAVEPOINT s; SET app.note = 'in'; ROLLBACK TO s; COMMIT",
    "BEGIN; SET LOCAL app.note = 'x'; COMMIT; SET app.note = 'y'",
    "BEGIN; SET LOCAL app.note = 'gone'; COMMIT",
    "SELECT coalesce(current_setting('app.note', true), '')",
    "INSERT INTO {t} VALUES (9, 'c'); ROLLBACK",
    "SELECT 1; COMMIT; SELECT 1/0",
    "; ;",
    "INSERT INTO {t}_once VALUES (2); INSERT INTO {t}_once VALUES (2)",
    "BEGIN; SET TimeZone = 'Asia/Tokyo'; INSERT INTO {t}_once VALUES (3), (3); COMMIT",
    "SELECT 1; COPY {t} TO STDOUT; SELECT 2",
    "DO $$ BEGIN RAISE NOTICE 'first'; END $$; SELECT 1/0",
];

/// What the client that keeps its connection may do besides.
pub(super) const PINNING: &[&str] = &[
    "PREPARE s1 AS SELECT 1",
    "PREPARE s1 (int) AS SELECT $1 + 1",
    "PREPARE s2 AS INSERT INTO {t} VALUES (4, 'prepared')",
    "EXECUTE s1",
    "EXECUTE s1 (2)",
    "EXECUTE s2",
    "DEALLOCATE s1",
    "DEALLOCATE s2",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DISCARD TEMP",
    "CREATE TEMP TABLE mine (n int)",
    "INSERT INTO mine VALUES (1)",
    "SELECT count(*) FROM mine",
    "DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 5)",
    "FETCH 2 FROM h",
    "CLOSE h",
    "SELECT pg_advisory_lock(hashtext('{s}'))",
    "SELECT pg_advisory_unlock(hashtext('{s}'))",
];

/// A COPY, its data in parts, and whether PostgreSQL takes them.
pub(super) const COPIES: &[(&str, &[&str])] = &[
    ("COPY {t} FROM STDIN", &["1\tx\n"]),
    ("COPY {t} FROM STDIN", &["1\tx\n2", "\ty\n"]),
    ("COPY {t} FROM STDIN", &[]),
    ("COPY {t} FROM STDIN", &["oops\n"]),
    ("COPY {t} FROM STDIN", &["1\tx\n", "oops\n", "2\ty\n", "3\tz\n"]),
    ("COPY {t} (t) FROM STDIN WITH (FORMAT csv)", &["\"a", ",b\"\n"]),
    ("COPY {t} FROM STDIN", &["1\t{long}\n", "2\t{long}\n"]),
    ("COPY missing FROM STDIN", &["1\tx\n"]),
    ("COPY {t}_once FROM STDIN", &["5\n5\n"]),
];

/// COPY the other way.
pub(super) const COPIES_OUT: &[&str] = &[
    "COPY {t} TO STDOUT",
    "COPY (SELECT generate_series(1, 3)) TO STDOUT WITH (FORMAT csv)",
    "COPY (SELECT 1 / (n - 2) FROM generate_series(1, 3) n) TO STDOUT",
    "COPY (SELECT '{long}' FROM generate_series(1, 2)) TO STDOUT",
    "COPY missing TO STDOUT",
];

/// Statements with parameters, and values for them: some do not fit.
pub(super) const WITH_VALUES: &[(&str, &[&str])] = &[
    ("SELECT $1::int + 1", &["1"]),
    ("SELECT $1::int + 1", &["x"]),
    ("SELECT $1::int + 1", &[]),
    ("SELECT $1::int + 1", &["1", "2"]),
    ("SELECT 1 / $1::int", &["0"]),
    ("INSERT INTO {t} VALUES ($1, $2) RETURNING n", &["3", "bound"]),
    ("INSERT INTO {t} VALUES ($1, $2)", &["4", "{long}"]),
    ("SELECT n, t FROM {t} WHERE n = $1", &["1"]),
    ("SELECT n, t FROM {u} WHERE n = $1", &["1"]),
    ("SELECT set_config('app.note', $1, true)", &["by value, locally"]),
];

/// Long texts, and long rows.
pub(super) const LONG: &[&str] = &[
    "SELECT length('{long}')",
    "SELECT '{long}' FROM generate_series(1, 3)",
    "SELECT repeat('y', 300000)",
    "INSERT INTO {t} VALUES (6, '{long}')",
    "SELECT '{long}' / 0",
];

/// What sleeps until it is cancelled. Each of these texts is there once at any moment.
pub(super) const SLEEPING: &[&str] = &[
    "SELECT pg_sleep(60), '{mark}'",
    "INSERT INTO {t} SELECT 1, 'never' FROM pg_sleep(60) WHERE '{mark}' <> ''",
];

/// `pg_catalog` functions: `int4pl`, `int4div`, and none.
pub(super) const CALLS: &[(u32, &[&str])] =
    &[(177, &["1", "2"]), (154, &["1", "0"]), (177, &["x", "2"]), (177, &["1"]), (1, &[])];

/// What the last of several clients leaves in its session, unseen by what is followed, and
/// what the others see of it: nothing.
pub(super) const LEAVING: &str =
    "DO $$ BEGIN PERFORM set_config('app.left', 'by {c}', false); END $$";
pub(super) const LOOKING: &str = "SELECT coalesce(current_setting('app.left', true), '')";
