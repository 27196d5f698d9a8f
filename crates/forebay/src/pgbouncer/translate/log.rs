//! What is logged, how, and where.

use super::super::file::File;
use super::Work;

const TABLE: &[&str] = &["log"];

/// Settings for a kind of line, the room that writes it, and what the filter says of it where
/// it is wanted and where it is not.
const KINDS: [(&str, &str, &str, &str); 4] = [
    ("log_connections", "forebay_postgres::logins", "debug", "off"),
    ("log_disconnections", "forebay_postgres::departures", "debug", "off"),
    ("log_stats", "forebay_postgres::statistics", "debug", "off"),
    ("log_pooler_errors", "forebay_postgres::refusals", "info", "off"),
];

/// How much is logged, where that much is wanted (0 to 3).
pub(in crate::pgbouncer) fn level(file: &File, verbose: u32) -> String {
    let mut level = match verbose {
        0 => "info".to_owned(),
        1 => "debug".to_owned(),
        _ => "trace".to_owned(),
    };
    for (name, room, on, off) in KINDS {
        let wanted = if file.flag(name) { on } else { off };
        level.push_str(&format!(",{room}={wanted}"));
    }
    level
}

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    let level = level(file, file.number("verbose"));
    work.document.set(TABLE, "level", level).from(file.place("verbose"));
    work.document.set(TABLE, "format", "pgbouncer").because("Lines as PgBouncer writes them.");
    if let Some(path) = file.nonempty("logfile") {
        work.document.set(TABLE, "file", path).from(file.place("logfile"));
    }
    if file.flag("syslog") {
        let facility = file.text("syslog_facility").unwrap_or_default().to_ascii_lowercase();
        let table = &["log", "syslog"][..];
        work.document.set(table, "facility", facility).from(file.place("syslog"));
        let name = file.text("syslog_ident").unwrap_or_default();
        work.document.set(table, "ident", name).from(file.place("syslog"));
    }
    let period = format!("{}s", file.number("stats_period").max(1));
    work.set("stats_period", period, "stats_period");
}
