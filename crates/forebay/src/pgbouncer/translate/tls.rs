//! TLS: towards clients here, towards servers for the tables that [`super::servers`] writes.

use super::super::file::File;
use super::{NoteKind, Work};

/// Versions that exist here, by PgBouncer's names.
const VERSIONS: [(&str, &str); 2] = [("tlsv1.2", "1.2"), ("tlsv1.3", "1.3")];
/// Names for "whatever OpenSSL does by default".
const DEFAULT_CIPHERS: [&str; 6] = ["default", "secure", "fast", "normal", "all", "<empty>"];

const TABLE: &[&str] = &["postgres", "tls"];

pub(super) fn translate(work: &mut Work<'_>) {
    let file = work.file;
    let mode = file.text("client_tls_sslmode").unwrap_or_default().to_ascii_lowercase();
    if mode == "disable" {
        return;
    }
    let (cert, key) = (file.nonempty("client_tls_cert_file"), file.nonempty("client_tls_key_file"));
    let (Some(cert), Some(key)) = (cert, key) else {
        let reason = "client_tls_sslmode: to take TLS connections, set `client_tls_cert_file` \
                      and `client_tls_key_file`";
        return work.refuse(file.place("client_tls_sslmode"), reason);
    };
    let place = file.place("client_tls_sslmode");
    work.document.set(TABLE, "mode", mode).from(place);
    work.document.set(TABLE, "cert", cert).from(file.place("client_tls_cert_file"));
    work.document.set(TABLE, "key", key).from(file.place("client_tls_key_file"));
    if let Some(authority) = file.nonempty("client_tls_ca_file") {
        work.document.set(TABLE, "ca_file", authority).from(file.place("client_tls_ca_file"));
    }
    limits(work, Side::Clients, TABLE);
}

/// Towards whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Clients,
    Servers,
}

impl Side {
    /// PgBouncer's names of protocols, ciphers, and ciphers of TLS 1.3.
    fn theirs(self) -> [&'static str; 3] {
        match self {
            Self::Clients => ["client_tls_protocols", "client_tls_ciphers", "client_tls13_ciphers"],
            Self::Servers => ["server_tls_protocols", "server_tls_ciphers", "server_tls13_ciphers"],
        }
    }

    /// Ours of the lowest version, the highest, and ciphers.
    fn ours(self) -> [&'static str; 3] {
        match self {
            Self::Clients => ["min_version", "max_version", "ciphers"],
            Self::Servers => ["ssl_min_version", "ssl_max_version", "ssl_ciphers"],
        }
    }
}

/// Versions and ciphers, into `table`.
pub(super) fn limits(work: &mut Work<'_>, side: Side, table: &[&str]) {
    let file = work.file;
    let [protocols, ..] = side.theirs();
    let [lowest, highest, ciphers] = side.ours();
    match versions(file, protocols) {
        Ok((min, max)) => {
            if min != "1.2" {
                work.document.set(table, lowest, min).from(file.place(protocols));
            }
            if max != "1.3" {
                work.document.set(table, highest, max).from(file.place(protocols));
            }
        }
        Err(reason) => return work.refuse(file.place(protocols), format!("{protocols}: {reason}")),
    }
    let [_, old, new] = side.theirs();
    let mut named = Vec::new();
    for name in [old, new] {
        let Some(text) = file.nonempty(name) else { continue };
        if DEFAULT_CIPHERS.iter().any(|default| text.eq_ignore_ascii_case(default)) {
            continue;
        }
        if text.contains(['!', '+', '@', '-']) && !text.contains("ECDHE-") && !text.contains("TLS_")
        {
            let said = "a rule in OpenSSL's language has no equivalent: the ciphers are the \
                        strong ones of TLS 1.2 and 1.3";
            work.note(NoteKind::Dropped, name, file.place(name), said);
            continue;
        }
        named.extend(text.split([':', ',', ' ']).filter(|name| !name.is_empty()));
    }
    if !named.is_empty() {
        let place = file.place(old).or(file.place(new));
        work.document.set(table, ciphers, named).from(place);
    }
}

/// The lowest and the highest version that `name` allows.
fn versions(file: &File, name: &str) -> Result<(&'static str, &'static str), &'static str> {
    let text = file.text(name).unwrap_or_default().to_ascii_lowercase();
    if matches!(text.as_str(), "" | "secure" | "all" | "legacy" | "default") {
        return Ok(("1.2", "1.3"));
    }
    let names: Vec<_> = text.split([',', ':', ' ']).filter(|name| !name.is_empty()).collect();
    let known = ["tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3", "secure", "all", "legacy"];
    if names.iter().any(|name| !known.contains(name)) {
        return Err("expected `secure`, `all`, or some of tlsv1.2, tlsv1.3");
    }
    let shortcut = |name: &&str| matches!(*name, "secure" | "all" | "legacy");
    if names.iter().any(shortcut) {
        return Ok(("1.2", "1.3"));
    }
    let mut allowed = VERSIONS.iter().filter(|(theirs, _)| names.contains(theirs));
    let first = allowed.next().ok_or(
        "TLS 1.0 and 1.1 do not exist here: add `tlsv1.2` or `tlsv1.3`, which every driver of \
         the last ten years speaks",
    )?;
    Ok((first.1, allowed.next().unwrap_or(first).1))
}
