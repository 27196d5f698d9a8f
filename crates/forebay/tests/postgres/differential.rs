//! Whatever a client sends, the gateway answers as PostgreSQL itself would: scripts of
//! messages, made by chance, go both ways, and the answers must be the same, byte for byte.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bench::Bench;
use crate::client::{
    Client, Message, bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, parse,
    query, show, sync,
};

/// A small generator (splitmix64), so that a failure can be repeated by its seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Statements; `{t}` stands for the client's own table.
const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SELECT n, t FROM {t} ORDER BY n, t",
    "SELECT count(*) FROM {t}",
    "INSERT INTO {t} VALUES (1, 'one')",
    "INSERT INTO {t} SELECT g, 'x' FROM generate_series(1, 5) g",
    "UPDATE {t} SET n = n + 1",
    "DELETE FROM {t} WHERE n > 3",
    "SELECT 1/0",
    "SELECT * FROM missing",
    "SELEC",
    "",
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET TimeZone = 'UTC'",
    "SET LOCAL TimeZone = 'Europe/Paris'",
    "SET app.note = 'kept'",
    "SET app.note = 'other'",
    "SET LOCAL app.note = 'local'",
    "SET DateStyle = 'German'",
    "RESET app.note",
    "RESET ALL",
    "SET search_path = pg_catalog",
    "SET search_path = ''",
    "SET search_path = \"$user\", public",
    "SELECT coalesce(current_setting('app.note', true), ''), current_setting('search_path')",
    "SHOW TimeZone",
    "SELECT '2026-01-02'::date",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "SELECT generate_series(1, 4)",
    "SELECT 1 /*route='x'*/",
];

const SCRIPTS: &[&str] = &[
    "INSERT INTO {t} VALUES (7, 'a'); SELECT 1/0",
    "SELECT 1; SELECT 2",
    "BEGIN; INSERT INTO {t} VALUES (8, 'b'); COMMIT",
    "BEGIN; SELECT 1/0; COMMIT",
    "SET app.note = 'lost'; SELECT 1/0",
    "SET app.note = 'two'; SELECT 1",
    "INSERT INTO {t} VALUES (9, 'c'); ROLLBACK",
    "; ;",
];

const NAMES: &[&str] = &["", "", "a", "b", "c"];
const PORTALS: &[&str] = &["", "", "", "p"];

/// What a client sends before it reads: some messages, and how many ReadyForQuery they bring.
struct Turn {
    bytes: Vec<u8>,
    readies: usize,
    shown: String,
}

fn extended(chance: &mut Chance, table: &str, turn: &mut Turn) {
    let mut note = |bytes: Vec<u8>, shown: String| {
        turn.bytes.extend(bytes);
        turn.shown.push_str(&shown);
        turn.shown.push_str("; ");
    };
    let sql = chance.one_of(STATEMENTS).replace("{t}", table);
    let (name, portal) = (chance.one_of(NAMES), chance.one_of(PORTALS));
    let dice = chance.below(12);
    // What a text forgets is decided when it is parsed, so it is to be run at once.
    if sql.starts_with("DEALLOCATE a") && !(name.is_empty() && dice <= 4) {
        return;
    }
    match dice {
        0..=4 => {
            let all = [parse(name, &sql), bind(portal, name, &[]), execute(portal, 0)].concat();
            note(all, format!("run {name:?} {portal:?} {sql:?}"));
        }
        5 => note(parse(name, &sql), format!("parse {name:?} {sql:?}")),
        6 => {
            let all =
                [bind(portal, name, &[]), describe(b'P', portal), execute(portal, 2)].concat();
            note(all, format!("bind, describe, execute 2 {name:?} {portal:?}"));
        }
        // Always behind its Parse: in a failed transaction a server that has not got the
        // statement yet cannot be made to describe it.
        7 => {
            let all = [parse(name, &sql), describe(b'S', name)].concat();
            note(all, format!("parse, describe {name:?} {sql:?}"));
        }
        8 => note(close(b'S', name), format!("close {name:?}")),
        9 => note(close(b'P', portal), format!("close portal {portal:?}")),
        // Always behind its Bind: PostgreSQL 15.18 itself dies of an Execute in a failed
        // transaction whose portal was bound in an earlier batch.
        10 => {
            let all = [bind(portal, name, &[]), execute(portal, 1)].concat();
            note(all, format!("bind, execute 1 {name:?} {portal:?}"));
        }
        _ => note(flush(), "flush".into()),
    }
}

fn turn(chance: &mut Chance, table: &str) -> Turn {
    let mut turn = Turn { bytes: Vec::new(), readies: 0, shown: String::new() };
    for _ in 0..=chance.below(3) {
        match chance.below(10) {
            0..=3 => {
                let sql = chance.one_of(STATEMENTS).replace("{t}", table);
                turn.bytes.extend(query(&sql));
                turn.shown.push_str(&format!("query {sql:?}; "));
            }
            4 => {
                let sql = chance.one_of(SCRIPTS).replace("{t}", table);
                turn.bytes.extend(query(&sql));
                turn.shown.push_str(&format!("query {sql:?}; "));
            }
            5 => {
                turn.bytes.extend(query(&format!("COPY {table} FROM STDIN")));
                let (data, end) = match chance.below(3) {
                    0 => ("1\tx\n", copy_done()),
                    1 => ("oops\n", copy_done()),
                    _ => ("1\tx\n", copy_fail("no")),
                };
                turn.bytes.extend([copy_data(data), end].concat());
                turn.shown.push_str(&format!("copy {data:?}; "));
            }
            _ => {
                for _ in 0..=chance.below(4) {
                    extended(chance, table, &mut turn);
                }
                turn.bytes.extend(sync());
                turn.shown.push_str("sync; ");
            }
        }
        turn.readies += 1;
    }
    turn
}

/// The sides' schemas have names of one length, so that positions in errors are the same.
const SIDES: [&str; 2] = ["thru", "real"];

/// What must be equal: everything but ParameterStatus, whose values are compared apart.
fn comparable(messages: &[Message]) -> Vec<(char, String)> {
    let seen = messages.iter().filter(|message| message.tag != b'S');
    let text = |m: &Message| {
        let body = match m.tag {
            b'T' => without_oids(&m.body),
            b'E' | b'N' => without_places(&m.body),
            _ => m.body.clone(),
        };
        String::from_utf8_lossy(&body).replace(SIDES[0], SIDES[1])
    };
    seen.map(|m| (char::from(m.tag), text(m))).collect()
}

/// An ErrorResponse without the lines of PostgreSQL's own source that raised it.
fn without_places(body: &[u8]) -> Vec<u8> {
    let fields = body.split(|byte| *byte == 0);
    let kept = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
    kept.collect::<Vec<_>>().join(&0)
}

/// A RowDescription without the OIDs of tables, which differ from side to side.
fn without_oids(body: &[u8]) -> Vec<u8> {
    let (count, mut rest) = body.split_at(2);
    let mut out = count.to_vec();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, column) = rest.split_at(end + 1);
        let (column, after) = column.split_at(18);
        out.extend([name, &column[4..]].concat());
        rest = after;
    }
    out
}

fn told(client: &Client) -> BTreeMap<String, String> {
    let mut told = client.parameters.clone();
    told.remove("application_name");
    told
}

pub(crate) async fn same(bench: &Bench, seed: u64) {
    let mut chance = Chance(seed);
    let tables = [format!("t{seed}_a"), format!("t{seed}_b")];
    let mut pairs: Vec<(Client, Client)> = Vec::new();
    for table in &tables {
        let (mut through, mut direct) = (bench.client().await, bench.direct().await);
        // The same table for each side, in a schema of its own.
        for (client, side) in [(&mut through, SIDES[0]), (&mut direct, SIDES[1])] {
            let path = format!("{side}_{seed}");
            client.query(&format!("CREATE SCHEMA IF NOT EXISTS {path}")).await;
            let made = client.query(&format!("CREATE TABLE {path}.{table} (n int, t text)")).await;
            assert_eq!(made, "C[CREATE TABLE] Z[I]");
        }
        pairs.push((through, direct));
    }
    let mut story = String::new();
    for _ in 0..12 {
        let who = chance.below(2);
        let table = &tables[who];
        let start = chance.0;
        let mut answers = Vec::new();
        let (through, direct) = &mut pairs[who];
        let mut shown = String::new();
        for (client, side) in [(&mut *through, SIDES[0]), (&mut *direct, SIDES[1])] {
            chance.0 = start;
            let turn = turn(&mut chance, &format!("{side}_{seed}.{table}"));
            client.send(&turn.bytes).await;
            let messages = client.until_ready(turn.readies).await;
            answers.push(messages);
            shown = turn.shown;
        }
        story.push_str(&format!("client {who}: {shown}\n"));
        let (got, expected) = (&answers[0], &answers[1]);
        assert!(
            comparable(got) == comparable(expected) && told(through) == told(direct),
            "seed {seed}:\n{story}\nthrough the gateway: {}\n{:?}\nPostgreSQL itself:   {}\n{:?}",
            show(got),
            told(through),
            show(expected),
            told(direct),
        );
    }
}

/// Runs scripts of `seeds`, several at once over two server connections.
async fn compare(seeds: Range<u64>) {
    let bench = Bench::start(2).await;
    for seed in seeds {
        same(&bench, seed).await;
    }
    bench.all_home().await;
}

#[tokio::test]
async fn scripts_by_chance_are_answered_as_by_postgres() {
    let rounds = std::env::var("FOREBAY_SCRIPTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    compare(0..rounds).await;
}
