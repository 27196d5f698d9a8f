//! What the program writes to stderr: text on a terminal, one JSON object a line elsewhere.
//!
//! Much of what is logged came from the network. Always true: no control character of it
//! reaches the output, so nobody can forge a line or drive a terminal.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::field::Field;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, LogSettings};

/// The environment variable that says how much is logged.
pub const VARIABLE: &str = "FOREBAY_LOG";

/// How much is logged, changed while the program runs. Cheap to clone.
#[derive(Clone)]
pub struct Level {
    set: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

impl Level {
    /// Logs as much as `settings` say from now on, unless `FOREBAY_LOG` says how much.
    ///
    /// # Errors
    /// When the setting is no filter.
    pub fn follow(&self, settings: &LogSettings) -> Result<(), ParseError> {
        let filter = filter(settings)?;
        if !(self.set)(filter) {
            tracing::debug!("the log is another program's, and keeps its level");
        }
        Ok(())
    }
}

impl<S: 'static> From<reload::Handle<EnvFilter, S>> for Level {
    fn from(handle: reload::Handle<EnvFilter, S>) -> Self {
        Self { set: Arc::new(move |filter| handle.reload(filter).is_ok()) }
    }
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, ParseError> {
    let level = std::env::var(VARIABLE).ok().filter(|level| !level.is_empty());
    EnvFilter::builder().parse(level.as_deref().unwrap_or(&settings.level))
}

/// Starts logging as `settings` say. A second call changes nothing.
///
/// # Errors
/// When `FOREBAY_LOG` or the setting is no filter.
pub fn start(settings: &LogSettings) -> Result<Level, ParseError> {
    let filter = filter(settings)?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let (started, level) = if text {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let builder = builder.with_ansi(colours).fmt_fields(debug_fn(write_field));
        let builder = builder.with_filter_reloading();
        let level = Level::from(builder.reload_handle());
        (builder.try_init(), level)
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(false);
        let builder = builder.with_filter_reloading();
        let level = Level::from(builder.reload_handle());
        (builder.try_init(), level)
    };
    // Whoever was first keeps the log: a test, or the demo around us.
    drop(started);
    Ok(level)
}

fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(Escaping(out), "{value:?}"),
        name => write!(Escaping(out), " {name}={value:?}"),
    }
}

/// Writes control characters as escapes.
struct Escaping<'w, W>(&'w mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if is_plain(c) {
                self.0.write_char(c)
            } else {
                write!(self.0, "{}", c.escape_unicode())
            }
        })
    }
}

/// Neither a control character nor one that turns the direction of the text around.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_from_outside_are_escaped() {
        let mut out = String::new();
        write!(Escaping(&mut out), "a\nforged\x1b[31m\u{202e}é").unwrap();
        assert_eq!(out, "a\\u{a}forged\\u{1b}[31m\\u{202e}é");
    }
}
