//! Lines as PgBouncer writes them, for the tools that read its log.
//!
//! `2026-11-21 12:00:00.000 UTC [4711] LOG C-0x1f: app/web@10.0.0.1:5432 login attempt: …`.
//! What the gateway calls by its own words is translated here; it knows nothing of this.

use std::fmt;
use std::process;

use forebay_seam::time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::Escaping;

/// The form of PgBouncer's lines.
pub(super) struct Line {
    zone: TimeZone,
    pid: u32,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { zone: TimeZone::system(), pid: process::id() }
    }

    fn write(
        &self,
        out: &mut dyn fmt::Write,
        now: &Zoned,
        level: Level,
        said: &Said,
    ) -> fmt::Result {
        let at = now.strftime("%Y-%m-%d %H:%M:%S%.3f %Z");
        write!(out, "{at} [{}] {} ", self.pid, said.label(level))?;
        said.write(&mut Escaping(out))?;
        out.write_char('\n')
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = Timestamp::try_from(time::wall_now()).unwrap_or_default();
        let now = now.to_zoned(self.zone.clone());
        let mut said = Said::default();
        event.record(&mut said);
        self.write(&mut out, &now, *event.metadata().level(), &said)
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

impl Said {
    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// PgBouncer's word for how grave it is.
    fn label(&self, level: Level) -> &'static str {
        match level {
            Level::ERROR => "ERROR",
            _ if self.message == "client refused" => "WARNING",
            Level::WARN => "WARNING",
            Level::INFO => "LOG",
            Level::DEBUG if self.message == "client logged in" => "LOG",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "NOISE",
        }
    }

    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut told: &[&str] = &[];
        if let Some(from) = self.field("from") {
            let id = self.field("client").and_then(|id| id.parse().ok()).unwrap_or(0_u64);
            let database = self.field("database").unwrap_or("(nodb)");
            let user = self.field("user").unwrap_or("(nouser)");
            write!(out, "C-{id:#x}: {database}/{user}@{from} ")?;
            told = &["from", "client", "database", "user"];
        }
        let field = |name| self.field(name).unwrap_or_default();
        match self.message.as_str() {
            "client logged in" => {
                let tls = if field("tls") == "true" { "yes" } else { "no" };
                let (database, user) = (field("database"), field("user"));
                return write!(out, "login attempt: db={database} user={user} tls={tls}");
            }
            "client refused" => return write!(out, "pooler error: {}", field("error")),
            message => out.write_str(message)?,
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| !told.contains(name)) {
            write!(out, " {name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, message: &str, fields: &[(&'static str, &str)]) -> String {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let said = Said { message: message.to_owned(), fields };
        let now = Timestamp::from_second(1_795_262_400).unwrap().to_zoned(TimeZone::UTC);
        let mut out = String::new();
        Line { zone: TimeZone::UTC, pid: 7 }.write(&mut out, &now, level, &said).unwrap();
        out
    }

    #[test]
    fn lines_are_those_that_readers_of_pgbouncers_log_know() {
        let who = [("client", "31"), ("database", "app"), ("user", "web"), ("from", "10.0.0.1:99")];
        let start = "2026-11-21 12:00:00.000 UTC [7]";
        assert_eq!(
            line(Level::DEBUG, "client logged in", &[&who[..], &[("tls", "true")]].concat()),
            format!(
                "{start} LOG C-0x1f: app/web@10.0.0.1:99 login attempt: db=app user=web tls=yes\n"
            )
        );
        assert_eq!(
            line(Level::INFO, "client refused", &[("from", "::1"), ("error", "no such user")]),
            format!("{start} WARNING C-0x0: (nodb)/(nouser)@::1 pooler error: no such user\n")
        );
        assert_eq!(
            line(Level::WARN, "a server is slow", &[("server", "db"), ("ms", "5")]),
            format!("{start} WARNING a server is slow server=db ms=5\n")
        );
    }

    #[test]
    fn nobody_outside_can_forge_a_line() {
        let forged = line(Level::INFO, "x", &[("user", "a\n2026 LOG all is well")]);
        assert_eq!(forged.lines().count(), 1);
    }
}
