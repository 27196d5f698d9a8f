//! Scripts by chance.

use super::chance::Chance;
use super::message::{Kind, Message};
use super::script::{Arrival, Round, Script, Turn, Unnamed, Until};
use super::texts::{
    CALLS, COPIES, COPIES_OUT, FORGETTING, LEAVING, LONG, LOOKING, PINNING, SETTINGS, SEVERAL,
    SLEEPING, STATEMENTS, TRANSACTIONS, WITH_VALUES,
};

const NAMES: &[&str] = &["", "", "a", "b", "c", "d"];
const PORTALS: &[&str] = &["", "", "", "p"];

/// Who may do what its twin would do, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Ordinary,
    /// It may do what makes it keep its server connection.
    Keeps,
    /// It leaves what the others must not see.
    Leaves,
}

/// The script of `seed`.
pub(super) fn script(seed: u64) -> Script {
    let mut chance = Chance::new(seed);
    let clients = chance.one_of(&[1, 2, 3, 3, 4, 5]);
    let most_statements = chance.one_of(&[2, 3, 500]);
    // One of them at most, or nobody's connection would be anybody else's.
    let keeps = chance.one_in(4);
    let mut rounds = Vec::new();
    let mut described = vec![false; clients];
    for _ in 0..8 + 2 * clients {
        let mut turns = Vec::new();
        let first = chance.below(clients);
        let together = chance.one_of(&[1, 1, 2, 2, 3]).min(clients);
        for n in 0..together {
            let client = (first + n) % clients;
            let habit = match client {
                0 if keeps => Habit::Keeps,
                last if last > 0 && last + 1 == clients => Habit::Leaves,
                _ => Habit::Ordinary,
            };
            // Some drivers parse and describe first, and bind when others have had their turn.
            let turn = match (described[client], chance.one_in(8)) {
                (true, _) => described_before(client),
                (false, true) => describing(&mut chance, client),
                (false, false) => turn(&mut chance, client, habit),
            };
            described[client] = turn.messages.first().is_some_and(is_described);
            turns.push(turn);
        }
        rounds.push(Round { turns, weave: chance.next() });
    }
    let arrival = chance.one_of(&[Arrival::AsSent, Arrival::AsSent, Arrival::InPieces]);
    let unnamed = chance.one_of(&[Unnamed::AsSent, Unnamed::AsSent, Unnamed::Named]);
    Script { clients, most_statements, arrival, unnamed, rounds }
}

const DESCRIBED: &[&str] = &[
    "SELECT 10",
    "SELECT 'other'",
    "SELECT n FROM {t} ORDER BY n",
    "INSERT INTO {t} VALUES (5, '{c}')",
];

fn describing(chance: &mut Chance, client: usize) -> Turn {
    let parse = Message::Parse { name: "", text: chance.one_of(DESCRIBED).to_owned() };
    let messages = vec![parse, Message::Describe(Kind::Statement, ""), Message::Sync];
    Turn { client, messages, until: Until::Answered }
}

fn is_described(first: &Message) -> bool {
    matches!(first, Message::Parse { name: "", text } if DESCRIBED.contains(&&**text))
}

fn described_before(client: usize) -> Turn {
    let messages = vec![
        Message::Bind { portal: "", statement: "", values: Vec::new() },
        Message::Execute { portal: "", rows: 0 },
        Message::Sync,
    ];
    Turn { client, messages, until: Until::Answered }
}

fn turn(chance: &mut Chance, client: usize, habit: Habit) -> Turn {
    let mut messages = Vec::new();
    let mut until = Until::Answered;
    match chance.below(24) {
        0 => {
            until = Until::Cancelled;
            cancelled(chance, &mut messages);
        }
        1 => {
            until = Until::Flushed;
            for _ in 0..=chance.below(3) {
                extended(chance, habit, &mut messages);
            }
        }
        2 => copy_in(chance, &mut messages),
        3 => copy_in_by_batch(chance, &mut messages),
        4 => more_rows(chance, &mut messages),
        _ => {
            for _ in 0..=chance.below(3) {
                part(chance, habit, &mut messages);
            }
        }
    }
    Turn { client, messages, until }
}

/// A simple query, or a batch with its Sync.
fn part(chance: &mut Chance, habit: Habit, out: &mut Vec<Message>) {
    match chance.below(20) {
        0..=6 => out.push(Message::Query(text(chance, habit))),
        7..=9 => out.push(Message::Query(chance.one_of(SEVERAL).to_owned())),
        10 if chance.one_in(4) => {
            let (function, arguments) = chance.one_of(CALLS);
            out.push(Message::Call { function, arguments: arguments.to_vec() });
        }
        11 if chance.one_in(2) => copy_in(chance, out),
        12 if chance.one_in(3) => out.push(Message::Query(chance.one_of(COPIES_OUT).to_owned())),
        13 if chance.one_in(6) => out.push(Message::Query(chance.one_of(LONG).to_owned())),
        // What is nobody's, and what has no batch.
        14 if chance.one_in(4) => out.extend([Message::CopyData("x"), Message::CopyFail]),
        15 if chance.one_in(4) => out.push(Message::Flush),
        _ => {
            for _ in 0..=chance.below(4) {
                extended(chance, habit, out);
            }
            // A simple query ends a batch as well, and is skipped after an error.
            if chance.one_in(25) {
                out.push(Message::Query(text(chance, habit)));
            }
            out.push(Message::Sync);
        }
    }
}

fn text(chance: &mut Chance, habit: Habit) -> String {
    let of = match chance.below(20) {
        0..=6 => STATEMENTS,
        7..=11 => TRANSACTIONS,
        12..=17 => SETTINGS,
        18 if habit == Habit::Keeps => PINNING,
        18 => &[if habit == Habit::Leaves { LEAVING } else { LOOKING }],
        _ => FORGETTING,
    };
    let of = if habit == Habit::Keeps && chance.one_in(4) { PINNING } else { of };
    chance.one_of(of).to_owned()
}

/// One or a few messages of a batch.
fn extended(chance: &mut Chance, habit: Habit, out: &mut Vec<Message>) {
    let (statement, portal) = (chance.one_of(NAMES), chance.one_of(PORTALS));
    let parse = |text: &str| Message::Parse { name: statement, text: text.to_owned() };
    let bind =
        |values: &[&'static str]| Message::Bind { portal, statement, values: values.to_vec() };
    let execute = |rows| Message::Execute { portal, rows };
    match chance.below(20) {
        0..=6 => {
            let text = text(chance, habit);
            // What such a text forgets is decided when it is parsed, so it is run at once.
            if text.starts_with("DEALLOCATE") && !text.ends_with("ALL") {
                let bind = Message::Bind { portal, statement: "", values: Vec::new() };
                out.extend([Message::Parse { name: "", text }, bind, execute(0)]);
            } else {
                out.extend([parse(&text), bind(&[]), execute(0)]);
            }
        }
        7..=8 => {
            let (text, values) = chance.one_of(WITH_VALUES);
            out.extend([parse(text), Message::Describe(Kind::Statement, statement)]);
            if chance.one_in(3) {
                out.push(Message::Flush);
            }
            out.extend([bind(values), execute(0)]);
        }
        9 => out.push(parse(chance.one_of(STATEMENTS))),
        10 => out.push(parse(chance.one_of(WITH_VALUES).0)),
        11 => {
            out.push(parse(chance.one_of(STATEMENTS)));
            out.push(Message::Describe(Kind::Statement, statement));
        }
        12 => out.extend([bind(&[]), Message::Describe(Kind::Portal, portal), execute(2)]),
        13 => out.push(Message::Close(Kind::Statement, statement)),
        14 => out.push(Message::Close(Kind::Portal, portal)),
        15 => out.extend([bind(&["1"]), execute(1)]),
        16 => out.extend([bind(&[]), execute(0)]),
        17 if chance.one_in(3) => {
            let text = chance.one_of(COPIES_OUT);
            out.extend([parse(text), bind(&[]), execute(0)]);
        }
        18 if chance.one_in(4) => {
            let text = chance.one_of(LONG);
            out.extend([parse(text), bind(&[]), execute(2)]);
        }
        _ => out.push(Message::Flush),
    }
}

/// Rows of a portal in parts, over several batches of a transaction.
fn more_rows(chance: &mut Chance, out: &mut Vec<Message>) {
    let portal = chance.one_of(PORTALS);
    match chance.below(3) {
        0 => out.extend([Message::Execute { portal, rows: 1 }, Message::Sync]),
        1 => out.extend([
            Message::Describe(Kind::Portal, portal),
            Message::Execute { portal, rows: 2 },
            Message::Execute { portal, rows: 0 },
            Message::Close(Kind::Portal, portal),
            Message::Sync,
        ]),
        _ => out.extend([
            Message::Query("BEGIN".into()),
            Message::Parse { name: "", text: "SELECT generate_series(1, 5)".into() },
            Message::Bind { portal, statement: "", values: Vec::new() },
            Message::Execute { portal, rows: 2 },
            Message::Sync,
        ]),
    }
}

fn copy_in(chance: &mut Chance, out: &mut Vec<Message>) {
    let (text, data) = chance.one_of(COPIES);
    out.push(Message::Query(text.to_owned()));
    copied(chance, data, out);
}

fn copy_in_by_batch(chance: &mut Chance, out: &mut Vec<Message>) {
    let (text, data) = chance.one_of(COPIES);
    out.extend([
        Message::Parse { name: "", text: text.to_owned() },
        Message::Bind { portal: "", statement: "", values: Vec::new() },
        Message::Execute { portal: "", rows: 0 },
    ]);
    copied(chance, data, out);
    out.push(Message::Sync);
    if chance.one_in(2) {
        out.push(Message::Query("SELECT count(*) FROM {t}".to_owned()));
    }
}

fn copied(chance: &mut Chance, data: &[&'static str], out: &mut Vec<Message>) {
    for data in data {
        if chance.one_in(6) {
            out.push(chance.one_of(&[&Message::Sync, &Message::Flush]).clone());
        }
        out.push(Message::CopyData(data));
    }
    if chance.one_in(6) {
        out.push(chance.one_of(&[&Message::Sync, &Message::Flush]).clone());
    }
    out.push(if chance.one_in(4) { Message::CopyFail } else { Message::CopyDone });
}

fn cancelled(chance: &mut Chance, out: &mut Vec<Message>) {
    let sleeps = chance.one_of(SLEEPING);
    match chance.below(4) {
        0 => out.push(Message::Query(sleeps.to_owned())),
        1 => out.push(Message::Query(format!("SET app.note = 'never'; {sleeps}; SELECT 1"))),
        _ => {
            // A name of its own: nothing else may run it, for who would cancel that?
            let name = "sleeps";
            out.extend([
                Message::Close(Kind::Statement, name),
                Message::Parse { name, text: sleeps.to_owned() },
                Message::Bind { portal: "", statement: name, values: Vec::new() },
                Message::Execute { portal: "", rows: 0 },
                Message::Sync,
            ]);
        }
    }
}
