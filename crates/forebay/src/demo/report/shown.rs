//! What each scenario on a database alone has to show: rows of a table, and what they say.

use serde::Serialize;

use super::LoginFigures;
use super::table::{milliseconds, rate, thousands};

/// One side of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Played<F> {
    /// What was measured.
    #[serde(flatten)]
    pub(crate) figures: F,
    /// What the first kinds of errors said.
    pub(crate) error_samples: Vec<String>,
    /// How this side was set up.
    pub(crate) configuration: Vec<String>,
}

/// A line of the table: without Forebay, and with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(super) label: &'static str,
    pub(super) values: [String; 2],
}

/// Figures that can be shown side by side; without Forebay comes first.
pub(crate) trait Shown {
    /// The scenario, as the report calls it.
    const NAME: &'static str;

    /// The lines of its table.
    fn rows(sides: [&Self; 2]) -> Vec<Row>;

    /// The logins beside it.
    fn logins(&self) -> Option<&LoginFigures>;

    /// What they say, whichever side was better.
    fn words(sides: [&Self; 2]) -> String;
}

impl Row {
    /// Milliseconds.
    pub(super) fn times(label: &'static str, values: [f64; 2]) -> Self {
        Self { label, values: values.map(milliseconds) }
    }

    /// Whole numbers.
    pub(super) fn counts(label: &'static str, values: [u64; 2]) -> Self {
        Self { label, values: values.map(thousands) }
    }

    /// So many a second.
    pub(super) fn rates(label: &'static str, values: [f64; 2]) -> Self {
        Self { label, values: values.map(rate) }
    }

    /// In words of their own.
    pub(super) fn texts(label: &'static str, values: [String; 2]) -> Self {
        Self { label, values }
    }
}
