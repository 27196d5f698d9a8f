//! What the table shows, said in sentences that hold whichever side was better.

use crate::demo::gateway::AGENT_CEILING;
use crate::demo::product::SERVER_CONNECTIONS;

use super::shown::{Played, Shown};
use super::table::{milliseconds, rate, thousands};
use super::{Figures, NeighbourMore, Report, Sides, StormMore, float, ratio};

/// How much worse than alone the product's own queries may become.
const WITHIN: f64 = 3.0;
/// Below this a difference is noise.
const EVEN: f64 = 1.05;

/// The sentences, a paragraph each.
pub(super) fn of(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(sides) = &report.storm {
        said.push(storm(sides));
        said.extend(samples("Connection storm", sides.map(|side| &*side.error_samples)));
    }
    if let Some(sides) = &report.neighbour {
        said.push(beside(sides));
        let with = &sides.with;
        said.extend(busy(with.more.machine_late_p99_ms, with.times.p99_ms));
        said.extend(samples("Noisy neighbour", sides.map(|side| &*side.error_samples)));
    }
    said.extend(played(report.fan_out.as_ref()));
    said.extend(played(report.write_storm.as_ref()));
    said.extend(played(report.retry_storm.as_ref()));
    said.extend(played(report.cancellation_storm.as_ref()));
    if let Some(hold) = &report.generation_hold {
        said.push(hold.words());
        said.extend(hold.samples());
    }
    said
}

/// What failed, on the sides where something did.
fn samples(name: &str, [without, with]: [&[String]; 2]) -> Vec<String> {
    [("without", without), ("with", with)]
        .into_iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(side, samples)| format!("{name}, {side} Forebay, failed: {}.", samples.join("; ")))
        .collect()
}

/// Of a scenario on a database alone, if it was played.
fn played<F: Shown>(sides: Option<&Sides<Played<F>>>) -> Vec<String> {
    let Some(sides) = sides else { return Vec::new() };
    let mut said = vec![F::words(sides.map(|side| &side.figures))];
    let logins = sides.with.figures.logins();
    said.extend(logins.and_then(|seen| busy(seen.machine_late_p99_ms, seen.login_p99_ms)));
    said.extend(samples(F::NAME, sides.map(|side| &*side.error_samples)));
    said
}

fn storm(sides: &Sides<Figures<StormMore>>) -> String {
    let (without, with) = (&sides.without, &sides.with);
    let connections = [without.connections_opened, with.connections_opened];
    let exchanges = [without.token_exchanges, with.token_exchanges];
    format!(
        "Connection storm. The agents' calls opened {} connections to the services without \
         Forebay and {} with it ({}); tokens were exchanged {} and {} times, with Forebay {}. \
         The median of a call went from {} to {} ({}), its p99 from {} to {} ({}); {}. {}",
        thousands(connections[0]),
        thousands(connections[1]),
        change(connections.map(float)),
        thousands(exchanges[0]),
        thousands(exchanges[1]),
        once(with.token_exchanges, with.more.token_keys),
        milliseconds(without.times.p50_ms),
        milliseconds(with.times.p50_ms),
        slower([without.times.p50_ms, with.times.p50_ms]),
        milliseconds(without.times.p99_ms),
        milliseconds(with.times.p99_ms),
        slower([without.times.p99_ms, with.times.p99_ms]),
        tasks([without.tasks_a_minute, with.tasks_a_minute]),
        failures([without.errors, with.errors]),
    )
}

fn beside(sides: &Sides<Figures<NeighbourMore>>) -> String {
    let (without, with) = (&sides.without, &sides.with);
    let verdict = |ratio: f64| if ratio <= WITHIN { "within" } else { "not within" };
    format!(
        "Noisy neighbour. Beside retrievals and agents that hold transactions, the p99 of a \
         login was {} without Forebay, {:.1} times that of the same login alone, and {} with \
         it, {:.1} times ({} {WITHIN:.0}x). For the agents, {}. Forebay found {} transactions \
         idle beside a call of the same request; the agents held {}. {}",
        milliseconds(without.times.p99_ms),
        without.more.p99_to_unloaded,
        milliseconds(with.times.p99_ms),
        with.more.p99_to_unloaded,
        verdict(with.more.p99_to_unloaded),
        agents([without.tasks_a_minute, with.tasks_a_minute]),
        thousands(with.holds_found),
        thousands(with.more.transactions_held),
        failures([without.errors, with.errors]),
    )
}

/// That the machine was busy, where its own delays are most of a login's p99.
fn busy(late: f64, login_p99_ms: f64) -> Option<String> {
    (late * 2.0 > login_p99_ms).then(|| {
        format!(
            "This machine was busy: it woke timers up to {} late (p99) while \
             logins were measured with Forebay, which is in their times. On a \
             quiet machine the figures say more.",
            milliseconds(late)
        )
    })
}

/// `12 times fewer`, `as many`, `1.4 times more`.
fn change([without, with]: [f64; 2]) -> String {
    compared([without, with], "fewer", "more", "about as many")
}

/// `12 times shorter`, `about the same`, `1.4 times longer`.
pub(super) fn slower([without, with]: [f64; 2]) -> String {
    compared([without, with], "shorter", "longer", "about the same")
}

fn compared([without, with]: [f64; 2], less: &str, more: &str, even: &str) -> String {
    let (down, up) = (ratio(without, with), ratio(with, without));
    if with <= 0.0 && without > 0.0 {
        return "none at all with it".to_owned();
    }
    if down > EVEN {
        format!("{down:.1} times {less}")
    } else if up > EVEN {
        format!("{up:.1} times {more}")
    } else {
        even.to_owned()
    }
}

fn once(exchanges: u64, keys: u64) -> String {
    if exchanges == keys {
        format!("once for each of the {keys} pairs of tenant and service")
    } else {
        format!("for {keys} pairs of tenant and service")
    }
}

fn tasks([without, with]: [f64; 2]) -> String {
    let what = change([without, with]);
    format!("tasks a minute went from {} to {} ({what})", rate(without), rate(with))
}

/// As [`tasks`], and why they may be fewer.
fn agents([without, with]: [f64; 2]) -> String {
    let said = tasks([without, with]);
    if without > with * EVEN {
        let seats = SERVER_CONNECTIONS;
        format!("{said}: their class may hold {AGENT_CEILING} of the {seats} server connections")
    } else {
        said
    }
}

/// How many of `what` were refused on each side.
pub(super) fn turned_away(what: &str, refused: [u64; 2]) -> String {
    match refused {
        [0, 0] => format!("No {what} were refused on either side."),
        [without, with] => format!(
            "{} {what} were refused without Forebay, {} with it.",
            thousands(without),
            thousands(with)
        ),
    }
}

/// How many failed on each side.
pub(super) fn failures(errors: [u64; 2]) -> String {
    match errors {
        [0, 0] => "Nothing failed on either side.".to_owned(),
        [without, with] => {
            format!("{} failed without Forebay, {} with it.", thousands(without), thousands(with))
        }
    }
}
