//! The list of PgBouncer's settings and what becomes of each, as a page of documentation.

use forebay_postgres::console::KnownSetting;

use super::parameter::{OF_DATABASES, OF_PEERS, OF_USERS, Parameter};
use super::setting::{Fate, SETTINGS, Setting};

/// Where the generated part begins in `docs/pgbouncer.md`; it goes to the end.
pub const MARK: &str = "<!-- Written by `forebay pgbouncer --settings`; do not edit. -->";

/// Every setting of PgBouncer 1.25, in the order of `SHOW CONFIG`.
pub fn settings() -> impl Iterator<Item = KnownSetting> {
    SETTINGS.iter().map(Setting::known)
}

/// The tables, Markdown.
pub fn markdown() -> String {
    let mut text =
        format!("{MARK}\n\n### `[pgbouncer]`\n\n| setting | default | here |\n|---|---|---|\n");
    for setting in SETTINGS {
        let default = setting.default.map(shorten).unwrap_or_default();
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        text.push_str(&format!("| `{}` | {default} | {} |\n", setting.name, fate(setting.fate)));
    }
    for (name, parameters) in
        [("databases", OF_DATABASES), ("users", OF_USERS), ("peers", OF_PEERS)]
    {
        text.push_str(&format!("\n### `[{name}]`\n\n| key | here |\n|---|---|\n"));
        for Parameter { name, fate: becomes, .. } in parameters {
            text.push_str(&format!("| `{name}` | {} |\n", fate(*becomes)));
        }
    }
    text
}

fn fate(fate: Fate) -> String {
    match fate {
        Fate::Becomes(key) => format!("`{key}`"),
        Fate::Resembles { key, differs } => format!("`{key}`; {differs}"),
        Fate::Mode(what) => what.to_owned(),
        Fate::Nothing(why) => format!("not needed: {why}"),
        Fate::Instead(what) => format!("not done: {what}"),
        Fate::Refused(what) => format!("**refused** unless it is the default: {what}"),
    }
    .replace('|', "\\|")
}

/// A default that fits a table.
fn shorten(default: &str) -> String {
    if default.len() > 40 { "(a query of pg_authid)".to_owned() } else { default.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_list_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pgbouncer.md");
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let list = committed.find(MARK).and_then(|at| committed.get(at..)).unwrap_or_default();
        assert!(
            list == markdown(),
            "docs/pgbouncer.md is out of date; write what follows the mark anew with\n\
             cargo run -- pgbouncer --settings"
        );
    }
}
