//! The tables of docs/simulations.md: each a few scenarios, played, and what they came to.
//!
//! A room for each table: it says what is played, plays it, and puts the figures into rows.
//! What the figures must prove, `tests/tables.rs` says. This one knows how a table looks and
//! where it stands in the document: between `<!-- table: NAME -->` and `<!-- end -->`.

use std::fmt;
use std::time::Duration;

use forebay_pool::{Budget, ClassName, ClassSettings, Mode, PoolSettings};

pub mod borrowing;
pub mod burst;
pub mod outage;
pub mod retries;
pub mod unit;

/// A name in the document, and what makes the table.
pub type Entry = (&'static str, fn() -> Table);

/// All of them, in the order of the document.
pub const ALL: [Entry; 5] = [
    ("unit of admission", || unit::play().table()),
    ("borrowing", || borrowing::play().table()),
    ("retries", || retries::play().table()),
    ("burst", || burst::play().table()),
    ("outage", || outage::play().table()),
];

/// The command that writes them anew.
pub const COMMAND: &str = "cargo run --release -p forebay-sizing --example tables";

/// Rows under a head, as Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                writeln!(f, "|{}", "---|".repeat(row.len()))?;
            }
        }
        Ok(())
    }
}

/// The block of the table `name` in `document`: what stands between its markers.
///
/// # Errors
/// Where a marker is missing.
pub fn block<'a>(document: &'a str, name: &str) -> Result<&'a str, NoSuchTable> {
    let (_, rest) = document.split_once(&begin(name)).ok_or_else(|| NoSuchTable(name.into()))?;
    let (block, _) = rest.split_once(END).ok_or_else(|| NoSuchTable(name.into()))?;
    Ok(block)
}

/// `document` with `table` in the block `name`.
///
/// # Errors
/// Where a marker is missing.
pub fn with_block(document: &str, name: &str, table: &Table) -> Result<String, NoSuchTable> {
    let old = format!("{}{}{END}", begin(name), block(document, name)?);
    Ok(document.replacen(&old, &format!("{}{table}{END}", begin(name)), 1))
}

fn begin(name: &str) -> String {
    format!("<!-- table: {name} -->\n")
}

const END: &str = "<!-- end -->";

/// The document has no place for a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no block for the table `{0}`: the document needs the lines `<!-- table: {0} -->` and `<!-- end -->`"
)]
pub struct NoSuchTable(String);

/// A pool of `budget` connections that are all opened at once, with these classes and nothing else
/// that decides: what a table compares it switches on itself.
fn plain_pool(budget: u32, classes: Vec<(&str, ClassSettings)>) -> PoolSettings {
    PoolSettings {
        ai_share: 100,
        classes: classes.into_iter().map(|(name, class)| (ClassName::new(name), class)).collect(),
        warm_up: 100,
        opens_per_second: Some(1_000_000),
        concurrent_opens: Some(budget),
        seed: 1,
        ..PoolSettings::new("simulated", Budget::Fixed(budget))
    }
}

/// A class without policies.
fn plain_class() -> ClassSettings {
    ClassSettings { mode: Mode::Off, ..ClassSettings::default() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn in_millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis >= 100.0 { format!("{millis:.0} ms") } else { format!("{millis:.1} ms") }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// `count` a second over `seconds`.
#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_its_place_in_the_document_and_touches_nothing_else() {
        let document =
            "# A\n<!-- table: a -->\nold\n<!-- end -->\n<!-- table: b -->\n<!-- end -->\n";
        let mut table = Table::new(["x", "y"]);
        table.push([1.to_string(), 2.to_string()]);
        let written = with_block(document, "a", &table).unwrap();
        assert_eq!(block(&written, "a").unwrap(), "| x | y |\n|---|---|\n| 1 | 2 |\n");
        assert_eq!(block(&written, "b").unwrap(), "");
        let missing = with_block(document, "c", &table).unwrap_err();
        assert!(missing.to_string().contains("<!-- table: c -->"));
    }
}
