//! What is one plain SELECT and what is none: texts as programs send them, and traps.

use proptest::prelude::*;

use super::*;

/// What programs really send, one text a line: SQLAlchemy, Django, psycopg, asyncpg, and people.
fn corpus() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("corpus.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn named(text: &str) -> Named {
    examine(text).unwrap_or_else(|refusal| panic!("{refusal:?}: {text}"))
}

fn refused(text: &str) -> Refusal {
    match examine(text) {
        Ok(named) => panic!("accepted: {text}: {named:?}"),
        Err(refusal) => refusal,
    }
}

fn names(names: &std::collections::BTreeSet<(Option<String>, String)>) -> Vec<String> {
    let shown = |(schema, name): &(Option<String>, String)| match schema {
        Some(schema) => format!("{schema}.{name}"),
        None => name.clone(),
    };
    names.iter().map(shown).collect()
}

#[test]
fn a_plain_select_is_understood_with_all_it_names() {
    let named = named(
        "WITH recent (id) AS (SELECT m.id FROM chat.messages m WHERE m.at > now() - interval '1 day') \
         SELECT u.name, count(*) FILTER (WHERE m.role = 'user') OVER w, \"Full Name\"(u), \
         m.body::citext, CAST($1 AS \"Mood\"[]), (u).total, jsonb '{}' ->> 'a' \
         FROM users u JOIN recent r USING (id) LEFT JOIN LATERAL unnest(u.tags) AS t (tag) ON true \
         WHERE u.id = ANY ($2) AND u.email NOT ILIKE 'x%' AND u.id IN (1, 2) \
         AND u.score OPERATOR(public.<->) 3 BETWEEN 1 AND 2 \
         WINDOW w AS (PARTITION BY u.id ORDER BY u.at DESC NULLS LAST) LIMIT 10;",
    );
    assert_eq!(names(&named.functions), ["Full Name", "count", "now", "unnest"]);
    assert_eq!(names(&named.types), ["Mood", "citext", "jsonb"]);
    assert_eq!(names(&named.relations), ["recent", "users", "chat.messages"]);
    let operators = ["!~~*", "-", "->>", "<", "<=", "<>", "=", ">", ">=", "~~*", "public.<->"];
    assert_eq!(names(&named.operators), operators);
    let attributes = ["at", "body", "email", "id", "name", "role", "score", "tags", "total"];
    assert!(named.attributes.iter().eq(attributes), "{:?}", named.attributes);
    assert!(named.given.iter().eq(["recent"]));
}

#[test]
fn what_programs_send_to_read_is_understood() {
    for text in corpus() {
        named(text);
    }
}

#[test]
fn implied_operators_are_named() {
    for (text, operators) in [
        ("SELECT a IN (1)", &["<>", "="][..]),
        ("SELECT a NOT IN (SELECT 1)", &["<>", "="]),
        ("SELECT a LIKE 'x' ESCAPE '!'", &["!~~", "~~"]),
        ("SELECT a ILIKE ANY ($1)", &["!~~*", "~~*"]),
        ("SELECT a SIMILAR TO 'x'", &["!~", "~"]),
        ("SELECT a BETWEEN SYMMETRIC 1 AND 2", &["<", "<=", ">", ">="]),
        ("SELECT a IS DISTINCT FROM 1", &["="]),
        ("SELECT nullif(a, b)", &["="]),
        ("SELECT CASE a WHEN 1 THEN 2 END", &["="]),
        ("SELECT 1 FROM a JOIN b USING (c)", &["="]),
        ("SELECT 1 FROM a NATURAL JOIN b", &["="]),
        ("SELECT -a != ALL (ARRAY[1])", &["-", "<>"]),
        ("SELECT CASE WHEN a THEN 2 END", &[]),
    ] {
        assert_eq!(names(&named(text).operators), operators, "{text}");
    }
}

#[test]
fn calls_in_any_clothes_are_named() {
    for (text, function) in [
        ("SELECT pg_catalog.set_config('a.b', 'c', true)", "pg_catalog.set_config"),
        ("SELECT \"set_config\"('a.b', 'c', true)", "set_config"),
        ("SELECT SET_CONFIG ('a.b', 'c', true)", "set_config"),
        ("SELECT f /* ( */ (1)", "f"),
        ("SELECT f -- (\n (1)", "f"),
        ("SELECT 1 FROM f() WITH ORDINALITY AS t (a, b)", "f"),
        ("SELECT 1 FROM t, LATERAL s.f(t.a)", "s.f"),
        ("SELECT 1 ORDER BY f(1)", "f"),
        ("SELECT 1 LIMIT f(1)", "f"),
        ("SELECT 1 OFFSET f(1)", "f"),
        ("SELECT 1 GROUP BY GROUPING SETS ((a, f(1)), ())", "f"),
        ("SELECT 1 GROUP BY ROLLUP (f(1))", "f"),
        ("SELECT 1 HAVING f(1)", "f"),
        ("SELECT DISTINCT ON (f(1)) 1", "f"),
        ("SELECT a[f(1)]", "f"),
        ("SELECT a[1:f(1)]", "f"),
        ("SELECT ARRAY[[1], [f(1)]]", "f"),
        ("SELECT ARRAY(SELECT f(1))", "f"),
        ("SELECT ROW(1, f(1))", "f"),
        ("SELECT CASE WHEN true THEN 1 ELSE f(1) END", "f"),
        ("SELECT coalesce(1, f(1))", "f"),
        ("SELECT EXISTS (SELECT f(1))", "f"),
        ("SELECT extract(year FROM f(1))", "f"),
        ("SELECT trim(BOTH f(1) FROM 'x')", "f"),
        ("SELECT position('x' IN f(1))", "f"),
        ("SELECT CAST(f(1) AS text)", "f"),
        ("SELECT count(*) FILTER (WHERE f(1))", "f"),
        ("SELECT g(a ORDER BY f(1))", "f"),
        ("SELECT g(a => f(1))", "f"),
        ("SELECT g(VARIADIC f(1))", "f"),
        ("SELECT g(1) OVER (PARTITION BY f(1))", "f"),
        ("SELECT g(1) OVER (ROWS BETWEEN f(1) PRECEDING AND CURRENT ROW)", "f"),
        ("SELECT g(1) OVER w FROM t WINDOW w AS (ORDER BY f(1))", "f"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f(1))", "f"),
        ("SELECT 1 FROM a JOIN b ON f(1)", "f"),
        ("SELECT 1 FROM (VALUES (1, f(1))) AS t (a, b)", "f"),
        ("SELECT 1 UNION ALL (SELECT f(1))", "f"),
        ("WITH a AS MATERIALIZED (SELECT f(1)) SELECT 1", "f"),
        ("SELECT (SELECT f(1))", "f"),
        ("SELECT a AT TIME ZONE f(1)", "f"),
        ("SELECT left(f(1), 2)", "f"),
        ("SELECT 1 WHERE NOT f(1) IS TRUE", "f"),
        ("SELECT substring(a FROM f(1) FOR 2)", "substring"),
    ] {
        assert!(names(&named(text).functions).iter().any(|name| name == function), "{text}");
    }
}

#[test]
fn types_and_names_behind_dots_are_named() {
    for (text, name) in [
        ("SELECT 'x'::own", "own"),
        ("SELECT CAST('x' AS s.own)", "s.own"),
        ("SELECT own 'x'", "own"),
        ("SELECT s.own 'x'", "s.own"),
        ("SELECT '{x}'::own[]", "own"),
        ("SELECT 'x'::\"own\"(3)", "own"),
        ("SELECT 1 FROM f() AS t (a own)", "own"),
    ] {
        assert_eq!(names(&named(text).types), [name], "{text}");
    }
    for text in ["SELECT t.f FROM t", "SELECT (t).f FROM t", "SELECT (a.b).f", "SELECT s.t.f"] {
        assert!(named(text).attributes.contains("f"), "{text}");
    }
    let plain = "SELECT 1::int, '1'::double precision, 'a'::character varying(3)[], now()::timestamp \
                 (3) with time zone, interval '1' hour to minute, timestamp with time zone '2026-11-22'";
    assert!(named(plain).types.is_empty());
}

#[test]
fn what_holds_something_is_refused_by_its_name() {
    for (refusal, texts) in [
        (
            Refusal::NotASelect,
            &[
                "",
                ";",
                "INSERT INTO t VALUES (1)",
                "UPDATE t SET a = 1",
                "DELETE FROM t",
                "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
                "TABLE t",
                "VALUES (1)",
                "COPY t TO STDOUT",
                "EXPLAIN ANALYZE DELETE FROM t",
                "DECLARE c CURSOR FOR SELECT 1",
                "FETCH c",
                "EXECUTE p",
                "PREPARE p AS SELECT 1",
                "CALL p()",
                "DO 'BEGIN END'",
                "SET LOCAL a.b = 1",
                "SHOW work_mem",
                "LISTEN c",
                "NOTIFY c",
                "LOCK t",
                "SAVEPOINT s",
                "SET CONSTRAINTS ALL DEFERRED",
                "CREATE TEMP TABLE t (a int)",
                "BEGIN",
            ][..],
        ),
        (
            Refusal::SeveralStatements,
            &[
                "SELECT 1; SELECT 2",
                "SELECT 1; LISTEN c;",
                "SELECT 1 -- \r; NOTIFY c",
                "SELECT '1'; SELECT 'x'",
            ],
        ),
        (Refusal::Into, &["SELECT 1 INTO t", "SELECT a INTO TEMP t FROM u"]),
        (
            Refusal::RowLocks,
            &[
                "SELECT 1 FROM t FOR UPDATE",
                "SELECT 1 FROM t FOR SHARE OF t NOWAIT",
                "SELECT 1 FROM t FOR NO KEY UPDATE SKIP LOCKED",
                "SELECT 1 FROM (SELECT 1 FROM t FOR KEY SHARE) AS u",
                "SELECT 1 FROM t LIMIT 1 FOR UPDATE",
                "SELECT 1 FROM t FOR UPDATE LIMIT 1",
                "WITH a AS (SELECT 1 FROM t FOR UPDATE) SELECT 1",
            ],
        ),
        (
            Refusal::WritingWith,
            &[
                "WITH a AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT 1",
                "WITH a AS MATERIALIZED (DELETE FROM t RETURNING 1) SELECT 1",
                "WITH a AS (SELECT 1) UPDATE t SET b = 1",
                "WITH a AS (SELECT 1), b AS (MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE) SELECT 1",
            ],
        ),
        (
            Refusal::ShowsConnection,
            &[
                "SELECT pg_backend_pid()",
                "SELECT pg_catalog.txid_current()",
                "SELECT \"pg_current_snapshot\"()",
                "SELECT 1 FROM pg_cursor()",
                "SELECT x.pg_my_temp_schema FROM x",
            ],
        ),
        (
            Refusal::ReadsUnnamed,
            &[
                "SELECT table_to_xml('v', true, true, '')",
                "SELECT query_to_xmlschema('SELECT f()', true, true, '')",
                "SELECT database_to_xml_and_xmlschema(true, true, '')",
                "SELECT jsonb_populate_record(t, '{}') FROM t",
                "SELECT pg_input_is_valid(n, 'a_domain') FROM t",
                "SELECT * FROM pg_catalog.pg_input_error_info('1', 'a_domain')",
            ],
        ),
        (Refusal::VolatileFunction, &["SELECT isn_weak(true)", "SELECT x.\"isn_weak\"()"]),
        (Refusal::Backslash, &["SELECT '\\'", "SELECT '\\'', pg_notify('a', 'b') --'"]),
        (
            Refusal::NotUnderstood,
            &[
                "SELECT 1 FROM t TABLESAMPLE own(1)",
                "SELECT 1 FROM t AS u TABLESAMPLE bernoulli (1)",
                "SELECT 1 FROM ROWS FROM (f(), g())",
                "SELECT xmlparse(CONTENT 'x')",
                "SELECT 1 FROM XMLTABLE('x' PASSING y COLUMNS a int)",
                "SELECT treat(a AS b)",
                "SELECT 'a' 'b'",
                "SELECT 'a'\n'b'",
                "SELECT U&'x'",
                "SELECT DEFAULT",
                "SELECT a b c",
                "SELECT (1",
                "SELECT 1)",
                "SELECT 1 FROM a JOIN b JOIN c ON true ON true",
                "SELECT 1 ORDER BY a USING <",
                "SELECT a IS JSON",
                "SELECT a IS DOCUMENT",
                "SELECT COLLATION FOR (a)",
                "SELECT a +",
                "SELECT 5 !",
                "SELECT s.t.f.g()",
                "SELECT 1 FROM current_date",
                "WITH RECURSIVE a AS (SELECT 1) CYCLE a SET b USING c SELECT 1",
            ],
        ),
    ] {
        for text in texts {
            assert_eq!(refused(text), refusal, "{text}");
        }
    }
    assert_eq!(refused(&format!("SELECT {}1{}", "(".repeat(99), ")".repeat(99))), Refusal::TooDeep);
    assert_eq!(refused(&format!("SELECT '{}'", "x".repeat(LONGEST))), Refusal::TooLong);
}

#[test]
fn the_question_tells_names_apart() {
    let mut named = named("WITH w AS (SELECT 1) SELECT f(a), t.b FROM w, s.t WHERE a::own = $1");
    named.declare(&[23, 16_385, 0]);
    let lines = named.lines(&[], &[]);
    let asked: Vec<_> = lines.lines().filter(|line| !line.starts_with("extension")).collect();
    let expected = [
        "function\t\tf",
        "operator\t\t=",
        "type\t\town",
        "given\t\tw",
        "relation\ts\tt",
        "attribute\t\tb",
        "declared\t\t16385",
    ];
    assert_eq!(asked, expected);
    let row = |n: usize, refusal: Option<&str>| {
        vec![vec![Some(n.to_string()), refusal.map(str::to_owned), None]]
    };
    let count = lines.lines().count();
    let more = named.lines(&["h3".to_owned(), "no\tname".to_owned()], &[]);
    assert_eq!(more.lines().count(), count + 1);
    assert_eq!(read_answer(&lines, &row(count, None)), Ok(()));
    assert_eq!(read_answer(&lines, &row(count - 1, None)), Err(Refusal::NoAnswer));
    assert_eq!(read_answer(&lines, &row(count, Some("own_type"))), Err(Refusal::OwnType));
    assert_eq!(read_answer(&lines, &row(count, Some("something"))), Err(Refusal::NoAnswer));
    assert_eq!(read_answer(&lines, &[]), Err(Refusal::NoAnswer));
}

#[test]
fn every_refusal_of_the_question_is_known() {
    let said = QUESTION.split("SELECT ").filter_map(|part| {
        let (rank, rest) = part.split_once(", '")?;
        rank.parse::<u32>().ok()?;
        rest.split('\'').next()
    });
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 12, "{said:?}");
    for name in said {
        assert!(Refusal::ALL.iter().any(|refusal| refusal.name() == name), "{name}");
    }
}

/// What stands behind an operator's parenthesis.
fn behind(part: &str) -> Option<&str> {
    part.split_once(')').map(|(_, behind)| behind)
}

#[test]
fn the_question_looks_up_nothing_by_the_search_path() {
    let code: String = QUESTION.lines().filter(|line| !line.trim().starts_with("--")).collect();
    let mut parts = code.split("OPERATOR(pg_catalog.");
    let bare: String = parts.next().into_iter().chain(parts.filter_map(behind)).collect();
    let bare: String = bare.split('\'').step_by(2).collect();
    for operator in [" = ", " <> ", " < ", ">=", "<=", " IN ", " LIKE ", "typtype WHEN"] {
        assert!(!bare.contains(operator), "{operator}");
    }
}

/// Pieces that texts are made of by chance.
const PIECES: [&str; 40] = [
    "SELECT", "1", "f", "(", ")", "FROM", "t", ",", ".", "WHERE", "a", "=", "'x'", ";", "INSERT",
    "INTO", "UPDATE", "FOR", "SET", "WITH", "AS", "--", "\n", "\r", "/*", "*/", "E'", "'", "\\",
    "$$", "\"", "::", "[", "]", "NOTIFY", "c", "*", "UNION", "DELETE", "x",
];

proptest! {
    #[test]
    fn whatever_is_put_behind_a_statement_is_seen(
        at in 0_usize..1000,
        end in "( |\\n|\\r|\t|/\\*x\\*/|--x\\n|--x\\r)*",
        second in "(NOTIFY c|SELECT 1|SET a.b = 1|LOCK t|INSERT INTO t VALUES \\(1\\))",
    ) {
        let all: Vec<_> = corpus().collect();
        let text = all[at % all.len()].trim_end_matches(';');
        assert!(examine(&format!("{text}{end}")).is_ok());
        assert!(examine(&format!("{text}\n{end};{end}{second}")).is_err());
        assert!(examine(&format!("{second};{end}{text}")).is_err());
        assert!(examine(&format!("{text}\n{end} FOR UPDATE")).is_err());
        assert!(examine(&format!("{second}{end} {text}")).is_err());
    }

    #[test]
    fn a_writer_in_the_place_of_a_select_is_refused(at in 0_usize..1000, nth in 0_usize..4) {
        let all: Vec<_> = corpus().filter(|text| text.contains("SELECT")).collect();
        let text = all[at % all.len()];
        let places: Vec<_> = text.match_indices("SELECT").map(|(place, _)| place).collect();
        let place = places[nth % places.len()];
        for writer in ["DELETE FROM", "UPDATE", "INSERT INTO", "TABLE", "CALL", "SELECT INTO"] {
            let (before, after) = (&text[..place], &text[place + "SELECT".len()..]);
            assert!(examine(&format!("{before}{writer}{after}")).is_err());
        }
    }

    #[test]
    fn no_call_is_lost(at in 0_usize..1000, nth in 0_usize..50) {
        let all: Vec<_> = corpus().collect();
        let text = all[at % all.len()];
        // Wherever a parameter may stand, a call may.
        let places: Vec<_> = text.match_indices("$1").map(|(place, _)| place).collect();
        if let Some(place) = places.get(nth % places.len().max(1)) {
            let called = format!("{}hidden(1){}", &text[..*place], &text[place + 2..]);
            if let Ok(named) = examine(&called) {
                assert!(named.functions.contains(&(None, "hidden".to_owned())));
            }
        }
    }

    #[test]
    fn texts_by_chance_are_read_to_their_end(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        let text: Vec<_> = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let text = text.join(" ");
        if let Ok(named) = examine(&text) {
            // What was accepted has no word of a writer outside of strings and comments.
            let tokens = crate::sql::token::Tokens::new(text.as_bytes());
            let words: Vec<_> = tokens.collect();
            assert!(!words.iter().any(|word| word.is("into")), "{text}");
            assert!(!words.iter().any(|word| word.is("for")), "{text}");
            let lines = named.lines(&[], &[]);
            assert!(lines.lines().all(|line| line.split('\t').count() == 3), "{lines}");
        }
    }
}

#[test]
fn the_documentation_has_every_reason_and_every_extension() {
    let page = include_str!("../../../../../docs/parkable.md");
    let rows = Refusal::ALL
        .iter()
        .map(|refusal| format!("| `{}` | {} |\n", refusal.name(), refusal.meaning()));
    assert!(page.ends_with(&rows.collect::<String>()), "the table is to be this one");
    for extension in EXTENSIONS {
        assert!(page.contains(&format!("`{extension}`")), "{extension}");
    }
}

#[test]
fn what_may_change_a_setting_is_told_apart_from_plain_selects() {
    assert!(changes_no_setting("SELECT count(*) FROM t WHERE n = $1"));
    for text in
        ["SET LOCAL x = 1", "SELECT pg_catalog.SET_CONFIG('x', '1', true)", "DELETE FROM t", ""]
    {
        assert!(!changes_no_setting(text), "{text}");
    }
}
