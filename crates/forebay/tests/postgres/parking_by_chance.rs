//! Parking is not noticed: transactions made by chance go both ways, through a gateway that
//! parks them wherever they idle and to PostgreSQL itself, and answers, errors and what is left
//! must be the same.
//!
//! At each pause the gateway says what became of the transaction. What holds nothing is to be
//! parked; what holds something is to stay, for the reason that belongs to it (`pieces`), and
//! where a transaction is parked, PostgreSQL is asked what its twin holds. So a proof that lacks
//! a clause is found even where another one would have refused as well: `tests/mutants` shows
//! that. `FOREBAY_PARKING_SCRIPTS` says how many scripts are played, `FOREBAY_PARKING_FROM` the
//! first one's seed. `FOREBAY_PARKING_WITHOUT=text` expects the server's reasons alone, where a
//! mutant has taken the proof by text away.

mod pieces;
mod play;

use std::fmt::Write;

use pieces::{
    Answers, BEGINS, ENDS, HOLDING, Holding, ISOLATED, PARKABLE, PROBES, WITH_VALUE, Way,
};
use play::{Found, Pair, Stand};

use crate::differential::chance::Chance;

/// Scripts in one run of the test command.
const SCRIPTS: u64 = 25;
/// Those that are parked, of the listed ones, at the least.
const LEAST_PERCENT: usize = 95;

/// Reasons where a client keeps its connection: its statements' names are its own.
const PINNED: &[&str] = &["keeps_connection", "long_statement"];

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Is it the proof by the server alone that is looked at?
fn server_alone() -> bool {
    std::env::var("FOREBAY_PARKING_WITHOUT").is_ok_and(|without| without == "text")
}

/// The reasons that may be given for `holding`; none if it may be parked.
fn reasons(holding: &Holding) -> Vec<&'static str> {
    match holding.by_text {
        Some(reason) if !server_alone() => vec![reason],
        _ => holding.by_server.to_vec(),
    }
}

#[tokio::test]
async fn the_listed_transactions_are_parked() {
    let stand = Stand::start("listed").await;
    let mut pair = Pair::new(&stand).await;
    let (mut parked, mut not) = (0, String::new());
    for (n, sql) in PARKABLE.iter().chain(WITH_VALUE).enumerate() {
        let begin = BEGINS[n % BEGINS.len()];
        let with_value = n >= PARKABLE.len();
        pair.plays(&stand, begin, Way::Simple, Answers::Same).await;
        let way = if with_value || n % 3 == 2 { Way::Prepared } else { Way::Simple };
        let found = pair.plays(&stand, sql, way, Answers::Same).await;
        if let Found::Parked = found {
            parked += 1;
        } else {
            writeln!(not, "{found:?}: {sql}").unwrap();
        }
        pair.plays(&stand, ENDS[n % ENDS.len()], Way::Simple, Answers::Same).await;
    }
    let all = PARKABLE.len() + WITH_VALUE.len();
    assert!(parked * 100 >= all * LEAST_PERCENT, "{parked} of {all}:\n{not}");
    pair.leaves(&stand).await;
}

#[tokio::test]
async fn whatever_holds_something_stays_for_its_own_reason() {
    let stand = Stand::start("alone").await;
    let (mut pair, mut wrong) = (Pair::new(&stand).await, String::new());
    let isolated = ISOLATED.iter().map(|begin| (*begin, None));
    for (begin, holding) in isolated.chain(HOLDING.iter().map(|holding| (BEGINS[0], Some(holding))))
    {
        let expected = holding.map_or(vec!["isolation"], reasons);
        if expected.is_empty() {
            continue;
        }
        pair.renews(&stand).await;
        pair.plays(&stand, begin, Way::Simple, Answers::Same).await;
        let found = match holding {
            Some(holding) => pair.plays(&stand, holding.sql, holding.way, holding.answers).await,
            None => pair.plays(&stand, PARKABLE[0], Way::Simple, Answers::Same).await,
        };
        let is_expected =
            matches!(&found, Found::Stays(reason) if expected.contains(&reason.as_str()));
        if !is_expected {
            let what = holding.map_or(begin, |holding| holding.sql);
            writeln!(wrong, "{found:?} instead of {expected:?}: {what}").unwrap();
        }
        pair.plays(&stand, "ROLLBACK", Way::Simple, Answers::Same).await;
        pair.leaves(&stand).await;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    if !server_alone() {
        a_hidden_function_speaks_against_all(&stand, &mut pair).await;
    }
}

/// A cast of the database's own may work anywhere, from the moment on when it is there.
async fn a_hidden_function_speaks_against_all(stand: &Stand, pair: &mut Pair) {
    for (definition, expected) in [
        ("SELECT 1", Found::Parked),
        (
            "CREATE FUNCTION of_mood(mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT sets()'; \
             CREATE CAST (mood AS int) WITH FUNCTION of_mood(mood) AS IMPLICIT",
            Found::Stays("hidden_functions".into()),
        ),
    ] {
        stand.defines(definition).await;
        pair.renews(stand).await;
        pair.plays(stand, "BEGIN", Way::Simple, Answers::Same).await;
        let found = pair.plays(stand, "SELECT 1", Way::Simple, Answers::Same).await;
        assert_eq!(found, expected, "behind {definition}");
        pair.leaves(stand).await;
    }
}

#[tokio::test]
async fn transactions_by_chance_are_parked_unnoticed() {
    if server_alone() {
        return;
    }
    let stand = Stand::start("chance").await;
    let first = asked("FOREBAY_PARKING_FROM").unwrap_or(0);
    let (mut pair, mut parked, mut stayed) = (Pair::new(&stand).await, 0, 0);
    for seed in first..first + asked("FOREBAY_PARKING_SCRIPTS").unwrap_or(SCRIPTS) {
        pair.renews(&stand).await;
        let mut chance = Chance::new(seed);
        for _ in 0..=chance.below(2) {
            let (some, others) = transaction(&stand, &mut pair, &mut chance, seed).await;
            (parked, stayed) = (parked + some, stayed + others);
        }
        pair.leaves(&stand).await;
        stand.is_as_its_twin(seed).await;
    }
    assert!(parked > 0 && stayed > 0, "parked {parked} times, not {stayed} times");
}

/// One transaction; how often it was parked, and how often not.
async fn transaction(stand: &Stand, pair: &mut Pair, chance: &mut Chance, seed: u64) -> (u32, u32) {
    let (mut parked, mut stayed) = (0, 0);
    let mut held: Vec<&'static str> = Vec::new();
    let is_isolated = chance.one_in(12);
    let begin = chance.one_of(if is_isolated { ISOLATED } else { BEGINS });
    pair.plays(stand, begin, Way::Simple, Answers::Same).await;
    let (mut is_seeded, mut story) = (false, vec![(begin, Way::Simple)]);
    for _ in 0..=chance.below(6) {
        let mut is_open = false;
        let (sql, way, answers) = match chance.below(10) {
            0..=2 => {
                let holding = &HOLDING[chance.below(HOLDING.len())];
                // The unnamed portal is open up to the next statement.
                is_open = holding.way == Way::OneRow;
                if !is_open {
                    held.extend(reasons(holding));
                }
                is_seeded |= holding.sql.contains("setseed(") || holding.way == Way::Call;
                (holding.sql, holding.way, holding.answers)
            }
            3 if chance.one_in(3) => {
                held.push("not_a_select");
                ("SELECT 1 / 0", Way::Simple, Answers::Same)
            }
            4 if is_seeded => {
                held.push("volatile_function");
                ("SELECT random()", Way::Simple, Answers::Same)
            }
            5 | 6 if !held.is_empty() => {
                let probe = chance.one_of(PROBES);
                // What a probe is refused for, if it is no plain SELECT.
                held.push(if probe.starts_with("SELECT") { "own_type" } else { "not_a_select" });
                (probe, Way::Simple, Answers::Same)
            }
            7 => (chance.one_of(WITH_VALUE), Way::Prepared, Answers::Same),
            n => {
                let way = if n == 8 { Way::Prepared } else { Way::Simple };
                (chance.one_of(PARKABLE), way, Answers::Same)
            }
        };
        story.push((sql, way));
        match pair.plays(stand, sql, way, answers).await {
            Found::Ended => break,
            Found::ParkedThoughItHolds => panic!("script {seed} holds something: {story:?}"),
            Found::Parked => {
                parked += 1;
                assert!(
                    held.is_empty() && !is_isolated && !is_open,
                    "script {seed} was parked: {story:?}"
                );
            }
            Found::Stays(reason) => {
                stayed += 1;
                let is_known = held.contains(&reason.as_str())
                    || is_open && reason == "open_portal"
                    || is_isolated && reason == "isolation"
                    || pair.is_pinned && PINNED.contains(&reason.as_str());
                assert!(is_known, "script {seed} stays for {reason}: {story:?}, {held:?}");
            }
        }
    }
    pair.plays(stand, chance.one_of(ENDS), Way::Simple, Answers::Same).await;
    (parked, stayed)
}
