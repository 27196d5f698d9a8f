//! `[databases]`: the servers that its lines name, and the databases that lead to them.
//!
//! PgBouncer has no servers, only lines with a host each. Lines with the same host, and the
//! same of what belongs to a server here, share one.

use super::super::file::Line;
use super::super::ini::Place;
use super::tls::{self, Side};
use super::{NEVER, NoteKind, Work, pool_mode, time};

/// The most that is promised to a server where nobody can say how many users there are.
const MANY: u32 = 10_000;

/// A server, and what of it lines may differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    hosts: Vec<String>,
    balance: Option<String>,
    attributes: Option<String>,
    lifetime: Option<String>,
}

/// A server with the name that it gets.
struct Named {
    name: String,
    server: Server,
    place: Place,
    /// Connections that its databases may have together.
    seats: u32,
}

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    if file.databases.is_empty() {
        let reason = "[databases] is empty: add a line for each database, or `* = host=…`";
        return work.refuse(None, reason);
    }
    let mut servers: Vec<Named> = Vec::new();
    for line in &file.databases {
        let server = server(work, line);
        let known = servers.iter().position(|named| named.server == server);
        let at = known.unwrap_or_else(|| {
            let name = name(&server, &servers);
            servers.push(Named { name, server, place: line.place.clone(), seats: 0 });
            servers.len() - 1
        });
        let Some(named) = servers.get_mut(at) else { continue };
        named.seats = named.seats.saturating_add(seats(work, line)).min(MANY);
        let name = named.name.clone();
        database(work, line, &name);
    }
    for named in &servers {
        write(work, named);
    }
}

fn server(work: &Work<'_>, line: &Line) -> Server {
    let file = work.file;
    let port = line.text("port").unwrap_or("5432");
    let socket_dir = file.nonempty("unix_socket_dir").unwrap_or("/tmp");
    let hosts = line.text("host").unwrap_or(socket_dir);
    let hosts: Vec<_> = hosts.split(',').map(|host| address(host.trim(), port)).collect();
    let several = hosts.len() > 1;
    let lower = |key| line.text(key).map(str::to_ascii_lowercase);
    Server {
        hosts,
        balance: several
            .then(|| lower("load_balance_hosts").unwrap_or_else(|| "round-robin".to_owned())),
        attributes: lower("target_session_attrs").filter(|attributes| attributes != "any"),
        lifetime: line.seconds("server_lifetime").map(time),
    }
}

pub(super) fn address(host: &str, port: &str) -> String {
    if host.starts_with('/') {
        format!("{}/.s.PGSQL.{port}", host.trim_end_matches('/'))
    } else if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A name that an operator recognizes in metrics: the host, and the port where it is not 5432.
fn name(server: &Server, known: &[Named]) -> String {
    let first = server.hosts.first().map_or("", String::as_str);
    let name = if first.starts_with('/') {
        let port = first.rsplit('.').next().unwrap_or_default();
        if port == "5432" { "local".to_owned() } else { format!("local-{port}") }
    } else {
        first.strip_suffix(":5432").unwrap_or(first).replace(['[', ']'], "").replace(':', "-")
    };
    let taken = |name: &str| known.iter().any(|named| named.name == name);
    if !taken(&name) {
        return name;
    }
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    numbered.into_iter().find(|name| !taken(name)).unwrap_or(name)
}

/// Connections that PgBouncer would open for a line at the most.
fn seats(work: &Work<'_>, line: &Line) -> u32 {
    let file = work.file;
    let size = line.number("pool_size").unwrap_or_else(|| file.number("default_pool_size"));
    let reserve = reserve(work, line);
    let each = size.saturating_add(reserve);
    let all = if line.text("user").is_some() && line.name != "*" { each } else { MANY };
    match max_connections(work, line) {
        0 => all,
        most => all.min(most),
    }
}

fn reserve(work: &Work<'_>, line: &Line) -> u32 {
    let own = line.number("reserve_pool_size").or_else(|| line.number("reserve_pool"));
    own.unwrap_or_else(|| work.file.number("reserve_pool_size"))
}

fn max_connections(work: &Work<'_>, line: &Line) -> u32 {
    line.number("max_db_connections").unwrap_or_else(|| work.file.number("max_db_connections"))
}

fn database(work: &mut Work<'_>, line: &Line, server: &str) {
    let table = &["postgres", "databases", line.name.as_str()][..];
    let place = Some(&line.place);
    let document = &mut work.document;
    document.set(table, "server", server).from(place);
    if let Some(database) = line.text("dbname").filter(|name| *name != line.name) {
        document.set(table, "database", database).from(place);
    }
    if let Some(mode) = line.text("pool_mode") {
        document.set(table, "pool_mode", pool_mode(Some(mode))).from(place);
    }
    for (theirs, ours) in [
        ("pool_size", "pool_size"),
        ("min_pool_size", "min_pool_size"),
        ("reserve_pool", "reserve_pool_size"),
        ("reserve_pool_size", "reserve_pool_size"),
        ("max_db_connections", "max_connections"),
        ("max_db_client_connections", "max_client_connections"),
    ] {
        if let Some(number) = line.number(theirs) {
            document.set(table, ours, number).from(place);
        }
    }
    for (theirs, ours) in [
        ("user", "force_user"),
        ("connect_query", "connect_query"),
        ("auth_user", "auth_user"),
        ("auth_dbname", "auth_database"),
        ("auth_query", "auth_query"),
    ] {
        if let Some(text) = line.text(theirs) {
            document.set(table, ours, text).from(place);
        }
    }
    let parameters = ["client_encoding", "datestyle", "timezone", "application_name"];
    for (name, value) in parameters.iter().filter_map(|name| Some((*name, line.text(name)?))) {
        let table = &["postgres", "databases", line.name.as_str(), "parameters"][..];
        document.set(table, name, value).from(place);
    }
    password(work, line, table);
}

fn password(work: &mut Work<'_>, line: &Line, table: &[&str]) {
    let Some(password) = line.text("password") else { return };
    if line.text("user").is_none() {
        let about = format!("{} password", line.name);
        let said = "without `user` nobody uses it, in PgBouncer neither";
        return work.note(NoteKind::Needless, &about, Some(&line.place), said);
    }
    let (reference, remark) = work.secrets.keep(&line.name, password);
    let set = work.document.set(table, "password", reference).from(Some(&line.place));
    if let Some(remark) = remark {
        set.because(remark);
    }
}

fn write(work: &mut Work<'_>, named: &Named) {
    let file = work.file;
    let Named { name, server, place, seats } = named;
    let table = &["postgres", "servers", name.as_str()][..];
    match server.hosts.as_slice() {
        [only] => work.document.set(table, "address", only.as_str()).from(Some(place)),
        several => work.document.set(table, "hosts", several.to_vec()).from(Some(place)),
    };
    if let Some(balance) = &server.balance {
        work.document.set(table, "load_balance_hosts", balance.as_str()).from(Some(place));
    }
    if let Some(attributes) = &server.attributes {
        work.document.set(table, "target_session_attrs", attributes.as_str()).from(Some(place));
    }
    work.document.set(table, "budget", *seats).because(
        "What the pools of all databases and users may have together, which PgBouncer does not \
         bound. Without this line it is 70 % of what the server can take.",
    );
    if *seats == MANY {
        work.document
            .set(table, "bounded_by", "pools")
            .because("Users are not known: nobody can say how many connections they will have.");
    }
    work.document
        .set(table, "warm_up", 0)
        .because("Connections are opened when they are needed, or by `min_pool_size`.");
    secure(work, table);
    let lifetime = match &server.lifetime {
        Some(lifetime) => lifetime.clone(),
        None => time(file.seconds("server_lifetime")),
    };
    lasting(work, table, lifetime);
    let core = &["postgres", "servers", name.as_str(), "classes", "core"][..];
    work.document.set(core, "kind", "core");
}

fn secure(work: &mut Work<'_>, table: &[&str]) {
    let file = work.file;
    let mode = file.text("server_tls_sslmode").unwrap_or_default().to_ascii_lowercase();
    let place = file.place("server_tls_sslmode");
    work.document.set(table, "sslmode", mode.as_str()).from(place);
    for (theirs, ours) in [
        ("server_tls_ca_file", "sslrootcert"),
        ("server_tls_cert_file", "sslcert"),
        ("server_tls_key_file", "sslkey"),
    ] {
        if let Some(path) = file.nonempty(theirs) {
            work.document.set(table, ours, path).from(file.place(theirs));
        }
    }
    if mode != "disable" {
        tls::limits(work, Side::Servers, table);
    }
}

/// How long connections take to come, and how long they last.
fn lasting(work: &mut Work<'_>, table: &[&str], lifetime: String) {
    let file = work.file;
    // Where PgBouncer closes a connection after one use, we do when it is idle for the first
    // time after a second.
    let lifetime = if lifetime == "0s" { "1s".to_owned() } else { lifetime };
    let idle = file.seconds("server_idle_timeout");
    let idle = if idle.is_zero() { NEVER.to_owned() } else { time(idle) };
    let check = file.seconds("server_check_delay");
    let check = if check.is_zero() { "1s".to_owned() } else { time(check) };
    let connect = file.seconds("server_connect_timeout");
    let connect = if connect.is_zero() { NEVER.to_owned() } else { time(connect) };
    for (key, value, name) in [
        ("lifetime", lifetime, "server_lifetime"),
        ("idle_ttl", idle, "server_idle_timeout"),
        ("probe_interval", check, "server_check_delay"),
        ("connect_timeout", connect, "server_connect_timeout"),
    ] {
        work.document.set(table, key, value).from(file.place(name));
    }
}
