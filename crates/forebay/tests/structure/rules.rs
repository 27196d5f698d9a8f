//! The invariants of absence, each a function from sources to the places that break it.

use crate::source::{Finding, Source, has_word, is_name};

/// Rooms of the engine that carry decisions out and so may wait and lock. Every other room
/// decides, and a new one is taken for a deciding one until it is named here.
const SHELL: [&str; 7] = ["connect", "lease", "limiter", "overflow", "overlap", "pool", "roster"];

/// Is `source` one of the engine's deciding rooms?
pub(crate) fn decides(source: &Source) -> bool {
    let inside = source.path.strip_prefix("crates/forebay-pool/src/");
    let room = inside.and_then(|path| path.split(['/', '.']).next());
    room.is_some_and(|room| !SHELL.contains(&room))
}

/// Is `source` part of what turns bytes into messages and back?
pub(crate) fn is_wire(source: &Source) -> bool {
    source.path.contains("/src/wire/") || source.path.ends_with("/src/wire.rs")
}

/// The engine names no protocol, file or exporter.
pub(crate) fn engine_names_no_protocol(source: &Source) -> Vec<Finding> {
    const PARTS: [&str; 13] = [
        "postgres",
        "http",
        "hyper",
        "rustls",
        "sqlstate",
        "toml",
        "prometheus",
        "otlp",
        "tcpstream",
        "tcplistener",
        "std::fs",
        "pathbuf",
        "file::",
    ];
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        let lower = line.to_lowercase();
        for part in PARTS.iter().filter(|part| lower.contains(**part)) {
            findings.push(source.finding(number, format!("the engine names `{part}`")));
        }
    }
    findings
}

/// The ledger never awaits, locks or reads a clock.
pub(crate) fn ledger_only_decides(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 8] =
        ["async", ".await", ".lock()", "Mutex", "RwLock", "now()", "spawn(", "sleep("];
    words(source, &WORDS, "a deciding room uses")
}

/// Wire code has no sockets.
pub(crate) fn wire_has_no_sockets(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 9] = [
        "async",
        ".await",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "AsyncRead",
        "AsyncWrite",
        "tokio",
        "forebay_seam::net",
    ];
    words(source, &WORDS, "wire code uses")
}

/// Every queue has a bound. A cache that is bounded on the line behind is bounded: made with
/// its bound, it would take all its memory at once.
pub(crate) fn every_queue_has_a_bound(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 4] =
        ["unbounded", "unbounded_channel", "UnboundedSender", "UnboundedReceiver"];
    let lines: Vec<&str> = source.code.lines().collect();
    let is_cache = |number: usize| {
        let made = lines.get(number - 1).is_some_and(|l| l.contains(" = LruCache::unbounded();"));
        made && lines.get(number).is_some_and(|next| next.contains(".resize("))
    };
    let mut findings = words(source, &WORDS, "a queue without a bound:");
    findings.retain(|finding| !is_cache(finding.line));
    findings
}

/// There is no global configuration, nor any other state that no owner hands on. A seed that
/// the process draws for its hashes is neither: nobody can set it, and nothing is kept in it.
pub(crate) fn no_global_state(source: &Source) -> Vec<Finding> {
    const MEANS: [&str; 5] =
        ["lazy_static", "thread_local!", "static mut", "set_var", "set_current_dir"];
    const CHANGEABLE: [&str; 8] =
        ["OnceLock", "OnceCell", "LazyLock", "Mutex", "RwLock", "Atomic", "ArcSwap", "Cell<"];
    let mut findings = words(source, &MEANS, "global state by");
    let lines: Vec<&str> = source.code.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if !is_static(line) {
            continue;
        }
        let rest = lines[index..].join(" ");
        let kind = rest.split(['=', ';']).next().unwrap_or_default();
        let is_seed = kind.contains("LazyLock<") && has_word(kind, "RandomState");
        if !is_seed && CHANGEABLE.iter().any(|cell| kind.contains(cell)) {
            let complaint = "global state by a `static` that changes";
            findings.push(source.finding(index + 1, complaint.to_owned()));
        }
    }
    findings
}

/// Does an item that lives as long as the process begin in `line`?
fn is_static(line: &str) -> bool {
    let item = line.trim_start();
    let shown = item.strip_prefix("pub").map_or(item, |rest| {
        rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest)
    });
    shown.trim_start().starts_with("static ")
}

/// The room of the program that is no view: log lines pass through it, so it counts them.
pub(crate) const COUNTS_LINES: &str = "crates/forebay/src/logging/outlet.rs";

/// Views never count: what they show, a room has counted.
pub(crate) fn views_never_count(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 4] = [".inc()", ".inc_by(", ".fetch_add(", ".observe("];
    words(source, &WORDS, "a view counts with")
}

/// Secrets have no `Debug`, `Display` or `Serialize`: no type that holds one derives them.
pub(crate) fn secrets_cannot_be_shown(source: &Source) -> Vec<Finding> {
    const HOLDERS: [&str; 4] = ["SecretString", "SecretBox", "SecretSlice", "SecretVec"];
    const FIELDS: [&str; 9] = [
        "password",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "client_key",
        "server_key",
        "stored_key",
        "private_key",
    ];
    const RAW: [&str; 7] = ["String", "str>", "Vec<u8>", "[u8", "Bytes", "Box<[u8]>", "Zeroizing"];
    let lines: Vec<&str> = source.code.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if !line.trim_start().starts_with("#[derive(") {
            continue;
        }
        let rest = lines[index..].join("\n");
        let (derives, body) = item(&rest);
        if !["Debug", "Serialize", "Display"].iter().any(|shown| has_word(derives, shown)) {
            continue;
        }
        for line in body.lines() {
            let field = line.trim_start();
            let field = field.strip_prefix("pub ").unwrap_or(field);
            let raw = field.split_once(':').is_some_and(|(name, kind)| {
                FIELDS.contains(&name.trim()) && RAW.iter().any(|raw| kind.contains(raw))
            });
            if raw || HOLDERS.iter().any(|holder| has_word(line, holder)) {
                let what = format!("`{}` can be shown by {}", field.trim(), derives.trim());
                findings.push(source.finding(index + 1, what));
            }
        }
    }
    findings
}

/// The derives and the body of the item at the start of `text`.
fn item(text: &str) -> (&str, &str) {
    let attribute = text.find(")]").map_or(text.len(), |end| end + 2);
    let (derives, rest) = text.split_at(attribute);
    let mut depth = 0_usize;
    for (position, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return (derives, &rest[..position]),
            '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return (derives, &rest[..position]),
            _ => {}
        }
    }
    (derives, rest)
}

fn words(source: &Source, words: &[&str], complaint: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.lines() {
        for word in words.iter().filter(|word| has_word(line, word)) {
            let shown = word.trim_matches(|c| !is_name(c));
            findings.push(source.finding(number, format!("{complaint} `{shown}`")));
        }
    }
    findings
}
