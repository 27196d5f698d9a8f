//! Lines as PgBouncer writes them, for the tools that read its log.
//!
//! `2026-11-21 12:00:00.000 UTC [4711] LOG C-0x1f: app/web@10.0.0.1:5432 login attempt: …`.
//! What the gateway calls by its own words is translated here; it knows nothing of this.

use std::borrow::Cow;
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

/// What PgBouncer logs without being asked for more, and calls a pooler's error.
const HABITS: [&str; 5] = [
    "client logged in",
    "client left",
    "connected to the server",
    "server connection left",
    "a period is over",
];
const ERRORS: [&str; 2] = ["client refused", "session ended"];

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
            _ if ERRORS.contains(&self.message.as_str()) => "WARNING",
            Level::WARN => "WARNING",
            Level::INFO => "LOG",
            Level::DEBUG if HABITS.contains(&self.message.as_str()) => "LOG",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "NOISE",
        }
    }

    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let field = |name| self.field(name).unwrap_or_default();
        let mut told: &[&str] = &[];
        for (letter, end, id) in [('C', "from", "client"), ('S', "to", "connection")] {
            let Some(at) = self.field(end) else { continue };
            let id = field(id).parse().unwrap_or(0_u64);
            let database = self.field("database").unwrap_or("(nodb)");
            let user = self.field("user").unwrap_or("(nouser)");
            write!(out, "{letter}-{id:#x}: {database}/{user}@{} ", place(at))?;
            told = &["from", "to", "client", "connection", "database", "user"];
        }
        match self.message.as_str() {
            "client logged in" => {
                let [database, user] = ["database", "user"].map(field);
                let [tls, replication] = ["tls", "replication"].map(field);
                return write!(
                    out,
                    "login attempt: db={database} user={user} tls={tls} replication={replication}"
                );
            }
            "connected to the server" => {
                return write!(out, "new connection to server (from {})", field("local"));
            }
            "client left" | "server connection left" => {
                return write!(out, "closing because: {} (age={}s)", field("reason"), field("age"));
            }
            "client refused" | "session ended" => {
                return write!(out, "pooler error: {}", field("reason"));
            }
            "a period is over" => return self.write_figures(out),
            message => out.write_str(message)?,
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| !told.contains(name)) {
            write!(out, " {name}={value}")?;
        }
        Ok(())
    }

    fn write_figures(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let figure = |name| self.field(name).unwrap_or("0");
        write!(
            out,
            "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, \
             in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
            figure("xacts"),
            figure("queries"),
            figure("client_parses"),
            figure("server_parses"),
            figure("binds"),
            figure("received"),
            figure("sent"),
            figure("xact_us"),
            figure("query_us"),
            figure("wait_us"),
        )
    }
}

/// Where a client came from; PgBouncer's words for a process of this machine.
fn place(at: &str) -> Cow<'_, str> {
    match at.strip_prefix("process ").and_then(|rest| rest.split_once(' ')) {
        Some((pid, _)) => format!("unix({pid})").into(),
        None if at.starts_with("a process of ") => "unix".into(),
        None => at.into(),
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
            line(
                Level::DEBUG,
                "client logged in",
                &[&who[..], &[("tls", "yes"), ("replication", "no")]].concat()
            ),
            format!(
                "{start} LOG C-0x1f: app/web@10.0.0.1:99 login attempt: db=app user=web tls=yes replication=no\n"
            )
        );
        assert_eq!(
            line(Level::INFO, "client refused", &[("from", "::1"), ("reason", "no such user")]),
            format!("{start} WARNING C-0x0: (nodb)/(nouser)@::1 pooler error: no such user\n")
        );
        assert_eq!(
            line(
                Level::INFO,
                "session ended",
                &[("from", "process 12 of user 0"), ("reason", "e")]
            ),
            format!("{start} WARNING C-0x0: (nodb)/(nouser)@unix(12) pooler error: e\n")
        );
        let left = [&who[..], &[("reason", "client close request"), ("age", "7")]].concat();
        assert_eq!(
            line(Level::DEBUG, "client left", &left),
            format!(
                "{start} LOG C-0x1f: app/web@10.0.0.1:99 closing because: client close request \
                 (age=7s)\n"
            )
        );
        let server = [("connection", "16"), ("database", "app"), ("user", "web")];
        let ends = [("to", "10.0.0.2:5432"), ("local", "10.0.0.9:1")];
        assert_eq!(
            line(Level::DEBUG, "connected to the server", &[&server[..], &ends].concat()),
            format!(
                "{start} LOG S-0x10: app/web@10.0.0.2:5432 new connection to server (from \
                 10.0.0.9:1)\n"
            )
        );
        let figures = [("xacts", "90"), ("received", "399055"), ("query_us", "242")];
        assert_eq!(
            line(Level::DEBUG, "a period is over", &figures),
            format!(
                "{start} LOG stats: 90 xacts/s, 0 queries/s, 0 client parses/s, 0 server parses/s, \
                 0 binds/s, in 399055 B/s, out 0 B/s, xact 0 us, query 242 us, wait 0 us\n"
            )
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
