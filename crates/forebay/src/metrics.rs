//! The picture of the program as Prometheus reads it.
//!
//! Counts nothing: each scrape renders one [`ProgramSnapshot`]. What OpenTelemetry's
//! semantic conventions name has their names (`db_client_connection_count`, …), everything
//! else is `forebay_*`. Labels are names out of the configuration, enums, and features,
//! whose number is bounded where they are counted.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::view::ProgramSnapshot;

mod families;
mod sheet;

/// In which of the two dialects the reader wants the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4, which everything understands.
    Classic,
}

impl Format {
    /// The format for a reader that accepts `accept`.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// `snapshot` as text.
pub fn render(snapshot: &ProgramSnapshot, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Picture(snapshot.clone())));
    let mut text = String::new();
    match text::encode(&mut text, &registry) {
        Ok(()) if format == Format::Classic => classic(&text),
        Ok(()) => text,
        // Writing to a string cannot fail; should a number not be representable, the reader
        // sees a page that ends early rather than a wrong figure.
        Err(fmt::Error) => String::new(),
    }
}

struct Picture(ProgramSnapshot);

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Picture")
    }
}

impl Collector for Picture {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::encode(&self.0, encoder)
    }
}

/// OpenMetrics as text format 0.0.4: there a counter's name includes `_total`, and units and
/// the end are not told.
fn classic(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let counter = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"));
        if let Some(name) = counter {
            if let Some(help) = lines.last_mut() {
                *help =
                    help.replacen(&format!("# HELP {name} "), &format!("# HELP {name}_total "), 1);
            }
            lines.push(format!("# TYPE {name}_total counter"));
        } else if !line.starts_with("# UNIT") && line != "# EOF" {
            lines.push(line.to_owned());
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests;
