//! What the program logs: text on a terminal, one JSON object a line elsewhere, or lines as
//! PgBouncer's; to stderr, a file, the system's log.
//!
//! Much of what is logged came from the network. Always true: no control character of it
//! reaches the output, so nobody can forge a line or drive a terminal.

mod outlet;
mod outputs;
mod pgbouncer;
mod syslog;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::field::Field;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, LogSettings};

pub use outlet::Lines;
use outlet::Outlet;
pub use outputs::Outputs;

/// The environment variable that says how much is logged.
pub const VARIABLE: &str = "FOREBAY_LOG";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `FOREBAY_LOG` or the setting is no filter.
    #[error("cannot log as `FOREBAY_LOG` or `log.level` says: {0}")]
    Level(#[from] ParseError),
    /// The file or the system's log is not there.
    #[error("cannot log where `log.file` or `log.syslog` says: {0}")]
    Output(#[from] io::Error),
}

/// How much is logged, and the file, changed while the program runs. Cheap to clone.
#[derive(Clone)]
pub struct Level {
    set: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    outputs: Outputs,
    lines: Lines,
}

impl Level {
    /// Logs as much as `settings` say from now on, unless `FOREBAY_LOG` says how much, and into
    /// the file that has the log's name now.
    ///
    /// # Errors
    /// When the setting is no filter.
    pub fn follow(&self, settings: &LogSettings) -> Result<(), ParseError> {
        self.outputs.reopen();
        let filter = filter(settings)?;
        if !(self.set)(filter) {
            tracing::debug!("the log is another program's, and keeps its level");
        }
        Ok(())
    }

    /// What became of the lines.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }

    fn of<S: 'static>(
        handle: reload::Handle<EnvFilter, S>,
        outputs: Outputs,
        lines: Lines,
    ) -> Self {
        Self { set: Arc::new(move |filter| handle.reload(filter).is_ok()), outputs, lines }
    }
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, ParseError> {
    let level = std::env::var(VARIABLE).ok().filter(|level| !level.is_empty());
    EnvFilter::builder().parse(level.as_deref().unwrap_or(&settings.level))
}

/// Starts logging as `settings` say. A second call changes nothing.
///
/// # Errors
/// When `FOREBAY_LOG` or the setting is no filter, or what is logged to cannot be opened.
pub fn start(settings: &LogSettings) -> Result<Level, LogError> {
    let filter = filter(settings)?;
    let outputs = Outputs::open(settings)?;
    let terminal = io::stderr().is_terminal() && settings.file.is_none();
    let way = outputs.clone();
    let outlet = Outlet::to(move |level, line| way.write(level, line))?;
    let lines = outlet.lines();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(outlet);
    let (started, level) = match settings.format {
        LogFormat::PgBouncer => {
            let builder = builder.with_ansi(false).event_format(pgbouncer::Line::new());
            let builder = builder.with_filter_reloading();
            let level = Level::of(builder.reload_handle(), outputs, lines);
            (builder.try_init(), level)
        }
        format if format == LogFormat::Text || (format == LogFormat::Auto && terminal) => {
            let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            let builder = builder.with_ansi(colours).fmt_fields(debug_fn(write_field));
            let builder = builder.with_filter_reloading();
            let level = Level::of(builder.reload_handle(), outputs, lines);
            (builder.try_init(), level)
        }
        LogFormat::Auto | LogFormat::Text | LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            let builder = builder.with_filter_reloading();
            let level = Level::of(builder.reload_handle(), outputs, lines);
            (builder.try_init(), level)
        }
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
struct Escaping<'w, W: ?Sized>(&'w mut W);

impl<W: fmt::Write + ?Sized> fmt::Write for Escaping<'_, W> {
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
