//! `forebay report holds`: what a running Forebay has seen, for people and for tickets.
//!
//! Asks its admin port and renders what that says; computes nothing that it does not say.

mod fetch;
mod holds;

use clap::{Args, ValueEnum};

pub(crate) use fetch::FetchError;
use holds::Page;

/// How a report is asked for.
#[derive(Debug, Args)]
pub(crate) struct HoldsArgs {
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The admin port of the Forebay that runs.
    #[arg(long, default_value = "http://127.0.0.1:6490")]
    url: String,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Text,
    /// For machines, as the admin port says it.
    Json,
    /// For a ticket.
    Markdown,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the answer cannot be read; is it a Forebay of another version? {0}")]
    Meaning(#[from] serde_json::Error),
}

/// The report on holds.
pub(crate) fn holds(args: &HoldsArgs) -> Result<String, ReportError> {
    let answer = fetch::get(&args.url, "/api/v1/holds")?;
    Ok(match args.format {
        Format::Json => format!("{:#}\n", serde_json::from_slice::<serde_json::Value>(&answer)?),
        Format::Text => holds::text(&serde_json::from_slice::<Page>(&answer)?),
        Format::Markdown => holds::markdown(&serde_json::from_slice::<Page>(&answer)?),
    })
}
