//! Who may log in, and to the console.

use super::{NoteKind, Work};

const TABLE: &[&str] = &["postgres", "auth_query"];

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    let place = file.place("auth_type");
    let name = file.text("auth_type").unwrap_or_default().to_ascii_lowercase();
    let auth = match name.as_str() {
        "plain" => "password",
        "ldap" | "pam" => {
            return work.refuse(
                place,
                format!(
                    "auth_type: there is no `{name}` here: use `scram-sha-256` with `auth_query` \
                     or `auth_file`, `cert`, or `hba`"
                ),
            );
        }
        other => other,
    };
    work.set("auth", auth, "auth_type");
    if name == "plain" {
        work.set("cleartext_without_tls", true, "auth_type");
        work.note(
            NoteKind::Differs,
            "auth_type",
            place,
            "passwords cross the wire as they are: better use `scram-sha-256`, which needs no \
             change in applications",
        );
    }
    if matches!(name.as_str(), "trust" | "any") && !work.is_local {
        work.set("trust_everywhere", true, "auth_type");
        work.note(
            NoteKind::Differs,
            "auth_type",
            place,
            format!(
                "WARNING: `{name}` lets in whoever reaches `listen_addr`, as whoever they say: \
                 use `scram-sha-256`, or listen on 127.0.0.1"
            ),
        );
    }
    for (name, key) in [
        ("auth_file", "users_file"),
        ("auth_hba_file", "hba_file"),
        ("auth_ident_file", "ident_file"),
    ] {
        if let Some(path) = file.nonempty(name) {
            work.set(key, path, name);
        }
    }
    if let Some(user) = file.nonempty("auth_user") {
        work.document.set(TABLE, "user", user).from(file.place("auth_user"));
        // Where the file asks nothing else, our own question is the same, and safer.
        for (name, key) in [("auth_query", "query"), ("auth_dbname", "database")] {
            if let Some(said) = file.said(name).filter(|said| !said.value.is_empty()) {
                work.document.set(TABLE, key, said.value.as_str()).from(Some(&said.place));
            }
        }
    }
    for name in ["admin_users", "stats_users"] {
        let users = file.list(name);
        if !users.is_empty() {
            work.set(name, users, name);
        }
    }
}
