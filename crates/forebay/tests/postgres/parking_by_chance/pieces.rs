//! What transactions are made of: statements behind which they may be parked, and those that
//! hold something, each with the reason that both proofs have to give.

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Simple,
    /// Prepared under a name, bound to the unnamed portal.
    Prepared,
    /// So, for the first row only: the portal stays open.
    OneRow,
    /// So, with the portal's name; it is executed, and stays.
    NamedPortal,
    /// With a parameter that Parse declares to be of the type called so.
    Declared(&'static str),
    /// No statement: a call of `setseed` by its number.
    Call,
}

/// Are the answers of two servers the same?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    Same,
    /// They name something of the session, or are made up by chance.
    Differ,
}

/// A statement that holds something, or cannot be proved not to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holding {
    pub(super) sql: &'static str,
    pub(super) way: Way,
    pub(super) answers: Answers,
    /// The reason by its text; `None` where the text tells nothing.
    pub(super) by_text: Option<&'static str>,
    /// Reasons by what the server shows; none where it shows nothing.
    pub(super) by_server: &'static [&'static str],
}

/// Statements behind which a transaction is to be parked: the documented list, in examples.
pub(super) const PARKABLE: &[&str] = &[
    "SELECT 1",
    "SELECT",
    "select n, t from items order by n;",
    "SELECT \"items\".\"n\", \"items\".\"t\" FROM \"items\" WHERE \"items\".\"n\" = 3 LIMIT 21",
    "SELECT count(*) AS count_1 FROM (SELECT items.n AS items_n FROM items WHERE items.n > 2) AS anon_1",
    "SELECT EXISTS (SELECT 1 FROM notes WHERE notes.item = 2) AS anon_1",
    "SELECT 1 AS \"a\" FROM \"notes\" WHERE \"notes\".\"body\" = 'note 1' LIMIT 1",
    "SELECT i.n, x.body FROM items i LEFT OUTER JOIN notes x ON i.n = x.item WHERE i.n IN (1, 2) ORDER BY i.n, x.id",
    "SELECT i.n FROM items AS i JOIN (notes AS a JOIN notes AS b ON a.id = b.id) ON i.n = a.item ORDER BY 1 OFFSET 2",
    "SELECT n FROM items NATURAL JOIN parts ORDER BY n",
    "SELECT item, count(*) FROM notes GROUP BY item HAVING count(*) > 1 ORDER BY item DESC NULLS LAST",
    "SELECT DISTINCT ON (item) item, id FROM notes ORDER BY item, id DESC",
    "SELECT item, row_number() OVER (PARTITION BY item ORDER BY id) FROM notes ORDER BY id",
    "SELECT sum(id) OVER w FROM notes WINDOW w AS (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 5) SELECT n FROM up",
    "WITH few AS MATERIALIZED (SELECT n FROM items WHERE n < 3) SELECT f.n, i.t FROM few f JOIN items i USING (n) ORDER BY n",
    "(SELECT n FROM items) UNION (SELECT id FROM notes) ORDER BY 1 ASC",
    "SELECT upper(t), length(t), coalesce(called, '-'), nullif(n, 1) FROM items ORDER BY n",
    "SELECT n::text, CAST(n AS numeric(10, 2)), '2026-11-22'::date + 1, interval '1 day' FROM items ORDER BY items.n",
    "SELECT CASE WHEN n > 3 THEN 'many' ELSE 'few' END, CASE n WHEN 1 THEN 'one' END FROM items ORDER BY n",
    "SELECT t FROM items WHERE t LIKE 'item%' AND n BETWEEN 2 AND 4 AND NOT (n = 3 AND n IS NOT NULL) ORDER BY n",
    "SELECT doc -> 'a', doc ->> 'a', doc @> '{\"a\": 1}', tags[1], tags @> ARRAY['a']::text[] FROM items ORDER BY n",
    "SELECT n FROM items WHERE n = ANY (ARRAY[1, 2]) AND m = 'calm'::mood ORDER BY n",
    "SELECT json_build_object('n', i.n, 'notes', (SELECT json_agg(x.body ORDER BY x.id) FROM notes x WHERE x.item = i.n)) FROM items i ORDER BY n",
    "SELECT row_to_json(i), i FROM items i WHERE i.n = 1",
    "SELECT g, to_char(g, '000') FROM generate_series(1, 3) AS g",
    "SELECT t.ord, t.elem FROM items i CROSS JOIN LATERAL unnest(i.tags) WITH ORDINALITY AS t(elem, ord) WHERE i.n = 1",
    "SELECT a, b FROM (VALUES (1, 'x'), (2, 'y')) AS v (a, b) ORDER BY a",
    "SELECT extract(year FROM '2026-11-22'::timestamp), substring('forebay' FROM 2 FOR 3), trim(both 'x' from 'xax'), position('b' in 'abc')",
    "SELECT '2026-11-22 00:00+00'::timestamptz AT TIME ZONE 'UTC'",
    "SELECT now() > '2020-01-01', current_date > '2020-01-01', current_user = session_user",
    "SELECT coalesce(current_setting('app.held', true), '')",
    "SELECT current_setting('work_mem'), current_setting('transaction_read_only')",
    "SELECT to_tsvector('simple', t) @@ plainto_tsquery('simple', 'item') FROM items ORDER BY n",
    "SELECT count(*) FILTER (WHERE n > 2), percentile_cont(0.5) WITHIN GROUP (ORDER BY n) FROM items",
    "SELECT item, notes FROM sums ORDER BY item",
    "SELECT n FROM parts ORDER BY n",
    "SELECT count(*) > 0 FROM pg_class JOIN pg_namespace ns ON relnamespace = ns.oid WHERE nspname = 'public'",
    "SELECT 'a=>1'::hstore -> 'a'",
    "SELECT E'it\\'s', $$it's$$, 'f\u{fc}r', B'101', .5, 1e3 /* a comment; INSERT */ -- and one more",
];

/// Parkable too, with a parameter that is bound to 2.
pub(super) const WITH_VALUE: &[&str] = &[
    "SELECT n, t FROM items WHERE n = $1::INTEGER",
    "SELECT id FROM notes WHERE item = $1 ORDER BY id LIMIT 3",
    "SELECT $1::text || 'x'",
];

/// Plain ways to begin; each keeps its options while it is parked.
pub(super) const BEGINS: &[&str] = &[
    "BEGIN",
    "begin;",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    "START TRANSACTION READ WRITE, NOT DEFERRABLE",
    "BEGIN ISOLATION LEVEL READ UNCOMMITTED",
];

/// Ways to begin what keeps a snapshot from its first statement on.
pub(super) const ISOLATED: &[&str] = &[
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
];

const fn simple(
    sql: &'static str,
    by_text: &'static str,
    by_server: &'static [&'static str],
) -> Holding {
    let (way, answers) = (Way::Simple, Answers::Same);
    Holding { sql, way, answers, by_text: Some(by_text), by_server }
}

/// What only the server shows.
const fn behind(sql: &'static str, by_server: &'static [&'static str]) -> Holding {
    let (way, answers) = (Way::Simple, Answers::Same);
    Holding { sql, way, answers, by_text: None, by_server }
}

const fn unlike(holding: Holding) -> Holding {
    Holding { answers: Answers::Differ, ..holding }
}

const fn sent(way: Way, holding: Holding) -> Holding {
    Holding { way, ..holding }
}

const ID: &[&str] = &["transaction_id"];
const UNSEEN: &[&str] = &[];

/// What holds something, or cannot be proved not to.
pub(super) const HOLDING: &[Holding] = &[
    // Writes.
    simple("INSERT INTO notes VALUES (50, 1, 'new')", "not_a_select", ID),
    simple("UPDATE items SET t = 'changed' WHERE n = 1", "not_a_select", ID),
    simple("DELETE FROM notes WHERE id = 8", "not_a_select", ID),
    simple(
        "MERGE INTO items i USING notes x ON i.n = x.id WHEN MATCHED THEN UPDATE SET t = x.body",
        "not_a_select",
        ID,
    ),
    simple(
        "WITH w AS (INSERT INTO notes VALUES (51) RETURNING id) SELECT id FROM w",
        "writing_with",
        ID,
    ),
    simple("WITH w AS (SELECT 1) UPDATE items SET t = 'w' WHERE n = 2", "writing_with", ID),
    simple("SELECT n INTO made FROM items", "select_into", ID),
    simple("CREATE TABLE made AS SELECT 1", "not_a_select", ID),
    simple("TRUNCATE parts", "not_a_select", ID),
    simple("SELECT writes()", "own_function", ID),
    simple("DO 'BEGIN DELETE FROM notes WHERE id = 7; END'", "not_a_select", ID),
    simple(
        "SELECT nextval('counted')",
        "volatile_function",
        &["transaction_id", "lock", "relation"],
    ),
    simple(
        "SELECT setval('counted', 7)",
        "volatile_function",
        &["transaction_id", "lock", "relation"],
    ),
    unlike(simple("SELECT lo_create(0)", "volatile_function", ID)),
    unlike(simple("SELECT txid_current()", "shows_connection", ID)),
    // Locks.
    simple("SELECT n FROM items WHERE n = 1 FOR UPDATE", "row_locks", ID),
    simple("SELECT n FROM items WHERE n = 2 FOR NO KEY UPDATE", "row_locks", ID),
    simple("SELECT n FROM items WHERE n = 3 FOR SHARE", "row_locks", ID),
    simple("SELECT n FROM (SELECT n FROM items WHERE n = 4 FOR KEY SHARE) AS x", "row_locks", ID),
    simple("SELECT n FROM items WHERE false FOR UPDATE", "row_locks", &["lock"]),
    simple("LOCK TABLE parts IN ACCESS SHARE MODE", "not_a_select", UNSEEN),
    simple("LOCK TABLE items IN ROW SHARE MODE", "not_a_select", &["lock"]),
    simple("SELECT pg_advisory_xact_lock(7)", "volatile_function", &["advisory_lock"]),
    simple(
        "SELECT pg_try_advisory_xact_lock_shared(8, 9)",
        "volatile_function",
        &["advisory_lock"],
    ),
    // Snapshots, cursors, portals, savepoints.
    unlike(simple("SELECT pg_export_snapshot()", "volatile_function", &["snapshot"])),
    simple("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "not_a_select", &["isolation"]),
    simple("DECLARE held CURSOR FOR SELECT n FROM items ORDER BY n", "not_a_select", &["cursor"]),
    sent(Way::OneRow, behind("SELECT n FROM items ORDER BY n", &["open_portal"])),
    sent(Way::NamedPortal, behind("SELECT n FROM items ORDER BY n", &["open_portal"])),
    simple("SAVEPOINT here", "not_a_select", UNSEEN),
    // Settings, roles, seeds.
    simple("SET LOCAL work_mem = '7MB'", "not_a_select", &["setting"]),
    simple("SELECT set_config('work_mem', '6MB', true)", "volatile_function", &["setting"]),
    simple("SELECT set_config('app.held', 'plainly', true)", "volatile_function", UNSEEN),
    simple(
        "SELECT pg_catalog.\"set_config\"('app.held', 'qualified', true)",
        "volatile_function",
        UNSEEN,
    ),
    simple("SELECT 1 FROM set_config('app.held', 'as a table', true)", "volatile_function", UNSEEN),
    simple(
        "SELECT 1 ORDER BY set_config('app.held', 'by order', true)",
        "volatile_function",
        UNSEEN,
    ),
    simple("SELECT 1; SELECT set_config('app.held', 'second', true)", "several_statements", UNSEEN),
    simple(
        "SELECT 1 -- \r; SELECT set_config('app.held', 'returned', true)",
        "several_statements",
        UNSEEN,
    ),
    simple("SET LOCAL ROLE {role}", "not_a_select", UNSEEN),
    simple("SELECT set_config('role', '{role}', true)", "volatile_function", UNSEEN),
    simple("SELECT setseed(0.25)", "volatile_function", UNSEEN),
    simple("SELECT !!! 0.75::float8", "own_operator", UNSEEN),
    sent(Way::Call, Holding { by_text: Some("function_call"), ..behind("", UNSEEN) }),
    unlike(simple("SELECT random()", "volatile_function", UNSEEN)),
    simple("SELECT pg_sleep(0)", "volatile_function", UNSEEN),
    simple("SET CONSTRAINTS ALL DEFERRED", "not_a_select", UNSEEN),
    // Notifications.
    simple("NOTIFY told, 'by a statement'", "not_a_select", UNSEEN),
    simple("SELECT pg_notify('told', 'by a function')", "volatile_function", UNSEEN),
    simple("LISTEN told", "not_a_select", UNSEEN),
    // What the database has of its own, whatever it says of itself.
    simple("SELECT sets()", "own_function", UNSEEN),
    simple("SELECT initcap(5)", "own_function", UNSEEN),
    simple("SELECT i.total FROM items i WHERE n = 1", "own_function", UNSEEN),
    simple("SELECT (i).total FROM items i WHERE n = 1", "own_function", UNSEEN),
    simple("SELECT 1 ### 2", "own_operator", UNSEEN),
    simple("SELECT 1 OPERATOR(public.###) 2", "own_operator", UNSEEN),
    simple("SELECT m ILIKE m FROM items WHERE n = 1", "own_operator", UNSEEN),
    simple("SELECT 'x'::checked", "own_type", UNSEEN),
    simple("SELECT checked 'x'", "own_type", UNSEEN),
    simple("SELECT checked('x'::text)", "own_type", UNSEEN),
    simple("SELECT lag(c, 1, 'x') OVER () FROM checks", "own_type", UNSEEN),
    sent(Way::Declared("checked"), simple("SELECT $1", "own_type", UNSEEN)),
    simple(
        "SELECT jsonb_populate_record(k, '{\"c\": \"y\"}') FROM checks k",
        "reads_unnamed",
        UNSEEN,
    ),
    simple("SELECT query_to_xml('SELECT public.sets()', true, true, '')", "reads_unnamed", UNSEEN),
    simple("SELECT table_to_xml('viewed', true, true, '') IS NULL", "reads_unnamed", &["view"]),
    // Relations that are no plain tables.
    simple("SELECT n, s FROM viewed ORDER BY n", "not_a_table", &["view"]),
    simple("SELECT n FROM guarded", "names_row_security", &["row_security"]),
    simple("SELECT count(*) > 0 FROM far", "not_a_table", &["foreign_table"]),
    simple("SELECT last_value FROM counted", "not_a_table", &["relation"]),
    simple("SELECT count(*) > 0 FROM pg_settings", "not_a_table", &["view"]),
    behind("SELECT n FROM family", &["row_security"]),
    behind("SELECT count(*) FROM abroad WHERE false", &["foreign_table"]),
    // Somebody else has a temporary table of that name.
    simple("WITH elsewhere AS (SELECT 1) SELECT 1 FROM elsewhere", "names_temporary_table", UNSEEN),
    simple("CREATE TEMP TABLE brief (n int) ON COMMIT DROP", "not_a_select", ID),
    // Elsewhere.
    simple(
        "SELECT a FROM dblink('dbname=postgres host=127.0.0.1 port={port} user={user}', 'SELECT 1') AS t (a int)",
        "own_function",
        UNSEEN,
    ),
    // What is not understood, or is of the connection.
    unlike(simple("SELECT pg_backend_pid()", "shows_connection", UNSEEN)),
    unlike(simple("SELECT pg_current_snapshot()", "shows_connection", UNSEEN)),
    simple("SELECT n FROM items TABLESAMPLE bernoulli (100) ORDER BY n", "not_understood", UNSEEN),
    simple("SELECT 'a\\b'", "backslash", UNSEEN),
    simple("SELECT 1 AS \"\u{fc}\"", "non_ascii_name", UNSEEN),
    simple("VALUES (1)", "not_a_select", UNSEEN),
    simple("COPY items TO STDOUT", "not_a_select", UNSEEN),
    simple(
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT sets()",
        "not_a_select",
        UNSEEN,
    ),
    simple("SHOW work_mem", "not_a_select", UNSEEN),
    simple("PREPARE kept AS SELECT 1", "not_a_select", UNSEEN),
];

/// What shows that something was held: asked behind what holds it.
pub(super) const PROBES: &[&str] = &[
    "SELECT coalesce(current_setting('app.held', true), '')",
    "SELECT current_setting('work_mem'), current_user = '{role}', current_setting('transaction_isolation')",
    "FETCH 2 FROM held",
    "ROLLBACK TO here",
    "INSERT INTO notes VALUES (77, 7777, 'of nobody')",
    "SELECT n FROM brief",
    "SELECT id, item, body FROM notes ORDER BY id",
];

/// How a transaction ends.
pub(super) const ENDS: &[&str] = &["COMMIT", "ROLLBACK", "END", "commit;"];
