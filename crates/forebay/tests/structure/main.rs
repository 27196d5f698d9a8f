//! Keeps the walls: the direction of the crates, and the invariants of absence that
//! ARCHITECTURE.md promises. What the compiler or a lint already refuses is not repeated.
//!
//! Each rule is a function in [`rules`]; for each there is a test that no source breaks it,
//! and one that it finds a violation planted in a string.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod mutants;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use source::{Finding, Source, read, root};

type Rule = fn(&Source) -> Vec<Finding>;

/// What each crate may use of its own family.
const MAY_USE: [(&str, &[&str]); 6] = [
    ("forebay-seam", &[]),
    ("forebay-pool", &["forebay-seam"]),
    ("forebay-postgres", &["forebay-pool", "forebay-seam"]),
    ("forebay-http", &["forebay-pool", "forebay-seam"]),
    ("forebay-sizing", &["forebay-pool", "forebay-seam"]),
    (
        "forebay",
        &["forebay-http", "forebay-pool", "forebay-postgres", "forebay-seam", "forebay-sizing"],
    ),
];

/// The Cargo.toml of `folder` (from the root).
fn manifest(folder: &str) -> toml::Table {
    fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The crates of the family that `manifest` names, in any of its tables of dependencies.
fn family(manifest: &toml::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            found.extend(table.keys().filter(|name| name.starts_with("forebay")).cloned());
        } else {
            found.extend(family(table));
        }
    }
    found
}

fn all_sources() -> Vec<Source> {
    MAY_USE.iter().flat_map(|(name, _)| read(&format!("crates/{name}/src"))).collect()
}

fn holds(rule: Rule, sources: impl IntoIterator<Item = Source>) {
    let findings: Vec<_> = sources.into_iter().flat_map(|s| rule(&s)).collect();
    let list: Vec<_> = findings.iter().map(Finding::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

fn bites(rule: Rule, planted: &str) {
    let source = Source::new("crates/planted/src/wire.rs", planted);
    assert!(!rule(&source).is_empty(), "not found: {planted}");
    let commented: String = planted.lines().map(|line| format!("// {line}\n")).collect();
    assert_eq!(rule(&Source::new("a.rs", &commented)), [], "a comment may say it");
}

#[test]
fn the_crates_know_only_those_below_them() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("say in MAY_USE what the new crate `{name}` may use"));
        for used in family(&manifest(&format!("crates/{name}"))) {
            assert!(allowed.contains(&used.as_str()), "`{name}` must not use `{used}`");
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), MAY_USE.len(), "MAY_USE names a crate that is gone");
}

#[test]
fn a_forbidden_dependency_is_found_in_every_kind_of_table() {
    for table in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.dependencies"] {
        let text = format!("[package]\nname = \"x\"\n[{table}]\nforebay-http.workspace = true");
        assert_eq!(family(&text.parse().unwrap()).len(), 1, "{table}");
    }
}

#[test]
fn one_provider_of_cryptography_and_no_foreign_tls() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "-e", "normal,build", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.contains("rustls") && names.contains("aws-lc-rs"), "the tree was not read");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!names.contains(banned), "`{banned}` came in: cargo tree -i {banned}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let lints = &manifest("")["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for lint in ["await_holding_lock", "disallowed_methods", "disallowed_types", "unwrap_used"] {
        assert!(lints["clippy"].get(lint).is_some(), "clippy::{lint} keeps a promise of ours");
    }
    for (name, _) in MAY_USE {
        let inherits = manifest(&format!("crates/{name}"))
            .get("lints")
            .and_then(|lints| lints.get("workspace")?.as_bool());
        assert_eq!(inherits, Some(true), "`{name}` lacks `[lints] workspace = true`");
    }
}

#[test]
fn the_engine_names_no_protocol_file_or_exporter() {
    holds(rules::engine_names_no_protocol, read("crates/forebay-pool/src"));
    bites(rules::engine_names_no_protocol, "use hyper::Client;");
    bites(rules::engine_names_no_protocol, "const SCHEME: &str = \"HTTP\";");
    bites(rules::engine_names_no_protocol, "struct PostgresServer;");
    bites(rules::engine_names_no_protocol, "let text = std::fs::read(\"a\");");
}

#[test]
fn the_ledger_never_awaits_locks_or_reads_a_clock() {
    let deciding: Vec<_> =
        read("crates/forebay-pool/src").into_iter().filter(rules::decides).collect();
    assert!(deciding.iter().any(|s| s.path.ends_with("/class.rs")), "class is a deciding room");
    holds(rules::ledger_only_decides, deciding);
    bites(rules::ledger_only_decides, "pub async fn step() {}");
    bites(rules::ledger_only_decides, "let seats = self.seats.lock().free;");
    bites(rules::ledger_only_decides, "let now = time::now();");
    bites(rules::ledger_only_decides, "queue.pop().await;");
    assert!(rules::decides(&Source::new("crates/forebay-pool/src/ledger/step.rs", "")));
    assert!(!rules::decides(&Source::new("crates/forebay-pool/src/pool/task.rs", "")));
}

#[test]
fn wire_code_has_no_sockets() {
    holds(rules::wire_has_no_sockets, all_sources().into_iter().filter(rules::is_wire));
    bites(rules::wire_has_no_sockets, "fn read(stream: &mut TcpStream) {}");
    bites(rules::wire_has_no_sockets, "async fn read() {}");
    assert!(rules::is_wire(&Source::new("crates/forebay-postgres/src/wire/frame.rs", "")));
}

#[test]
fn every_queue_has_a_bound() {
    holds(rules::every_queue_has_a_bound, all_sources());
    bites(rules::every_queue_has_a_bound, "let (tx, rx) = mpsc::unbounded_channel();");
    bites(rules::every_queue_has_a_bound, "let (tx, rx) = async_channel::unbounded();");
    bites(rules::every_queue_has_a_bound, "let mut cache = LruCache::unbounded();\ncache.get(1);");
    let bounded = "let mut cache = LruCache::unbounded();\ncache.resize(MOST);";
    assert_eq!(rules::every_queue_has_a_bound(&Source::new("a.rs", bounded)), []);
}

#[test]
fn there_is_no_global_configuration() {
    holds(rules::no_global_state, all_sources());
    bites(rules::no_global_state, "static CONFIG: OnceLock<Config> = OnceLock::new();");
    bites(rules::no_global_state, "    pub static LIMIT: AtomicU32 = AtomicU32::new(0);");
    bites(rules::no_global_state, "thread_local! { static A: u8 = 0; }");
    bites(rules::no_global_state, "static mut A: u8 = 0;");
    bites(
        rules::no_global_state,
        "pub(crate) static A:\n    LazyLock<Config> = LazyLock::new(load);",
    );
    for fine in [
        // A table that never changes, a field, a seed.
        "static NAMES: [&str; 2] = [\"a\", \"b\"];",
        "struct Pool { roster: OnceLock<Roster> }",
        "static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);",
    ] {
        assert_eq!(rules::no_global_state(&Source::new("a.rs", fine)), [], "{fine}");
    }
}

#[test]
fn views_never_count() {
    let is_view = |source: &Source| {
        let is_demo = source.path.starts_with("crates/forebay/src/demo");
        !is_demo && source.path != rules::COUNTS_LINES
    };
    let sources = read("crates/forebay/src");
    assert!(sources.iter().any(|source| source.path == rules::COUNTS_LINES), "it has moved");
    holds(rules::views_never_count, sources.into_iter().filter(is_view));
    bites(rules::views_never_count, "self.scrapes.fetch_add(1, Relaxed);");
    bites(rules::views_never_count, "checkouts.inc();");
}

#[test]
fn secrets_have_no_debug_display_or_serialize() {
    holds(rules::secrets_cannot_be_shown, all_sources());
    bites(
        rules::secrets_cannot_be_shown,
        "#[derive(Clone, Debug)]\nstruct Login {\n    user: String,\n    password: SecretString,\n}",
    );
    bites(rules::secrets_cannot_be_shown, "#[derive(Serialize)]\nstruct Login(SecretString);");
    bites(
        rules::secrets_cannot_be_shown,
        "#[derive(\n    Clone,\n    Debug,\n)]\npub struct Verifier {\n    pub stored_key: [u8; 32],\n}",
    );
    let place = "#[derive(Debug)]\nstruct Login {\n    password: Option<SecretRef>,\n}";
    assert_eq!(rules::secrets_cannot_be_shown(&Source::new("a.rs", place)), []);
}

#[test]
fn the_map_names_files_that_exist() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut paths = map.split('`').filter(|word| word.ends_with(".rs")).peekable();
    assert!(paths.peek().is_some(), "ARCHITECTURE.md names no files");
    let lost: Vec<_> = paths.filter(|p| !root().join("crates").join(p).is_file()).collect();
    assert!(lost.is_empty(), "ARCHITECTURE.md names files that are gone: {lost:?}");
}
