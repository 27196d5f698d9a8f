//! Whatever clients send, the gateway answers as PostgreSQL itself would: scripts of messages,
//! made by chance, go both ways, and the answers must be the same, byte for byte.
//!
//! `FOREBAY_SCRIPTS` says how many scripts are played, `FOREBAY_SCRIPTS_FROM` the first one's
//! seed, `FOREBAY_SCRIPTS_FAILING` after how many failures it ends, `FOREBAY_SCRIPTS_TRIES` how
//! often a failing script is played to make it shorter. A report says how to repeat it. That the
//! test bites, `tests/mutants` shows.

mod answers;
pub(crate) mod chance;
mod generate;
mod message;
mod pieces;
mod play;
mod script;
mod shrink;
mod talk;
mod texts;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use message::{Message, Names};

use crate::bench::Bench;

/// Scripts in one run of the test command.
const SCRIPTS: u64 = 90;
/// Times that a script is played to make it shorter.
const TRIES: u64 = 250;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Scripts that are played at once.
const AT_ONCE: u64 = 4;

/// The messages of a script, each by itself, as bytes; without those that sleep.
pub(crate) fn messages(seed: u64) -> Vec<Vec<u8>> {
    let names = Names {
        schema: "public".into(),
        table: "hostile".into(),
        client: 0,
        mark: "nobody's".into(),
    };
    let turns = generate::script(seed).rounds.into_iter().flat_map(|round| round.turns);
    let messages = turns.flat_map(|turn| turn.messages);
    let sleeps = |message: &Message| message.text().is_some_and(|text| text.contains("sleep"));
    messages.filter(|message| !sleeps(message)).map(|message| message.bytes(&names)).collect()
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Plays the script of `seed`; the report of a difference.
async fn same(bench: &Bench, seed: u64) -> Result<(), String> {
    let script = generate::script(seed);
    let name = format!("{seed:08}");
    let Some(difference) = play::play(bench, &script, &name, PATIENCE).await else { return Ok(()) };
    let shown = difference.shown();
    let tries = asked("FOREBAY_SCRIPTS_TRIES").unwrap_or(TRIES);
    let (script, difference) = shrink::shrink(bench, &script, difference, &name, tries).await;
    let mut report = format!("script {seed} is answered otherwise than by PostgreSQL.\n");
    writeln!(report, "{script}").unwrap();
    writeln!(report, "{}", difference.shown()).unwrap();
    writeln!(report, "in the whole script: {shown}").unwrap();
    writeln!(report, "repeat it: FOREBAY_SCRIPTS_FROM={seed} FOREBAY_SCRIPTS=1").unwrap();
    Err(report)
}

#[tokio::test]
async fn scripts_by_chance_are_answered_as_by_postgres() {
    let bench = Bench::start(1).await;
    let role = "CREATE ROLE forebay_scripted; GRANT CREATE ON SCHEMA public TO forebay_scripted";
    bench.direct().await.query(role).await;
    let first = asked("FOREBAY_SCRIPTS_FROM").unwrap_or(0);
    let end = first + asked("FOREBAY_SCRIPTS").unwrap_or(SCRIPTS);
    let (most, failures) = (asked("FOREBAY_SCRIPTS_FAILING").unwrap_or(1), AtomicU64::new(0));
    let players = (0..AT_ONCE).map(async |player| {
        for seed in (first + player..end).step_by(usize::try_from(AT_ONCE).unwrap()) {
            if failures.load(Ordering::Relaxed) >= most {
                break;
            }
            if let Err(report) = same(&bench, seed).await {
                failures.fetch_add(1, Ordering::Relaxed);
                eprintln!("{report}");
            }
        }
    });
    futures_util::future::join_all(players).await;
    assert_eq!(failures.into_inner(), 0, "scripts are answered otherwise");
}
