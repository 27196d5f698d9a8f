//! The one table, for people.

use std::fmt::{self, Display};

use super::shown::{Played, Shown};
use super::{Figures, Report, Sides, words};

/// Width of the first column.
const LABEL: usize = 44;
/// Width of the others.
const COLUMN: usize = 18;
/// Width of text.
const TEXT: usize = LABEL + 2 * COLUMN;

impl Display for Report {
    /// How each side was set up, the table, and what it shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(storm) = &self.storm {
            setup(f, "Connection storm", storm.map(|side| &*side.configuration))?;
        }
        if let Some(neighbour) = &self.neighbour {
            setup(f, "Noisy neighbour", neighbour.map(|side| &*side.configuration))?;
        }
        set_up(f, self.fan_out.as_ref())?;
        set_up(f, self.write_storm.as_ref())?;
        set_up(f, self.retry_storm.as_ref())?;
        set_up(f, self.cancellation_storm.as_ref())?;
        if let Some(hold) = &self.generation_hold {
            lines(f, "Generation hold, all", &hold.configuration)?;
            lines(f, "Generation hold, the first table", &hold.crowd.configuration)?;
            lines(f, "Generation hold, the second", &hold.beside.configuration)?;
            writeln!(f)?;
        }
        if self.has_two_sides() {
            row(f, "", &["without Forebay", "with Forebay"].map(str::to_owned))?;
        }
        if let Some(storm) = &self.storm {
            section(f, "Connection storm: tool calls")?;
            common(f, storm)?;
            let more = storm.map(|side| &side.more);
            counts(f, "distinct token keys (tenant x service)", more.map(|m| m.token_keys))?;
            counts(f, "calls with another tenant's token", more.map(|m| m.wrong_tenant_calls))?;
            counts(f, "calls answered", more.map(|m| m.calls))?;
        }
        if let Some(neighbour) = &self.neighbour {
            section(f, "Noisy neighbour: logins")?;
            common(f, neighbour)?;
            let more = neighbour.map(|side| &side.more);
            times(f, "p99 of the logins alone (unloaded)", more.map(|m| m.unloaded_p99_ms))?;
            let factor = more.map(|m| format!("{:.1}x", m.p99_to_unloaded));
            row(f, "p99 beside the others, to unloaded", &factor)?;
            let late = more.map(|m| m.machine_late_p99_ms);
            times(f, "how late this machine wakes a timer, p99", late)?;
            times(f, "a retrieval (15 queries), p50", more.map(|m| m.retrieval_p50_ms))?;
            times(f, "a retrieval (15 queries), p99", more.map(|m| m.retrieval_p99_ms))?;
            let sessions = more.map(|m| m.database_connections_opened);
            counts(f, "connections opened to PostgreSQL", sessions)?;
            let held = more.map(|m| m.transactions_held);
            counts(f, "transactions held open beside a call", held)?;
        }
        shown(f, self.fan_out.as_ref())?;
        shown(f, self.write_storm.as_ref())?;
        shown(f, self.retry_storm.as_ref())?;
        shown(f, self.cancellation_storm.as_ref())?;
        if let Some(hold) = &self.generation_hold {
            hold.write(f)?;
        }
        for paragraph in words::of(self) {
            writeln!(f)?;
            wrapped(f, ["", ""], &paragraph)?;
        }
        Ok(())
    }
}

impl<F> Sides<F> {
    /// One value of each side, without Forebay first.
    pub(super) fn map<'a, T>(&'a self, value: impl Fn(&'a F) -> T) -> [T; 2] {
        [value(&self.without), value(&self.with)]
    }
}

/// What both sides have in common, and then what is particular to each.
fn setup(f: &mut fmt::Formatter<'_>, name: &str, [without, with]: [&[String]; 2]) -> fmt::Result {
    let (both, only_without): (Vec<_>, Vec<_>) =
        without.iter().partition(|line| with.contains(line));
    let only_with = with.iter().filter(|line| !without.contains(line)).collect();
    for (side, lines) in
        [("both sides", both), ("without Forebay", only_without), ("with Forebay", only_with)]
    {
        self::lines(f, &format!("{name}, {side}"), lines)?;
    }
    writeln!(f)
}

/// Sentences below a name.
fn lines<'a>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    lines: impl IntoIterator<Item = &'a String>,
) -> fmt::Result {
    writeln!(f, "{name}:")?;
    for line in lines {
        wrapped(f, ["  - ", "    "], line)?;
    }
    Ok(())
}

/// As [`setup`], of a scenario on a database alone, if it was played.
fn set_up<F: Shown>(f: &mut fmt::Formatter<'_>, sides: Option<&Sides<Played<F>>>) -> fmt::Result {
    let Some(sides) = sides else { return Ok(()) };
    setup(f, F::NAME, sides.map(|side| &*side.configuration))
}

/// The same scenario's table.
fn shown<F: Shown>(f: &mut fmt::Formatter<'_>, sides: Option<&Sides<Played<F>>>) -> fmt::Result {
    let Some(sides) = sides else { return Ok(()) };
    section(f, F::NAME)?;
    F::rows(sides.map(|side| &side.figures))
        .iter()
        .try_for_each(|line| row(f, line.label, &line.values))
}

/// `text` in lines that fit; the first begins with one indent, the others with the second.
fn wrapped(f: &mut fmt::Formatter<'_>, [first, others]: [&str; 2], text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > TEXT {
            writeln!(f, "{line}")?;
            line = others.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(f, "{line}")
}

/// The rows that every scenario has.
fn common<M>(f: &mut fmt::Formatter<'_>, sides: &Sides<Figures<M>>) -> fmt::Result {
    times(f, "p50", sides.map(|side| side.times.p50_ms))?;
    times(f, "p95", sides.map(|side| side.times.p95_ms))?;
    times(f, "p99", sides.map(|side| side.times.p99_ms))?;
    counts(f, "errors", sides.map(|side| side.errors))?;
    counts(f, "connections opened", sides.map(|side| side.connections_opened))?;
    counts(f, "token exchanges", sides.map(|side| side.token_exchanges))?;
    let tasks = sides.map(|side| rate(side.tasks_a_minute));
    row(f, "tasks a minute", &tasks)?;
    counts(f, "holds found", sides.map(|side| side.holds_found))
}

fn section(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    writeln!(f, "{}", "-".repeat(TEXT))?;
    writeln!(f, "{name}")
}

fn times(f: &mut fmt::Formatter<'_>, label: &str, values: [f64; 2]) -> fmt::Result {
    row(f, label, &values.map(milliseconds))
}

fn counts(f: &mut fmt::Formatter<'_>, label: &str, values: [u64; 2]) -> fmt::Result {
    row(f, label, &values.map(thousands))
}

fn row(f: &mut fmt::Formatter<'_>, label: &str, values: &[String; 2]) -> fmt::Result {
    let [without, with] = values;
    writeln!(f, "{label:<LABEL$}{without:>COLUMN$}{with:>COLUMN$}")
}

/// With as many digits as can be believed.
pub(super) fn milliseconds(value: f64) -> String {
    let whole = format!("{value:.0}");
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{} ms", grouped(&whole)) }
}

/// To the whole number.
pub(super) fn rate(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

pub(super) fn thousands(count: u64) -> String {
    grouped(&count.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
