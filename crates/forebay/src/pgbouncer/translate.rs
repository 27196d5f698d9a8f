//! What a `pgbouncer.ini` comes to as settings of ours, and what is to be said of it.
//!
//! Pure but for two questions to the system, which listening asks: the addresses of a name, and
//! whether there is IPv6. Always true: whatever a file sets is in the result, or in a note, or
//! the file is refused; a secret is in no note.

mod auth;
mod listen;
mod log;
mod servers;
mod tls;
mod users;

use std::time::Duration;

use super::document::Document;
use super::file::{File, Line, Mistake};
use super::ini::Place;
use super::parameter::{OF_DATABASES, OF_PEERS, OF_USERS, Parameter};
use super::secrets::{SecretFile, Secrets};
use super::setting::Fate;
use super::value;

/// As good as never, for settings of ours that know no "never".
const NEVER: &str = "36500days";

/// What a file comes to.
#[derive(Debug)]
pub(super) struct Translation {
    /// The settings.
    pub(super) document: Document,
    /// What is to be said, in the order of the file where it has one.
    pub(super) notes: Vec<Note>,
    /// Secrets that the settings refer to, where they are to be written.
    pub(super) secrets: Vec<SecretFile>,
}

/// Something that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) place: Option<Place>,
    /// What it is about, such as `server_lifetime`.
    pub(super) about: String,
    pub(super) kind: NoteKind,
    pub(super) text: String,
}

/// What kind of news it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NoteKind {
    /// It means something different here.
    Differs,
    /// It is not done.
    Dropped,
    /// Nobody needs it here.
    Needless,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.about, self.text)
    }
}

/// Translates `file`; secrets go where `secrets` says.
///
/// # Errors
/// All that we cannot do and would be missed.
pub(super) fn translate(file: &File, secrets: Secrets) -> Result<Translation, Vec<Mistake>> {
    let mut work = Work {
        file,
        document: Document::default(),
        notes: Vec::new(),
        mistakes: Vec::new(),
        secrets,
        is_local: true,
    };
    work.document.remark(
        &["postgres"],
        "What PgBouncer's file set, or took by default where our default is another one.",
    );
    listen::translate(&mut work);
    auth::translate(&mut work);
    tls::translate(&mut work);
    pooling(&mut work);
    timeouts(&mut work);
    lines(&mut work);
    servers::translate(&mut work);
    users::translate(&mut work);
    fleet(&mut work);
    log::translate(&mut work);
    // Several instances may run on a machine, and nobody expects this port.
    work.document
        .set(&["admin"], "listen", "127.0.0.1:0")
        .because("Metrics, health and state by HTTP: at any free port, which the log names.");
    work.tell_fates();
    let Work { document, notes, mistakes, secrets, .. } = work;
    if mistakes.is_empty() {
        Ok(Translation { document, notes, secrets: secrets.files() })
    } else {
        Err(mistakes)
    }
}

/// A translation under way.
struct Work<'f> {
    file: &'f File,
    document: Document,
    notes: Vec<Note>,
    mistakes: Vec<Mistake>,
    secrets: Secrets,
    /// Can only programs of this machine connect?
    is_local: bool,
}

impl Work<'_> {
    fn note(
        &mut self,
        kind: NoteKind,
        about: &str,
        place: Option<&Place>,
        text: impl Into<String>,
    ) {
        let (place, about, text) = (place.cloned(), about.to_owned(), text.into());
        self.notes.push(Note { place, about, kind, text });
    }

    fn refuse(&mut self, place: Option<&Place>, reason: impl Into<String>) {
        self.mistakes.push(Mistake { place: place.cloned(), reason: reason.into() });
    }

    /// `[postgres] key = value`, which the setting `name` says.
    fn set(&mut self, key: &str, value: impl Into<toml::Value>, name: &str) {
        self.document.set(&["postgres"], key, value).from(self.file.place(name));
    }

    /// The time `name` as the setting `key` of `[postgres]`.
    fn set_time(&mut self, key: &str, name: &str) {
        self.set(key, time(self.file.seconds(name)), name);
    }

    /// Notes for all that was set, by the fate of each.
    fn tell_fates(&mut self) {
        let file = self.file;
        for (setting, said) in file.changed() {
            self.tell_fate(setting.name, &said.value, setting.fate, &said.place);
        }
        let lines: [(&[Line], &[Parameter]); 3] =
            [(&file.databases, OF_DATABASES), (&file.users, OF_USERS), (&file.peers, OF_PEERS)];
        for (lines, parameters) in lines {
            for line in lines {
                for parameter in parameters {
                    let Some(value) = line.text(parameter.name) else { continue };
                    let about = format!("{} {}", line.name, parameter.name);
                    self.tell_fate(&about, value, parameter.fate, &line.place);
                }
            }
        }
    }

    fn tell_fate(&mut self, about: &str, value: &str, fate: Fate, place: &Place) {
        match fate {
            Fate::Becomes(_) | Fate::Mode(_) => {}
            Fate::Resembles { differs, .. } => {
                if differs_for(about.rsplit(' ').next().unwrap_or_default(), value) {
                    self.note(NoteKind::Differs, about, Some(place), differs);
                }
            }
            Fate::Nothing(why) => self.note(NoteKind::Needless, about, Some(place), why),
            Fate::Instead(what) => self.note(NoteKind::Dropped, about, Some(place), what),
            Fate::Refused(why) => self.refuse(Some(place), format!("{about}: {why}")),
        }
    }
}

/// Is what differs of the setting `name` of any concern to who set it to `value`?
fn differs_for(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match name {
        "auth_type" => value == "any",
        "pool_mode" => value == "statement",
        "host" => value.contains(','),
        "max_prepared_statements" => value == "0",
        "client_tls_protocols" | "server_tls_protocols" => !value
            .split([',', ':', ' '])
            .all(|name| matches!(name, "secure" | "tlsv1.2" | "tlsv1.3")),
        "client_tls_ciphers" => value == "all",
        _ => true,
    }
}

fn pooling(work: &mut Work<'_>) {
    let file = work.file;
    if file.flag("application_name_add_host") {
        work.set("application_name_add_host", true, "application_name_add_host");
    }
    work.set("pool_mode", pool_mode(file.text("pool_mode")), "pool_mode");
    work.set("max_clients", file.number("max_client_conn"), "max_client_conn");
    for (theirs, ours) in [
        ("default_pool_size", "pool_size"),
        ("min_pool_size", "min_pool_size"),
        ("reserve_pool_size", "reserve_pool_size"),
        ("max_db_connections", "max_database_connections"),
        ("max_user_connections", "max_user_connections"),
        ("max_db_client_connections", "max_database_client_connections"),
        ("max_user_client_connections", "max_user_client_connections"),
    ] {
        work.set(ours, file.number(theirs), theirs);
    }
    work.set_time("reserve_pool_timeout", "reserve_pool_timeout");
    let statements = file.number("max_prepared_statements");
    let statements = if statements == 0 { 200 } else { statements };
    work.set("max_prepared_statements", statements, "max_prepared_statements");
    let ttl = file.seconds("dns_max_ttl");
    work.set("dns_max_ttl", time(ttl), "dns_max_ttl");
}

/// Peers, where this instance has a number among them.
fn fleet(work: &mut Work<'_>) {
    let file = work.file;
    let id = file.number("peer_id");
    if id == 0 {
        return;
    }
    let table = &["postgres", "fleet"];
    work.document.set(table, "id", id).from(file.place("peer_id"));
    let peers = file.peers.iter().filter_map(|line| {
        let id = value::number(&line.name).ok()?;
        let port = line.text("port").unwrap_or("6432");
        let address = servers::address(line.text("host")?, port);
        let peer = [("id", toml::Value::from(id)), ("address", toml::Value::from(address))];
        Some(peer.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<toml::Table>())
    });
    let peers: Vec<_> = peers.map(toml::Value::Table).collect();
    if !peers.is_empty() {
        work.document.set(table, "peers", peers).from(file.peers.first().map(|line| &line.place));
    }
}

/// How TCP connections are watched over. 0, PgBouncer's default, leaves the timing to the system,
/// which waits for two hours; here our own defaults stand then.
fn lines(work: &mut Work<'_>) {
    let file = work.file;
    work.set("tcp_keepalive", file.flag("tcp_keepalive"), "tcp_keepalive");
    for name in ["tcp_keepidle", "tcp_keepintvl"] {
        let seconds = file.number(name);
        if seconds > 0 {
            work.set(name, time(Duration::from_secs(seconds.into())), name);
        }
    }
    let count = file.number("tcp_keepcnt");
    if count > 0 {
        work.set("tcp_keepcnt", count, "tcp_keepcnt");
    }
    let limit = Duration::from_millis(file.number("tcp_user_timeout").into());
    work.set("tcp_user_timeout", time(limit), "tcp_user_timeout");
}

fn timeouts(work: &mut Work<'_>) {
    work.set_time("login_timeout", "client_login_timeout");
    for name in [
        "query_timeout",
        "transaction_timeout",
        "idle_transaction_timeout",
        "client_idle_timeout",
        "cancel_wait_timeout",
        "suspend_timeout",
    ] {
        work.set_time(name, name);
    }
    let wait = work.file.seconds("query_wait_timeout");
    // For us 0 leaves it to the classes.
    let wait = if wait.is_zero() { NEVER.to_owned() } else { time(wait) };
    work.set("query_wait_timeout", wait, "query_wait_timeout");
}

pub(super) use log::level;

/// Our name of a pool mode. There is no `statement`; what it forbids is allowed.
fn pool_mode(name: Option<&str>) -> &'static str {
    let session = name.is_some_and(|name| name.eq_ignore_ascii_case("session"));
    if session { "session" } else { "transaction" }
}

/// A time as we write it.
fn time(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        format!("{}s", time.as_secs())
    } else {
        format!("{}ms", time.as_millis().max(1))
    }
}

#[cfg(test)]
mod tests;
